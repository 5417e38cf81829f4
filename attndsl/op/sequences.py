"""Packed sequences of a call: where each begins is a table of the call, and nested tensors say it themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from attndsl.compiler import Program
from attndsl.op.checks import in_the_call
from attndsl.positions import BOUNDS, hidden, refuse
from attndsl.source import AttnDslError, Diagnostic


def read_bounds(positions: Mapping[str, Any], q: Tensor) -> dict[str, Tensor]:
    """The bounds of the sequences as tables of a call; their contents are looked at where it is planned.

    Raises:
        AttnDslError: A413, a dtype, shape or device that cannot be, or positions beside them.
    """
    others = sorted(positions.keys() - set(BOUNDS))
    if others:
        refuse(f"{others[0]} cannot be given for packed sequences", "each has positions of its own")
    of_q = positions[BOUNDS[0]]
    of_k = positions.get(BOUNDS[1])
    given = zip(BOUNDS, (of_q, of_q if of_k is None else of_k), strict=True)
    return {hidden(name): _read(name, value, q) for name, value in given}


def _read(name: str, value: Any, q: Tensor) -> Tensor:
    try:
        made = value if isinstance(value, Tensor) else torch.as_tensor(value, device=q.device)
    except (TypeError, ValueError, RuntimeError) as error:
        refuse(f"{name} cannot be read", str(error).partition("\n")[0])
    if made.dtype.is_floating_point or made.dtype.is_complex or made.dtype is torch.bool:
        refuse(f"{name} must be an integer type, not {made.dtype}")
    if made.dim() != 1:
        refuse(f"{name} has one dim, [sequences + 1], got shape {list(made.shape)}")
    if made.device != q.device:
        refuse(f"{name} is on {made.device}, but q is on {q.device}")
    return made


# ---------------------------------------------------------------------------- nested tensors


def is_nested(x: Any) -> bool:
    """Whether it is a nested tensor."""
    return isinstance(x, Tensor) and x.is_nested


class Nested:
    """q, k and v that are nested, as packed tensors [1, heads, tokens, dim], and the way back."""

    def __init__(self, program: Program, q: Any, k: Any, v: Any) -> None:
        self._program = program
        for label, x in zip("qkv", (q, k, v), strict=True):
            self._check(label, x)
        if (
            not q.dim() == k.dim() == v.dim() == 4
            or not q._ragged_idx == k._ragged_idx == v._ragged_idx
        ):
            self._refuse(
                "q, k and v must be nested alike: [batch, heads, ragged, dim], or [batch, ragged, heads, dim]"
            )
        if q._ragged_idx not in (1, 2):
            self._refuse("the ragged dim of q, k and v is that of tokens")
        self._q, self._is_transposed = q, q._ragged_idx == 2
        of_v = v.offsets()
        if of_v is not k.offsets() and not torch.equal(of_v, k.offsets()):
            self._refuse("k and v must have the same lengths")
        self.packed = tuple(self._packed(x) for x in (q, k, v))
        self.positions = dict(zip(BOUNDS, (q.offsets(), k.offsets()), strict=True))

    def inputs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs, packed where they are nested."""
        return {name: x.values() if is_nested(x) else x for name, x in given.items()}

    def restored(self, x: Tensor) -> Tensor:
        """A result [1, heads, tokens, ...], nested as q is."""
        by_token = x[0].transpose(0, 1)
        made = torch.nested.nested_tensor_from_jagged(by_token, self._q.offsets())
        return made.transpose(1, 2) if self._is_transposed else made

    def _packed(self, x: Any) -> Tensor:
        by_token: Tensor = (x.transpose(1, 2) if self._is_transposed else x).values()
        return by_token.transpose(0, 1)[None]

    def _check(self, label: str, x: Any) -> None:
        if not is_nested(x):
            self._refuse("q, k and v must all be nested, or none of them")
        if x.layout is not torch.jagged:
            helps = ("torch.nested.nested_tensor(..., layout=torch.jagged)",)
            self._refuse(f"{label} is nested in another layout than torch.jagged", helps)
        if x._lengths is not None:
            self._refuse(f"{label} is nested with holes", (f"{label}.contiguous()",))

    def _refuse(self, title: str, helps: tuple[str, ...] = ()) -> NoReturn:
        notes = in_the_call(self._program)
        raise AttnDslError(Diagnostic("A503", title, notes=notes, helps=helps))
