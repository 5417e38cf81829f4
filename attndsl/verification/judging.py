"""Attention of anyone's kernel against the dense meaning: the one place that compares.

Forward, log-sum-exp and gradients against the oracle in float64; what is reported is the first entry
that rounding does not explain, and what kind of mistake the whole result looks like.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from attndsl.verification.cases import Case
from attndsl.verification.diagnosing import about_numbers, about_pairs, seen_pairs
from attndsl.verification.references import Fault, Kernel, first_fault, run, truth


def judge(
    kernel: Kernel,
    mask: Tensor,
    case: Case,
    device: str = "cpu",
    backward: bool = True,
    through_lse: bool = True,
    zeros: Tensor | None = None,
) -> Fault | None:
    """Run the kernel on the tensors of the case; what is wrong with its results, if anything.

    Args:
        kernel: (q, k, v) -> out, or (out, lse) in natural logarithms.
        mask: The dense meaning, bool [B or 1, H or 1, Q, K], on that device.
        case: Shapes, dtype, scale and seed.
        device: Where the tensors are made.
        backward: Whether to differentiate.
        through_lse: Whether gradients also arrive through the log-sum-exp, if one is returned.
        zeros: The zero keys of each query, int64 [B, H, Q], on that device.
    """
    tensors = replace(case.tensors(device), zeros=zeros)
    results = run(kernel, tensors, backward, through_lse)
    if not through_lse or "lse" not in results:
        tensors = replace(tensors, dlse=torch.zeros_like(tensors.dlse))
    known = truth(mask, tensors, case.factor, backward)
    fault = first_fault(results, known)
    if fault is None or results[fault.what].shape != known.exact[fault.what].shape:
        return fault
    seen = seen_pairs(kernel, tensors)
    wrong_pairs = tuple(about_pairs(seen, mask)) if seen is not None else ()
    nature = wrong_pairs or tuple(about_numbers(mask, case, tensors, results, known, fault.what))
    return replace(fault, nature=nature, is_about_pairs=bool(wrong_pairs))


def describe(name: str, meaning: str, where: str, case: Case, fault: Fault) -> str:
    """A fault for people: the pattern, the call, the place, both values."""
    what = "" if fault.what in where else f", {fault.what}"
    lines = [
        f"{name or 'the pattern'}: wrong, {where}{what}",
        "  pattern " + meaning.replace("\n", "\n          "),
        f"  call    {case}",
        *(f"          {line}" for line in case.details()),
        *(f"  {line}" for line in str(fault).splitlines()),
    ]
    return "\n".join(lines)
