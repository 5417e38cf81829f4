"""Attention over the pairs of a pattern that is a function on tensors: the kernels over its live tiles, autograd.

Files that ``emit`` writes hold this text beside that of the kernels, of ``configs``, ``live_tiles``, ``integers``,
``standalone_inputs`` and ``standalone_positions``, so it asks for nothing else of the package.
PARTIAL tiles read their masks.
"""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
from torch import Tensor

from attndsl.backends.configs import (
    Config,
    Pass,
    architecture,
    fitting,
    options,
    padded,
    with_scores,
)
from attndsl.backends.kernels import (
    backward_keys,
    backward_queries,
    forward,
    merge_outputs,
    prepare_backward,
    sum_chunks,
)
from attndsl.backends.live_tiles import Lists, Schedule

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
WIDEST = 256  # head dim
ROWS = 64  # queries of a program that prepares the backward pass
# Bytes of keys and values that the heads at work together may take of the L2 cache.
CACHE = 16 << 20


UNSCORED = {
    **dict.fromkeys(("OfQuery", "OfKey", "OfDistance", "Reals", "Numbers")),
    **dict.fromkeys(("NUMBERS", "OF_QUERY", "OF_KEY")),
    "WEIGHS": False,
}


@dataclass(frozen=True)
class Scoring:
    """Arguments of the passes about scores of their own; nothing where scores are the scaled products."""

    given: Mapping[str, Any] = field(default_factory=lambda: UNSCORED)  # arguments of all passes
    score: Any = None
    derivatives: Any = None
    gains: tuple[int, int] = (0, 0)  # columns of queries and of keys that carry gradients
    loads: tuple[int, int] = (0, 0)  # numbers read for each pair: by its distance, in another way

    @property
    def weighs(self) -> bool:
        """Whether the scores are the weights themselves."""
        return bool(self.given["WEIGHS"])


PLAIN = Scoring()


def configured(which: Pass, q: Tensor, v: Tensor, scoring: Scoring) -> Config:
    """The tile, warps and stages of a pass on these tensors."""
    arch, size, widths = architecture(q.device), q.element_size(), (q.shape[3], v.shape[3])
    found = fitting(which, arch, size, *widths)
    if found is not None and scoring.score is not None:
        found = with_scores(which, arch, found, size, *widths, scoring.loads)
    if found is None:
        raise ValueError(f"{q.dtype} of this width does not fit the shared memory")
    return found


def walk(
    which: Pass, schedule: Schedule, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring
) -> tuple[Config, Lists]:
    """The config of a pass on these tensors, and its lists."""
    found = configured(which, q, v, scoring)
    if which == "backward_keys":
        owners, group = k.shape[0] * k.shape[1], q.shape[1] // k.shape[1]
        return found, schedule.by_key(found.bq, found.bk, owners, group)
    whole = which == "forward" and scoring.weighs  # shares of a softmax are averaged
    return found, schedule.by_query(found.bq, found.bk, q.shape[0] * q.shape[1], whole=whole)


def launch(
    kernel: Any,
    config: Config,
    lists: Lists,
    schedule: Schedule,
    strided: dict[str, Tensor],
    owner: tuple[str, Tensor],
    **tensors: Any,
) -> None:
    """Run a kernel that walks: a program for each item and head of the owner of its tiles."""
    q, k, v = (strided[name] for name in "qkv")
    heads, x = owner
    kernel[(lists.width * x.shape[0] * x.shape[1],)](
        **tensors,
        **strides(strided),
        **{heads: x.shape[1]},
        items=lists.items,
        first_items=lists.first_items,
        plan_of=lists.plan_of,
        plan_batch=lists.plan_batch,
        plan_head=lists.plan_head,
        full=lists.full,
        partial=lists.partial,
        mask_ids=lists.mask_ids,
        masks=schedule.tiles(config.bq, config.bk).masks,
        constants=None,
        n_constants=0,
        tables=None,
        q_order=None,
        k_order=None,
        q_len=q.shape[2],
        k_len=k.shape[2],
        at_once=heads_at_once(k, x.shape[1]),
        width=lists.width,
        slots=lists.slots,
        GROUP=q.shape[1] // k.shape[1],
        D=q.shape[3],
        DV=v.shape[3],
        BD=padded(q.shape[3]),
        BDV=padded(v.shape[3]),
        BQ=config.bq,
        BK=config.bk,
        SPLIT=lists.slots > 0,
        PRECISION=precision(q.dtype),
        EVEN=False,
        CONSTANTS=None,
        QUERY_TERMS=None,
        KEY_TERMS=None,
        KEEP=None,
        Q_ORDERED=False,
        K_ORDERED=False,
        **options(architecture(q.device), config),
    )


