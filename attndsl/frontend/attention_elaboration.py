"""An attention to its terms: masks from what stands behind `over`, real expressions from the rest.

Runs on checked definitions; what is left to judge are values, and what expressions depend on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from attndsl import ir
from attndsl import syntax as syn
from attndsl.source import AttnDslError, Span

from .attention_check import PAIRED, SCORE, attention_used, call_of, is_attention
from .attention_terms import (
    check_members,
    check_query,
    check_tables,
    joined,
    log_of_mass,
    multiple,
)
from .elaboration import Elaborator
from .errors import make_error, stop_if_any
from .frames import Origin, Scope, Value
from .order import plain_use
from .scope import Definition, spaces_said
from .score_values import number_faults
from .value_errors import too_large

reals = ir.reals

Bounds: TypeAlias = tuple[tuple[syn.Expression, Scope], ...]  # all hold for the pairs of a branch
MOST_PARTS: Final = 64  # of an attention: each is a pass of its own


def attention_of(
    definition: Definition, values: Mapping[str, Value], align: ir.Align, layer: int | None = None
) -> ir.Attention:
    """The attention of a checked definition with these values for parameters.

    Raises:
        AttnDslError: A3xx for values and sizes, A215 and A217 for what cannot be joined.
    """
    maker = _Terms(Elaborator(definition.pair, align, layer=layer))
    try:
        terms = maker.opened(definition, values, Origin(), (), definition.declaration.name_span)
        span = definition.declaration.name_span
        check_members(terms, span)
        found = ir.Attention(terms, (), definition.name, definition.declaration.doc)
        tables = maker.tables(found, span)
        faults = number_faults(replace(found, tables=tables), maker.elaborator.written, span)
        maker.elaborator.diagnostics.extend(faults)
    except AttnDslError as error:
        maker.elaborator.diagnostics.extend(error.diagnostics)
        stop_if_any(maker.elaborator.diagnostics)
        raise
    stop_if_any(maker.elaborator.diagnostics)
    own = {table.name for table in tables}
    chosen = (each for name, each in maker.elaborator.selections.items() if name in own)
    made = replace(maker.with_conditions(found), tables=tables, selections=tuple(chosen))
    declared = definition.facts.tables if definition.facts else {}
    dropped = declared.keys() - {table.name for table in made.inputs}
    return replace(made, unread=tuple(sorted(dropped)))


@dataclass(frozen=True, slots=True)
class _Terms:
    """The terms of one attention; ``elaborator`` is that of its real expressions."""

    elaborator: Elaborator

    def opened(
        self,
        definition: Definition,
        given: Mapping[str, Value],
        origin: Origin,
        bounds: Bounds,
        span: Span,
    ) -> tuple[ir.Term, ...]:
        """The terms of an attention with these values, where the pairs around it are bounded."""
        frame = self.elaborator.frame(definition, given, origin)
        frame = replace(frame, chain=frame.chain or (definition.pair,))
        self.elaborator.check_align(definition, span)
        if not self.elaborator.obeys_constraints(definition, frame, origin):
            stop_if_any(self.elaborator.diagnostics)
        declaration = definition.declaration
        assert isinstance(declaration, syn.Attention)
        if declaration.over is not None and spaces_said(definition) is None:
            bounds = (*bounds, (declaration.over, frame))
        return self.terms(declaration.body, frame, bounds)

    def terms(self, node: syn.Expression, frame: Scope, bounds: Bounds) -> tuple[ir.Term, ...]:
        """The terms of an expression that is an attention."""
        found: tuple[ir.Term, ...] = ()
        match node:
            case syn.Scored():
                found = (self._scored(node, frame, bounds),)
            case syn.Join(operands=operands):
                found = (self._joined(operands, frame, bounds),)
            case syn.Sum(operands=operands, operators=operators):
                for sign, operand in zip(("+", *operators), operands, strict=True):
                    made = self.terms(operand, frame, bounds)
                    found += made if sign == "+" else multiple(reals.Number(-1.0), made)
                    self._check_count(found, operand.span)
            case syn.Neg(operand=operand):
                found = multiple(reals.Number(-1.0), self.terms(operand, frame, bounds))
            case syn.Product():
                found = self._product(node, frame, bounds)
            case syn.Let(bindings=bindings, body=body):
                local = dict(frame.local)
                inner = replace(frame, local=local)
                for binding in bindings:
                    local[binding.name] = self.elaborator.value(binding.value, inner)
                found = self.terms(body, inner, bounds)
            case syn.Name() | syn.Call():
                found = self._used(node, frame, bounds)
            case _:
                raise AssertionError("branches were checked")
        self._check_count(found, node.span)
        return found

    def _check_count(self, terms: tuple[ir.Term, ...], span: Span) -> None:
        if sum(len(term.parts) for term in terms) > MOST_PARTS:
            raise AttnDslError(too_large(span, f"more than {MOST_PARTS} branches"))

    def _used(self, node: syn.Name | syn.Call, frame: Scope, bounds: Bounds) -> tuple[ir.Term, ...]:
        used, call = attention_used(frame.definition, node), call_of(node)
        assert used is not None, "branches were checked"
        given = self.elaborator.given(used, call, frame)
        return self.opened(used, given, Origin(node.span, frame), bounds, node.span)

    def _product(self, node: syn.Product, frame: Scope, bounds: Bounds) -> tuple[ir.Term, ...]:
        factor: ir.Node = reals.UNITY
        found: tuple[ir.Term, ...] = ()
        for operator, operand in zip(("*", *node.operators), node.operands, strict=True):
            if is_attention(frame.definition, operand):
                found = self.terms(operand, frame, bounds)
                continue
            value = reals.as_real(self.elaborator.node(operand, frame))
            self._check_query(value, "a factor of an attention", operand.span)
            if operator == "/" and value is reals.NOUGHT:
                self._add("A302", "division by zero", operand.span)
            else:
                made = reals.times if operator == "*" else reals.over
                factor = made(factor, value)
        return multiple(factor, found)

    def _joined(
        self, operands: tuple[syn.Expression, ...], frame: Scope, bounds: Bounds
    ) -> ir.Term:
        return joined((self.terms(each, frame, bounds), each.span) for each in operands)

    # ------------------------------------------------------------------ one branch

    def _scored(self, node: syn.Scored, frame: Scope, bounds: Bounds) -> ir.Term:
        inside = replace(frame, local={**frame.local, SCORE: reals.SCORE})
        bounds = bounds if node.over is None else (*bounds, (node.over, frame))
        score = self._real(node.score, inside)
        form, weight = self._weights(node.weights, inside)
        factor = None if node.factor is None else self._real(node.factor, inside)
        keys = "".join(by.name for by in node.by if by.number is None)
        numbers = [by.number for by in node.by if by.number is not None]
        member = (numbers[0], PAIRED) if numbers else None
        log_mass = None
        if node.mass is not None:
            mass = self._real(node.mass, frame)
            self._check_query(mass, "a mass", node.mass.span)
            log_mass = log_of_mass(mass, node.mass.span)
        mask = self._mask(bounds, frame.definition)
        part = ir.Scored(mask, score, form, weight, factor, keys, member)
        return ir.Term((part,), log_mass=log_mass)

    def _weights(
        self, weights: syn.Weights | None, inside: Scope
    ) -> tuple[ir.Form, ir.Node | None]:
        if weights is None:
            return ir.Form.SOFTMAX, None
        if weights.form == "sigmoid":
            return ir.Form.POINTWISE, reals.apply("sigmoid", reals.SCORE)
        expression = weights.expression
        weight = None if expression is None else self._real(expression, inside)
        return ir.Form(weights.form), weight

    def _real(self, node: syn.Expression, frame: Scope) -> ir.Node:
        return reals.as_real(self.elaborator.node(node, frame))

    def _mask(self, bounds: Bounds, definition: Definition) -> ir.Mask:
        """The pairs for which all bounds hold."""
        reader = Elaborator(
            self.elaborator.outer, self.elaborator.align, layer=self.elaborator.layer
        )
        root = ir.conj(*(reader.node(node, frame) for node, frame in bounds))
        counts = [self._zeros(reader, node, frame) for node, frame in bounds]
        zeros = counts[0] if counts else ir.ZERO
        if len(counts) > 1 and any(count is not ir.ZERO for count in counts):
            node = bounds[-1][0]
            title = "the zero keys of a pattern are lost among other conditions"
            raise AttnDslError([*reader.diagnostics, make_error("A215", title, node.span)])
        stop_if_any(reader.diagnostics)
        tables = tuple(reader.tables[name] for name in sorted(reader.tables))
        pair, align = reader.outer, reader.align
        mask = ir.Mask(
            root, pair.queries, pair.keys, tables, align, definition.name,
            definition.declaration.doc, zeros=zeros,
            conditions=tuple(reader.conditions.values()), places=tuple(reader.places.items()),
            selections=tuple(reader.selections.values()),
        )  # fmt: skip
        return mask.with_root(root)

    def _zeros(self, reader: Elaborator, node: syn.Expression, frame: Scope) -> ir.Node:
        used = plain_use(frame.definition, node, frame.local)
        if used is None or not isinstance(node, syn.Name | syn.Call):
            return ir.ZERO
        given = reader.given(used, call_of(node), frame)
        return reader.zeros(used, given, Origin(node.span, frame))

    # ------------------------------------------------------------------ the whole

    def tables(self, found: ir.Attention, span: Span) -> tuple[ir.Table, ...]:
        """The inputs that its real expressions read."""
        declared = self.elaborator.tables
        check_tables(found, dict(declared), span)
        expressions = (each for term in found.terms for each in term.expressions())
        return tuple(declared[name] for name in sorted(ir.tables_read(*expressions)))

    def with_conditions(self, found: ir.Attention) -> ir.Attention:
        """The attention with the conditions of its parameters, which the first mask over the call's own keys holds."""
        conditions = tuple(self.elaborator.conditions.values())
        if not conditions:
            return found
        parts = [part for term in found.terms for part in term.parts]
        part = next((each for each in parts if not each.keys), parts[0])
        named = {each.node for each in conditions}
        own = tuple(each for each in part.mask.conditions if each.node not in named)
        tables = {each.name: each for each in (*part.mask.tables, *self.elaborator.tables.values())}
        mask = replace(
            part.mask,
            tables=tuple(tables[name] for name in sorted(tables)),
            conditions=(*own, *conditions),
        )
        made = replace(part, mask=mask.with_root(mask.root))
        terms = tuple(
            replace(term, parts=tuple(made if each is part else each for each in term.parts))
            for term in found.terms
        )
        return replace(found, terms=terms)

    def _check_query(self, value: ir.Node, what: str, span: Span) -> None:
        try:
            check_query(value, what, span)
        except AttnDslError as error:  # other faults are told with it
            self.elaborator.diagnostics.extend(error.diagnostics)

    def _add(self, code: str, title: str, span: Span) -> None:
        self.elaborator.diagnostics.append(make_error(code, title, span))
