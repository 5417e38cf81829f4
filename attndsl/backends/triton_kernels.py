"""The passes of the GPU back end over one tiled mask: tensors to launches."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from attndsl.backends import kernels
from attndsl.backends.arguments import (
    BackwardKeysCall,
    BackwardQueriesCall,
    ForwardCall,
    MergeOutputsCall,
    PrepareBackwardCall,
    Prepared,
    ScoreCall,
    SumChunksCall,
    by_name,
    strides,
)
from attndsl.backends.configs import (
    Config,
    Pass,
    architecture,
    options,
    padded,
)
from attndsl.backends.dtypes import negated, out_dtype
from attndsl.backends.kernel_metadata import kernel_metadata
from attndsl.backends.launching import Launch
from attndsl.backends.open_schedule import OpenSchedule
from attndsl.backends.pages import Pages
from attndsl.backends.pass_launches import (
    ARGUMENTS,
    NOTHING,
    UNSCORED,
    Gained,
    PassLauncher,
    T,
    also_in,
    few,
    layout_of,
    merge_launch,
    preparation,
)
from attndsl.backends.protocol import Request
from attndsl.backends.standalone import on_device, precision, reachable
from attndsl.backends.tuning import (
    Clock,
    Kind,
    Tuned,
    cautious,
    climb,
    default_config,
    neighbours,
    remember,
)
from attndsl.backends.work_partition import orders_agree
from attndsl.schedule import TiledMask

_MOST_KEPT: Final = 64  # launches of a part: those of calls whose tensors lie in memory alike


@dataclass(frozen=True, slots=True, eq=False)
class TritonKernels:
    """The passes over one tiled mask, each in the tiles of its config."""

    part: TiledMask | OpenSchedule
    request: Request
    configs: Mapping[Pass, Config]
    longest: int | None
    clock: Clock
    folded: int = 0  # heads that fill a tile together, where queries are few; 0 where they are many
    scored: Mapping[Pass, Mapping[str, Any]] = field(default_factory=dict)  # arguments about scores
    _kept: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes of the tiled mask."""
        return self.part.nbytes

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float,
        pages: Pages | None = None,
        read: ScoreCall = UNSCORED,
    ) -> tuple[Tensor, Tensor]:
        """(out [B, H, Q, Dv], lse [B, H, Q]); ``read`` is what scores read."""
        q, k, v = map(reachable, (q, k, v))
        whole = q.new_empty((*q.shape[:3], v.shape[3]), dtype=out_dtype(q.dtype))
        whole_lse = q.new_empty(q.shape[:3], dtype=torch.float32)
        if whole_lse.numel() == 0:
            return whole, whole_lse
        if scale < 0 and not self.scored:  # the kernel's factor on the scores keeps their order
            q, scale = negated(q), -scale
        q, out, lse = (self._with_heads_folded(x) for x in (q, whole, whole_lse))
        keys, values = (k, v) if pages is None else (pages.k, pages.v)
        with on_device(q):
            walk = self._walk("forward", (q, k, v, out), (out,), pages)
            rows, lists = walk.rows, walk.lists
            part_out, part_lse = lists.shares(q, rows, v.shape[3]), lists.shares(q, rows)
            walk.launch(
                ForwardCall(
                    Q=q,
                    K=keys,
                    V=values,
                    Out=out,
                    Lse=lse,
                    PartOut=part_out,
                    PartLse=part_lse,
                    PageTable=None if pages is None else pages.numbers(),
                    **read._asdict(),
                    scale=float(scale),
                )
            )
            for merge in walk.merges:
                merge(MergeOutputsCall(PartOut=part_out, PartLse=part_lse, Out=out, Lse=lse))
        return whole, whole_lse

    def _with_heads_folded(self, x: Tensor) -> Tensor:
        """``x`` [B, H, Q, ...] with the queries of heads that fill a tile together one after the other."""
        if self.folded <= 1:
            return x
        batch, heads, count, *rest = x.shape
        return x.reshape(batch, heads // self.folded, self.folded * count, *rest)

    def backward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        dout: Tensor,
        dlse: Tensor | None,
        *,
        scale: float,
        read: ScoreCall = UNSCORED,
        gained: Gained = NOTHING,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv), each in the dtype of its input; ``gained`` is written to, too."""
        q, k, v, dout = map(reachable, (q, k, v, dout))
        dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
        if lse.numel() == 0 or k.numel() == 0:
            return dq.zero_(), dk.zero_(), dv.zero_()
        with on_device(q):
            given = self._prepared(q, k, v, out, lse, dout, dlse)
            self._backward_queries(given, dq, scale, read, gained.of_query)
            self._backward_keys(given, dk, dv, scale, read, gained.of_key)
            if gained.at_pairs is not None:
                gained.at_pairs(given)
        return dq, dk, dv

    @torch.no_grad()
    def tune(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> tuple[Tuned, ...]:
        """Time configs of each pass around the default, keep the fastest; of the backward if a gradient is wanted."""
        q, k, v = (reachable(x.detach()) for x in (q, k, v))
        out, lse = self.forward(q, k, v, scale=scale)
        dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
        if out.numel() * k.numel() == 0:
            return ()
        with on_device(q):
            if self.folded:
                return (self._tuned("forward", lambda it: it.forward(q, k, v, scale=scale)),)
            given = self._prepared(q, k, v, out, lse, out, None)
            runs: dict[Pass, Callable[[TritonKernels], Any]] = {
                "forward": lambda it: it.forward(q, k, v, scale=scale),
                "backward_queries": lambda it: it._backward_queries(given, dq, scale),
                "backward_keys": lambda it: it._backward_keys(given, dk, dv, scale),
            }
            return tuple(self._tuned(which, runs[which]) for which in self.configs)

    def _tuned(self, which: Pass, run: Callable[[TritonKernels], Any]) -> Tuned:
        def cost(config: Config) -> float:
            return cautious(self.clock, lambda: run(self._with(which, config)))

        kind: Kind = "few_queries" if self.folded else which
        start = default_config(kind, self.request)
        best, known = climb(start, neighbours(kind, self.request), cost)
        remember(kind, self.request, best)
        return Tuned(which, best, known[best], start, known[start], len(known))

    def _with(self, which: Pass, config: Config) -> TritonKernels:
        """The same passes, one of them in another config."""
        assert isinstance(self.part, TiledMask), "calls are tuned over schedules that are known"
        part, configs = also_in(self.part, config.tile), {**self.configs, which: config}
        return TritonKernels(part, self.request, configs, self.longest, self.clock, self.folded)

    def _prepared(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        dout: Tensor,
        dlse: Tensor | None,
    ) -> Prepared:
        """Run the kernel that prepares the backward."""
        level, delta = torch.empty_like(lse), torch.empty_like(lse)

        prepare = self._keep(
            ("prepare", dlse is None, layout_of((out, dout, lse))),
            lambda: preparation(out, dout, dlse),
        )
        prepare(
            PrepareBackwardCall(
                Out=out,
                GradOut=dout,
                Lse=lse.contiguous(),
                GradLse=None if dlse is None else dlse.contiguous(),
                Level=level,
                Delta=delta,
            )
        )
        return Prepared(Q=q, K=k, V=v, GradOut=dout, Level=level, Delta=delta)

    def _backward_queries(
        self,
        given: Prepared,
        dq: Tensor,
        scale: float,
        read: ScoreCall = UNSCORED,
        dx: Tensor | None = None,
    ) -> None:
        """Writes the gradient of the queries, and of their columns, dx [B, H, Q, n]."""
        results = [dq] if dx is None else [dq, dx]
        walk = self._walk("backward_queries", given[:4], results)
        parts = [walk.lists.shares(x, walk.rows, x.shape[3]) for x in results]
        of_x = None if dx is None else parts[1]
        tensors = {**read._asdict(), "GradX": dx, "PartX": of_x}
        walk.launch(
            BackwardQueriesCall(*given, GradQ=dq, PartQ=parts[0], **tensors, scale=float(scale))
        )
        for merge, part, x in zip(walk.merges, parts, results, strict=False):  # none, or all
            merge(SumChunksCall(Part=part, Out=x))

    def _backward_keys(
        self,
        given: Prepared,
        dk: Tensor,
        dv: Tensor,
        scale: float,
        read: ScoreCall = UNSCORED,
        dx: Tensor | None = None,
    ) -> None:
        """Writes the gradients of keys and values, and of columns of the keys, dx [B, H, K, n]."""
        q, k, v = given[:3]
        group = q.shape[1] // k.shape[1]
        if self._joined(group) and (dx is None or group == 1):
            self._joined_keys(given, (dk, dv) if dx is None else (dk, dv, dx), scale, read)
            return
        # heads that share keys but not the order of their tiles: each has sums of its own at first
        k, v = (x.repeat_interleave(group, 1) for x in (k, v))
        dk_each, dv_each = torch.empty_like(k), torch.empty_like(v)
        results = (dk_each, dv_each) if dx is None else (dk_each, dv_each, dx)
        self._joined_keys(given._replace(K=k, V=v), results, scale, read)
        for mine, total in ((dk_each, dk), (dv_each, dv)):
            by_member = mine.reshape(*total.shape[:2], group, *total.shape[2:])
            total.copy_(by_member.sum(2, dtype=torch.float32))

    def _joined_keys(
        self, given: Prepared, results: Sequence[Tensor], scale: float, read: ScoreCall
    ) -> None:
        """The gradients of keys whose query heads are walked together."""
        walk = self._walk("backward_keys", given[:4], results)
        parts = [walk.lists.shares(x, walk.rows, x.shape[3]) for x in results]
        dk, dv, *dx = results
        tensors = {
            **read._asdict(),
            "GradX": dx[0] if dx else None,
            "PartX": parts[2] if dx else None,
        }
        walk.launch(
            BackwardKeysCall(
                *given,
                GradK=dk,
                GradV=dv,
                PartK=parts[0],
                PartV=parts[1],
                **tensors,
                scale=float(scale),
            )
        )
        for merge, part, x in zip(walk.merges, parts, results, strict=False):  # none, or all
            merge(SumChunksCall(Part=part, Out=x))

    def _joined(self, group: int) -> bool:
        """Whether a key tile meets the query heads that share it in one walk."""
        if isinstance(self.part, OpenSchedule):
            return self.part.is_joined(group)
        schedule = self.part.schedules[self.configs["backward_keys"].tile]
        return self._keep(("joined", group), lambda: orders_agree(schedule, group))

    def _keep(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value made under this key before, or made now."""
        found: T | None = self._kept.get(key)
        if found is None:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            found = self._kept[key] = make()
        return found

    def _walk(
        self,
        which: Pass,
        strided: Sequence[Tensor],
        results: Sequence[Tensor],
        pages: Pages | None = None,
    ) -> PassLauncher:
        """One of the three passes, over tensors with strides that the kernel is given; kept."""
        lie = () if pages is None else layout_of((pages.table, pages.k, pages.v))
        key = which, precision(strided[0].dtype), layout_of(strided), lie
        return self._keep(key, lambda: self._made(which, strided, results, pages))

    def _made(
        self,
        which: Pass,
        strided: Sequence[Tensor],
        results: Sequence[Tensor],
        pages: Pages | None,
    ) -> PassLauncher:
        q, k, v, beside = strided
        config, is_by_key = self.configs[which], which == "backward_keys"
        asked = config.tile, is_by_key, q, k, self.longest, max(1, self.folded)
        part = self.part
        lists = (
            part.metadata(*asked)
            if isinstance(part, OpenSchedule)
            else kernel_metadata(part, *asked)
        )
        owner, keys, values = results[0], *((k, v) if pages is None else (pages.k, pages.v))
        rows = config.bk if is_by_key else config.bq
        if self.folded:
            rows = padded(q.shape[2])
        passing, tile = (q.shape[2], config.bq) if is_by_key else (k.shape[2], config.bk)
        call, args = ARGUMENTS[which]
        given = args(
            **{**by_name(lists.tiles), **self.scored.get(which, {})},
            **(self._of_forward(pages) if which == "forward" else {}),
            **strides(q=q, k=keys, v=values, **{"o" if which == "forward" else "g": beside}),
            **{"kv_heads" if is_by_key else "heads": owner.shape[1]},
            q_len=q.shape[2],
            k_len=k.shape[2],
            GROUP=q.shape[1] // k.shape[1],
            D=q.shape[3],
            DV=v.shape[3],
            BD=padded(q.shape[3]),
            BDV=padded(v.shape[3]),
            BQ=rows if self.folded else config.bq,
            BK=config.bk,
            PRECISION=precision(q.dtype),
            EVEN=passing % tile == 0 and not self._clears(pages),
        )
        compiled = options(architecture(q.device), config)
        launch = Launch(getattr(kernels, which), lists.grid(owner), call, given, **compiled)
        merges = [merge_launch(which, rows, lists, x) for x in results] if lists.tiles.SPLIT else []
        return PassLauncher(rows, lists, launch, tuple(merges))

    def _clears(self, pages: Pages | None) -> bool:
        """Whether keys that no query sees may hold anything, as in a cache."""
        return pages is not None or few(self.request) is not None

    def _of_forward(self, pages: Pages | None) -> dict[str, int]:
        """Arguments of the forward about pages, and about heads that fill a tile together."""
        height = self.configs["forward"].bq
        folding = {"period": self.request.q_len, "FOLDED": height if self.folded else 0}
        folding |= {"CLEARS": self._clears(pages)}
        if pages is None:
            return folding | {"n_columns": 0, "n_pages": 0, "PAGE": 0}
        columns, count = pages.table.shape[1], len(pages.k)
        return folding | {"n_columns": columns, "n_pages": count, "PAGE": pages.page}
