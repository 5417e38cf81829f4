"""Tree nodes from grammar rules: one callback a rule, called bottom up as lark reduces."""

from __future__ import annotations

import itertools
import math
import threading
import typing

from attndsl.source import NOWHERE, Source, Span

from . import tree
from .attention_building import AttentionRules
from .building_errors import (
    MOST_DIGITS,
    check_chain,
    no_kind,
    no_side,
    too_large,
    too_long,
)
from .clauses import Align as AlignClause
from .clauses import Alike, Parts, TreeError, Word, is_token, sort_clauses
from .clauses import Where as WhereClause
from .selection_building import SelectionRules

LARGEST = 2**31 - 1
_LOOPS: dict[str, type[tree.Loop]] = {
    "any": tree.Any, "all": tree.All, "count": tree.Count, "sum": tree.Total,
}  # fmt: skip


class Builder(AttentionRules, SelectionRules, threading.local):
    """The callbacks, each named as its rule in grammar.lark and given the rule's symbols.

    One Builder is tied into the parser for the life of the process; `source` is whatever the
    current thread is parsing.
    """

    source: Source

    # ------------------------------------------------------------------- declarations

    def start(self, parts: Parts) -> tree.Module:
        return tree.Module(tuple(parts), (), Span(self.source, 0, len(self.source.text)))

    def import_(self, parts: Parts) -> tree.Import:
        names = tuple(part for part in parts if isinstance(part, tree.ImportName))
        path = parts[-1]
        return tree.Import(
            path[1:-1], names, path_span=self._span(path), span=self._span(parts[0], path)
        )

    def import_name(self, parts: Parts) -> tree.ImportName:
        alias = str(parts[2]) if len(parts) > 1 else None
        return tree.ImportName(
            str(parts[0]), alias, self._span(parts[0]), self._span(parts[0], parts[-1])
        )

    def grid(self, parts: Parts) -> tree.Grid:
        opening, name, *axes, closing = parts
        return tree.Grid(
            str(name), tuple(axes), name_span=self._span(name), span=self._span(opening, closing)
        )

    def axis(self, parts: Parts) -> tree.Axis:
        extent = self._number(parts[1]) if len(parts) > 1 else None
        return tree.Axis(
            str(parts[0]), extent, self._span(parts[0]), self._span(parts[0], parts[-1])
        )

    def space(self, parts: Parts) -> tree.Space:
        opening, name, *segments = parts
        span = self._span(opening, segments[-1])
        return tree.Space(str(name), tuple(segments), name_span=self._span(name), span=span)

    def segment(self, parts: Parts) -> tree.Segment:
        name, last = parts[0], parts[-1]
        axes = tuple(part for part in parts if isinstance(part, tree.Axis))
        length = self._number(parts[2]) if len(parts) > 1 and not axes else None
        return tree.Segment(str(name), axes, length, self._span(name), self._span(name, last))

    def input(self, parts: Parts) -> tree.Input:
        opening, name, kind, *dims, closing = parts
        return tree.Input(
            str(name),
            self._kind(kind),
            tuple(dims),
            name_span=self._span(name),
            span=self._span(opening, closing),
        )

    def dim(self, parts: Parts) -> tree.Dim:
        (token,) = parts
        value = self._number(token) if token.kind == "INT" else str(token)
        return tree.Dim(value, self._span(token))

    def def_(self, parts: Parts) -> tree.Def:
        opening, name, *parameters, body = parts
        return tree.Def(
            str(name),
            tuple(parameters),
            body,
            name_span=self._span(name),
            span=self._span(opening, body),
        )

    def parameter(self, parts: Parts) -> tree.Parameter:
        name, kind, *rest = parts
        return tree.Parameter(
            str(name),
            self._kind(kind),
            rest[0] if rest else None,
            self._span(name),
            self._span(name, parts[-1]),
        )

    def pattern(self, parts: Parts) -> tree.Pattern:
        opening, name, *rest, body = parts
        last = body
        behind = []
        while isinstance(body, tree.Assertion | _Zeros):
            behind.append(body)
            *rest, body = rest
        assertions = tuple(each for each in reversed(behind) if isinstance(each, tree.Assertion))
        counts = sort_clauses([each for each in reversed(behind) if isinstance(each, _Zeros)])
        parameters = tuple(part for part in rest if isinstance(part, tree.Parameter))
        clauses = sort_clauses(rest[len(parameters) :])
        align, where = clauses.get(AlignClause), clauses.get(WhereClause)
        return tree.Pattern(
            str(name),
            parameters,
            body,
            clauses.get(tree.Over),
            align.align if align else None,
            where.conditions if where else (),
            assertions=assertions,
            zeros=counts[_Zeros].body if counts else None,
            name_span=self._span(name),
            align_span=align.span if align else NOWHERE,
            span=self._span(opening, last),
        )

    def over(self, parts: Parts) -> tree.Over:
        opening, queries, *rest = parts
        return tree.Over(
            str(queries),
            str(rest[0]) if rest else None,
            self._span(queries),
            self._span(rest[0]) if rest else NOWHERE,
            self._span(opening, parts[-1]),
        )

    def align(self, parts: Parts) -> AlignClause:
        opening, side = parts
        if side not in ("start", "end"):
            raise TreeError(no_side(self._span(side), str(side)))
        return AlignClause("start" if side == "start" else "end", self._span(opening, side))

    def where(self, parts: Parts) -> WhereClause:
        opening, *conditions = parts
        return WhereClause(tuple(conditions), self._span(opening, conditions[-1]))

    def zeros(self, parts: Parts) -> _Zeros:
        opening, count = parts
        return _Zeros(count, self._span(opening, count))

    def assertion(self, parts: Parts) -> tree.Assertion:
        opening, claim, *rest = parts
        match claim:
            case tree.Compare(
                operands=(subject, tree.Fraction() as bound), operators=(operator,), span=span
            ):
                claim = tree.Measure(subject, operator, bound, span)
            case _:
                pass
        where = rest[0].conditions if rest else ()
        return tree.Assertion(claim, where, self._span(opening, parts[-1]))

    def phrase(self, parts: Parts) -> tree.Phrase:
        compares = [place for place, part in enumerate(parts) if is_token(part, "COMPARE")]
        words = parts[: compares[0]] if compares else parts
        spelled = tuple(self._number(w) if w.kind == "INT" else str(w) for w in words)
        span = self._span(parts[0], parts[-1])
        if not compares:
            return tree.Phrase(spelled, span=span)
        operator: typing.Any = str(parts[-2])
        return tree.Phrase(spelled, operator, parts[-1], span)

    # -------------------------------------------------------------------- expressions

    def name(self, parts: Parts) -> tree.Name:
        return tree.Name(str(parts[0]), self._span(parts[0]))

    def int(self, parts: Parts) -> tree.Int:
        return tree.Int(self._number(parts[0]), self._span(parts[0]))

    def fraction(self, parts: Parts) -> tree.Fraction:
        digits, _, power = parts[0].replace("_", "").lower().partition("e")
        whole, _, rest = digits.partition(".")
        span = self._span(parts[0])
        if max(len(whole), len(rest)) > MOST_DIGITS or len(power) > MOST_DIGITS:
            raise TreeError(too_long(span))
        if not math.isfinite(float(parts[0].replace("_", ""))):
            raise TreeError(too_large(span, "reals reach to about 1e308"))
        scale = f"e{int(power)}" if power and int(power) else ""
        return tree.Fraction(f"{int(whole)}.{rest.rstrip('0') or '0'}{scale}", span)

    def bool(self, parts: Parts) -> tree.Bool:
        return tree.Bool(parts[0].kind == "TRUE", self._span(parts[0]))

    def group(self, parts: Parts) -> tree.Expression:
        opening, inner, closing = parts
        # Ours alone so far, so widening in place is safe, and cheaper than a copy.
        object.__setattr__(inner, "span", self._span(opening, closing))
        return typing.cast("tree.Expression", inner)

    def list(self, parts: Parts) -> tree.ListOf:
        return tree.ListOf(tuple(parts[1:-1]), self._span(parts[0], parts[-1]))

    def call(self, parts: Parts) -> tree.Call:
        name, *arguments, closing = parts
        span = self._span(name, closing)
        return tree.Call(str(name), tuple(arguments), self._span(name), span)

    def argument(self, parts: Parts) -> tree.Argument:
        name = str(parts[0]) if len(parts) > 1 else None
        return tree.Argument(parts[-1], name, self._span(parts[0], parts[-1]))

    def access(self, parts: Parts) -> tree.Access:
        base, name = parts
        check_chain(base)
        return tree.Access(base, str(name), self._span(name), self._span(base, name))

    def index(self, parts: Parts) -> tree.Index:
        base, *indices, closing = parts
        check_chain(base)
        return tree.Index(base, tuple(indices), self._span(base, closing))

    def negative(self, parts: Parts) -> tree.Neg:
        return tree.Neg(parts[1], self._span(parts[0], parts[1]))

    def join(self, parts: Parts) -> tree.Join:
        return tree.Join(tuple(parts[::2]), self._span(parts[0], parts[-1]))

    def product(self, parts: Parts) -> tree.Product:
        return tree.Product(*self._chain(parts))

    def sum(self, parts: Parts) -> tree.Sum:
        return tree.Sum(*self._chain(parts))

    def comparison(self, parts: Parts) -> tree.Compare:
        return tree.Compare(*self._chain(parts))

    def range(self, parts: Parts) -> tree.Range:
        return tree.Range(parts[0], parts[1], self._span(parts[0], parts[1]))

    def member(self, parts: Parts) -> tree.Member:
        item, container = parts[0], parts[-1]
        return tree.Member(item, container, len(parts) == 4, self._span(item, container))

    def inverse(self, parts: Parts) -> tree.Not:
        return tree.Not(parts[1], self._span(parts[0], parts[1]))

    def conjunction(self, parts: Parts) -> tree.And:
        return tree.And(*_operands(parts, self._span(parts[0], parts[-1])))

    def disjunction(self, parts: Parts) -> tree.Or:
        return tree.Or(*_operands(parts, self._span(parts[0], parts[-1])))

    def conditional(self, parts: Parts) -> tree.If:
        return tree.If(parts[1], parts[3], parts[5], self._span(parts[0], parts[5]))

    def binding(self, parts: Parts) -> tree.Binding:
        name, value = parts
        return tree.Binding(str(name), value, self._span(name), self._span(name, value))

    def let(self, parts: Parts) -> tree.Let:
        opening, *bindings, body = parts
        return tree.Let(tuple(bindings), body, self._span(opening, body))

    def loop(self, parts: Parts) -> tree.Loop:
        opening, name, _, domain, body = parts
        node = _LOOPS[str(opening)]
        return node(str(name), domain, body, self._span(name), self._span(opening, body))

    # ------------------------------------------------------------------------- pieces

    def _span(self, first: typing.Any, last: typing.Any = None) -> Span:
        """From the start of a token or node to the end of it or of another."""
        if last is None:
            last = first
        start: typing.Any = first.start if isinstance(first, Word) else first.span.start
        stop: typing.Any = last.stop if isinstance(last, Word) else last.span.stop
        return Span(self.source, start, stop)

    def _chain(self, parts: Parts) -> tuple[typing.Any, typing.Any, Span]:
        operators = tuple(str(token) for token in parts[1::2])
        return tuple(parts[::2]), operators, self._span(parts[0], parts[-1])

    def _number(self, token: Word) -> typing.Any:
        digits = token.replace("_", "").lstrip("0") or "0"
        # Python refuses to read very long numbers, so their length is judged first.
        if len(digits) > len(str(LARGEST)) or int(digits) > LARGEST:
            raise TreeError(too_large(self._span(token)))
        return int(digits)

    def _kind(self, token: Word) -> tree.Kind:
        match str(token):
            case "int" | "bool" | "list" | "real" as kind:
                return kind
            case other:
                raise TreeError(no_kind(self._span(token), other))


def _operands(parts: Parts, span: Span) -> tuple[typing.Any, Span, typing.Any]:
    """Operands, span and shapes of a chain."""
    if not any(isinstance(part, Alike) for part in parts):
        return tuple(parts), span, ()
    groups = (part.operands if isinstance(part, Alike) else (part,) for part in parts)
    shapes = tuple([part for part in parts if not isinstance(part, Alike)])
    return tuple(itertools.chain.from_iterable(groups)), span, shapes


class _Zeros(typing.NamedTuple):
    body: tree.Expression
    span: Span
