"""Executables of calls whose inputs are scheduled where they are: nothing of them is read on the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends import (
    Executable,
    OnDevice,
    OpenKernels,
    Request,
    TakesOpenMasks,
    choose,
)
from attndsl.compiler import Program
from attndsl.inputs import cut
from attndsl.positions import NAMES, hidden, open_tables
from attndsl.schedule import (
    Call,
    OpenMask,
    conditions_hold,
    open_lists,
    open_zero_keys,
)

_UNSOUND: Final = "attndsl: inputs or positions hold numbers that the pattern cannot take"


@dataclass(frozen=True, slots=True, eq=False)
class OpenExecutable:
    """A call of which everything is decided but what its inputs hold."""

    kernels: OpenKernels
    tables: tuple[ir.Table, ...]
    shapes: Mapping[str, tuple[int, ...]]  # of all declared dims, what is broadcast included
    mask: OpenMask
    placing: Placing | None  # where positions are given
    heads: tuple[int, slice] | None  # how many the model has, and which of them are held

    @property
    def nbytes(self) -> int:
        """Bytes of what is prepared."""
        return self.kernels.nbytes

    def executable(self, given: Mapping[str, Tensor]) -> Executable:
        """Binds inputs of the device, shapes and types that it was made for.

        Their contents are checked on the device: numbers that the pattern cannot take stop it, by an assertion there.
        """
        tables: dict[str, Tensor] = {}
        sound: list[Tensor] = []
        for table in self.tables:
            x = given[table.name].detach()
            if self.heads is not None:
                x = cut(table, x, *self.heads)
            if table.kind is ir.Sort.BOOL:
                if x.dtype != torch.bool:
                    sound.append(((x == 0) | (x == 1)).all())
                x = x != 0
            elif table.name in self.mask.asked:
                low, high = self.mask.asked[table.name]
                sound.append(((x >= low) & (x <= high)).all())
            kept = torch.bool if table.kind is ir.Sort.BOOL else torch.int64
            tables[table.name] = x.to(kept).expand(self.shapes[table.name])
        if self.placing is not None:
            made, more = self.placing.tables(given, self.mask.placed)
            tables |= made
            sound += more
        xp = OnDevice(next(iter(given.values())).device)
        sound += conditions_hold(self.mask, tables, xp)
        zeros = open_zero_keys(self.mask, tables, xp)
        if zeros is not None:
            sound.append((zeros >= 0).all())
        if sound:
            torch._assert_async(torch.stack(sound).all(), _UNSOUND)
        return Executable((self.kernels.kernels(tables),), zeros)


@dataclass(frozen=True, slots=True, eq=False)
class Placing:
    """How the tables of positions follow from tensors that are not looked at."""

    mask: ir.Mask
    counts: tuple[int, int]  # rows of q and of k
    batch: int
    numbers: Mapping[str, int]
    device: torch.device

    def tables(
        self, given: Mapping[str, Tensor], wanted: Sequence[ir.Table]
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """(the tables of positions that the kernels read, whether what is given is sound)."""
        tensors = {name: given[hidden(name)] for name in NAMES if hidden(name) in given}
        at: dict[str, Any] = {**self.numbers} | {
            name: x.detach().to(torch.int64) for name, x in tensors.items()
        }
        found, sound = open_tables(self.mask, self.counts, at, OnDevice(self.device))
        if any("pos" in table.dims for table in self.mask.tables):
            sound.append((found["<len k>"] <= self.counts[1]).all())
        made = {}
        for table in wanted:
            x = found[table.name]
            is_each = table.dims[:1] == ("batch",)
            made[table.name] = x.expand(self.batch, *x.shape[1:]) if is_each else x[0]
        return made, sound


def placing(
    mask: ir.Mask, call: Call, device: torch.device, numbers: Mapping[str, int]
) -> Placing | None:
    if call.positions is None or not call.positions.is_open:
        return None
    return Placing(mask, (call.q_len, call.k_len), call.batch, numbers, device)


def lower_open(
    program: Program,
    call: Call,
    types: Mapping[str, np.dtype[Any]],
    request: Request,
    backend: str = "auto",
    layout: str | None = None,
    numbers: Mapping[str, int] | None = None,
) -> OpenExecutable:
    """How a call is run whose inputs have a shape and a type, and are scheduled on the device at each call.

    ``types`` are those of the inputs; ``numbers`` are positions that are told as such.

    Raises:
        NotOpen: it is not; `lower` serves it, once its inputs are read.
        AttnDslError: A4xx for lengths, A52x for the back end.
    """
    runner = choose(request, backend)
    if not isinstance(runner, TakesOpenMasks) or not runner.takes_open_masks(request):
        raise ir.NotOpen(f"the back end {runner.name} reads inputs on the host")
    if layout not in (None, "", "natural"):
        raise ir.NotOpen("an order of tokens is found on the host")
    if min(call.q_len, call.k_len, call.batch, call.heads) == 0:
        raise ir.NotOpen("there is nothing to compute")
    known, named = (
        {name: types[name] for name in call.tables},
        replace(request, name=f"{program.key}/natural/0"),
    )
    try:
        lists = open_lists(program.open(call, known, listed=True))
        mask, kernels = lists.mask, runner.prepare_lists(lists, named)
    except ir.NotOpen:
        mask = program.open(call, known)
        kernels = runner.prepare(mask, named)
    held = slice(call.head_start, call.head_start + call.heads)
    return OpenExecutable(
        kernels,
        program.mask.tables,
        {name: array.shape for name, array in call.tables.items()},
        mask,
        placing(program.mask, call, request.device, numbers or {}),
        None if call.model_heads is None else (call.model_heads, held),
    )
