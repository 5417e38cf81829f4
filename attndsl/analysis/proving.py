"""Proofs for all lengths: a relation that holds nowhere, by interval reasoning over boxes.

    relax    differences of quotients and remainders are opened, so that intervals see them
    split    a box on which the relation may hold is cut at the constants of the relation -> repeat

Lengths and positions range up to 2**40. Failing to prove says nothing.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

import numpy as np

from attndsl import ir
from attndsl.analysis.boxes import Interpreter
from attndsl.analysis.ranges import Range, Truths
from attndsl.source import AttnDslError

FAR: Final = 1 << 40

Ends: TypeAlias = tuple[int, int]  # both inclusive
Box: TypeAlias = dict[ir.Node, Ends]

# Nodes and operands of a relation that is proved in many ways, each of which rebuilds it.
_LARGEST = 8_000
_MOST_BOXES = 64
_MOST_ROUNDS = 10
_MOST_WORK = 4_000  # nodes and operands interpreted, all rounds together: some 20 ms
_MOST_OPENED = 20_000  # terms looked at to open differences, all together: some 10 ms
_MOST_CUTS = 32
# Levels no quantifier of a real program reaches: the variables of a proof.
_FIRST_LEVEL = 1 << 20


def variable(number: int) -> ir.Node:
    """A variable of a proof, free in no pattern."""
    return ir.Index(_FIRST_LEVEL + number)


def is_large(root: ir.Node) -> bool:
    """Whether a relation is too large for proofs that rebuild it again and again."""
    return ir.is_larger(root, _LARGEST)


def impossible(
    root: ir.Node,
    variables: Mapping[ir.Node, Ends] | None = None,
    spend: Callable[[int], bool] = lambda steps: True,
) -> bool:
    """Whether no values of the variables (and no lengths, heads, inputs) make ``root`` hold.

    Args:
        root: A truth value. What is not among the variables ranges over all it can be.
        variables: Nodes with the least and greatest value each may have.
        spend: Told of the nodes and operands about to be interpreted, as often as they are; whether they may be.
    """
    if isinstance(root, ir.BoolConst):
        return not root.value
    if ir.is_larger(root, _MOST_WORK):
        return False
    return attempted(lambda: _impossible(root, dict(variables or {}), spend))


def attempted(proof: Callable[[], bool]) -> bool:
    """Whether a proof succeeds; one whose numbers grow beyond all bounds does not."""
    try:
        return proof()
    except AttnDslError:
        return False


def _impossible(root: ir.Node, known: dict[ir.Node, Ends], spend: Callable[[int], bool]) -> bool:
    root = _relaxed(root, known)
    if isinstance(root, ir.BoolConst):
        return not root.value
    nodes = ir.postorder(root)
    box = {node: known.get(node, _usual(node)) for node in nodes if _is_free(node)}
    size = sum(1 + len(node.parts) for node in nodes)
    rounds = min(_MOST_ROUNDS, _MOST_WORK // size)
    return _refuted(root, [box], _cuts(nodes), rounds, lambda: spend(size))


def simplified(root: ir.Node, variables: Mapping[ir.Node, Ends]) -> ir.Node:
    """``root`` with every part that intervals decide replaced by true or false."""

    def known(node: ir.Node) -> Range | Truths | None:
        if not _is_free(node):
            return None
        low, high = variables.get(node, _usual(node))
        return Range(np.array([low], dtype=object), np.array([high], dtype=object))

    interpreter = Interpreter(known, np.zeros(1, dtype=object))

    def rule(node: ir.Node) -> ir.Node:
        if node.sort is ir.Sort.INT:
            return node
        verdict = interpreter.truths(node)
        if not verdict.may_hold[0]:
            return ir.FALSE
        return node if verdict.may_fail[0] else ir.TRUE

    return ir.transform(root, rule)


def _is_free(node: ir.Node) -> bool:
    match node:
        case ir.Index(level=level):
            return level >= _FIRST_LEVEL
        case ir.Pos() | ir.Coord() | ir.Size() | ir.Var():
            return True
        case _:
            return False


def _usual(node: ir.Node) -> Ends:
    match node:
        case ir.Pos():
            return -FAR, FAR
        case ir.Coord():
            return -1, FAR
        case _:
            return 0, FAR


def _refuted(
    root: ir.Node, boxes: list[Box], cuts: list[int], rounds: int, spend: Callable[[], bool]
) -> bool:
    """Whether ``root`` holds nowhere in the boxes, cutting them as often as it pays."""
    for turn in range(rounds):
        if not spend():
            return False
        holds = _may_hold(root, boxes)
        boxes = [box for box, may in zip(boxes, holds, strict=True) if may]
        if not boxes:
            return True
        halves = [_halved(box, cuts, turn) for box in boxes]
        boxes = [half for pair in halves for half in pair]
        if len(boxes) > _MOST_BOXES or not all(halves):
            return False
    return False


def _may_hold(root: ir.Node, boxes: list[Box]) -> list[bool]:
    names = list(boxes[0])
    low = {n: np.array([box[n][0] for box in boxes], dtype=object) for n in names}
    high = {n: np.array([box[n][1] for box in boxes], dtype=object) for n in names}

    def known(node: ir.Node) -> Range | Truths | None:
        return Range(low[node], high[node]) if node in low else None

    template = np.zeros(len(boxes), dtype=object)
    return [bool(may) for may in Interpreter(known, template).truths(root).may_hold]


def _halved(box: Box, cuts: list[int], turn: int) -> tuple[Box, ...]:
    """The box cut in two along one variable; nothing if no cut lies inside."""
    names = list(box)
    for step in range(len(names)):
        node = names[(turn + step) % len(names)]
        low, high = box[node]
        first, last = bisect.bisect_right(cuts, low), bisect.bisect_right(cuts, high)
        if first < last:
            cut = cuts[(first + last) // 2]
            return {**box, node: (low, cut - 1)}, {**box, node: (cut, high)}
    return ()


def _cuts(nodes: list[ir.Node]) -> list[int]:
    """Where the truth of the relation may change: its own constants, and around zero."""
    found = {0, 1}
    for node in nodes:
        match node:
            case ir.Le(bound=b) | ir.Eq(bound=b):
                found |= {b, b + 1, -b, 1 - b}
            case ir.Sum(constant=c):
                found |= {-c, 1 - c}
            case ir.Const(value=value):
                found |= {value, value + 1}
            case _:
                pass
    return sorted(sorted(found, key=abs)[:_MOST_CUTS])


# ---------------------------------------------------------------- relaxing


def _relaxed(root: ir.Node, variables: dict[ir.Node, Ends]) -> ir.Node:
    """``root`` with sums rewritten so that intervals see through // and %.

        x - m * (x // m)       -->  x % m
        a // m - b // m        -->  min((a - b) // m + e, (a - b + m - 1) // m)
                                                             for some e in 0..1
        a % m - b % m          -->  (a - b) % m - m * e      for some e in 0..1

    Each ``e`` becomes a variable. For all values of the others some value of the ``e`` makes both sides
    equal, so what holds for no values holds for no values of the original.
    """
    borrows: dict[ir.Node, ir.Node] = {}

    def borrow(difference: ir.Node, m: int) -> ir.Node:
        key = ir.FloorDiv(difference, ir.Const(m))
        if key not in borrows:
            borrows[key] = variable(1_000 + len(borrows))
            variables[borrows[key]] = (0, 1)
        return borrows[key]

    left = _MOST_OPENED
    bound = {node for node in ir.postorder(root) if isinstance(node, ir.Index)} - variables.keys()

    def rule(node: ir.Node) -> ir.Node:
        nonlocal left
        while isinstance(node, ir.Sum):
            parts = [(t, c, *found) for t, c in node.terms if (found := _divided(t))]
            left -= len(parts) * (len(parts) + len(node.terms))
            # One e cannot serve all values of a quantifier's variable.
            if left < 0 or not parts or (bound and _is_under_quantifier(node)):
                break
            opened = next(_openings(node, parts, borrow), None)
            if opened is None:
                break
            node = opened
        return node

    return ir.transform(root, rule)


def _is_under_quantifier(node: ir.Node) -> bool:
    return any(isinstance(part, ir.Index) and not _is_free(part) for part in ir.postorder(node))


def _openings(
    node: ir.Sum,
    parts: list[tuple[ir.Node, int, ir.Node, int]],
    borrow: Callable[[ir.Node, int], ir.Node],
) -> Iterator[ir.Node]:
    for term, factor, x, m in parts:
        if (opened := _remainder(node, term, factor, x, m)) is not None:
            yield opened
    for (one, f, a, m), (two, g, b, n) in itertools.permutations(parts, 2):
        if type(one) is not type(two) or f != -g or f < 0:
            continue
        difference = ir.sub(a, b)
        size = len(ir.linear(difference)[0])
        if m != n or size >= len(ir.linear(a)[0]) + len(ir.linear(b)[0]):
            continue
        rest = ir.sub(node, ir.scale(ir.sub(one, two), f))
        e = borrow(difference, m)
        if isinstance(one, ir.FloorDiv):
            ceiling = ir.floordiv(ir.add(difference, ir.Const(m - 1)), ir.Const(m))
            made = ir.minimum(ir.add(ir.floordiv(difference, ir.Const(m)), e), ceiling)
        else:
            made = ir.sub(ir.mod(difference, ir.Const(m)), ir.scale(e, m))
        yield ir.add(rest, ir.scale(made, f))


def _divided(term: ir.Node) -> tuple[ir.Node, int] | None:
    """(x, m) of x // m and x % m with a constant m."""
    match term:
        case ir.FloorDiv(left=left, right=ir.Const(value=m)):
            return left, m
        case ir.Mod(left=left, right=ir.Const(value=m)):
            return left, m
        case _:
            return None


def _remainder(node: ir.Sum, term: ir.Node, factor: int, x: ir.Node, m: int) -> ir.Node | None:
    """The sum with g*x - g*m * (x // m) replaced by g * (x % m), if it has that part."""
    if not isinstance(term, ir.FloorDiv) or factor % m:
        return None
    g = -(factor // m)
    have = dict(node.terms)
    if not all(have.get(t) == g * c for t, c in ir.linear(x)[0].items()):
        return None
    rest = ir.sub(node, ir.scale(ir.sub(x, ir.scale(term, m)), g))
    return ir.add(rest, ir.scale(ir.mod(x, ir.Const(m)), g))
