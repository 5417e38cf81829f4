"""The table of a selection, made strip by strip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from attndsl import ir
from attndsl.source import AttnDslError, Diagnostic

from .choosing import choose, drawn
from .values import Summaries, Values

sel = ir.selection

_STRIP: Final = 1 << 18  # scores at once: with temporaries some 16 MB


@dataclass(frozen=True, slots=True)
class Activations:
    """The tensors that a selection is made from.

    ``q`` [B, H, Q, D] and ``k`` [B, Hkv, K, D] of any floating dtype. ``tables`` are int and bool inputs as NumPy
    arrays, ``reals`` real ones as tensors, both with the dims that are declared.
    """

    q: Tensor
    k: Tensor
    scale: float
    tables: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    reals: Mapping[str, Tensor] = field(default_factory=dict)
    layer: int = 0


def counted_rows(selection: ir.Selection, q_len: int, k_len: int) -> range:
    """The numbers of the queries, by position, or of the units of queries, that a call has.

    Raises:
        AttnDslError: A509, the first query is not the first one of its unit.
    """
    shift = k_len - q_len if selection.align is ir.Align.END else 0
    if selection.queries is None:
        return range(shift, shift + q_len)
    size = selection.queries.size
    if shift % size:
        title = f"`{selection.name}` chooses for units of {size} queries, and the first query stands at {shift}"
        note = (
            "a unit of queries is summarised as a whole: a call begins with the first query of one"
        )
        raise AttnDslError(Diagnostic("A509", title, notes=(note,)))
    return range(shift // size, -(-(shift + q_len) // size))


@torch.no_grad()
def produce(selection: ir.Selection, given: Activations, strip: int = _STRIP) -> Tensor:
    """The table that `Selection.table` declares, int32 [B, H or key heads, rows, slots]; without heads for all of them.

    The result is the same for every ``strip``, the number of scores that are in memory at once.

    Raises:
        AttnDslError: A509, more units are kept than are taken, or a share is none.
    """
    q, k = given.q.detach(), given.k.detach()
    sizes = {"q": q.shape[2], "k": k.shape[2]}
    for table in selection.tables:
        shape = (
            given.reals[table.name].shape
            if table.name in given.reals
            else given.tables[table.name].shape
        )
        sizes |= {f"{table.name}:{dim}": int(n) for dim, n in zip(table.dims, shape, strict=True)}
    numbers = counted_rows(selection, sizes["q"], sizes["k"])
    env = ir.Env(
        0, 0, sizes, given.tables, np.arange(q.shape[0])[:, None, None, None],
        np.arange(q.shape[1])[None, :, None, None], q.shape[1], given.layer,
    )  # fmt: skip
    reals = {name: each.detach().float().double() for name, each in given.reals.items()}
    made = Summaries(q, k, env, reals, given.scale)
    width = max(1, selection.units.count(sizes["k"]) * q.shape[0] * q.shape[1])
    step = max(1, strip // width)
    parts = [
        _strip(selection, made, np.arange(at, min(at + step, numbers.stop)), at - numbers.start)
        for at in range(numbers.start, numbers.stop, step)
    ]
    found = _joined(selection, parts, made)
    return found[:, 0] if selection.shared is sel.Shared.HEADS else found


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
    values, units = Values(made, numbers, first), selection.units
    where = values.whole(selection.where, units)
    many = units.count(made.env.sizes["k"])
    if not any(isinstance(node, sel.Reduced) for node in ir.postorder(selection.score)):
        many = min(many, _reach(where)) if where.shape[3] > 1 else many
        values.most, where = many, where[..., :many]
    heads = _heads(selection, made)
    shape = made.q.shape[0], heads, len(numbers), many

    def conform(x: Tensor) -> Tensor:
        if x.shape[1] > heads:  # the same for all heads that choose together
            x = x[:, :: x.shape[1] // heads]
        elif 1 < x.shape[1] < heads:
            x = x.repeat_interleave(heads // x.shape[1], 1)
        return x.expand(*shape[:3], x.shape[3])

    exists = torch.from_numpy(numbers >= 0).to(made.q.device)[None, None, :, None]
    candidates = (conform(where) & exists).expand(shape)
    forced = (conform(values.whole(selection.keeping, units)) & candidates).expand(shape)
    take = selection.choice.take
    if take in (sel.Take.TOP, sel.Take.SAMPLE):
        assert isinstance(selection.choice.amount, ir.Const), "the front end demands it"
        amount = torch.tensor(selection.choice.amount.value)
        _check_room(selection, forced, int(amount))
    else:
        amount = conform(values(selection.choice.amount, units))[..., :1]
        _check_share(selection, amount)
    if take is sel.Take.SAMPLE:
        rows = torch.from_numpy(numbers).to(made.q.device)
        batch, head = (torch.arange(n, device=made.q.device) for n in shape[:2])
        scores = drawn(selection.choice.seed, batch, head, rows, many)
    else:
        scores = conform(values(selection.score, units)).float()
    return choose(scores.expand(shape).contiguous(), candidates, forced, take, amount)


def _reach(where: Tensor) -> int:
    """The number of units up to the last one that is a candidate of some query."""
    live = where.flatten(0, 2).any(0).nonzero()
    return int(live[-1]) + 1 if len(live) else 0


def _check_room(selection: ir.Selection, forced: Tensor, amount: int) -> None:
    most = int(forced.sum(-1).max()) if forced.numel() else 0
    if most > amount:
        title = f"`{selection.name}` takes {amount} units, and is to keep {most} of a query"
        note = "what is kept counts among what is taken"
        raise AttnDslError(Diagnostic("A509", title, notes=(note,)))


def _check_share(selection: ir.Selection, amount: Tensor) -> None:
    is_share = selection.choice.take is not sel.Take.ABOVE
    if is_share and not bool(((amount > 0) & (amount <= 1)).all()):
        title = f"`{selection.name}` takes a share of the whole that is not greater than 0 and at most 1"
        raise AttnDslError(Diagnostic("A509", title))
    if bool(amount.isnan().any()):
        title = f"`{selection.name}` takes what is above NaN"
        raise AttnDslError(Diagnostic("A509", title))
