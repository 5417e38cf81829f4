"""``verify``: one pattern or attention over many generated calls, until the time is up or something is wrong."""

from __future__ import annotations

import contextlib
import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from attndsl import ir
from attndsl.attentions import Attention
from attndsl.backends import OTHERS
from attndsl.compiled import Pattern
from attndsl.compiling import compile as compile_any
from attndsl.source import AttnDslError
from attndsl.sources import Source
from attndsl.verification.attentions import AttentionSubject
from attndsl.verification.cases import Case, dense, zero_keys
from attndsl.verification.claims import claim_fault, fact_fault, frame_fault, frames
from attndsl.verification.drawing import (
    MOST_SCORES,
    Random,
    draw_case,
    draw_far_case,
    far_numbers,
    farthest,
    tokens,
)
from attndsl.verification.judging import describe, judge
from attndsl.verification.references import Fault, Kernel
from attndsl.verification.schedules import parts_fault, schedule_fault
from attndsl.verification.shrinking import shrink
from attndsl.verification.subjects import Check, Skipped, Subject, Target, runs, targets
from attndsl.views import Worded

_MOST_PAIRS = 1 << 25  # of a dense mask that is looked at
_FEWEST = 4  # cases, however short the time
_LARGEST = (8, 20, 40, 20, 140, 70, 300, 140)  # tokens of case 0, 1, ...: small faults come first
_FAR = 5  # the one of these at which large numbers have their turn


@dataclass(frozen=True, eq=False)
class Failure:
    """A case that is wrong, as small as it could be made.

    Attributes:
        where: The check that failed: "schedule", "facts", "asserts", "backend blocked on cpu".
        case: The call.
        fault: The first wrong entry.
        seed: Seed of the run, and ``index`` of the case within it, before it was made small.
        index: See ``seed``.
    """

    where: str
    case: Case
    fault: Fault
    seed: int
    index: int


@dataclass(frozen=True, eq=False)
class Report(Worded):
    """Report of ``verify``; its ``str`` is for people.

    Attributes:
        name: Name of the pattern or attention.
        meaning: The pattern or attention, as the IR prints it.
        cases: How many calls were checked.
        seconds: How long that took.
        longest: The greatest length among them.
        checked: How often each thing was checked: "schedule", "backend blocked on cpu", ...
        skipped: Why calls could not be checked, and how often.
        failure: The first failure, if there is one.
    """

    name: str
    meaning: str
    cases: int
    seconds: float
    longest: int
    checked: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    failure: Failure | None = None

    @property
    def ok(self) -> bool:
        """Nothing is wrong, and something was checked."""
        return self.failure is None and self.cases > 0

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        if self.failure is not None:
            return self._wrong(self.failure)
        skipped = [f"  not checked, {count} times: {why}" for why, count in self.skipped.items()]
        if not self.cases:
            return "\n".join([f"{self.name or 'the pattern'}: nothing could be checked", *skipped])
        calls = f"{self.cases} calls of up to {self.longest} tokens"
        lines = [
            f"{self.name or 'the pattern'}: {calls} checked in {self.seconds:.1f} s, nothing wrong"
        ]
        lines += [f"  {count:5} x {what}" for what, count in self.checked.items()]
        return "\n".join(lines + skipped)

    def _wrong(self, failure: Failure) -> str:
        shown = describe(self.name, self.meaning, failure.where, failure.case, failure.fault)
        return f"{shown}\n  found in case {failure.index} of seed {failure.seed}, made smaller"


