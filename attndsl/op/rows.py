"""The rows of q, k and v that hold tokens: what lies in the others reaches nothing.

Rows that numbers leave out are cut off, without a copy. Where tensors say which rows hold tokens, the others are set
to 0 on the device, as they may hold anything, NaN too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from attndsl import ir
from attndsl.compiler import Program
from attndsl.op.dispatching import PLAIN, needs_dispatcher
from attndsl.positions import KEYS, MAX_POSITION, QUERIES, Names, check_names, hidden, refuse
from attndsl.source import AttnDslError, Diagnostic, brief


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """A call on the rows that may hold tokens. ``extents`` and ``inputs`` say where these stand."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float | Tensor | None
    extents: Mapping[str, Any] | None
    inputs: Mapping[str, Any]
    exist: Tensor | None  # which rows of q hold a token, bool [B or 1, Q]; None for all
    cut: tuple[int, int]  # how many rows of q were cut off, at either end

    def restored(self, out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
        """The results for all rows of the call: 0, and -inf, where there is no token."""
        if self.exist is not None:
            absent = ~self.exist[:, None]
            out, lse = out.masked_fill(absent[..., None], 0), lse.masked_fill(absent, -math.inf)
        if any(self.cut):
            out, lse = pad(out, (0, 0, *self.cut)), pad(lse, self.cut, value=-math.inf)
        return out, lse


def up_to_length(
    mask: ir.Mask,
    k: Tensor,
    v: Tensor,
    inputs: Mapping[str, Any] | None,
    positions: Mapping[str, Any],
) -> tuple[Tensor, Tensor, Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """(k, v, inputs, what else is said) of a call on the keys that exist, where it says how many and nothing else.

    Anything that is not obviously plain is given back as it is.
    """
    length, given = positions.get(KEYS.length), (k, v, inputs, positions)
    if type(length) is not int or len(positions) > 1 or mask.keys.segments or mask.is_rectangular:
        return given
    if not all(type(x) in PLAIN and x.dim() == 4 and 0 <= length <= x.shape[2] for x in (k, v)):
        return given
    if k.shape[2] != v.shape[2] or any(not {"q", "k"}.isdisjoint(t.dims) for t in mask.tables):
        return given
    try:
        cut = _up_to(mask, inputs, length) if inputs else inputs
    except (KeyError, TypeError, ValueError, RuntimeError):  # not as declared
        return given
    return k.narrow(2, 0, length), v.narrow(2, 0, length), cut, None


def rows_with_tokens(
    program: Program,
    qkv: tuple[Tensor, Tensor, Tensor],
    scale: float | Tensor | None,
    extents: Mapping[str, Any] | None,
    inputs: Mapping[str, Any],
    at: Mapping[str, Any],
    *,
    as_they_are: bool = False,
) -> Tokens:
    """The call without rows that hold no token. ``at``: what ``read_arguments`` gave.

    ``as_they_are``: k and v keep rows before position 0, and all that hold no token may hold anything.

    Raises:
        AttnDslError: A413, a number or a shape that cannot be; A501, an input of other lengths.
    """
    (q, k, v), mask = qkv, program.mask
    of_q = _Side.of(QUERIES, q.shape[2], at)
    of_k = _Side.of(KEYS, k.shape[2], at, from_first=as_they_are)
    q, k, v = of_q.cut(q, 2), of_k.cut(k, 2), of_k.cut(v, 2)
    if isinstance(scale, Tensor) and scale.dim() > 1 and scale.shape[-2] == of_q.count:
        scale = of_q.cut(scale, -2)
    exist_k = _some_missing(of_k.exist(q.device))
    if exist_k is not None and not as_they_are:
        absent = ~exist_k[:, None, :, None]
        k, v = _cleared(k, absent), _cleared(v, absent)
    exist_q = of_q.exist(q.device)
    if not of_q.is_told and mask.align is ir.Align.END and (of_k.varies or of_q.varies):
        exist_q = _last(of_q, of_k, q.device, mask.is_placed)
    exist_q = None if _is_judged(q) else exist_q
    if exist_q is not None:
        q = _cleared(q, ~exist_q[:, None, :, None])
    has_axes = bool(mask.keys.segments or mask.queries.segments)
    left = of_k.said(has_axes) | of_q.said(has_axes)
    found = _cut_inputs(mask, inputs, of_q, of_k)
    if not has_axes and _is_plain(left, mask, q, k):
        left, found = {}, _up_to(mask, found, k.shape[2])
    numbers = {hidden(name): x for name, x in left.items() if not isinstance(x, Tensor)}
    tensors = {hidden(name): x for name, x in left.items() if isinstance(x, Tensor)}
    return Tokens(
        *(q, k, v, scale),
        {**(extents or {}), **numbers} if numbers else extents,
        {**found, **tensors},
        exist_q,
        (of_q.low, of_q.count - of_q.high),
    )


def _some_missing(exist: Tensor | None) -> Tensor | None:
    """The same, None where it is seen that all rows hold tokens."""
    if exist is None or not _is_judged(exist):
        return exist
    return None if bool(exist.all()) else exist


def _is_judged(x: Tensor) -> bool:
    """Whether numbers may be looked at: on a CPU, where nothing follows operators.

    Rows of q without a token see nothing there, and what they hold reaches nothing.
    """
    return x.device.type == "cpu" and not needs_dispatcher(x)


def read_arguments(given: Mapping[str, Any], q: Tensor) -> dict[str, Any]:
    """Positions as they are given: ints and tensors, by the names of the arguments.

    Raises:
        AttnDslError: A413, a shape, dtype or device that cannot be.
    """
    return {name: _read(name, value, q) for name, value in given.items()}


def _cleared(x: Tensor, absent: Tensor) -> Tensor:
    """The tensor with 0 in some rows, whatever they hold; on a CPU, itself where all is finite: it reaches nothing."""
    if _is_judged(x) and x.element_size() > 1 and bool(x.detach().sum().isfinite()):
        return x
    if x.element_size() == 1:  # torch fills no float8
        return x.view(torch.uint8).masked_fill(absent, 0).view(x.dtype)
    return x.masked_fill(absent, 0)


def _read(name: str, value: Any, q: Tensor) -> Any:
    """An argument as an int or a tensor of [batch or 1], or [batch or 1, rows], on the device of q."""
    # a tuple of types: dynamo of torch 2.9 knows no union of them
    if isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool):
        if name in (QUERIES.outright, KEYS.outright):
            refuse(f"{name} is a tensor [batch, rows], not {brief(value)}")
        return value
    try:
        made = value if isinstance(value, Tensor) else torch.as_tensor(value, device=q.device)
    except (TypeError, ValueError, RuntimeError) as error:
        refuse(f"{name} cannot be read", str(error).partition("\n")[0])
    if made.dtype.is_floating_point or made.dtype.is_complex or made.dtype is torch.bool:
        shown = brief(value) if made.dim() == 0 else f"a tensor of {made.dtype}"
        refuse(f"{name} must be an integer type, not {shown}")
    if made.device != q.device:
        refuse(f"{name} is on {made.device}, but q is on {q.device}")
    outright = name in (QUERIES.outright, KEYS.outright)
    batch, shape = q.shape[0], list(made.shape)
    if outright and (made.dim() != 2 or made.shape[0] not in (1, batch)):
        refuse(f"{name} needs the shape [{batch} or 1, rows], got {shape}")
    if not outright and (made.dim() > 1 or (made.dim() == 1 and made.shape[0] not in (1, batch))):
        refuse(
            f"{name} is a number, or one for each of the {batch} batch elements, got shape {shape}"
        )
    return made if made.dim() else made.reshape(1)


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """The rows of one side that numbers leave: those from ``low`` to ``high``."""

    names: Names
    count: int
    low: int
    high: int
    start: Any  # of the first row that is left
    length: Tensor | None
    outright: Tensor | None

    @staticmethod
    def of(names: Names, count: int, given: Mapping[str, Any], from_first: bool = False) -> _Side:
        """``from_first``: rows before position 0 are not cut off."""
        check_names(names, given)
        start, length = given.get(names.start), given.get(names.length)
        at, low, high = given.get(names.outright), 0, count
        if at is not None and at.shape[1] != count:
            title = f"{names.outright} has {at.shape[1]} entries, but {names.rows} has {count} rows"
            refuse(title, "a position for each row; -1 stands for no token")
        if length is not None and not isinstance(length, Tensor):
            if not 0 <= length <= count:
                refuse(f"{names.length} is {length}, but {names.rows} has {count} rows")
            high, length = length, None
        if start is not None and not isinstance(start, Tensor):
            if not -MAX_POSITION <= start <= MAX_POSITION:
                refuse(f"{names.start} is {start}, which is beyond 2**40")
            if length is None and not from_first:
                low = min(high, max(0, -start))
            start = start + low
        return _Side(names, count, low, high, start, length, at if at is None else at[:, :high])

    @property
    def varies(self) -> bool:
        """Whether a tensor says which rows hold tokens."""
        return any(isinstance(x, Tensor) for x in (self.start, self.length, self.outright))

    @property
    def is_told(self) -> bool:
        """Whether positions are given."""
        return self.start is not None or self.outright is not None

    def cut(self, x: Tensor, dim: int) -> Tensor:
        """The rows that are left."""
        if self.low == 0 and self.high == self.count:
            return x
        return x.narrow(dim, self.low, self.high - self.low)

    def positions(self, device: torch.device) -> Tensor:
        """The position of each row that is left, int [B or 1, rows]."""
        if self.outright is not None:
            return self.outright
        rows = torch.arange(self.high - self.low, device=device)
        start = 0 if self.start is None else self.start
        return (start[:, None] if isinstance(start, Tensor) else start) + rows[None]

    def exist(self, device: torch.device) -> Tensor | None:
        """True for rows, of those left, that hold a token, bool [B or 1, rows]; None where all do."""
        if not self.varies:
            return None
        return (self.positions(device) >= 0) & self.inside(device)

    def inside(self, device: torch.device) -> Tensor:
        """True for rows, of those left, among the first so many, bool [B or 1, rows]."""
        rows = torch.arange(self.high - self.low, device=device)[None]
        return rows >= 0 if self.length is None else rows < self.length[:, None]

    def said(self, is_whole: bool) -> dict[str, Any]:
        """Arguments that say the same of the rows that are left; with ``is_whole`` also how many they are."""
        names, said = self.names, {}
        if self.start is not None:
            said[names.start] = self.start
        if self.length is not None:
            said[names.length] = self.length
        elif is_whole and self.outright is None:
            said[names.length] = self.high - self.low
        if self.outright is not None:
            said[names.outright] = self.outright
        return said


def _last(q: _Side, k: _Side, device: torch.device, is_placed: bool) -> Tensor:
    """True for queries that hold a token, where they are the last ones: not for any before position 0."""
    inside = q.inside(device)
    if not is_placed or not k.high - k.low:
        return inside
    places, exist = k.positions(device), k.exist(device)
    ends = places + 1 if exist is None else (places + 1).masked_fill(~exist, 0)
    used = inside.sum(1, keepdim=True)
    rows = torch.arange(q.high - q.low, device=device)[None]
    return inside & (ends.amax(1, keepdim=True).clamp(min=0) - used + rows >= 0)


def _is_plain(left: dict[str, Any], mask: ir.Mask, q: Tensor, k: Tensor) -> bool:
    """Whether the rows that are left stand as in a call that says nothing."""
    end = k.shape[2] - q.shape[2] if mask.align is ir.Align.END else 0
    plain = {QUERIES.start: end, KEYS.start: 0}
    return all(
        name in plain and isinstance(value, int) and value == plain[name]
        for name, value in left.items()
    )


def _cut_inputs(mask: ir.Mask, inputs: Mapping[str, Any], q: _Side, k: _Side) -> dict[str, Any]:
    """The inputs, of those rows that are left."""
    made = dict(inputs)
    for table in mask.tables:
        for axis, dim in enumerate(table.dims):
            side = {"q": q, "k": k}.get(str(dim))
            if side is None or (side.low == 0 and side.high == side.count):
                continue
            array = torch.as_tensor(made[table.name])
            if array.dim() != len(table.dims) or array.shape[axis] == 1:
                continue
            if array.shape[axis] != side.count:
                title = f"input {table.name!r} has {array.shape[axis]} entries along {dim!r}"
                title += f", but {dim} has {side.count} rows"
                raise AttnDslError(Diagnostic("A501", title))
            made[table.name] = side.cut(array, axis)
    return made


def _up_to(mask: ir.Mask, inputs: Mapping[str, Any], length: int) -> dict[str, Any]:
    """The inputs by position, up to the last token."""
    made = dict(inputs)
    for table in mask.tables:
        for axis, dim in enumerate(table.dims):
            if dim == "pos":
                array = torch.as_tensor(made[table.name])
                if array.dim() == len(table.dims) and array.shape[axis] > length:
                    made[table.name] = array.narrow(axis, 0, length)
    return made
