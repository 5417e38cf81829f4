"""``equivalent`` and ``implies``: a proof for all calls, a call where they differ, or neither."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np

from attndsl import claims, ir
from attndsl.compiled import Pattern, compile_pattern
from attndsl.passes import lower_root, normalise, separate_root
from attndsl.source import AttnDslError, Diagnostic
from attndsl.sources import Source
from attndsl.verification.cases import Case
from attndsl.verification.drawing import Random, draw_case
from attndsl.verification.proving import holds_nowhere
from attndsl.verification.shrinking import shrink
from attndsl.views import Worded

BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

_MOST_PAIRS = 1 << 22
_LONGEST = 24  # tokens up to which all calls are tried, as far as time allows
_LARGEST = (40, 70, 150, 300, 600, 1200)  # tokens of the calls that are drawn after those


class Status(StrEnum):
    """How a claim stands."""

    PROVED = "proved"
    REFUTED = "refuted"
    UNDECIDED = "not decided"


@dataclass(frozen=True, eq=False)
class CounterExample:
    """A call and a pair of it on which two patterns differ; ``is_in_first`` says which one has it.

    Where they differ in zero keys only, ``key`` is None, and the first has more of them if ``is_in_first``.
    """

    case: Case
    batch: int
    head: int
    query: int
    key: int | None
    is_in_first: bool

    def __str__(self) -> str:
        case = self.case
        call = f"{case.q_len} queries, {case.k_len} keys"
        call += f", {case.heads} heads" if case.heads > 1 else ""
        place = f"batch {self.batch}, head {self.head}, query {self.query}"
        place += f", key {self.key}" if self.key is not None else ""
        return "; ".join([place, call, *case.details()])


@dataclass(frozen=True, eq=False)
class Verdict(Worded):
    """Whether one pattern equals or implies another.

    True when proved, false when refuted; asked for its truth while undecided, it raises.

    Attributes:
        status: How the claim stands.
        claim: The question.
        why: The proof in words, or what was tried.
        counter_example: Where they differ, if they do.
        checked: All calls of up to so many tokens were tried, inputs at random. 0 where there was no
            need.
    """

    status: Status
    claim: str
    why: str
    counter_example: CounterExample | None = None
    checked: int = 0

    def __bool__(self) -> bool:
        if self.status is Status.UNDECIDED:
            raise ValueError(f"{self}; look at its .status instead")
        return self.status is Status.PROVED

    def __str__(self) -> str:
        return f"{self.status}: {self.claim}: {self.why}"


def implies(p1: Pattern | Source, p2: Pattern | Source, *, seconds: float = 5.0) -> Verdict:
    """Whether every pair of the first pattern is one of the second, in every call.

    Calls are those with no more queries than keys, where the two are aligned by their ends: positions are
    not negative. Proved by interval analysis and cases over all positions and lengths up to 2**40, or
    refuted by a call that was found, the smallest first; otherwise not decided.

    Args:
        p1: The narrower pattern, or what ``attndsl.compile`` takes.
        p2: The wider one, over the same space, or one of them over plain sequences.
        seconds: How long to look.

    Raises:
        AttnDslError: A406, the patterns cannot be called alike: other spaces, or other declarations of one
            input.
    """
    return _Comparison(p1, p2, "implies").verdict(seconds)


def equivalent(p1: Pattern | Source, p2: Pattern | Source, *, seconds: float = 5.0) -> Verdict:
    """Whether two patterns have the same pairs in every call, and as many zero keys.

    Proved by equal normal forms or by implication both ways; see ``implies``. Either may be what ``attndsl.compile``
    takes.
    """
    return _Comparison(p1, p2, "is equivalent to").verdict(seconds)


class _Comparison:
    def __init__(self, first: Pattern | Source, second: Pattern | Source, verb: str) -> None:
        p1, p2 = compile_pattern(first), compile_pattern(second)
        self._masks = p1.ir, p2.ir
        self._layers = p1.layer, p2.layer
        self._both_ways = verb != "implies"
        names = [p.name or ir.show(p.ir.root) for p in (p1, p2)]
        self._claim = f"{names[0]} {verb} {names[1]}"
        self._frame = _frame(p1, p2)

    def verdict(self, seconds: float) -> Verdict:
        begin = time.monotonic()
        if proof := self._proof(begin + seconds / 2):
            return Verdict(Status.PROVED, self._claim, proof)
        checked = 0
        for length in range(1, _LONGEST + 1):
            for case in self._all_cases(length):
                if found := self._difference(case):
                    return self._refuted(found, length - 1)
                if time.monotonic() - begin > seconds * 3 / 4:
                    break
            else:
                checked = length
                continue
            break
        for case in self._drawn_cases(begin + seconds):
            if self._difference(case):
                small = shrink(self._frame, case, lambda c: self._difference(c) is not None)
                found = self._difference(small)
                assert found is not None, "shrinking keeps what fails"
                return self._refuted(found, checked)
        tried = f"no difference in any call of up to {checked} tokens, nor in longer ones that were drawn"
        return Verdict(Status.UNDECIDED, self._claim, tried, None, checked)

    def _refuted(self, found: CounterExample, checked: int) -> Verdict:
        owner = "the first" if found.is_in_first else "the second"
        why = f"{found} is in {owner} only"
        if found.key is None:
            why = f"{found}: {owner} has more zero keys"
        return Verdict(Status.REFUTED, self._claim, why, found, checked)

    # ------------------------------------------------------------------ proofs

    def _proof(self, deadline: float) -> str:
        """Why the claim holds for all calls; empty when that could not be shown."""
        first, second = (normalise(mask).root for mask in self._bound())
        aligned = self._masks[0].align is self._masks[1].align or self._frame.is_rectangular
        if not aligned and not (
            isinstance(first, ir.BoolConst) or isinstance(second, ir.BoolConst)
        ):
            return ""
        if self._both_ways and not self._count_alike(deadline):
            return ""
        if first is second:
            return "equal normal forms"
        if self._differ_nowhere(first, second, deadline):
            return "no pair tells them apart, at any length"
        one, two = self._bound()
        if one.keys.segments and (one.queries, one.keys) == (two.queries, two.keys):
            in_coordinates = separate_root(one.root), separate_root(two.root)
            if self._differ_nowhere(*in_coordinates, deadline):
                return "no coordinates tell them apart, at any extent"
        return ""

    def _bound(self) -> list[ir.Mask]:
        """The masks with their layers as constants."""
        return [
            replace(
                mask,
                root=ir.substitute(mask.root, {ir.Var("layer"): ir.Const(layer)}),
                zeros=ir.substitute(mask.zeros, {ir.Var("layer"): ir.Const(layer)}),
            )
            for mask, layer in zip(self._masks, self._layers, strict=True)
        ]

    def _count_alike(self, deadline: float) -> bool:
        """Whether it is proved that both have as many zero keys."""
        one, two = (lower_root(mask.zeros, mask) for mask in self._bound())
        return one is two or holds_nowhere(ir.ne(one, two), deadline)

    def _differ_nowhere(self, first: ir.Node, second: ir.Node, deadline: float) -> bool:
        only_first = ir.conj(first, ir.negate(second))
        only_second = ir.conj(second, ir.negate(first)) if self._both_ways else ir.FALSE
        return all(holds_nowhere(root, deadline) for root in (only_first, only_second))

    # ------------------------------------------------------------------ calls

    def _all_cases(self, length: int) -> Iterator[Case]:
        ranges = claims.Ranges.of(self._frame, tuple(m.root for m in self._masks), 0)
        for call in claims.calls(self._frame, ranges, length, length):
            extents = {name: size for name, size in call.sizes.items() if "." in name}
            yield Case(
                call.q_len, call.k_len, call.batch, call.heads, extents=extents, inputs=call.tables
            )  # fmt: skip

    def _drawn_cases(self, deadline: float) -> Iterator[Case]:
        index = 0
        while time.monotonic() < deadline:
            case = draw_case(self._frame, Random(index), _LARGEST[index % len(_LARGEST)])
            index += 1
            if case.pairs <= _MOST_PAIRS:
                yield case

    def _difference(self, case: Case) -> CounterExample | None:
        """The first pair on which the claim fails."""
        if self._frame.shift(case.q_len, case.k_len) < 0:
            return None
        try:
            first, second = (
                _dense(self._frame, mask, layer, case)
                for mask, layer in zip(self._masks, self._layers, strict=True)
            )
        except AttnDslError:  # these sizes do not go together
            return None
        wrong = first ^ second if self._both_ways else first & ~second
        if not wrong.any():
            return self._other_counts(case) if self._both_ways else None
        batch, head, query, key = (int(index) for index in np.argwhere(wrong)[0])
        is_in_first = bool(first[batch, head, query, key])
        return CounterExample(case, batch, head, query, key, is_in_first)

    def _other_counts(self, case: Case) -> CounterExample | None:
        """The first query with other numbers of zero keys."""
        try:
            first, second = (
                _zero_keys(self._frame, mask, layer, case)
                for mask, layer in zip(self._masks, self._layers, strict=True)
            )
        except AttnDslError:  # a count is negative
            return None
        for batch, head, query in np.argwhere(first != second):
            is_in_first = bool(first[batch, head, query] > second[batch, head, query])
            return CounterExample(case, int(batch), int(head), int(query), None, is_in_first)
        return None


def _dense(frame: ir.Mask, mask: ir.Mask, layer: int, case: Case) -> BoolArray:
    """The meaning of the mask at a call of the frame, bool [batch, heads, q_len, k_len]."""
    return ir.meaning(mask, *_call_of(frame, case), case.batch, case.heads, layer)


def _zero_keys(frame: ir.Mask, mask: ir.Mask, layer: int, case: Case) -> Any:
    """Its zero keys there, int [batch, heads, q_len]."""
    counts = ir.zero_keys(mask, *_call_of(frame, case), case.batch, case.heads, layer)
    return np.broadcast_to(counts, (case.batch, case.heads, case.q_len))


def _call_of(frame: ir.Mask, case: Case) -> tuple[int, int, dict[str, int], dict[str, Any]]:
    """Lengths, sizes and tables."""
    shapes = ir.shapes_of(frame, case.inputs)
    sizes = ir.resolve_sizes(frame, case.q_len, case.k_len, case.extents, shapes)
    tables = {t.name: case.inputs[t.name] for t in frame.tables}
    return case.q_len, case.k_len, sizes, tables


def _frame(p1: Pattern, p2: Pattern) -> ir.Mask:
    """A mask whose calls are those of both patterns: their common spaces, all their inputs."""
    one, two = p1.ir, p2.ir
    flat = [not mask.queries.segments and not mask.keys.segments for mask in (one, two)]
    spaces = [(mask.queries, mask.keys) for mask in (one, two)]
    if spaces[0] != spaces[1] and not any(flat):
        raise _not_comparable(p1, p2, "they speak of different spaces")
    base = two if flat[0] else one
    if ir.Align.START in (one.align, two.align) and base.keys.segments:
        base = replace(base, align=ir.Align.START)
    tables: dict[str, ir.Table] = {}
    for table in (*one.tables, *two.tables):
        if tables.setdefault(table.name, table) != table:
            raise _not_comparable(p1, p2, f"they declare the input {table.name!r} differently")
    root = ir.disj(one.root, two.root) if one.root is not two.root else one.root
    return replace(base, root=root, tables=tuple(tables.values()))


def _not_comparable(p1: Pattern, p2: Pattern, why: str) -> AttnDslError:
    names = " and ".join(p.name or "a pattern" for p in (p1, p2))
    return AttnDslError(
        Diagnostic(
            "A406",
            f"{names} cannot be compared: {why}",
            notes=("patterns are compared call by call: one call must fit both",),
        )
    )
