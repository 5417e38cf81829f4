"""Functions of the Python form: of ints and reals, of conditions, and loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from attndsl import ir
from attndsl.source import AttnDslError

from .callers import here
from .embedding import Expr, Operand, as_expr, expect, extremum, ints, merged, node_of, numeric
from .errors import make_error
from .frames import WIDEST_RANGE
from .real_elaboration import select


def minimum(*items: Operand) -> Expr:
    """The least of one or more numbers."""
    return extremum("minimum", ir.Min, items)


def maximum(*items: Operand) -> Expr:
    """The greatest of one or more numbers."""
    return extremum("maximum", ir.Max, items)


def clamp(item: Operand, low: Operand, high: Operand) -> Expr:
    """max(low, min(item, high))."""

    def of_reals(item: ir.Node, low: ir.Node, high: ir.Node) -> ir.Node:
        return ir.reals.greatest(low, ir.reals.least(item, high))

    return numeric("clamp", ir.clamp, of_reals, item, low, high)


def ilog2(item: Operand) -> Expr:
    """Floor of the binary logarithm, -1 below 1."""
    return ints("ilog2", ir.ilog2, item)


def pow2(item: Operand) -> Expr:
    """2**item for 0 <= item <= 62, else 0."""
    return ints("pow2", ir.pow2, item)


def where(condition: Operand, yes: Operand, no: Operand) -> Expr:
    """``yes`` where the condition holds, else ``no``; both numbers or both truth values."""
    test = expect(ir.Sort.BOOL, "where", condition)
    parts = (test, as_expr(yes), as_expr(no))
    nodes = [node_of(part) for part in parts]
    sorts = {node.sort for node in nodes[1:]}
    if len(sorts) > 1 and sorts != {ir.Sort.INT, ir.Sort.REAL}:
        raise AttnDslError(make_error("A202", "`where` needs two ints or two bools", here()))
    return merged(select(*nodes), parts)


def length(name: str) -> Expr:
    """How long "q" or "k" is, an axis ("y", "image.y") or a segment ("image")."""
    return Expr(ir.Size(name))


def any_(start: Operand, stop: Operand, body: Callable[[Expr], Operand]) -> Expr:
    """Whether some int j with start <= j < stop makes ``body(j)`` true."""
    return _looped(ir.exists, ir.Sort.BOOL, start, stop, body)


def all_(start: Operand, stop: Operand, body: Callable[[Expr], Operand]) -> Expr:
    """Whether every int j with start <= j < stop makes ``body(j)`` true."""
    return _looped(ir.forall, ir.Sort.BOOL, start, stop, body)


def count_(start: Operand, stop: Operand, body: Callable[[Expr], Operand]) -> Expr:
    """How many ints j with start <= j < stop make ``body(j)`` true."""
    return _looped(ir.count, ir.Sort.BOOL, start, stop, body)


def sum_(start: Operand, stop: Operand, body: Callable[[Expr], Operand]) -> Expr:
    """The sum of ``body(j)`` over the ints j with start <= j < stop; 0 where there are none."""
    return _looped(ir.total, ir.Sort.INT, start, stop, body)


Looping: TypeAlias = Callable[[ir.Node, ir.Node, Callable[[ir.Node], ir.Node]], ir.Node]


def _looped(
    make: Looping, sort: ir.Sort, start: Operand, stop: Operand, body: Callable[[Expr], Operand]
) -> Expr:
    limits = [expect(ir.Sort.INT, "a range", each) for each in (start, stop)]
    parts = list(limits)

    def inner(index: ir.Node) -> ir.Node:
        made = expect(sort, "the body", body(Expr(index)))
        parts.append(made)
        return node_of(made)

    ends = node_of(limits[0]), node_of(limits[1])
    found, width = make(*ends, inner), ir.sub(ends[1], ends[0])
    is_left = isinstance(found.item if isinstance(found, ir.Not) else found, ir.Loop)
    if is_left and isinstance(width, ir.Const) and width.value > WIDEST_RANGE:
        title = f"a range of {width.value:,} is too wide"
        raise AttnDslError(make_error("A303", title, here(), f"at most {WIDEST_RANGE}"))
    if (bodies := ir.trials(found)[0]) > ir.MOST_TRIALS:
        title = f"ranges within each other try {bodies:,} combinations"
        raise AttnDslError(make_error("A303", title, here(), f"at most {ir.MOST_TRIALS:,}"))
    return merged(found, parts)


# ---------------------------------------------------------------------- spaces


def grid(name: str, *axes: str | tuple[str, int]) -> ir.Space:
    """``grid("image", "y", "x")``; ``("y", 56)`` fixes an extent."""
    made = tuple(ir.Axis(a) if isinstance(a, str) else ir.Axis(*a) for a in axes)
    return _sound(ir.Space(name, (ir.Segment(name, made),)))


def space(name: str, *segments: ir.Space | tuple[str, int]) -> ir.Space:
    """Segments in order: grids, or ``("text", 77)``, whose one axis has the segment's name."""
    made: list[ir.Segment] = []
    for each in segments:
        if isinstance(each, ir.Space):
            made.extend(each.segments)
        else:
            made.append(ir.Segment(each[0], (ir.Axis(*each),)))
    return _sound(ir.Space(name, tuple(made)))


def _sound(made: ir.Space) -> ir.Space:
    """The space, if the language has such."""
    wrong = ir.space_fault(made) if made.segments else "it has no segments"
    if wrong is not None:
        raise AttnDslError(make_error("A209", f"there is no such space: {wrong}", here()))
    return made
