"""From one root to the text of its device functions and the numbers they read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, assert_never, cast

import numpy as np

from attndsl import ir
from attndsl.analysis import split_sum
from attndsl.codegen.magnitudes import Domain, Magnitudes

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

ALIGNED: Final = 16  # numbers; so that several are read at once
WIDEST_TILE: Final = 256
MOST_SIDE_OPERATIONS: Final = 4  # beyond it a value is read, and takes a register


_COMMUTATIVE: Final = (ir.And, ir.Or, ir.Min, ir.Max, ir.Mul)


class OverBudget(Exception):
    """Why packed masks serve a pattern better than its predicate."""


@dataclass(frozen=True, slots=True)
class Written:
    """One root, written."""

    text: str
    constants: tuple[int, ...]
    pair_operations: int
    starts: tuple[int, ...]  # which of the constants say where a term begins
    unknown: tuple[
        tuple[int, ir.Node], ...
    ]  # which are numbers that open tables decide, and what they are


def write(root: ir.Node, domain: Domain, terms: Terms | OpenTerms) -> Written:
    """The device functions of a bound root, and the numbers they read.

    Raises:
        TooDear: a table is read or a number divided for each pair.
    """
    writer = _Writer(domain, terms, Magnitudes(domain).largest(root) < (1 << 31) - 1)
    kept = writer.pair(root)
    constants = tuple(writer.numbers), writer.operations
    return Written(writer.text(kept), *constants, tuple(writer.starts), tuple(writer.unknown))


class Terms:
    """Values of one-sided terms at each position, in arrays laid one behind the other."""

    def __init__(self) -> None:
        self._starts: dict[tuple[int, bytes], int] = {}
        self._parts: list[IntArray] = []
        self._size = 0

    def start(self, node: ir.Node, positions: range, domain: Domain) -> int:
        """Where the values of a term at those positions begin; equal ones have one place."""
        at = np.arange(positions.start, positions.stop, dtype=np.int64)
        env = ir.Env(q=at, k=at, sizes={}, tables=domain.tables, fits=True)
        values = np.broadcast_to(ir.evaluate(node, env), at.shape).astype(np.int64)
        name = len(values), hashlib.blake2b(values.tobytes(), digest_size=16).digest()
        if name not in self._starts:
            self._starts[name] = self._size
            padded = len(values) + -len(values) % ALIGNED
            self._parts.append(np.pad(values, (0, padded - len(values))))
            self._size += padded
        return self._starts[name]

    def joined(self) -> IntArray:
        """All of them and as much behind them as a tile may reach, int32 if that is wide enough."""
        joined = np.concatenate([*self._parts, np.zeros(WIDEST_TILE, np.int64)])
        return joined.astype(np.int32) if int(np.abs(joined).max()) < 1 << 31 else joined


class OpenTerms:
    """Places for one-sided terms whose values are not known yet, laid one behind the other."""

    def __init__(self) -> None:
        self.starts: dict[ir.Node, int] = {}
        self.size = 0

    def start(self, node: ir.Node, positions: range, domain: Domain) -> int:
        """Where the values of a term at those positions will begin."""
        del domain
        if node not in self.starts:
            self.starts[node] = self.size
            self.size += len(positions) + -len(positions) % ALIGNED
        return self.starts[node]


@dataclass(slots=True)
class _Side:
    """The body of ``query_terms`` or ``key_terms``, and what it returns."""

    name: str
    positions: range
    lines: list[str]
    known: dict[ir.Node, str]
    returned: dict[str, int]

    def give(self, value: str) -> str:
        """The name under which ``keep`` finds a value of this side."""
        return f"{self.name}[{self.returned.setdefault(value, len(self.returned))}]"


class _Writer:
    def __init__(self, domain: Domain, terms: Terms | OpenTerms, is_short: bool) -> None:
        self._domain, self._terms = domain, terms
        self._int = "tl.int32" if is_short else "tl.int64"
        self._shapes: dict[ir.Node, bytes] = {}
        self._fresh = 0
        self.numbers: list[int] = [domain.queries.start]
        self.operations = 0
        self.starts: list[int] = []
        self.unknown: list[tuple[int, ir.Node]] = []
        first = f"q = row.to({self._int}) + c[0]", f"k = row.to({self._int})"
        self._query = _Side("q", domain.queries, [first[0]], {}, {})
        self._key = _Side("k", domain.keys, [first[1]], {}, {})
        self._pairs: list[str] = []
        self._known: dict[ir.Node, str] = {}

    def text(self, kept: str) -> str:
        """The four functions."""
        loads = ", ".join(f"tl.load(c + {i}).to({self._int})" for i in range(len(self.numbers)))
        return "\n\n\n".join(
            [
                device_function("constants(c)", [], f"({loads},)"),
                device_function("query_terms(c, t, row)", self._query.lines, _tuple(self._query)),
                device_function("key_terms(c, t, row)", self._key.lines, _tuple(self._key)),
                device_function("keep(c, q, k)", self._pairs, kept) + "\n",
            ]
        )

    # ------------------------------------------------------------------------ pairs

    def pair(self, root: ir.Node) -> str:
        """The name of a value in ``keep``; what depends on one side is known before."""
        for node in self._postorder(root):
            # sums are written where they are used, in one expression with what is done to them
            if node.is_pair and node not in self._known and not isinstance(node, ir.Sum):
                self._known[node] = self._assign(self._pairs, "p", self._of_pair(node))
        return self._value(root)

    def _value(self, node: ir.Node) -> str:
        if node in self._known:
            return self._known[node]
        if isinstance(node, ir.Sum) and node.is_pair:
            self._known[node] = self._assign(self._pairs, "p", self._pair_sum(node))
            return self._known[node]
        if not node.deps & ir.Deps.PAIR:
            return self._alone(node)
        side = self._key if node.deps & ir.Deps.KEY else self._query
        return side.give(self._of_side(node, side))

    def _alone(self, node: ir.Node) -> str:
        """Writes a term that depends on neither side as a number."""
        if any(
            isinstance(x, ir.Load) and x.table in self._domain.bounds for x in ir.postorder(node)
        ):
            self.unknown.append((len(self.numbers), node))
            number = self._number(0)
        else:
            env = ir.Env(q=0, k=0, sizes={}, tables=self._domain.tables, fits=True)
            number = self._number(int(ir.evaluate(node, env)))
        return number if node.sort is ir.Sort.INT else f"({number} != 0)"

    def _of_pair(self, node: ir.Node) -> str:
        if isinstance(node, ir.Le | ir.Eq):
            return self._comparison(node)
        self.operations += _cost(node)
        return self._operation(node, self._value)

    def _comparison(self, node: ir.Le | ir.Eq) -> str:
        """``key <= bound - query``: one operation, when nothing else is mixed."""
        parts = split_sum(node.item) if isinstance(node.item, ir.Sum) else ((node.item, 1),)
        mixed = {part: factor for part, factor in parts if part.is_pair}
        self.operations += 1 + 2 * len(mixed)
        sides: dict[str, ir.Node] = {"q": ir.Const(-node.bound), "k": ir.ZERO}
        for part, factor in parts:
            if not part.is_pair:  # what depends on neither side goes with the query
                side = "k" if part.deps & ir.Deps.KEY else "q"
                sides[side] = ir.add(sides[side], ir.scale(part, factor))
        of_key = ir.linear(sides["k"])[0]
        sign = -1 if all(factor < 0 for factor in (mixed | of_key).values()) else 1
        left = [self._value(ir.scale(sides["k"], sign))] if of_key else []
        left += [self._times(sign * factor, self._value(part)) for part, factor in mixed.items()]
        symbol = "==" if isinstance(node, ir.Eq) else "<=" if sign > 0 else ">="
        return f"{' + '.join(left)} {symbol} {self._value(ir.scale(sides['q'], -sign))}"

    def _pair_sum(self, node: ir.Sum) -> str:
        parts = split_sum(node)
        self.operations += len(parts)
        terms = [self._times(factor, self._value(part)) for part, factor in parts]
        return " + ".join([*terms, *([self._number(node.constant)] if node.constant else [])])

    # ------------------------------------------------------------------------ one side

    def _of_side(self, node: ir.Node, side: _Side) -> str:
        """The name of a value in the function of one side."""
        if not node.deps & ir.Deps.PAIR:
            return self._alone(node)
        if isinstance(node, ir.Pos):
            return side.name
        if node not in side.known:
            is_dear = sum(map(_cost, ir.postorder(node))) > MOST_SIDE_OPERATIONS
            made = self._looked_up(node, side) if is_dear else self._computed(node, side)
            side.known[node] = self._assign(side.lines, side.name, made)
        return side.known[node]

    def _computed(self, node: ir.Node, side: _Side) -> str:
        def value(part: ir.Node) -> str:
            return self._of_side(part, side)

        match node:
            case ir.Sum(terms=terms, constant=constant):
                ordered = sorted(terms, key=lambda item: (self._shape(item[0]), item[1] < 0))
                items = [self._times(factor, value(term)) for term, factor in ordered]
                return " + ".join([*items, *([self._number(constant)] if constant else [])])
            case ir.Le(item=item, bound=bound):
                return f"{value(item)} <= {self._number(bound)}"
            case ir.Eq(item=item, bound=bound):
                return f"{value(item)} == {self._number(bound)}"
            case _:
                return self._operation(node, value)

    def _looked_up(self, node: ir.Node, side: _Side) -> str:
        # A thread holds many keys of a product: to divide for each would take longer than the product.
        start = self._terms.start(node, side.positions, self._domain)
        self.starts.append(len(self.numbers))
        place = f"tl.multiple_of({self._number(start)}, {ALIGNED})"
        value = f"tl.load(t + {place} + row).to({self._int})"
        return value if node.sort is ir.Sort.INT else f"{value} != 0"

    # ------------------------------------------------------------------------ operations

    def _operation(self, node: ir.Node, value: Callable[[ir.Node], str]) -> str:
        match cast(ir.AnyNode, node):
            case ir.Mul(left=left, right=right):
                return " * ".join(value(item) for item in self._ordered((left, right)))
            case ir.Min(items=items):
                return self._nested("tl.minimum", items, value)
            case ir.Max(items=items):
                return self._nested("tl.maximum", items, value)
            case ir.Abs(item=item):
                return f"tl.abs({value(item)})"
            case ir.Select(cond=cond, yes=yes, no=no):
                return f"tl.where({value(cond)}, {value(yes)}, {value(no)})"
            case ir.Not(item=item):
                return f"({value(item)}) == 0"
            case ir.And(items=items):
                return self._junction(" & ", items, value)
            case ir.Or(items=items):
                return self._junction(" | ", items, value)
            case ir.Load() | ir.Entry():
                raise OverBudget("a table is read for each pair")
            case ir.FloorDiv() | ir.Mod() | ir.ILog2() | ir.Pow2():
                raise OverBudget(
                    "a quotient, a remainder or a power of two is computed for each pair"
                )
            case (
                ir.Const() | ir.BoolConst() | ir.Pos() | ir.Coord() | ir.Inside() | ir.Size() | ir.Var()
                | ir.Index() | ir.Exists() | ir.Total() | ir.Sum() | ir.Le() | ir.Eq()
            ):  # fmt: skip
                raise AssertionError(f"not an operation of a bound root: {node}")
            case other:
                assert_never(other)

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
                parts = node.parts
                if isinstance(node, ir.Sum):
                    signs = {term: factor < 0 for term, factor in node.terms}
                    parts = tuple(sorted(parts, key=lambda term: (self._shape(term), signs[term])))
                elif isinstance(node, _COMMUTATIVE):
                    parts = tuple(self._ordered(parts))
                stack.extend((part, False) for part in reversed(parts))
        return list(order)

    def _shape(self, root: ir.Node) -> bytes:
        """A digest of what the node is, whatever its numbers are."""
        if root in self._shapes:
            return self._shapes[root]
        for node in ir.postorder(root):
            if node in self._shapes:
                continue
            parts = [type(node).__name__.encode(), bytes([node.deps])]
            inner = [self._shapes[part] for part in node.parts]
            if isinstance(node, ir.Sum):
                signs = (b"+" if c == 1 else b"-" if c == -1 else b"*" for _, c in node.terms)
                inner = sorted(sign + shape for sign, shape in zip(signs, inner, strict=True))
            elif isinstance(node, _COMMUTATIVE):
                inner.sort()
            self._shapes[node] = hashlib.blake2b(b"|".join(parts + inner), digest_size=8).digest()
        return self._shapes[root]


def _cost(node: ir.Node) -> int:
    """Operations of one node, of what depends on a position."""
    dear = ir.FloorDiv | ir.Mod | ir.ILog2 | ir.Pow2 | ir.Load | ir.Entry | ir.Exists | ir.Total
    if isinstance(node, dear):
        return MOST_SIDE_OPERATIONS + 1
    return max(1, len(node.parts) - 1) if node.deps & ir.Deps.PAIR else 0


def device_function(head: str, lines: Sequence[str], result: str) -> str:
    """The text of a function of the device."""
    return "\n    ".join(["@triton.jit\ndef " + head + ":", *lines, f"return {result}"])


def _tuple(side: _Side) -> str:
    """Return values of a side; the position itself where ``keep`` needs nothing of it."""
    return f"({', '.join(side.returned or [side.name])},)"
