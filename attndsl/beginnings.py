"""First values of the real inputs of published attentions, as in the papers and their code."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Model:
    """The model that first values are of: heads, their width, the layer from 0 on, values of parameters."""

    heads: int
    head_dim: int
    layer: int
    values: Mapping[str, Any]

    def value(self, name: str, default: int) -> int:
        """A parameter of the attention."""
        return int(self.values.get(name, default))


Begin: TypeAlias = Callable[[Model], Tensor]


def alibi_slopes(heads: int) -> Tensor:
    """The slopes of ALiBi, float32 [heads]: 2^(-8 i / n) for i = 1 .. n (Press, Smith and Lewis, ICLR 2022).

    Where ``heads`` is no power of two: those of the power below it, then every other one of the power above, as in
    the authors' code.
    """
    below = 1 << (max(1, heads).bit_length() - 1)
    first = [2.0 ** (-8.0 * i / below) for i in range(1, below + 1)]
    more = [2.0 ** (-4.0 * i / below) for i in range(1, 2 * below + 1, 2)]
    return torch.tensor([*first, *more][:heads])


def _buckets(model: Model) -> Tensor:
    """A number for each of the 32 buckets of distances of T5."""
    deviation = 1 / math.sqrt(model.heads * model.head_dim)
    return deviation * torch.randn(model.heads, 32)


def _offsets(model: Model) -> Tensor:
    """A number for each offset within a window of m x m tokens, m = 7 by default."""
    offsets = (2 * model.value("m", 7) - 1) ** 2
    return nn.init.trunc_normal_(torch.empty(model.heads, offsets), std=0.02)


def _difference(model: Model) -> Tensor:
    """The share of the second softmax that differential attention takes off, larger in later layers."""
    return torch.full((model.heads // 2,), 0.8 - 0.6 * math.exp(-0.3 * model.layer))


FIXED: Final[Mapping[str, Mapping[str, Begin]]] = {
    "alibi": {"slope": lambda model: alibi_slopes(model.heads)},
}
"""Inputs that stay as they are, by attention and name."""

TRAINED: Final[Mapping[str, Mapping[str, Begin]]] = {
    "kerple": {
        "decay": lambda model: 2 * torch.rand(model.heads),
        "reach": lambda model: torch.rand(model.heads),
    },
    "t5_encoder": {"bias": _buckets},
    "t5_decoder": {"bias": _buckets},
    "shaw": {
        "rel": lambda m: nn.init.xavier_uniform_(torch.empty(2 * m.value("w", 16) + 1, m.head_dim))
    },
    "gpt_oss": {"sink": lambda model: 0.02 * torch.randn(model.heads)},
    "differential": {"lam": _difference},
    "urpe": {"table": lambda model: torch.ones(model.heads, model.value("longest", 512))},
    "llama_adapter": {"gate": lambda model: torch.zeros(model.heads)},
    "swin_v1": {"table": _offsets},
    "swin_v2": {"tau": lambda model: torch.full((model.heads,), math.log(10.0))},
}
"""Inputs that are trained, likewise."""
