"""How a call is run: found once for all calls that differ in numbers alone."""

from __future__ import annotations

import functools
import hashlib
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from attndsl import claims, ir
from attndsl.backends import Backend, Request, Work, best_tile, choose, tile_costs_of
from attndsl.cache import Memo
from attndsl.compiler import Program, read_inputs, read_saved, saved
from attndsl.schedule import Call, TileCosts
from attndsl.source import AttnDslError, Diagnostic

_REMEMBERED = 64  # plans of a program; programs that came as text and belong to no pattern
SEARCHED: Final = 512  # tokens of a side, below which no order is looked for unless asked
STAMP: Final = 16  # bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """How calls are run that differ in numbers alone."""

    backend: Backend[Work]
    works: tuple[Work, ...]  # which pairs to compute: disjoint parts
    zeros: Tensor | None  # how many zero keys each query sees, int [B or 1, H or 1, Q]
    keyless: (
        Tensor | None
    )  # which see no other key, bool [B or 1, H or 1, Q]; None without zero keys
    stamp: bytes = (
        b""  # tells apart the contents of the tables that it was made of; empty without tables
    )

    @property
    def nbytes(self) -> int:
        """Bytes of the counts, and of the tables and orders of the works."""
        counts = sum(each.nbytes for each in (self.zeros, self.keyless) if each is not None)
        return counts + sum(work.bound.nbytes for work in self.works if work.bound)


class Options(NamedTuple):
    """Options of a call beside its tensors. All of them cross torch's dispatcher, in this order."""

    names: tuple[str, ...]  # of the tables
    axes: tuple[str, ...]
    extents: tuple[int, ...]  # of the axes
    layout: str  # "": the default
    backend: str
    scale: float


class Planner:
    """A program and the plans of its last calls; ``text`` is all of it that crosses torch's dispatcher."""

    def __init__(self, program: Program, text: str) -> None:
        self.program, self.text = program, text
        self._plans = Memo(_REMEMBERED)

    def plan(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        tables: Sequence[Tensor],
        options: Options,
        stamp: bytes | None = None,
    ) -> Plan:
        """Remembered for equal calls. Equal means equal contents of the tables.

        ``stamp``: that of the plan of an earlier pass over the same tables, which are then read only if it is
        forgotten.

        Raises:
            AttnDslError: A4xx lengths, extents and layouts; A5xx tables and back ends; A505, the tables are not those
                of the stamp.
        """
        arrays: dict[str, Any] = {}
        if tables and stamp is None:
            stamp, arrays = _read(options.names, tables)
        key = q.shape, k.shape[2], v.shape[3], q.dtype, q.device, options[:-1], stamp
        found: Plan | None = self._plans.get(key)
        if found is not None:
            return found
        if tables and not arrays:
            now, arrays = _read(options.names, tables)
            if now != stamp:
                raise _rewritten(self.program.mask.name, options.names)
        made = _plan(self.program, q, k.shape[2], v.shape[3], options, arrays)
        return self._plans.keep(key, replace(made, stamp=stamp or b""))

    def batched(self, names: Sequence[str], differ: Sequence[bool]) -> list[bool] | None:
        """True for each table that begins with the batch dim; None where several calls cannot be folded into one.

        ``differ``: which tables differ from one of these calls to the next.
        """
        mask = self.program.mask
        nodes = *ir.postorder(mask.root), *ir.postorder(mask.zeros)
        if any(isinstance(node, ir.Var) and node.name == "batch" for node in nodes):
            return None
        dims = {table.name: table.dims for table in mask.tables}
        found = [dims.get(name, ())[:1] == ("batch",) for name in names]
        alike = all(begins or not differs for begins, differs in zip(found, differ, strict=True))
        return found if alike else None


# By text: the planners of the patterns that are alive, so that equal patterns share one.
_ALIVE: weakref.WeakValueDictionary[str, Planner] = weakref.WeakValueDictionary()


def planner_of(program: Program) -> Planner:
    """The planner of a program, made before any call: a traced call cannot do so itself."""
    text = saved(replace(program.mask, doc=""), program.layer, program.without)
    return _ALIVE.setdefault(text, Planner(program, text))


def planner_from(text: str) -> Planner:
    """The planner of that text, which may come from another process.

    Raises:
        AttnDslError: A405, the text is no program.
    """
    return _ALIVE.get(text) or _restored(text)


@functools.lru_cache(_REMEMBERED)
def _restored(text: str) -> Planner:
    return Planner(Program(*read_saved(text)), text)


def _read(names: Sequence[str], tables: Sequence[Tensor]) -> tuple[bytes, dict[str, Any]]:
    """(stamp, tables as arrays)."""
    given = read_inputs(dict(zip(names, tables, strict=True)))
    digest = hashlib.blake2b(repr(given.digests).encode(), digest_size=STAMP)
    return digest.digest(), dict(given.arrays)


def _rewritten(name: str, names: Sequence[str]) -> AttnDslError:
    title = "a run-time input was written to between the forward and the backward"
    called = f"in the call of pattern {name!r}" if name else "in the call of a pattern"
    notes = (called, f"inputs: {', '.join(names)}")
    return AttnDslError(Diagnostic("A505", title, notes=notes, helps=("pass a copy, `x.clone()`",)))


def _plan(
    program: Program,
    q: Tensor,
    k_len: int,
    value_dim: int,
    options: Options,
    arrays: dict[str, Any],
) -> Plan:
    batch, heads, q_len, head_dim = q.shape
    device, extents = q.device, dict(zip(options.axes, options.extents, strict=True))
    call = program.call(q_len, k_len, batch, heads, extents, arrays)
    tile, tile_costs = searched_by(device.type, call, head_dim)
    layout = options.layout or default_layout(device.type, call)
    parts = program.tiled(call, layout, tile, tile_costs=tile_costs)
    works = [Work.of(part, f"{program.key}/{layout}/{index}") for index, part in enumerate(parts)]
    runner = choose(Request(device.type, q.dtype, head_dim, value_dim), options.backend)
    zeros = counts_of(program, call, device)
    keyless = None if zeros is None else _keyless(works, tile).to(device)
    return Plan(runner, tuple(works), zeros, keyless)


def _keyless(works: Sequence[Work], tile: tuple[int, int]) -> Tensor:
    """True for each query that sees no key, bool [B or 1, H or 1, Q]."""
    each = (torch.from_numpy(claims.without_keys(work.schedule(tile))) for work in works)
    return functools.reduce(torch.logical_and, each)


def counts_of(program: Program, call: Call, device: torch.device) -> Tensor | None:
    """How many zero keys each query sees, where the pattern has any: int64 [B or 1, H or 1, Q]."""
    counts = program.zero_keys(call)
    return None if counts is None else torch.from_numpy(counts).to(device)


def searched_by(device: str, call: Call, head_dim: int) -> tuple[tuple[int, int], TileCosts]:
    """The tile and the costs that layout="auto" counts with on a device."""
    if device != "cpu":
        return (128, 128), TileCosts()
    return best_tile(call.q_len, call.k_len), tile_costs_of(call.heads, head_dim)


def default_layout(device: str, call: Call) -> str:
    """The layout of calls that name none: "auto" where it is known to pay, else "natural".

    On CPUs it was measured to. Not where run-time inputs would decide the order, so that equal calls give equal
    bits whatever was called before; nor of few tokens, where a search costs more than it saves.
    """
    pays = device == "cpu" and not call.tables and min(call.q_len, call.k_len) >= SEARCHED
    return "auto" if pays else "natural"
