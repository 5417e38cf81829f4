"""Judgement of the library: entries against the oracles of their rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attndsl import ir, patterns
from attndsl.compiled import Pattern
from attndsl.oracles import JOINS, ORACLES, Case, Join, Oracle, Question, attention
from attndsl.patterns import Entry
from attndsl.source import AttnDslError
from attndsl.verification import one_thread

from .shelf import describe, load_pattern, rows

_WIDTH = 8  # of a head
# Sums of a few hundred products of size 1 in float64: far closer than this, if right.
_CLOSE = 1e-10


@dataclass(frozen=True, slots=True)
class Checked:
    """Result of checking one row of the catalogue; its text has a line, and one for each remark.

    Attributes:
        row: Its number.
        entries: Its entries, or those that were asked for.
        calls: How many calls were compared with an oracle.
        faults: The errors, with the entry of each.
    """

    row: str
    entries: tuple[Entry, ...]
    calls: int
    faults: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether all entries compile, mean what their oracles say, and compute it."""
        return not self.faults

    @property
    def missing(self) -> tuple[str, ...]:
        """The parts of the row that were published and are not here, with the entry."""
        return tuple(f"{each.name}: {each.missing}" for each in self.entries if each.missing)

    def __str__(self) -> str:
        verdict = "wrong" if self.faults else "part " if self.missing else "ok   "
        names = ", ".join(each.name for each in self.entries)
        return "\n".join(
            [
                f"{self.row}  {verdict}  {names}  ({self.calls} calls)",
                *(f"            missing in {text}" for text in self.missing),
                *(f"            wrong in {text}" for text in self.faults),
            ]
        )


def check(wanted: Iterable[str] | None = None) -> Iterator[Checked]:
    """Compares entries with the oracles of their rows; one result a row, as it comes.

    An oracle says in NumPy, and without any code of the compiler's, which key each query sees. On
    each of its cases the meaning of the entry is compared with it; and what the blocked back end computes,
    output, log-sum-exp and gradients, with the textbook's attention under the oracle's mask. The assertions
    of each entry are checked.

    Args:
        wanted: Names of entries and numbers of rows; all by default.

    Raises:
        AttnDslError: A211, there is no such entry.
    """
    chosen = None if wanted is None else _chosen(wanted)
    for row, entries in rows().items():
        here = [name for name in entries if chosen is None or name in chosen]
        if here:
            with one_thread():
                found = _checked(row, here, whole=here == [*entries])
            yield found


def _chosen(wanted: Iterable[str]) -> set[str]:
    by_row = rows()
    return {name for each in wanted for name in by_row.get(each, (patterns.entry(each).name,))}


def _checked(row: str, names: list[str], whole: bool) -> Checked:
    """Checks the joins of these entries; of a whole row, also those that patterns of the prelude state."""
    oracles = {oracle.id: oracle for oracle in ORACLES if f"{oracle.row:03}" == row}
    joins = [
        join
        for join in JOINS
        if join.oracle in oracles
        and (join.entry in names or (whole and join.entry not in rows()[row]))
    ]
    judged = {join.entry for join in joins}
    calls, faults = 0, [f"{name}: no oracle judges it" for name in names if name not in judged]
    for name in names:
        faults += [f"{name}: {claim}" for claim in broken_claims(name)]
    for join in joins:
        oracle = oracles[join.oracle]
        for case in oracle.cases:
            calls += 1
            try:
                fault = disagreement(join, oracle, case)
            except AttnDslError as error:
                fault = str(error)
            faults += [f"{join.entry}: {fault}"] * bool(fault)
    return Checked(row, tuple(map(describe, names)), calls, tuple(faults))


def broken_claims(name: str) -> list[str]:
    """Assertions of an entry that do not hold, at the values of its example and on each layer there."""
    trial = patterns.trial(describe(name))
    try:
        compiled = [load_pattern(name, layer, trial.values) for layer in trial.layers]
        return [str(claim) for each in compiled for claim in each.claims() if not claim.ok]
    except AttnDslError as error:
        return [str(error)]


def disagreement(join: Join, oracle: Oracle, case: Case) -> str:
    """Names the place where an entry differs from its oracle on a case, "" if there is none."""
    question = join.ask(case)
    pattern = load_pattern(question.entry, question.layer, question.values)
    right, zeros = oracle.expected(case), oracle.zero_keys(case)
    call = given(pattern, question)
    sizes = (*right.shape[2:], case.heads)
    where = f"on a case of {oracle.id} ({right.shape[2]} x {right.shape[3]})"
    wrong = np.argwhere(pattern.mask(*sizes, batch=case.batch, **call).numpy() != right)
    if len(wrong):
        b, h, i, j = wrong[0].tolist()
        verb = "should" if right[b, h, i, j] else "should not"
        return f"query {i} of head {h}, batch {b} {verb} see key {j} {where}"
    if not np.array_equal(pattern.zero_keys(*sizes, batch=case.batch, **call).numpy(), zeros):
        return f"the zero keys differ {where}"
    return _computed(pattern, call, right, zeros, where)


def _computed(
    pattern: Pattern, call: dict[str, Any], mask: np.ndarray, zeros: np.ndarray, where: str
) -> str:
    """Names the result of the blocked back end that is far from the textbook, "" if there is none."""
    batch, heads, q_len, k_len = mask.shape
    draw = np.random.default_rng(0)
    shapes = [(batch, heads, length, _WIDTH) for length in (q_len, k_len, k_len, q_len)]
    q, k, v, d_out = (draw.standard_normal(shape) for shape in shapes)
    leaves = [torch.from_numpy(each).requires_grad_() for each in (q, k, v)]
    out, lse = pattern(*leaves, return_lse=True, backend="blocked", **call)
    gradients = torch.autograd.grad(out, leaves, torch.from_numpy(d_out))
    results = (out.detach(), lse.detach(), *gradients)
    wanted = attention(q, k, v, d_out, mask, zeros)
    for what, found, right in zip(
        ("the output", "the log-sum-exp", "dq", "dk", "dv"), results, wanted, strict=True
    ):
        if not np.allclose(found.numpy(), right, rtol=0, atol=_CLOSE):
            return f"{what} differs from the textbook's {where}"
    return ""


def given(pattern: Pattern, question: Question) -> dict[str, Any]:
    """Keyword arguments of a call of the entry, lengths aside.

    Inputs in the shapes that it declares: without batch where all share one, with a head axis where heads
    are alike; and the extents of its own axes.
    """
    inputs = {table.name: _shaped(table, question) for table in pattern.ir.tables}
    axes = {
        name
        for space in (pattern.ir.queries, pattern.ir.keys)
        for segment in space.segments
        for axis in segment.axes
        for name in (axis.name, f"{segment.name}.{axis.name}")
    }
    extents = {name: size for name, size in question.extents.items() if name in axes}
    return {"extents": extents, **inputs}


def _shaped(table: ir.Table, question: Question) -> torch.Tensor:
    array = question.inputs[table.name]
    if "batch" not in table.dims:
        assert question.batch == 1, "the oracle gives each batch element one of its own"
        array = array[0]
    elif "head" in table.dims and array.ndim < len(table.dims):
        array = np.repeat(array[:, None], question.heads, axis=1)
    return torch.from_numpy(np.ascontiguousarray(array))
