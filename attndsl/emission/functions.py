"""A mask as a function on tensors, to be read: its numbers are written out, its lengths and inputs are arguments.

    in_pattern(q, k, batch, head, ...) -> whether queries see keys: positions and indices that broadcast
    zero_keys(q, batch, head, ...)     -> how many zero keys queries see
    conditions(batch, head, ...)       -> nothing: it refuses inputs that are not what the pattern asks for

Every value is a tensor, a number only beside one: Python's operators are torch's, and floor as the language does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import assert_never, cast

from attndsl import ir
from attndsl.codegen import Magnitudes
from attndsl.emission.names import Names, calling, quoted
from attndsl.emission.pieces import (
    AND,
    ATOM,
    COMPARE,
    LINE,
    OR,
    PRODUCT,
    SUM,
    UNARY,
    Piece,
    at_least,
    infix,
    list_lines,
    number,
    parts_of,
    times,
    uses,
)
from attndsl.passes import lower_root


class Body:
    """The statements of one function so far, and the text of each value that is known."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.known: dict[ir.Node, Piece] = {}
        self.indent = ""

    def add(self, line: str) -> None:
        self.lines.append(self.indent + line)

    def inner(self) -> Body:
        """The body of a loop: it knows what is known outside, not the other way round."""
        made = Body()
        made.lines, made.known, made.indent = self.lines, dict(self.known), self.indent + "    "
        return made


