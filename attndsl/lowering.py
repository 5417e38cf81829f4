"""The last stage before a call runs: a back end is chosen, names its tiles, and is given them scheduled."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

from attndsl import claims
from attndsl.backends import (
    BoundScore,
    Executable,
    ForwardKernels,
    Request,
    ScoredExecutable,
    ScoredKernels,
    TakesKeySets,
    TakesPairs,
    TakesScores,
    Tile,
    best_tile,
    choose,
    tile_costs_of,
)
from attndsl.compiler import Program
from attndsl.schedule import BoundMask, Call, KeyRule, Schedule, TileCosts, TiledMask
from attndsl.source import AttnDslError, Diagnostic

SEARCHED: Final = 512  # tokens of a side, below which no order is looked for unless asked


def lower(
    program: Program, call: Call, request: Request, backend: str = "auto", layout: str | None = None
) -> Executable:
    """How a call is run, decided but for the numbers in its tensors.

    Raises:
        AttnDslError: A4xx for lengths and layouts; A52x for the back end.
    """
    runner = choose(request, backend)
    zeros = zero_key_counts(program, call, request.device)
    # a layout is of tiles, and checked where they are made
    if not layout and isinstance(runner, TakesPairs) and runner.takes_pairs(request):
        pairs = program.pairs(call)
        if pairs is not None:
            asked = zeros is not None and request.gradient
            keyless = torch.from_numpy(~pairs.any(-1)).to(request.device) if asked else None
            return Executable((runner.lower_pairs(pairs),), zeros, keyless)
    if not layout and isinstance(runner, TakesKeySets) and runner.takes_key_sets(request):
        return Executable((runner.lower_key_sets(program.key_sets(call)),), zeros)
    parts, name = _parts(program, call, request.head_dim, layout, request.device.type)
    kernels: list[ForwardKernels] = []
    masks: list[TiledMask] = []
    for index, part in enumerate(parts):
        named = replace(request, name=f"{name}/{index}")
        masks.append(program.tile(part, *runner.tiles(named)))
        kernels.append(runner.lower(masks[-1], named))
    asked = zeros is not None and request.gradient  # the backward asks
    keyless = _keyless(masks).to(request.device) if asked else None
    return Executable(tuple(kernels), zeros, keyless)


def lower_scores(
    program: Program,
    call: Call,
    request: Request,
    score: BoundScore,
    backend: str = "auto",
    layout: str | None = None,
) -> ScoredExecutable:
    """How a part of an attention is run, in the tiles of its pattern.

    Raises:
        AttnDslError: as ``lower``; A520, the back end computes plain softmaxes only.
    """
    runner = choose(request, backend)
    if not isinstance(runner, TakesScores):
        title = f"the back end {runner.name} has no kernels for scores of one's own"
        raise AttnDslError(Diagnostic("A520", title, helps=('backend="reference" has',)))
    parts, name = _parts(program, call, request.head_dim, layout, request.device.type)
    kernels: list[ScoredKernels] = []
    for index, part in enumerate(parts):
        named = replace(request, name=f"{name}/{index}")
        tiled = program.tile(part, *runner.tiles(named))
        kernels.append(runner.lower_scored(tiled, score, named))
    return ScoredExecutable(tuple(kernels), score.weight is not None)


def lower_few_queries(program: Program, request: Request, backend: str) -> FewQueries | None:
    """How calls of few queries run that differ in the keys and the contents of tables alone.

    None for a call of more, and for patterns that must be looked at anew for each length.

    Raises:
        AttnDslError: A52x for the back end.
    """
    runner, rule = choose(request, backend), program.key_rule()
    if rule is None or not isinstance(runner, TakesKeySets) or not runner.takes_key_sets(request):
        return None
    return FewQueries(rule, runner)


@dataclass(frozen=True, slots=True, eq=False)
class FewQueries:
    """Calls of few queries, decided but for how many keys there are, and what tables hold."""

    rule: KeyRule
    runner: TakesKeySets

    def kernels(
        self, q_len: int, k_lens: Sequence[int], batch: int, heads: int, tables: Mapping[str, Any]
    ) -> ForwardKernels:
        """The forward of a call; the arguments are those of ``KeyRule.key_sets``."""
        return self.runner.lower_key_sets(self.rule.key_sets(q_len, k_lens, batch, heads, tables))


def walked(
    program: Program, call: Call, head_dim: int, layout: str | None, device: str = "cpu"
) -> tuple[Schedule, ...]:
    """The schedules of the disjoint parts of a call, in tiles that suit the device."""
    tile, _ = searched_by(device, call, head_dim)
    parts, _ = _parts(program, call, head_dim, layout, device)
    return tuple(program.tile(part, tile).schedules[tile] for part in parts)


def _parts(
    program: Program, call: Call, head_dim: int, layout: str | None, device: str
) -> tuple[tuple[BoundMask, ...], str]:
    """(disjoint parts of the pattern in the layout, a name for pattern and layout)."""
    counted, tile_costs = searched_by(device, call, head_dim)
    order = layout or default_layout(device, call)
    return program.reorder(call, order, counted, tile_costs), f"{program.key}/{order}"


def zero_key_counts(program: Program, call: Call, device: torch.device) -> Tensor | None:
    """How many zero keys each query sees, where the pattern has any: int64 [B or 1, H or 1, Q]."""
    counts = program.zero_keys(call)
    return None if counts is None else torch.from_numpy(counts).to(device)


def _keyless(masks: Sequence[TiledMask]) -> Tensor:
    """True for each query that sees no key, bool [B or 1, H or 1, Q]."""
    each = (claims.without_keys(next(iter(mask.schedules.values()))) for mask in masks)
    return functools.reduce(torch.logical_and, map(torch.from_numpy, each))


def searched_by(device: str, call: Call, head_dim: int) -> tuple[Tile, TileCosts]:
    """The tile and the costs that layout="auto" counts with on a device."""
    if device != "cpu":
        return (128, 128), TileCosts()
    return best_tile(call.q_len, call.k_len), tile_costs_of(call.heads, head_dim)


def default_layout(device: str, call: Call) -> str:
    """The layout of calls that name none: "auto" where it is known to pay, else "natural".

    On CPUs it was measured to. Not where run-time inputs or positions would decide the order, so that equal calls give
    equal bits whatever was called before; nor of few tokens, where a search costs more than it saves.
    """
    is_known = not call.tables and call.positions is None
    pays = device == "cpu" and is_known and min(call.q_len, call.k_len) >= SEARCHED
    return "auto" if pays else "natural"
