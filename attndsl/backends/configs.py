"""Tiles, warps and pipeline stages of each pass, for each device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

Pass: TypeAlias = Literal["forward", "backward_queries", "backward_keys"]


@dataclass(frozen=True, slots=True)
class Config:
    """How one pass is run: its tile is also the tile of its schedule."""

    bq: int
    bk: int
    warps: int
    stages: int


def default_config(which: Pass, q: Tensor, v: Tensor) -> Config:
    """The config for these tensors where nothing was measured."""
    return Config(64, 64, 4, 2)