class FunctionWriter:
    """Writes functions that take the same tables and sizes."""

    def __init__(self, mask: ir.Mask, reserved: Sequence[str] = ()) -> None:
        self._mask = mask
        self._names = Names(
            *reserved, "q", "k", "q_len", "k_len", "head", "heads", "batch", "torch", "in_pattern",
            "zero_keys", "quotient", "remainder", "ilog2", "pow2", "read", "span", "conditions", "require",
        )  # fmt: skip
        self._device = "q.device"
        self._uses: Counter[ir.Node] = Counter()
        self._lists: dict[tuple[int, ...], str] = {}  # of one function
        self.tables: dict[str, str] = {}
        self.sizes: dict[str, str] = {}

    def body(self, root: ir.Node, magnitudes: Magnitudes) -> list[str]:
        """The statements of a function that returns the value of ``root``."""
        self._uses, self._magnitudes, self._lists = uses(root), magnitudes, {}
        body = Body()
        found = self._value(root, body)[0]
        return [*self._list_lines(), *body.lines, f"return {found}"]

    def demands(self, asked: Sequence[tuple[str, ir.Node, Magnitudes]]) -> list[str]:
        """The statements of a function that refuses what the conditions do, in turn: as they are spelled, and meant."""
        self._lists, self._device = {}, "batch.device"
        body = Body()
        for text, root, magnitudes in asked:
            self._uses, self._magnitudes = uses(root), magnitudes
            found = self._value(root, body)[0]
            body.lines += calling("require", [quoted(text), found])
        return [*self._list_lines(), *body.lines]

    def _list_lines(self) -> list[str]:
        """The statements that make tensors of the lists of one function."""
        return [
            line
            for values, name in self._lists.items()
            for line in list_lines(name, values, self._device)
        ]

    # ------------------------------------------------------------------------ values

    def _value(self, root: ir.Node, body: Body) -> Piece:
        """The text of a value, once the statements that it needs stand before it."""
        for node in self._order(root, body):
            body.known[node] = self._settled(node, self._written(node, body), body)
        return body.known[root]

    def _written(self, node: ir.Node, body: Body) -> Piece:
        """The text of a value whose parts are known."""
        return self._piece(cast(ir.AnyNode, node), body)

    def _order(self, root: ir.Node, body: Body) -> list[ir.Node]:
        """Children first, without what is known and the bodies of loops."""
        order: dict[ir.Node, None] = {}
        stack = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if ready:
                order[node] = None
            elif node not in order and node not in body.known:
                stack.append((node, True))
                stack.extend((part, False) for part in reversed(parts_of(node)))
        return list(order)

    def _settled(self, node: ir.Node, piece: Piece, body: Body) -> Piece:
        """A value under a name of its own, if it is used again, long, or has one."""
        text, _ = piece
        if isinstance(node, ir.Pos | ir.Const | ir.Size | ir.Var | ir.Index | ir.Loop):
            return piece
        called = self._calling(node)
        shared = self._uses[node] > 1 and len(text) > 8
        if not text.isidentifier() and (called or shared or len(text) > LINE):
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

    def _assigned(self, text: str, body: Body, name: str = "") -> Piece:
        name = name or self._names.numbered("x")
        body.add(f"{name} = {text}")
        return name, ATOM

    def _short(self, piece: Piece, body: Body, room: int) -> Piece:
        return piece if len(piece[0]) <= room else self._assigned(piece[0], body)

    # ------------------------------------------------------------------------ operations

    def _piece(self, node: ir.AnyNode, body: Body) -> Piece:  # noqa: C901 - one arm per class
        def at(child: ir.Node, room: int = LINE) -> Piece:
            return self._short(body.known[child], body, room)

        match node:
            case ir.Const(value=value):
                return number(value)
            case ir.BoolConst(value=value):
                return f"torch.tensor({value}, device={self._device})", ATOM
            case ir.Pos(side=side):
                return side.value, ATOM
            case ir.Inside():
                return self._value(lower_root(node, self._mask), body)
            case ir.Coord(side=side, axis=axis):
                member = ir.Inside(side, axis.partition(".")[0])
                told = {lower_root(member, self._mask): cast(ir.Node, member)}
                told = {test: inside for test, inside in told.items() if test is not ir.TRUE}
                return self._value(ir.substitute(lower_root(node, self._mask), told), body)
            case ir.Size(name=name):
                return self._size(name), ATOM
            case ir.Var(name=name):
                return (self._size(name) if name == "heads" else name), ATOM
            case ir.Index(level=level):
                return self._names.of(node, f"j{level}"), ATOM
            case ir.Sum(terms=terms, constant=constant):
                return self._linear(dict(terms), constant, body)
            case ir.Mul(left=left, right=right):
                return infix(" * ", at(left, 48), at(right, 24))
            case ir.FloorDiv(left=left, right=right):
                return self._division(" // ", "quotient", left, at(left, 36), right, at(right, 36))
            case ir.Mod(left=left, right=right):
                return self._division(" % ", "remainder", left, at(left, 36), right, at(right, 36))
            case ir.Min(items=items):
                return self._clamped("max", items, body)
            case ir.Max(items=items):
                return self._clamped("min", items, body)
            case ir.Abs(item=item):
                return f"abs({at(item)[0]})", ATOM
            case ir.ILog2(item=item):
                return f"ilog2({at(item)[0]})", ATOM
            case ir.Pow2(item=item):
                return f"pow2({at(item)[0]})", ATOM
            case ir.Select(cond=cond, yes=yes, no=no):
                parts = [at(part, 24)[0] for part in (cond, yes, no)]
                return f"torch.where({', '.join(parts)})", ATOM
            case ir.Load():
                return self._load(node, body)
            case ir.Entry(values=values, index=index):
                return f"read({self._listed(values)}, {at(index, 24)[0]})", ATOM
            case ir.Le(item=item, bound=bound):
                return self._comparison(item, "<=", bound, body)
            case ir.Eq(item=item, bound=bound):
                return self._comparison(item, "==", bound, body)
            case ir.Not(item=ir.Eq(item=item, bound=bound)):
                return self._comparison(item, "!=", bound, body)
            case ir.Not(item=item):
                return f"~{at_least(at(item), UNARY)}", UNARY
            case ir.And(items=items):
                return self._junction(" & ", AND, [at(item, 60) for item in items], body)
            case ir.Or(items=items):
                return self._junction(" | ", OR, [at(item, 60) for item in items], body)
            case ir.Exists() | ir.Total():
                return self._loop(node, body)
            case other:
                assert_never(other)

    def _linear(self, terms: dict[ir.Node, int], constant: int, body: Body) -> Piece:
        """Positive terms first, then the constant, then negative terms."""
        pieces = [(c, self._short(body.known[term], body, 40)) for term, c in terms.items()]
        if not pieces:
            return number(constant)
        if len(pieces) == 1 and not constant and pieces[0][0] == 1:
            return pieces[0][1]
        added = sorted(times(c, piece) for c, piece in pieces if c > 0)
        taken = sorted((times(-c, piece), c, piece) for c, piece in pieces if c < 0)
        if constant > 0 or (constant and not added):
            added.append(str(constant))
        elif constant < 0:
            taken.append((str(-constant), 0, ("", ATOM)))
        if not added:
            text, c, piece = taken.pop(0)
            added = [f"-{at_least(piece, UNARY)}" if c == -1 else f"-{text}"]
        text = " - ".join([" + ".join(added), *(each for each, *_ in taken)])
        return text, PRODUCT if len(added) + len(taken) == 1 else SUM

    def _comparison(self, item: ir.Node, symbol: str, bound: int, body: Body) -> Piece:
        """``key <= bound - query``: either side is one vector; what is mixed stays on the left."""
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
        first, second = (at_least(self._short(side, body, 48), OR) for side in sides)
        return f"{first} {symbol} {second}", COMPARE

    def _division(
        self,
        plain: str,
        guarded: str,
        dividend: ir.Node,
        left: Piece,
        divisor: ir.Node,
        right: Piece,
    ) -> Piece:
        """An operator where the divisor is known to be positive; a function that looks at it elsewhere."""
        if isinstance(divisor, ir.Const) or self._magnitudes.is_positive(divisor):
            return infix(plain, left, right)
        return f"{guarded}({left[0]}, {right[0]})", ATOM

    def _clamped(self, keyword: str, items: tuple[ir.Node, ...], body: Body) -> Piece:
        """The least or greatest: of a tensor first, of which torch takes numbers as bounds."""
        ordered = sorted(items, key=lambda item: isinstance(item, ir.Const))
        first, *others = (self._short(body.known[item], body, 32) for item in ordered)
        for other, _ in others:
            receiver = at_least(self._short(first, body, 40), ATOM)
            first = f"{receiver}.clamp({keyword}={other})", ATOM
        return first

    def _junction(self, symbol: str, strength: int, pieces: list[Piece], body: Body) -> Piece:
        ordered = sorted(pieces, key=lambda piece: at_least(piece, strength + 1))
        found = ordered[0]
        for piece in ordered[1:]:
            part = at_least(piece, strength + 1)
            if len(found[0]) + len(part) > LINE:
                found = self._assigned(found[0], body)
            found = f"{at_least(found, strength)}{symbol}{part}", strength
        return found

    def _loop(self, node: ir.Loop, body: Body) -> Piece:
        """A loop over all numbers that any position asks for; what does not change in it stands before it."""
        variable, sums = ir.Index(node.level), isinstance(node, ir.Total)
        self._hoist(node.body, variable, body)
        start, stop = (self._short(self._value(x, body), body, 30) for x in (node.start, node.stop))
        found = self._names.numbered("total" if sums else "found")
        name = self._names.of(variable, f"j{node.level}")
        body.add(f"{found} = torch.tensor({0 if sums else False}, device={self._device})")
        body.add(f"for {name} in span({start[0]}, {stop[0]}, {self._device}):")
        inner = body.inner()
        inner.known[variable] = name, ATOM
        value = self._short(self._value(node.body, inner), inner, 60)
        limits: list[Piece] = []
        if node.start.deps:  # other starts and stops are those of the loop
            limits.append((f"{at_least(start, OR)} <= {name}", COMPARE))
        if node.stop.deps:
            limits.append((f"{name} < {at_least(stop, OR)}", COMPARE))
        if sums:
            inside = (
                self._short(self._junction(" & ", AND, limits, inner), inner, 60)[0]
                if limits
                else ""
            )
            added = f"torch.where({inside}, {value[0]}, 0)" if limits else at_least(value, SUM)
            inner.add(f"{found} = {found} + {added}")
        else:
            is_seen = self._junction(" & ", AND, [value, *limits], inner)
            inner.add(f"{found} = {found} | {at_least(self._short(is_seen, inner, 60), AND)}")
        return found, ATOM

    def _hoist(self, root: ir.Node, variable: ir.Node, body: Body) -> None:
        """Compute before a loop whatever in it does not depend on its variable, nor on one of a loop inside."""
        varying = {variable}
        for node in ir.postorder(root):
            if any(part in varying for part in node.parts):
                varying.add(node)
        for node in ir.postorder(root):
            for part in parts_of(node) if node in varying else ():
                unknown = (x for x in ir.postorder(part) if isinstance(x, ir.Index))
                if part.parts and all(x in body.known for x in unknown):
                    text, _ = self._value(part, body)
                    if not text.isidentifier():
                        body.known[part] = self._assigned(text, body)

    def _load(self, node: ir.Load, body: Body) -> Piece:
        """An entry of an input, 0 (false) outside it."""
        table = next(each for each in self._mask.tables if each.name == node.table)
        parameter = self._names.of(("table", table.name), table.name)
        self.tables[parameter] = table.name
        index = iter(node.index)
        places = [
            str(dim) if dim in ("batch", "head")
            else self._short(body.known[next(index)], body, 24)[0]
            for dim in table.dims
        ]  # fmt: skip
        return f"read({', '.join([parameter, *places])})", ATOM

    def _listed(self, values: tuple[int, ...]) -> str:
        """The name of a tensor that holds a list."""
        if values not in self._lists:
            self._lists[values] = self._names.numbered("list")
        return self._lists[values]

    def _size(self, name: str) -> str:
        table, colon, dim = name.partition(":")
        known = {"q": "q_len", "k": "k_len", "heads": "heads"}
        wanted = f"len_{table}_{dim}" if colon else f"len_{self._axis(name)}"
        parameter = known.get(name) or self._names.of(("size", name), wanted)
        self.sizes[parameter] = name
        return parameter

    def _axis(self, full: str) -> str:
        """The short name of an axis, if no other segment has it too."""
        segment, _, short = full.partition(".")
        spaces = (self._mask.queries, self._mask.keys)
        owners = {
            s.name for space in spaces for s in space.segments for a in s.axes if a.name == short
        }
        return short if owners == {segment} else f"{segment}_{short}"
