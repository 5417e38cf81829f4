"""An expression as text of the language, for people: ``show``. Shared parts are named by ``let``."""

from __future__ import annotations

from collections import Counter
from typing import assert_never, cast

from attndsl.ir import nodes as n
from attndsl.ir import reals
from attndsl.ir.interning import Node, Sort
from attndsl.ir.mask import NO_ZEROS
from attndsl.ir.nodes import AnyNode
from attndsl.ir.real_printing import (
    AND,
    ATOM,
    COMPARE,
    NOT,
    OPEN,
    OR,
    PRODUCT,
    SUM,
    UNARY,
    Piece,
    real_piece,
)
from attndsl.ir.walks import postorder

_SHOWN = 8  # entries of a list
_LONG = 24  # characters; shared numbers that are shorter are repeated rather than named
_LONG_TRUTH = 2_000  # characters; likewise of truth values, which read better where they stand
_LONGEST = 100_000  # characters; what is longer, shared, and cannot be named outside its quantifier is left out


def show(root: Node, zeros: Node = NO_ZEROS) -> str:
    """``root`` in the language, and how many zero keys there are if any. Equal nodes give equal text."""
    if zeros is not NO_ZEROS:
        return f"{show(root)} zeros {show(zeros)}"
    uses = Counter(child for node in postorder(root) for child in node.parts)
    bound = _with_bound_variables(root)
    pieces: dict[Node, Piece] = {}
    lets: list[str] = []
    for node in postorder(root):
        if isinstance(node, reals.Real | reals.Vector):
            text, strength = real_piece(node, pieces)
        else:
            text, strength = _piece(cast(AnyNode, node), pieces)
        longest = _LONG if node.sort is Sort.INT else _LONG_TRUTH
        if uses[node] > 1 and len(text) > longest and node.sort is not Sort.VECTOR:
            if node not in bound:
                name = f"t{len(lets)}"
                lets.append(f"{name} = {text}")
                text, strength = name, ATOM
            elif len(text) > _LONGEST:
                text, strength = "...", ATOM
        pieces[node] = (text, strength)
    body = pieces[root][0]
    return f"let {', '.join(lets)}: {body}" if lets else body


def _with_bound_variables(root: Node) -> set[Node]:
    """Nodes that mention a bound variable: they cannot move out of their quantifier."""
    found: set[Node] = set()
    for node in postorder(root):
        if isinstance(node, n.Index) or any(child in found for child in node.parts):
            found.add(node)
    return found


