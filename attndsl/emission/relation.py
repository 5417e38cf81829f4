"""A mask as Triton functions to be read: its numbers are written out, its lengths are arguments.

    query_terms(q, ...)   -> what is dear and depends on the query alone, once for each query tile
    key_terms(k, ...)     -> likewise of the key
    in_pattern(q, k, ...) -> whether the pair is in the pattern

The first two are left out where the position says it all. Where the pattern is dearer to evaluate than a
bit of a mask is to read, there is the last one alone, and schedules hold its bits.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias, assert_never, cast

from attndsl import ir
from attndsl.emission.bounds import magnitudes
from attndsl.emission.names import Names, calling
from attndsl.passes import lower_root, separate_root

_MOST_PAIR_OPERATIONS: Final = 16  # as the kernels of the package
_MOST_UNROLLED: Final = 64  # nodes
_LINE: Final = 72  # of an expression

# Binding strengths of Python, loosest first.
_COMPARE, _OR, _AND, _SUM, _PRODUCT, _UNARY, _ATOM = range(7)

HeadMask: TypeAlias = tuple[str, int]  # text and how tightly it binds

_DEAR = (
    ir.FloorDiv, ir.Mod, ir.ILog2, ir.Pow2, ir.Mul, ir.Load, ir.Coord, ir.Inside, ir.Select,
    ir.Min, ir.Max,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Function:
    """One function: its parameters behind the positions or terms that it is given."""

    name: str
    parameters: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Relation:
    """A mask, written."""

    keep: Function
    terms: dict[ir.Side, Function]
    helpers: frozenset[str]  # of ``device.txt`` that the functions call
    tables: dict[str, str]  # parameter -> name of the input
    sizes: dict[str, str]  # parameter -> name of the length
    reads_masks: bool
    zeros: Function | None = None  # how many zero keys a query sees, if any does

    @property
    def functions(self) -> tuple[Function, ...]:
        """In the order in which they are read."""
        return (*self.terms.values(), self.keep, *([self.zeros] if self.zeros else []))


def written(mask: ir.Mask, layer: int) -> Relation:
    """The functions of a mask in one layer, for all lengths."""
    root = _prepared(mask.root, layer)
    loops = any(isinstance(node, ir.Loop) for node in ir.postorder(root))
    is_dear = loops or _pair_operations(root) > _MOST_PAIR_OPERATIONS
    found = _Writer(mask, layer, hoists=not is_dear, root=root).relation(root)
    if mask.zeros is ir.ZERO:
        return found
    count = _prepared(mask.zeros, layer)
    counted = _Writer(mask, layer, hoists=False, root=count).count(count)
    return replace(
        found,
        zeros=counted.zeros,
        helpers=found.helpers | counted.helpers,
        tables=found.tables | counted.tables,
        sizes=found.sizes | counted.sizes,
    )


def _prepared(root: ir.Node, layer: int) -> ir.Node:
    """Short quantifiers unrolled, comparisons separated."""

    def rule(node: ir.Node) -> ir.Node:
        match node:
            case ir.Var(name="layer"):
                return ir.Const(layer)
            case ir.Exists(start=ir.Const(value=start), stop=ir.Const(value=stop)):
                if (stop - start) * sum(1 for _ in ir.postorder(node.body)) <= _MOST_UNROLLED:
                    index, places = ir.Index(node.level), map(ir.Const, range(start, stop))
                    return ir.disj(*(ir.substitute(node.body, {index: j}) for j in places))
            case _:
                pass
        return node

    return separate_root(ir.transform(root, rule))


def _pair_operations(root: ir.Node) -> int:
    """About how many operations a pair takes. A table read for each pair is out of the question."""
    count = 0
    for node in ir.postorder(root):
        if not node.is_pair or isinstance(node, ir.Sum):
            continue
        if isinstance(node, ir.Load):
            return _MOST_PAIR_OPERATIONS + 1
        mixed = 0
        if isinstance(node, ir.Le | ir.Eq):
            mixed = sum(term.is_pair for term in ir.linear(node.item)[0])
        dear = 20 if isinstance(node, ir.FloorDiv | ir.Mod | ir.ILog2 | ir.Pow2) else 0
        count += max(dear, 1 + 2 * mixed, len(ir.children(node)) - 1)
    return count


@dataclass(slots=True)
class _Body:
    """The statements of one function so far, and what is known under which name."""

    prefix: str
    lines: list[str]
    known: dict[ir.Node, HeadMask]
    indent: str = ""

    def add(self, line: str) -> None:
        self.lines.append(self.indent + line)


class _Writer:
    def __init__(self, mask: ir.Mask, layer: int, *, hoists: bool, root: ir.Node) -> None:
        self._mask, self._layer, self._hoists = mask, layer, hoists
        self._magnitudes = magnitudes(mask, root)
        self._is_wide = self._magnitudes.largest(root) >= (1 << 31) - 1
        self._names = Names(
            "q", "k", "q_len", "k_len", "head", "heads", "batch", "tl", "triton", "query_terms",
            "key_terms", "in_pattern", "zero_keys", "floordiv", "mod", "ilog2", "pow2", "q_terms", "k_terms",
        )  # fmt: skip
        self._tables: dict[str, str] = {}
        self._sizes: dict[str, str] = {}
        self._helpers: set[str] = set()
        self._pair = _Body("p", [], {})
        self._sides = {side: _Body(side.value, [], {}) for side in ir.Side}
        self._returned: dict[ir.Side, dict[str, None]] = {side: {} for side in ir.Side}
        self._uses = _uses(root)
        self._nowhere = "(q != q) | (k != k)"  # as wide as what loops add to

    # ------------------------------------------------------------------------ functions

    def relation(self, root: ir.Node) -> Relation:
        """All of it."""
        kept = self._value(root, self._pair)[0]
        named = any(self._returned.values()) and self._hoists
        reads = _names_in([*self._pair.lines, kept])
        terms, opening = {}, list[str]()
        for side, body in self._sides.items():
            returned = list(self._returned[side]) if named else []
            if not returned:
                continue
            given = [name for name in (side.value, *returned) if name in reads]
            result = given[0] if len(given) == 1 else f"{', '.join(given)}"
            name, word = ("query_terms", "query") if side is ir.Side.QUERY else ("key_terms", "key")
            says = f"What the pattern asks of a {word} alone."
            terms[side] = self._function(name, (side.value,), says, body.lines, result)
            if len(given) > 1:
                opening.append(f"{result} = {side.value}_terms")
        first = tuple(self._given(side, terms, reads) for side in ir.Side)
        says = "Whether queries see keys: positions that broadcast."
        keep = self._function("in_pattern", first, says, [*opening, *self._pair.lines], kept)
        return Relation(
            keep, terms, frozenset(self._helpers), self._tables, self._sizes, not self._hoists
        )

    def count(self, zeros: ir.Node) -> Relation:
        """The function that counts the zero keys of queries."""
        self._nowhere = "q != q"
        found = self._value(zeros, self._pair)[0]
        says = "How many zero keys queries see: score 0, value 0."
        written = self._function("zero_keys", ("q",), says, self._pair.lines, found)
        return Relation(
            written, {}, frozenset(self._helpers), self._tables, self._sizes, False, written
        )

    def _given(self, side: ir.Side, terms: dict[ir.Side, Function], reads: set[str]) -> str:
        """The parameter of ``keep`` for one side."""
        if side not in terms:
            return side.value
        given = [name for name in (side.value, *self._returned[side]) if name in reads]
        return given[0] if len(given) == 1 else f"{side.value}_terms"

    def _function(
        self, name: str, first: tuple[str, ...], says: str, lines: list[str], result: str
    ) -> Function:
        reads = _names_in([*lines, result])
        candidates = [*self._tables, "q_len", "k_len", *self._sizes, "batch", "head", "heads"]
        more = tuple(each for each in candidates if each in reads)
        opening = []
        if self._is_wide:  # products need more than 32 bits
            wide = [x for x in (*first, *more) if x in {"q", "k", *_NUMBERS, *self._sizes}]
            opening = [f"{x} = tl.cast({x}, tl.int64)" for x in wide if x in reads]
        head = ["@triton.jit", *calling(f"def {name}", [*first, *more], ":", 100)]
        body = [f'"""{says}"""', *opening, *lines, f"return {result}"]
        return Function(name, more, "\n".join([*head, *(f"    {line}" for line in body)]) + "\n")

    # ------------------------------------------------------------------------ values

    def _value(self, root: ir.Node, body: _Body) -> HeadMask:
        """How a value is written in this function, with the statements that it needs before it."""
        for node in self._order(root, body):
            home = self._home(node, body)
            if home is not body and self._is_dear(node):
                body.known[node] = self._fetched(node, home)
            else:
                body.known[node] = self._settled(node, self._piece(node, body), body)
        return body.known[root]

    def _order(self, root: ir.Node, body: _Body) -> list[ir.Node]:
        """Children first, as far as they are written here."""
        order: dict[ir.Node, None] = {}
        stack = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if ready:
                order[node] = None
            elif node not in order and node not in body.known:
                stack.append((node, True))
                is_here = self._home(node, body) is body or not self._is_dear(node)
                stack.extend((part, False) for part in reversed(_parts(node)) if is_here)
        return list(order)

    def _fetched(self, node: ir.Node, home: _Body) -> HeadMask:
        """The name of a value that the function of one side returns."""
        text, _ = self._value(node, home)
        if not text.isidentifier():
            text = self._assigned(text, home)[0]
            home.known[node] = (text, _ATOM)
        if text != home.prefix:
            side = ir.Side.QUERY if home is self._sides[ir.Side.QUERY] else ir.Side.KEY
            self._returned[side][text] = None
        return text, _ATOM

    def _home(self, node: ir.Node, body: _Body) -> _Body:
        """Where a value is computed: one that depends on one side alone and on no head, beside the loop."""
        sided = node.deps & ir.Deps.PAIR
        if not self._hoists or node.is_pair or not sided or node.deps & ir.Deps.HEAD:
            return body
        return self._sides[ir.Side.KEY if sided == ir.Deps.KEY else ir.Side.QUERY]

    def _is_dear(self, node: ir.Node) -> bool:
        return isinstance(node, _DEAR)

    def _settled(self, node: ir.Node, piece: HeadMask, body: _Body) -> HeadMask:
        """Under a name of its own, if it is used again, long, or has one."""
        text, _ = piece
        if isinstance(node, ir.Pos | ir.Const | ir.Size | ir.Var | ir.Index | ir.Exists | ir.Total):
            return piece
        called = self._calling(node)
        shared = self._uses[node] > 1 and len(text) > 8
        if not text.isidentifier() and (called or shared or len(text) > _LINE):
            return self._assigned(text, body, called)
        return piece

    def _calling(self, node: ir.Node) -> str:
        """The name that coordinates and plain table reads go by."""
        match node:
            case ir.Coord(side=side, axis=axis):
                return self._names.of(node, f"{side.value}_{self._axis(axis)}")
            case ir.Inside(side=side, segment=segment):
                return self._names.of(node, f"{side.value}_in_{segment}")
            case ir.Load(table=table, index=(ir.Pos(side=side),)):
                return self._names.of(node, f"{side.value}_{table}")
            case _:
                return ""

    def _assigned(self, text: str, body: _Body, name: str = "") -> HeadMask:
        name = name or self._names.numbered(body.prefix)
        body.add(f"{name} = {text}")
        return name, _ATOM

    def _short(self, piece: HeadMask, body: _Body, room: int) -> HeadMask:
        return piece if len(piece[0]) <= room else self._assigned(piece[0], body)

    # ------------------------------------------------------------------------ operations

    def _piece(self, node: ir.Node, body: _Body) -> HeadMask:  # noqa: C901 - one arm per class
        def at(child: ir.Node) -> HeadMask:
            return body.known[child]

        match cast(ir.AnyNode, node):
            case ir.Const(value=value):
                return _number(value)
            case ir.BoolConst(value=value):
                symbol, side = "==" if value else "!=", "k" if "k" in self._nowhere else "q"
                return f"{side} {symbol} {side}", _COMPARE
            case ir.Pos(side=side):
                return side.value, _ATOM
            case ir.Inside():
                return self._value(lower_root(node, self._mask), body)
            case ir.Coord(side=side, axis=axis):
                member = ir.Inside(side, axis.partition(".")[0])
                told = {lower_root(member, self._mask): cast(ir.Node, member)}
                told = {test: node for test, node in told.items() if test is not ir.TRUE}
                return self._value(ir.substitute(lower_root(node, self._mask), told), body)
            case ir.Size(name=name):
                return self._size(name), _ATOM
            case ir.Var(name=name):
                return name, _ATOM
            case ir.Index(level=level):
                return self._names.of(node, f"j{level}"), _ATOM
            case ir.Sum(terms=terms, constant=constant):
                return self._linear(dict(terms), constant, body)
            case ir.Mul(left=left, right=right):
                return self._infix(" * ", at(left), at(right), body)
            case ir.FloorDiv(left=left, right=right):
                return self._division(" // ", "floordiv", left, right, body)
            case ir.Mod(left=left, right=right):
                return self._division(" % ", "mod", left, right, body)
            case ir.Min(items=items):
                return self._nested("tl.minimum", [at(item) for item in items], body)
            case ir.Max(items=items):
                return self._nested("tl.maximum", [at(item) for item in items], body)
            case ir.Abs(item=item):
                return f"tl.abs({at(item)[0]})", _ATOM
            case ir.ILog2(item=item):
                return self._helped("ilog2", f"{at(item)[0]}, {6 if self._is_wide else 5}")
            case ir.Pow2(item=item):
                return self._helped("pow2", at(item)[0])
            case ir.Select(cond=cond, yes=yes, no=no):
                parts = [self._short(at(part), body, 24)[0] for part in (cond, yes, no)]
                return f"tl.where({', '.join(parts)})", _ATOM
            case ir.Load():
                return self._load(cast(ir.Load, node), body)
            case ir.Le(item=item, bound=bound):
                return self._comparison(item, "<=", bound, body)
            case ir.Eq(item=item, bound=bound):
                return self._comparison(item, "==", bound, body)
            case ir.Not(item=ir.Eq(item=item, bound=bound)):
                return self._comparison(item, "!=", bound, body)
            case ir.Not(item=item):
                return f"{_at_least(at(item), _OR)} == 0", _COMPARE
            case ir.And(items=items):
                return self._junction(" & ", _AND, [at(item) for item in items], body)
            case ir.Or(items=items):
                return self._junction(" | ", _OR, [at(item) for item in items], body)
            case ir.Exists() | ir.Total():
                return self._loop(cast(ir.Loop, node), body)
            case other:
                assert_never(other)

    def _linear(self, terms: dict[ir.Node, int], constant: int, body: _Body) -> HeadMask:
        """Positive terms first, then the constant, then negative terms."""
        pieces = [(c, self._short(body.known[term], body, 40)) for term, c in terms.items()]
        if not pieces:
            return _number(constant)
        if len(pieces) == 1 and not constant and pieces[0][0] == 1:
            return pieces[0][1]
        added = sorted(_times(c, piece) for c, piece in pieces if c > 0)
        taken = sorted((_times(-c, piece), c, piece) for c, piece in pieces if c < 0)
        if constant > 0 or (constant and not added):
            added.append(str(constant))
        elif constant < 0:
            taken.append((str(-constant), 0, ("", _ATOM)))
        if not added:
            text, c, piece = taken.pop(0)
            added = [f"-{_at_least(piece, _UNARY)}" if c == -1 else f"-{text}"]
        text = " - ".join([" + ".join(added), *(each for each, *_ in taken)])
        return text, _PRODUCT if len(added) + len(taken) == 1 else _SUM

    def _comparison(self, item: ir.Node, symbol: str, bound: int, body: _Body) -> HeadMask:
        """``key <= bound - query``: the right side is one vector; what is mixed stays on the left."""
        terms, constant = ir.linear(item)
        bound -= constant
        mixed = {t: c for t, c in terms.items() if t.is_pair}
        of_key = {t: c for t, c in terms.items() if t.deps & ir.Deps.KEY and not t.is_pair}
        rest = {t: c for t, c in terms.items() if t not in mixed and t not in of_key}
        left = {**mixed, **of_key}
        if not left:
            left = {t: c for t, c in rest.items() if t.deps & ir.Deps.QUERY} or rest
            rest = {t: c for t, c in rest.items() if t not in left}
        if all(factor < 0 for factor in left.values()):  # the other way round
            left, bound = {t: -c for t, c in left.items()}, -bound
            symbol = {"<=": ">=", "==": "==", "!=": "!="}[symbol]
        else:
            rest = {t: -c for t, c in rest.items()}
        sides = self._linear(left, 0, body), self._linear(rest, bound, body)
        first, second = (_at_least(self._short(side, body, 48), _OR) for side in sides)
        return f"{first} {symbol} {second}", _COMPARE

    def _infix(self, symbol: str, left: HeadMask, right: HeadMask, body: _Body) -> HeadMask:
        left, right = self._short(left, body, 48), self._short(right, body, 24)
        return f"{_at_least(left, _PRODUCT)}{symbol}{_at_least(right, _UNARY)}", _PRODUCT

    def _division(
        self, plain: str, floored: str, left: ir.Node, right: ir.Node, body: _Body
    ) -> HeadMask:
        a, b = (self._short(body.known[side], body, 36) for side in (left, right))
        is_safe = isinstance(right, ir.Const) or self._magnitudes.is_positive(right)
        divisor = b if is_safe else (f"tl.maximum({b[0]}, 1)", _ATOM)
        if self._magnitudes.is_negative(left):
            found = self._helped(floored, f"{a[0]}, {divisor[0]}")
        else:
            found = self._infix(plain, a, divisor, body)
        if is_safe:
            return found
        return f"tl.where({b[0]} > 0, {self._short(found, body, 40)[0]}, 0)", _ATOM

    def _helped(self, name: str, arguments: str) -> HeadMask:
        self._helpers.add(name)
        return f"{name}({arguments})", _ATOM

    def _nested(self, name: str, pieces: list[HeadMask], body: _Body) -> HeadMask:
        first, *others = (self._short(piece, body, 32)[0] for piece in pieces)
        for other in others:
            first = f"{name}({self._short((first, _ATOM), body, 32)[0]}, {other})"
        return first, _ATOM

    def _junction(
        self, symbol: str, strength: int, pieces: list[HeadMask], body: _Body
    ) -> HeadMask:
        text = ""
        for part in sorted(_at_least(self._short(x, body, 60), strength + 1) for x in pieces):
            if text and len(text) + len(part) > _LINE:
                text = self._assigned(text, body)[0]
            text = f"{text}{symbol}{part}" if text else part
        return text, strength

    def _loop(self, node: ir.Loop, body: _Body) -> HeadMask:
        """A loop; values that do not depend on its variable and were not needed before are computed in it."""
        start, stop = (self._short(self._value(x, body), body, 30) for x in (node.start, node.stop))
        sums = isinstance(node, ir.Total)
        found = self._names.numbered("total" if sums else "found")
        variable = self._names.of(ir.Index(node.level), f"j{node.level}")
        varies = [x.deps & ir.Deps.PAIR for x in (node.start, node.stop)]
        first, last = start[0], stop[0]
        first = f"tl.min({first})" if varies[0] else first
        last = f"tl.max({last})" if varies[1] else last
        nothing = f"tl.cast({self._nowhere}, {'tl.int64' if self._is_wide else 'tl.int32'})"
        body.add(f"{found} = {nothing if sums else self._nowhere}")
        body.add(f"for {variable} in range({first}, {last}):")
        inner = _Body(body.prefix, body.lines, dict(body.known), body.indent + "    ")
        if self._is_wide:
            inner.add(f"{variable} = tl.cast({variable}, tl.int64)")
        inner.known[ir.Index(node.level)] = (variable, _ATOM)
        piece = self._value(node.body, inner)
        limits = [f"({_at_least(start, _OR)} <= {variable})"] if varies[0] else []
        limits += [f"({variable} < {_at_least(stop, _OR)})"] if varies[1] else []
        if sums:
            said = " & ".join(limits)
            inner.add(f"{found} += {f'tl.where({said}, {piece[0]}, 0)' if said else piece[0]}")
        else:
            last_piece = _at_least(piece, _SUM if limits else _COMPARE)
            inner.add(f"{found} |= {' & '.join([*limits, last_piece])}")
        return found, _ATOM

    def _load(self, node: ir.Load, body: _Body) -> HeadMask:
        """A table's value, 0 outside it."""
        table = next(each for each in self._mask.tables if each.name == node.table)
        pointer = self._names.of(("table", table.name), f"{table.name}_table")
        self._tables[pointer] = table.name
        index = iter(node.index)
        flat, inside = "", list[str]()
        for dim in table.dims:
            size = self._extent(table, dim)
            if dim in ("batch", "head"):
                place = str(dim)
            else:
                place = self._short(body.known[next(index)], body, 8)[0]
                inside.append(f"({place} >= 0) & ({place} < {size})")
            flat = (
                f"{flat} * {size} + {place}"
                if flat and "+" not in flat
                else (f"({flat}) * {size} + {place}" if flat else place)
            )
        mask = " & ".join(inside)
        if len(pointer) + len(flat) + len(mask) + len(self._calling(node)) > 60:
            flat, mask = (self._short((text, _SUM), body, 12)[0] for text in (flat, mask))
        masked = f", mask={mask}, other=0" if mask else ""
        text = f"tl.load({pointer} + {flat}{masked})" if flat else f"tl.load({pointer})"
        if node.kind is ir.Sort.BOOL:
            return f"{text} != 0", _COMPARE
        return (f"{text}.to(tl.int64)" if self._is_wide else text), _ATOM

    def _extent(self, table: ir.Table, dim: str | int) -> str:
        if isinstance(dim, int):
            return str(dim)
        if dim in ("batch", "head"):
            return "heads"
        if dim in ("q", "k", "pos"):
            return "q_len" if dim == "q" else "k_len"
        for space in (self._mask.keys, self._mask.queries):
            for segment in space.segments:
                for axis in segment.axes:
                    if dim in (axis.name, f"{segment.name}.{axis.name}"):
                        return str(axis.extent or self._size(f"{segment.name}.{axis.name}"))
        return self._size(f"{table.name}:{dim}")

    def _size(self, name: str) -> str:
        if name in ("q", "k"):
            return f"{name}_len"
        table, colon, dim = name.partition(":")
        short = f"{table}_{dim}" if colon else self._axis(name)
        parameter = self._names.of(("size", name), f"len_{short}")
        self._sizes[parameter] = name
        return parameter

    def _axis(self, full: str) -> str:
        """The short name of an axis, if no other segment has it too."""
        segment, _, short = full.partition(".")
        spaces = (self._mask.queries, self._mask.keys)
        owners = {
            s.name for space in spaces for s in space.segments for a in s.axes if a.name == short
        }
        return short if owners == {segment} else f"{segment}_{short}"


