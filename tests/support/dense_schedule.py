"""Schedules made the plain way, from a dense mask: what the real scheduler is not needed for."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from attndsl.backends import Backend, Kernels, Request, Tile
from attndsl.schedule import BoundMask, MaskTable, Plan, Schedule, TiledMask, Tiles, TokenOrder


@dataclass(frozen=True)
class DenseWork:
    """The call whose pairs are those masks; ``tile`` overrides what the back end asks for.

    ``rows`` and ``columns``: the tokens that storage order takes one after the other.
    """

    masks: np.ndarray
    tile: Tile | None = None
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None

    def schedule(self, tile: Tile) -> Schedule:
        """The exact schedule in such tiles."""
        orders = {"q_order": self.rows, "k_order": self.columns}
        orders = {name: TokenOrder(given) for name, given in orders.items() if given is not None}
        stored = self.masks if self.rows is None else self.masks[:, :, self.rows]
        stored = stored if self.columns is None else stored[..., self.columns]
        made = dense_schedule(stored, tile)
        return replace(made, plans=tuple(replace(plan, **orders) for plan in made.plans))

    def lowered(self, backend: Backend, q: Tensor, k: Tensor, v: Tensor) -> Kernels:
        """The kernels of a back end for such tensors."""
        request = Request.of(q, k, v, gradient=True)
        return lowered(backend, request, lambda tile: self.schedule(self.tile or tile))


def lowered(backend: Backend, request: Request, schedule: Callable[[Tile], Schedule]) -> Kernels:
    """The kernels of a back end over schedules that come from no pattern."""
    made = {tile: schedule(tile) for tile in backend.tiles(request)}
    first = next(iter(made.values()))
    bound = BoundMask((), first.plan_of, {}, range(request.q_len), range(request.k_len))
    return backend.lower(TiledMask(bound, made), request)


def dense_schedule(masks: np.ndarray, tile: tuple[int, int]) -> Schedule:
    """The schedule of bool masks [1 or batch, 1 or heads, q_len, k_len]."""
    *classes, q_len, k_len = masks.shape
    which: dict[bytes, int] = {}
    plan_of = np.zeros(classes, dtype=np.int32)
    for place in np.ndindex(*classes):
        plan_of[place] = which.setdefault(masks[place].tobytes(), len(which))
    distinct = [np.frombuffer(mask, bool).reshape(q_len, k_len) for mask in which]
    bank: dict[bytes, int] = {}
    plans = tuple(_plan(mask, tile, bank) for mask in distinct)
    return Schedule(q_len, k_len, tile, plans, plan_of, finish(bank, tile))


def _plan(mask: np.ndarray, tile: tuple[int, int], bank: dict[bytes, int]) -> Plan:
    q_len, k_len = mask.shape

    def classify(row: int, column: int) -> tuple[np.ndarray, bool]:
        block = mask[row * tile[0] : (row + 1) * tile[0], column * tile[1] : (column + 1) * tile[1]]
        return np.pad(block, [(0, t - n) for t, n in zip(tile, block.shape, strict=False)]), bool(
            block.all()
        )

    grid = -(-q_len // tile[0]), -(-k_len // tile[1])
    return assemble(grid, np.ndindex(*grid), classify, bank)


def assemble(
    grid: tuple[int, int],
    tiles: "object",
    classify: Callable[[int, int], tuple[np.ndarray, bool]],
    bank: dict[bytes, int],
) -> Plan:
    """The plan of those tiles, row by row; ``classify`` gives a tile's mask and whether it is FULL."""
    full, partial, ids = [], [], []
    for row, column in tiles:  # type: ignore[attr-defined]
        block, is_full = classify(row, column)
        if is_full:
            full.append((row, column))
        elif block.any():
            partial.append((row, column))
            ids.append(bank.setdefault(np.packbits(block).tobytes(), len(bank)))
    return Plan(_tiles(full, grid[0]), _tiles(partial, grid[0]), np.array(ids, np.int32), grid[1])


def finish(bank: dict[bytes, int], tile: tuple[int, int]) -> MaskTable:
    packed = np.frombuffer(b"".join(bank), np.uint8).reshape(-1, -(-tile[0] * tile[1] // 8))
    return MaskTable(packed, tile)


def _tiles(places: list[tuple[int, int]], rows: int) -> Tiles:
    table = np.array(places, dtype=np.int64).reshape(-1, 2)
    indptr = np.searchsorted(table[:, 0], np.arange(rows + 1))
    return Tiles(indptr.astype(np.int64), table[:, 1].astype(np.int32))