def _piece(node: AnyNode, done: dict[Node, Piece]) -> Piece:  # noqa: C901 - one arm per class
    def at(child: Node, strength: int) -> str:
        text, own = done[child]
        return text if own >= strength else f"({text})"

    def call(name: str, *items: Node) -> Piece:
        return f"{name}({', '.join(at(item, OPEN) for item in items)})", ATOM

    match node:
        case n.Const(value=value):
            return str(value), ATOM if value >= 0 else UNARY
        case n.BoolConst(value=value):
            return str(value).lower(), ATOM
        case n.Pos(side=side):
            return side.value, ATOM
        case n.Coord(side=side, axis=axis):
            return f"{side.value}.{axis}", ATOM
        case n.Inside(side=side, segment=segment):
            return f"{side.value} in {segment}", COMPARE
        case n.Size(name=name):
            return f"len({name.replace(':', '.')})", ATOM
        case n.Var(name=name):
            return name, ATOM
        case n.Index(level=level):
            return f"j{level}", ATOM
        case n.Sum(terms=terms, constant=constant):
            return _linear(terms, constant, done)
        case n.Mul():
            return f"{at(node.left, PRODUCT)} * {at(node.right, UNARY)}", PRODUCT
        case n.FloorDiv():
            return f"{at(node.left, PRODUCT)} // {at(node.right, UNARY)}", PRODUCT
        case n.Mod():
            return f"{at(node.left, PRODUCT)} % {at(node.right, UNARY)}", PRODUCT
        case n.Min(items=items):
            return call("min", *items)
        case n.Max(items=items):
            return call("max", *items)
        case n.Abs(item=item):
            return call("abs", item)
        case n.ILog2(item=item):
            return call("ilog2", item)
        case n.Pow2(item=item):
            return call("pow2", item)
        case n.Select():
            parts = [at(part, OR) for part in (node.cond, node.yes)]
            return f"if {parts[0]} then {parts[1]} else {at(node.no, OPEN)}", OPEN
        case n.Load(table=table, index=index):
            reads = ", ".join(at(item, OPEN) for item in index)
            return f"{table}[{reads}]" if index else table, ATOM
        case n.Entry(values=values, index=index):
            shown = ", ".join(map(str, values[:_SHOWN]))
            dots = f", ... {len(values):,} in all" if len(values) > _SHOWN else ""
            return f"[{shown}{dots}][{at(index, OPEN)}]", ATOM
        case n.Le(item=item, bound=bound):
            return _comparison(item, "<=", bound, done), COMPARE
        case n.Eq(item=item, bound=bound):
            return _comparison(item, "==", bound, done), COMPARE
        case n.Not(item=n.Eq(item=item, bound=bound)):
            return _comparison(item, "!=", bound, done), COMPARE
        case n.Not(item=item):
            return f"not {at(item, NOT)}", NOT
        case n.And(items=items):
            return " and ".join(sorted(at(item, NOT) for item in items)), AND
        case n.Or(items=items):
            return " or ".join(sorted(at(item, AND) for item in items)), OR
        case n.Exists(level=level, start=start, stop=stop, body=body):
            limits = f"{at(start, SUM)}..{at(stop, SUM)}"
            return f"any j{level} in {limits}: {at(body, OPEN)}", OPEN
        case n.Total(level=level, start=start, stop=stop, body=body):
            limits = f"j{level} in {at(start, SUM)}..{at(stop, SUM)}"
            match body:
                case n.Select(cond=cond, yes=n.Const(value=1), no=n.Const(value=0)):
                    return f"count {limits}: {at(cond, OPEN)}", OPEN
                case n.Select(cond=cond, yes=n.Const(value=0), no=n.Const(value=1)):
                    return f"count {limits}: not {at(cond, NOT)}", OPEN
                case _:
                    return f"sum {limits}: {at(body, OPEN)}", OPEN
        case _:
            assert_never(node)


def _linear(terms: tuple[tuple[Node, int], ...], constant: int, done: dict[Node, Piece]) -> Piece:
    """Positive terms first, then negative ones, then the constant."""
    ordered = sorted(terms, key=lambda term: (term[1] < 0, done[term[0]][0]))
    text = ""
    for node, factor in ordered:
        inner, strength = done[node]
        magnitude = abs(factor)
        needed = UNARY if magnitude > 1 or (factor < 0 and not text) else PRODUCT  # -(q % 3)
        inner = inner if strength >= needed else f"({inner})"
        inner = f"{magnitude} * {inner}" if magnitude > 1 else inner
        sign = " - " if factor < 0 else " + "
        text = f"{text}{sign}{inner}" if text else (f"-{inner}" if factor < 0 else inner)
    if constant:
        text += f" - {-constant}" if constant < 0 else f" + {constant}"
    return text, SUM


def _comparison(item: Node, operator: str, bound: int, done: dict[Node, Piece]) -> str:
    """``left operator right`` with positive terms left and negative ones right where that reads well."""
    terms = item.terms if isinstance(item, n.Sum) else ((item, 1),)
    left = tuple((node, c) for node, c in terms if c > 0)
    right = tuple((node, -c) for node, c in terms if c < 0)
    if not left:
        flipped = {"<=": ">=", "==": "==", "!=": "!="}[operator]
        return f"{_side(right, 0, done)} {flipped} {-bound}"
    if not right:
        return f"{_side(left, 0, done)} {operator} {bound}"
    if bound == 0:
        return f"{_side(left, 0, done)} {operator} {_side(right, 0, done)}"
    return f"{_linear(terms, 0, done)[0]} {operator} {bound}"


def _side(terms: tuple[tuple[Node, int], ...], constant: int, done: dict[Node, Piece]) -> str:
    if len(terms) == 1 and terms[0][1] == 1 and not constant:
        text, strength = done[terms[0][0]]
        return text if strength >= SUM else f"({text})"
    return _linear(terms, constant, done)[0]
