"""Operators on a row of a captured tensor: `(picked[b, q_idx // 64] == kv_idx.unsqueeze(-1)).any(-1)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

from attndsl import ir

from . import operations
from .symbols import Operations, Symbol, Vector, refuse

# Operators whose results for two vectors are those of their entries, by their names in aten.
_BY_ENTRY: Final = frozenset(
    ("lt", "le", "gt", "ge", "eq", "ne", "add", "sub", "mul", "floor_divide", "remainder", "neg", "abs",
     "logical_and", "logical_or", "logical_not", "bitwise_and", "bitwise_or", "bitwise_not", "__and__", "__or__"),
)  # fmt: skip


def of_one(symbol: Symbol, tracer: Operations) -> Vector:
    """A symbol that stands beside each entry of a vector."""
    node = symbol.node
    return Vector.of(lambda _: node, ir.ONE, 1, symbol.dtype, tracer)


def applied(
    tracer: Any,
    name: str,
    operator: operations.Operator,
    operands: list[Any],
    kwargs: Mapping[str, Any],
) -> Any:
    """The value of an operator, an operand of which is a vector: a vector, or the symbol of `any` or `all` of it.

    Raises:
        AttnDslError: A218, it is another operator, or vectors of different tensors meet.
    """
    if name in ("any", "all") and isinstance(operands[0], Vector):
        return _joined(tracer, name, operands[0])
    if name not in _BY_ENTRY or kwargs:
        refuse(f"`{name}` gives many numbers for each pair", "this is a vector",
               "compare its entries, and ask for `.any(-1)` or `.all(-1)`")  # fmt: skip
    vectors = [x for x in operands if isinstance(x, Vector)]
    lengths = dict.fromkeys(x.length for x in vectors if x.length is not ir.ONE)
    if len(lengths) > 1:
        refuse("rows of two tensors meet", "they may be of different lengths")
    dummies = [
        Symbol.of(x.body(ir.ZERO), x.dtype, tracer) if isinstance(x, Vector) else x
        for x in operands
    ]
    dtype, common = (
        operations.dtype_of(operator, name, dummies, None),
        operations.common_dtype(dummies),
    )

    def body(place: ir.Node) -> ir.Node:
        def node(x: Any) -> ir.Node:
            if isinstance(x, Vector):
                return x.body(place)
            return x.node if isinstance(x, Symbol) else operations.number(x, common)

        return operations.settled(operator.rule(*map(node, operands)), dtype)

    shape = max(x.shape[0] for x in vectors)
    return Vector.of(body, next(iter(lengths), ir.ONE), shape, dtype, tracer)


def _joined(tracer: Any, name: str, vector: Vector) -> Symbol:
    join = ir.exists if name == "any" else ir.forall
    node = join(ir.ZERO, vector.length, lambda place: operations.as_bool(vector.body(place)))
    return Symbol.of(node, torch.bool, tracer)
