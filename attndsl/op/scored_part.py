"""A part of an attention with the tensors of a call, and the two primitives that run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from attndsl import ir, passes
from attndsl.backends import (
    DensePart,
    Request,
    ScoredExecutable,
    lse_dtype,
    query_values,
)
from attndsl.codegen import NoKernel, score_functions
from attndsl.op.attention import packed
from attndsl.op.checks import check_tensors
from attndsl.op.dense_scores import dense_parts
from attndsl.op.once import once, undirected, unmapped
from attndsl.op.planning import Options, Planner
from attndsl.op.real_inputs import check_widths, real_inputs
from attndsl.op.rows import Tokens, read_arguments, rows_with_tokens
from attndsl.op.scaling import scaled
from attndsl.positions import QUERIES, split_heads
from attndsl.scored import ScoredProgram
from attndsl.source import AttnDslError, Diagnostic

reals = ir.reals

_OF_QUERIES: Final = frozenset((QUERIES.start, QUERIES.length, QUERIES.outright))


@dataclass(frozen=True, slots=True, eq=False)
class ScoredCall:
    """The options of a call, beside its tensors, as `attention` takes them."""

    scale: float | Tensor | None = None
    backend: str = "auto"
    layout: str | None = None
    extents: Mapping[str, int] | None = None
    inputs: Mapping[str, Any] | None = None
    positions: Mapping[str, Any] | None = None
    keys: Mapping[str, tuple[Tensor, Tensor]] | None = None
    # Results of its one primitive, that are differentiated.
    known: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A part of a term with the tensors of its call, those of rows without a token left out."""

    scored: ScoredProgram
    planner: Planner
    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    tables: list[Tensor]  # int and bool inputs, as ``options`` names them
    options: Options
    reals: Mapping[str, Tensor]
    tokens: Tokens | None
    known: tuple[Tensor, Tensor] | None = None

    @staticmethod
    def of(
        scored: ScoredProgram, planner: Planner, q: Tensor, k: Tensor, v: Tensor, call: ScoredCall
    ) -> Part:
        part, program = scored.part, scored.program
        told = call.positions
        if part.keys:
            k, v = _foreign(part, call, q.shape[2])
            told = {name: x for name, x in (told or {}).items() if name in _OF_QUERIES}
        if part.member is not None:
            if split_heads(call.extents)[0] is not None:
                title = "heads that go in pairs are called whole: `heads` and `head_start` are not taken"
                raise AttnDslError(Diagnostic("A402", title))
            q, k = _member(part.member, q, k, v)
        check_tensors(program, q, k, v)
        given, tokens = dict(call.inputs or {}), None
        names = {table.name for table in (*program.mask.tables, *scored.reals)}
        given = {name: value for name, value in given.items() if name in names}
        extents, scale = call.extents, call.scale
        if told:
            at = read_arguments(told, q)
            tokens = rows_with_tokens(scored.whole, (q, k, v), scale, extents, given, at)
            q, k, v, scale = tokens.q, tokens.k, tokens.v, tokens.scale
            extents, given = tokens.extents, dict(tokens.inputs)
        among, _ = split_heads(extents)
        real = real_inputs(scored.reals, given, q, k.shape[2], among)
        check_widths(scored.products, scored.reals, real, q.shape[3])
        rest = {name: value for name, value in given.items() if name not in real}
        (q, k, v), factor = scaled(program, q, k, v, scale)
        tables, options = packed(q, rest, extents, call.layout, call.backend, factor)
        return Part(scored, planner, q, k, v, factor, tables, options, real, tokens, call.known)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of its real inputs, without batch and head."""
        return {
            table.name: tuple(
                self.reals[table.name].shape[len(table.dims) - len(table.indexed_dims) :]
            )
            for table in self.scored.reals
        }

    def dense(self) -> list[tuple[DensePart, dict[str, Tensor]]]:
        """The part as the oracle takes it."""
        given = self.tables, self.options, self.reals, self.shapes()
        return dense_parts(self.scored, (self.q, self.k, self.v), *given)

    def run(
        self,
        weight: ir.Node | None,
        v: Tensor | None = None,
        level: Tensor | None = None,
        column: Tensor | None = None,
        factor: ir.Node | None = None,
        score: ir.Node | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One of the primitives, in the wide dtype: the softmax of the scores, times a factor, or ``weight`` of each.

        ``score``: what is in the place of the score of the part.
        ``level`` [B, H, Q] and ``column`` [B, H, K] are the numbers that ``weight`` reads beside the inputs.
        """
        v = self.v if v is None else v
        found, given = self.executable(weight, v, level, column, factor, score)
        if not torch.is_grad_enabled():
            out, lse = found.forward(self.q, self.k, v, given, scale=self.scale)
        else:
            out, lse = Scored.apply(found, self.scale, self.known, self.q, self.k, v, *given)  # type: ignore[no-untyped-call]
        return out.to(lse.dtype), lse

    def executable(
        self,
        weight: ir.Node | None,
        v: Tensor,
        level: Tensor | None = None,
        column: Tensor | None = None,
        factor: ir.Node | None = None,
        score: ir.Node | None = None,
        gradient: bool = False,
    ) -> tuple[ScoredExecutable, list[Tensor]]:
        """How a primitive runs, and the real tables it takes; ``gradient``: backwards, too, whoever asks for them."""
        own = [
            (table, x)
            for table, x in ((passes.LEVEL, level), (passes.COLUMN, column))
            if x is not None
        ]
        declared = (*self.scored.reals, *(table for table, _ in own))
        tables = [*self.reals.values(), *(x for _, x in own)]
        tensors = self.q, self.k, v, *self.reals.values()
        gradient |= torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
        request = Request.of(self.q, self.k, v, gradient=gradient)
        given = self.scored, request, self.tables, self.options, self.shapes()
        expressions = score if score is not None else self.scored.part.score, weight, factor
        return self.planner.scored(*given, expressions, declared), tables

    @property
    def takes_factor(self) -> bool:
        """Whether the softmax itself takes the factor of the part: on CPUs, where no gradient and no score is in it."""
        factor = self.scored.part.factor
        if factor is None:
            return True
        is_free = not reals.reads_score(factor) and not reals.real_reads(factor)
        return is_free and self.q.device.type == "cpu" and self.options.backend != "triton"

    def of_queries(self, root: ir.Node) -> Tensor:
        """An expression that depends on no key, [B, H, Q]."""
        q = self.q
        if isinstance(root, reals.Number):
            return q.new_full(q.shape[:3], root.value, dtype=lse_dtype(q.dtype))
        request = Request.of(self.q, self.k, self.v, gradient=False)
        bound = self.planner.scored_bound(
            self.scored, request, self.tables, self.options, self.shapes(), root
        )
        return query_values(bound, q, self.reals).expand(q.shape[:3])

    def functions(self) -> str:
        """The device functions that GPUs run on its scores, and on what weights without a normaliser make of them.

        Raises:
            AttnDslError: A520, some part of them has no kernel.
        """
        part, request = self.scored.part, Request.of(self.q, self.k, self.v, gradient=True)
        root = part.score
        if part.weight is not None:
            root = ir.substitute(part.weight, {reals.SCORE: root})
        given = self.scored, request, self.tables, self.options, self.shapes()
        bound = self.planner.scored_bound(*given, root)
        try:
            return score_functions(bound.score, ir.Const(bound.first)).text
        except NoKernel as reason:
            raise AttnDslError(Diagnostic("A520", f"GPUs have no kernel: {reason}")) from None

    def column(self) -> ir.Node:
        """Expression of the number of a key that ``run`` is given."""
        return passes.column()

    def level(self) -> ir.Node:
        """Expression of the number of a query that ``run`` is given."""
        return passes.level(self.scored.program.mask)


