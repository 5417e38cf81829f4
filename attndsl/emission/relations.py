"""A pattern as functions on tensors: what is asked for, and what is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from attndsl import ir
from attndsl.codegen import Magnitudes
from attndsl.emission.functions import FunctionWriter
from attndsl.emission.names import calling
from attndsl.passes import in_every_call, separate_root


@dataclass(frozen=True, slots=True)
class Relation:
    """The functions of a mask, and what they take behind positions and indices."""

    in_pattern: str
    zero_keys: str  # empty if no query sees any
    conditions: str  # empty if it asks for nothing
    tables: dict[str, str]  # parameter -> name of the input
    sizes: dict[str, str]  # parameter -> name of the length, "heads" for their count


def written(
    mask: ir.Mask, layer: int, magnitudes: Sequence[Magnitudes], suffix: str = ""
) -> Relation:
    """The functions of a mask in one layer, for all lengths; ``magnitudes`` bound what ``prepared`` gives."""
    writer = FunctionWriter(mask)
    root, zeros, *conditions = prepared(mask, layer)
    pairs = writer.body(root, magnitudes[0])
    counts = [] if mask.zeros is ir.ZERO else writer.body(zeros, magnitudes[1])
    texts = [each.text for each in mask.conditions]
    asked = writer.demands(list(zip(texts, conditions, magnitudes[2:], strict=True)))
    given = [*writer.tables, *writer.sizes]
    return Relation(
        _function("in_pattern", suffix, ["q", "k", "batch", "head", *given], pairs),
        _function("zero_keys", suffix, ["q", "batch", "head", *given], counts) if counts else "",
        _function("conditions", suffix, ["batch", "head", *given], asked) if asked else "",
        writer.tables,
        writer.sizes,
    )


def prepared(mask: ir.Mask, layer: int) -> tuple[ir.Node, ...]:
    """The root, the zero keys and the conditions as they are written, which is what bounds of values look at."""
    roots = *in_every_call(mask), *(each.node for each in mask.conditions)
    return tuple(_prepared(root, layer) for root in roots)


def _prepared(root: ir.Node, layer: int) -> ir.Node:
    return separate_root(ir.substitute(root, {ir.Var("layer"): ir.Const(layer)}))


_SAYS: Final = {
    "in_pattern": "Whether queries see keys: positions and indices that broadcast.",
    "zero_keys": "How many zero keys queries see: score 0, value 0.",
    "conditions": "Refuse inputs that are not what the pattern asks for: indices that broadcast.",
}


def _function(name: str, suffix: str, parameters: list[str], lines: list[str]) -> str:
    head = calling(f"def {name}{suffix}", parameters, ":", 100)
    return "\n".join([*head, *(f"    {line}" for line in [f'"""{_SAYS[name]}"""', *lines])]) + "\n"
