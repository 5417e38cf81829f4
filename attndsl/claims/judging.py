"""Is a claim true? Proved for all lengths where possible, else tried on every small call."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np

from attndsl import analysis, ir, views
from attndsl.analysis import Fact
from attndsl.claims.examples import MOST_STEPS, BoolArray, Ranges, call_at, calls, dense, steps
from attndsl.passes import normalise
from attndsl.schedule import Call, plan
from attndsl.source import AttnDslError

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

MOST_PAIRS = 1 << 21  # that are looked at for one claim
MOST_CALLS = 300
LONGEST = 64
_PROOF = 500  # steps that the proof of one claim takes, about

_COMPARE: dict[ir.Comparison, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "==": operator.eq, "!=": operator.ne,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A call on which a claim fails, and where: what is None has no part in it."""

    call: Call
    batch: int | None = None
    head: int | None = None
    query: int | None = None
    key: int | None = None
    finding: str = ""

    def __str__(self) -> str:
        call = self.call
        lengths = (
            f"len(q) = len(k) = {call.k_len}"
            if call.q_len == call.k_len
            else f"len(q) = {call.q_len}, len(k) = {call.k_len}"
        )
        extents = [f"len({n}) = {size}" for n, size in sorted(call.sizes.items()) if "." in n]
        where = [lengths, *extents]
        where += [f"heads = {call.heads}"] * (call.heads > 1)
        where += [f"layer = {call.layer}"] * (call.layer > 0)
        for name in ("batch", "head", "query", "key"):
            if (index := getattr(self, name)) is not None:
                where.append(f"{name} {index}")
        inputs = [f"{n} = {np.asarray(t).tolist()}" for n, t in sorted(call.tables.items())]
        return "; ".join(filter(None, [", ".join(where), self.finding, *inputs]))


@dataclass(frozen=True, slots=True)
class Judgement:
    """Outcome of checking a claim.

    Attributes:
        claim: The claim.
        fact: PROVED for all lengths (of a density: at its length), REFUTED, or UNDECIDED.
        longest: Every call of up to so many tokens was tried, as far as Counterexample.call can say:
            up to four heads, axes of one name equally long, random inputs.
        calls: How many of them the claim speaks of.
        example: Where the claim fails.
        note: Why it could not be judged, if so.
    """

    claim: ir.Claim
    fact: Fact
    longest: int = 0
    calls: int = 0
    example: Counterexample | None = None
    note: str = ""

    @property
    def ok(self) -> bool:
        """Proved, or tried and not refuted."""
        return self.fact is Fact.PROVED or (self.fact is Fact.UNDECIDED and self.calls > 0)

    def __str__(self) -> str:
        if self.fact is Fact.REFUTED:
            return f"{self.fact}: {self.claim.text}\n    {self.example}"
        if self.fact is Fact.PROVED:
            return f"{self.fact}: {self.claim.text}"
        if self.note:
            return f"{self.fact}: {self.claim.text} ({self.note})"
        tried = f"true of all {self.calls} calls of up to {self.longest} tokens"
        drawn = ", random inputs" if self.claim.tables else ""
        return f"checked: {self.claim.text} ({tried}{drawn})"


def judge(mask: ir.Mask, layer: int | None = None) -> tuple[Judgement, ...]:
    """Judge the claims of a mask.

    Args:
        mask: As the front end made it, with its claims.
        layer: The value of ``layer``; all of the first few by default.

    Returns:
        One judgement a claim, in order. Equal masks get equal judgements.
    """
    budget = Budget()
    return tuple([judge_claim(mask, claim, layer, budget) for claim in mask.claims])


@dataclass(slots=True)
class Budget:
    """Steps left for the claims of one pattern, see `steps`."""

    left: int = 2 * MOST_STEPS

    def spend(self, count: int) -> bool:
        """Whether so many steps more are allowed; they are taken."""
        self.left -= count
        return self.left >= 0


def judge_claim(
    mask: ir.Mask, claim: ir.Claim, layer: int | None = None, budget: Budget | None = None
) -> Judgement:
    """Judge one claim of a mask, see `judge`; with no more than that budget."""
    full, budget = replace(mask, tables=claim.tables), budget or Budget()
    if not budget.spend(_PROOF):
        return Judgement(claim, Fact.UNDECIDED, note="the claims before it took too much work")
    if isinstance(claim.what, ir.Density):
        return _density(full, claim, claim.what)
    if _is_proved(full, claim):
        return Judgement(claim, Fact.PROVED)
    return _tried(full, claim, layer, budget)


def judge_at(mask: ir.Mask, call: Call) -> tuple[Judgement, ...]:
    """Outcome of each claim at one call: proved, refuted, or undecided where it does not speak of the call.

    Claims speak of no more queries than keys, and a density of one length, see `judge`.
    """
    return tuple(_judged_at(mask, claim, call) for claim in mask.claims)


