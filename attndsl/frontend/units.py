"""Units in the check of a selection: what stands for one of them, and which vectors there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from attndsl import ir
from attndsl import syntax as syn

from .errors import did_you_mean, make_error
from .scope import Definition, SpaceItem, UnitsItem
from .spaces import FLAT_PAIR, Pair

if TYPE_CHECKING:
    from .real_check import Locals, Numbers

BLOCK: Final = "block"
"""One of the units that are given no name: `over blocks(b)`."""
TILE: Final = "tile"
"""Likewise: `over tiles(y = 4, x = 4) of image`."""
POOLS: Final = ("mean", "max", "min")
BOUND: Final = "bound"
SHARE: Final = "share"
SCALE: Final = "scale"
DIAGONALS: Final = "diagonals"
QUERIES: Final = ("queries", DIAGONALS)
"""Folds in which `q` is each query of a unit."""
KEYS: Final = "keys"
"""Single keys, where units are named."""
ALL: Final = "all"
"""All queries as one unit."""
ANTIDIAGONAL: Final = "antidiagonal"
UNIT: Final = "unit"
_PAIR = 2  # arguments of `bound`


@dataclass(frozen=True, slots=True)
class Frame:
    """The subject of an expression: the name of a unit, "" where that is a token `k`, and whether `q` is a unit.

    ``without``: `q` or `k`, where there is none. ``axes`` are those of a unit of keys that is a tile, ``row_axes`` of
    one of queries.
    """

    unit: str
    is_query_unit: bool
    without: str = ""
    axes: tuple[str, ...] = ()
    row_axes: tuple[str, ...] = ()


def name_of(each: str | syn.Groups | None) -> str:
    """The name of one of the units that a selection says; "" of tokens."""
    if each is None or each == KEYS:
        return ""
    return each if isinstance(each, str) else BLOCK if isinstance(each, syn.Blocks) else TILE


def names_of(unit: str, axes: tuple[str, ...] = ()) -> Locals:
    """The ints that are known of a unit, a tile where it has axes."""
    if not unit:
        return {}
    names = unit, *(f"{unit}.{each}" for each in axes or ("start", "end"))
    return dict.fromkeys(names, "int")


def row_names(axes: tuple[str, ...]) -> Locals:
    """The ints that are known of a unit of queries."""
    names = (f"q.{each}" for each in ("index", *(axes or ("start", "end"))))
    return dict.fromkeys(names, "int")


def axes_of(definition: Definition, each: str | syn.Groups | syn.Numbers | None) -> tuple[str, ...]:
    """The axes of the grid whose tiles the units are; none of blocks."""
    space = grid_of(definition, each)
    return () if space is None else tuple(axis.name for axis in space.segments[0].axes)


def grid_of(definition: Definition, each: str | syn.Groups | syn.Numbers | None) -> ir.Space | None:
    """The grid whose tiles the units are; None of blocks, and where there is none of that name."""
    said = blocks_said(definition, each)
    if not isinstance(said, syn.Tiles):
        return None
    named = definition.unit.find(each) if isinstance(each, str) else None
    grid = (named.unit if isinstance(named, UnitsItem) else definition.unit).find(said.grid)
    is_grid = isinstance(grid, SpaceItem) and isinstance(grid.declaration, syn.Grid)
    return grid.space if isinstance(grid, SpaceItem) and is_grid else None


def spaces_of_tiles(definition: Definition, select: syn.Select) -> Pair:
    """The grids in which queries and keys of a selection stand: those of its tiles, or no grids."""
    found = grid_of(definition, select.queries), grid_of(definition, select.over)
    queries, keys = found[0] or found[1], found[1] or found[0]
    return FLAT_PAIR if queries is None or keys is None else Pair(queries, keys)


def blocks_said(
    definition: Definition, each: str | syn.Groups | syn.Numbers | None
) -> syn.Groups | None:
    """The units that a selection speaks of; None of tokens, and where there are none of that name."""
    if isinstance(each, syn.Numbers):
        return None
    if not isinstance(each, str):
        return each
    item = definition.unit.find(each)
    return item.declaration.blocks if isinstance(item, UnitsItem) else None


def no_units(checker: Numbers, name: str, span: syn.Name) -> None:
    """Complain of a name that is not that of units."""
    known = checker.unit.declared("units")
    helps = (did_you_mean(name, known), f"declare `units {name} = blocks(64)`")
    title = f"there are no units `{name}`"
    checker.diagnostics.append(make_error("A201", title, span.span, helps=helps))


def check_position(checker: Numbers, node: syn.Name) -> None:
    """Complain of a position where there is none: of a unit there is a start and an end."""
    frame = checker.frame
    if frame is None:
        return
    if node.name == frame.without:
        checker.add("A219", f"there is no `{node.name}` here", node.span)
        return
    if node.name == "k" and frame.unit:
        names = [f"`{frame.unit}.{each}`" for each in frame.axes or ("start", "end")]
        helps = (f"write {', '.join(names)} or `{frame.unit}`, its number",)
        checker.add("A219", "`k` is no single key here, but a unit of them", node.span, helps=helps)
    if node.name == "q" and frame.is_query_unit:
        names = [f"`q.{each}`" for each in frame.row_axes or ("start", "end")]
        helps = (f"write {', '.join(names)} or `q.index`",)
        title = "`q` is no single query here, but a unit of them"
        checker.add("A219", title, node.span, helps=helps)


def is_pooled(node: syn.Expression) -> bool:
    """Whether it looks like `mean(k)`."""
    return isinstance(node, syn.Call) and node.name in POOLS


def is_unit(node: syn.Expression) -> bool:
    """Whether it looks like `unit(k)`."""
    return isinstance(node, syn.Call) and node.name == UNIT and len(node.arguments) == 1


def check_pooled(checker: Numbers, node: syn.Expression) -> None:
    """The mean, maximum or minimum of the vectors of a unit, or of these divided by their lengths."""
    assert isinstance(node, syn.Call)
    assert checker.frame is not None
    sides = [_inside(each.value) for each in node.arguments]
    if len(sides) != 1 or not isinstance(sides[0], syn.Name) or sides[0].name not in ("q", "k"):
        helps = (f"write `{node.name}(k)`",)
        checker.add("A219", f"`{node.name}` is that of `q` or of `k`", node.span, helps=helps)
        return
    name = sides[0].name
    is_of_many = checker.frame.unit != "" if name == "k" else checker.frame.is_query_unit
    if not is_of_many:
        title = f"`{name}` is a single token here"
        clause = "over" if name == "k" else "for"
        helps = (f"write `{name}`, or `{clause} blocks(64)` in front of the score",)
        checker.add("A219", title, node.span, helps=helps)


def check_own_vector(checker: Numbers, node: syn.Name) -> None:
    """The vector of a query or key, where that is a single token."""
    frame = checker.frame
    if frame is None:
        return
    if node.name == frame.without:
        checker.add("A219", f"there is no `{node.name}` here", node.span)
    elif frame.unit if node.name == "k" else frame.is_query_unit:
        title = f"`{node.name}` is a unit of several tokens here"
        helps = (f"say which vector stands for them: `mean({node.name})`",)
        checker.add("A219", title, node.span, helps=helps)


def _inside(node: syn.Expression) -> syn.Expression:
    """The argument of `unit(...)`; another expression is itself."""
    if is_unit(node):
        assert isinstance(node, syn.Call), "it looks like one"
        return node.arguments[0].value
    return node


def check_compared(checker: Numbers, node: syn.Call) -> None:
    """`bound(q, k)`, of a unit of keys and one query; `antidiagonal(q, k)`, of units of both."""
    given = [each.value for each in node.arguments]
    names = [each.name for each in given if isinstance(each, syn.Name)]
    if len(given) != _PAIR or names != ["q", "k"]:
        title, helps = f"`{node.name}` is that of `q` and `k`", (f"write `{node.name}(q, k)`",)
        checker.add("A219", title, node.span, helps=helps)
        return
    frame = checker.frame
    assert frame is not None, "only selections have bounds"
    if not frame.unit or frame.is_query_unit != (node.name == ANTIDIAGONAL):
        queries = "a unit of queries" if node.name == ANTIDIAGONAL else "one query"
        title = f"`{node.name}` is that of {queries} and a unit of keys"
        checker.add("A219", title, node.span)