_NUMBERS = ("q_len", "k_len", "batch", "head", "heads")


def _number(value: int) -> HeadMask:
    return str(value), _ATOM if value >= 0 else _UNARY


def _at_least(piece: HeadMask, strength: int) -> str:
    text, own = piece
    return text if own >= strength else f"({text})"


def _times(factor: int, piece: HeadMask) -> str:
    return _at_least(piece, _PRODUCT) if factor == 1 else f"{factor} * {_at_least(piece, _UNARY)}"


def _uses(root: ir.Node) -> Counter[ir.Node]:
    """How often each value is written; a comparison writes the terms of its sum."""
    found: Counter[ir.Node] = Counter()
    for node in ir.postorder(root):
        parts: Iterable[ir.Node] = ir.children(node)
        if isinstance(node, ir.Le | ir.Eq):
            parts = ir.linear(node.item)[0]
        found.update(parts)
    return found


def _parts(node: ir.Node) -> tuple[ir.Node, ...]:
    match node:
        case ir.Exists() | ir.Total():
            return ()
        case ir.Le(item=item) | ir.Eq(item=item) | ir.Not(item=ir.Eq(item=item)):
            return tuple(ir.linear(item)[0])
        case _:
            return ir.children(node)


def _names_in(lines: list[str]) -> set[str]:
    tree: Any = ast.parse("\n".join(lines))
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
