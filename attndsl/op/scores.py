"""Attentions: terms, each a coefficient times a form, added up."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from attndsl import ir, passes
from attndsl.backends import lse_dtype
from attndsl.op.attention import autocast
from attndsl.op.checks import check_plain
from attndsl.op.dense_scores import attend_densely
from attndsl.op.dispatching import eager_only
from attndsl.op.foreign import check_layout
from attndsl.op.packed_scores import attend_packed
from attndsl.op.pages import paged
from attndsl.op.planning import Planner, planner_of
from attndsl.op.score_forms import FORMS
from attndsl.op.scored_part import Part, ScoredCall
from attndsl.positions import BLOCK_TABLE, BOUNDS
from attndsl.scored import ScoredProgram
from attndsl.source import AttnDslError, Diagnostic

reals = ir.reals

_HALVES: Final = (torch.float16, torch.bfloat16)  # what a CPU computes in float32 anyway


@dataclass(frozen=True, eq=False)
class TermProgram:
    """A term and its parts, ready to be bound to calls."""

    term: ir.Term
    parts: tuple[ScoredProgram, ...]
    planners: tuple[Planner, ...]

    @staticmethod
    def of(term: ir.Term, tables: tuple[ir.Table, ...], layer: int) -> TermProgram:
        """Prepares a term of an attention that has these inputs.

        Raises:
            AttnDslError: A217, zero keys beside weights that they are no part of.
        """
        term = passes.with_zero_keys(term)
        others = [term.coefficient, *([] if term.log_mass is None else [term.log_mass])]
        parts = tuple(
            ScoredProgram.of(part, tables, tuple(others) if not place else (), layer)
            for place, part in enumerate(term.parts)
        )
        return TermProgram(term, parts, tuple(planner_of(part.program) for part in parts))

    def alone(self, most: int | None = None) -> TermProgram:
        """The term with planners that remember calls of their own, ``most`` at most."""
        return replace(self, planners=tuple(each.alone(most) for each in self.planners))


@eager_only
def attend(
    terms: Sequence[TermProgram],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    call: ScoredCall,
    *,
    with_lse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Computes an attention: out [B, H, Q, Dv] and, of its first term, lse [B, H, Q].

    Raises:
        AttnDslError: A4xx for lengths and positions, A5xx for tensors, inputs and back ends; A502 where ``with_lse`` of
            a sum of several softmaxes.
    """
    check_lse(terms, with_lse=with_lse)
    program = terms[0].parts[0].program
    check_plain(program, q, k, v)
    if call.backend == "reference":
        check_layout(call.backend, call.layout)
    q, k, v = autocast(q, k, v)
    if call.positions and BOUNDS[0] in call.positions:
        programs = [part for term in terms for part in term.parts]
        tables = {table.name: table for each in programs for table in each.whole.mask.tables}
        alone = functools.partial(attend, terms)
        scored = [each.part for each in programs]
        return attend_packed(scored, [*tables.values()], (q, k, v), call, alone)
    dtype = v.dtype
    if q.device.type == "cpu" and not _is_one_pass(terms):
        q, k, v, call = _widened(q, k, v, call)
    parts = parts_of(terms, q, k, v, call)
    outs, lses = zip(
        *(_term(term.term, own, call.backend) for term, own in zip(terms, parts, strict=True)),
        strict=True,
    )
    out, lse = functools.reduce(torch.add, outs), lses[0]
    out, lse = restored(parts, out, lse)
    return out.to(dtype), lse


def parts_of(
    terms: Sequence[TermProgram], q: Tensor, k: Tensor, v: Tensor, call: ScoredCall
) -> list[list[Part]]:
    """The parts of each term with the tensors of a call."""
    if call.positions and BLOCK_TABLE in call.positions:
        k, v, positions, _ = paged(None, (q, k, v), call.positions, by_address=False)
        call = replace(call, positions=positions)
    return [
        [
            Part.of(scored, planner, q, k, v, call)
            for scored, planner in zip(term.parts, term.planners, strict=True)
        ]
        for term in terms
    ]


def restored(parts: Sequence[Sequence[Part]], out: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """The results of all rows of a call: 0, and -inf, where there is no token."""
    every = [part for own in parts for part in own]
    tokens = next((part.tokens for part in every if not part.scored.part.keys), every[0].tokens)
    return (out, level) if tokens is None else tokens.restored(out, level)


def device_functions(
    terms: Sequence[TermProgram], q: Tensor, k: Tensor, v: Tensor, call: ScoredCall
) -> str:
    """Writes the functions that GPUs run on the scores of such a call, those of each part with its name above."""
    found = []
    for number, term in enumerate(terms, 1):
        for place, (scored, planner) in enumerate(zip(term.parts, term.planners, strict=True), 1):
            made = Part.of(scored, planner, q, k, v, call).functions()
            found.append(f"# term {number}, part {place}\n\n{made}")
    return "\n\n".join(found)


def _widened(
    q: Tensor, k: Tensor, v: Tensor, call: ScoredCall
) -> tuple[Tensor, Tensor, Tensor, ScoredCall]:
    """Tensors of half precision in the dtype that they are computed with; others, also where they differ, as is."""
    given = (call.keys or {}).items()
    if any(
        x.dtype != q.dtype or q.dtype not in _HALVES
        for x in (k, v, *sum((y for _, y in given), ()))
    ):
        return q, k, v, call
    wide = lse_dtype(q.dtype)
    keys = {name: (x.to(wide), y.to(wide)) for name, (x, y) in given}
    return q.to(wide), k.to(wide), v.to(wide), replace(call, keys=keys)


def has_lse(terms: Sequence[ir.Term]) -> bool:
    """Whether the attention is one softmax, or weights of one form, whose log-sum-exp is that of the whole."""
    return len(terms) == 1 and terms[0].coefficient is reals.UNITY


def check_lse(terms: Sequence[TermProgram], *, with_lse: bool) -> None:
    """Refuses to give a log-sum-exp that there is not.

    Raises:
        AttnDslError: A502.
    """
    if with_lse and not has_lse([term.term for term in terms]):
        title = "a sum of several softmaxes has no log-sum-exp of its own"
        raise AttnDslError(Diagnostic("A502", title))


def _is_one_pass(terms: Sequence[TermProgram]) -> bool:
    """Whether one primitive gives all of it: gradients of several are added, in the dtype of the tensors."""
    (first, *rest) = terms[0].term.parts
    is_plain = (
        first.form in (ir.Form.SOFTMAX, ir.Form.POINTWISE, ir.Form.STICK) and first.factor is None
    )
    return len(terms) == 1 and not rest and is_plain


def is_one_primitive(terms: Sequence[TermProgram]) -> bool:
    """Whether out and lse of a call without positions are, as they stand, those of one primitive."""
    term = terms[0].term
    return _is_one_pass(terms) and has_lse([term]) and term.log_mass is None


def _term(term: ir.Term, parts: Sequence[Part], backend: str) -> tuple[Tensor, Tensor]:
    """A term in the wide dtype, for the rows that hold tokens."""
    if backend == "reference":
        return attend_densely(term, [part.dense() for part in parts], parts[0].scale)
    out, lse = FORMS[term.parts[0].form](term, parts)
    if term.coefficient is not reals.UNITY:
        out = out * parts[0].of_queries(term.coefficient)[..., None]
    return out, lse
