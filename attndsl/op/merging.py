"""Softmaxes over disjoint keys as one, differentiable to any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from torch import Tensor

from attndsl.backends import joined
from attndsl.source import AttnDslError, Diagnostic


def merge(outs: Sequence[Tensor], lses: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Merges attentions of the same queries over disjoint keys: (out, lse), as one attention over all these keys.

        lse = log Σ exp(lse_i)    out = Σ exp(lse_i - lse) out_i

    Args:
        outs: Outputs [..., Dv], [B, H, Q, Dv] for calls of patterns; at least one.
        lses: Their log-sum-exps [...], natural logarithm, -inf where a query sees nothing: what such an output
            holds is not read.

    Returns:
        out [..., Dv] in the dtype of ``outs``, and lse [...], float32 (float64 for float64 inputs). Where a query sees
        nothing in any part: out 0, lse -inf and no gradient. Both are differentiable, in outs and lses.

    Raises:
        AttnDslError: A502 shapes, or another number of outs than of lses; A503 dtypes or devices that differ.
    """
    outs, lses = tuple(outs), tuple(lses)
    _check(outs, lses)
    return joined(outs, lses)


def _check(outs: Sequence[Tensor], lses: Sequence[Tensor]) -> None:
    if not outs or len(outs) != len(lses):
        title = f"merge takes a log-sum-exp for each output, not {len(lses)} for {len(outs)}"
        raise AttnDslError(Diagnostic("A502", title))
    if not all(isinstance(x, Tensor) for x in (*outs, *lses)):
        _refuse("A503", "merge takes tensors", outs, lses)
    shape = outs[0].shape
    if not shape or any(out.shape != shape for out in outs):
        _refuse(
            "A502",
            "outputs to merge must have one shape, [batch, heads, queries, value_dim]",
            outs,
            lses,
        )
    if any(lse.shape != shape[:-1] for lse in lses):
        _refuse("A502", "log-sum-exps to merge must be [batch, heads, queries]", outs, lses)
    if not all(x.is_floating_point() for x in (*outs, *lses)):
        _refuse("A503", "outputs and log-sum-exps must be floating-point numbers", outs, lses)
    for xs, words in ((outs, "outputs"), (lses, "log-sum-exps")):
        if len({x.dtype for x in xs}) > 1:
            _refuse("A503", f"{words} to merge must have one dtype", outs, lses)
    if len({x.device for x in (*outs, *lses)}) > 1:
        _refuse("A503", "what is merged must be on one device", outs, lses)


def _refuse(code: str, title: str, outs: Sequence[object], lses: Sequence[object]) -> NoReturn:
    labelled = [(f"outs[{i}]", x) for i, x in enumerate(outs)]
    labelled += [(f"lses[{i}]", x) for i, x in enumerate(lses)]
    notes = tuple(f"{label}: {_shown(x)}" for label, x in labelled)
    raise AttnDslError(Diagnostic(code, title, notes=notes))


def _shown(x: object) -> str:
    if not isinstance(x, Tensor):
        return type(x).__name__
    return f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)} on {x.device}"