def run_forward(
    schedule: Schedule, q: Tensor, k: Tensor, v: Tensor, scale: float, scoring: Scoring = PLAIN
) -> tuple[Tensor, Tensor]:
    """(out [B, H, Q, Dv], lse [B, H, Q]); zero keys are no part of scores of their own."""
    q, k, v = map(reachable, (q, k, v))
    out = q.new_empty((*q.shape[:3], v.shape[3]))
    lse = q.new_empty(q.shape[:3], dtype=torch.float32)
    if not lse.numel():
        return out, lse
    if scale < 0 and scoring.score is None:  # the kernel's factor on the scores keeps their order
        q, scale = -q, -scale
    config, lists = walk("forward", schedule, q, k, v, scoring)
    parts = {
        "PartOut": share(q, lists, config.bq, v.shape[3]),
        "PartLse": share(q, lists, config.bq),
    }
    with on_device(q):
        launch(
            forward, config, lists, schedule, {"q": q, "k": k, "v": v, "o": out}, ("heads", q),
            Q=q, K=k, V=v, Out=out, Lse=lse, **parts, PageTable=None, scale=scale,
            n_columns=0, n_pages=0, period=1, PAGE=0, CLEARS=False, FOLDED=0, SCORE=scoring.score,
            **scoring.given,
        )  # fmt: skip
        if lists.slots:
            merge_outputs[(lists.most_splits, q.shape[0] * q.shape[1])](
                **parts, Out=out, Lse=lse, **strides({"o": out}), **split_tiles(lists),
                q_order=None, q_len=q.shape[2], heads=q.shape[1], slots=lists.slots,
                DV=v.shape[3], BDV=padded(v.shape[3]), BQ=config.bq, Q_ORDERED=False,
            )  # fmt: skip
    zeros = schedule.zeros() if scoring.score is None else None
    if zeros is not None:
        total = torch.logaddexp(lse, zeros.log())
        weight = torch.where(lse == -torch.inf, 0.0, (lse - total).exp())
        out, lse = (out * weight[..., None]).to(out.dtype), total
    return out, lse


