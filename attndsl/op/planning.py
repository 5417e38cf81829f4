"""How a call is run: found once for all calls that differ in numbers alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends import Backend, Request, Work, best_tile, choose, tile_costs_of
from attndsl.compiler import NOTHING, Given, Program, read_inputs
from attndsl.schedule import Call, TileCosts
from attndsl.source import AttnDslError, Diagnostic

_REMEMBERED = 64  # calls of a program
SEARCHED: Final = 512  # tokens of a side, below which no order is looked for unless asked


@dataclass(frozen=True, slots=True)
class Plan:
    """How calls are run that differ in numbers alone."""

    backend: Backend[Work]
    works: tuple[Work, ...]  # which pairs to compute: disjoint parts
    zeros: Tensor | None  # how many zero keys each query sees


# By ticket, what plans the calls of a program: what crosses into the dispatcher is a string.
_PLANNERS: dict[str, Callable[..., Plan]] = {}


def register(program: Program) -> Program:
    """Make the program known to the operator, before any call: a traced call cannot do so itself."""
    remembering = functools.lru_cache(_REMEMBERED)
    _PLANNERS.setdefault(program.ticket, remembering(functools.partial(_plan, program)))
    return program  # itself, not its equal: comments and claims are no part of the ticket


def spec_of(names: list[str], extents: Mapping[str, int] | None, layout: str) -> str:
    """Input names, extents and layout ("": the default) as one string, which torch.compile can make and guard on."""
    sizes = ",".join(f"{name}={size}" for name, size in ir.named_extents(extents).items())
    return f"{','.join(names)};{sizes};{layout}"


def _names(spec: str) -> list[str]:
    return [name for name in spec.partition(";")[0].split(",") if name]


def _read_spec(spec: str) -> tuple[dict[str, int], str]:
    _, extents, layout = spec.split(";", 2)
    pairs = [item.partition("=") for item in extents.split(",") if item]
    for name, _, size in pairs:
        if not size.isdecimal():
            title = f"extent of {name!r} must be a positive integer, got {size}"
            raise AttnDslError(Diagnostic("A401", title))
    return {name: int(size) for name, _, size in pairs}, layout


def planned(
    q: Tensor, k: Tensor, v: Tensor, tables: list[Tensor], ticket: str, spec: str, backend: str
) -> Plan:
    """Remembered for equal calls. Equal means equal contents of the inputs."""
    given = read_inputs(dict(zip(_names(spec), tables, strict=True))) if tables else NOTHING
    lengths = q.shape, k.shape[2], v.shape[3]
    return _PLANNERS[ticket](*lengths, q.dtype, q.device, spec, backend, given)


def _plan(
    program: Program,
    shape: torch.Size,
    k_len: int,
    value_dim: int,
    dtype: torch.dtype,
    device: torch.device,
    spec: str,
    backend: str,
    given: Given,
) -> Plan:
    batch, heads, q_len, head_dim = shape
    extents, layout = _read_spec(spec)
    call = program.call(q_len, k_len, batch, heads, extents, given.arrays)
    tile, tile_costs = searched_by(device.type, call, head_dim)
    layout = layout or default_layout(device.type, call)
    parts = program.tiled(call, layout, tile, tile_costs=tile_costs)
    works = (Work.of(part, f"{program.key}/{layout}/{index}") for index, part in enumerate(parts))
    runner = choose(Request(device.type, dtype, head_dim, value_dim), backend)
    return Plan(runner, tuple(works), counts_of(program, call, device))


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
