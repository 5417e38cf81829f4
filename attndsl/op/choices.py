"""The operator that makes the tables of selections within a compiled graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor

from attndsl.source import AttnDslError, Diagnostic

Shape: TypeAlias = tuple[int | torch.SymInt, ...]


@dataclass(frozen=True, slots=True)
class TableMaker:
    """The selections of a pattern as a function of tensors."""

    make: Callable[[Tensor, Tensor, Mapping[str, Tensor], float], Sequence[Tensor]]
    shapes: Callable[[Tensor, Tensor], Sequence[Shape]]  # of the tables of such q and k


_MAKERS: Final[dict[int, TableMaker]] = {}  # by digest: as long as graphs may name them


def keep_maker(digest: int, maker: TableMaker) -> None:
    """Lets graphs of this process name the selections by a digest."""
    _MAKERS[digest] = maker


def _maker(digest: int) -> TableMaker:
    if digest not in _MAKERS:
        title = "this graph chooses as a pattern says that this process has not compiled"
        helps = ("compile the pattern with attndsl before the graph runs",)
        raise AttnDslError(Diagnostic("A509", title, helps=helps))
    return _MAKERS[digest]


def _choose(
    q: Tensor, k: Tensor, inputs: Sequence[Tensor], names: str, digest: int, scale: float
) -> list[Tensor]:
    given = dict(zip(names.split(",") if names else [], inputs, strict=True))
    return list(_maker(digest).make(q, k, given, scale))


def _choose_fake(
    q: Tensor, k: Tensor, inputs: Sequence[Tensor], names: str, digest: int, scale: float
) -> list[Tensor]:
    shapes = _maker(int(digest)).shapes(q, k)
    return [q.new_empty(shape, dtype=torch.int32) for shape in shapes]


@dataclass(frozen=True, slots=True)
class _Parts:
    compute: Callable[..., Any]
    fake: Callable[..., Any]


CHOICE_KERNELS: Final = {"choose": _Parts(_choose, _choose_fake)}
