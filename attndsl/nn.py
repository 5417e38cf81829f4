"""Patterns and attentions as PyTorch modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from attndsl import attentions, compiling, ir
from attndsl.arguments import Layouts
from attndsl.beginnings import FIXED, TRAINED, Model, alibi_slopes
from attndsl.compiled import Pattern, compile_pattern
from attndsl.compiler import read_saved, saved
from attndsl.ir import named_extents
from attndsl.source import AttnDslError, Diagnostic, suggest
from attndsl.sources import Source, read_attention

__all__ = ["Attention", "PatternAttention", "PatternSelfAttention", "alibi_slopes", "published"]


class PatternAttention(nn.Module):
    """Attention restricted to a pattern, without projections: ``forward(q, k, v)``.

    Its state dict holds the pattern, as text in uint8 [bytes], and refuses one of another pattern.

    Args:
        pattern: The compiled pattern, or what ``attndsl.compile`` takes.
        scale: Factor on the scores; 1/sqrt(head_dim) by default. A parameter is trained: one number, or [heads].
        backend: As for calling the pattern.
        layout: As for calling the pattern.
        extents: Sizes of grid axes that lengths do not determine, the same in every call.
        heads: How many heads the whole model has, where calls hold some of them only; by default those of q.
        head_start: Which of them is the first of a call.
    """

    def __init__(
        self,
        pattern: Pattern | Source,
        *,
        scale: float | Tensor | None = None,
        backend: str = "auto",
        layout: Layouts | None = None,
        extents: Mapping[str, int] | None = None,
        heads: int | None = None,
        head_start: int = 0,
    ) -> None:
        super().__init__()
        self.pattern = compile_pattern(pattern)
        self.scale = scale
        self.backend = backend
        self.layout = layout
        self.extents = named_extents(extents)
        self.heads, self.head_start = heads, head_start

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        extents: Mapping[str, int] | None = None,
        inputs: Mapping[str, Any] | None = None,
        heads: int | None = None,
        head_start: int | None = None,
        **named: Any,
    ) -> Tensor:
        """q [B, H, Q, D], k [B, Hkv, K, D], v [B, Hkv, K, Dv] -> [B, H, Q, Dv].

        ``extents``, ``heads`` and ``head_start`` are those of this call; the pattern's run-time inputs stand in
        ``inputs``, or go by name, as do positions of the tokens.
        """
        sizes = self.extents
        if extents is not None:
            sizes = {**sizes, **named_extents(extents)}
        options = {"scale": self.scale, "backend": self.backend, "layout": self.layout}
        if named:  # an input may have the name of an option
            declared = {table.name for table in self.pattern.ir.tables}
            clash = [name for name in (*options, "return_lse") if name in named]
            taken = {name: named.pop(name) for name in clash if name in declared}
            inputs = {**(inputs or {}), **taken} if taken else inputs
        out: Tensor = self.pattern(
            *(q, k, v),
            extents=sizes,
            inputs=inputs,
            heads=self.heads if heads is None else heads,
            head_start=self.head_start if head_start is None else head_start,
            **(options | named),
        )
        return out

    def get_extra_state(self) -> Tensor:
        """The pattern for the state dict, uint8 [bytes]: a tensor, which every format of checkpoints takes."""
        text = saved(replace(self.pattern.ir, doc=""), self.pattern.layer, self.pattern.without)
        return torch.tensor(list(text.encode()), dtype=torch.uint8, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Refuses the state of another pattern; patterns with equal normal forms are one.

        Raises:
            AttnDslError: A508, it is that of another pattern; A405, it is none.
        """
        theirs = Pattern(*read_saved(bytes(state.tolist())))
        if _meaning(theirs) != _meaning(self.pattern):
            title = "the state dict belongs to a module of another pattern"
            found = f"in the state dict: {theirs!r}, layer {theirs.layer}"
            here = f"in the module: {self.pattern!r}, layer {self.pattern.layer}"
            helps = ("to load the weights alone, leave out its keys that end in `_extra_state`",)
            raise AttnDslError(Diagnostic("A508", title, notes=(found, here), helps=helps))

    def extra_repr(self) -> str:
        """The pattern's name in the module's printout."""
        return self.pattern.name


def _meaning(pattern: Pattern) -> tuple[str, int]:
    """The relation, and the layer if it reads that."""
    nodes = *ir.postorder(pattern.ir.root), *ir.postorder(pattern.ir.zeros)
    reads = any(isinstance(node, ir.Var) and node.name == "layer" for node in nodes)
    return pattern.digest, pattern.layer if reads else 0


