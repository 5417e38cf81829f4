"""From one root to the text of its device functions and the numbers they read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, assert_never, cast

from attndsl import ir
from attndsl.analysis import split_sum
from attndsl.codegen.magnitudes import Domain, Magnitudes

HELPERS: Final = """\
@triton.jit
def _floordiv(a, b):
    return a // b - ((a % b) < 0)  # Triton's quotient is truncated


@triton.jit
def _mod(a, b):
    rest = a % b
    return tl.where(rest < 0, rest + b, rest)


@triton.jit
def _ilog2(a, BITS: tl.constexpr):
    result = tl.where(a < 1, -1, 0)
    rest = tl.maximum(a, 1)
    for i in tl.static_range(BITS):
        step: tl.constexpr = 1 << (BITS - 1 - i)
        large = (rest >> step) > 0
        result += tl.where(large, step, 0)
        rest = tl.where(large, rest >> step, rest)
    return result


@triton.jit
def _pow2(a):
    return tl.where((a >= 0) & (a <= 62), 1 << tl.where((a >= 0) & (a <= 62), a, 0), 0)


"""


_COMMUTATIVE: Final = (ir.And, ir.Or, ir.Min, ir.Max, ir.Mul)


class TooDear(Exception):
    """Why packed masks serve a pattern better than its predicate."""


@dataclass(frozen=True, slots=True)
class Written:
    """One root, written."""

    text: str
    constants: tuple[int, ...]
    pair_operations: int


def write(root: ir.Node, domain: Domain, places: Mapping[str, tuple[int, ...]]) -> Written:
    """The device functions of a bound root, and the numbers they read.

    Raises:
        TooDear: a quantifier is left, a table is read for each pair, or numbers need more than 62 bits.
    """
    if any(isinstance(node, ir.Exists) for node in ir.postorder(root)):
        raise TooDear("a quantifier whose range depends on the data")
    writer = _Writer(domain, places, Magnitudes(domain).largest(root) < (1 << 31) - 1)
    kept = writer.pair(root)
    return Written(writer.text(kept), tuple(writer.numbers), writer.operations)


@dataclass(slots=True)
class _Side:
    """The body of ``query_terms`` or ``key_terms``, and what it returns."""

    name: str
    lines: list[str]
    known: dict[ir.Node, str]
    returned: dict[str, int]

    def give(self, value: str) -> str:
        """The name under which ``keep`` finds a value of this side."""
        return f"{self.name}[{self.returned.setdefault(value, len(self.returned))}]"


class _Writer:
    def __init__(
        self, domain: Domain, places: Mapping[str, tuple[int, ...]], is_short: bool
    ) -> None:
        self._magnitudes = Magnitudes(domain)
        self._places = places
        self._int = "tl.int32" if is_short else "tl.int64"
        self._bits = 5 if is_short else 6
        self._shapes: dict[ir.Node, bytes] = {}
        self._fresh = 0
        self.numbers: list[int] = [domain.queries.start]
        self.operations = 0
        self._query = _Side("q", [f"q = q.to({self._int}) + c[0]"], {}, {})
        self._key = _Side("k", [f"k = k.to({self._int})"], {}, {})
        self._pairs: list[str] = []
        self._known: dict[ir.Node, str] = {}

    def text(self, kept: str) -> str:
        """The four functions."""
        loads = ", ".join(f"tl.load(c + {i}).to({self._int})" for i in range(len(self.numbers)))
        return HELPERS + "\n\n\n".join(
            [
                _function("constants(c)", [], f"({loads},)"),
                _function("query_terms(c, t, q)", self._query.lines, _tuple(self._query)),
                _function("key_terms(c, t, k)", self._key.lines, _tuple(self._key)),
                _function("keep(c, q, k)", self._pairs, kept) + "\n",
            ]
        )

    # ------------------------------------------------------------------------ pairs

    def pair(self, root: ir.Node) -> str:
        """The name of a value in ``keep``; what depends on one side is computed there."""
        for node in self._postorder(root):
            # sums are written where they are used, in one expression with what is done to them
            if node.is_pair and node not in self._known and not isinstance(node, ir.Sum):
                self._known[node] = self._assign(self._pairs, "p", self._of_pair(node))
        return self._pair_value(root)

    def _pair_value(self, node: ir.Node) -> str:
        if node in self._known:
            return self._known[node]
        if isinstance(node, ir.Sum) and node.is_pair:
            self._known[node] = self._assign(self._pairs, "p", self._pair_sum(node))
            return self._known[node]
        if isinstance(node, ir.Truth):  # as wide as a tile, like everything here
            self._query.known[node] = f"q {'==' if node.value else '!='} q"
            return self._query.give(self._query.known[node])
        if isinstance(node, ir.Const):
            return self._number(node.value)
        side = self._key if node.rank & ir.Rank.KEY else self._query
        return side.give(self._of_side(node, side))

    def _of_pair(self, node: ir.Node) -> str:
        if isinstance(node, ir.AtMost | ir.Equals):
            return self._comparison(node)
        if isinstance(node, ir.Load):
            raise TooDear("a table is read for each pair")
        self.operations += {ir.FloorDiv: 20, ir.Mod: 20, ir.ILog2: 20}.get(
            type(node), max(1, len(ir.children(node)) - 1)
        )
        return self._operation(node, self._pair_value)

    def _comparison(self, node: ir.AtMost | ir.Equals) -> str:
        """``key <= bound - query``: one operation, when nothing else is mixed."""
        parts = split_sum(node.item) if isinstance(node.item, ir.Sum) else ((node.item, 1),)
        sides: dict[str, ir.Node] = {}
        for part, factor in parts:
            if not part.is_pair:  # what depends on neither side goes with the query
                side = self._side_of(part)
                sides[side] = ir.add(sides.get(side, ir.ZERO), ir.scale(part, factor))
        mixed = [(part, factor) for part, factor in parts if part.is_pair]
        symbol = "<=" if isinstance(node, ir.AtMost) else "=="
        self.operations += 1 + 2 * len(mixed)
        rest = ir.sub(ir.Const(node.bound), sides.get("q", ir.ZERO))
        limit = self._pair_value(rest)
        left = [self._key.give(self._of_side(sides["k"], self._key))] if "k" in sides else []
        left += [self._times(factor, self._pair_value(part)) for part, factor in mixed]
        return f"{' + '.join(left)} {symbol} {limit}"

    def _side_of(self, node: ir.Node) -> str:
        return "k" if node.rank & ir.Rank.KEY else "q"

    def _pair_sum(self, node: ir.Sum) -> str:
        parts = split_sum(node)
        self.operations += len(parts)
        terms = [self._times(factor, self._pair_value(part)) for part, factor in parts]
        return " + ".join([*terms, *([self._number(node.constant)] if node.constant else [])])

    # ------------------------------------------------------------------------ one side

    def _of_side(self, root: ir.Node, side: _Side) -> str:
        """The name of a value in the function of one side."""
        for node in self._postorder(root):
            if node in side.known or isinstance(node, ir.Const | ir.Truth):
                continue
            if isinstance(node, ir.Pos):
                side.known[node] = side.name
                continue
            known = self._operation(node, lambda part: self._side_value(part, side))
            side.known[node] = self._assign(side.lines, side.name, known)
        return self._side_value(root, side)

    def _side_value(self, node: ir.Node, side: _Side) -> str:
        if isinstance(node, ir.Const):
            return self._number(node.value)
        if isinstance(node, ir.Truth):
            return f"({side.name} {'==' if node.value else '!='} {side.name})"
        return side.known[node]

    # ------------------------------------------------------------------------ operations

    def _operation(self, node: ir.Node, value: Callable[[ir.Node], str]) -> str:  # noqa: C901
        match cast(ir.AnyNode, node):
            case ir.Sum(terms=terms, constant=constant):
                ordered = sorted(terms, key=lambda item: (self._shape(item[0]), item[1] < 0))
                items = [self._times(factor, value(term)) for term, factor in ordered]
                return " + ".join([*items, *([self._number(constant)] if constant else [])])
            case ir.Mul(left=left, right=right):
                return " * ".join(value(item) for item in self._ordered((left, right)))
            case ir.FloorDiv(left=left, right=right):
                return self._division("//", "_floordiv", left, right, value)
            case ir.Mod(left=left, right=right):
                return self._division("%", "_mod", left, right, value)
            case ir.Min(items=items):
                return self._nested("tl.minimum", items, value)
            case ir.Max(items=items):
                return self._nested("tl.maximum", items, value)
            case ir.Abs(item=item):
                return f"tl.abs({value(item)})"
            case ir.ILog2(item=item):
                return f"_ilog2({value(item)}, {self._bits})"
            case ir.Pow2(item=item):
                return f"_pow2({value(item)})"
            case ir.Select(cond=cond, yes=yes, no=no):
                return f"tl.where({value(cond)}, {value(yes)}, {value(no)})"
            case ir.AtMost(item=item, bound=bound):
                return f"{value(item)} <= {self._number(bound)}"
            case ir.Equals(item=item, bound=bound):
                return f"{value(item)} == {self._number(bound)}"
            case ir.Not(item=item):
                return f"({value(item)}) == 0"
            case ir.And(items=items):
                return self._junction(" & ", items, value)
            case ir.Or(items=items):
                return self._junction(" | ", items, value)
            case ir.Load():
                return self._load(cast(ir.Load, node), value)
            case (
                ir.Const() | ir.Truth() | ir.Pos() | ir.Coord() | ir.Inside() | ir.Size()
                | ir.Var() | ir.Index() | ir.Exists()
            ):  # fmt: skip
                raise AssertionError(f"not an operation of a bound root: {node}")
            case other:
                assert_never(other)

    def _division(
        self,
        plain: str,
        floored: str,
        left: ir.Node,
        right: ir.Node,
        value: Callable[[ir.Node], str],
    ) -> str:
        a, b = value(left), value(right)
        fixed = isinstance(right, ir.Const)
        divisor = b if fixed else f"tl.maximum({b}, 1)"
        if self._magnitudes.is_negative(left):
            found = f"{floored}({a}, {divisor})"
        else:
            found = f"{a} {plain} {divisor}"
        return found if fixed else f"tl.where({b} > 0, {found}, 0)"

    def _nested(
        self, name: str, items: tuple[ir.Node, ...], value: Callable[[ir.Node], str]
    ) -> str:
        first, *others = (value(item) for item in self._ordered(items))
        for other in others:
            first = f"{name}({first}, {other})"
        return first

    def _junction(
        self, symbol: str, items: tuple[ir.Node, ...], value: Callable[[ir.Node], str]
    ) -> str:
        return symbol.join(f"({value(item)})" for item in self._ordered(items))

    def _load(self, node: ir.Load, value: Callable[[ir.Node], str]) -> str:
        """A table's value, 0 outside it."""
        start, *shape = self._places[node.table]
        place, inside = self._number(start), []
        flat = ""
        for item, size in zip(node.index, shape, strict=True):
            index, extent = value(item), self._number(size)
            inside.append(f"({index} >= 0) & ({index} < {extent})")
            flat = index if not flat else f"({flat}) * {extent} + {index}"
        where = f" + {flat}, mask={' & '.join(inside)}, other=0" if inside else ""
        found = f"tl.load(t + {place}{where}).to({self._int})"
        return found if node.kind is ir.Sort.INT else f"{found} != 0"

    # ------------------------------------------------------------------------ small things

    def _number(self, value: int) -> str:
        """A number, read from the constants: the text must not depend on it."""
        self.numbers.append(value)
        return f"c[{len(self.numbers) - 1}]"

    def _times(self, factor: int, value: str) -> str:
        if factor in (1, -1):
            return value if factor == 1 else f"(-{value})"
        return f"{self._number(factor)} * {value}"

    def _assign(self, lines: list[str], prefix: str, expression: str) -> str:
        self._fresh += 1
        name = f"{prefix}{self._fresh}"
        lines.append(f"{name} = {expression}")
        return name

    def _ordered(self, items: tuple[ir.Node, ...]) -> list[ir.Node]:
        return sorted(items, key=self._shape)

    def _postorder(self, root: ir.Node) -> list[ir.Node]:
        """Children first, those of a commutative node in the order of their shapes."""
        order: dict[ir.Node, None] = {}
        stack = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if ready:
                order[node] = None
            elif node not in order:
                stack.append((node, True))
                parts = ir.children(node)
                if isinstance(node, ir.Sum):
                    signs = {term: factor < 0 for term, factor in node.terms}
                    parts = tuple(sorted(parts, key=lambda term: (self._shape(term), signs[term])))
                elif isinstance(node, _COMMUTATIVE):
                    parts = tuple(self._ordered(parts))
                stack.extend((part, False) for part in reversed(parts))
        return list(order)

    def _shape(self, root: ir.Node) -> bytes:
        """A digest of what the node is, whatever its numbers are."""
        for node in ir.postorder(root):
            if node in self._shapes:
                continue
            parts = [type(node).__name__.encode(), bytes([node.rank])]
            inner = [self._shapes[part] for part in ir.children(node)]
            if isinstance(node, ir.Sum):
                signs = (b"+" if c == 1 else b"-" if c == -1 else b"*" for _, c in node.terms)
                inner = sorted(sign + shape for sign, shape in zip(signs, inner, strict=True))
            elif isinstance(node, _COMMUTATIVE):
                inner.sort()
            self._shapes[node] = hashlib.blake2b(b"|".join(parts + inner), digest_size=8).digest()
        return self._shapes[root]


def _function(head: str, lines: list[str], result: str) -> str:
    return "\n    ".join(["@triton.jit\ndef " + head + ":", *lines, f"return {result}"])


def _tuple(side: _Side) -> str:
    """What a side returns; the position itself where ``keep`` needs nothing of it."""
    return f"({', '.join(side.returned or [side.name])},)"