def verify(
    p: Pattern | Attention | Source | ir.Attention,
    *,
    seconds: float = 10.0,
    seed: int = 0,
    backends: Iterable[str] | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Report:
    """Check a compiled pattern or attention against its dense meaning over generated calls.

    Each call has its own lengths (1, shorter than a tile, one more than a tile, unequal ones), extents,
    heads and key heads, batch, run-time inputs, dtype and memory layout. Checked are: the schedule (it
    covers exactly the pattern, visits no empty tile, masks no full one, and its transpose is the same),
    the facts that are claimed to be proved, what the program asserts, and each backend that runs here:
    output, log-sum-exp and gradients, also those that arrive through the log-sum-exp, against the oracle
    in float64. A result may err as much as rounding explains, see ``allowance``; that of an attention as much as a
    multiple of what the oracle itself errs by in the dtype of the call. Gradients of its real inputs are checked, too.

    Args:
        p: The pattern or attention, or what ``attndsl.compile`` takes.
        seconds: How long to look. A few cases are checked however short that is.
        seed: Equal seeds check equal cases in equal order.
        backends: Names of backends; by default all that can run on a device of this machine.
        progress: Called after each case with the number of cases and the share of the time, 0 to 1.

    Returns:
        A report that is true when all is well. Of a failure it shows the smallest case that was found.

    Raises:
        AttnDslError: A521, a backend of that name does not exist; A520, it cannot run here.
    """
    made, here = compile_any(p), targets(backends)
    subject = (
        _PatternSubject(made, here) if isinstance(made, Pattern) else AttentionSubject(made, here)
    )
    run = _Run(subject, seed)
    with one_thread():
        return run.report(seconds, progress)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """No threads of torch beside this one.

    Small tensors gain nothing from them, and lose milliseconds a call on a busy machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Run:
    def __init__(self, subject: Subject, seed: int) -> None:
        self._subject = subject
        self._frame = subject.frame
        self._seed = seed
        # A window of 512 shows no edge in 300 tokens: one case in eight reaches beyond it.
        self._largest = (*_LARGEST[:-1], max(_LARGEST[-1], farthest(self._frame) * 5 // 4))
        self._far = far_numbers(self._frame)
        self._checked: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()

    def report(self, seconds: float, progress: Callable[[int, float], None] | None) -> Report:
        begin = time.monotonic()
        cases = longest = index = 0
        failure, spent = None, 0.0
        while failure is None and (index < _FEWEST or spent < seconds):
            case, before = self._draw(index), self._checked.total()
            try:
                failure = self._failure(case, index)
            except Skipped as skipped:
                self._skipped[str(skipped)] += 1
            if failure is not None or self._checked.total() > before:
                cases += 1
                longest = max(longest, case.q_len, case.k_len)
            index += 1
            spent = time.monotonic() - begin
            if progress is not None:
                progress(cases, min(1.0, spent / seconds) if seconds else 1.0)
        return Report(
            name=self._subject.name,
            meaning=self._subject.meaning,
            cases=cases,
            seconds=spent,
            longest=longest,
            checked=dict(self._checked),
            skipped=dict(self._skipped),
            failure=failure,
        )

    def _draw(self, index: int) -> Case:
        turn = index % len(self._largest)
        dice = Random(self._seed, index)
        if turn == _FAR and self._far:
            case = draw_far_case(self._frame, dice, self._far)
        else:
            case = draw_case(self._frame, dice, self._largest[turn])
        return self._subject.fitted(case)

    def _failure(self, case: Case, index: int) -> Failure | None:
        found = self._check(case)
        if found is None:
            return None
        best = [(case, found)]

        def still_fails(smaller: Case) -> bool:
            try:
                again = self._check(self._subject.fitted(smaller))
            except Skipped:
                return False
            if again is None or again[0] != found[0]:
                return False
            best.append((smaller, again))
            return True

        shrink(self._frame, case, still_fails)
        small, (where, fault) = best[-1]
        if fault.what == found[1].what and not fault.is_about_pairs:
            fault = replace(fault, nature=found[1].nature)  # many mistakes look alike in one pair
        return Failure(where, small, fault, self._seed, index)

    def _check(self, case: Case) -> tuple[str, Fault] | None:
        """Where the case is wrong, and how.

        Raises:
            Skipped: the call is too large to look at, or one that the pattern does not allow.
        """
        if case.pairs > _MOST_PAIRS:
            raise Skipped(f"{case.q_len} x {case.k_len} pairs are too many for a dense mask")
        where = whole = "the call"
        try:
            for where, check in self._subject.checks(case):
                try:
                    fault = check()
                except Skipped as skipped:
                    self._skipped[f"{where}: {skipped}"] += 1
                    continue
                if fault is not None:
                    return where, fault
                self._checked[where] += 1
        except Skipped:
            raise
        except Exception as error:
            # A501 of the dense meaning: inputs along q and k that no lengths of this space make long enough
            if isinstance(error, AttnDslError) and (
                error.code.startswith("A4")
                or error.code == "A507"
                or (error.code == "A501" and where == whole)
            ):
                raise Skipped(error.diagnostics[0].title) from error
            # whatever else a backend raises is a finding, made small like any other
            return where, Fault(where, {}, f"{type(error).__name__}: {error}", "a result")
        return None


class _PatternSubject:
    """A pattern: its schedule, facts and asserts, and each back end."""

    def __init__(self, p: Pattern, targets: Sequence[Target]) -> None:
        self.name, self.meaning, self.frame = p.name, ir.show(p.ir.root, p.ir.zeros), p.ir
        self._pattern, self._targets = p, targets
        self._facts = p.facts()
        self._frames = frames(p, self._facts)

    def fitted(self, case: Case) -> Case:
        """The case as it was drawn."""
        return case

    def checks(self, case: Case) -> Iterator[tuple[str, Check]]:
        """Everything to hold against the dense meaning of the case, by name."""
        p, mask = self._pattern, dense(self._pattern, case)
        pairs, counts = mask.numpy(), zero_keys(p, case)
        options: dict[str, Any] = {"batch": case.batch, "tile": case.tile, "layout": case.layout}
        options |= {"extents": case.extents, "inputs": case.inputs}
        call = case.q_len, case.k_len, case.heads
        if p.ir.keys.segments or p.ir.queries.segments:
            yield "extents", lambda: _extent_fault(p.ir, case)
        yield "schedule", lambda: schedule_fault(p.schedule(*call, **options), pairs)
        if case.layout == "auto":  # the only one that is split in parts
            yield "parts", lambda: parts_fault(p.parts(*call, **options), pairs)
        yield "facts", lambda: self._fact_fault(case, pairs)
        if case.pairs > MOST_SCORES:
            return
        if p.ir.claims:
            del options["tile"], options["layout"]
            yield "asserts", lambda: claim_fault(p.claims(*call, **options))
        for name, device in self._targets:
            if runs(name, device, case.dtype, case.head_dim, case.value_dim):
                there = mask.to(device)
                zeros = None if counts is None else counts.to(device)
                yield (
                    f"backend {name} on {device}",
                    functools.partial(_backend_fault, p, case, (name, device), there, zeros),
                )

    def _fact_fault(self, case: Case, pairs: Any) -> Fault | None:
        shift = self._pattern.ir.shift(case.q_len, case.k_len)
        around = {}
        for said, frame in self._frames.items():
            read = {table.name: case.inputs[table.name] for table in frame.ir.tables}
            around[said] = dense(frame, replace(case, inputs=read)).numpy()
        return fact_fault(self._facts, pairs, shift) or frame_fault(around, pairs)


def _backend_fault(
    p: Pattern, case: Case, target: Target, mask: Tensor, zeros: Tensor | None
) -> Fault | None:
    """Both passes in the layout of the case, and the forward as it goes where a call asks for neither."""
    kernel, (name, device) = kernel_of(p, case, *target), target
    if name in OTHERS:
        return _fault_of_others(kernel, case, target, mask, zeros)
    plain = kernel_of(p, case, *target, in_layout=False)
    return judge(kernel, mask, case, device, zeros=zeros) or judge(
        plain, mask, case, device, backward=False, zeros=zeros
    )


def _fault_of_others(
    kernel: Kernel, case: Case, target: Target, mask: Tensor, zeros: Tensor | None
) -> Fault | None:
    """Judges a kernel of another library, as far as it goes: some have no gradient.

    Raises:
        Skipped: the pairs of the call, or its tensors, are not for it.
    """
    backward, through_lse = target != ("flex", "cpu"), target == ("sdpa", "cpu")
    try:
        return judge(kernel, mask, case, target[1], backward, through_lse, zeros)
    except AttnDslError as error:
        if error.code != "A520":
            raise
        raise Skipped(error.diagnostics[0].notes[0].partition(": ")[2]) from error


def _extent_fault(mask: ir.Mask, case: Case) -> Fault | None:
    """Whether the extents that the call is taken to have do not make its numbers of tokens."""
    sizes = ir.resolve_sizes(mask, case.q_len, case.k_len, case.extents)
    lengths = {mask.queries: case.q_len, mask.keys: case.k_len}  # the keys' where the space is one
    for space, length in lengths.items():
        if space.segments and tokens(space, sizes) != length:
            shown = {name: size for name, size in sizes.items() if "." in name}
            return Fault(
                "extents", {}, f"{length} tokens of {space.name} with {shown}", "a refusal"
            )
    return None


def kernel_of(
    p: Pattern, case: Case, backend: str, device: str = "cpu", *, in_layout: bool = True
) -> Kernel:
    """The pattern as a function of q, k and v alone, at the extents, inputs and scale of the case.

    ``in_layout``: and in its layout; else in that of calls which name none, as where tiles are not ours.
    """
    layout = case.layout if in_layout and backend not in OTHERS else None
    inputs = case.inputs_on(device)

    def kernel(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return p(
            q, k, v,
            return_lse=True, scale=case.scale, backend=backend, layout=layout, extents=case.extents, inputs=inputs,
        )  # fmt: skip

    return kernel
