"""Calls on distributed tensors: each rank computes its own batch elements and heads, which keep their numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from attndsl.compiler import Program, asks_for_batch
from attndsl.op.checks import in_the_call
from attndsl.op.dispatching import PLAIN
from attndsl.positions import split_heads, with_heads
from attndsl.source import AttnDslError, Diagnostic

BATCH, HEADS = 0, 1  # dims of q, k and v along which a call may be sharded


def is_distributed(x: object) -> bool:
    """True for a DTensor; nothing of torch.distributed is imported to know."""
    return type(x) not in PLAIN and isinstance(x, Tensor) and hasattr(x, "device_mesh")


@dataclass(frozen=True, slots=True, eq=False)
class Shards:
    """The call of one rank, and how its results are put together."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: Any
    extents: Mapping[str, Any] | None
    inputs: Mapping[str, Any]
    positions: Mapping[str, Any] | None
    mesh: Any
    placements: tuple[Any, ...]
    counts: tuple[int, int]  # batch elements and heads of the whole call

    def whole(self, out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
        """Distributed results, sharded as q is."""
        return self._whole(out), self._whole(lse)

    def _whole(self, x: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor

        shape = (*self.counts, *x.shape[2:])
        stride = tuple([math.prod(shape[i + 1 :]) for i in range(len(shape))])
        size = torch.Size(shape)
        return DTensor.from_local(x, self.mesh, self.placements, shape=size, stride=stride)


def shards(
    program: Program,
    qkv: tuple[Any, Any, Any],
    scale: Any,
    extents: Mapping[str, Any] | None,
    inputs: Mapping[str, Any],
    positions: Mapping[str, Any] | None,
) -> Shards:
    """The share of this rank, which is that of q along batch and heads; what is sharded otherwise is gathered.

    Inputs and positions that are plain tensors are those of the whole call, the same on every rank.

    Raises:
        AttnDslError: A503, only some of q, k and v are distributed, or a trained ``scale`` is not; or the pattern asks
            for the number of a batch element, and the batch is sharded.
    """
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    q, k, v = qkv
    if not all(map(is_distributed, qkv)) or not q.device_mesh == k.device_mesh == v.device_mesh:
        _fail(program, "q, k and v must all be distributed, on one mesh")
    mesh, placements = q.device_mesh, _kept(q.placements)
    (count, heads), kv_heads = q.shape[:2], k.shape[HEADS]
    ranks = math.prod([mesh.size(i) for i, p in enumerate(placements) if p.is_shard(HEADS)])
    shares = heads % ranks == kv_heads % ranks == 0
    shape, first = compute_local_shape_and_global_offset(q.shape, mesh, placements)
    of_batch = slice(first[BATCH], first[BATCH] + shape[BATCH])
    of_heads = slice(first[HEADS], first[HEADS] + shape[HEADS])
    if any(p.is_shard(BATCH) for p in placements) and asks_for_batch(program.mask):
        _fail(program, "the batch is sharded, and the pattern asks which element of it it is in")
    if ranks > 1:
        start, total = split_heads(extents)[0] or (0, heads)
        extents = with_heads(split_heads(extents)[1], start + of_heads.start, total)
    local = [_local(q, placements, placements)]
    for x in (k, v):
        if shares:
            local.append(_local(x, placements, placements))
        else:
            local.append(_of_heads(x, placements, of_heads, heads // kv_heads))
    if is_distributed(scale):
        scale = _local(scale, _whole(mesh), _partial(placements))
    elif isinstance(scale, Tensor) and scale.requires_grad:
        _fail(program, "a trained scale must be distributed, as q is")
    if isinstance(scale, Tensor) and scale.dim():
        scale = _cut_scale(scale, (count, heads), (of_batch, of_heads))
    dims = {table.name: table.dims for table in program.mask.tables}
    inputs = _cut(inputs, count, of_batch, dims)
    positions = None if positions is None else _cut(positions, count, of_batch, {})
    given = scale, extents, inputs, positions, mesh, placements, (count, heads)
    return Shards(local[0], local[1], local[2], *given)


def _kept(placements: Sequence[Any]) -> tuple[Any, ...]:
    from torch.distributed.tensor import Replicate

    kept = (p.is_shard(BATCH) or p.is_shard(HEADS) for p in placements)
    return tuple(p if keep else Replicate() for p, keep in zip(placements, kept, strict=True))


def _whole(mesh: Any) -> tuple[Any, ...]:
    from torch.distributed.tensor import Replicate

    return tuple(Replicate() for _ in range(mesh.ndim))


def _partial(placements: Sequence[Any]) -> tuple[Any, ...]:
    """Gradients that are sums over the ranks that hold different shares."""
    from torch.distributed.tensor import Partial

    return tuple(Partial() if p.is_shard() else p for p in placements)


def _local(x: Any, placements: Sequence[Any], of_gradients: Sequence[Any]) -> Tensor:
    made: Tensor = x.redistribute(placements=placements).to_local(grad_placements=of_gradients)
    return made


def _of_heads(x: Any, placements: Sequence[Any], held: slice, group: int) -> Tensor:
    """Key heads that every rank has, one for each query head that this one holds."""
    whole = [
        w if p.is_shard(HEADS) else p
        for p, w in zip(placements, _whole(x.device_mesh), strict=True)
    ]
    sums = [
        g if p.is_shard(HEADS) else p for p, g in zip(placements, _partial(placements), strict=True)
    ]
    local = _local(x, whole, sums)
    index = torch.arange(held.start, held.stop, device=local.device) // group
    return local.index_select(HEADS, index)


def _cut(
    given: Mapping[str, Any], count: int, held: slice, dims: Mapping[str, tuple[str | int, ...]]
) -> dict[str, Any]:
    """Inputs or positions of the batch elements that are held; of inputs, those that begin with the batch."""
    found = {}
    for name, value in given.items():
        x = value.full_tensor() if is_distributed(value) else value
        begins = dims.get(name, ("batch",))[:1] == ("batch",)
        if begins and not isinstance(x, int):
            x = torch.as_tensor(x)
            x = x[held] if x.dim() and len(x) == count else x
        found[name] = x
    return found


def _cut_scale(scale: Tensor, counts: tuple[int, int], held: tuple[slice, slice]) -> Tensor:
    if scale.dim() == 1:
        return scale[held[HEADS]] if len(scale) == counts[HEADS] else scale
    for dim in (BATCH, HEADS):
        at = scale.dim() - 4 + dim
        if at >= 0 and scale.shape[at] == counts[dim]:
            scale = scale.narrow(at, held[dim].start, held[dim].stop - held[dim].start)
    return scale


def _fail(program: Program, title: str) -> NoReturn:
    raise AttnDslError(Diagnostic("A503", title, notes=in_the_call(program)))
