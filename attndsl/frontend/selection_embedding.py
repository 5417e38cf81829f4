"""Selections in the Python form: the same stages, expressions of the same nodes.

The number of a unit is open while an expression is built: `settled` puts it in its frame, and refuses what belongs to
another one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeAlias

from attndsl import ir
from attndsl.source import AttnDslError

from .callers import here
from .embedded_tables import Row
from .embedding import Expr, Operand, as_expr, expect, merged, parts_of
from .errors import listed, make_error
from .joining import Asked
from .numbering_elaboration import NUMBER
from .real_embedding import Vector, vector_of
from .rows import SHIFT, open_size, stored
from .selection_elaboration import is_chosen
from .space_binding import SpaceBinder
from .tile_embedding import Tiles, pair_of
from .unit_frames import in_frame, only_side, settled, with_inputs
from .unit_sides import Blocks

reals, sel = ir.reals, ir.selection

Real: TypeAlias = "Operand | Callable[[Expr], Operand]"
"""A number, as a function of the one that chooses where numbers do."""
_HEADS: Final = {"group": sel.Shared.GROUP, "heads": sel.Shared.HEADS}


def unit(vector: object) -> Vector:
    """A vector divided by its length."""
    node, parts = vector_of(vector)
    return Vector(sel.Unit(node), parts)


scale: Final = Expr(sel.Scale())
"""The factor of the call on inner products."""


def exceeds(left: Operand, right: Operand) -> Expr:
    """Whether a real is greater than another: in conditions of selections only."""
    parts = as_expr(left), as_expr(right)
    nodes = [reals.as_real(parts_of(each)[0]) for each in parts]
    return merged(sel.Exceeds(nodes[0], nodes[1], False), parts)


def fold(
    how: str,
    score: Operand,
    over: Blocks | Tiles | str,
    *,
    where: Operand = True,
    every: bool = False,
    rows: Blocks | None = None,
    share: bool = False,
) -> Expr:
    """Scores that become one, as `how over ... where ...: score` of the language.

    Args:
        how: "sum", "max", "lse" or "softmax".
        score: The real that is folded.
        over: Units of keys, "keys", "group", "heads", "queries" or "diagonals".
        where: Those that count.
        every: All units of a query, `over all ...`, instead of those that overlap the one that is scored.
        rows: Units of queries, `over queries in ...`.
        share: Whether each unit of a sum counts by its share that lies within.

    Raises:
        AttnDslError: A219, there is no such fold, or it speaks of other units.
    """
    words = ("sum", "max", "lse", "softmax")
    if how not in words or (how == "lse") > every or (how == "softmax" and every):
        raise AttnDslError(make_error("A219", f"there is no fold {how!r} of these units", here()))
    parts = as_expr(score), expect(ir.Sort.BOOL, "where", where)
    item, cond = reals.as_real(parts_of(parts[0])[0]), parts_of(parts[1])[0]
    fold_ = sel.Fold(how)
    if isinstance(over, str) and over in _HEADS:
        return merged(sel.Reduced(fold_, _HEADS[over], item, ir.TRUE, False), parts)
    if over in ("queries", "diagonals"):
        if isinstance(rows, Tiles):
            raise AttnDslError(make_error("A219", "queries are folded in blocks of them", here()))
        whose = rows.units if rows is not None else sel.TOKENS
        item, cond = (settled(each, ir.Side.QUERY, whose) for each in (item, cond))
        return merged(sel.QueryFold(fold_, whose, item, cond, over == "diagonals"), parts)
    units = _units(over)
    if isinstance(units, sel.Tiles) and not every and how != "softmax":
        title = "tiles are folded all of them, and not with units that overlap them: `every=True`"
        raise AttnDslError(make_error("A219", title, here()))
    item, cond = (settled(each, ir.Side.KEY, units) for each in (item, cond))
    if every:
        return merged(sel.RowFold(fold_, units, item, cond), parts)
    return merged(sel.Reduced(fold_, units, item, cond, share), parts)


def _units(over: Blocks | Tiles | str | None) -> sel.Groups:
    if over is None or over == "keys":
        return sel.TOKENS
    if isinstance(over, Blocks | Tiles):
        return over.units
    raise AttnDslError(make_error("A219", f"there are no units {over!r}", here()))


# ---------------------------------------------------------------------- choices


def top(count: int) -> sel.Choice:
    """The ``count`` of the highest scores."""
    return sel.Choice(sel.Take.TOP, ir.Const(count))


def sample(count: int, seed: int = 0) -> sel.Choice:
    """``count`` candidates, each as likely as another; the score is 1.0."""
    return sel.Choice(sel.Take.SAMPLE, ir.Const(count), seed)


def above(least: Operand) -> sel.Choice:
    """Units whose score is greater."""
    return sel.Choice(sel.Take.ABOVE, reals.as_real(parts_of(as_expr(least))[0]))


def reaching(share: float) -> sel.Choice:
    """The fewest of the highest scores that sum to the share."""
    return sel.Choice(sel.Take.REACHING, reals.as_real(parts_of(as_expr(share))[0]))


def within(share: float) -> sel.Choice:
    """The highest scores, as many as sum to at most the share."""
    return sel.Choice(sel.Take.WITHIN, reals.as_real(parts_of(as_expr(share))[0]))


# ---------------------------------------------------------------------- selections


class Chosen:
    """A selection, label or rank, asked by an index: ``k.isin(near[q])``, ``bucket[k] == bucket[q]``."""

    def __init__(self, chosen: ir.Chosen, is_number: bool) -> None:
        """``is_number``: whether it is a label or a rank."""
        self.ir = chosen
        self._asked = Asked(selections=(chosen,))
        self._is_number = is_number

    def __getitem__(self, index: Operand) -> Any:
        at = expect(ir.Sort.INT, "an index", index)
        whole = Expr(ir.ZERO, (self.ir.table,), asked=self._asked)
        return self._number(at, whole) if self._is_number else ChosenRow(self.ir, at, whole)

    def _number(self, at: Expr, whole: Expr) -> Expr:
        table, node = self.ir.table, parts_of(at)[0]
        if "q" in table.dims and node.deps & ir.Deps.KEY:
            title = f"`{self.ir.name}` numbers queries, and this is a key"
            raise AttnDslError(make_error("A219", title, here()))
        slots = (ir.ZERO,) if isinstance(self.ir, ir.Selection) else ()
        place = stored(table, (node, *slots), SHIFT)
        return merged(ir.Load(table.name, table.kind, place, table.ambient), (at, whole))


class ChosenRow(Row):
    """Units that a query, or a number, has chosen, or, by column, those that have chosen it."""

    def __init__(self, chosen: ir.Chosen, at: Expr, whole: Expr) -> None:
        """The row at an index."""
        assert isinstance(chosen, ir.Selection), "others have numbers"
        node = parts_of(at)[0]
        if node is not ir.Pos(ir.Side.QUERY) and not isinstance(chosen.queries, sel.Numbers):
            title = f"what `{chosen.name}` has chosen is asked for the query alone"
            raise AttnDslError(make_error("A219", title, here()))
        super().__init__(chosen.table, (at,))
        self._chosen = chosen
        self._whole = whole

    def holds(self, item: Expr) -> Expr:
        """Whether the token is in one of the units."""
        wanted = expect(ir.Sort.INT, "in", item)
        size = open_size(self.table)
        node = is_chosen(self._chosen, parts_of(wanted)[0], parts_of(self.index[0])[0], SHIFT, size)
        return merged(node, (*self.index, wanted, self._whole))


def select(
    name: str,
    score: Real,
    take: sel.Choice,
    *,
    over: Blocks | Tiles | None = None,
    rows: Blocks | Tiles | str | Operand | None = None,
    per: str | None = None,
    where: Real = True,
    keeping: Real = False,
    by_column: bool = False,
    doc: str = "",
) -> Chosen:
    """A selection, as `select` of the language.

    Args:
        name: That of its table in calls.
        score: A real, of the query, or unit of queries, and the unit of keys.
        take: What is taken: `top`, `above`, `reaching`, `within`, `sample`.
        over: Units of keys; single keys without it.
        rows: Units of queries that choose together, "all" of them, or how many numbers choose; then score and
            conditions are functions of the number. Without it each query chooses.
        per: "group" or "heads", that choose together.
        where: Which units are candidates.
        keeping: Candidates that are taken whatever their score.
        by_column: Whether each unit takes queries.
        doc: For people.

    Raises:
        AttnDslError: A219, A306, as of the language, with the place in the caller's program.
    """
    units, queries = _units(over), _rows(rows)
    given = [score, where, keeping]
    if isinstance(queries, sel.Numbers):
        given = [each(Expr(NUMBER)) if callable(each) else each for each in given]
    parts = tuple(as_expr(each) for each in given)
    nodes = [parts_of(each)[0] for each in parts]
    for place, sort in ((1, ir.Sort.BOOL), (2, ir.Sort.BOOL)):
        expect(sort, ("where", "keeping")[place - 1], parts[place])
    nodes[0] = reals.as_real(nodes[0])
    pair = pair_of(units, queries)
    align = ir.Align.START if pair.is_rectangular else ir.Align.END
    shift = ir.first_query(align)
    binder = SpaceBinder(pair, (pair,), shift, here())
    whole = [
        binder.bound_to_spaces(in_frame(each, units, queries, name, shift))
        for each in (*nodes, take.amount)
    ]
    if per not in (None, *_HEADS):
        title = f"heads do not choose together per {per!r}: {listed(_HEADS)} do"
        raise AttnDslError(make_error("A219", title, here()))
    shared = sel.Shared.NOTHING if per is None else _HEADS[per]
    made = sel.Selection(
        name, units, queries, whole[0], whole[1], whole[2], replace(take, amount=whole[3]),
        shared, align=align, doc=doc, by_column=by_column, spaces=(pair.queries, pair.keys),
        place=here(),
    )  # fmt: skip
    if (fault := sel.selection_fault(made)) is not None:
        raise AttnDslError(make_error("A306" if fault[0] == "choice" else "A219", fault[1], here()))
    return Chosen(with_inputs(made, parts), is_number=False)


def label(name: str, count: Operand, score: Callable[[Expr], Operand], doc: str = "") -> Chosen:
    """The number in [0, count) that scores highest, for each query or for each key, as `label` of the language.

    Raises:
        AttnDslError: A219, the score speaks of both sides, or of none.
    """
    numbers, made = _rows(count), as_expr(score(Expr(NUMBER)))
    assert isinstance(numbers, sel.Numbers), "a count is a number"
    node = reals.as_real(parts_of(made)[0])
    side = only_side((node.deps,), "label")
    node = settled(node, side, sel.TOKENS)
    placed = ir.substitute(node, {NUMBER: ir.Pos(side.other)})
    by_key = side is ir.Side.KEY
    chosen = sel.Selection(
        name, sel.TOKENS if by_key else numbers, numbers if by_key else None, placed, ir.TRUE, ir.FALSE,
        top(1), sel.varies_by(placed), doc=doc, by_column=by_key,
    )  # fmt: skip
    return Chosen(with_inputs(chosen, (made,)), is_number=True)


def rank(name: str, *keys: Operand, doc: str = "") -> Chosen:
    """The place of each query, or of each key, when all are sorted by numbers, as `rank` of the language.

    Raises:
        AttnDslError: A219, the numbers speak of both sides, or of none, or are reals of queries.
    """
    parts = tuple(map(as_expr, keys))
    for part in parts:
        if parts_of(part)[0].sort is not ir.Sort.REAL:
            expect(ir.Sort.INT, "rank", part)
    shift = ir.first_query(ir.Align.END)
    nodes = tuple(in_frame(parts_of(each)[0], sel.TOKENS, None, name, shift) for each in parts)
    side = only_side((sel.sides_read(each, folds_all=True) for each in nodes), "rank")
    if side is ir.Side.QUERY and any(each.sort is ir.Sort.REAL for each in nodes):
        raise AttnDslError(make_error("A219", "queries are ranked by ints alone", here()))
    return Chosen(with_inputs(ir.Rank(name, side, nodes, doc=doc), parts), is_number=True)


def _rows(rows: object) -> sel.Groups | sel.Numbers | None:
    if rows is None or isinstance(rows, Blocks | Tiles):
        return None if rows is None else rows.units
    if isinstance(rows, str):
        if rows == "all":
            return sel.WHOLE
        raise AttnDslError(make_error("A219", f"there are no units of queries {rows!r}", here()))
    stop = parts_of(expect(ir.Sort.INT, "a count of numbers", rows))[0]
    if stop.deps & ~ir.Deps.NONE:
        title = "the range of a number is the same for all pairs"
        raise AttnDslError(make_error("A219", title, here()))
    return sel.Numbers(stop)


# ---------------------------------------------------------------------- frames