def _foreign(part: ir.Scored, call: ScoredCall, q_len: int) -> tuple[Tensor, Tensor]:
    """Keys and values from elsewhere, all of which exist.

    Positions of queries are those among the call's own keys, so that nothing over other keys may read them.
    """
    name, roots = part.keys, (part.mask.root, part.mask.zeros, *part.expressions())
    nodes = (node for root in roots for node in ir.postorder(root))
    is_placed = any(
        isinstance(node, ir.Pos | ir.Coord) and node.side is ir.Side.QUERY for node in nodes
    )
    if call.positions and is_placed:
        title = f"positions of tokens are not taken beside keys from {name!r}"
        notes = ("what is done with those depends on where a query stands among them",)
        raise AttnDslError(Diagnostic("A413", title, notes=notes))
    found = (call.keys or {}).get(name)
    if found is None:
        title = f"the attention takes keys and values from {name!r}: {name}=(k, v)"
        raise AttnDslError(Diagnostic("A501", title))
    k_len = found[0].shape[2]
    if is_placed and part.mask.shift(q_len, k_len) < 0:
        title = f"{name!r} has {k_len} keys, too few for {q_len} queries that end where they do"
        notes = (f"the first {q_len - k_len} would stand before its first key, and see nothing",)
        helps = ("with `align start` in the attention, query i is at position i",)
        raise AttnDslError(Diagnostic("A402", title, notes=notes, helps=helps))
    return found


def _member(member: tuple[int, int], q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    place, count = member
    if q.dim() == k.dim() == v.dim() == 4 and (q.shape[1] % count or k.shape[1] % count):
        title = f"heads come in groups of {count} here: q has {q.shape[1]}, k has {k.shape[1]}"
        raise AttnDslError(Diagnostic("A502", title))
    return q[:, place::count], k[:, place::count]


class Scored(torch.autograd.Function):
    """A primitive and its derivative."""

    @staticmethod
    def forward(
        found: ScoredExecutable,
        scale: float,
        known: tuple[Tensor, Tensor] | None,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *tables: Tensor,
    ) -> tuple[Tensor, Tensor]:
        if known is not None:
            return known[0].detach(), known[1].detach()
        return found.forward(q, k, v, tables, scale=scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        found, scale, _known, q, k, v, *tables = inputs
        out, lse = output
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(q, k, v, out, lse, *tables)
        ctx.found, ctx.scale = found, scale
        if found.adds:
            ctx.mark_non_differentiable(lse)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        raise unmapped()

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise undirected()

    @staticmethod
    def backward(ctx: Any, dout: Tensor | None, dlse: Tensor | None) -> tuple[Any, ...]:
        q, k, v, out, lse, *tables = ctx.saved_tensors
        if dout is None and dlse is None:
            return (None,) * (6 + len(tables))
        dense = torch.zeros_like(out) if dout is None else dout

        def compute() -> tuple[Tensor, ...]:
            given = q, k, v, tables, out, lse, dense, dlse
            dq, dk, dv, dtables = ctx.found.backward(*given, scale=ctx.scale)
            return dq, dk, dv, *dtables

        return None, None, None, *once(compute, (q, k, v, *tables, dense, dlse))
