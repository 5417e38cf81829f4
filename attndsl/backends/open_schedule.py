"""Schedules of open masks, for kernels: prepared once from shapes, made at each call where the inputs lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends.arguments import Pairs, Splits, Tiles, by_name
from attndsl.backends.generated import load
from attndsl.backends.kernel_metadata import KernelMetadata, longest_item
from attndsl.backends.on_device import OnDevice
from attndsl.backends.open_lists import PassOrder, by_key, by_query, deal, is_joined
from attndsl.backends.protocol import Tile
from attndsl.backends.standalone import heads_at_once
from attndsl.codegen import WIDEST_TILE, OpenPredicate, OverBudget, open_predicate
from attndsl.schedule import (
    Candidates,
    Classifier,
    OpenMask,
    OpenValues,
    open_candidates,
    open_env,
)

_BYTES: Final = 40  # of a candidate: its place, and where each pass meets it


@dataclass(frozen=True, slots=True, eq=False)
class OpenPlan:
    """All of a schedule that follows from shapes, on the device. Orders are found when a pass first asks for one."""

    mask: OpenMask
    predicate: OpenPredicate
    envs: tuple[ir.Env, ...]  # of each piece
    constants: Tensor  # int64 [plans, n], but for numbers that inputs decide
    candidates: Mapping[Tile, Candidates]
    classifiers: Mapping[Tile, tuple[Classifier, ...]]
    device: torch.device
    orders: dict[Any, PassOrder]

    @staticmethod
    def of(mask: OpenMask, tiles: Sequence[Tile], device: torch.device) -> OpenPlan:
        """Prepares schedules in tiles of each size.

        Raises:
            NotOpen: kernels would read masks of pairs.
            AttnDslError: A403, A407 for lengths.
        """
        xp = OnDevice(device)
        roots = [piece.root for piece in mask.pieces]
        try:
            made = open_predicate(roots, mask.bounds, mask.tables, mask.queries, mask.keys)
        except OverBudget as reason:
            raise ir.NotOpen(str(reason)) from reason
        found = {tile: open_candidates(mask, tile) for tile in tiles}
        pieces = list(enumerate(mask.pieces))
        classifiers = {
            tile: tuple(Classifier.of(mask, piece, some, number, xp) for number, piece in pieces)
            for tile, some in found.items()
        }
        envs = tuple(open_env(mask, piece, xp) for piece in mask.pieces)
        constants = torch.from_numpy(_constants(mask, made)).to(device)
        return OpenPlan(mask, made, envs, constants, found, classifiers, device, {})

    @property
    def nbytes(self) -> int:
        """Bytes of what is held of each candidate, nearly."""
        counts = (len(one.rows) for some in self.classifiers.values() for one in some)
        return _BYTES * sum(counts)

    def schedule(self, tables: Mapping[str, Tensor]) -> OpenSchedule:
        """The schedule for these inputs, bool or int64 and of all declared dims; nothing of them is read later."""
        values = [OpenValues(env, tables) for env in self.envs]
        states = {
            tile: torch.cat([one.states(own) for one, own in zip(some, values, strict=True)]).to(
                torch.int8
            )
            for tile, some in self.classifiers.items()
        }
        dtype = torch.int32 if self.predicate.is_short else torch.int64
        terms, constants, first = list[Tensor](), self.constants, 0
        for own, term, unknown in zip(
            values, self.predicate.terms, self.predicate.unknown, strict=True
        ):
            rows = [own.of_side(node, self._length(node)) for node in term.starts]
            pads = [-x.shape[1] % 16 for x in rows]
            padded = [torch.nn.functional.pad(x, (0, n)) for x, n in zip(rows, pads, strict=True)]
            terms += [torch.cat(padded, 1).flatten().to(dtype)] if padded else []
            for place, node in unknown:
                constants = constants.clone() if constants is self.constants else constants
                constants[first : first + own.plans, place] = own.of_side(node, 1)[:, 0]
            first += own.plans
        terms.append(torch.zeros(WIDEST_TILE, dtype=dtype, device=self.device))
        return OpenSchedule(self, states, torch.cat(terms), constants)

    def _length(self, node: ir.Node) -> int:
        return len(self.mask.queries if node.deps & ir.Deps.QUERY else self.mask.keys)

    def order(self, tile: Tile, group: int, transposed: bool, longest: int) -> PassOrder:
        """The candidates in the order of a pass."""
        key = tile, group, transposed, longest
        if key not in self.orders:
            given = self.mask, self.candidates[tile]
            self.orders[key] = (
                by_key(*given, group, longest, self.device)
                if transposed
                else by_query(*given, longest, self.device)
            )
        return self.orders[key]

    def live(self, tile: Tile) -> int:
        """How many tiles may be live, of all batch elements and heads that differ."""
        counts = [len(rows) for rows, _ in self.candidates[tile].tiles]
        each = np.repeat(counts, [len(piece.batch) for piece in self.mask.pieces])
        return int(each[self.mask.plan_of].sum())


@dataclass(frozen=True, slots=True, eq=False)
class OpenSchedule:
    """The schedule of one call on the device, from which the passes over it take their lists."""

    plan: OpenPlan
    states: Mapping[Tile, Tensor]  # int8, of each candidate
    terms: Tensor
    constants: Tensor  # int64 [plans, n]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(x.nbytes for x in (*self.states.values(), self.terms, self.constants))

    def is_joined(self, group: int) -> bool:
        """Whether a key tile meets the query heads that share it in one taken."""
        return is_joined(self.plan.mask, group)

    def metadata(
        self,
        tile: Tile,
        transposed: bool,
        q: Tensor,
        k: Tensor,
        longest: int | None,
        folded: int = 1,
    ) -> KernelMetadata:
        """The lists of one pass over these tensors; arguments as of ``kernel_metadata``."""
        (batch, heads), kv_heads = q.shape[:2], k.shape[1]
        plan = self.plan
        live = plan.live(tile) * batch * heads // max(1, plan.mask.plan_of.size)
        longest = longest or longest_item(live, q.device)
        taken = plan.order(tile, heads // kv_heads, transposed, longest)
        lists = deal(taken, self.states[tile])
        by_batch, by_head = (int(size > 1) for size in taken.class_of.shape)
        plans: dict[str, Any] = {
            "plan_of": taken.class_of,
            "plan_batch": by_batch * taken.class_of.shape[1],
            "plan_head": by_head * folded,
            "slots": taken.slots,
        }
        pairs = Pairs(
            constants=self.constants[taken.plan_of_class],
            n_constants=self.constants.shape[1],
            tables=self.terms,
            **load(plan.predicate.text),
        )
        tiles = Tiles(
            **plans,
            **by_name(pairs),
            items=lists.items,
            first_items=lists.first_items,
            full=lists.full,
            partial=lists.partial,
            mask_ids=lists.partial,  # not read, as kernels evaluate the pattern
            q_order=None,
            k_order=None,
            at_once=heads_at_once(k, kv_heads if transposed else heads),
            width=taken.width,
            SPLIT=taken.slots > 0,
            Q_ORDERED=False,
            K_ORDERED=False,
        )
        splits = Splits(**plans, splits=lists.splits, first_splits=lists.first_splits)
        return KernelMetadata(tiles, splits, taken.most_splits)


def _constants(mask: OpenMask, found: OpenPredicate) -> Any:
    """The constants of each plan, int64 [plans, n]: its terms lie behind those of the plans before."""
    made, before = [], 0
    for piece, numbers, terms in zip(mask.pieces, found.constants, found.terms, strict=True):
        rows = np.tile(numbers, (len(piece.batch), 1))
        rows[:, list(found.starts)] += before + terms.size * np.arange(len(rows))[:, None]
        before += terms.size * len(rows)
        made.append(rows)
    return np.concatenate(made)
