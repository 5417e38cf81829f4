"""Inputs of a pattern that is a function on tensors: extents, tables and what the pattern asks of them.

Files that ``emit`` writes hold this text beside that of ``standalone``, so it asks for little else of the package.
"""

import collections
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from attndsl.backends.live_tiles import Schedule
from attndsl.backends.standalone_positions import Element


def resolved(
    extents: list[int | None], *spaces: tuple[str, int, Sequence[Sequence[int]]]
) -> list[int]:
    """All extents; one that is None follows from the length of a space where the others are known.

    A space is its name, its length, and for each segment the places of its axes among the extents.
    """

    def tokens(segments: Sequence[Sequence[int]], default: int) -> int:
        known = [default if x is None else x for x in extents]
        return sum(math.prod(known[axis] for axis in axes) for axes in segments)

    for turn in range(2 * len(extents)):
        for _, length, segments in spaces:
            unknown = [axis for axes in segments for axis in axes if extents[axis] is None]
            unit = tokens(segments, 1) - tokens(segments, 0)
            if len(unknown) == 1 and (unit or turn >= len(extents)):
                extents[unknown[0]] = max(0, (length - tokens(segments, 0)) // max(1, unit))
    for name, length, segments in spaces:
        if any(extents[axis] is None for axes in segments for axis in axes):
            raise ValueError(f"extents of {name} are missing: one at most follows from its length")
        if tokens(segments, 0) != length:
            shape = [[extents[axis] for axis in axes] for axes in segments]
            raise ValueError(f"{length} tokens do not fill {name} of extents {shape}")
    return [x for x in extents if x is not None]


def as_input(
    name: str,
    value: Any,
    kind: str,
    dims: Sequence[Any],
    shape: Sequence[int | None],
    device: torch.device,
    most: int,
    at: Element | None,
) -> Tensor:
    """A run-time input as patterns read it: "bool", "int", or a "list" of integers, all within ±``most``.

    None in ``shape`` is any extent.
    """
    x = torch.as_tensor(value, device=device)
    given = tuple(x.shape)
    if at is not None and x.dim() == len(dims):
        x = at.laid_out(x, kind, dims, shape)
    fits = x.dim() == len(shape)
    if not fits or any(n not in (None, m) for n, m in zip(shape, x.shape, strict=True)):
        raise ValueError(f"{name} has the shape {given}, not {tuple(shape)}")
    is_bool = kind == "bool"
    if (x.dtype == torch.bool) != is_bool or x.is_floating_point() or x.is_complex():
        raise ValueError(f"{name} holds {x.dtype}, not {'truth values' if is_bool else 'integers'}")
    if is_bool:
        return x
    x = x.long()
    if x.numel() and max(int(x.max()), -int(x.min())) > most:
        raise ValueError(
            f"{name} holds numbers beyond {most}: values of the pattern might not fit 64 bits"
        )
    return x


def require(text: str, holds: Tensor) -> None:
    """Refuse inputs that are not what a pattern asks for; ``holds`` broadcasts to [batch, head]."""
    broken = ~holds[(None,) * (2 - holds.dim())]
    if broken.any():
        places = zip(("batch element", "head"), broken.nonzero()[0], broken.shape, strict=True)
        named = [f"{word} {int(place)}" for word, place, size in places if size > 1]
        first = f", first for {', '.join(named)}" if named else ""
        raise ValueError(f"the pattern does not allow this call: {text}{first}")


RECENT: collections.deque[tuple[Any, Any, Any, Schedule]] = collections.deque(maxlen=8)


def recalled(
    sizes: tuple[Any, ...], inputs: tuple[Any, ...], make: Callable[[], Schedule]
) -> Schedule:
    """The schedule of a call: not made again for the same tensors, as long as they are unchanged."""
    stamps = [stamp(x) for x in inputs]
    for known_sizes, known, known_stamps, schedule in RECENT:
        same = all(a is b or not isinstance(a, Tensor) for a, b in zip(known, inputs, strict=True))
        if same and known_sizes == sizes and known_stamps == stamps:
            return schedule
    schedule = make()
    RECENT.append((sizes, inputs, stamps, schedule))
    return schedule


def stamp(x: Any) -> Any:
    """A value that is equal as long as an input is unchanged; it never is for one that may change unseen."""
    if isinstance(x, Tensor):
        return object() if x.is_inference() else x._version
    return (x,) if x is None or isinstance(x, int) else object()
