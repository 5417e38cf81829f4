"""Scores as device functions: what depends on one side, or on the distance alone, is computed before.

    of_query(v, n, both, row, length)   -> the row, and what depends on the query alone, a column of ``v`` each
    of_key(v, n, both, row, length)     -> likewise of the key
    score(s, x, y, v, r, n, both)       -> the score of each pair, of x = of_query(...) and y = of_key(...)
    derivatives(s, x, y, v, r, n, both) -> (the score, its derivative by s, and by each leaf that carries a gradient)

``s`` is the scaled product of query and key, ``both`` the place of the batch element and head among all of them, ``n``
what ``numbers`` reads. A value that depends on q - k alone, and takes more than a few operations, is read from ``v`` by
the distance; what is left of the tables is read from ``r`` for each pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from attndsl import ir, passes
from attndsl.codegen.hoisting import (
    Column,
    Columns,
    Hoisting,
    NoKernel,
    Product,
    carriers_first,
    is_dear,
    of_distance,
)
from attndsl.codegen.score_helpers import FUNCTIONS, HELPERS
from attndsl.codegen.writing import device_function

reals = ir.reals

EXACT: Final = 1 << 24  # whole numbers below it are float32 numbers
# Numbers before those of the tables: distances, keys - 1, heads, heads of all batch elements.
HEADER: Final = 4

_LONG: Final = 60  # columns of an expression that is not given a name


@dataclass(frozen=True, slots=True)
class ScoreFunctions:
    """The functions of one expression, and what they read.

    ``of_query``, ``of_key`` and ``of_distance`` are the columns; those that carry gradients come first, ``gains`` of
    each. ``reads`` are the reads of a real table at pairs, by the names of the inputs or of ``products``. The
    derivatives by them come in this order: those of queries, of keys, of distances, of reads.
    """

    text: str
    of_query: tuple[Column, ...]
    of_key: tuple[Column, ...]
    of_distance: tuple[Column, ...]
    reads: tuple[ir.Load, ...]
    products: tuple[Product, ...]
    gains: tuple[int, int, int]


def score_functions(root: ir.Node, first: ir.Node, suffix: str = "") -> ScoreFunctions:
    """Device functions of an expression in `Score`; row i of the queries stands at position i + ``first``.

    Lengths and numbers of heads are constants, or read as columns are. ``suffix`` ends the names of the functions.

    Raises:
        NoKernel: it has a part for which there is no kernel.
    """
    hoisted = Hoisting(root, first)
    inner = hoisted.real(root)
    gains = passes.differentiate(inner)
    columns = [carriers_first(side) for side in (hoisted.query, hoisted.key, hoisted.distance)]
    reads = tuple(
        dict.fromkeys(
            node
            for node in ir.postorder(inner)
            if isinstance(node, ir.Load)
            and node.kind is ir.Sort.REAL
            and node not in hoisted.columns
        )
    )
    writer = _Writer(columns, reads, suffix)
    slope = gains.get(reals.SCORE, reals.NOUGHT)
    leaves = [node for side in columns for node, column in side.items() if column.carries]
    by_leaf = [gains.get(leaf, reals.NOUGHT) for leaf in (*leaves, *reads)]
    score = writer.function("score", root, [inner])
    derivatives = writer.function("derivatives", root, [inner, slope, *by_leaf])
    counts = [sum(column.carries for column in side.values()) for side in columns]
    of_query, of_key, of_distance = (tuple(side) for side in writer.given())
    text, gained = writer.text(score, derivatives), (counts[0], counts[1], counts[2])
    products = tuple(hoisted.products)
    return ScoreFunctions(text, of_query, of_key, of_distance, reads, products, gained)


# ---------------------------------------------------------------- text


class _Writer:
    """Writes functions that read the same columns and tables. Ints find columns of their own as they are met."""

    def __init__(self, columns: Sequence[Columns], reads: Sequence[ir.Load], suffix: str) -> None:
        self._suffix = suffix
        self._columns = [dict(side) for side in columns]
        self._reads = reads
        self._helpers: set[str] = set()
        self._lines: list[str] = []
        self._names: dict[ir.Node, str] = {}
        self._uses: Counter[ir.Node] = Counter()
        self._fresh = 0
        self._int = "tl.int32"

    def given(self) -> list[list[Column]]:
        """The columns of queries, keys and distances."""
        return [list(side.values()) for side in self._columns]

    def text(self, *functions: str) -> str:
        """All functions."""
        count = HEADER + sum(3 + 2 * len(read.index) for read in self._reads)
        numbers = ", ".join(f"tl.load(n + {i})" for i in range(count))
        heads = [
            device_function(f"numbers{self._suffix}(n)", [], f"({numbers},)"),
            self._side(f"of_query{self._suffix}", "x", self._columns[0]),
            self._side(f"of_key{self._suffix}", "y", self._columns[1]),
        ]
        helpers = [HELPERS[name] for name in sorted(self._helpers)]
        return "\n\n\n".join([*helpers, *heads, *functions]) + "\n"

    def _side(self, name: str, letter: str, columns: Columns) -> str:
        lines = ["row = tl.maximum(tl.minimum(row, length - 1), 0)"]
        if columns:
            lines.append("at = v + both * length + row")
        for place, column in enumerate(columns.values(), 1):
            step = f" + {place - 1} * n[3] * length" if place > 1 else ""
            lines.append(f"{letter}{place} = tl.load(at{step})  # {_shown(column.node)}")
        names = [f"{letter}{place}" for place in range(1, len(columns) + 1)]
        return device_function(
            f"{name}(v, n, both, row, length)", lines, f"({', '.join(['row', *names])},)"
        )

    def function(self, name: str, source: ir.Node, roots: Sequence[ir.Node]) -> str:
        """The function that returns these values; ``source`` is what the first was."""
        self._lines, self._names, self._fresh = [f"# {_shown(source)}"], {}, 0
        self._uses = Counter(roots)
        self._int = "tl.int32" if _largest(roots) < 1 << 31 else "tl.int64"
        for node in dict.fromkeys(n for root in roots for n in ir.postorder(root)):
            self._uses.update(node.parts)
        found = [self._value(root) for root in roots]
        if not reals.reads_score(roots[0]):
            found[0] = f"{found[0]} + tl.zeros_like(s)"
        result = found[0] if len(found) == 1 else f"({', '.join(found)},)"
        head = f"{name}{self._suffix}(s, x, y, v, r, n, both)"
        return device_function(head, self._lines, result)

    def _value(self, root: ir.Node) -> str:
        """The name or text of a value."""
        if root in self._names:
            return self._names[root]
        text = self._whole(root) if root.sort is not ir.Sort.REAL else self._real(root)
        is_plain = text.isidentifier() or isinstance(root, reals.Number | ir.Const)
        if not is_plain and (self._uses[root] > 1 or len(text) > _LONG):
            text = self._assigned(text)
        self._names[root] = text
        return text

    def _named(self, root: ir.Node) -> str:
        """A value that is written more than once."""
        text = self._value(root)
        is_short = (
            isinstance(root, reals.Number | ir.Const)
            or text.replace("[", "").replace("]", "").isidentifier()
        )
        if not is_short:
            text = self._names[root] = self._assigned(text)
        return text

    def _assigned(self, text: str) -> str:
        self._fresh += 1
        self._lines.append(f"t{self._fresh} = {text}")
        return f"t{self._fresh}"

    def _real(self, node: ir.Node) -> str:  # noqa: C901 - an arm a class
        value = self._value
        match node:
            case reals.Number(value=number):
                return repr(number) if number >= 0 else f"({number!r})"
            case reals.Score():
                return "s"
            case reals.FromInt(item=item):
                return f"{value(item)}.to(tl.float32)"
            case reals.Plus(items=(reals.Times() as item, reals.Number(value=1.0))) if (
                compared := _steps_down(item)
            ):
                return self._compared(compared, "0.0, 1.0")
            case reals.Plus(items=items):
                first, *others = _positive_first(items)
                return f"({value(first)}{''.join(map(self._signed, others))})"
            case reals.Times(left=reals.Number(value=-1.0), right=right):
                return f"-{value(right)}"
            case reals.Times(left=left, right=right):
                return f"{value(left)} * {value(right)}"
            case reals.Over(left=left, right=right):
                divisor = value(right)
                if not isinstance(right, reals.Number):
                    divisor = f"({divisor})"
                return f"({value(left)} / {divisor})"
            case reals.Apply(function="step", item=item):
                return self._compared(item, "1.0, 0.0")
            case reals.Apply(function=function, item=item):
                if function in HELPERS:
                    self._helpers.add(function)
                    return f"{function}({value(item)})"
                return FUNCTIONS[function].format(self._named(item))
            case reals.Least(left=left, right=right):
                a, b = self._named(left), self._named(right)
                return f"tl.where({a} <= {b}, {a}, {b})"
            case reals.Greatest(left=left, right=right):
                a, b = self._named(left), self._named(right)
                return f"tl.where({a} >= {b}, {a}, {b})"
            case reals.Choose(cond=cond, yes=yes, no=no):
                return f"tl.where({value(cond)}, {value(yes)}, {value(no)})"
            case reals.Drawn(least=least, left=left, right=right):
                self._helpers.add("drawn")
                return f"drawn({self._long(left)} + {self._long(right)}, {least})"
            case ir.Load():
                return self._read(node)
            case _:
                raise NoKernel(f"`{_shown(node)}` is computed for each pair")

    def _compared(self, item: ir.Node, choice: str) -> str:
        """The first of two numbers where ``item`` is above 0, else the second: a difference by its two sides."""
        left, right = item, "0.0"
        match item:
            case reals.Plus(
                items=(
                    reals.Times(left=reals.Number(value=-1.0), right=second),
                    reals.Number() as first,
                )
            ):
                left, right = first, self._value(second)
            case reals.Plus(
                items=(first, reals.Times(left=reals.Number(value=by), right=second))
            ) if by < 0:
                left, right = first, self._value(reals.times(reals.Number(-by), second))
            case reals.Plus(items=(first, reals.Number(value=number))):
                left, right = first, repr(-number)
            case _:
                pass
        return f"tl.where({self._value(left)} > {right}, {choice})"

    def _signed(self, item: ir.Node) -> str:
        if isinstance(item, reals.Times) and item.left is reals.Number(-1.0):
            return f" - {self._value(item.right)}"
        return f" + {self._value(item)}"

    def _read(self, node: ir.Load) -> str:
        for letter, side in zip("xyd", self._columns, strict=True):
            if node in side:
                place = list(side).index(node)
                if letter == "d":
                    return self._assigned(self._at_distance(place))
                return f"{letter}[{place + 1}]"
        first = HEADER
        for read in self._reads:
            if read is node:
                break
            first += 3 + 2 * len(read.index)
        base = f"n[{first}] + both // n[2] * n[{first + 1}] + both % n[2] * n[{first + 2}]"
        places, inside = [f"r + ({base})"], []
        for axis, item in enumerate(node.index):
            size, step = f"n[{first + 3 + 2 * axis}]", f"n[{first + 4 + 2 * axis}]"
            at = self._named(item)
            places.append(at if axis + 1 == len(node.index) else f"{at} * {step}")
            inside.append(f"({at} >= 0) & ({at} < {size})")
        mask = f", mask={' & '.join(inside)}, other=0.0" if inside else ""
        return self._assigned(f"tl.load({' + '.join(places)}{mask})")

    def _at_distance(self, place: int) -> str:
        """A column by the distance of the rows, the first of x and y."""
        column = f"({place} * n[3] + both)" if place else "both"
        return f"tl.load(v + {column} * n[0] + n[1] + (x[0] - y[0]))"

    # ------------------------------------------------------------------ whole numbers

    def _whole(self, node: ir.Node) -> str:  # noqa: C901 - an arm a class
        """An int or a bool at each pair."""
        if isinstance(node, ir.Const):
            return str(node.value)
        if not node.is_pair or (of_distance(node) and is_dear(node)):
            return self._whole_column(node)
        value = self._value
        match node:
            case ir.Sum(terms=terms, constant=constant):
                return self._sum(terms, constant)
            case ir.Mul(left=left, right=right):
                return f"({value(left)} * {value(right)})"
            case ir.Min(items=items):
                return self._nested("tl.minimum", items)
            case ir.Max(items=items):
                return self._nested("tl.maximum", items)
            case ir.Abs(item=item):
                return f"tl.abs({value(item)})"
            case ir.Select(cond=cond, yes=yes, no=no):
                return f"tl.where({value(cond)}, {value(yes)}, {value(no)})"
            case ir.Le(item=item, bound=bound):
                return f"({value(item)} <= {bound})"
            case ir.Eq(item=item, bound=bound):
                return f"({value(item)} == {bound})"
            case ir.Not(item=item):
                return f"({value(item)} == 0)"
            case ir.And(items=items):
                return f"({' & '.join(map(value, items))})"
            case ir.Or(items=items):
                return f"({' | '.join(map(value, items))})"
            case ir.FloorDiv(left=left, right=right) | ir.Mod(left=left, right=right):
                helper = "floor_quotient" if isinstance(node, ir.FloorDiv) else "floor_remainder"
                self._helpers.add(helper)
                return f"{helper}({value(left)}, {value(right)})"
            case _:
                raise NoKernel(f"`{_shown(node)}` is computed for each pair")

    def _long(self, node: ir.Node) -> str:
        """A whole number below 2**30 of one side, from columns of both of its halves."""
        half = ir.Const(1 << 15)
        high, low = ir.floordiv(node, half), ir.mod(node, half)
        return f"({self._value(high)} * {half.value} + {self._value(low)})"

    def _sum(self, terms: Sequence[tuple[ir.Node, int]], constant: int) -> str:
        """Adds up, where all that one side gives is one column of it."""
        sides: dict[ir.Deps, ir.Node] = {ir.Deps.QUERY: ir.Const(constant), ir.Deps.KEY: ir.ZERO}
        pieces = []
        for term, factor in terms:
            if term.is_pair:
                pieces.append(
                    f"{factor} * {self._value(term)}" if factor != 1 else self._value(term)
                )
            else:
                side = ir.Deps.KEY if term.deps & ir.Deps.KEY else ir.Deps.QUERY
                sides[side] = ir.add(sides[side], ir.scale(term, factor))
        pieces += [self._value(each) for each in sides.values() if each is not ir.ZERO]
        return f"({' + '.join(pieces)})"

    def _nested(self, name: str, items: Sequence[ir.Node]) -> str:
        first, *others = map(self._value, items)
        for other in others:
            first = f"{name}({first}, {other})"
        return first

    def _whole_column(self, node: ir.Node) -> str:
        which = 2 if node.is_pair else 1 if node.deps & ir.Deps.KEY else 0
        side = self._columns[which]
        if node not in side:
            side[node] = Column(node, True)
        place = list(side).index(node)
        text = self._at_distance(place) if which == 2 else f"{'xy'[which]}[{place + 1}]"
        text = f"{text}.to({self._int})"
        return self._assigned(f"{text} != 0" if node.sort is ir.Sort.BOOL else text)


def _largest(roots: Sequence[ir.Node]) -> int:
    """No whole number that is computed for a pair is larger, as columns are below ``EXACT``."""
    known: dict[ir.Node, int] = {}
    for node in (node for root in roots for node in ir.postorder(root)):
        if node.sort is not ir.Sort.INT:
            known[node] = 1
            continue
        parts = [known[part] for part in node.parts]
        match node:
            case ir.Const(value=value):
                known[node] = abs(value)
            case _ if not node.is_pair:
                known[node] = EXACT
            case ir.Sum(terms=terms, constant=constant):
                known[node] = sum(abs(c) * known[term] for term, c in terms) + abs(constant) + EXACT
            case ir.Mul():
                known[node] = parts[0] * parts[1]
            case _:
                known[node] = max(parts, default=EXACT)
    return max(known.values())


def _steps_down(item: reals.Times) -> ir.Node | None:
    """The operand of a step with the factor -1."""
    if item.left is not reals.Number(-1.0) or not isinstance(item.right, reals.Apply):
        return None
    return item.right.item if item.right.function == "step" else None


def _positive_first(items: tuple[ir.Node, ...]) -> tuple[ir.Node, ...]:
    """Two summands, one that is taken away behind the other."""
    is_taken = isinstance(items[0], reals.Times) and items[0].left is reals.Number(-1.0)
    return items[::-1] if is_taken and len(items) == 2 else items


def _shown(node: ir.Node) -> str:
    text = ir.show(node)
    return " ".join(text.split())
