"""Smart constructors: the only way nodes are made, each keeping the canonical form.

Every rule is a local law of integer arithmetic with flooring division, stated beside it. Equal
expressions that differ by these laws become one node, so equality, hashing and caching are free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary

from attndsl.ir.nodes import (
    Abs,
    And,
    BoolConst,
    Const,
    Eq,
    FloorDiv,
    ILog2,
    Le,
    Max,
    Min,
    Mod,
    Mul,
    Node,
    Not,
    Or,
    Pow2,
    Select,
    Sort,
    Sum,
    Total,
)

TRUE = BoolConst(True)
FALSE = BoolConst(False)
ZERO = Const(0)
ONE = Const(1)


# ---------------------------------------------------------------- linear combinations


def linear(node: Node) -> tuple[dict[Node, int], int]:
    """The node as {term: coefficient} and a constant."""
    match node:
        case Const(value=value):
            return {}, value
        case Sum(terms=terms, constant=constant):
            return dict(terms), constant
        case _:
            return {node: 1}, 0


def combine(terms: dict[Node, int], constant: int = 0) -> Node:
    """The canonical node of a linear combination: no zero coefficients, ordered by digest."""
    kept = [(term, factor) for term, factor in terms.items() if factor]
    if not kept:
        return Const(constant)
    if constant == 0 and len(kept) == 1 and kept[0][1] == 1:
        return kept[0][0]
    return Sum(tuple(sorted(kept, key=lambda pair: pair[0].digest)), constant)


def add(*items: Node) -> Node:
    """Sum."""
    terms: dict[Node, int] = {}
    constant = 0
    for item in items:
        more, more_constant = linear(item)
        constant += more_constant
        for term, factor in more.items():
            terms[term] = terms.get(term, 0) + factor
    return combine(terms, constant)


def scale(item: Node, factor: int) -> Node:
    """Product with a known integer."""
    terms, constant = linear(item)
    return combine({t: c * factor for t, c in terms.items()}, constant * factor)


def sub(left: Node, right: Node) -> Node:
    """Difference."""
    return add(left, scale(right, -1))


def mul(left: Node, right: Node) -> Node:
    """Product; distributes over nothing but constants."""
    if isinstance(left, Const):
        return scale(right, left.value)
    if isinstance(right, Const):
        return scale(left, right.value)
    first, second = sorted((left, right), key=lambda node: node.digest)
    return Mul(first, second)


# ---------------------------------------------------------------- division


def floordiv(left: Node, right: Node) -> Node:
    """Flooring quotient; 0 for divisors that are not positive."""
    if not isinstance(right, Const):
        return FloorDiv(left, right)
    m = right.value
    if m <= 0:
        return ZERO
    if m == 1:
        return left
    terms, constant = linear(left)
    # (m*x + r) // m = x + r // m
    whole = {t: c // m for t, c in terms.items() if c % m == 0}
    rest = {t: c for t, c in terms.items() if c % m != 0}
    outside = combine(whole, constant // m)
    if not rest:
        return outside
    inner = combine(rest, constant % m)
    if isinstance(inner, FloorDiv) and isinstance(inner.right, Const):
        # (x // a) // b = x // (a*b)  for positive a, b
        return add(outside, floordiv(inner.left, Const(inner.right.value * m)))
    low, high = static_range(inner)
    if low is not None and high is not None and low // m == high // m:
        return add(outside, Const(low // m))
    return add(outside, FloorDiv(inner, right))


def mod(left: Node, right: Node) -> Node:
    """Non-negative remainder; 0 for divisors that are not positive."""
    if not isinstance(right, Const):
        return Mod(left, right)
    m = right.value
    if m <= 1:
        return ZERO
    terms, constant = linear(left)
    rest: dict[Node, int] = {}
    for term, factor in terms.items():
        if factor % m == 0:  # (m*x + r) % m = r % m
            continue
        # (x % (m*j)) % m = x % m
        if isinstance(term, Mod) and isinstance(term.right, Const) and term.right.value % m == 0:
            inner_terms, inner_constant = linear(term.left)
            constant += inner_constant * factor
            for t, c in inner_terms.items():
                rest[t] = rest.get(t, 0) + c * factor
        else:
            rest[term] = rest.get(term, 0) + factor
    rest = {t: c for t, c in rest.items() if c % m != 0}
    inner = combine(rest, constant % m)
    if isinstance(inner, Const):
        return Const(inner.value % m)
    low, high = static_range(inner)
    if low is not None and high is not None and low >= 0 and high < m:
        return inner
    return Mod(inner, right)


def static_range(node: Node) -> tuple[int | None, int | None]:
    """Bounds that hold for every input, where they are evident from the node alone."""
    match node:
        case Const(value=value):
            return value, value
        case Mod(right=Const(value=m)):
            return 0, max(m - 1, 0)
        case Abs() | Pow2():
            return 0, None
        case ILog2():
            return -1, 62
        case Total(body=Select(yes=Const(value=yes), no=Const(value=no))) if min(yes, no) >= 0:
            return 0, None
        case Sum(terms=terms, constant=constant):
            low: int | None = constant
            high: int | None = constant
            for term, factor in terms:
                bounds = static_range(term)
                ends = bounds if factor > 0 else bounds[::-1]
                low = None if low is None or ends[0] is None else low + factor * ends[0]
                high = None if high is None or ends[1] is None else high + factor * ends[1]
            return low, high
        case _:
            return None, None


# ---------------------------------------------------------------- other arithmetic


def minimum(*items: Node) -> Node:
    """Least."""
    return _extremum(Min, min, items)


def maximum(*items: Node) -> Node:
    """Greatest."""
    return _extremum(Max, max, items)


def _extremum(
    kind: type[Min] | type[Max], pick: Callable[[int, int], int], items: Iterable[Node]
) -> Node:
    """Of items that differ by a constant only the extreme one stays: min(x + 1, x + 3) = x + 1."""
    constants: dict[Node, int] = {}
    for item in items:
        for part in item.items if isinstance(item, kind) else (item,):
            terms, constant = linear(part)
            base = combine(terms)
            constants[base] = pick(constant, constants.get(base, constant))
    parts = [add(base, Const(constant)) for base, constant in constants.items()]
    ordered = tuple(sorted(parts, key=lambda node: node.digest))
    return ordered[0] if len(ordered) == 1 else kind(ordered)


def clamp(item: Node, low: Node, high: Node) -> Node:
    """max(low, min(item, high))."""
    return maximum(low, minimum(item, high))


def absolute(item: Node) -> Node:
    """Absolute value: |-x| = |x|, |c*x| = |c|*|x| for a lone term."""
    if isinstance(item, Const):
        return Const(abs(item.value))
    terms, constant = linear(item)
    factor = math.gcd(constant, *terms.values())
    reduced = combine({t: c // factor for t, c in terms.items()}, constant // factor)
    low, high = static_range(reduced)
    if low is not None and low >= 0:
        return item
    if high is not None and high <= 0:
        return scale(item, -1)
    mirrored = scale(reduced, -1)
    return scale(Abs(min(reduced, mirrored, key=lambda node: node.digest)), factor)


def ilog2(item: Node) -> Node:
    """Floor of log2, -1 below 1."""
    if isinstance(item, Const):
        return Const(item.value.bit_length() - 1 if item.value >= 1 else -1)
    return ILog2(item)


def pow2(item: Node) -> Node:
    """2**item for 0 <= item <= 62, else 0."""
    if isinstance(item, Const):
        return Const(1 << item.value if 0 <= item.value <= 62 else 0)
    return Pow2(item)


def select(cond: Node, yes: Node, no: Node) -> Node:
    """if cond then yes else no, on integers or truth values."""
    if isinstance(cond, BoolConst):
        return yes if cond.value else no
    if yes is no:
        return yes
    if yes.sort is Sort.BOOL:
        return disj(conj(cond, yes), conj(negate(cond), no))
    if isinstance(cond, Not):
        return Select(cond.item, no, yes)
    return Select(cond, yes, no)


# ---------------------------------------------------------------- comparisons


def le(left: Node, right: Node) -> Node:
    """left <= right."""
    terms, constant = linear(sub(left, right))
    return _at_most(terms, -constant)


def _at_most(terms: dict[Node, int], bound: int) -> Node:
    if not terms:
        return BoolConst(bound >= 0)
    factor = math.gcd(*terms.values())
    # g*x <= b  <=>  x <= b // g
    item = combine({t: c // factor for t, c in terms.items()})
    bound //= factor
    low, high = static_range(item)
    if high is not None and high <= bound:
        return TRUE
    if low is not None and low > bound:
        return FALSE
    return Le(item, bound)


def lt(left: Node, right: Node) -> Node:
    """left < right."""
    return le(add(left, ONE), right)


def ge(left: Node, right: Node) -> Node:
    """left >= right."""
    return le(right, left)


def gt(left: Node, right: Node) -> Node:
    """left > right."""
    return lt(right, left)


def eq(left: Node, right: Node) -> Node:
    """left == right, on integers or truth values."""
    if left is right:
        return TRUE
    if left.sort is Sort.BOOL:
        return disj(conj(left, right), conj(negate(left), negate(right)))
    terms, constant = linear(sub(left, right))
    if not terms:
        return BoolConst(constant == 0)
    factor = math.gcd(*terms.values())
    if constant % factor:  # g*x == b has no solution unless g divides b
        return FALSE
    first = min(terms, key=lambda node: node.digest)
    factor = factor if terms[first] > 0 else -factor
    item = combine({t: c // factor for t, c in terms.items()})
    bound = -constant // factor
    low, high = static_range(item)
    if (low is not None and bound < low) or (high is not None and bound > high):
        return FALSE
    return Eq(item, bound)


def ne(left: Node, right: Node) -> Node:
    """left != right."""
    return negate(eq(left, right))


# ---------------------------------------------------------------- logic


def negate(item: Node) -> Node:
    """Logical not, pushed to the leaves. Iterative: depth is no limit."""
    waiting = [item]
    while item not in _negations:
        node = waiting[-1]
        parts = node.items if isinstance(node, And | Or) else ()
        waiting += [part for part in parts if part not in _negations]
        if waiting[-1] is node:
            _negations[waiting.pop()] = _negated(node)
    return _negations[item]


# Remembered, because an expression that shares parts would otherwise be walked once per path to them.
_negations: WeakKeyDictionary[Node, Node] = WeakKeyDictionary()


def _negated(item: Node) -> Node:
    match item:
        case BoolConst(value=value):
            return BoolConst(not value)
        case Not(item=inner):
            return inner
        case Le(item=inner, bound=bound):  # not x <= b  <=>  -x <= -b-1
            return Le(scale(inner, -1), -bound - 1)
        case And(items=items):
            return disj(*(negate(part) for part in items))
        case Or(items=items):
            return conj(*(negate(part) for part in items))
        case _:
            return Not(item)


def conj(*items: Node) -> Node:
    """Logical and."""
    return _junction(And, items)


def disj(*items: Node) -> Node:
    """Logical or."""
    return _junction(Or, items)


def _junction(kind: type[And] | type[Or], items: Iterable[Node]) -> Node:
    """Flatten, drop units and doubles, merge comparisons of one item, absorb."""
    absorbing = FALSE if kind is And else TRUE
    parts: dict[Node, None] = {}
    limits: dict[Node, int] = {}
    for item in items:
        for part in item.items if isinstance(item, kind) else (item,):
            if part is absorbing:
                return absorbing
            if isinstance(part, Le):
                # x <= a and x <= b  <=>  x <= min(a, b);  or: max
                pick = min if kind is And else max
                known = limits.get(part.item)
                limits[part.item] = part.bound if known is None else pick(known, part.bound)
            elif not isinstance(part, BoolConst):
                parts[part] = None
    for item, bound in limits.items():
        opposite = limits.get(scale(item, -1)) if len(limits) > 1 else None
        if opposite is not None:
            if kind is And and bound + opposite < 0:  # x <= b and x >= c > b
                return FALSE
            if kind is Or and bound + opposite >= -1:  # x <= b or x >= b+1
                return TRUE
        parts[Le(item, bound)] = None
    if any(negate(part) in parts for part in parts if not isinstance(part, And | Or | Le)):
        return absorbing
    parts = _absorbed(kind, parts)
    if len(parts) < 2:
        return next(iter(parts), TRUE if kind is And else FALSE)
    return kind(tuple(sorted(parts, key=lambda node: node.digest)))


def _absorbed(kind: type[And] | type[Or], parts: dict[Node, None]) -> dict[Node, None]:
    """x and (x or y) = x;  x or (x and y) = x."""
    dual = Or if kind is And else And
    return {
        part: None
        for part in parts
        if not (isinstance(part, dual) and any(inner in parts for inner in part.items))
    }


def implies(premise: Node, conclusion: Node) -> Node:
    """Not premise, or conclusion."""
    return TRUE if premise is conclusion else disj(negate(premise), conclusion)
