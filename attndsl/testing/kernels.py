"""Anyone's attention kernel against the meaning of a pattern or attention: on one call, or on many that are drawn."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from attndsl import ir
from attndsl.attentions import Attention
from attndsl.compiled import Pattern
from attndsl.compiling import compile as compile_any
from attndsl.sources import Source
from attndsl.verification import (
    AttentionSubject,
    Case,
    Fault,
    Kernel,
    Random,
    Skipped,
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
    p: Pattern | Attention | Source,
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
        p: What it should compute: a pattern or attention, or what ``attndsl.compile`` takes.
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
        inputs: The run-time inputs, real ones of an attention among them.
        seed: Of the numbers.
        device: Where the tensors are.
        backward: Whether to differentiate.
        through_lse: Whether gradients also arrive through the log-sum-exp, where one is returned.

    Raises:
        AssertionError: Something is wrong. The text shows the first wrong entry with both values, which
            pairs the kernel sees wrongly, if it does, and which well-known mistake this looks like.
    """
    judged = _Judged(compile_any(p), device, backward, through_lse)
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
    fault = judged.fault(lambda q, k, v, _: kernel(q, k, v), case, of_inputs=False)
    if fault is not None:
        raise AssertionError(judged.text(case, fault))


def sweep(
    kernel: CallKernel,
    p: Pattern | Attention | Source,
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
            ``extents`` and ``factor`` (on the scores) it may need. Real inputs of an attention are there as tensors
            whose gradients are judged, too.
        p: What it should compute: a pattern or attention, or what ``attndsl.compile`` takes.
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
    judged = _Judged(compile_any(p), device, backward, through_lse)
    __tracebackhide__ = True

    def fault_of(case: Case) -> Fault | None:
        return judged.fault(kernel, judged.fitted(case))

    for index in range(calls):
        most = min(largest, *_FIRST[index : index + 1], 1 << 30)
        case = _drawn(judged.frame, Random(seed, index), most, fixed)
        try:
            fault = fault_of(case)
        except Skipped:  # what the attention gives is not finite, say
            continue
        except Exception as error:
            error.add_note(f"attndsl: in the call {case!r}")
            raise
        if fault is not None:
            still = functools.partial(_still_fails, fault_of, fault, fixed)
            small = judged.fitted(shrink(judged.frame, case, still))
            text = judged.text(small, fault_of(small) or fault)
            raise AssertionError(f"{text}\n  again   assert_matches_dense(kernel, p, {small!r})")


class _Judged:
    """A pattern or attention that a kernel should compute, and how it is asked."""

    def __init__(
        self, p: Pattern | Attention, device: str, backward: bool, through_lse: bool
    ) -> None:
        self._p, self._device = p, device
        self._options = device, backward, through_lse
        self._subject = p if isinstance(p, Pattern) else AttentionSubject(p, ())

    @property
    def frame(self) -> ir.Mask:
        """A mask whose calls are those of the kernel."""
        return self._subject.ir if isinstance(self._subject, Pattern) else self._subject.frame

    def fitted(self, case: Case) -> Case:
        """The case, its real inputs as an attention needs them."""
        return case if isinstance(self._subject, Pattern) else self._subject.fitted(case)

    def fault(self, kernel: CallKernel, case: Case, *, of_inputs: bool = True) -> Fault | None:
        """Finds the first wrong result of the kernel, the gradients of real inputs among them."""
        if not isinstance(self._subject, Pattern):
            return self._subject.judge(kernel, case, *self._options, of_inputs)
        mask, counts = dense(self._subject, case).to(self._device), zero_keys(self._subject, case)
        zeros = None if counts is None else counts.to(self._device)
        told = functools.partial(_told, kernel, case)
        return judge(told, mask, case, *self._options, zeros)

    def text(self, case: Case, fault: Fault) -> str:
        """A fault for people."""
        p = self._p
        meaning = ir.show(p.ir.root, p.ir.zeros) if isinstance(p, Pattern) else str(p)
        return describe(p.name, meaning, f"the kernel on {self._device}", case, fault)


def _told(kernel: CallKernel, case: Case, q: Tensor, k: Tensor, v: Tensor) -> Any:
    return kernel(q, k, v, case)


def _drawn(frame: ir.Mask, dice: Random, largest: int, fixed: Mapping[str, Any]) -> Case:
    chosen = {
        name: dice.pick(value) if isinstance(value, list) else value
        for name, value in fixed.items()
    }
    ours = {
        "layout": "natural",
        "tile": (16, 16),
    }  # of schedules, which are no matter of the kernel's
    return draw_case(frame, dice, largest, **{**ours, **chosen})


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
