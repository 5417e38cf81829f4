"""The GPU backend: schedules to the kernels' lists, tensors to their launches.

Under Triton's interpreter (``TRITON_INTERPRET=1``, set before Python starts) the same kernels run on CPU
tensors, slowly and exactly: for tests, and for looking at a kernel where there is no GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
import triton
from torch import Tensor

from attndsl.backends import kernels
from attndsl.backends.configs import (
    Config,
    Pass,
    architecture,
    default_config,
    fitting,
    options,
    padded,
)
from attndsl.backends.device_lists import DeviceLists, device_lists
from attndsl.backends.launching import Launch
from attndsl.backends.protocol import EIGHT_BITS, Request, out_dtype
from attndsl.backends.tuning import (
    Clock,
    Tuned,
    cautious,
    climb,
    configured,
    edition,
    neighbours,
    remember,
    stopwatch,
)
from attndsl.backends.work import Work
from attndsl.backends.worklists import orders_agree

DTYPES = (torch.bfloat16, torch.float16, torch.float32, *EIGHT_BITS)
WIDEST = 256
INTERPRETED = not isinstance(kernels.forward, triton.JITFunction)
ROWS = 64  # of a program that prepares the backward pass


class Triton:
    """Attention over live tiles by Triton kernels; forward and backward, without atomics.

    Equal inputs give equal bits. A value that is not finite may reach queries that do not see it, if
    they share a tile with one that does, as in other GPU kernels.
    """

    name = "triton"

    def __init__(
        self,
        config: Callable[[Pass, Tensor, Tensor], Config] | None = None,
        longest: int | None = None,
        clock: Clock = stopwatch,
    ) -> None:
        """``config``: of a pass over q and v; None takes what was measured, else the default.

        ``longest``: most tiles of one program; None balances the device. ``clock`` measures, to tune.
        """
        self._config = config
        self._longest = longest
        self._clock = clock

    def supports(self, request: Request) -> str | None:
        """GPU tensors of bfloat16, float16 or float32, head dims from 1 to 256; the forward of 8 bits.

        Scores of 8-bit tensors are 8-bit products, values are widened to float16 and weighed so.
        """
        if request.dtype not in DTYPES:
            known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            return f"it has kernels for {known}, not for {request.dtype}"
        if request.device != "cuda" and not (INTERPRETED and request.device == "cpu"):
            hint = ", or on the CPU under TRITON_INTERPRET=1" if request.device == "cpu" else ""
            return f"it runs on GPUs{hint}, and the tensors are on {request.device}"
        if INTERPRETED and request.dtype == torch.bfloat16:
            return "Triton's interpreter multiplies bfloat16 as if it were integers"
        for label, width in (("head_dim", request.head_dim), ("value dim", request.value_dim)):
            if not 1 <= width <= WIDEST:
                return f"its kernels take a {label} from 1 to {WIDEST}, not {width}"
        device, is_small = torch.device(request.device), request.dtype in EIGHT_BITS
        if is_small and not _multiplies_eight_bits(device):
            return f"{request.dtype} takes an NVIDIA GPU of compute capability 8.9 or newer"
        size, widths = request.dtype.itemsize, (request.head_dim, request.value_dim)
        arch, passes = architecture(device), ("forward",) if is_small else get_args(Pass)
        if not all(fitting(which, arch, size, *widths) for which in passes):
            return (
                f"{request.dtype} of width {max(widths)} does not fit the shared memory of {arch}"
            )
        return None

    def forward(
        self, work: Work, q: Tensor, k: Tensor, v: Tensor, *, scale: float
    ) -> tuple[Tensor, Tensor]:
        """(out [B, H, Q, Dv], lse [B, H, Q])."""
        q, k, v = map(reachable, (q, k, v))
        out = q.new_empty((*q.shape[:3], v.shape[3]), dtype=out_dtype(q.dtype))
        lse = q.new_empty(q.shape[:3], dtype=torch.float32)
        if lse.numel() == 0:
            return out, lse
        width, results = v.shape[3], (out, lse)
        with _on_device(q):
            walk = self._walk("forward", work, (q, k, v, out), (out,))
            bq, lists = walk.config.bq, walk.lists
            parts = lists.shares(q, bq, width), lists.shares(q, bq)
            walk.launch((q, k, v, *results, *parts), scale)
            for merge in walk.merges:
                merge((*parts, *results))
        return out, lse

    def backward(
        self,
        work: Work,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        dout: Tensor,
        dlse: Tensor | None,
        *,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv), each in the dtype of its input."""
        q, k, v, dout = map(reachable, (q, k, v, dout))
        dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
        if lse.numel() == 0 or k.numel() == 0:
            return dq.zero_(), dk.zero_(), dv.zero_()
        with _on_device(q):
            given = self._prepared(work, q, k, v, out, lse, dout, dlse)
            self._backward("backward_queries", work, given, (dq,), scale)
            self._backward_keys(work, given, (dk, dv), scale)
        return dq, dk, dv

    @torch.no_grad()
    def tune(
        self, work: Work, q: Tensor, k: Tensor, v: Tensor, *, scale: float
    ) -> tuple[Tuned, ...]:
        """Time configs of each pass around the default, keep the fastest; of the backward if a gradient is wanted."""
        wanted = any(x.requires_grad for x in (q, k, v))
        q, k, v = (reachable(x.detach()) for x in (q, k, v))
        out, lse = self.forward(work, q, k, v, scale=scale)
        grads, empty = [x.new_empty(x.shape) for x in (q, k, v)], out.numel() * k.numel() == 0
        with _on_device(q):
            given = [] if empty else self._prepared(work, q, k, v, out, lse, out, None)
            runs: dict[Pass, Callable[[Triton], Any]] = {
                "forward": lambda it: it.forward(work, q, k, v, scale=scale),
                "backward_queries": lambda it: it._backward(
                    "backward_queries", work, given, grads[:1], scale
                ),
                "backward_keys": lambda it: it._backward_keys(work, given, grads[1:], scale),
            }
            passes = () if empty else get_args(Pass)[: None if wanted else 1]
            return tuple(self._tuned(which, runs[which], work, q, k, v) for which in passes)

    def _tuned(
        self,
        which: Pass,
        run: Callable[[Triton], Any],
        work: Work,
        q: Tensor,
        k: Tensor,
        v: Tensor,
    ) -> Tuned:
        def cost(config: Config) -> float:
            other = Triton(lambda *_: config, self._longest)
            return cautious(self._clock, lambda: run(other))

        start = default_config(which, q, v)
        best, known = climb(start, neighbours(which, q, v), cost)
        remember(which, work, q, k, v, best)
        return Tuned(which, best, known[best], start, known[start], len(known))

    def _chosen(self, which: Pass, work: Work, q: Tensor, k: Tensor, v: Tensor) -> Config:
        return self._config(which, q, v) if self._config else configured(which, work, q, k, v)

    def _prepared(
        self,
        work: Work,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        dout: Tensor,
        dlse: Tensor | None,
    ) -> Sequence[Tensor]:
        """What both passes of the backward are given."""
        level, delta = torch.empty_like(lse), torch.empty_like(lse)

        def make() -> Launch:
            return Launch(
                kernels.prepare_backward,
                (triton.cdiv(q.shape[2], ROWS), q.shape[0] * q.shape[1]),
                (*out.stride(), *dout.stride(), q.shape[2], q.shape[1]),
                (v.shape[3], padded(v.shape[3]), ROWS, dlse is not None),
            )

        prepare = work.keep(("prepare", dlse is None, _layout_of((out, dout, lse))), make)
        through = None if dlse is None else dlse.contiguous()
        prepare((out, dout, lse.contiguous(), through, level, delta))
        return q, k, v, dout, level, delta

    def _backward_keys(
        self, work: Work, given: Sequence[Tensor], results: Sequence[Tensor], scale: float
    ) -> None:
        q, k, v, *rest = given
        group = q.shape[1] // k.shape[1]
        if self._joined(work, q, k, v):
            self._backward("backward_keys", work, given, results, scale)
            return
        # heads that share keys but not the order of their tiles: each has sums of its own at first
        k, v = (x.repeat_interleave(group, 1) for x in (k, v))
        each = [torch.empty_like(x) for x in (k, v)]
        self._backward("backward_keys", work, (q, k, v, *rest), each, scale)
        for mine, total in zip(each, results, strict=True):
            by_member = mine.reshape(*total.shape[:2], group, *total.shape[2:])
            total.copy_(by_member.sum(2, dtype=torch.float32))

    def _joined(self, work: Work, q: Tensor, k: Tensor, v: Tensor) -> bool:
        """Whether a key tile meets the query heads that share it in one walk."""

        def make() -> bool:
            config = self._chosen("backward_keys", work, q, k, v)
            group = q.shape[1] // k.shape[1]
            return orders_agree(work.schedule((config.bq, config.bk)), group)

        return work.keep(("joined", self, edition(), _layout_of((q, k, v))), make)

    def _backward(
        self,
        which: Pass,
        work: Work,
        given: Sequence[Tensor],
        results: Sequence[Tensor],
        scale: float,
    ) -> None:
        walk = self._walk(which, work, given[:4], results)
        block = walk.config.bq if which == "backward_queries" else walk.config.bk
        parts = [walk.lists.shares(x, block, x.shape[3]) for x in results]
        walk.launch((*given, *results, *parts), scale)
        for merge, *pair in zip(walk.merges, parts, results, strict=False):  # none, or all
            merge(pair)

    def _walk(
        self, which: Pass, work: Work, strided: Sequence[Tensor], results: Sequence[Tensor]
    ) -> Walk:
        """One of the three passes, over tensors with strides that the kernel is given; kept."""
        dtype = strided[0].dtype
        key = which, self, edition(), _precision(dtype), _layout_of(strided)
        return work.keep(key, lambda: self._made(which, work, strided, results))

    def _made(
        self, which: Pass, work: Work, strided: Sequence[Tensor], results: Sequence[Tensor]
    ) -> Walk:
        q, k, v, _ = strided
        config = self._chosen(which, work, q, k, v)
        tile, is_by_key = (config.bq, config.bk), which == "backward_keys"
        lists = device_lists(work, tile, is_by_key, q, k, self._longest)
        owner = results[0]
        launch = Launch(
            getattr(kernels, which),
            lists.grid(owner),
            (
                *(step for x in strided for step in x.stride()),
                *(*lists.tiles, lists.q_order, lists.k_order, q.shape[2], k.shape[2]),
                *(owner.shape[1], lists.at_once, lists.width, lists.slots),
            ),
            (
                *(q.shape[1] // k.shape[1], q.shape[3], v.shape[3], padded(q.shape[3])),
                *(padded(v.shape[3]), *tile, lists.slots > 0, _precision(q.dtype)),
                *(*lists.functions.arguments, lists.q_order is not None, lists.k_order is not None),
            ),
            **options(architecture(q.device), config),
        )
        merges = [_merge(which, config, lists, x) for x in results] if lists.slots else []
        return Walk(config, lists, launch, tuple(merges))


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """A pass over work lists, a program an item and head of what it computes, for tensors that lie alike."""

    config: Config
    lists: DeviceLists
    launch: Launch
    merges: tuple[Launch, ...]  # of the shares of split tiles, one a result, if there are any


def _merge(which: Pass, config: Config, lists: DeviceLists, x: Tensor) -> Launch:
    """What makes a result whole where tiles were split."""
    is_forward, is_by_key = which == "forward", which == "backward_keys"
    kernel = kernels.merge_outputs if is_forward else kernels.sum_chunks
    order = lists.k_order if is_by_key else lists.q_order
    block = config.bk if is_by_key else config.bq
    steps = x.stride() if is_forward else ()
    return Launch(
        kernel,
        lists.split_grid(x),
        (*steps, *lists.splits, order, x.shape[2], x.shape[1], lists.slots),
        (x.shape[3], padded(x.shape[3]), block, order is not None),
    )


def _layout_of(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """All that a launch depends on of tensors, but for where they start."""
    return tensors[0].device, *[(x.dtype, x.shape, x.stride()) for x in tensors]


def reachable(x: Tensor) -> Tensor:
    """``x``, copied if the offsets within one of its tiles need more than 32 bits: in no common layout."""
    row, column = x.stride()[2:]
    return x if 128 * row + WIDEST * column < 1 << 31 else x.contiguous()


def _multiplies_eight_bits(device: torch.device) -> bool:
    """AMD's 8-bit numbers before gfx950 are others."""
    if device.type != "cuda":
        return True  # interpreted
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 9)


def _precision(dtype: torch.dtype) -> str:
    """How float32 products are formed, as the user set it for torch's own."""
    exact = dtype != torch.float32 or torch.get_float32_matmul_precision() == "highest"
    return "ieee" if exact else "tf32"


def _on_device(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