def _judged_at(mask: ir.Mask, claim: ir.Claim, call: Call) -> Judgement:
    unknown = [table.name for table in claim.tables if table.name not in call.tables]
    if unknown:
        return Judgement(claim, Fact.UNDECIDED, note=f"the call has no input {unknown[0]}")
    speaks, example = False, None
    if call.q_len <= call.k_len:
        speaks, example = _try(replace(mask, tables=claim.tables), claim, call)
    if not speaks:
        return Judgement(claim, Fact.UNDECIDED, note="it does not speak of this call")
    fact = Fact.PROVED if example is None else Fact.REFUTED
    return Judgement(claim, fact, call.k_len, 1, example)


# ---------------------------------------------------------------------- proofs


def _is_proved(mask: ir.Mask, claim: ir.Claim) -> bool:
    match claim.what:
        case ir.Always(root=root):
            # q and k range over all positions >= 0, those of queries that have none aside
            meant = normalise(mask.with_root(ir.implies(claim.condition, root)))
            return analysis.holds_always(meant.root)
        case ir.Counted():
            return claim.condition is ir.TRUE and _count_is_proved(mask, claim.what)
        case ir.Reached(layers=layers):
            normal = normalise(mask.with_root(mask.root))
            return claim.condition is ir.TRUE and analysis.reaches_all(normal.root, layers)
        case _:
            return False


def _count_is_proved(mask: ir.Mask, what: ir.Counted) -> bool:
    root = mask.root if what.side is ir.Side.QUERY else ir.swapped(mask.root)
    # what is dropped is implied of queries and keys, not of each in the other's place
    normal = normalise(mask.with_root(root), () if root is mask.root else ("drop_implied",))
    match what:
        case ir.Counted(operator=">=", bound=ir.Const(value=least)):
            wanted = least
        case ir.Counted(operator=">", bound=ir.Const(value=least)):
            wanted = least + 1
        case ir.Counted(operator="<=" | "<" as sign, bound=ir.Const(value=most)):
            reach = analysis.reach(mask, normal)
            if not isinstance(reach.back, int) or not isinstance(reach.ahead, int):
                return False
            return _COMPARE[sign](max(reach.back + reach.ahead + 1, 0), most) is True
        case _:
            return False
    if wanted > 1:
        return False
    is_never_empty = analysis.facts(normal)["every_row_non_empty"] is Fact.PROVED
    return wanted <= 0 or is_never_empty


# ---------------------------------------------------------------------- trying


def _tried(
    mask: ir.Mask, claim: ir.Claim, layer: int | None, budget: Budget | None = None
) -> Judgement:
    budget = budget or Budget()
    roots = (mask.root, claim.condition, *_roots(claim.what), *_asked(mask))
    ranges = Ranges.of(mask, roots, layer)
    pairs, tried, longest, done = 0, 0, 0, 0
    for length in range(1, LONGEST + 1):
        batch = list(calls(mask, ranges, length, length))
        pairs += sum(c.q_len * c.k_len * c.heads * c.batch for c in batch)
        done += len(batch)
        if length > 1 and (pairs > MOST_PAIRS or done > MOST_CALLS):
            break
        for call in batch:
            if not budget.spend(steps(call, *roots)):
                note = "" if tried else "to try it on examples takes too much work"
                return Judgement(claim, Fact.UNDECIDED, longest, tried, None, note)
            try:
                speaks, example = _try(mask, claim, call)
            except AttnDslError as error:  # a quantifier too wide, say
                note = error.diagnostics[0].title
                return Judgement(claim, Fact.UNDECIDED, longest, 0, None, note)
            if example is not None:
                return Judgement(claim, Fact.REFUTED, longest, tried, example)
            tried += speaks
        longest = length
    note = "" if tried else f"it speaks of no call of up to {longest} tokens"
    return Judgement(claim, Fact.UNDECIDED, longest, tried, None, note)


def _roots(what: ir.Property) -> tuple[ir.Node, ...]:
    match what:
        case ir.Always(root=root):
            return (root,)
        case ir.Counted(bound=bound):
            return (bound,)
        case _:
            return ()


def _try(mask: ir.Mask, claim: ir.Claim, call: Call) -> tuple[bool, Counterexample | None]:
    """Whether the claim speaks of the call, and how it fails there."""
    what = claim.what
    is_square = call.q_len == call.k_len
    if not all(np.all(_evaluated(mask, each, call)) for each in _asked(mask)):
        return False, None
    if isinstance(what, ir.Always) and what.is_square and not is_square:
        return False, None
    if isinstance(what, ir.Counted) and what.side is ir.Side.KEY and not is_square:
        return False, None
    applies = _values(mask, claim.condition, call)
    if not applies.any():
        return False, None
    match what:
        case ir.Always(root=root):
            return True, _first(call, ~_values(mask, root, call) & applies, "")
        case ir.Counted():
            return True, _miscounted(mask, what, call, applies)
        case ir.Reached(layers=layers):
            return is_square, _unreached(mask, layers, call) if is_square else None
        case _:
            return False, None


