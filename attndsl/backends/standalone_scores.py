"""Scores of an attention over a pattern that is a function on tensors: the passes, and autograd.

Files that ``emit`` writes for attentions hold this text beside that of ``standalone``, so it asks for little else of
the package. Scores read columns of numbers by query, by key or by distance, and tables at pairs: torch computes them,
and leads gradients on.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
from torch import Tensor

from attndsl.backends.configs import Config, Pass, architecture, options, padded
from attndsl.backends.kernels import backward_pairs
from attndsl.backends.live_tiles import Pattern, Schedule
from attndsl.backends.score_tables import Layout, by_diagonal, in_a_row, numbers_of
from attndsl.backends.standalone import (
    Scoring,
    configured,
    on_device,
    precision,
    run_backward,
    run_forward,
    strides,
)

BACKWARD: tuple[Pass, ...] = ("backward_queries", "backward_keys")
GAINS_AT_ONCE = 1 << 22  # pairs whose gains are added up entry by entry together


def nothing(*_: Any, **__: Any) -> tuple[Any, ...]:
    """No column, no table."""
    return ()


@dataclass(frozen=True)
class Functions:
    """The functions of some scores: five of the device, and on tensors what those read.

    ``columns`` give numbers of each query, key and distance that a call decides, those with gradients first;
    ``known`` give those that follow from positions and int inputs. ``tables`` gives the real tables that are read at
    pairs, [batch or 1, heads or 1, ...], ``places`` their indices.
    """

    device: tuple[Any, Any, Any, Any, Any]  # numbers, of_query, of_key, score, derivatives
    gains: tuple[int, int, int]  # columns of queries, keys and distances with gradients
    counts: tuple[int, int]  # numbers read for each pair: by its distance, in another way
    weighs: bool  # whether the scores are the weights themselves
    columns: tuple[Callable[..., Any], ...] = (nothing, nothing, nothing)
    known: tuple[Callable[..., Any], ...] = (nothing, nothing, nothing)
    tables: Callable[..., Any] = nothing
    places: Callable[..., Any] = nothing

    def scoring(self, call: Mapping[str, Any]) -> Scoring:
        """Gathers what passes are told; ``call``: what kernels read in a call."""
        numbers, of_query, of_key, score, derivatives = self.device
        given = {**call, "NUMBERS": numbers, "OF_QUERY": of_query, "OF_KEY": of_key}
        given["WEIGHS"] = self.weighs
        return Scoring(given, score, derivatives, self.gains[:2], self.counts)


@dataclass(frozen=True)
class Part:
    """A part of an attention with the tensors of a call; ``reals`` are its real inputs, ``ints`` decide no pair."""

    schedule: Schedule
    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    reals: Mapping[str, Tensor]
    ints: Mapping[str, Tensor] = field(default_factory=dict)

    def run(
        self, functions: Functions, v: Tensor | None = None, **more: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(out [B, H, Q, Dv], lse [B, H, Q]) with these scores: their softmax, or where they are weights, their sum.

        Weights have lse 0, or -inf for queries without keys. ``more`` are numbers that scores read beside the inputs.
        """
        given = {**self.given(), **more}
        columns = [
            stacked(found(*at, **given), self.shape(side))
            for side, (found, at) in enumerate(zip(functions.columns, self.sides(), strict=True))
        ]
        at = rows_of(self.schedule.pattern, 0), rows_of(self.schedule.pattern, 1)
        tables = functions.tables(*at, *self.ambient(), **given)
        values = self.v if v is None else v
        found: tuple[Tensor, Tensor] = Scored.apply(  # type: ignore[no-untyped-call]
            functions, self, self.q, self.k, values, *columns, *tables
        )
        return found[0].float(), found[1]

    def of_queries(self, function: Callable[..., Tensor]) -> Tensor:
        """A number of each query, [B, H, Q]."""
        at = rows_of(self.schedule.pattern, 0)
        found = function(at, *self.ambient(), **self.given())
        return found.expand(self.shape(0))

    def given(self) -> dict[str, Any]:
        """Gathers what functions of scores take by name."""
        inverse = torch.tensor(1 / self.scale if self.scale else math.inf, device=self.q.device)
        own = {"own_q": self.q, "own_k": self.k, "per_scale": inverse}
        return {**self.schedule.pattern.given, **self.reals, **self.ints, **own}

    def ambient(self) -> tuple[Tensor, Tensor]:
        """The indices of batch elements and heads, as they broadcast before rows."""
        batch, heads = (torch.arange(n, device=self.q.device) for n in self.q.shape[:2])
        return batch[:, None, None], heads[:, None]

    def shape(self, side: int) -> tuple[int, int, int]:
        """Batch elements, heads, and rows of a side: queries, keys, distances."""
        q_len, k_len = self.q.shape[2], self.k.shape[2]
        return self.q.shape[0], self.q.shape[1], (q_len, k_len, q_len + k_len - 1)[side]

    def sides(self) -> list[tuple[Tensor, ...]]:
        """Positions, batch elements and heads of queries, of keys, and of distances, a query and key 0."""
        p = self.schedule.pattern
        return [
            (rows_of(p, 0), *self.ambient()),
            (rows_of(p, 1), *self.ambient()),
            (rows_of(p, 2), torch.zeros_like(rows_of(p, 2)), *self.ambient()),
        ]

    def known(self, functions: Functions) -> list[Tensor | None]:
        """Columns that follow from positions and int inputs, [n, B, H, rows] of each side; made once."""

        def make() -> list[Tensor | None]:
            given = self.schedule.pattern.given
            return [
                stacked(found(*at, **given), self.shape(side))
                for side, (found, at) in enumerate(zip(functions.known, self.sides(), strict=True))
            ]

        return self.schedule.kept(("known", functions.known, self.q.shape[:2]), make)


