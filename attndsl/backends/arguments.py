"""The arguments of each kernel, by the names of its own parameters.

Two values a kernel: a named tuple of what differs from call to call, tensors first and numbers last, and a frozen
dataclass of what stays. Together they are the parameters of the kernel, the tuple's first and in its order;
``Launch`` refuses anything else.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

Function: TypeAlias = Any  # a function that Triton compiles, or None


class ForwardCall(NamedTuple):
    """Tensors of one forward. ``PartOut`` and ``PartLse`` hold the shares of split tiles, if there are any."""

    Q: Tensor
    K: Tensor
    V: Tensor
    Out: Tensor
    Lse: Tensor
    PartOut: Tensor | None
    PartLse: Tensor | None
    PageTable: Tensor | None
    OfQuery: Tensor | None
    OfKey: Tensor | None
    OfDistance: Tensor | None
    Reals: Tensor | None
    Numbers: Tensor | None
    scale: float


class Prepared(NamedTuple):
    """Tensors that both passes of the backward read."""

    Q: Tensor
    K: Tensor
    V: Tensor
    GradOut: Tensor
    Level: Tensor
    Delta: Tensor


class BackwardQueriesCall(NamedTuple):
    """Tensors of the pass that computes the gradient of the queries."""

    Q: Tensor
    K: Tensor
    V: Tensor
    GradOut: Tensor
    Level: Tensor
    Delta: Tensor
    GradQ: Tensor
    PartQ: Tensor | None
    OfQuery: Tensor | None
    OfKey: Tensor | None
    OfDistance: Tensor | None
    Reals: Tensor | None
    Numbers: Tensor | None
    GradX: Tensor | None
    PartX: Tensor | None
    scale: float


class BackwardKeysCall(NamedTuple):
    """Tensors of the pass that computes the gradients of keys and values."""

    Q: Tensor
    K: Tensor
    V: Tensor
    GradOut: Tensor
    Level: Tensor
    Delta: Tensor
    GradK: Tensor
    GradV: Tensor
    PartK: Tensor | None
    PartV: Tensor | None
    OfQuery: Tensor | None
    OfKey: Tensor | None
    OfDistance: Tensor | None
    Reals: Tensor | None
    Numbers: Tensor | None
    GradX: Tensor | None
    PartX: Tensor | None
    scale: float


class BackwardPairsCall(NamedTuple):
    """Tensors of the pass that computes what is gained by what scores read at pairs."""

    Q: Tensor
    K: Tensor
    V: Tensor
    GradOut: Tensor
    Level: Tensor
    Delta: Tensor
    OfQuery: Tensor | None
    OfKey: Tensor | None
    OfDistance: Tensor | None
    Reals: Tensor | None
    Numbers: Tensor | None
    Blocks: Tensor
    scale: float


class ScoreCall(NamedTuple):
    """Inputs of scores: columns [columns, B, H, length] in float32, and real tables in a row.

    ``Numbers``, int64, are what ``codegen.scores`` reads first.
    """

    OfQuery: Tensor | None = None
    OfKey: Tensor | None = None
    OfDistance: Tensor | None = None
    Reals: Tensor | None = None
    Numbers: Tensor | None = None


class PrepareBackwardCall(NamedTuple):
    """Tensors of the kernel that prepares the backward."""

    Out: Tensor
    GradOut: Tensor
    Lse: Tensor
    GradLse: Tensor | None
    Level: Tensor
    Delta: Tensor


class MergeOutputsCall(NamedTuple):
    """Shares of outputs, and where they are merged to."""

    PartOut: Tensor | None
    PartLse: Tensor | None
    Out: Tensor
    Lse: Tensor


class SumChunksCall(NamedTuple):
    """Shares of a gradient, and where their sum goes."""

    Part: Tensor | None
    Out: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The functions of scores of one's own, in all passes; none where scores stay as they are."""

    NUMBERS: Function = None
    OF_QUERY: Function = None
    OF_KEY: Function = None
    WEIGHS: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs(Scores):
    """How the pairs of PARTIAL tiles are decided: by masks, or by generated functions and what those read."""

    masks: Tensor | None = None
    constants: Tensor | None = None
    n_constants: int = 0
    tables: Tensor | None = None
    CONSTANTS: Function = None
    QUERY_TERMS: Function = None
    KEY_TERMS: Function = None
    KEEP: Function = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles(Pairs):
    """The tiles of one pass, and the token orders that they are tiles of."""

    items: Tensor
    first_items: Tensor
    plan_of: Tensor
    plan_batch: int
    plan_head: int
    full: Tensor
    partial: Tensor
    mask_ids: Tensor
    q_order: Tensor | None
    k_order: Tensor | None
    at_once: int
    width: int
    slots: int
    SPLIT: bool
    Q_ORDERED: bool
    K_ORDERED: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pass(Tiles):
    """Strides, lengths and block sizes of one of the three passes."""

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
    q_len: int
    k_len: int
    GROUP: int
    D: int
    DV: int
    BD: int
    BDV: int
    BQ: int
    BK: int
    PRECISION: str
    EVEN: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardArgs(_Pass):
    """All but the tensors of a forward."""

    ob: int
    oh: int
    os: int
    od: int
    heads: int
    n_columns: int
    n_pages: int
    period: int
    PAGE: int
    CLEARS: bool
    FOLDED: int
    SCORE: Function = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackwardQueriesArgs(_Pass):
    """All but the tensors of the pass of the queries' gradient."""

    gb: int
    gh: int
    gs: int
    gd: int
    heads: int
    DERIVATIVES: Function = None
    GAINS: int = 0
    WIDE: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BackwardKeysArgs(_Pass):
    """All but the tensors of the pass of the keys' and values' gradients."""

    gb: int
    gh: int
    gs: int
    gd: int
    kv_heads: int
    DERIVATIVES: Function = None
    GAINS: int = 0
    WIDE: int = 1
    BEFORE: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackwardPairsArgs(Scores):
    """All but the tensors of the pass of what scores read at pairs."""

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
    gb: int
    gh: int
    gs: int
    gd: int
    tiles: Tensor
    stretches: Tensor
    plan_of: Tensor
    plan_batch: int
    plan_head: int
    masks: Tensor
    q_order: Tensor | None
    k_order: Tensor | None
    q_len: int
    k_len: int
    heads: int
    most: int
    batches: int
    blocks: int
    GROUP: int
    D: int
    DV: int
    BD: int
    BDV: int
    BQ: int
    BK: int
    PRECISION: str
    Q_ORDERED: bool
    K_ORDERED: bool
    DERIVATIVES: Function
    GAINS: int
    BEFORE: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareBackwardArgs:
    """Strides of the output and its gradient, and sizes."""

    ob: int
    oh: int
    os: int
    od: int
    gb: int
    gh: int
    gs: int
    gd: int
    q_len: int
    heads: int
    DV: int
    BDV: int
    BQ: int
    THROUGH_LSE: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """The tiles whose work was split among items."""

    splits: Tensor
    first_splits: Tensor
    plan_of: Tensor
    plan_batch: int
    plan_head: int
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeOutputsArgs(Splits):
    """Strides of the output, and sizes."""

    ob: int
    oh: int
    os: int
    od: int
    q_order: Tensor | None
    q_len: int
    heads: int
    DV: int
    BDV: int
    BQ: int
    Q_ORDERED: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SumChunksArgs(Splits):
    """Sizes of a contiguous gradient."""

    order: Tensor | None
    length: int
    heads: int
    D: int
    BD: int
    BLOCK: int
    ORDERED: bool


def by_name(values: Any) -> dict[str, Any]:
    """The fields of a dataclass, for another that has them too."""
    return {field.name: getattr(values, field.name) for field in fields(values)}


def strides(**tensors: Tensor) -> dict[str, Any]:
    """The strides of tensors of four dims: of ``q`` they are ``qb``, ``qh``, ``qs`` and ``qd``."""
    return {
        letter + dim: step
        for letter, x in tensors.items()
        for dim, step in zip("bhsd", x.stride(), strict=True)
    }
