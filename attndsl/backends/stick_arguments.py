"""The arguments of the kernels of stick-breaking, by the names of their own parameters, as in ``arguments``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from attndsl.backends.arguments import Function
from attndsl.backends.list_arguments import Strides


class StickForwardCall(NamedTuple):
    """Tensors of a forward; those of the scores are as in ``ScoreCall``."""

    Q: Tensor
    K: Tensor
    V: Tensor
    Out: Tensor
    Lse: Tensor
    OfQuery: Tensor | None
    OfKey: Tensor | None
    OfDistance: Tensor | None
    Reals: Tensor | None
    Numbers: Tensor | None
    scale: float


class StickBackwardQueriesCall(NamedTuple):
    """Tensors of a backward over queries, which writes ``Rest`` and ``Before`` of each tile."""

    Q: Tensor
    K: Tensor
    V: Tensor
    GradOut: Tensor
    Whole: Tensor
    GradQ: Tensor
    GradX: Tensor
    Rest: Tensor
    Before: Tensor
    OfQuery: Tensor | None
    OfKey: Tensor | None
    OfDistance: Tensor | None
    Reals: Tensor | None
    Numbers: Tensor | None
    scale: float


class StickBackwardKeysCall(NamedTuple):
    """Tensors of a backward over keys, which reads ``Rest`` and ``Before``."""

    Q: Tensor
    K: Tensor
    V: Tensor
    GradOut: Tensor
    Whole: Tensor
    GradK: Tensor
    GradV: Tensor
    GradX: Tensor
    Rest: Tensor
    Before: Tensor
    OfQuery: Tensor | None
    OfKey: Tensor | None
    OfDistance: Tensor | None
    Reals: Tensor | None
    Numbers: Tensor | None
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tiles(Strides):
    """The tiles of a pass in the order of those who own the results, strides, lengths and widths."""

    tiles: Tensor
    stretches: Tensor
    plan_of: Tensor
    plan_batch: int
    plan_head: int
    masks: Tensor
    q_len: int
    k_len: int
    heads: int
    count: int  # blocks of those who own the results
    GROUP: int
    D: int
    DV: int
    BD: int
    BDV: int
    BQ: int
    BK: int
    PRECISION: str
    NUMBERS: Function
    OF_QUERY: Function
    OF_KEY: Function


@dataclass(frozen=True, slots=True, kw_only=True)
class StickForwardArgs(_Tiles):
    """All but the tensors of a forward."""

    SCORE: Function


@dataclass(frozen=True, slots=True, kw_only=True)
class StickBackwardQueriesArgs(_Tiles):
    """All but the tensors of a backward over queries; ``most`` tiles has a plan, ``GAINS`` columns of queries gain."""

    gb: int
    gh: int
    gs: int
    gd: int
    most: int
    DERIVATIVES: Function
    GAINS: int
    WIDE: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StickBackwardKeysArgs(StickBackwardQueriesArgs):
    """The same over keys; ``PRECEDING`` derivatives come before those of columns of keys."""

    PRECEDING: int
