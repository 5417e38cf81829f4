"""A Python-built expression, set in its spaces: axes found, alignment fixed, a mask made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from attndsl import ir
from attndsl.source import AttnDslError, Span

from .callers import here
from .elaboration import Elaborator
from .embedded_tables import Table
from .embedding import Expr, as_expr, asked_of, merged, parts_of, zeros_of
from .entry import convert, described
from .errors import did_you_mean, listed, make_error, stop_if_any
from .frames import InputList, Origin, Value
from .joining import Asked
from .placing import placed
from .real_check import KIND_WORDS
from .rows import SHIFT
from .scope import Definition
from .spaces import FLAT_PAIR, Pair, Place, dim_size, segment_size, size_of

_OVER = 'say which: `@attndsl.pattern(over=attndsl.grid("image", "y", "x"))`'


def to_mask(
    expr: object,
    queries: ir.Space | None = None,
    keys: ir.Space | None = None,
    align: str | None = None,
    name: str | None = None,
    doc: str | None = None,
    values: Mapping[str, object] | None = None,
) -> ir.Mask:
    """The mask of an expression.

    Args:
        expr: An `Expr` that is a truth value, or a `PatternFunction`.
        queries: The space of the queries; by default that of the prelude patterns in it, else flat.
        keys: The space of the keys; by default that of the queries.
        align: As `align start` and `align end` of the language.
        name: For people; by default that of the function the expression came from.
        doc: Likewise.
        values: For the parameters of a `PatternFunction`.

    Raises:
        AttnDslError: A2xx, with the place in the caller's program.
    """
    span, written = here(), None
    if isinstance(expr, PatternFunction):
        queries, keys, written = queries or expr.queries, keys or expr.keys, expr.align
        expr = expr(**(values or {}))
    elif values:
        raise AttnDslError(
            make_error("A211", f"an expression has no parameter `{min(values)}`", span)
        )
    made = as_expr(expr)
    node, tables, overs, about = parts_of(made)
    if node.sort is not ir.Sort.BOOL:
        title = f"a pattern is a truth value, this is {KIND_WORDS[node.sort.value]}"
        raise AttnDslError(make_error("A202", title, span, helps=("compare it with something",)))
    pair = Pair(queries, keys or queries) if queries else _common(overs, span)
    written = asked_of(made).and_(Asked(written)).align
    place = placed(pair, name or about[0], written, align, span)
    settling = SpaceBinder(pair, overs, ir.first_query(place), span)
    root, zeros = settling.bound_to_spaces(node), settling.bound_to_spaces(zeros_of(made))
    if zeros.deps & ir.Deps.KEY:
        raise AttnDslError(make_error("A214", "a count of zero keys cannot depend on `k`", span))
    conditions = tuple(
        replace(each, node=settling.bound_to_spaces(each.node))
        for each in asked_of(made).conditions
    )
    _check_tables(pair, tables, span)
    ordered = tuple(sorted(tables, key=lambda table: table.name))
    name, doc = name if name is not None else about[0], doc if doc is not None else about[1]
    spaces = pair.queries, pair.keys
    mask = ir.Mask(
        root, *spaces, ordered, place, name, doc, zeros=zeros, conditions=conditions,
        selections=chosen_of(made, place, root, span, pair),
    )  # fmt: skip
    return mask.with_root(root)


def chosen_of(
    made: Expr, align: ir.Align, root: ir.Node, span: Span, pair: Pair
) -> tuple[ir.Chosen, ...]:
    """The selections that an expression asks.

    Raises:
        AttnDslError: A216, reals are compared outside of them; A219, two of one name differ, or are aligned otherwise.
    """
    if any(isinstance(node, ir.selection.Exceeds) for node in ir.postorder(root)):
        title = "reals are compared in conditions of selections only"
        raise AttnDslError(make_error("A216", title, span))
    found: dict[str, ir.Chosen] = {}
    for each in asked_of(made).selections:
        if found.setdefault(each.name, each) != each:
            title = f"two selections that differ are named `{each.name}`"
            raise AttnDslError(make_error("A219", title, span))
        if each.align is not align:
            title = f"`{each.name}` is aligned at the {each.align}, the pattern that uses it is not"
            raise AttnDslError(make_error("A212", title, span))
        spaces = each.spaces if isinstance(each, ir.Selection) and each.is_on_grid else None
        if spaces is not None and spaces != (pair.queries, pair.keys):
            over = " -> ".join(dict.fromkeys(space.name for space in spaces))
            title = f"`{each.name}` chooses tiles of a grid, which positions here are none of"
            helps = (f"a pattern over `{over}` asks it",)
            raise AttnDslError(make_error("A210", title, span, helps=helps))
    return tuple(found.values())


def _common(overs: tuple[Pair, ...], span: Span) -> Pair:
    if len(overs) > 1:
        names = listed(pair.queries.name for pair in overs)
        title = f"parts of this pattern were written for different spaces: {names}"
        helps = (_OVER,)
        raise AttnDslError(make_error("A210", title, span, helps=helps))
    return overs[0] if overs else FLAT_PAIR


def _check_tables(pair: Pair, tables: tuple[ir.Table, ...], span: Span) -> None:
    for table in tables:
        if pair.is_rectangular and "pos" in table.dims:
            title = (
                f"`{table.name}` is indexed by `pos`, but queries and keys live in different spaces"
            )
            helps = ("use two tables, one over q and one over k",)
            raise AttnDslError(make_error("A209", title, span, helps=helps))


class SpaceBinder:
    """Open names to those of the spaces; what is not found is reported together."""

    def __init__(self, pair: Pair, overs: tuple[Pair, ...], shift: ir.Node, span: Span) -> None:
        self.pair = pair
        self.overs = overs
        self.shift = shift
        self.span = span
        self.missing: dict[str, ir.Side | None] = {}

    def bound_to_spaces(self, node: ir.Node) -> ir.Node:
        root = ir.transform(node, self._rule)
        stop_if_any(self._complaint(name, side) for name, side in self.missing.items())
        return root

    def _rule(self, node: ir.Node) -> ir.Node:
        match node:
            case ir.Coord(side=side, axis=axis):
                place = self._place(side, axis)
                return ir.Coord(side, place.full) if place else node
            case ir.Inside(side=side, segment=name):
                segment = self._segment(side, name)
                if segment is None:
                    self.missing[name] = side
                    return node
                alone = len(self.pair.of(side)[0].segments) == 1
                return ir.TRUE if alone else ir.Inside(side, segment.name)
            case ir.Size():
                return self._size(node)
            case _:
                return node

    def _size(self, node: ir.Size) -> ir.Node:
        name = node.name
        if name in ("q", "k"):
            return node
        if node is SHIFT:
            return self.shift
        if ":" in name:
            table, _, dim = name.partition(":")
            return dim_size(ir.Table(table, ir.Sort.INT, (dim,)), dim, self.pair)
        if "." not in name and (segment := self._segment(None, name)) is not None:
            return segment_size(segment)
        place = self._place(None, name)
        return size_of(place) if place else node

    def _place(self, side: ir.Side | None, name: str) -> Place | None:
        segment, _, axis = name.rpartition(".")
        if segment:
            written = any(pair.segment(side, segment) for pair in (*self.overs, self.pair))
            found = self.pair.translate(side, Place(segment, axis)) if written else None
        else:
            places = self.pair.places(side, axis)
            found = places[0] if len(places) == 1 else None
        if found is None:
            self.missing[name] = side
        return found

    def _segment(self, side: ir.Side | None, name: str) -> ir.Segment | None:
        here = self.pair.segment(side, name)
        written = [s for pair in self.overs if (s := pair.segment(side, name)) is not None]
        if here is not None or not written:
            return here
        return self.pair.translate_segment(side, written[0])

    def _complaint(self, name: str, side: ir.Side | None) -> Any:
        spaces = [space for space in self.pair.of(side) if space.segments]
        if not spaces:
            title = f"there is no `{name}`: the pattern has no space"
            return make_error("A206", title, self.span, helps=(_OVER,))
        have = listed(sorted(set(self.pair.names(side))))
        many = len(self.pair.places(side, name)) > 1
        title = f"`{name}` is {'in several segments' if many else 'not'} of this space"
        if not many:
            title = f"there is no axis or segment `{name}` in this space"
        helps = (did_you_mean(name, self.pair.names(side)),)
        return make_error("A206", title, self.span, notes=(f"it has {have}",), helps=helps)


# ---------------------------------------------------------------------- functions


class PatternFunction:
    """A Python function that gives a pattern: made by `pattern`, or of a definition as text.

    Call it with its parameters to get an expression.
    """

    def __init__(
        self,
        make: Callable[..., object],
        name: str,
        doc: str,
        parameters: inspect.Signature,
        queries: ir.Space | None = None,
        keys: ir.Space | None = None,
        align: str | None = None,
    ) -> None:
        """``queries``, ``keys``, ``align``: what `to_mask` takes where it is not told otherwise."""
        self.make = make
        self.__name__ = name
        self.__doc__ = doc
        self.__signature__ = parameters
        self.queries = queries
        self.keys = keys
        self.align = align

    def __repr__(self) -> str:
        return f"{self.__name__}{self.__signature__}"

    def __call__(self, /, *args: Any, **kwargs: Any) -> Expr:
        try:
            self.__signature__.bind(*args, **kwargs)
        except TypeError as error:
            title = f"{self.__name__}: {error}"
            notes = (f"it is declared as {self!r}",)
            raise AttnDslError(make_error("A205", title, here(), notes=notes)) from None
        made = as_expr(self.make(*args, **kwargs))
        node, tables, overs, _ = parts_of(made)
        if self.queries is not None:
            overs = (Pair(self.queries, self.keys or self.queries),)
        about = self.__name__, inspect.getdoc(self) or ""
        asked = asked_of(made).and_(Asked(self.align))
        return Expr(node, tables, overs, about, zeros_of(made), asked)


def pattern(
    function: Callable[..., object] | None = None,
    *,
    over: ir.Space | tuple[ir.Space, ir.Space] | None = None,
    align: str | None = None,
) -> Any:
    """Make a pattern of a function that returns an expression; its parameters stay its own.

    >>> @pattern
    ... def local(w: int = 4):
    ...     return (0 <= q - k) & (q - k < w)
    """

    def wrap(made: Callable[..., object]) -> PatternFunction:
        queries, keys = over if isinstance(over, tuple) else (over, over)
        signature, doc = inspect.signature(made), inspect.getdoc(made) or ""
        name = made.__name__ if made.__name__.isidentifier() else ""  # a lambda has none
        return PatternFunction(made, name, doc, signature, queries, keys, align)

    return wrap if function is None else wrap(function)


def python_form(definition: Definition) -> PatternFunction:
    """A pattern or helper of the language as a Python function of the same name and parameters."""
    shown = described(definition)
    declared = [
        inspect.Parameter(
            each.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=inspect.Parameter.empty if each.default is None else _Text(each.default),
            annotation=_TYPES[each.kind],
        )
        for each in shown.parameters
    ]
    names = [each.name for each in shown.parameters]

    def make(*args: object, **kwargs: object) -> Expr:
        return opened(definition, dict(zip(names, args, strict=False)) | kwargs)

    return PatternFunction(make, shown.name, shown.doc, inspect.Signature(declared))


_TYPES = {"int": int, "bool": bool, "list": list, "real": float}


class _Text(str):
    """A default, shown as the language spells it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def opened(definition: Definition, values: Mapping[str, object]) -> Expr:
    """The body of a definition with these values, its axes still open."""
    span = here()
    given, parts = _given(definition, values, span)
    elaborator = Elaborator(definition.pair, definition.align, is_open=True)
    try:
        node = elaborator.open(definition, given, Origin(span), span)
        zeros = elaborator.zeros(definition, given, Origin(span))
    except AttnDslError as error:
        stop_if_any([*elaborator.diagnostics, *error.diagnostics])
        raise
    stop_if_any(elaborator.diagnostics)
    assert isinstance(node, ir.Node), "kinds were checked"
    tables = tuple(elaborator.tables.values())
    overs = (definition.pair,) if definition.pair.queries.segments else ()
    asked = Asked(
        definition.written_align,
        tuple(elaborator.conditions.values()),
        tuple(elaborator.selections.values()),
    )
    whole = merged(node, (*parts, Expr(node, tables, overs, asked=asked)))
    return whole if zeros is ir.ZERO else whole.zeros(Expr(zeros, tables))