def run_backward(
    schedule: Schedule,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    dout: Tensor,
    dlse: Tensor | None,
    scale: float,
    scoring: Scoring = PLAIN,
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """dq, dk and dv, each in the dtype of its input, and those of columns [B, H, rows, n]; and what was prepared."""
    q, k, v, dout = map(reachable, (q, k, v, dout))
    group = q.shape[1] // k.shape[1]
    if scoring.gains[1] and group > 1:  # columns of keys differ by query head
        keys, values = (x.repeat_interleave(group, 1) for x in (k, v))
        passed = out, lse, dout, dlse, scale, scoring
        grads, given = run_backward(schedule, q, keys, values, *passed)
        for place, x in ((1, k), (2, v)):
            by_member = grads[place].reshape(x.shape[0], x.shape[1], group, *x.shape[2:])
            grads[place] = by_member.sum(2, dtype=torch.float32).to(x.dtype)
        return grads, given
    grads = [x.new_empty(x.shape) for x in (q, k, v)]
    for x, count in zip((q, k), scoring.gains, strict=True):
        shape = (*q.shape[:2], x.shape[2], count)
        grads.append(x.new_zeros(shape, dtype=torch.float32))
    if not lse.numel() or not k.numel():
        return [x.zero_() for x in grads], {}
    level, delta = torch.empty_like(lse), torch.empty_like(lse)
    strided = {"q": q, "k": k, "v": v, "g": dout}
    given = {"Q": q, "K": k, "V": v, "GradOut": dout, "Level": level, "Delta": delta}
    with on_device(q):
        prepare_backward[(triton.cdiv(q.shape[2], ROWS), q.shape[0] * q.shape[1])](
            Out=out, GradOut=dout, Lse=lse, GradLse=dlse, Level=level, Delta=delta,
            **strides({"o": out, "g": dout}), q_len=q.shape[2], heads=q.shape[1],
            DV=v.shape[3], BDV=padded(v.shape[3]), BQ=ROWS, THROUGH_LSE=dlse is not None,
        )  # fmt: skip
        told = given, strided, scoring, scale
        walked("backward_queries", schedule, *told, {"Q": grads[0]}, grads[3], {})
        both, before = {"K": grads[1], "V": grads[2]}, {"BEFORE": scoring.gains[0]}
        walked("backward_keys", schedule, *told, both, grads[4], before)
    return grads, given


def walked(
    which: Pass,
    schedule: Schedule,
    given: dict[str, Tensor],
    strided: dict[str, Tensor],
    scoring: Scoring,
    scale: float,
    results: dict[str, Tensor],
    of_columns: Tensor,
    more: dict[str, int],
) -> None:
    """Run one pass of the backward: gradients by name, and what columns gained, are written."""
    q, k, v = (strided[name] for name in "qkv")
    config, lists = walk(which, schedule, q, k, v, scoring)
    by_key, count = which == "backward_keys", of_columns.shape[3]
    kernel, block = (backward_keys, config.bk) if by_key else (backward_queries, config.bq)
    owner = ("kv_heads", k) if by_key else ("heads", q)
    if count:
        results = {**results, "X": of_columns}
    parts = {name: share(x, lists, block, x.shape[3]) for name, x in results.items()}
    launch(
        kernel, config, lists, schedule, strided, owner, **given, **scoring.given, **more, scale=scale,
        DERIVATIVES=scoring.derivatives, GAINS=count, WIDE=1 << max(0, count - 1).bit_length(),
        **{f"Grad{name}": results.get(name) for name in (*results, "X")},
        **{f"Part{name}": parts.get(name) for name in (*results, "X")},
    )  # fmt: skip
    for name, total in results.items():
        add_up(lists, block, parts[name], total)


def add_up(lists: Lists, block: int, part: Tensor | None, total: Tensor) -> None:
    """The shares of split tiles as one, in a contiguous gradient."""
    if part is not None:
        sum_chunks[(lists.most_splits, total.shape[0] * total.shape[1])](
            Part=part, Out=total, **split_tiles(lists), order=None, length=total.shape[2],
            heads=total.shape[1], slots=lists.slots, D=total.shape[3], BD=padded(total.shape[3]),
            BLOCK=block, ORDERED=False,
        )  # fmt: skip


def share(x: Tensor, lists: Lists, *shape: int) -> Tensor | None:
    """Room for what each slot of each head of x [B, H, ...] holds, if any tile is split."""
    shape = (*x.shape[:2], lists.slots, *shape)
    return x.new_empty(shape, dtype=torch.float32) if lists.slots else None


def split_tiles(lists: Lists) -> dict[str, Any]:
    """The arguments of merging kernels that say which tiles were split."""
    names = ("splits", "first_splits", "plan_of", "plan_batch", "plan_head")
    return {name: getattr(lists, name) for name in names}


def strides(tensors: dict[str, Tensor]) -> dict[str, int]:
    """The strides of tensors: of ``q`` they are ``qb``, ``qh``, ``qs`` and ``qd``."""
    return {
        letter + dim: step
        for letter, x in tensors.items()
        for dim, step in zip("bhsd", x.stride(), strict=True)
    }


def heads_at_once(k: Tensor, owners: int) -> int:
    """How many heads work on an item together: as many as the L2 cache holds keys and values of."""
    total = k.shape[0] * owners
    each = max(1, 2 * k.shape[2] * k.shape[3] * k.element_size() * k.shape[1] // owners)
    fits = max(1, min(total, CACHE // each))
    return next(n for n in range(fits, 0, -1) if total % n == 0)


def reachable(x: Tensor) -> Tensor:
    """``x``, copied if the offsets within one of its tiles need more than 32 bits: in no common layout."""
    row, column = x.stride()[2:]
    return x if 128 * row + WIDEST * column < 1 << 31 else x.contiguous()


def precision(dtype: torch.dtype) -> str:
    """How float32 products are formed, as the user set it for torch's own.

    Asked so that ``torch.set_float32_matmul_precision`` counts as well: the getter beside that one
    fails where the setting was made in torch's newer way.
    """
    allowed = torch.backends.cuda.matmul.fp32_precision == "tf32"
    return "tf32" if allowed and dtype == torch.float32 else "ieee"


def on_device(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Launches go where the tensors are."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


class Attention(torch.autograd.Function):
    """Forward and backward, to autograd."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, schedule: Schedule, scale: float
    ) -> tuple[Tensor, Tensor]:
        """(out, lse), both differentiable."""
        out, lse = run_forward(schedule, q, k, v, scale)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.schedule, ctx.scale = schedule, scale
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dout: Tensor | None, dlse: Tensor | None) -> tuple[Any, ...]:
        """The gradients of q, k and v."""
        if dout is None and dlse is None:
            return None, None, None, None, None
        q, k, v, out, lse = ctx.saved_tensors
        dout = torch.zeros_like(out) if dout is None else dout
        dlse = None if dlse is None else dlse.contiguous()
        grads, _ = run_backward(ctx.schedule, q, k, v, out, lse, dout, dlse, ctx.scale)
        return *grads[:3], None, None


def attended(
    q: Tensor, k: Tensor, v: Tensor, schedule: Schedule, scale: float
) -> tuple[Tensor, Tensor]:
    """(out, lse) of the rows that hold tokens: others may hold anything, and get 0 and -inf."""
    q_exist, k_exist = schedule.pattern.q_exist, schedule.pattern.k_exist
    q, k, v = cleared(q, q_exist), cleared(k, k_exist), cleared(v, k_exist)
    out, lse = Attention.apply(q, k, v, schedule, scale)  # type: ignore[no-untyped-call]
    return cleared(out, q_exist), cleared(lse[..., None], q_exist, -math.inf)[..., 0]


def cleared(x: Tensor, exist: Tensor | None, nothing: float = 0.0) -> Tensor:
    """Rows [B, H, rows, width] with nothing where there is no token."""
    return x if exist is None else x.masked_fill(~exist[:, None, :, None], nothing)


def check(q: Tensor, k: Tensor, v: Tensor, longest: int, most_heads: int) -> None:
    """Refuse what the kernels would read wrongly; sequences as long as that; more query heads than that."""
    if not q.dim() == k.dim() == v.dim() == 4:
        raise ValueError("q, k and v have four dimensions: batch, heads, tokens, width")
    fits = q.shape[0] == k.shape[0] == v.shape[0] and k.shape[1:3] == v.shape[1:3]
    if not fits or q.shape[3] != k.shape[3] or k.shape[1] < 1 or q.shape[1] % k.shape[1]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (q, k, v))
        raise ValueError(f"q [B, H, Q, D], k [B, Hkv, K, D] and v [B, Hkv, K, Dv] are {shapes}")
    if q.dtype not in DTYPES or not q.dtype == k.dtype == v.dtype:
        raise ValueError("q, k and v are all bfloat16, all float16 or all float32")
    if not q.device == k.device == v.device:
        raise ValueError("q, k and v are on one device")
    if not q.is_cuda and isinstance(forward, triton.JITFunction):
        raise ValueError("the kernels run on GPUs; on the CPU under TRITON_INTERPRET=1, slowly")
    if not (1 <= q.shape[3] <= WIDEST and 1 <= v.shape[3] <= WIDEST):
        raise ValueError(f"widths lie between 1 and {WIDEST}")
    if max(q.shape[2], k.shape[2]) >= longest:
        raise ValueError(f"there are fewer than {longest} tokens")
    if q.shape[1] > most_heads:
        raise ValueError(f"there are at most {most_heads} query heads")
