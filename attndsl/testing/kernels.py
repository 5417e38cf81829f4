"""Anyone's attention kernel against the meaning of a pattern: on one call, or on many that are drawn."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from attndsl import ir
from attndsl.compiled import Pattern, compile_pattern
from attndsl.compiler import Source
from attndsl.verification import (
    Case,
    Fault,
    Kernel,
    Random,
    dense,
    describe,
    draw_case,
    judge,
    shrink,
    zero_keys,
)

CallKernel: TypeAlias = Callable[[Tensor, Tensor, Tensor, Case], "Tensor | tuple[Tensor, Tensor]"]

_FIRST = (8, 20, 40)  # tokens of the first calls: small faults come first


def assert_matches_dense(
    kernel: Kernel,
    p: Pattern | Source,
    case: Case | None = None,
    *,
    q_len: int = 200,
    k_len: int | None = None,
    batch: int = 2,
    heads: int = 2,
    kv_heads: int | None = None,
    head_dim: int = 32,
    value_dim: int | None = None,
    dtype: torch.dtype = torch.float32,
    scale: float | None = None,
    extents: Mapping[str, int] | None = None,
    inputs: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
    backward: bool = True,
    through_lse: bool = True,
) -> None:
    """A kernel computes attention within the pattern, and so do its gradients.

    It is run on normal random numbers; output, log-sum-exp and gradients are held against masked
    softmax in float64, within what rounding explains. Entries that are not finite must be the same: a query
    without a key has out 0, lse -inf and no gradient.

    Args:
        kernel: ``kernel(q, k, v)`` with q [B, H, Q, D], k [B, Hkv, K, D], v [B, Hkv, K, Dv] gives out
            [B, H, Q, Dv], or (out, lse) with lse [B, H, Q] in natural logarithms.
        p: What it should compute: a pattern, or what ``attndsl.compile`` takes.
        case: Everything about the call at once, from ``cases``; the rest of the arguments otherwise.
        q_len: Queries.
        k_len: Keys; as many as queries by default.
        batch: Batch elements.
        heads: Query heads.
        kv_heads: Key heads; as many as query heads by default.
        head_dim: Width of queries and keys.
        value_dim: Width of values; that of keys by default.
        dtype: Of the tensors.
        scale: What the kernel multiplies scores with; 1 / sqrt(head_dim) by default.
        extents: Of grid axes that the lengths do not determine.
        inputs: The pattern's run-time inputs.
        seed: Of the numbers.
        device: Where the tensors are.
        backward: Whether to differentiate.
        through_lse: Whether gradients also arrive through the log-sum-exp, where one is returned.

    Raises:
        AssertionError: Something is wrong. The text shows the first wrong entry with both values, which
            pairs the kernel sees wrongly, if it does, and which well-known mistake this looks like.
    """
    p = compile_pattern(p)
    case = case or Case(
        q_len=q_len,
        k_len=q_len if k_len is None else k_len,
        batch=batch,
        heads=heads,
        kv_heads=heads if kv_heads is None else kv_heads,
        head_dim=head_dim,
        value_dim=head_dim if value_dim is None else value_dim,
        dtype=dtype,
        extents=dict(extents or {}),
        inputs=dict(inputs or {}),
        scale=scale,
        seed=seed,
    )
    fault = _judged(kernel, p, case, device, backward, through_lse)
    if fault is not None:
        raise AssertionError(_text(p, device, case, fault))


def sweep(
    kernel: CallKernel,
    p: Pattern | Source,
    *,
    calls: int = 25,
    largest: int = 150,
    seed: int = 0,
    device: str = "cpu",
    backward: bool = True,
    through_lse: bool = True,
    **fixed: Any,
) -> None:
    """``assert_matches_dense`` on calls that are drawn: the lengths, heads and inputs one does not think of.

    Lengths around tiles (1, 15, 16, 17, ...) and unequal ones, key heads that are shared, batches, odd
    widths, dtypes, scales, tensors that are not contiguous, run-time inputs with empty rows. The first
    calls are small. Equal seeds draw equal calls.

    Args:
        kernel: ``kernel(q, k, v, call)``: as for ``assert_matches_dense``, told the call, whose ``inputs``,
            ``extents`` and ``factor`` (on the scores) it may need.
        p: What it should compute: a pattern, or what ``attndsl.compile`` takes.
        calls: How many.
        largest: About how many tokens a call has at most; fixed extents may be longer.
        seed: Of the draws.
        device: Where the tensors are; ``call.inputs_on(device)`` are the inputs there.
        backward: Whether to differentiate.
        through_lse: Whether gradients also arrive through the log-sum-exp, where one is returned.
        **fixed: Fields of ``Case`` that every call shall have; of a list one is picked each time:
            ``head_dim=64, value_dim=64, dtype=[torch.float16, torch.bfloat16]``.

    Raises:
        AssertionError: Something is wrong; the text is that of ``assert_matches_dense`` for the smallest
            call that was found, and ends in that call as one would write it.
    """
    p = compile_pattern(p)
    __tracebackhide__ = True

    def fault_of(case: Case) -> Fault | None:
        told = functools.partial(_told, kernel, case)
        return _judged(told, p, case, device, backward, through_lse)

    for index in range(calls):
        case = _drawn(
            p, Random(seed, index), min(largest, *_FIRST[index : index + 1], 1 << 30), fixed
        )
        try:
            fault = fault_of(case)
        except Exception as error:
            error.add_note(f"attndsl: in the call {case!r}")
            raise
        if fault is not None:
            small = shrink(p.ir, case, functools.partial(_still_fails, fault_of, fault, fixed))
            text = _text(p, device, small, fault_of(small) or fault)
            raise AssertionError(f"{text}\n  again   assert_matches_dense(kernel, p, {small!r})")


def _judged(
    kernel: Kernel, p: Pattern, case: Case, device: str, backward: bool, through_lse: bool
) -> Fault | None:
    mask, counts = dense(p, case).to(device), zero_keys(p, case)
    zeros = None if counts is None else counts.to(device)
    return judge(kernel, mask, case, device, backward, through_lse, zeros)


def _told(kernel: CallKernel, case: Case, q: Tensor, k: Tensor, v: Tensor) -> Any:
    return kernel(q, k, v, case)


def _drawn(p: Pattern, dice: Random, largest: int, fixed: Mapping[str, Any]) -> Case:
    chosen = {
        name: dice.pick(value) if isinstance(value, list) else value
        for name, value in fixed.items()
    }
    ours = {
        "layout": "natural",
        "tile": (16, 16),
    }  # of schedules, which are no matter of the kernel's
    return draw_case(p.ir, dice, largest, **{**ours, **chosen})


def _still_fails(
    fault_of: Callable[[Case], Fault | None], found: Fault, fixed: Mapping[str, Any], case: Case
) -> bool:
    """Whether a call that is allowed shows the same fault."""
    for name, value in fixed.items():
        if getattr(case, name) not in (value if isinstance(value, list) else [value]):
            return False
    try:
        again = fault_of(case)
    except Exception:  # noqa: BLE001 - a size that the kernel does not take
        return False
    return again is not None and again.what == found.what


def _text(p: Pattern, device: str, case: Case, fault: Fault) -> str:
    return describe(p.name, ir.show(p.ir.root, p.ir.zeros), f"the kernel on {device}", case, fault)
