"""Pairs and tiles of a call by an emitted file, without its kernels."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch


def pairs(module: ModuleType, *sizes: int, tile: tuple[int, int], **given: Any) -> np.ndarray:
    """Its tiles as bool [batch, heads, q_len, k_len]; ``sizes`` are both lengths, batch elements and heads."""
    schedule = module.schedule_of(*sizes, torch.device("cpu"), **extents(module, given))
    return dense(schedule.tiles(*tile), tile, *sizes[:2]).expand(*sizes[2:], -1, -1).numpy()


def dense(found: Any, tile: tuple[int, int], q_len: int, k_len: int) -> torch.Tensor:
    """The pairs of all tiles, bool [batch, heads, q_len, k_len]."""
    bq, bk = tile
    unpacked = found.masks.transpose(1, 2)[..., None] >> torch.arange(32, dtype=torch.int32) & 1
    masks = unpacked.flatten(2).bool()  # [n, BQ, BK]
    whole = torch.ones(bq, bk, dtype=torch.bool)
    batch, heads, rows, columns = found.states.shape
    pairs = torch.zeros(batch, heads, rows, bq, columns, bk, dtype=torch.bool)
    for place in np.ndindex(batch, heads, rows, columns):
        b, h, row, column = place
        state = int(found.states[place])
        if state:
            mask = whole if state == 2 else masks[found.mask_ids[place]]
            assert mask.any()
            assert state == 2 or not mask.all()
            pairs[b, h, row, :, column] = mask
    flat = pairs.flatten(4).flatten(2, 3)
    assert not flat[:, :, q_len:].any()
    assert not flat[..., k_len:].any()
    return flat[:, :, :q_len, :k_len]


def extents(module: ModuleType, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``schedule_of``: all extents, None where one is not given."""
    assert set(given) <= set(_parameters(module))
    return {name: given.get(name) for name in _parameters(module)[5:]}


def keywords(module: ModuleType, extents: Mapping[str, int]) -> dict[str, int]:
    """Extents of axes as the file calls them: by their short names, where no other segment has the axis too."""
    known = _parameters(module)
    names = {name: (name.replace(".", "_"), name.rpartition(".")[2]) for name in extents}
    found = {full: [each for each in said if each in known] for full, said in names.items()}
    return {said[0]: extents[full] for full, said in found.items() if said}


def _parameters(module: ModuleType) -> tuple[str, ...]:
    code = module.schedule_of.__code__
    return code.co_varnames[: code.co_argcount]
