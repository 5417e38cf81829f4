"""Masks, and schedules made from them densely: not a line is shared with the schedule room."""

import numpy as np

from attndsl.schedule import MaskTable, Plan, Schedule, Tiles


def window(length: int, size: int, globals_: int = 0) -> np.ndarray:
    q, k = np.ogrid[:length, :length]
    return (abs(q - k) <= size) | (k < globals_) | (q < globals_)


def leaves(mask: np.ndarray, tile: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The mask by tiles, and which pairs lie inside the lengths; [rows, columns, bq, bk]."""
    inside = np.ones_like(mask)
    padding = [(0, -length % side) for length, side in zip(mask.shape, tile, strict=True)]

    def cut(pairs: np.ndarray) -> np.ndarray:
        padded = np.pad(pairs, padding)
        rows, columns = padded.shape[0] // tile[0], padded.shape[1] // tile[1]
        return padded.reshape(rows, tile[0], columns, tile[1]).transpose(0, 2, 1, 3)

    return cut(mask), cut(inside)


def kinds(mask: np.ndarray, tile: tuple[int, int]) -> np.ndarray:
    """0 empty, 1 full, 2 partial, [rows, columns]."""
    pairs, inside = leaves(mask, tile)
    live, full = pairs.any(axis=(2, 3)), (pairs == inside).all(axis=(2, 3))
    return np.where(full, 1, np.where(live, 2, 0))


def schedule_of(
    masks: list[np.ndarray], plan_of: list[list[int]], tile: tuple[int, int]
) -> Schedule:
    """One plan a mask; ``plan_of`` [batch, heads] says who uses which."""
    bank: list[np.ndarray] = []
    plans = []
    for mask in masks:
        kind, (pairs, _) = kinds(mask, tile), leaves(mask, tile)
        partial = pairs[kind == 2].reshape(-1, tile[0] * tile[1])
        ids = np.arange(len(bank), len(bank) + len(partial), dtype=np.int32)
        bank.extend(np.packbits(partial, axis=1))
        plans.append(Plan(_csr(kind == 1), _csr(kind == 2), ids, kind.shape[1]))
    packed = np.array(bank, dtype=np.uint8).reshape(len(bank), -(-tile[0] * tile[1] // 8))
    q_len, k_len = masks[0].shape
    index = np.array(plan_of, dtype=np.int32)
    return Schedule(q_len, k_len, tile, tuple(plans), index, MaskTable(packed, tile))


def _csr(present: np.ndarray) -> Tiles:
    indptr = np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int64)
    return Tiles(indptr, np.nonzero(present)[1].astype(np.int32))
