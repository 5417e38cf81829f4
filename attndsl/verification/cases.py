"""One call of a pattern as data: everything that its result depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends import lse_dtype
from attndsl.compiled import Pattern


@dataclass(frozen=True, eq=False)
class Tensors:
    """Tensors of one attention call, and the gradients that come back to it."""

    q: Tensor  # [B, H, Q, D]
    k: Tensor  # [B, Hkv, K, D]
    v: Tensor  # [B, Hkv, K, Dv]
    dout: Tensor  # [B, H, Q, Dv]
    dlse: Tensor  # [B, H, Q]
    zeros: Tensor | None = None  # zero keys of each query, int64 [B, H, Q]

    def to(self, dtype: torch.dtype) -> Tensors:
        """The same numbers in another dtype."""
        q, k, v, dout = (x.to(dtype) for x in (self.q, self.k, self.v, self.dout))
        return Tensors(q, k, v, dout, self.dlse.to(lse_dtype(dtype)), self.zeros)


@dataclass(frozen=True, eq=False, repr=False)
class Case:
    """Lengths, heads, widths, dtype, extents and run-time inputs of one call.

    Attributes:
        extents: Sizes of grid axes that are not fixed, by full name ("image.y").
        inputs: Arrays of the declared dims.
        tile: The tile to check the schedule at.
        layout: The order in which tokens are taken into tiles.
        scale: Factor of the scores; None is 1 / sqrt(head_dim).
        is_contiguous: Whether tensors lie [B, H, S, D] in memory; else [B, S, H, D].
        seed: Seed of the numbers in the tensors.
    """

    q_len: int
    k_len: int
    batch: int = 1
    heads: int = 1
    kv_heads: int = 1
    head_dim: int = 16
    value_dim: int = 16
    dtype: torch.dtype = torch.float32
    extents: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    tile: tuple[int, int] = (16, 16)
    layout: str = "natural"
    scale: float | None = None
    is_contiguous: bool = True
    seed: int = 0

    @property
    def pairs(self) -> int:
        """Entries of the dense mask."""
        return self.batch * self.heads * self.q_len * self.k_len

    @property
    def factor(self) -> float:
        """The factor of the scores."""
        return float(max(1, self.head_dim)) ** -0.5 if self.scale is None else self.scale

    def tensors(self, device: str = "cpu") -> Tensors:
        """Normal numbers; equal for equal seeds and shapes, on every device."""
        make = torch.Generator().manual_seed(self.seed)

        def normal(heads: int, length: int, width: int) -> Tensor:
            shape = (self.batch, heads, length, width)
            if self.is_contiguous:
                made = torch.randn(shape, generator=make, dtype=torch.float64)
            else:
                swapped = (self.batch, length, heads, width)
                made = torch.randn(swapped, generator=make, dtype=torch.float64).transpose(1, 2)
            return made.to(self.dtype).to(device)

        return Tensors(
            q=normal(self.heads, self.q_len, self.head_dim),
            k=normal(self.kv_heads, self.k_len, self.head_dim),
            v=normal(self.kv_heads, self.k_len, self.value_dim),
            dout=normal(self.heads, self.q_len, self.value_dim),
            dlse=normal(self.heads, self.q_len, 1)[..., 0].to(lse_dtype(self.dtype)),
        )

    def inputs_on(self, device: str) -> dict[str, Tensor]:
        """The run-time inputs as tensors."""
        return {name: torch.as_tensor(value).to(device) for name, value in self.inputs.items()}

    def __repr__(self) -> str:
        """The call as one would write it, without defaults."""
        plain = Case(self.q_len, self.k_len)
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        shown = {
            name: value
            for name, value in given.items()
            if name in ("q_len", "k_len") or value != getattr(plain, name)
        }
        if self.inputs:
            shown["inputs"] = {name: np.asarray(x).tolist() for name, x in self.inputs.items()}
        return f"Case({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def __str__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        parts = [
            f"q {kind}[{self.batch}, {self.heads}, {self.q_len}, {self.head_dim}]",
            f"k [{self.batch}, {self.kv_heads}, {self.k_len}, {self.head_dim}]",
            f"v [{self.batch}, {self.kv_heads}, {self.k_len}, {self.value_dim}]",
        ]
        if self.layout != "natural":
            parts.append(f"layout {self.layout}")
        if self.scale is not None:
            parts.append(f"scale {self.scale}")
        if not self.is_contiguous:
            parts.append("lengths before heads in memory")
        return ", ".join(parts)

    def details(self) -> list[str]:
        """Extents and inputs, a line each."""
        lines = []
        if self.extents:
            lines.append("extents " + ", ".join(f"{n}={size}" for n, size in self.extents.items()))
        for name, value in self.inputs.items():
            array = np.asarray(value)
            shown = np.array2string(array, threshold=40, separator=", ").replace("\n", "")
            lines.append(f"{name} = {' '.join(shown.split())}")
        return lines


def dense(pattern: Pattern, case: Case) -> Tensor:
    """The meaning of the pattern for the case: bool [batch, heads, q_len, k_len]."""
    return pattern.mask(
        case.q_len,
        case.k_len,
        case.heads,
        batch=case.batch,
        extents=case.extents,
        inputs=case.inputs,
    )


def zero_keys(pattern: Pattern, case: Case) -> Tensor | None:
    """How many zero keys each query of the case sees, int64 [batch, heads, q_len]; None for none ever."""
    if pattern.ir.zeros is ir.ZERO:
        return None
    return pattern.zero_keys(
        case.q_len,
        case.k_len,
        case.heads,
        batch=case.batch,
        extents=case.extents,
        inputs=case.inputs,
    )
