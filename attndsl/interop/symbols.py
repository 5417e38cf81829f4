"""Tensors that stand for a value of every pair: what a mask_mod is run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn, Protocol

import torch
from torch import Tensor

from attndsl import ir
from attndsl.frontend import here
from attndsl.source import AttnDslError, Diagnostic, Label, Span


class Operations(Protocol):
    """Decides what becomes of operations of torch on symbols."""

    def operation(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The value of an operator of torch, of which an argument is a symbol."""


class _Standing(Tensor):
    """A tensor without data; what is done with it is for its function's `operations`."""

    operations: Operations
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        symbol = next(x for x in flat((args, kwargs)) if isinstance(x, _Standing))
        return symbol.operations.operation(function, args, kwargs or {})


class Symbol(_Standing):
    """An integer or truth value of each pair, as a tensor without dims and without data."""

    node: ir.Node

    @staticmethod
    def of(node: ir.Node, dtype: torch.dtype, operations: Operations) -> Symbol:
        """The symbol of a node."""
        made: Symbol = Tensor._make_wrapper_subclass(Symbol, (), dtype=dtype, device=_CPU)
        made.node, made.operations = node, operations
        return made


class Part(_Standing):
    """A part of a captured tensor at places that are symbols: ``offsets[document[q]]`` of two dims."""

    held: Tensor
    places: tuple[ir.Node, ...]

    @staticmethod
    def of(held: Tensor, places: tuple[ir.Node, ...], operations: Operations) -> Part:
        """The part at these places along its first dims."""
        shape = tuple(held.shape[len(places) :])
        made: Part = Tensor._make_wrapper_subclass(Part, shape, dtype=held.dtype, device=_CPU)
        made.held, made.places, made.operations = held, places, operations
        return made


class Vector(_Standing):
    """A value of every pair and every number below ``length``: a row of a captured tensor, and what is made of it."""

    body: Callable[[ir.Node], ir.Node]
    length: ir.Node

    @staticmethod
    def of(
        body: Callable[[ir.Node], ir.Node],
        length: ir.Node,
        shape: int,
        dtype: torch.dtype,
        operations: Operations,
    ) -> Vector:
        """The vector of ``body`` of each number; of one number for each pair, with a shape of 1."""
        made: Vector = Tensor._make_wrapper_subclass(Vector, (shape,), dtype=dtype, device=_CPU)
        made.body, made.length, made.operations = body, length, operations
        return made


_CPU: Final = torch.device("cpu")


def flat(values: Any) -> list[Any]:
    """Lists what lies in nested tuples, lists and dicts, in order."""
    if isinstance(values, dict):
        values = tuple(values.values())
    if not isinstance(values, tuple | list):
        return [values]
    return [item for value in values for item in flat(value)]


def mapped(values: Any, change: Callable[[Any], Any]) -> Any:
    """Nested tuples, lists and dicts with each item changed."""
    if isinstance(values, dict):
        return {name: mapped(value, change) for name, value in values.items()}
    if isinstance(values, tuple | list):
        return type(values)([mapped(value, change) for value in values])
    return change(values)


def refusal(title: str, label: str = "", *helps: str, at: Span | None = None) -> AttnDslError:
    """The error of a mask_mod that is not translated, by default at the line of the user's function that is running."""
    return AttnDslError(Diagnostic("A218", title, (Label(at or here(), label),), helps=helps))


def refuse(title: str, label: str = "", *helps: str) -> NoReturn:
    """Raises the refusal."""
    raise refusal(title, label, *helps)