def rows_of(pattern: Pattern, side: int) -> Tensor:
    """The positions of the queries, of the keys, and distances from the least on."""
    first = (pattern.q_start, 0, pattern.q_start - (pattern.k_len - 1))[side]
    count = (pattern.q_len, pattern.k_len, pattern.q_len + pattern.k_len - 1)[side]
    return torch.arange(first, first + count, device=pattern.device)


def stacked(columns: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor | None:
    """Columns as one tensor [n, B, H, rows]; None without any."""
    return torch.stack([x.float().expand(shape) for x in columns]) if columns else None


# ---------------------------------------------------------------------------- the passes


class Scored(torch.autograd.Function):
    """One pass over the pairs of a part, and its backward, to autograd."""

    @staticmethod
    def forward(
        ctx: Any, functions: Functions, part: Part, q: Tensor, k: Tensor, v: Tensor, *read: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(out, lse); weights have no log-sum-exp to differentiate."""
        scoring, layouts = asked(functions, part, read)
        out, lse = run_forward(part.schedule, q, k, v, part.scale, scoring)
        ctx.save_for_backward(q, k, v, out, lse, *read)
        ctx.given = functions, part, scoring, layouts
        ctx.set_materialize_grads(False)
        if functions.weighs:
            ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dout: Tensor | None, dlse: Tensor | None) -> tuple[Any, ...]:
        """The gradients of q, k, v, of columns and tables."""
        q, k, v, out, lse, *read = ctx.saved_tensors
        if dout is None and dlse is None:
            return (None,) * (5 + len(read))
        functions, part, scoring, layouts = ctx.given
        dout = torch.zeros_like(out) if dout is None else dout
        dlse = None if dlse is None or functions.weighs else dlse.contiguous()
        passed = part.schedule, q, k, v, out, lse, dout, dlse, part.scale, scoring
        (dq, dk, dv, dx, dy), given = run_backward(*passed)
        of_columns = [None if x is None else torch.zeros_like(x) for x in read[:3]]
        for total, gain in zip(of_columns[:2], (dx, dy), strict=True):
            if total is not None:
                total[: gain.shape[3]] = gain.movedim(3, 0)
        of_tables = [x.new_zeros(x.shape) for x in read[3:]]
        if given and any(ctx.needs_input_grad[7:]):
            pairs = Pairs.of(functions, part, scoring, given)
            if of_columns[2] is not None:
                pairs.along_diagonals(of_columns[2][: functions.gains[2]])
            for place, total in enumerate(of_tables):
                pairs.entry_by_entry(place, total, layouts[place])
        return None, None, dq, dk, dv, *of_columns, *of_tables


def asked(
    functions: Functions, part: Part, read: Sequence[Tensor | None]
) -> tuple[Scoring, list[Layout]]:
    """Gathers what passes are told in a call, and how the tables lie that are read at pairs."""
    names = ("OfQuery", "OfKey", "OfDistance")
    call: dict[str, Any] = {}
    for name, own, known in zip(names, read[:3], part.known(functions), strict=True):
        both = [x.detach() for x in (own, known) if x is not None]
        call[name] = torch.cat(both) if both else None
    layouts, call["Reals"] = in_a_row([x for x in read[3:] if x is not None])
    heads = part.q.shape[1]
    sizes = part.shape(2)[2], part.k.shape[2] - 1, heads, part.q.shape[0] * heads
    numbers = tuple(numbers_of(sizes, layouts))

    def make() -> Tensor:
        return torch.tensor(numbers, device=part.q.device)

    call["Numbers"] = part.schedule.kept(("numbers", numbers), make)
    return functions.scoring(call), layouts


@dataclass(frozen=True)
class Pairs:
    """Gains of what scores read at pairs: blocks of tiles that a kernel adds up, then sums of their entries.

    ``tiles`` [n, 4]: plan, tile of queries, tile of keys, mask, -1 where all pairs are live.
    """

    functions: Functions
    part: Part
    scoring: Scoring
    given: Mapping[str, Tensor]
    side: int
    tiles: Tensor

    @staticmethod
    def of(
        functions: Functions, part: Part, scoring: Scoring, given: Mapping[str, Tensor]
    ) -> "Pairs":
        """The square tiles of a backward."""
        configs = (configured(which, part.q, part.v, scoring).tile for which in BACKWARD)
        side = max(32, min(min(tile) for tile in configs))
        states, ids, _ = part.schedule.tiles(side, side)
        live = states.flatten(0, 1)
        masks = torch.where(live == 2, -1, ids.flatten(0, 1))[live > 0]
        tiles = torch.cat((live.nonzero(), masks[:, None]), 1)
        return Pairs(functions, part, scoring, given, side, tiles)

    def along_diagonals(self, total: Tensor) -> None:
        """Writes the sums by distance of all columns, [n, B, H, Q + K - 1]."""
        p = self.part.schedule.pattern
        rows, columns = triton.cdiv(p.q_len, self.side), triton.cdiv(p.k_len, self.side)
        count = rows + columns - 1
        place = self.tiles[:, 0] * count + self.tiles[:, 1] - self.tiles[:, 2] + columns - 1
        order = place.argsort(stable=True)
        found = torch.arange(p.batch * p.heads * count + 1, device=place.device)
        ends = torch.searchsorted(place[order], found)
        stretches = torch.stack((ends[:-1], ends[1:]), 1).view(p.batch * p.heads, count, 2)
        before = sum(self.functions.gains[:2])
        blocks = self.blocks(self.tiles[order], stretches, before, len(total))
        first = columns * self.side - p.k_len
        total.copy_(by_diagonal(blocks)[..., first : first + total.shape[-1]])

    def entry_by_entry(self, place: int, total: Tensor, layout: Layout) -> None:
        """Adds what each pair gains to its entry of a table, some tiles at a time."""
        p, q = self.part.schedule.pattern, self.part.q
        plans = torch.arange(p.batch * p.heads + 1, device=q.device)
        ends = torch.searchsorted(self.tiles[:, 0].contiguous(), plans)
        most = max(1, GAINS_AT_ONCE // (q.shape[0] * q.shape[1] * self.side**2))
        longest = int((ends[1:] - ends[:-1]).max()) if len(self.tiles) else 0
        flat, before = total.view(-1), sum(self.functions.gains) + place
        for low in range(0, longest, most):
            count = torch.arange(low, min(low + most, longest), device=q.device)
            first = torch.minimum(ends[:-1, None] + count, ends[1:, None])  # [plans, count]
            stretches = torch.stack((first, torch.minimum(first + 1, ends[1:, None])), 2)
            (gains,) = self.blocks(self.tiles, stretches, before, 1)
            entries = self.entries(place, first.clamp(max=len(self.tiles) - 1), layout)
            gains = gains.sum_to_size((*entries.shape[:2], *gains.shape[2:]))
            gains = torch.where(entries < 0, 0.0, gains)
            flat.index_put_((entries.clamp(min=0).expand(gains.shape),), gains, accumulate=True)

    def entries(self, place: int, first: Tensor, layout: Layout) -> Tensor:
        """The entry of the table of each pair of tiles [plans, n], -1 for none: [B or 1, H or 1, n, side, side]."""
        p, within = self.part.schedule.pattern, torch.arange(self.side, device=first.device)
        tiles = self.tiles[first].view(p.batch, p.heads, -1, 4)
        row = tiles[..., 1, None] * self.side + within
        column = tiles[..., 2, None] * self.side + within
        q = row.clamp(max=p.q_len - 1)[..., :, None] + p.q_start
        k = column.clamp(max=p.k_len - 1)[..., None, :]
        batch, head = (x[..., None, None] for x in self.part.ambient())
        index = self.functions.places(q, k, batch, head, **self.part.given())[place]
        flat = batch * layout.ambient[0] if layout.ambient[0] else torch.zeros_like(q[:1, :1])
        flat = flat + head * layout.ambient[1] if layout.ambient[1] else flat
        inside = torch.ones((), dtype=torch.bool, device=q.device)
        for at, size, step in zip(index, layout.sizes, layout.steps, strict=True):
            at = torch.as_tensor(at, device=q.device)
            inside = inside & (at >= 0) & (at < size)
            flat = flat + at * step
        return torch.where(inside, flat, -1)

    def blocks(self, tiles: Tensor, stretches: Tensor, before: int, gains: int) -> Tensor:
        """Blocks [gains, B, H, n, side, side] of derivatives; ``stretches`` [plans, n, 2] of tiles are added up."""
        p, q, side = self.part.schedule.pattern, self.given["Q"], self.side
        count = stretches.shape[1]
        blocks = q.new_empty((gains, *q.shape[:2], count, side, side), dtype=torch.float32)
        plan_of = torch.arange(p.batch * p.heads, device=q.device).int()
        k, v = self.given["K"], self.given["V"]
        strided = {"q": q, "k": k, "v": v, "g": self.given["GradOut"]}
        compiled = options(architecture(q.device), Config(side, side, 4, 1), is_bound=True)
        with on_device(q):
            backward_pairs[(count, q.shape[1], q.shape[0])](
                **self.given, **self.scoring.given, **strides(strided), Blocks=blocks,
                scale=self.part.scale, tiles=torch.nn.functional.pad(tiles[:, 1:], (0, 0, 0, 1)).int(),
                stretches=stretches.int().contiguous(), plan_of=plan_of,
                plan_batch=p.heads * (p.batch > 1), plan_head=int(p.heads > 1),
                masks=self.part.schedule.tiles(side, side).masks, q_order=None, k_order=None,
                q_len=q.shape[2], k_len=k.shape[2], heads=q.shape[1], most=count,
                batches=q.shape[0], blocks=count, GROUP=q.shape[1] // k.shape[1], D=q.shape[3],
                DV=v.shape[3], BD=padded(q.shape[3]), BDV=padded(v.shape[3]), BQ=side, BK=side,
                PRECISION=precision(q.dtype), Q_ORDERED=False, K_ORDERED=False,
                DERIVATIVES=self.scoring.derivatives, GAINS=gains, BEFORE=before, **compiled,
            )  # fmt: skip
        return blocks
