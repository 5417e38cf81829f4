"""The table of a selection, made strip by strip."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from attndsl import ir
from attndsl.source import NOWHERE, AttnDslError, Diagnostic, Label

from .choosing import choose, drawn
from .fusing import Chooser, fused
from .ranking import ranked
from .summaries import KeySummaries
from .unit_counts import counted
from .values import Values
from .vectors import Summaries

sel = ir.selection

# Nodes that look at units beside the one that is scored.
_FOLDS: Final = (sel.Reduced, sel.RowFold, sel.QueryFold)

STRIP: Final = 1 << 18  # scores at once: with temporaries some 16 MB


@dataclass(frozen=True, slots=True)
class Activations:
    """The tensors that a selection is made from.

    ``q`` [B, H, Q, D] and ``k`` [B, Hkv, K, D] of any floating dtype. ``tables`` are int and bool inputs as NumPy
    arrays, ``reals`` real ones as tensors, both with the dims that are declared. ``summaries`` of a cache know those of
    the keys before.
    """

    q: Tensor
    k: Tensor
    scale: float
    tables: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    reals: Mapping[str, Tensor] = field(default_factory=dict)
    layer: int = 0
    summaries: KeySummaries | None = None
    extents: Mapping[str, int] = field(default_factory=dict)  # of axes, as "grid.y"
    chooser: Chooser | None = None  # of the device, where one kernel scores and chooses


def counted_rows(selection: ir.Selection, env: ir.Env) -> range:
    """The numbers of the rows of a call: queries, by position, units of them, or numbers of another kind.

    Raises:
        AttnDslError: A509, the first query is not the first one of its unit.
    """
    q_len, k_len, rows = env.sizes["q"], env.sizes["k"], selection.queries
    shift = k_len - q_len if selection.align is ir.Align.END else 0
    if rows is None:
        return range(shift, shift + q_len)
    if isinstance(rows, sel.Numbers):
        return range(counted(rows, env))
    if isinstance(rows, sel.Tiles):
        _check_tiles(selection, rows, env)
        return range(counted(rows, env))
    size = rows.size
    if shift % size:
        whose = "all queries" if rows == sel.WHOLE else f"units of {size} queries"
        title = f"`{selection.name}` chooses for {whose}, and the first query stands at {shift}"
        note = (
            "a unit of queries is summarised as a whole: a call begins with the first query of one"
        )
        raise _refused(selection, title, note)
    return range(shift // size, -(-(shift + q_len) // size))


def _check_tiles(selection: ir.Selection, rows: ir.selection.Tiles, env: ir.Env) -> None:
    """Whether a call has all queries of a grid, whose tiles choose.

    Raises:
        AttnDslError: A509.
    """
    q_len, grid = env.sizes["q"], rows.tokens(env.sizes)
    if q_len != grid:
        whose = f"tiles of {rows.space.name!r}, {grid} queries"
        title = f"`{selection.name}` chooses for {whose}, and this call has {q_len}"
        note = "a tile of queries is summarised as a whole: a call has all queries of the grid"
        raise _refused(selection, title, note)


@torch.no_grad()
def produce(chosen: ir.Chosen, given: Activations, strip: int = STRIP) -> Tensor:
    """The table that `Selection.table` declares, int32 [B, H or key heads, rows, slots]; without heads for all of them.

    That of a rank is int32 [B, H, tokens], or without heads. The result is the same for every ``strip``, the number of
    scores that are in memory at once.

    Raises:
        AttnDslError: A509, more units are kept than are taken, or a share is none.
    """
    made = summaries_of(chosen, given)
    if isinstance(chosen, ir.Rank):
        return ranked(chosen, made)
    selection = chosen
    if given.chooser is not None:
        at_once = fused(selection, made, counted_rows(selection, made.env), given.chooser)
        if at_once is not None:
            return at_once
    strips = strips_of(selection, made, strip)
    folds = (selection.score, selection.where, selection.keeping)
    if selection.by_column and not any(ir.holds(each, *_FOLDS) for each in folds):
        found = _by_unit(selection, made, strip)
    elif selection.by_column:
        found = _by_column(selection, made, strips)
    else:
        found = _joined(selection, [_strip(selection, made, *each) for each in strips], made)
    return found[:, 0] if selection.shared is sel.Shared.HEADS else found


def strips_of(
    selection: ir.Selection, made: Summaries, strip: int = STRIP
) -> list[tuple[np.ndarray, int]]:
    """The numbers of rows that are scored at once, and the row of the call that the first of them is.

    Raises:
        AttnDslError: A509, the first query is not the first one of its unit.
    """
    numbers = counted_rows(selection, made.env)
    width = max(1, counted(selection.units, made.env) * made.q.shape[0] * made.q.shape[1])
    step = max(1, strip // width)
    return [
        (np.arange(at, min(at + step, numbers.stop)), at - numbers.start)
        for at in range(numbers.start, numbers.stop, step)
    ]


def summaries_of(chosen: ir.Chosen, given: Activations, *, graph: bool = False) -> Summaries:
    """Summaries and inputs that all strips of a call share; ``graph``: gradients reach its tensors."""
    q, k = (given.q, given.k) if graph else (given.q.detach(), given.k.detach())
    sizes = {"q": q.shape[2], "k": k.shape[2], **given.extents}
    for table in chosen.tables:
        shape = (
            given.reals[table.name].shape
            if table.name in given.reals
            else given.tables[table.name].shape
        )
        sizes |= {f"{table.name}:{dim}": int(n) for dim, n in zip(table.dims, shape, strict=True)}
    env = ir.Env(
        0, 0, sizes, given.tables, np.arange(q.shape[0])[:, None, None, None],
        np.arange(q.shape[1])[None, :, None, None], q.shape[1], given.layer,
        *(chosen.spaces if isinstance(chosen, ir.Selection) else ()),
    )  # fmt: skip
    reals = {
        name: (each if graph else each.detach()).float().double()
        for name, each in given.reals.items()
    }
    starts = chosen.align is ir.Align.START
    return Summaries(q, k, env, reals, given.scale, starts, None if graph else given.summaries)


def _by_unit(selection: ir.Selection, made: Summaries, strip: int) -> Tensor:
    """The rows that each unit takes, for some units at once, whose score looks at no others."""
    numbers, slots = counted_rows(selection, made.env), selection.choice.amount
    assert isinstance(slots, ir.Const), "the front end demands it"
    units, rows = counted(selection.units, made.env), np.arange(numbers.start, numbers.stop)
    step = max(1, strip // max(1, len(rows) * made.q.shape[0] * made.q.shape[1]))
    found = []
    for low in range(0, units, step):
        some = range(low, min(low + step, units))
        scores, candidates, forced = (x.mT for x in scored(selection, made, rows, 0, some))
        _check_room(selection, forced, slots.value)
        taken = choose(scores, candidates, forced, sel.Take.TOP, torch.tensor(slots.value))
        found.append(torch.where(taken >= 0, taken + numbers.start, -1))
    return _joined(selection, found, made)


def _by_column(
    selection: ir.Selection, made: Summaries, strips: list[tuple[np.ndarray, int]]
) -> Tensor:
    """The rows that each unit takes: those of one strip compete with the ones that were taken before."""
    units, slots = counted(selection.units, made.env), selection.choice.amount
    assert isinstance(slots, ir.Const), "the front end demands it"
    shape = made.q.shape[0], _heads(selection, made), units
    device = made.q.device
    best = torch.full((*shape, slots.value), -1, dtype=torch.int32, device=device)
    kept, forced = torch.full_like(best, -math.inf, dtype=torch.float32), best > 0
    for numbers, first in strips:
        scores, candidates, asked = (x.mT for x in scored(selection, made, numbers, first))
        rows = torch.from_numpy(numbers).to(best).expand(*shape, -1)
        pool = [
            torch.cat(each, -1)
            for each in ((kept, scores), (best >= 0, candidates), (forced, asked), (best, rows))
        ]
        _check_room(selection, pool[2], slots.value)
        taken = choose(pool[0], pool[1], pool[2], sel.Take.TOP, torch.tensor(slots.value))
        at, there = taken.clamp(min=0).long(), taken >= 0
        kept = pool[0].gather(-1, at)
        forced = pool[2].gather(-1, at) & there
        best = torch.where(there, pool[3].gather(-1, at), -1)
    return best


def _joined(selection: ir.Selection, parts: list[Tensor], made: Summaries) -> Tensor:
    if not parts:
        slots = selection.table.dims[-1]
        shape = (
            made.q.shape[0],
            _heads(selection, made),
            0,
            slots if isinstance(slots, int) else 1,
        )
        return torch.full(shape, -1, dtype=torch.int32, device=made.q.device)
    widest = max(part.shape[-1] for part in parts)
    padded = [torch.nn.functional.pad(x, (0, widest - x.shape[-1]), value=-1) for x in parts]
    return torch.cat(padded, 2)


def _heads(selection: ir.Selection, made: Summaries) -> int:
    """How many choices there are beside each other."""
    if selection.shared is sel.Shared.HEADS:
        return 1
    return (made.k if selection.shared is sel.Shared.GROUP else made.q).shape[1]


def _strip(selection: ir.Selection, made: Summaries, numbers: np.ndarray, first: int) -> Tensor:
    """Chooses for the queries, or units of queries, of these numbers."""
    scores, candidates, forced = scored(selection, made, numbers, first)
    take = selection.choice.take
    if take in (sel.Take.TOP, sel.Take.SAMPLE):
        assert isinstance(selection.choice.amount, ir.Const), "the front end demands it"
        amount = torch.tensor(selection.choice.amount.value)
        _check_room(selection, forced, int(amount))
    else:
        values = Values(made, numbers, first, selection.queries)
        amount = _conformed(selection, made, values(selection.choice.amount, selection.units))
        amount = amount[..., :1]
        _check_share(selection, amount)
    return choose(scores, candidates, forced, take, amount)


def scored(
    selection: ir.Selection,
    made: Summaries,
    numbers: np.ndarray,
    first: int,
    some: range | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The scores of all units, which of them are candidates, and which are kept: [B, heads, rows, units] each.

    ``some``: of these units alone, where the score of one looks at no others.
    """
    values, units = Values(made, numbers, first, selection.queries), selection.units
    if some is not None:
        values.least, values.most = some.start, some.stop
    where, many = values.whole(selection.where, units), values.width(units)
    if some is None and not ir.holds(selection.score, *_FOLDS):
        many = min(many, _reach(where)) if where.shape[3] > 1 and not selection.by_column else many
        values.most, where = many, where[..., :many]
    shape = made.q.shape[0], _heads(selection, made), len(numbers), many
    exists = torch.from_numpy(numbers >= 0).to(made.q.device)[None, None, :, None]
    candidates = (_conformed(selection, made, where) & exists).expand(shape)
    keeping = _conformed(selection, made, values.whole(selection.keeping, units))
    forced = (keeping & candidates).expand(shape)
    if selection.choice.take is sel.Take.SAMPLE:
        rows = torch.from_numpy(numbers).to(made.q.device)
        batch, head = (torch.arange(n, device=made.q.device) for n in shape[:2])
        scores = drawn(selection.choice.seed, batch, head, rows, many)
    else:
        scores = _conformed(selection, made, values(selection.score, units)).float()
    return scores.expand(shape).contiguous(), candidates, forced


