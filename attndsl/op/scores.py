"""Attentions composed of two primitives, the softmax of scores and weights without a normaliser.

    softmax, factor c      exp(t - L) c                 L is the log-sum-exp of a softmax with all mass in it
    l1                     sum w v / sum w
    entmax                 max(t / 2 - tau, 0)^2        tau solves sum = 1, and is differentiated implicitly
    a ++ b                 merged by log-sum-exp
    mass m                 one more part of value 0 and log-sum-exp log(m)
    c a + d b              as it stands

Autograd differentiates the composition; the primitives have backwards of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends import (
    DensePart,
    Request,
    ScoredExecutable,
    attend_scored,
    lse_dtype,
)
from attndsl.op.attention import autocast, packed
from attndsl.op.checks import check_plain, check_tensors
from attndsl.op.merging import merge
from attndsl.op.planning import Options, Planner, planner_of
from attndsl.op.query_values import query_values
from attndsl.op.real_inputs import real_inputs
from attndsl.op.rows import Tokens, read_arguments, rows_with_tokens
from attndsl.op.scaling import scaled
from attndsl.positions import split_heads
from attndsl.scored import ScoredProgram
from attndsl.source import AttnDslError, Diagnostic

reals = ir.reals

LEVEL: Final = "<lse>"  # the name of a real table of our own: a number of each query
_STEPS: Final = 24  # Newton steps for a threshold; float64 is exact after some six


@dataclass(frozen=True, eq=False)
class TermProgram:
    """A term and its parts, ready to be bound to calls."""

    term: ir.Term
    parts: tuple[ScoredProgram, ...]
    planners: tuple[Planner, ...]

    @staticmethod
    def of(term: ir.Term, tables: tuple[ir.Table, ...], layer: int) -> TermProgram:
        """Prepares a term of an attention that has these inputs."""
        others = [term.coefficient, *([] if term.log_mass is None else [term.log_mass])]
        parts = tuple(
            ScoredProgram.of(part, tables, tuple(others) if not place else (), layer)
            for place, part in enumerate(term.parts)
        )
        return TermProgram(term, parts, tuple(planner_of(part.program) for part in parts))


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


def attend(
    terms: Sequence[TermProgram], q: Tensor, k: Tensor, v: Tensor, call: ScoredCall
) -> tuple[Tensor, Tensor]:
    """Computes an attention: out [B, H, Q, Dv] and, of its first term, lse [B, H, Q].

    Raises:
        AttnDslError: A4xx for lengths and positions, A5xx for tensors, inputs and back ends.
    """
    program = terms[0].parts[0].program
    check_plain(program, q, k, v)
    q, k, v = autocast(q, k, v)
    outs, lses = zip(*(_term(term, q, k, v, call) for term in terms), strict=True)
    out = outs[0]
    for more in outs[1:]:
        out = out + more
    return out.to(v.dtype), lses[0]


def _term(
    term: TermProgram, q: Tensor, k: Tensor, v: Tensor, call: ScoredCall
) -> tuple[Tensor, Tensor]:
    """A term in the wide dtype."""
    parts = [
        _Part.of(scored, planner, q, k, v, call)
        for scored, planner in zip(term.parts, term.planners, strict=True)
    ]
    if call.backend == "reference":
        out, lse = _dense(term.term, parts)
    else:
        out, lse = _FORMS[term.term.parts[0].form](term.term, parts)
        coefficient = parts[0].of_queries(term.term.coefficient)
        if term.term.coefficient is not reals.UNITY:
            out = out * coefficient[..., None]
    return parts[0].tokens.restored(out, lse) if parts[0].tokens else (out, lse)


# ---------------------------------------------------------------------------- parts


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
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

    @staticmethod
    def of(
        scored: ScoredProgram, planner: Planner, q: Tensor, k: Tensor, v: Tensor, call: ScoredCall
    ) -> _Part:
        part, program = scored.part, scored.program
        if part.keys:
            k, v = _foreign(part.keys, call)
        if part.member is not None:
            q, k = _member(part.member, q, k, v)
        check_tensors(program, q, k, v)
        given, tokens = dict(call.inputs or {}), None
        names = {table.name for table in (*program.mask.tables, *scored.reals)}
        given = {name: value for name, value in given.items() if name in names}
        extents, scale = call.extents, call.scale
        if call.positions and not part.keys:
            at = read_arguments(call.positions, q)
            tokens = rows_with_tokens(scored.whole, (q, k, v), scale, extents, given, at)
            q, k, v, scale = tokens.q, tokens.k, tokens.v, tokens.scale
            extents, given = tokens.extents, dict(tokens.inputs)
        among, _ = split_heads(extents)
        real = real_inputs(scored.reals, given, q, k.shape[2], among)
        rest = {name: value for name, value in given.items() if name not in real}
        (q, k, v), factor = scaled(program, q, k, v, scale)
        tables, options = packed(q, rest, extents, call.layout, call.backend, factor)
        return _Part(scored, planner, q, k, v, factor, tables, options, real, tokens)

    @property
    def mask_name(self) -> str:
        """The name of its pattern."""
        return self.scored.program.mask.name

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of its real inputs, without batch and head."""
        return {
            table.name: tuple(
                self.reals[table.name].shape[len(table.dims) - len(table.indexed_dims) :]
            )
            for table in self.scored.reals
        }

    def run(
        self,
        weight: ir.Node | None,
        v: Tensor | None = None,
        level: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One of the primitives, in the wide dtype: the softmax of the scores, or ``weight`` of each.

        ``level`` [B, H, Q] is what ``weight`` reads as the number of a query.
        """
        v = self.v if v is None else v
        tables, declared = dict(self.reals), self.scored.reals
        if level is not None:
            tables[LEVEL] = level
            declared = (*declared, ir.Table(LEVEL, ir.Sort.REAL, ("batch", "head", "q")))
        found = self._executable(weight, declared, v)
        given = [tables[table.name] for table in declared]
        if not torch.is_grad_enabled():
            out, lse = found.forward(self.q, self.k, v, given, scale=self.scale)
        else:
            out, lse = _Scored.apply(found, self.scale, self.q, self.k, v, *given)  # type: ignore[no-untyped-call]
        return out.to(lse.dtype), lse

    def _executable(
        self, weight: ir.Node | None, declared: tuple[ir.Table, ...], v: Tensor
    ) -> ScoredExecutable:
        tensors = self.q, self.k, v, *self.reals.values()
        gradient = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
        request = Request.of(self.q, self.k, v, gradient=gradient)
        given = self.scored, request, self.tables, self.options, self.shapes()
        return self.planner.scored(*given, weight, declared)

    def of_queries(self, root: ir.Node) -> Tensor:
        """An expression that depends on no key, [B, H, Q]."""
        q = self.q[..., : self.q.shape[3]]
        if isinstance(root, reals.Number):
            shape = q.shape[:3]
            return q.new_full(shape, root.value, dtype=lse_dtype(q.dtype))
        request = Request.of(self.q, self.k, self.v, gradient=False)
        bound = self.planner.scored_bound(
            self.scored, request, self.tables, self.options, self.shapes(), root
        )
        return query_values(bound, q, self.reals).expand(q.shape[:3])

    def level(self) -> ir.Node:
        """The number of a query that ``run`` is given."""
        first = ir.sub(ir.Size("k"), ir.Size("q"))
        if self.scored.program.mask.align is ir.Align.START:
            first = ir.Const(0)
        row = ir.sub(ir.Pos(ir.Side.QUERY), first)
        return ir.Load(LEVEL, ir.Sort.REAL, (row,), ir.Deps.BATCH | ir.Deps.HEAD)


def _foreign(name: str, call: ScoredCall) -> tuple[Tensor, Tensor]:
    found = (call.keys or {}).get(name)
    if found is None:
        title = f"the attention takes keys and values from {name!r}: {name}=(k, v)"
        raise AttnDslError(Diagnostic("A501", title))
    return found


def _member(member: tuple[int, int], q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    place, count = member
    if q.dim() == k.dim() == v.dim() == 4 and (q.shape[1] % count or k.shape[1] % count):
        title = f"heads come in groups of {count} here: q has {q.shape[1]}, k has {k.shape[1]}"
        raise AttnDslError(Diagnostic("A502", title))
    return q[:, place::count], k[:, place::count]


class _Scored(torch.autograd.Function):
    """A primitive and its derivative."""

    @staticmethod
    def forward(
        ctx: Any,
        found: ScoredExecutable,
        scale: float,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *tables: Tensor,
    ) -> tuple[Tensor, Tensor]:
        out, lse = found.forward(q, k, v, tables, scale=scale)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(q, k, v, out, lse, *tables)
        ctx.found, ctx.scale = found, scale
        if found.adds:
            ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dout: Tensor | None, dlse: Tensor | None) -> tuple[Any, ...]:
        q, k, v, out, lse, *tables = ctx.saved_tensors
        if dout is None and dlse is None:
            return (None,) * (5 + len(tables))
        dense = torch.zeros_like(out) if dout is None else dout
        dq, dk, dv, dtables = ctx.found.backward(
            q, k, v, tables, out, lse, dense, dlse, scale=ctx.scale
        )
        return None, None, dq, dk, dv, *dtables


# ---------------------------------------------------------------------------- forms


def _softmax(term: ir.Term, parts: Sequence[_Part]) -> tuple[Tensor, Tensor]:
    outs, lses = map(list, zip(*(part.run(None) for part in parts), strict=True))
    if term.log_mass is not None:
        outs.append(torch.zeros_like(outs[0]))
        lses.append(parts[0].of_queries(term.log_mass))
    out, lse = merge(outs, lses) if len(outs) > 1 else (outs[0], lses[0])
    if any(part.factor is not None for part in term.parts):
        out = _weighed(term, parts, lse)
    return out, lse


def _weighed(term: ir.Term, parts: Sequence[_Part], lse: Tensor) -> Tensor:
    """The weights of a softmax times factors, with the values."""
    total: Tensor | None = None
    for scored, part in zip(term.parts, parts, strict=True):
        weight = reals.apply("exp", reals.minus(reals.SCORE, part.level()))
        out, _ = part.run(_with_factor(scored, weight), level=lse)
        total = out if total is None else total + out
    assert total is not None, "a term has parts"
    return total


def _with_factor(part: ir.Scored, weight: ir.Node) -> ir.Node:
    """The weight times the factor, in which the score is that of the pair."""
    return weight if part.factor is None else reals.times(weight, part.factor)


def _pointwise(term: ir.Term, parts: Sequence[_Part]) -> tuple[Tensor, Tensor]:
    (scored,), (part,) = term.parts, parts
    assert scored.weight is not None, "the front end demands it"
    return part.run(_with_factor(scored, scored.weight))


def _l1(term: ir.Term, parts: Sequence[_Part]) -> tuple[Tensor, Tensor]:
    (scored,), (part,) = term.parts, parts
    assert scored.weight is not None, "the front end demands it"
    ones = part.v.new_ones((*part.v.shape[:3], 1))
    if scored.factor is None:
        both, lse = part.run(scored.weight, torch.cat((part.v, ones), -1))
        out, whole = both[..., :-1], both[..., -1]
    else:
        whole = part.run(scored.weight, ones)[0][..., 0]
        out, lse = part.run(_with_factor(scored, scored.weight))
    if term.log_mass is not None:
        whole = whole + part.of_queries(term.log_mass).exp()
    return out / whole.masked_fill(whole == 0, 1.0)[..., None], lse


def _entmax(term: ir.Term, parts: Sequence[_Part]) -> tuple[Tensor, Tensor]:
    (scored,), (part,) = term.parts, parts
    above = reals.apply("relu", reals.minus(reals.times(reals.HALF, reals.SCORE), part.level()))
    tau = _Threshold.apply(part, above, part.q, part.k, *part.reals.values())  # type: ignore[no-untyped-call]
    return part.run(_with_factor(scored, reals.times(above, above)), level=tau)


class _Threshold(torch.autograd.Function):
    """The tau of each query at which the squares of ``above`` sum to one, and its implicit derivative.

    By F(t, tau) = 1: d tau = sum(r dt / 2) / sum(r), r = max(t / 2 - tau, 0); so its gradient is that of the sum of
    squares, divided by 2 sum(r).
    """

    @staticmethod
    def forward(
        ctx: Any, part: _Part, above: ir.Node, q: Tensor, k: Tensor, *tables: Tensor
    ) -> Tensor:
        ctx.part, ctx.above = part, above
        tau = _threshold(part, above)
        ctx.save_for_backward(tau)
        return tau

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dtau: Tensor) -> tuple[Any, ...]:
        part, above, (tau,) = ctx.part, ctx.above, ctx.saved_tensors
        leaves = [x.detach().requires_grad_() for x in (part.q, part.k, *part.reals.values())]
        real = dict(zip(part.reals, leaves[2:], strict=True))
        apart = replace(part, q=leaves[0], k=leaves[1], reals=real)
        ones = part.v.new_ones((*part.v.shape[:3], 1))
        with torch.enable_grad():
            squares, _ = apart.run(reals.times(above, above), ones, level=tau)
        with torch.no_grad():
            whole = part.run(above, ones, level=tau)[0][..., 0]
            share = dtau / (2 * whole).masked_fill(whole == 0, 1.0)
        grads = torch.autograd.grad(squares, leaves, share[..., None], allow_unused=True)
        return None, None, *grads


@torch.no_grad()
def _threshold(part: _Part, above: ir.Node) -> Tensor:
    """Newton's method on the square root of the sum of squares, which is convex, from below."""
    half = replace(part, scored=_halved(part.scored))
    ones = part.v.new_ones((*part.v.shape[:3], 1))
    count = part.run(reals.UNITY, ones)[0][..., 0].clamp(min=1.0)
    lse = half.run(None)[1]
    keyless = lse == -math.inf
    tau = (lse - count.log() - 1.0).masked_fill(keyless, 0.0)
    square = reals.times(above, above)
    for _ in range(_STEPS):
        root = part.run(square, ones, level=tau)[0][..., 0].sqrt()
        slope = part.run(above, ones, level=tau)[0][..., 0]
        step = ((root - 1) * root / slope.masked_fill(slope == 0, 1.0)).masked_fill(keyless, 0.0)
        tau = tau + step
        if float(step.abs().amax() if step.numel() else 0.0) <= torch.finfo(tau.dtype).eps:
            break
    return tau


def _halved(scored: ScoredProgram) -> ScoredProgram:
    part = replace(scored.part, score=reals.times(reals.HALF, scored.part.score))
    return replace(scored, part=part)


def _refused(term: ir.Term, parts: Sequence[_Part]) -> tuple[Tensor, Tensor]:
    title = f"no back end has kernels for the weights `{term.parts[0].form}` yet"
    raise AttnDslError(Diagnostic("A520", title, helps=('backend="reference" has',)))


_FORMS: Final = {
    ir.Form.SOFTMAX: _softmax,
    ir.Form.POINTWISE: _pointwise,
    ir.Form.L1: _l1,
    ir.Form.ENTMAX: _entmax,
    ir.Form.STICK: _refused,
    ir.Form.COLUMNS: _refused,
}


# ---------------------------------------------------------------------------- the oracle


def _dense(term: ir.Term, parts: Sequence[_Part]) -> tuple[Tensor, Tensor]:
    """All pairs, differentiated by autograd."""
    made = [_dense_part(part) for part in parts]
    tables = {name: x for part in parts for name, x in part.reals.items()}
    out, lse = attend_scored(term, made, tables, parts[0].scale)
    return out.to(lse.dtype), lse


def _dense_part(part: _Part) -> DensePart:
    program, q = part.scored.program, part.q
    given = dict(zip(part.options.names, part.tables, strict=True))
    extents = dict(zip(part.options.axes, part.options.extents, strict=True))
    batch, heads, q_len = q.shape[:3]
    call = program.call(q_len, part.k.shape[2], batch, heads, extents, given)
    if call.positions is not None:
        title = 'backend="reference" takes no positions for attentions with scores'
        raise AttnDslError(Diagnostic("A413", title))
    mask = torch.from_numpy(program.dense(call)).to(q.device)
    model = heads if call.model_heads is None else call.model_heads
    env = ir.Env(
        q=torch.arange(q_len).numpy() + program.mask.shift(q_len, part.k.shape[2]),
        k=torch.arange(part.k.shape[2]).numpy(),
        sizes=part.scored.sizes(call, part.shapes()),
        tables=call.tables,
        batch=torch.arange(batch).numpy(),
        head=torch.arange(heads).numpy(),
        heads=model,
        layer=call.layer,
        queries=program.mask.queries,
        keys=program.mask.keys,
    )
    return DensePart(
        part.scored.part, mask.expand(batch, heads, *mask.shape[2:]), env, q, part.k, part.v
    )
