"""Claims as data beside a saved mask: their relations are nodes of their own, over inputs of their own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Final, get_args

from attndsl.ir import nodes as n
from attndsl.ir import storage
from attndsl.ir.claims import Always, Claim, Comparison, Counted, Density, Property, Reached
from attndsl.ir.documents import Field
from attndsl.ir.interning import Deps, Node, Side, Sort
from attndsl.ir.mask import Mask
from attndsl.ir.rules import mask_fault
from attndsl.ir.walks import postorder

_OPERATORS: Final[tuple[Comparison, ...]] = get_args(Comparison)
_MOST: Final = 1 << 31  # lengths, extents, heads, layers: more than a program can say


def written_claims(claims: Sequence[Claim]) -> dict[str, Any]:
    """Claims as data for JSON."""
    roots = [node for claim in claims for node in (claim.condition, *_relations(claim.what))]
    order = list(dict.fromkeys(itertools.chain.from_iterable(map(postorder, roots))))
    place = {node: index for index, node in enumerate(order)}
    tables = {table.name: table for claim in claims for table in claim.tables}
    return {
        "tables": storage.written_tables(tables.values()),
        "nodes": storage.written_nodes(order, place),
        "claims": [
            [claim.text, place[claim.condition], _written(claim.what, place)] for claim in claims
        ],
    }


def _relations(what: Property) -> tuple[Node, ...]:
    match what:
        case Always(root=node) | Counted(bound=node):
            return (node,)
        case Density() | Reached():
            return ()


def _written(what: Property, place: dict[Node, int]) -> list[Any]:
    match what:
        case Always(root=root, is_square=is_square):
            return ["always", place[root], is_square]
        case Counted(side=side, operator=operator, bound=bound):
            return ["counted", side.value, operator, place[bound]]
        case Density(length=length, extents=extents, heads=heads, operator=operator, bound=bound):
            sizes = [list(pair) for pair in extents]
            return ["density", length, sizes, heads, operator, *bound.as_integer_ratio()]
        case Reached(layers=layers):
            return ["reached", layers]


def read_claims(document: Field, mask: Mask) -> tuple[Claim, ...]:
    """The claims of a mask that ``written_claims`` wrote.

    Raises:
        ValueError: they are none; it names the field.
    """
    tables = {table.name: table for table in mask.tables}
    for item in document.part("tables").items():
        table = storage.read_table(item)
        if tables.setdefault(table.name, table) != table:
            raise item.wrong("the input as the pattern declares it")
    frame = replace(mask, tables=tuple(tables.values()), unread=(), conditions=())
    if (fault := mask_fault(frame)) is not None:
        raise ValueError(f"{document.path}: {fault}")
    reader = storage.Reader(frame, list(document.part("nodes").items()))
    return tuple(_claim(each, reader, mask) for each in document.part("claims").items())


def _claim(item: Field, reader: storage.Reader, mask: Mask) -> Claim:
    text, condition, what = item.row("text", "condition", "what")
    made = _property(what, reader)
    where = reader.whole(condition, Sort.BOOL)
    if where.deps & Deps.PAIR & ~_positions(made):
        raise condition.wrong("a condition on what the claim speaks of")
    read = _tables_read(mask.root, where, *_relations(made))
    return Claim(text.text(), made, where, tuple(reader.tables[name] for name in sorted(read)))


def _tables_read(*roots: Node) -> set[str]:
    found = set()
    for node in itertools.chain.from_iterable(map(postorder, roots)):
        match node:
            case n.Load(table=name):
                found.add(name)
            case n.Size(name=name) if ":" in name:
                found.add(name.partition(":")[0])
            case _:
                pass
    return found


def _positions(what: Property) -> Deps:
    match what:
        case Always():
            return Deps.PAIR
        case Counted(side=side):
            return side.deps
        case Density() | Reached():
            return Deps.NONE


def _property(item: Field, reader: storage.Reader) -> Property:
    kind = next(item.items(1)).word("always", "counted", "density", "reached")
    match kind:
        case "always":
            _, root, is_square = item.row("kind", "root", "is_square")
            return Always(reader.whole(root, Sort.BOOL), is_square.truth())
        case "counted":
            _, side, operator, bound = item.row("kind", "side", "operator", "bound")
            counted = Counted(side.one_of(Side), _operator(operator), reader.whole(bound, Sort.INT))
            if counted.bound.deps & Deps.PAIR & ~counted.side.deps:
                raise bound.wrong("a bound of that side")
            return counted
        case "density":
            names = "kind", "length", "extents", "heads", "operator", "numerator", "denominator"
            _, length, extents, heads, operator, above, below = item.row(*names)
            return Density(
                None if length.value is None else length.number(1, _MOST),
                tuple(map(_extent, extents.items())),
                heads.number(1, _MOST),
                _operator(operator),
                Fraction(above.number(), below.number(1)),
            )
        case _:
            _, layers = item.row("kind", "layers")
            return Reached(layers.number(1, _MOST))


def _extent(item: Field) -> tuple[str, int]:
    name, size = item.row("axis", "size")
    return name.name(), size.number(1, _MOST)


def _operator(item: Field) -> Comparison:
    word = item.word(*_OPERATORS)
    return next(each for each in _OPERATORS if each == word)
