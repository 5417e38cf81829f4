"""Smart constructors of integers: the only way they are made, each keeping the canonical form.

Every rule is a local law of integer arithmetic with flooring division, stated beside it. Equal
expressions that differ by these laws become one node, so equality, hashing and caching are free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from attndsl.ir.interning import Node
from attndsl.ir.nodes import (
    Abs,
    Const,
    Entry,
    FloorDiv,
    ILog2,
    Max,
    Min,
    Mod,
    Mul,
    Pow2,
    Select,
    Sum,
    Total,
)
from attndsl.source import AttnDslError, Diagnostic

_HUGE = 1 << 512  # squared again and again, numbers would fill the memory

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


def digest_of(node: Node) -> bytes:
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
    if factor == 1:
        return item
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
    return combine(*difference(left, right))


def difference(left: Node, right: Node) -> tuple[dict[Node, int], int]:
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


def divided(terms: dict[Node, int], factor: int) -> Node:
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


def entry(values: tuple[int, ...], index: Node) -> Node:
    """values[index], 0 outside."""
    if isinstance(index, Const):
        return Const(values[index.value] if 0 <= index.value < len(values) else 0)
    return Entry(values, index) if any(values) else ZERO
