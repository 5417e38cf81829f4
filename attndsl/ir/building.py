"""Smart constructors: the only way nodes are made, each keeping the canonical form.

Every rule is a local law of integer arithmetic with flooring division, stated beside it. Equal
expressions that differ by these laws become one node, so equality, hashing and caching are free.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary

from attndsl.ir.nodes import (
    Abs,
    And,
    BoolConst,
    Const,
    Entry,
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
from attndsl.source import AttnDslError, Diagnostic

_HUGE = 1 << 512  # squared again and again, numbers would fill the memory

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
    if len(kept) > 1:
        kept.sort(key=_first_digest)
    elif constant == 0 and kept[0][1] == 1:
        return kept[0][0]
    return Sum(tuple(kept), constant)


def _first_digest(term: tuple[Node, int]) -> bytes:
    return term[0].digest


def _digest(node: Node) -> bytes:
    return node.digest


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
    """Product with a known integer.

    Raises:
        AttnDslError: A403, the integer is far beyond what any call can compute with.
    """
    check_size(factor)
    terms, constant = linear(item)
    return combine({t: c * factor for t, c in terms.items()}, constant * factor)


def check_size(number: int) -> None:
    """Refuse numbers of thousands of digits.

    Raises:
        AttnDslError: A403.
    """
    if not -_HUGE < number < _HUGE:
        raise too_large()


def too_large() -> AttnDslError:
    """The error of a pattern whose numbers do not fit at the lengths of a call."""
    return AttnDslError(
        Diagnostic(
            code="A403",
            title="a number in the pattern can pass 2**62 at these lengths",
            notes=("attndsl computes positions and tables in 64-bit integers, exactly",),
            helps=("reduce intermediate products, for example with % before *",),
        )
    )


def sub(left: Node, right: Node) -> Node:
    """Difference."""
    return combine(*_difference(left, right))


def _difference(left: Node, right: Node) -> tuple[dict[Node, int], int]:
    """``left - right`` as {term: coefficient}, none of them zero, and a constant."""
    terms, constant = linear(left)
    others, other = linear(right)
    for term, factor in others.items():
        total = terms.get(term, 0) - factor
        if total:
            terms[term] = total
        else:
            del terms[term]
    return terms, constant - other


def _divided(terms: dict[Node, int], factor: int) -> Node:
    """The linear combination with its coefficients divided by what divides them all."""
    if factor == 1:
        return combine(terms)
    return combine({term: c // factor for term, c in terms.items()})


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
        case Entry(values=values):
            return min(0, *values), max(0, *values)
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
    """Keeps the extreme one of items that differ by a constant: min(x + 1, x + 3) = x + 1."""
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


def entry(values: tuple[int, ...], index: Node) -> Node:
    """values[index], 0 outside."""
    if isinstance(index, Const):
        return Const(values[index.value] if 0 <= index.value < len(values) else 0)
    return Entry(values, index) if any(values) else ZERO


# ---------------------------------------------------------------- comparisons


def le(left: Node, right: Node) -> Node:
    """left <= right."""
    terms, constant = _difference(left, right)
    return _at_most(terms, -constant)


def _at_most(terms: dict[Node, int], bound: int) -> Node:
    if not terms:
        return BoolConst(bound >= 0)
    factor = math.gcd(*terms.values())
    # g*x <= b  <=>  x <= b // g
    item = _divided(terms, factor)
    bound //= factor
    low, high = static_range(item)
    if high is not None and high <= bound:
        return TRUE
    if low is not None and low > bound:
        return FALSE
    return Le(item, bound)


def lt(left: Node, right: Node) -> Node:
    """left < right."""
    terms, constant = _difference(left, right)
    return _at_most(terms, -constant - 1)


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
    terms, constant = _difference(left, right)
    if not terms:
        return BoolConst(constant == 0)
    factor = math.gcd(*terms.values())
    if constant % factor:  # g*x == b has no solution unless g divides b
        return FALSE
    first = min(terms, key=_digest)
    factor = factor if terms[first] > 0 else -factor
    item = _divided(terms, factor)
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
    if not isinstance(item, And | Or):
        return _denied(item)
    done: dict[Node, Node] = {}
    waiting: list[And | Or] = [item]
    while waiting:
        node = waiting[-1]
        made = known() if (known := _negations.get(node)) else None
        if made is None:
            inner = [p for p in node.items if isinstance(p, And | Or) and p not in done]
            if inner:
                waiting += inner
                continue
            parts = [done.get(part) or _denied(part) for part in node.items]
            made = disj(*parts) if isinstance(node, And) else conj(*parts)
        done[waiting.pop()] = made
        _negations[node] = weakref.ref(made)
    return done[item]


# Remembered, because an expression that shares parts would otherwise be walked once per path to them.
_negations: WeakKeyDictionary[Node, weakref.ref[Node]] = WeakKeyDictionary()


def _denied(item: Node) -> Node:
    """Logical not of what is no conjunction and no disjunction."""
    match item:
        case BoolConst(value=value):
            return BoolConst(not value)
        case Not(item=inner):
            return inner
        case Le(item=inner, bound=bound):  # not x <= b  <=>  -x <= -b-1
            return Le(scale(inner, -1), -bound - 1)
        case _:
            return Not(item)


def conj(*items: Node) -> Node:
    """Logical and."""
    return _Junction(And).joined(items).node()


def disj(*items: Node) -> Node:
    """Logical or."""
    return _Junction(Or).joined(items).node()


def chained(kind: type[And] | type[Or], items: Iterable[Node]) -> Node:
    """``items[0] and items[1] and ...``, each joined to what the ones before it gave, in linear time."""
    found = _Junction(kind)
    for item in items:
        found.joined((item,))
    return found.node()


class _Junction:
    """A conjunction or disjunction while it grows: flat, without doubles, comparisons of one item merged."""

    def __init__(self, kind: type[And] | type[Or]) -> None:
        self._kind = kind
        self._is_and = kind is And
        self._absorbing = FALSE if kind is And else TRUE
        self._is_absorbed = False
        self._parts: dict[Node, None] = {}  # but for comparisons
        self._denied: set[Node] = set()  # whose opposites are among the parts
        self._limits: dict[Node, int] = {}
        self._lines: dict[object, int] = {}  # how many limits are of a line, in both directions
        self._duals: list[Or | And] = []  # not entered in _holders yet
        self._holders: dict[Node, list[Node]] = {}  # the duals that hold a node

    def joined(self, items: Iterable[Node]) -> _Junction:
        """The same with more parts."""
        if self._is_absorbed:
            return self
        if self._duals:
            for dual in self._duals:
                for inner in dual.items:
                    self._holders.setdefault(inner, []).append(dual)
            self._duals = []
        fresh: list[Node] = []
        moved: dict[Node, None] = {}
        for item in items:
            for part in item.items if isinstance(item, self._kind) else (item,):
                self._enter(part, fresh, moved)
        if not self._contradicts(fresh, moved):
            self._absorb(fresh, moved)
        return self

    def node(self) -> Node:
        """The node built so far."""
        if self._is_absorbed:
            return self._absorbing
        parts = [*self._parts, *(Le(item, bound) for item, bound in self._limits.items())]
        if len(parts) < 2:
            return parts[0] if parts else BoolConst(self._is_and)
        return self._kind(tuple(sorted(parts, key=_digest)))

    def _enter(self, part: Node, fresh: list[Node], moved: dict[Node, None]) -> None:
        if isinstance(part, Le):
            # x <= a and x <= b  <=>  x <= min(a, b);  or: max
            known = self._limits.get(part.item)
            if known is None:
                line = _line_of(part.item)
                self._lines[line] = self._lines.get(line, 0) + 1
            if known is None or ((part.bound < known) == self._is_and and part.bound != known):
                self._limits[part.item] = part.bound
                moved[part.item] = None
        elif isinstance(part, BoolConst):
            self._is_absorbed |= part is self._absorbing
        elif part not in self._parts:
            self._parts[part] = None
            fresh.append(part)
            if isinstance(part, Not):
                self._denied.add(part.item)

    def _contradicts(self, fresh: list[Node], moved: Iterable[Node]) -> bool:
        """x <= b and x >= c > b; x <= b or x >= b+1; x and not x; x or not x."""
        for item in moved:
            if self._lines[_line_of(item)] > 1:
                opposite = self._limits.get(scale(item, -1))
                if opposite is not None:
                    gap = self._limits[item] + opposite
                    self._is_absorbed |= gap < 0 if self._is_and else gap >= -1
        for part in fresh if self._denied else ():
            other = part.item if isinstance(part, Not) else part
            self._is_absorbed |= other in self._denied and other in self._parts
        return self._is_absorbed

    def _absorb(self, fresh: list[Node], moved: Iterable[Node]) -> None:
        """x and (x or y) = x;  x or (x and y) = x."""
        for part in fresh:
            if isinstance(part, And | Or):
                if any(map(self._has, part.items)):
                    del self._parts[part]
                else:
                    self._duals.append(part)
        if self._holders:
            limits = (Le(item, self._limits[item]) for item in moved)
            for part in (*fresh, *limits):
                for dual in self._holders.pop(part, ()):
                    self._parts.pop(dual, None)

    def _has(self, part: Node) -> bool:
        if isinstance(part, Le):
            return self._limits.get(part.item) == part.bound
        return part in self._parts


def _line_of(item: Node) -> object:
    """A key of an item, and of its opposite; cheaper than the opposite itself."""
    if not isinstance(item, Sum):
        return ((item, 1),)
    if item.terms[0][1] > 0:
        return item.terms
    return tuple((term, -factor) for term, factor in item.terms)


def implies(premise: Node, conclusion: Node) -> Node:
    """Not premise, or conclusion."""
    return TRUE if premise is conclusion else disj(negate(premise), conclusion)
