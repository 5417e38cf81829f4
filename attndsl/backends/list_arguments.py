"""The arguments of the kernels over lists, by the names of their own parameters, as in ``arguments``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from attndsl.backends.arguments import Function


class ListsForwardCall(NamedTuple):
    """Tensors of a forward over entries."""

    Q: Tensor
    K: Tensor
    V: Tensor
    PartOut: Tensor
    PartLse: Tensor
    scale: float


class ListsMergeCall(NamedTuple):
    """Shares of entries, and where they are merged to."""

    PartOut: Tensor
    PartLse: Tensor
    Out: Tensor
    Lse: Tensor


class ListsBackwardCall(NamedTuple):
    """Tensors of a backward over entries."""

    Q: Tensor
    K: Tensor
    V: Tensor
    GradOut: Tensor
    Level: Tensor
    Delta: Tensor
    PartQ: Tensor
    PartK: Tensor
    PartV: Tensor
    scale: float


class ListsSumQueriesCall(NamedTuple):
    """Shares of entries in a gradient of queries."""

    PartQ: Tensor
    GradQ: Tensor
    scale: float


class ListsSumKeysCall(NamedTuple):
    """Shares of items in a gradient of keys or values, and what their sum is multiplied by."""

    Part: Tensor
    Grad: Tensor
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Strides:
    """Strides of q, k and v by batch element, head, token and width."""

    qb: int
    qh: int
    qs: int
    qd: int
    kb: int
    kh: int
    ks: int
    kd: int
    vb: int
    vh: int
    vs: int
    vd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Items(Strides):
    """The items of a pass, what judges pairs, strides, lengths and widths."""

    items: Tensor
    plan_of: Tensor
    order: Tensor
    words: Tensor
    k_len: int
    heads: int
    n: int
    capacity: int
    ENTRIES: int
    GROUP: int
    D: int
    DV: int
    BD: int
    BDV: int
    ROWS: int
    PRECISION: str
    constants: Tensor | None = None
    n_constants: int = 0
    tables: Tensor | None = None
    CONSTANTS: Function = None
    QUERY_TERMS: Function = None
    KEY_TERMS: Function = None
    KEEP: Function = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListsForwardArgs(_Items):
    """All but the tensors of a forward."""

    CLEARS: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ListsBackwardArgs(_Items):
    """All but the tensors of a backward."""

    gb: int
    gh: int
    gs: int
    gd: int
    q_len: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfQueries:
    """The blocks that queries name, and sizes."""

    blocks: Tensor
    plan_of: Tensor
    q_len: int
    n: int
    none: int
    ENTRIES: int
    BQ: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListsMergeArgs(_OfQueries):
    """All but the tensors of a merge."""

    DV: int
    BDV: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListsSumQueriesArgs(_OfQueries):
    """All but the tensors of a sum over entries."""

    D: int
    BD: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListsSumKeysArgs:
    """All but the tensors of a sum over items."""

    plan_of: Tensor
    first_items: Tensor
    k_len: int
    kv_heads: int
    capacity: int
    blocks: int
    GROUP: int
    D: int
    BD: int


class ChooseUnitsCall(NamedTuple):
    """Vectors of rows and units, float64, the factor of their products, and where what is chosen goes."""

    X: Tensor
    Y: Tensor
    Factor: Tensor
    Found: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ChooseUnitsArgs:
    """All but the tensors of a choice; the functions are those of two predicates on numbers of rows and units."""

    xb: int
    xh: int
    xs: int
    yb: int
    yh: int
    ys: int
    rows: int
    units: int
    heads: int
    GROUP: int
    D: int
    BD: int
    BQ: int
    W: int
    SLOTS: int
    MATRIX: bool
    where_constants: Tensor
    where_tables: Tensor
    keeping_constants: Tensor
    keeping_tables: Tensor
    WHERE_CONSTANTS: Function
    WHERE_QUERY: Function
    WHERE_KEY: Function
    WHERE: Function
    KEEPING_CONSTANTS: Function
    KEEPING_QUERY: Function
    KEEPING_KEY: Function
    KEEPING: Function
