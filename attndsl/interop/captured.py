"""Tensors that a mask_mod reads: run-time inputs of its pattern, by the names that the function knows them by."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final, cast

import torch
from torch import Tensor

from attndsl import ir
from attndsl.source import AttnDslError

from .symbols import refusal

_INTS: Final = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
_FOREIGN: Final = ("attndsl.", "torch.")  # whose frames are not the user's


@dataclass(slots=True)
class Captured:
    """The tensors that were read so far, and what is known of those that the function made itself."""

    named: dict[str, Tensor] = field(default_factory=dict)  # by the names of inputs
    made: dict[int, tuple[Tensor, bool]] = field(default_factory=dict)  # by id: of numbers alone?
    stale: AttnDslError | None = (
        None  # where something was computed that would not follow a captured tensor
    )

    def add_made(self, result: Any, sources: list[Tensor]) -> None:
        """Notes a tensor that the function made of others, without symbols."""
        if not isinstance(result, Tensor) or any(result is source for source in sources):
            return
        outside = [source for source in sources if not self._is_made(source)]
        if any(_shares(result, source) for source in outside):  # a view: it follows
            return
        is_fixed = not outside and all(self.made[id(source)][1] for source in sources)
        self.made[id(result)] = result, is_fixed

    def note_read(self, source: Tensor) -> None:
        """Notes that a number was read from a tensor, for good."""
        if (not self._is_made(source) or not self.made[id(source)][1]) and self.stale is None:
            title = "a captured tensor is computed with before it is indexed"
            label = "computed once, while the function is translated"
            helps = ("compute it outside of the function, and capture what is found",)
            self.stale = refusal(title, label, *helps)

    def _is_made(self, tensor: Tensor) -> bool:
        return id(tensor) in self.made

    def is_outside(self, tensor: Tensor) -> bool:
        """Whether the function did not make it."""
        return not self._is_made(tensor)

    def number_in(self, tensor: Tensor) -> int | None:
        """The number of a tensor without dims that the function made of numbers; None for others."""
        if self.made.get(id(tensor), (tensor, False))[1] and tensor.dtype in (*_INTS, torch.bool):
            return cast(int, tensor.item())
        return None

    def read(self, tensor: Tensor, index: tuple[ir.Node, ...]) -> ir.Node:
        """The entry of a tensor at these indices, one for each dim; negative ones count from the end.

        Raises:
            AttnDslError: A218, it holds no integers and truth values.
        """
        if tensor.dtype not in (*_INTS, torch.bool):
            title = f"a captured tensor of {str(tensor.dtype).removeprefix('torch.')}"
            helps = ("capture integers or truth values: `scores > 0` rather than `scores`",)
            raise refusal(title, "read here", *helps)
        if self._is_made(tensor):
            self.note_read(tensor)
        name = self._name(tensor)
        kind = ir.Sort.BOOL if tensor.dtype is torch.bool else ir.Sort.INT
        if not tensor.ndim:  # an input has dims
            index = (ir.ZERO,)
        places = [_from_start(at, name, dim) for dim, at in enumerate(index)]
        return ir.Load(name, kind, tuple(places), ir.Deps.NONE)

    def size(self, tensor: Tensor, dim: int) -> ir.Node:
        """How long a tensor is along one of its dims, in the call that reads it."""
        return ir.Size(f"{self._name(tensor)}:{dim_name(dim)}")

    def _name(self, tensor: Tensor) -> str:
        for name, known in self.named.items():
            if known is tensor or _is_same(known, tensor):
                return name
        wanted = _name_in(tensor) or "captured"
        name, count = wanted, 1
        while name in self.named:
            count += 1
            name = f"{wanted}_{count}"
        self.named[name] = tensor
        return name


def _from_start(index: ir.Node, name: str, dim: int) -> ir.Node:
    if _is_no_less_than_zero(index):
        return index
    from_end = ir.add(index, ir.Size(f"{name}:{dim_name(dim)}"))
    if isinstance(index, ir.Const):
        return from_end
    return ir.select(ir.lt(index, ir.ZERO), from_end, index)


def dim_name(dim: int) -> str:
    """The name of a dim of an input, by its place."""
    return f"n{dim}"


def _is_no_less_than_zero(node: ir.Node) -> bool:
    """Whether it plainly is: positions and numbers of heads and elements are."""
    match node:
        case ir.Pos() | ir.Var() | ir.Index() | ir.Size() | ir.Mod() | ir.Abs() | ir.Pow2():
            return True
        case ir.Const(value=value):
            return value >= 0
        case ir.Sum(terms=terms, constant=constant):
            return constant >= 0 and all(c > 0 and _is_no_less_than_zero(t) for t, c in terms)
        case ir.FloorDiv(left=left):
            return _is_no_less_than_zero(left)
        case ir.Mul(left=left, right=right):
            return _is_no_less_than_zero(left) and _is_no_less_than_zero(right)
        case ir.Min(items=items):
            return all(map(_is_no_less_than_zero, items))
        case ir.Max(items=items):
            return any(map(_is_no_less_than_zero, items))
        case ir.Select(yes=yes, no=no):
            return _is_no_less_than_zero(yes) and _is_no_less_than_zero(no)
        case _:
            return False


def _shares(left: Tensor, right: Tensor) -> bool:
    try:
        return bool(left.untyped_storage()._cdata == right.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError):  # a tensor without storage
        return False


def _is_same(left: Tensor, right: Tensor) -> bool:
    """Whether both are the same view of the same memory."""
    alike = (left.shape, left.stride(), left.storage_offset(), left.dtype)
    own = (right.shape, right.stride(), right.storage_offset(), right.dtype)
    return alike == own and _shares(left, right)


def _name_in(tensor: Tensor) -> str | None:
    """The name of a tensor where the user's function knows it, or of one that it is a view of."""
    found: str | None = None
    for name, value in _known():
        if value is tensor:
            return name
        if isinstance(value, Tensor) and found is None and _shares(value, tensor):
            found = name
    return found


