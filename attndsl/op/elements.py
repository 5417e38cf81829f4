"""Batch elements that stand in different places, each called with the numbers that it is told.

On a CPU that takes no copy of a buffer, and schedules of equal lengths are shared, whichever element has them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends import Pages
from attndsl.compiler import asks_for_batch
from attndsl.op.dispatching import needs_dispatcher
from attndsl.positions import KEYS, QUERIES
from attndsl.source import AttnDslError

SHORT = 128  # rows of q and of k: such elements are computed together, over all of their pairs


@dataclass(frozen=True, slots=True)
class Run:
    """Batch elements next to each other that are told the same numbers."""

    start: int
    stop: int
    told: Mapping[str, int]

    def counted(self, error: AttnDslError) -> AttnDslError:
        """The same error, which says in which elements it is."""
        last = self.stop - 1
        note = f"in batch element {self.start}"
        if last > self.start:
            note = f"in batch elements {self.start} to {last}, which are counted from 0 here"
        return AttnDslError(replace(d, notes=(*d.notes, note)) for d in error.diagnostics)

    def of_inputs(self, mask: ir.Mask, inputs: Mapping[str, Any], batch: int) -> dict[str, Any]:
        """The inputs of these elements."""
        led = {table.name for table in mask.tables if table.dims[:1] == ("batch",)}
        return {name: self._of(x, batch) if name in led else x for name, x in inputs.items()}

    def _of(self, x: Any, batch: int) -> Tensor:
        """The entries of these elements, of an input with one for each or one for all."""
        made = torch.as_tensor(x)
        return made[self.start : self.stop] if len(made) == batch else made


def cut(x: Any, runs: Sequence[Run]) -> Sequence[Any]:
    """The entries of each run of a tensor, or of pages, in one operation: its derivative is one, too."""
    counts = [run.stop - run.start for run in runs]
    return x.split(counts) if isinstance(x, Pages) else torch.split(x, counts)


def runs_of(mask: ir.Mask, q: Tensor, k_len: int, at: Mapping[str, Any]) -> tuple[Run, ...]:
    """The runs of a call in which tensors say where the batch elements stand; none where it stays one call.

    It does on GPUs, where numbers are not looked at, under whatever follows operators, where positions are given
    outright, where the pattern asks which batch element it is in, and of few rows, which are padding at little cost.
    ``at`` holds ints and tensors [batch or 1].
    """
    tensors = {name: x for name, x in at.items() if isinstance(x, Tensor)}
    outright = {QUERIES.outright, KEYS.outright}
    if not tensors or not outright.isdisjoint(at) or q.device.type != "cpu" or not q.shape[0]:
        return ()
    if needs_dispatcher(q, *tensors.values()) or asks_for_batch(mask):
        return ()
    if max(q.shape[2], k_len) <= SHORT:
        return ()
    return tuple(_runs(q.shape[0], at, tensors))


def _runs(batch: int, at: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Iterator[Run]:
    each = torch.stack([x.expand(batch).to(torch.int64) for x in tensors.values()], 1).tolist()
    start = 0
    for numbers, elements in itertools.groupby(each):
        stop = start + len(list(elements))
        yield Run(start, stop, {**at, **dict(zip(tensors, numbers, strict=True))})
        start = stop
