"""The protocol of back ends: which tiles they want, and what they make of a tiled mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from attndsl.backends.pages import Pages
from attndsl.schedule import Keys, KeySets, Lists, OpenLists, OpenMask, TiledMask, Whole

Tile: TypeAlias = tuple[int, int]  # (queries, keys)
BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

SCHEDULING: Final = {"cuda"}  # devices on which inputs are scheduled where they lie


def is_scheduled_on(device: torch.device) -> bool:
    """Whether inputs on such a device are scheduled there, and not read to the host."""
    return device.type in SCHEDULING


@dataclass(frozen=True, slots=True)
class Request:
    """Facts of a call by which a back end says whether, and how, it runs it: all but contents and strides.

    ``gradient``: whether a backward will be asked for. ``name`` tells the pattern, the layout and the part apart in
    every process, whatever the lengths; what is tuned is kept under it, and of a call without a name not at all.
    ``whole``: whether blocks of pairs may be computed at once, without tiles.
    """

    device: torch.device
    dtype: torch.dtype
    head_dim: int
    value_dim: int
    batch: int = 1
    heads: int = 1
    kv_heads: int = 1
    q_len: int = 1
    k_len: int = 1
    gradient: bool = False
    name: str = ""
    whole: bool = True

    @staticmethod
    def of(q: Tensor, k: Tensor, v: Tensor, *, gradient: bool, name: str = "") -> Request:
        """The facts of a call with such tensors."""
        batch, heads, q_len, head_dim = q.shape
        lengths = batch, heads, k.shape[1], q_len, k.shape[2]
        return Request(q.device, q.dtype, head_dim, v.shape[3], *lengths, gradient, name)

    @property
    def group(self) -> int:
        """How many query heads share a key head."""
        return self.heads // self.kv_heads


class ForwardKernels(Protocol):
    """Attention over a set of pairs, ready to run.

    Shapes: q [B, H, Q, D], k [B, Hkv, K, D], v [B, Hkv, K, Dv] with Hkv dividing H; any strides.
    out [B, H, Q, Dv] in the input dtype, bfloat16 for 8 bits. lse [B, H, Q]: natural logarithm, float64 for float64
    inputs, else float32. A query without a key has out 0, lse -inf and no gradient. Results are not
    differentiable, whatever went in.
    """

    @property
    def nbytes(self) -> int:
        """Bytes of what they hold."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, pages: Pages | None = None
    ) -> tuple[Tensor, Tensor]:
        """(out, lse) of softmax(scale q kᵀ) v over the live pairs.

        With ``pages`` the rows of k and v lie there, and k and v themselves only stand for them.
        """


@runtime_checkable
class Kernels(ForwardKernels, Protocol):
    """Attention that is differentiated too: a backward over the tensors of the forward."""

    def backward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        dout: Tensor,
        dlse: Tensor | None,
        *,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv), from what ``forward`` returned and the gradients that reached it."""


class Backend(Protocol):
    """A way to run schedules on some device."""

    @property
    def name(self) -> str:
        """The word users write in ``backend=``."""

    def supports(self, request: Request) -> str | None:
        """None when it can run the request, else the reason why not."""

    def tiles(self, request: Request) -> tuple[Tile, ...]:
        """The tiles that its passes over such a call walk, that of the forward first."""

    def lower(self, part: TiledMask, request: Request) -> Kernels:
        """Its passes over a mask that is scheduled in the tiles it named."""


@runtime_checkable
class ReadsOnlySeen(Protocol):
    """A back end whose forwards may be given keys and values that hold anything where no query sees them."""

    def reads_only_seen(self, request: Request) -> bool:
        """Whether a forward of such a call, in the default layout, may."""


@runtime_checkable
class TakesKeySets(Protocol):
    """A back end that runs calls of few queries over the keys of each, without tiles."""

    def takes_key_sets(self, request: Request) -> bool:
        """Whether it runs such a call so."""

    def lower_key_sets(self, sets: KeySets) -> ForwardKernels:
        """Its forward over the keys of each query."""

    def attend_keys(
        self, keys: Keys, q: Tensor, k: Tensor, v: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """The same at once, where all queries see these keys: (out, lse) as of `ForwardKernels`."""


@runtime_checkable
class TakesPairs(Protocol):
    """A back end that runs short calls, in which batch elements or heads differ, all at once."""

    def takes_pairs(self, request: Request) -> bool:
        """Whether it runs such a call so."""

    def lower_pairs(self, pairs: BoolArray, request: Request) -> Kernels:
        """Its passes over the pairs of each batch element and head, [batch, heads or 1, queries or 1, keys]."""


@runtime_checkable
class TakesLists(Protocol):
    """A back end that computes sets that differ from query to query over their lists, without tiles."""

    def lower_lists(self, lists: Lists, request: Request) -> Kernels | None:
        """Its passes over the lists; None where tiles are less work."""


@runtime_checkable
class TakesWhole(Protocol):
    """A back end that computes whole blocks of queries that see the same keys, without tiles."""

    def lower_whole(self, whole: Whole, request: Request) -> Kernels | None:
        """Its passes over the blocks; None where tiles are less work."""


class OpenKernels(Protocol):
    """Attention over an open mask: everything decided but for what its inputs hold."""

    @property
    def nbytes(self) -> int:
        """Bytes of what they hold."""

    def kernels(self, tables: Mapping[str, Tensor]) -> Kernels:
        """The passes for these inputs, bool or int64 and of all declared dims. Nothing of them is read later."""


@runtime_checkable
class TakesOpenMasks(Protocol):
    """A back end that schedules inputs on the device where they lie."""

    def takes_open_masks(self, request: Request) -> bool:
        """Whether it does so for such a call."""

    def prepare(self, mask: OpenMask, request: Request) -> OpenKernels:
        """Prepares the passes, but for what the inputs hold.

        Raises:
            NotOpen: it cannot.
        """

    def prepare_lists(self, lists: OpenLists, request: Request) -> OpenKernels:
        """Prepares the passes over lists, but for what the inputs hold.

        Raises:
            NotOpen: it cannot.
        """
