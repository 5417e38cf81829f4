"""Expressions with a bound variable, and the rebuilding of expressions whose parts changed.

Quantifiers are solved where a law does without trying numbers:

    any j in a..b: j == e and P(j)       =  a <= e < b and P(e)
    any j in a..b: x <= j and j <= y     =  max(a, x) <= min(b - 1, y)
    any j in a..b: A(j) or B(j)          =  (any j in a..b: A(j)) or (any j in a..b: B(j))
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from attndsl.ir.arithmetic import (
    ONE,
    ZERO,
    absolute,
    add,
    combine,
    entry,
    floordiv,
    ilog2,
    linear,
    maximum,
    minimum,
    mod,
    mul,
    pow2,
    scale,
    sub,
)
from attndsl.ir.interning import Node
from attndsl.ir.logic import FALSE, conj, disj, eq, le, lt, negate, select
from attndsl.ir.nodes import (
    LOOPS,
    Abs,
    And,
    Const,
    Entry,
    Eq,
    Exists,
    FloorDiv,
    ILog2,
    Index,
    Le,
    Load,
    Loop,
    Max,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    Pow2,
    Select,
    Sum,
    Total,
)
from attndsl.ir.reals import rebuild_real
from attndsl.ir.walks import postorder

_NARROW = 64  # numbers that are rather tried than named by a term
_MOST_BOUNDS = 64  # comparisons that a solved quantifier may become

# Placeholders live only while a body is being built, so their numbers never reach an output.
_fresh = itertools.count()


def exists(start: Node, stop: Node, body: Callable[[Node], Node]) -> Node:
    """Some j in [start, stop) with body(j). Alpha-equivalent bodies give one node."""
    placeholder = Index(-1 - next(_fresh))
    return _exists(start, stop, placeholder, body(placeholder))


def forall(start: Node, stop: Node, body: Callable[[Node], Node]) -> Node:
    """Every j in [start, stop) has body(j)."""
    return negate(exists(start, stop, lambda j: negate(body(j))))


def total(start: Node, stop: Node, body: Callable[[Node], Node]) -> Node:
    """The sum of body(j) over all j in [start, stop). Alpha-equivalent bodies give one node."""
    placeholder = Index(-1 - next(_fresh))
    return _total(start, stop, placeholder, body(placeholder))


def count(start: Node, stop: Node, body: Callable[[Node], Node]) -> Node:
    """How many j in [start, stop) have body(j)."""
    return total(start, stop, lambda j: select(body(j), ONE, ZERO))


def _width(start: Node, stop: Node) -> int | None:
    """How many numbers there are, if that is known; 0 for none."""
    width = sub(stop, start)
    return max(width.value, 0) if isinstance(width, Const) else None


def _is_narrow(start: Node, stop: Node) -> bool:
    width = _width(start, stop)
    return width is not None and width <= _NARROW


def _exists(start: Node, stop: Node, variable: Index, body: Node) -> Node:
    width = _width(start, stop)
    if width == 0:
        return FALSE
    if variable not in postorder(body, Index):
        return conj(body, lt(start, stop))
    if width == 1:
        return substitute(body, {variable: start})
    solved = _solved(start, stop, variable, body)
    if solved is not None:
        return solved
    level = _level_of(body)
    return Exists(level, start, stop, substitute(body, {variable: Index(level)}))


def _total(start: Node, stop: Node, variable: Index, body: Node) -> Node:
    width = _width(start, stop)
    if width == 0:
        return ZERO
    if variable not in postorder(body, Index):
        return mul(body, maximum(ZERO, sub(stop, start)))
    if width == 1:
        return substitute(body, {variable: start})
    level = _level_of(body)
    return Total(level, start, stop, substitute(body, {variable: Index(level)}))


def _level_of(body: Node) -> int:
    """The level of a loop around that body."""
    loops = (node for node in postorder(body, *LOOPS) if isinstance(node, Loop))
    return 1 + max((node.level for node in loops), default=-1)


def trials(root: Node, length: int = 1) -> tuple[int, int]:
    """How many bodies of loops are tried to evaluate ``root``, and how many values and operands there are on the way.

    Loops whose limits are open count as over ``length`` numbers.
    """
    bodies, values = 0, 0
    inside: set[Node] = set()  # bodies, which are counted with their loops
    for node in reversed(list(postorder(root))):
        values += 1 + len(node.parts)
        if isinstance(node, Loop) and node not in inside:
            width = _width(node.start, node.stop)
            width = length if width is None else width
            more = trials(node.body, length)
            bodies += width * (1 + more[0])
            values += width * more[1]
            inside.update(postorder(node.body))
    return bodies, values


# ---------------------------------------------------------------- solving


def _solved(start: Node, stop: Node, variable: Index, body: Node) -> Node | None:
    """``any variable in start..stop: body`` without the variable, in some alternatives or in all."""
    varying = _varying(body, variable)
    parts = body.items if isinstance(body, Or) else (body,)
    found = [_solved_part(start, stop, variable, part, varying) for part in parts]
    left = [part for part, made in zip(parts, found, strict=True) if made is None]
    if len(left) == len(parts):
        return None
    solved = [made for made in found if made is not None]
    if left:
        solved.append(_exists(start, stop, variable, disj(*left)))
    return disj(*solved)


def _varying(root: Node, variable: Index) -> set[Node]:
    """The parts that depend on the variable."""
    found: set[Node] = {variable}
    for node in postorder(root):
        if any(part in found for part in node.parts):
            found.add(node)
    return found


def _solved_part(
    start: Node, stop: Node, variable: Index, part: Node, varying: set[Node]
) -> Node | None:
    items = part.items if isinstance(part, And) else (part,)
    others = [item for item in items if item not in varying]
    inside = [item for item in items if item in varying]
    if not inside:
        return conj(lt(start, stop), *others)
    solutions = [_linear_in(item, variable, varying) for item in inside]
    equal = [
        (item, solution)
        for item, solution in zip(inside, solutions, strict=True)
        if solution is not None and isinstance(item, Eq)
    ]
    # The order of the items depends on the number of the placeholder, that of their solutions does not.
    for item, solution in sorted(equal, key=lambda each: _rank(each[1])):
        # Where the rest is no comparison with the variable, a few numbers leave more to laws than a term.
        if None in solutions and (solution[1].is_pair or _is_narrow(start, stop)):
            continue
        rest = conj(*(other for other in inside if other is not item))
        return conj(*others, _substituted(start, stop, variable, solution, rest))
    bounds = [each for each in solutions if each is not None]
    if len(bounds) < len(inside) or any(isinstance(item, Eq) for item in inside):
        return None
    between = _between(start, stop, bounds)
    return None if between is None else conj(*others, between)


def _rank(solution: tuple[int, Node]) -> tuple[int, int, bytes]:
    """Orders solutions: those without a division first."""
    return abs(solution[0]), solution[0], solution[1].digest


def _linear_in(item: Node, variable: Index, varying: set[Node]) -> tuple[int, Node] | None:
    """(c, x) where the item says ``c * variable <= x`` or ``c * variable == x``, x without the variable."""
    if not isinstance(item, Le | Eq):
        return None
    terms, constant = linear(item.item)
    factor = terms.pop(variable, 0)
    if not factor or any(term in varying for term in terms):
        return None
    return factor, scale(combine(terms, constant - item.bound), -1)


def _substituted(
    start: Node, stop: Node, variable: Index, solution: tuple[int, Node], rest: Node
) -> Node:
    """The rest where ``factor * variable == value``, if that is within the limits."""
    factor, value = solution
    if factor < 0:
        factor, value = -factor, scale(value, -1)
    whole = eq(mod(value, Const(factor)), ZERO)
    found = floordiv(value, Const(factor))
    limits = conj(le(start, found), lt(found, stop))
    return conj(whole, limits, substitute(rest, {variable: found}))


def _between(start: Node, stop: Node, bounds: list[tuple[int, Node]]) -> Node | None:
    """Whether the greatest lower bound is at most the least upper one."""
    low, high = [start], [sub(stop, ONE)]
    for factor, value in bounds:
        nearest = floordiv(
            value, Const(abs(factor))
        )  # c*j <= x: j <= x // c;  -c*j <= x: j >= -(x // c)
        (high if factor > 0 else low).append(nearest if factor > 0 else scale(nearest, -1))
    if len(low) * len(high) > _MOST_BOUNDS:
        return None
    return conj(*(le(least, most) for least in low for most in high))


# ---------------------------------------------------------------- rebuilding


def rebuild(node: Node, parts: tuple[Node, ...]) -> Node:  # noqa: C901 - one arm per node class
    """The node with new children, canonical again."""
    match node:
        case Sum(terms=terms, constant=constant):
            scaled = (scale(part, c) for part, (_, c) in zip(parts, terms, strict=True))
            return add(Const(constant), *scaled)
        case Mul():
            return mul(*parts)
        case FloorDiv():
            return floordiv(*parts)
        case Mod():
            return mod(*parts)
        case Min():
            return minimum(*parts)
        case Max():
            return maximum(*parts)
        case Abs():
            return absolute(*parts)
        case ILog2():
            return ilog2(*parts)
        case Pow2():
            return pow2(*parts)
        case Select():
            return select(*parts)
        case Load():
            return Load(node.table, node.kind, parts, node.ambient)
        case Entry(values=values):
            return entry(values, *parts)
        case Le(bound=bound):
            return le(parts[0], Const(bound))
        case Eq(bound=bound):
            return eq(parts[0], Const(bound))
        case Not():
            return negate(parts[0])
        case And():
            return conj(*parts)
        case Or():
            return disj(*parts)
        case Exists() | Total():
            return _relooped(node, *parts)
        case _:
            return rebuild_real(node, parts)


def _relooped(node: Loop, start: Node, stop: Node, body: Node) -> Node:
    """A loop whose parts changed: closed again if a limit folded or the levels inside shrank."""
    level, variable = node.level, Index(node.level)
    width = _width(start, stop)
    if width is None or width > 1:
        inside = set(postorder(body))
        deepest = max((item.level for item in inside if isinstance(item, Loop)), default=-1)
        # Closing anew would walk every loop inside twice, and so on inwards: 3**depth.
        if level == deepest + 1 and variable in inside:
            return type(node)(level, start, stop, body)
    placeholder = Index(-1 - next(_fresh))
    again = substitute(body, {variable: placeholder})
    close = _exists if isinstance(node, Exists) else _total
    return close(start, stop, placeholder, again)


def transform(root: Node, rule: Callable[[Node], Node], *kinds: type[Node]) -> Node:
    """Rewrites bottom-up: every node is rebuilt from its new parts, then given to ``rule`` if it is of ``kinds``.

    Without kinds, every node is given to it.
    """
    done: dict[Node, Node] = {}
    for node in postorder(root, *kinds):
        again = _with_parts(node, done)
        done[node] = rule(again) if not kinds or isinstance(again, kinds) else again
    return done.get(root, root)


def _with_parts(node: Node, done: dict[Node, Node]) -> Node:
    fresh = tuple([done.get(part, part) for part in node.parts])
    return node if fresh == node.parts else rebuild(node, fresh)


def substitute(root: Node, values: dict[Node, Node]) -> Node:
    """Replace nodes by nodes, all at once: what a replacement brings in is left alone."""
    done: dict[Node, Node] = {}
    for node in postorder(root, *map(type, values)):
        found = values.get(node)
        done[node] = _with_parts(node, done) if found is None else found
    return done.get(root, root)
