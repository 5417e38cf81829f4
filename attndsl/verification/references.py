"""Reference results of attention with the error that rounding allows, and the first entry where a result differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from attndsl.backends import attend
from attndsl.verification.cases import Tensors
from attndsl.verification.tolerances import allowances

Kernel: TypeAlias = Callable[[Tensor, Tensor, Tensor], "Tensor | tuple[Tensor, Tensor]"]

_AXES = {
    "out": ("batch", "head", "query", "channel"),
    "lse": ("batch", "head", "query"),
    "dq": ("batch", "head", "query", "channel"),
    "dk": ("batch", "key head", "key", "channel"),
    "dv": ("batch", "key head", "key", "channel"),
}
NAMES = tuple(_AXES)


@dataclass(frozen=True, slots=True)
class Fault:
    """The first wrong entry of one result.

    Attributes:
        what: Name of the result: "out", "lse", "dq", "dk", "dv", "schedule", ...
        place: Where: {"batch": 0, "head": 1, "query": 7, ...}.
        got: The computed value, in words.
        want: The right value, in words.
        nature: The kind of mistake this looks like; empty when nothing fits.
        is_about_pairs: Whether ``nature`` speaks of pairs that the kernel should (not) see.
    """

    what: str
    place: Mapping[str, int]
    got: str
    want: str
    nature: tuple[str, ...] = ()
    is_about_pairs: bool = False

    def __str__(self) -> str:
        lines = [f"at      {', '.join(f'{axis} {index}' for axis, index in self.place.items())}"]
        lines = lines if self.place else []
        lines += [f"got     {self.got}", f"want    {self.want}"]
        lines += [f"note    {line}" for line in self.nature]
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class ReferenceResult:
    """Exact results of attention, and how far from them each entry may be."""

    exact: Mapping[str, Tensor]
    allowed: Mapping[str, Tensor]


def truth(mask: Tensor, tensors: Tensors, scale: float, backward: bool = True) -> ReferenceResult:
    """The oracle's results in float64 under the dense mask, bool [B or 1, H or 1, Q, K]."""
    exact = oracle(mask, tensors.to(torch.float64), scale, backward)
    return ReferenceResult(exact, allowances(mask, tensors, scale, exact))


def oracle(
    mask: Tensor, tensors: Tensors, scale: float, backward: bool = True
) -> dict[str, Tensor]:
    """out, lse and, if wanted, dq, dk, dv, in the dtype of the tensors."""
    return run(lambda q, k, v: attend(mask, q, k, v, scale, tensors.zeros), tensors, backward)


def run(
    kernel: Kernel, tensors: Tensors, backward: bool = True, through_lse: bool = True
) -> dict[str, Tensor]:
    """Whatever the kernel gives of out, lse, dq, dk, dv.

    A kernel that returns no log-sum-exp is differentiated through its output alone, and so is one
    when ``through_lse`` is false.
    """
    leaves = [x.detach().requires_grad_(backward) for x in (tensors.q, tensors.k, tensors.v)]
    with torch.set_grad_enabled(backward):
        given = kernel(leaves[0], leaves[1], leaves[2])
    results = {"out": given} if isinstance(given, Tensor) else dict(zip(NAMES, given, strict=False))
    found = {name: value.detach() for name, value in results.items()}
    if backward:
        arriving = {"out": tensors.dout, "lse": tensors.dlse}
        names = [n for n in results if results[n].requires_grad and (n == "out" or through_lse)]
        gradients: tuple[Tensor | None, ...] = (None,) * 3
        if names:
            gradients = torch.autograd.grad(
                [results[n] for n in names],
                leaves,
                [arriving[n].to(results[n].dtype) for n in names],
                allow_unused=True,
            )
        for name, leaf, gradient in zip(NAMES[2:], leaves, gradients, strict=True):
            found[name] = torch.zeros_like(leaf) if gradient is None else gradient
    return found


def first_fault(results: Mapping[str, Tensor], known: ReferenceResult) -> Fault | None:
    """The first result that is wrong, at its first wrong entry; None when rounding explains all."""
    for name in NAMES:
        if name in results and name in known.exact:
            fault = compared(
                name, results[name], known.exact[name], known.allowed[name], _AXES[name]
            )
            if fault is not None:
                return fault
    return None


def compared(
    name: str, got: Tensor, want: Tensor, allowed: Tensor, axes: Sequence[str]
) -> Fault | None:
    """The first entry of a result that is farther off than allowed; ``axes`` are the words for its dims."""
    if got.shape != want.shape:
        return Fault(name, {}, f"shape {list(got.shape)}", f"shape {list(want.shape)}")
    wrong = wrong_entries(got, want, allowed)
    if not wrong.any():
        return None
    place = tuple(int(index) for index in wrong.nonzero()[0])
    return Fault(
        name,
        dict(zip(axes, place, strict=True)),
        f"{float(got[place]):.6g}",
        f"{float(want[place]):.6g}, give or take {float(allowed[place]):.1g}"
        f" ({int(wrong.sum())} of {wrong.numel()} entries are wrong)",
    )


def wrong_entries(got: Tensor, want: Tensor, allowed: Tensor) -> Tensor:
    """True for each entry that is farther off than allowed. Entries that are not finite must be the same."""
    got = got.double().to(want.device)
    same = (got == want) | (got.isnan() & want.isnan())
    near = (got - want).abs() <= allowed
    return ~torch.where(torch.isfinite(want), near, same)