def _conformed(selection: ir.Selection, made: Summaries, x: Tensor) -> Tensor:
    """Values of as many heads as there are choices beside each other."""
    heads = _heads(selection, made)
    if x.shape[1] > heads:  # the same for all heads that choose together
        x = x[:, :: x.shape[1] // heads]
    elif 1 < x.shape[1] < heads:
        x = x.repeat_interleave(heads // x.shape[1], 1)
    return x.expand(made.q.shape[0], heads, *x.shape[2:])


def _reach(where: Tensor) -> int:
    """The number of units up to the last one that is a candidate of some query."""
    live = where.flatten(0, 2).any(0).nonzero()
    return int(live[-1]) + 1 if len(live) else 0


def _check_room(selection: ir.Selection, forced: Tensor, amount: int) -> None:
    most = int(forced.sum(-1).max()) if forced.numel() else 0
    if most > amount:
        title = f"`{selection.name}` takes {amount} units, and is to keep {most} of a query"
        note = "what is kept counts among what is taken"
        raise _refused(selection, title, note)


def _check_share(selection: ir.Selection, amount: Tensor) -> None:
    is_share = selection.choice.take is not sel.Take.ABOVE
    if is_share and not bool(((amount > 0) & (amount <= 1)).all()):
        title = f"`{selection.name}` takes a share of the whole that is not greater than 0 and at most 1"
        raise _refused(selection, title)
    if bool(amount.isnan().any()):
        title = f"`{selection.name}` takes what is above NaN"
        raise _refused(selection, title)


def _refused(selection: ir.Selection, title: str, *notes: str) -> AttnDslError:
    """The refusal of a choice, where it was written."""
    at = () if selection.place is NOWHERE else (Label(selection.place),)
    return AttnDslError(Diagnostic("A509", title, at, notes))