def _list_of(table: ir.Table, span: Span) -> InputList | str:
    """An input as a list."""
    dims = table.indexed_dims
    if table.is_list or table.kind is ir.Sort.BOOL or len(dims) != 1 or dims[0] == "q":
        return "must be an input of ints with one dim beside batch and head, other than `q`"
    return InputList(table, (), span)


def _given(
    definition: Definition, values: Mapping[str, object], span: Span
) -> tuple[dict[str, Value], list[Expr]]:
    given: dict[str, Value] = {}
    parts: list[Expr] = []
    for parameter in definition.parameters:
        if parameter.name not in values:
            continue
        value = values[parameter.name]
        if isinstance(value, Expr):
            parts.append(value)
            made: Value | str = parts_of(value)[0]
            kinds = ("real", "int") if parameter.kind == "real" else (parameter.kind,)
            if parts_of(value)[0].sort.value not in kinds:
                made = f"must be a {parameter.kind}"
        elif isinstance(value, Table) and parameter.kind == "list":
            made = _list_of(value.table, span)
        else:
            made = convert(parameter.kind, value)
        if isinstance(made, str):
            title = f"`{parameter.name}` of `{definition.name}` {made}"
            raise AttnDslError(make_error("A211", title, span))
        given[parameter.name] = made
    return given, parts
