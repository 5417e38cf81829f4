"""The library of published patterns: every system of a catalogue of 110, as entries one can compile.

```
attndsl.library.names()  # "stvit", "stvit_update", "dlgsanet", ...
attndsl.library.describe("049")  # title, source, reading, edges, what is missing, the text
attndsl.library.load("gna", sy=13, ty=4)
```
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from attndsl import patterns
from attndsl.compiled import Pattern
from attndsl.compiler import joined, read_mask
from attndsl.frontend import Given
from attndsl.patterns import Entry, Trial
from attndsl.source import AttnDslError

__all__ = ["Checked", "Entry", "check", "describe", "load", "names", "rows"]


def names() -> tuple[str, ...]:
    """All entries, by row of the catalogue."""
    return patterns.published()


def rows() -> dict[str, tuple[str, ...]]:
    """The entries of each row, "001" to "110"."""
    found: dict[str, tuple[str, ...]] = {}
    for name in names():
        row = describe(name).row
        found[row] = (*found.get(row, ()), name)
    return found


def describe(name: str) -> Entry:
    """Describes an entry, by its name or the number of its row (then its first).

    Raises:
        AttnDslError: A211, there is none.
    """
    return patterns.entry(name)


def load(
    name: str,
    *,
    layer: int = 0,
    align: Literal["start", "end"] | None = None,
    values: Mapping[str, Given] | None = None,
    **named: Given,
) -> Pattern:
    """An entry, or a pattern of the prelude, compiled.

    Args:
        name: Its name, or the number of its row.
        layer: The value of ``layer``, where layers differ.
        align: As in ``attndsl.compile``.
        values: For its parameters; the others keep the paper's defaults.
        **named: The same, by name.

    Raises:
        AttnDslError: A2xx and A3xx, what is wrong with the name or the values.
    """
    return Pattern(read_mask(name, None, joined(values, named), align), layer)


@dataclass(frozen=True, slots=True)
class Checked:
    """Result of checking one row of the catalogue; its text has a line, and one for each remark.

    Attributes:
        row: Its number.
        entries: Its entries, or those that were asked for.
        calls: How many calls were compared.
        faults: The errors, with the entry of each.
    """

    row: str
    entries: tuple[Entry, ...]
    calls: int
    faults: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether all entries compile, run and agree with their meaning."""
        return not self.faults

    @property
    def missing(self) -> tuple[str, ...]:
        """The parts of the row that the language cannot express, with the entry."""
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
    """Compile, schedule and run the entries on their example sizes; one result a row, as it comes.

    The blocked backend is compared with the dense reference: output, log-sum-exp and gradients, at
    two sizes and on every layer that an example names. The assertions of each entry are checked.

    Args:
        wanted: Names of entries and numbers of rows; all by default.

    Raises:
        AttnDslError: A211, there is no such entry.
    """
    chosen = None if wanted is None else _chosen(wanted)
    for row, entries in rows().items():
        here = [name for name in entries if chosen is None or name in chosen]
        if here:
            with _one_thread():
                found = _checked(row, tuple(map(describe, here)))
            yield found


def _chosen(wanted: Iterable[str]) -> set[str]:
    by_row = rows()
    return {name for each in wanted for name in by_row.get(each, (describe(each).name,))}


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Calls this small are over before a second thread has woken up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _checked(row: str, entries: tuple[Entry, ...]) -> Checked:
    calls, faults = 0, []
    for entry in entries:
        small, larger = patterns.trial(entry), patterns.trial(entry, grow=1)
        try:
            for layer in small.layers:
                pattern = load(entry.name, layer=layer, **small.values)
                found = [_disagreement(pattern, small), _disagreement(pattern, larger)]
                found += [str(each) for each in pattern.claims() if not each.ok]
                calls += 2
                faults += [f"{entry.name}: {fault}" for fault in found if fault]
        except AttnDslError as error:
            faults.append(f"{entry.name}: {error}")
    return Checked(row, entries, calls, tuple(faults))


def _disagreement(pattern: Pattern, trial: Trial) -> str:
    """Where the blocked backend and the dense meaning differ, "" if nowhere."""
    generator = torch.Generator().manual_seed(0)

    def normal(length: int) -> torch.Tensor:
        shape = (trial.batch, trial.heads, length, 16)
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    given = normal(trial.q_len), normal(trial.k_len), normal(trial.k_len), normal(trial.q_len)
    blocked, dense = (_run(pattern, trial, given, name) for name in ("blocked", "reference"))
    for what, one, other in zip(
        ("the output", "the log-sum-exp", "dq", "dk", "dv"), blocked, dense, strict=True
    ):
        # Sums of a few hundred products of size 1 in float64: far closer than this, if right.
        if not torch.allclose(one, other, rtol=0, atol=1e-10):
            return f"{what} differs from the dense meaning at {trial.q_len} x {trial.k_len}"
    return ""


def _run(
    pattern: Pattern, trial: Trial, given: tuple[torch.Tensor, ...], backend: str
) -> list[torch.Tensor]:
    """out, lse, dq, dk, dv; rows without keys have lse 0 here, to be comparable."""
    q, k, v, dout = (x.clone().requires_grad_() for x in given)
    inputs = {name: torch.from_numpy(array) for name, array in trial.inputs.items()}
    options = {"backend": backend, "extents": trial.extents, "inputs": inputs}
    out, lse = pattern(q, k, v, return_lse=True, **options)
    finite = torch.where(torch.isfinite(lse), lse, 0.0)
    grads = torch.autograd.grad((out * dout).sum() + finite.sum(), (q, k, v))
    return [out.detach(), finite.detach(), *grads]
