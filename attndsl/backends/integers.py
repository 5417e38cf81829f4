"""The arithmetic of patterns on tensors: what torch has no one operator for.

Files that ``emit`` writes hold this text, so it asks for nothing else of the package.
"""

from collections.abc import Iterator

import torch
from torch import Tensor


def read(values: Tensor, *places: Tensor | int) -> Tensor:
    """The entries of an input; 0 (false) outside it."""
    if not values.numel():
        return values.new_zeros(())
    index = [torch.as_tensor(place, device=values.device) for place in places]
    sizes = list(zip(index, values.shape, strict=True))
    found = values[tuple(place.clamp(0, size - 1) for place, size in sizes)]
    for place, size in sizes:
        found = found.masked_fill((place < 0) | (place >= size), 0)
    return found


def numbers(device: torch.device, **values: int) -> dict[str, Tensor]:
    """Lengths and counts as patterns compute with them."""
    return {name: torch.tensor(value, device=device) for name, value in values.items()}


MOST_STEPS = 1 << 16  # of a loop over numbers; each evaluates its body at all positions


def span(start: Tensor | int, stop: Tensor | int, device: torch.device) -> Iterator[Tensor]:
    """All integers that lie between any start and any stop."""
    ends = [torch.as_tensor(x, device=device) for x in (start, stop)]
    if not all(x.numel() for x in ends):
        return
    first, last = int(ends[0].min()), int(ends[1].max())
    if last - first > MOST_STEPS:
        raise ValueError(f"the pattern runs over {last - first} values at these lengths")
    yield from torch.arange(first, max(first, last), device=device)


def quotient(left: Tensor | int, right: Tensor) -> Tensor:
    """The floor of left / right; 0 where ``right`` is not positive."""
    return torch.where(right > 0, left // right.clamp(min=1), 0)


def remainder(left: Tensor | int, right: Tensor) -> Tensor:
    """left - right * floor(left / right); 0 where ``right`` is not positive."""
    return torch.where(right > 0, left % right.clamp(min=1), 0)


def ilog2(value: Tensor) -> Tensor:
    """The floor of the binary logarithm; -1 below 1."""
    rest, result = value.clamp(min=1), torch.zeros_like(value)
    for step in (32, 16, 8, 4, 2, 1):
        large = rest >= 1 << step
        result = result + step * large
        rest = torch.where(large, rest >> step, rest)
    return torch.where(value < 1, -1, result)


def pow2(value: Tensor) -> Tensor:
    """2 to the power of 0 .. 62, else 0."""
    return torch.where((value >= 0) & (value <= 62), 1 << value.clamp(0, 62), 0)