class Attention(nn.Module):
    """An attention that owns some of its real inputs, without projections: ``forward(q, k, v)``.

        Attention(t5, parameters={"bias": torch.randn(8, 32)})        # trained
        Attention(alibi, buffers={"slope": alibi_slopes(8)})          # saved and moved, never trained

    Its state dict holds these inputs and the digest of the attention, and refuses one of another attention.

    Args:
        attention: The compiled attention, or what ``attndsl.compile`` takes.
        parameters: First values of the real inputs that are trained, by name.
        buffers: Values of inputs that stay as they are, by name.
        scale: Factor on q k^T; 1/sqrt(head_dim) by default. A parameter is trained: one number, or [heads].
        backend: As for calling the attention.
        layout: As for calling the attention.
        extents: Sizes of grid axes that lengths do not determine, the same in every call.

    Raises:
        AttnDslError: A501, the attention has no such input.
    """

    def __init__(
        self,
        attention: attentions.Attention | ir.Attention | str,
        *,
        parameters: Mapping[str, Tensor] | None = None,
        buffers: Mapping[str, Tensor] | None = None,
        scale: float | Tensor | None = None,
        backend: str = "auto",
        layout: Layouts | None = None,
        extents: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        compiled = compiling.compile(attention)
        if not isinstance(compiled, attentions.Attention):
            title = f"{compiled.name or 'the pattern'} is a pattern: PatternAttention takes those"
            raise AttnDslError(Diagnostic("A211", title))
        self.attention = compiled
        self.scale, self.backend, self.layout = scale, backend, layout
        self.extents = named_extents(extents)
        known = {table.name for table in compiled.inputs} | {*compiled.ir.ignored}
        for name in [*(parameters or {}), *(buffers or {})]:
            if name not in known:
                title = f"{compiled.name or 'the attention'} has no input {name!r}"
                notes = (f"inputs: {', '.join(sorted(known)) or 'none'}",)
                raise AttnDslError(Diagnostic("A501", title, notes=notes))
        # a folder of their own, since an input may be named like a method of modules
        self.owned = nn.ParameterDict(
            {name: nn.Parameter(x) for name, x in (parameters or {}).items()}
        )
        self.fixed = nn.Module()
        for name, x in (buffers or {}).items():
            self.fixed.register_buffer(f"input_{name}", x)

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

        Inputs that the module does not own stand in ``inputs``, or go by name, as do positions of the tokens.
        """
        mine: dict[str, Any] = dict(self.owned.items())
        mine |= {name.removeprefix("input_"): x for name, x in self.fixed.named_buffers()}
        options = {"scale": self.scale, "backend": self.backend, "layout": self.layout}
        sizes = {**self.extents, **named_extents(extents)}
        given = {**mine, **(inputs or {})}
        out: Tensor = self.attention(q, k, v, extents=sizes, inputs=given, **(options | named))
        return out

    def get_extra_state(self) -> Tensor:
        """The digest of the attention for the state dict, uint8 [16]."""
        return torch.tensor(list(bytes.fromhex(self.attention.digest)), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Refuses the state of another attention.

        Raises:
            AttnDslError: A508, it is that of another attention.
        """
        if bytes(state.tolist()).hex() != self.attention.digest:
            title = "the state dict belongs to a module of another attention"
            helps = ("to load the weights alone, leave out its keys that end in `_extra_state`",)
            raise AttnDslError(Diagnostic("A508", title, helps=helps))

    def extra_repr(self) -> str:
        """The attention's name in the module's printout."""
        return self.attention.name


def published(
    name: str,
    heads: int,
    *,
    head_dim: int = 64,
    layer: int = 0,
    values: Mapping[str, Any] | None = None,
    **options: Any,
) -> Attention:
    """A published attention that owns its real inputs, which begin as in the paper.

        published("t5_decoder", 8)                          # a trained table of 32 buckets
        published("alibi", 8)                               # slopes that stay as they are
        published("swin_v1", 4, values={"m": 7}, extents={"y": 56})

    Args:
        name: One of ``attndsl.library.attentions()`` whose first values do not come from a network of its own.
        heads: Query heads.
        head_dim: Their width.
        layer: Which layer it is, from 0 on.
        values: For parameters of the attention; the others keep the paper's defaults.
        **options: Those of `Attention`: scale, backend, layout, extents.

    Raises:
        AttnDslError: A211, there are no first values for it: what `Attention` is given are its own.
    """
    owned, fixed = TRAINED.get(name, {}), FIXED.get(name, {})
    if not owned and not fixed:
        near = suggest(name, [*TRAINED, *FIXED])
        helps = (f"did you mean {near!r}?",) if near else ("Attention(..., parameters={...})",)
        title = f"there are no first values for {name!r}"
        notes = (f"there are for {', '.join(sorted([*TRAINED, *FIXED]))}",)
        raise AttnDslError(Diagnostic("A211", title, notes=notes, helps=helps))
    model = Model(heads, head_dim, layer, values or {})
    read = read_attention(name, None, values or {}, None, layer)
    return Attention(
        attentions.Attention(read, layer),
        parameters={each: begin(model) for each, begin in owned.items()},
        buffers={each: begin(model) for each, begin in fixed.items()},
        **options,
    )


class PatternSelfAttention(nn.Module):
    """Multi-head self-attention with projections, restricted to a pattern: [B, S, dim] -> [B, S, dim].

    The projections ``project_q``, ``project_k``, ``project_v`` and ``project_out`` stand apart, so that ranks can
    hold a share of the heads each: column by column the first three, row by row the last.

    Args:
        pattern: The compiled pattern, or what ``attndsl.compile`` takes.
        dim: Width of the input.
        heads: Query heads of the whole model; ``dim`` is divided among them.
        kv_heads: Key and value heads (GQA); as many as ``heads`` by default.
        bias: Whether the projections have one.
        head_start: Where ``project_q`` gives some of the heads only, which is the first; by default what its
            weight says, a DTensor on a mesh of one dim.
    """

    def __init__(
        self,
        pattern: Pattern | Source,
        dim: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        bias: bool = False,
        head_start: int | None = None,
    ) -> None:
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        if heads < 1 or kv_heads < 1 or dim % heads or heads % kv_heads:
            raise ValueError(
                f"heads ({heads}) must divide dim ({dim}), and kv_heads ({kv_heads}) must divide heads"
            )
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        self.head_start = head_start
        self.attention = PatternAttention(pattern)
        self.project_q = nn.Linear(dim, dim, bias=bias)
        self.project_k = nn.Linear(dim, kv_heads * self.head_dim, bias=bias)
        self.project_v = nn.Linear(dim, kv_heads * self.head_dim, bias=bias)
        self.project_out = nn.Linear(dim, dim, bias=bias)

    def forward(
        self,
        x: Tensor,
        *,
        extents: Mapping[str, int] | None = None,
        inputs: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> Tensor:
        """x [B, S, dim] -> [B, S, dim]; ``extents``, run-time inputs and positions as `PatternAttention`.

        Raises:
            AttnDslError: as a call of the pattern; A402, it is not known which heads ``project_q`` gives; A502, they do
                not go with those of ``project_k`` and ``project_v``.
        """
        q, k, v = (
            project(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for project in (self.project_q, self.project_k, self.project_v)
        )
        if isinstance(q, Tensor) and q.shape[1] != self.heads:
            start = self._first_head(q.shape[1])
            k, v = (self._of_heads(x, start, q.shape[1]) for x in (k, v))
            named |= {"heads": self.heads, "head_start": start}
        mixed = self.attention(q, k, v, extents=extents, inputs=inputs, **named)
        out: Tensor = self.project_out(mixed.transpose(1, 2).flatten(2))
        return out

    def _first_head(self, count: int) -> int:
        """The first of ``count`` heads that this rank holds."""
        if self.head_start is not None:
            return self.head_start
        weight: Any = self.project_q.weight
        placements: Any = getattr(weight, "placements", ())
        if len(placements) == 1 and placements[0].is_shard(0):
            mesh = weight.device_mesh
            if mesh.size() * count == self.heads:
                return int(mesh.get_local_rank()) * count
        title = f"project_q gives {count} of {self.heads} heads: say from which on, by `head_start`"
        raise AttnDslError(Diagnostic("A402", title))

    def _of_heads(self, x: Tensor, start: int, count: int) -> Tensor:
        """The key heads of these query heads, of all or of those that go with them."""
        group, held = self.heads // self.kv_heads, x.shape[1]
        first, last = start // group, -(-(start + count) // group)
        if held == self.kv_heads:
            x = x[:, first:last]
        fits = (start % group == 0 and count % group == 0) or last - first == 1
        if x.shape[1] != last - first or not fits:
            title = f"query heads {start} to {start + count - 1} do not go with {held} key heads"
            helps = (f"{group} query heads share a key head: keep them on one rank",)
            raise AttnDslError(Diagnostic("A502", title, helps=helps))
        return x