def _asked(mask: ir.Mask) -> list[ir.Node]:
    """The conditions of the pattern that read no inputs."""
    return [each.node for each in mask.conditions if not ir.reads_inputs(each.node)]


def _values(mask: ir.Mask, root: ir.Node, call: Call) -> Any:
    """A truth value at every pair, bool [batch, heads, q_len, k_len]."""
    return dense(replace(mask, root=root), call)


def _first(call: Call, wrong: BoolArray, finding: str) -> Counterexample | None:
    for b, h, q, k in np.argwhere(wrong):
        batch = int(b) if call.batch > 1 else None
        head = int(h) if call.heads > 1 else None
        return Counterexample(call, batch, head, int(q), int(k), finding)
    return None


def _miscounted(
    mask: ir.Mask, what: ir.Counted, call: Call, applies: BoolArray
) -> Counterexample | None:
    axis = 3 if what.side is ir.Side.QUERY else 2
    counts = np.asarray(dense(mask, call).sum(axis=axis, keepdims=True))
    bound = _evaluated(mask, what.bound, call)
    wrong = ~_COMPARE[what.operator](counts, bound) & applies.any(axis=axis, keepdims=True)
    found = _first(call, wrong, "")
    if found is None:
        return None
    at = (found.batch or 0, found.head or 0, found.query or 0, found.key or 0)
    wanted = int(np.broadcast_to(bound, wrong.shape)[at])
    many = "keys" if axis == 3 else "queries"
    finding = f"{int(counts[at])} {many}, which is not {what.operator} {wanted}"
    if axis == 3:
        return replace(found, finding=finding, key=None)
    return replace(found, finding=finding, query=None)


def _evaluated(mask: ir.Mask, node: ir.Node, call: Call) -> Any:
    """An int, broadcast over [batch, heads, q_len, k_len] as its rank demands."""
    shift = mask.shift(call.q_len, call.k_len)
    env = ir.Env(
        q=np.arange(call.q_len)[:, None] + shift,
        k=np.arange(call.k_len)[None, :],
        batch=np.arange(call.batch)[:, None, None, None],
        head=np.arange(call.heads)[:, None, None],
        heads=call.heads,
        layer=call.layer,
        sizes=call.sizes,
        tables=call.tables,
        queries=mask.queries,
        keys=mask.keys,
    )
    return ir.evaluate(node, env)


def _unreached(mask: ir.Mask, layers: int, call: Call) -> Counterexample | None:
    pairs = dense(mask, call)
    for batch in range(call.batch):
        seen = np.asarray(pairs[batch].any(axis=0))
        step = (seen | np.eye(call.k_len, dtype=bool)).astype(np.float32)
        known = step
        for _ in range(min(layers, call.k_len) - 1):
            known = (known @ step > 0).astype(np.float32)
        target = np.ones_like(seen) if np.triu(seen, 1).any() else np.tri(call.k_len, dtype=bool)
        for q, k in np.argwhere(target & (known == 0)):
            index = batch if call.batch > 1 else None
            finding = f"not within {layers} layers"
            return Counterexample(call, index, None, int(q), int(k), finding)
    return None


# ---------------------------------------------------------------------- density


def _density(mask: ir.Mask, claim: ir.Claim, what: ir.Density) -> Judgement:
    """Counted exactly from the schedule of that one length."""
    for reason in _uncountable(mask, claim, what):
        return Judgement(claim, Fact.UNDECIDED, note=reason)
    extents = dict(what.extents)
    try:
        call = call_at(mask, what.length, extents, what.heads)
        schedule = plan(normalise(mask.with_root(mask.root)), call, (128, 128))
    except AttnDslError as error:
        return Judgement(claim, Fact.UNDECIDED, note=error.diagnostics[0].title)
    cost = views.cost(schedule, 64, heads=what.heads)
    found = Fraction(cost.pairs, max(cost.pairs_of_square, 1))
    if _COMPARE[what.operator](found, what.bound):
        return Judgement(claim, Fact.PROVED, call.k_len, 1)
    example = Counterexample(call, finding=f"the density is {float(found):.6g}")
    return Judgement(claim, Fact.REFUTED, call.k_len, 1, example)


def _uncountable(mask: ir.Mask, claim: ir.Claim, what: ir.Density) -> Iterator[str]:
    if mask.tables:
        yield f"it depends on the input {mask.tables[0].name}"
    if claim.condition is not ir.TRUE:
        yield "a density is claimed at one length, and takes no condition"
    if mask.root.deps & ir.Deps.HEAD and what.heads == 1:
        yield "say how many heads there are: density(4096, heads=8)"
