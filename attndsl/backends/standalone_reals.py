"""Real inputs of an attention over patterns that are functions on tensors, and the arithmetic of rows.

Files that ``emit`` writes for attentions hold this text, so it asks for nothing else of the package.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

EXACT = 1 << 24  # whole numbers below it are float32 numbers


def exact(x: Tensor) -> Tensor:
    """Whole numbers as float32 numbers, if all of them are any."""
    if x.numel() and float(x.abs().max()) >= EXACT:
        raise ValueError(f"a whole number in the scores reaches {EXACT}: it is no float32 number")
    return x


def vectors(x: Tensor, head: Tensor) -> Tensor:
    """The vectors of queries or keys for each query head, in float32."""
    return x.float().repeat_interleave(len(head) // max(1, x.shape[1]), 1)


def rows(table: Tensor, *places: Tensor | int) -> Tensor:
    """The last dim of a table at these places of the dims before it; zeros outside."""
    index = [torch.as_tensor(place, device=table.device) for place in places]
    inside = torch.ones((), dtype=torch.bool, device=table.device)
    for place, size in zip(index, table.shape, strict=False):
        inside = inside & (place >= 0) & (place < size)
    if not table.numel():
        return table.new_zeros((1, table.shape[-1]))
    sizes = zip(index, table.shape, strict=False)
    found = table[tuple(place.clamp(0, size - 1) for place, size in sizes)]
    return found * inside[..., None]


def product(left: Tensor, right: Tensor) -> Tensor:
    """The inner products of all rows of two vectors, [B, H, rows of left, rows of right]."""
    flat = left.flatten(2, -2) @ right.flatten(2, -2).mT
    return flat.reshape(*flat.shape[:2], *left.shape[2:-1], *right.shape[2:-1])


def least(left: Tensor, right: Tensor) -> Tensor:
    """The lesser; at a tie the gradient is the left one's."""
    return torch.where(left <= right, left, right)


def greatest(left: Tensor, right: Tensor) -> Tensor:
    """The greater; at a tie the gradient is the left one's."""
    return torch.where(left >= right, left, right)


def scaled(q: Tensor, scale: Any) -> tuple[Tensor, float]:
    """Queries, and what their scores are multiplied by: a tensor, [H] or like [B, H, Q, 1], multiplies q itself."""
    if not isinstance(scale, Tensor):
        return q, q.shape[3] ** -0.5 if scale is None else float(scale)
    factor = scale.view(1, -1, 1, 1) if scale.dim() == 1 else scale
    return (q.float() * factor).to(q.dtype), 1.0


def seed_of(value: Any, q: Tensor) -> Tensor:
    """The seed of a call with dropout, int64 [1]."""
    x = torch.as_tensor(value, device=q.device)
    if x.numel() != 1 or x.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"dropout needs an int as its seed, not {value!r:.40}")
    return x.reshape(1).long()


def real(name: str, value: Any, dims: Sequence[Any], q: Tensor, k_len: int) -> Tensor:
    """A real input in float32, an entry that serves all repeated along batch, head, q and k."""
    x = torch.as_tensor(value, device=None if isinstance(value, Tensor) else q.device)
    if x.dtype == torch.bool or x.is_complex() or x.device != q.device:
        raise ValueError(
            f"{name} holds real numbers on the device of q, not {x.dtype} on {x.device}"
        )
    if x.dim() != len(dims):
        raise ValueError(f"{name} has the dims {list(dims)}, not the shape {list(x.shape)}")
    counts = {"batch": q.shape[0], "head": q.shape[1], "q": q.shape[2], "k": k_len}
    for dim, size in zip(dims, x.shape, strict=True):
        if dim in counts and size not in (1, counts[dim]):
            raise ValueError(f"{name} has {size} entries along {dim}, not {counts[dim]}")
    return x.float().expand([counts.get(dim, n) for dim, n in zip(dims, x.shape, strict=True)])


def fits(name: str, shape: Sequence[int], wanted: Sequence[int | None]) -> None:
    """Refuse a real input whose shape is another; None in ``wanted`` is any extent."""
    if any(n not in (None, m) for n, m in zip(wanted, shape, strict=True)):
        raise ValueError(f"{name} has the shape {tuple(shape)}, not {tuple(wanted)}")
