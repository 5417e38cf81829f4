"""The last stage before a call runs: a back end is chosen, names its tiles, and is given them scheduled."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

from attndsl import claims
from attndsl.backends import (
    BoundScore,
    BreaksSticks,
    Executable,
    ForwardKernels,
    PackedKernels,
    PlainScores,
    Request,
    ScoredExecutable,
    ScoredKernels,
    Side,
    TakesKeySets,
    TakesLists,
    TakesPairs,
    TakesScores,
    TakesWhole,
    TakesWholeScores,
    Tile,
    WholeStrips,
    best_tile,
    choose,
    lse_dtype,
    tile_costs_of,
)
from attndsl.compiler import Program
from attndsl.default_layouts import default_layout
from attndsl.packed import PackedCall, zero_keys
from attndsl.schedule import (
    BoundMask,
    Call,
    KeyRule,
    Schedule,
    TileCosts,
    TiledMask,
)
from attndsl.source import AttnDslError, Diagnostic

_LOG: Final = logging.getLogger("attndsl")


def lower(
    program: Program,
    call: Call | PackedCall,
    request: Request,
    backend: str = "auto",
    layout: str | None = None,
) -> Executable:
    """How a call is run, decided but for the numbers in its tensors.

    Raises:
        AttnDslError: A4xx for lengths and layouts; A52x for the back end.
    """
    runner = choose(request, backend)
    if isinstance(call, PackedCall):
        made = []
        for group in call.groups:
            shape = (*group.queries.shape, group.keys.shape[1])
            own = replace(request, batch=shape[0], q_len=shape[1], k_len=shape[2])
            made.append(lower(call.program, group.call, own, backend, layout))
        sides = packed_sides(call, request.device)
        return Executable((PackedKernels(*sides, tuple(made)),))
    zeros = zero_key_counts(program, call, request.device)
    # a layout is of tiles, and checked where they are made
    if not layout and isinstance(runner, TakesPairs) and runner.takes_pairs(request):
        pairs = program.pairs(call)
        if pairs is not None:
            asked = zeros is not None and request.gradient
            keyless = torch.from_numpy(~pairs.any(-1)).to(request.device) if asked else None
            _log(program, call, runner.name, "pairs one by one")
            return Executable((runner.lower_pairs(pairs, request),), zeros, keyless)
    if not layout and isinstance(runner, TakesKeySets) and runner.takes_key_sets(request):
        _log(program, call, runner.name, "sets of keys, for few queries")
        return Executable((runner.lower_key_sets(program.key_sets(call)),), zeros)
    if not layout and isinstance(runner, TakesLists):
        lists = program.lists(call)
        over_lists = None if lists is None else runner.lower_lists(lists, request)
        if lists is not None and over_lists is not None:
            asked = zeros is not None and request.gradient
            keyless = torch.from_numpy(lists.keyless()).to(request.device) if asked else None
            _log(program, call, runner.name, "lists of keys")
            return Executable((over_lists,), zeros, keyless)
    if not layout and isinstance(runner, TakesWhole):
        whole = program.whole(call)
        at_once = None if whole is None else runner.lower_whole(whole, request)
        if whole is not None and at_once is not None:
            asked = zeros is not None and request.gradient
            keyless = torch.from_numpy(whole.keyless()).to(request.device) if asked else None
            _log(program, call, runner.name, "whole blocks")
            return Executable((at_once,), zeros, keyless)
    parts, name = _parts(program, call, request.head_dim, layout, request.device.type)
    kernels: list[ForwardKernels] = []
    masks: list[TiledMask] = []
    may_be_whole = "whole" not in program.without
    for index, part in enumerate(parts):
        named = replace(request, name=f"{name}/{index}", whole=may_be_whole)
        masks.append(program.tile(part, *runner.tiles(named)))
        kernels.append(runner.lower(masks[-1], named))
    _log(program, call, runner.name, _order_of(parts))
    asked = zeros is not None and request.gradient  # the backward asks
    keyless = _keyless(masks).to(request.device) if asked else None
    return Executable(tuple(kernels), zeros, keyless)


def _log(program: Program, call: Call, backend: str, how: str) -> None:
    """Tells who listens at INFO which back end and order of tokens a call takes, once for equal calls."""
    name, lengths = program.mask.name or "unnamed", (call.q_len, call.k_len)
    _LOG.info("%s: %d queries, %d keys: back end %s, %s", name, *lengths, backend, how)


def _order_of(parts: Sequence[BoundMask]) -> str:
    """The orders of tokens of the parts of a call, in words."""
    orders = (
        order for part in parts for piece in part.pieces for order in (piece.q_order, piece.k_order)
    )
    names = dict.fromkeys("natural" if order is None else order.name for order in orders)
    return f"tokens in the order {', '.join(names)}"


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
    if score.breaks:
        if not isinstance(runner, BreaksSticks):
            title = f"the back end {runner.name} has no kernels for the weights `stick`"
            raise AttnDslError(Diagnostic("A520", title, helps=('backend="reference" has',)))
        layout = "natural"  # keys are taken in order
    if (
        score.is_plain
        and request.device.type == "cpu"
        and request.dtype == lse_dtype(request.dtype)
    ):
        plain = lower(program, call, request, backend, layout)
        return ScoredExecutable((PlainScores(replace(plain, zeros=None, keyless=None)),), False)
    if not layout and isinstance(runner, TakesWholeScores):
        whole = program.whole(call)
        at_once = None if whole is None else runner.lower_scored_whole(whole, score, request)
        if at_once is not None:
            return ScoredExecutable((at_once,), score.weight is not None)
    parts, name = _parts(program, call, request.head_dim, layout, request.device.type)
    kernels: list[ScoredKernels] = []
    for index, part in enumerate(parts):
        named = replace(request, name=f"{name}/{index}")
        tiled = program.tile(part, *runner.tiles(named))
        if score.breaks and isinstance(runner, BreaksSticks):
            kernels.append(runner.lower_stick(tiled, score, named))
        else:
            kernels.append(runner.lower_scored(tiled, score, named))
    return ScoredExecutable(tuple(kernels), score.weight is not None or score.breaks)


def lower_few_queries(program: Program, request: Request, backend: str) -> FewQueries | None:
    """How calls of few queries run that differ in the keys and the contents of tables alone.

    None for a call of more, and for patterns that must be looked at anew for each length.

    Raises:
        AttnDslError: A52x for the back end.
    """
    runner, rule = choose(request, backend), program.key_rule()
    if rule is None or not isinstance(runner, TakesKeySets) or not runner.takes_key_sets(request):
        return None
    alike = (request.batch == 1 or not rule.by_batch) and (request.heads == 1 or not rule.by_head)
    scale = 1.0 / math.sqrt(max(1, request.head_dim))
    return FewQueries(rule, runner, scale, request.q_len == 1 and alike)


@dataclass(frozen=True, slots=True, eq=False)
class FewQueries:
    """Calls of few queries of one shape, decided but for how many keys there are, and what tables hold."""

    rule: KeyRule
    runner: TakesKeySets
    scale: float  # by default
    has_one_set: bool  # whether all queries see the same keys, where there are as many everywhere

    def kernels(
        self, q_len: int, k_lens: Sequence[int], batch: int, heads: int, tables: Mapping[str, Any]
    ) -> ForwardKernels:
        """The forward of a call; the arguments are those of ``KeyRule.key_sets``."""
        return self.runner.lower_key_sets(self.rule.key_sets(q_len, k_lens, batch, heads, tables))


def packed_sides(call: PackedCall, device: torch.device) -> tuple[Side, Side]:
    """The rows of q, and of k and v, of the groups of a packed call."""
    queries, keys = (
        [getattr(group, side) for group in call.groups] for side in ("queries", "keys")
    )
    return Side.of(queries, device), Side.of(keys, device)


def walked(
    program: Program, call: Call, head_dim: int, layout: str | None, device: str = "cpu"
) -> tuple[Schedule, ...]:
    """The schedules of the disjoint parts of a call, in tiles that suit the device."""
    tile, _ = searched_by(device, call, head_dim)
    parts, _ = _parts(program, call, head_dim, layout, device)
    return tuple(program.tile(part, tile).schedules[tile] for part in parts)


def timed(
    program: Program, call: Call, head_dim: int, layout: str | None
) -> tuple[Schedule | WholeStrips, ...]:
    """The work of a call on a CPU, as ``predict`` takes it: whole blocks, or the schedules of its parts."""
    whole = None if layout else program.whole(call)
    strips = None if whole is None else WholeStrips.of(whole)
    return walked(program, call, head_dim, layout) if strips is None else (strips,)


def _parts(
    program: Program, call: Call, head_dim: int, layout: str | None, device: str
) -> tuple[tuple[BoundMask, ...], str]:
    """(disjoint parts of the pattern in the layout, a name for pattern and layout)."""
    counted, tile_costs = searched_by(device, call, head_dim)
    order = layout or default_layout(program.mask, call, device)
    return program.reorder(call, order, counted, tile_costs), f"{program.key}/{order}"


def zero_key_counts(
    program: Program, call: Call | PackedCall, device: torch.device
) -> Tensor | None:
    """How many zero keys each query sees, where the pattern has any: int64 [B or 1, H or 1, Q]."""
    if isinstance(call, PackedCall):
        counts = zero_keys(call)
    else:
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