def _known() -> Iterator[tuple[str, Any]]:
    """Names and values that the function that is running knows, its own first, and attributes of them."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_foreign(frame):
        frame = frame.f_back
    if frame is None:
        return
    scopes: tuple[Mapping[str, Any], ...] = (frame.f_locals, frame.f_globals)
    for scope in scopes:
        yield from ((name, value) for name, value in list(scope.items()) if ir.is_name(name))
    for value in list(frame.f_locals.values()):
        members = getattr(value, "__dict__", {}) if not isinstance(value, Tensor) else {}
        members = {**members, **members.get("_buffers", {})}
        yield from ((name, member) for name, member in members.items() if ir.is_name(name))


def _is_foreign(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith(_FOREIGN)


def declared(root: ir.Node, named: Mapping[str, Tensor]) -> tuple[ir.Node, list[ir.Table]]:
    """The relation and the inputs it reads: leading dims that only batch elements and heads index are theirs."""
    reads: dict[str, list[ir.Load]] = {}
    for node in ir.postorder(root):
        if isinstance(node, ir.Load):
            reads.setdefault(node.table, []).append(node)
    tables = {name: _table(name, loads, named[name]) for name, loads in reads.items()}
    if not any({"batch", "head"} & {*table.dims} for table in tables.values()):
        return root, list(tables.values())

    def rule(node: ir.Node) -> ir.Node:
        if not isinstance(node, ir.Load):
            return node
        table = tables[node.table]
        lead = len(table.dims) - len(table.indexed_dims)
        return ir.Load(node.table, node.kind, node.index[lead:], table.ambient)

    return ir.transform(root, rule), list(tables.values())


def _table(name: str, loads: list[ir.Load], tensor: Tensor) -> ir.Table:
    dims: list[str | int] = [dim_name(place) for place in range(max(1, tensor.ndim))]
    place = 0
    for word in ("batch", "head"):
        if place < len(dims) and all(load.index[place] is ir.Var(word) for load in loads):
            dims[place] = word
            place += 1
    return ir.Table(name, loads[0].kind, tuple(dims))
