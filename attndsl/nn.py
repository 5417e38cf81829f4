"""Patterns as PyTorch modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attndsl.compiled import Layouts, Pattern, compile  # noqa: A004 - the public name
from attndsl.compiler import Source
from attndsl.ir import named_extents


class PatternAttention(nn.Module):
    """Attention restricted to a pattern, without projections: ``forward(q, k, v)``.

    Args:
        pattern: The compiled pattern, or what ``attndsl.compile`` takes.
        scale: Factor on the scores; 1/sqrt(head_dim) by default. A parameter is trained: one number, or [heads].
        backend: As for calling the pattern.
        layout: As for calling the pattern.
        extents: Sizes of grid axes that lengths do not determine, the same in every call.
    """

    def __init__(
        self,
        pattern: Pattern | Source,
        *,
        scale: float | Tensor | None = None,
        backend: str = "auto",
        layout: Layouts | None = None,
        extents: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.pattern = compile(pattern)
        self.scale = scale
        self.backend = backend
        self.layout = layout
        self.extents = named_extents(extents)

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        extents: Mapping[str, int] | None = None,
        inputs: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> Tensor:
        """q [B, H, Q, D], k [B, Hkv, K, D], v [B, Hkv, K, Dv] -> [B, H, Q, Dv].

        ``extents`` are those of this call; the pattern's run-time inputs stand in ``inputs``, or go by name.
        """
        sizes = {**self.extents, **named_extents(extents)}
        out: Tensor = self.pattern(
            *(q, k, v),
            scale=self.scale,
            backend=self.backend,
            layout=self.layout,
            extents=sizes,
            inputs=inputs,
            **named,
        )
        return out

    def extra_repr(self) -> str:
        """The pattern's name in the module's printout."""
        return self.pattern.name


class PatternSelfAttention(nn.Module):
    """Multi-head self-attention with projections, restricted to a pattern: [B, S, dim] -> [B, S, dim].

    Args:
        pattern: The compiled pattern, or what ``attndsl.compile`` takes.
        dim: Width of the input.
        heads: Query heads; ``dim`` is divided among them.
        kv_heads: Key and value heads (GQA); as many as ``heads`` by default.
        bias: Whether the projections have one.
    """

    def __init__(
        self,
        pattern: Pattern | Source,
        dim: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        if heads < 1 or kv_heads < 1 or dim % heads or heads % kv_heads:
            raise ValueError(
                f"heads ({heads}) must divide dim ({dim}), and kv_heads ({kv_heads}) must divide heads"
            )
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        self.attention = PatternAttention(pattern)
        self.project_in = nn.Linear(dim, (heads + 2 * kv_heads) * self.head_dim, bias=bias)
        self.project_out = nn.Linear(dim, dim, bias=bias)

    def forward(
        self,
        x: Tensor,
        *,
        extents: Mapping[str, int] | None = None,
        inputs: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> Tensor:
        """x [B, S, dim] -> [B, S, dim]; ``extents`` and run-time inputs as `PatternAttention`."""
        batch, length, dim = x.shape
        counts = [self.heads, self.kv_heads, self.kv_heads]
        parts = torch.split(self.project_in(x), [n * self.head_dim for n in counts], dim=-1)
        q, k, v = (
            part.reshape(batch, length, count, self.head_dim).transpose(1, 2)
            for part, count in zip(parts, counts, strict=True)
        )
        mixed = self.attention(q, k, v, extents=extents, inputs=inputs, **named)
        out: Tensor = self.project_out(mixed.transpose(1, 2).reshape(batch, length, dim))
        return out
