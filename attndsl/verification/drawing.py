"""Random calls that a pattern's declarations allow: lengths, extents, heads, run-time inputs.

Whoever draws gives the dice: NumPy's in ``verify``, hypothesis' in ``attndsl.testing``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import torch

from attndsl import ir
from attndsl.inputs import obedient, sizes_asked
from attndsl.source import AttnDslError
from attndsl.verification.cases import Case

T = TypeVar("T")
IntArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]

# Around the tiles of 16 to 128 that backends use: one short, exact, one over; and small enough to read.
LENGTHS = (1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 40, 63, 64, 65, 100, 127, 128, 129, 200, 257, 300)
TILES = ((16, 16), (32, 16), (16, 64), (64, 64), (8, 8), (128, 128), (1, 16), (16, 1))
DTYPES = (torch.float32, torch.float32, torch.float64, torch.float64, torch.bfloat16, torch.float16)
HEADS = ((1, 1), (1, 1), (2, 2), (2, 1), (3, 3), (4, 2), (6, 2))  # of queries, of keys
WIDTHS = ((8, 8), (16, 16), (5, 11), (32, 16), (1, 3))  # of queries and keys, of values

SQUARE = 1200  # tokens of square calls at most
FARTHEST = 1 << 17  # keys of a call at most
MOST_SCORES = 1 << 21  # pairs of a dense mask that attention is computed with
_MOST_EXTENT = {1: 300, 2: 17, 3: 6, 4: 4}  # of one axis, by how many there are: length stays small


class Dice(Protocol):
    """Where choices come from."""

    def integer(self, low: int, high: int) -> int:
        """One of low..high, both included."""

    def pick(self, options: Sequence[T]) -> T:
        """One of the options; those in front are simpler."""


class Random:
    """Dice from a seed."""

    def __init__(self, *seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        """Evenly distributed."""
        return int(self._generator.integers(low, high + 1))

    def pick(self, options: Sequence[T]) -> T:
        """Evenly distributed."""
        return options[self.integer(0, len(options) - 1)]


def draw_case(mask: ir.Mask, dice: Dice, largest: int = 300, **fixed: Any) -> Case:
    """A call that the mask allows, of about ``largest`` tokens at most.

    Extents that the declarations fix are kept, so a pattern over a fixed space has calls of just that
    length. ``fixed`` are fields of the case that shall have given values.
    """
    case = _draw_case(mask, dice, largest, fixed)
    try:
        shapes = ir.shapes_of(mask, case.inputs)
        ir.resolve_sizes(mask, case.q_len, case.k_len, case.extents, shapes)
    except AttnDslError:  # an input of fixed size is too short
        return case if largest <= 1 else draw_case(mask, dice, max(1, largest // 4), **fixed)
    return case


def _draw_case(mask: ir.Mask, dice: Dice, largest: int, fixed: Mapping[str, Any]) -> Case:
    extents, q_len, k_len = _lengths(mask, dice, largest)
    heads, kv_heads = dice.pick(HEADS)
    batch = dice.pick((1, 1, 2, 3))
    head_dim, value_dim = dice.pick(WIDTHS)
    drawn: dict[str, Any] = {
        "batch": batch,
        "heads": heads,
        "kv_heads": fixed.get("heads", kv_heads),
        "head_dim": head_dim,
        "value_dim": value_dim,
        "dtype": dice.pick(DTYPES),
        "tile": dice.pick(TILES),
        "layout": dice.pick(("natural", dice.pick(layouts(mask)))),
        "scale": dice.pick((None, None, 0.3)),
        "is_contiguous": dice.pick((True, False)),
        "seed": dice.integer(0, 9999),
        "extents": extents,
        "q_len": q_len,
        "k_len": k_len,
        **fixed,
    }
    sizes = ir.resolve_sizes(mask, drawn["q_len"], drawn["k_len"], drawn["extents"])
    inputs = draw_inputs(mask, sizes, drawn["batch"], drawn["heads"], dice)
    return Case(**{"inputs": inputs, **drawn})


def layouts(mask: ir.Mask) -> list[str]:
    """Orders of tokens that suit the mask's spaces and inputs."""
    found = ["auto", "residues(2)", "residues(3)", "residues(8)"]
    axes = [f"{each.name}.{axis.name}" for each in mask.keys.segments for axis in each.axes]
    if len(axes) > 1 and not mask.is_rectangular:
        found.append(f"boxes({', '.join(f'{axis}={2 + i}' for i, axis in enumerate(axes))})")
        found += [f"{order}({', '.join(axes[::-1])})" for order in ("axes", "morton")]
    for table in mask.tables:
        if table.kind is ir.Sort.INT and table.indexed_dims == ("pos",):
            found.append(f"sorted({table.name})")
        if table.is_list and table.indexed_dims[:1] == ("q",) and len(table.indexed_dims) == 2:
            found.append(f"banded({table.name}) / natural")
    return found


# ---------------------------------------------------------------------------- lengths


def _lengths(mask: ir.Mask, dice: Dice, largest: int) -> tuple[dict[str, int], int, int]:
    numbers = _numbers(mask.root, largest)
    if not mask.keys.segments and not mask.queries.segments:
        q_len, k_len = (_length(dice, numbers, largest) for _ in range(2))
        return {}, q_len, dice.pick((q_len, q_len, k_len))
    spaces = {mask.queries, mask.keys}
    extents: dict[str, int] = {}
    for space in sorted(spaces, key=repr):
        extents |= _extents(space, dice, numbers, largest)
    if mask.is_rectangular:
        extents = _shared(mask, extents) if dice.integer(0, 2) else extents
    q_len, k_len = (
        tokens(space, extents) if space.segments else _length(dice, numbers, largest)
        for space in (mask.queries, mask.keys)
    )
    if not mask.is_rectangular:
        q_len = dice.pick((k_len, k_len, dice.integer(min(1, k_len), k_len)))
    return _inferred(mask, dice, extents, q_len, k_len)


def _inferred(
    mask: ir.Mask, dice: Dice, extents: dict[str, int], q_len: int, k_len: int
) -> tuple[dict[str, int], int, int]:
    """One extent left to follow from lengths that may contradict each other, where that is not refused."""
    if not extents or dice.integer(0, 3):
        return extents, q_len, k_len
    left_out = dice.pick(list(extents))
    given = {name: size for name, size in extents.items() if name != left_out}
    queries = dice.pick((q_len, dice.integer(1, 20)))
    try:
        ir.resolve_sizes(mask, queries, k_len, given)
    except AttnDslError:
        return extents, q_len, k_len
    return given, queries, k_len


def _length(dice: Dice, numbers: Sequence[int], largest: int) -> int:
    usual = [length for length in LENGTHS if length <= largest]
    if largest > LENGTHS[-1]:  # to go that far is what was asked for
        usual = [LENGTHS[-1], largest - 1, largest]
    length = dice.pick((dice.pick(usual), dice.pick(usual), dice.integer(1, largest)))
    if numbers and dice.integer(0, 2) == 2:
        length = dice.pick(numbers) + dice.integer(-1, 2)
    return max(1, min(length, largest))


def _numbers(root: ir.Node, largest: int) -> list[int]:
    """Numbers in the pattern that a call of so many tokens reaches."""
    return sorted(value for value in ir.numbers(root) if 2 <= value <= largest)


def farthest(mask: ir.Mask, most: int = SQUARE) -> int:
    """The largest number in the pattern that a square call can still reach beyond; 0 if there is none."""
    return max(_numbers(mask.root, most), default=0)


def far_numbers(mask: ir.Mask) -> list[int]:
    """Numbers beyond those, around which a few queries can be laid; none where tokens have coordinates."""
    has_axes = mask.queries.segments or mask.keys.segments
    return [] if has_axes else [n for n in _numbers(mask.root, FARTHEST) if n > SQUARE]


def draw_far_case(mask: ir.Mask, dice: Dice, numbers: Sequence[int]) -> Case:
    """A few queries around the position, and at the distance, that a large number of the pattern speaks of.

    Their mask is wide and low: dense, it is no larger than that of a few hundred tokens squared.
    """
    k_len = dice.pick(numbers) + dice.integer(-1, 40)
    q_len = dice.integer(1, min(64, 1 + MOST_SCORES // k_len // 2))
    return draw_case(mask, dice, k_len, q_len=q_len, k_len=k_len, batch=1, heads=1, kv_heads=1)


def _extents(space: ir.Space, dice: Dice, numbers: Sequence[int], largest: int) -> dict[str, int]:
    """An extent for every axis of the space that has none, by full name."""
    extents: dict[str, int] = {}
    for segment in space.segments:
        most = min(_MOST_EXTENT.get(len(segment.axes), 3), largest)
        for axis in segment.axes:
            if axis.extent is None:
                near = [n for n in numbers if n <= most]
                extent = dice.integer(0 if len(space.segments) > 1 else 1, most)
                if near and dice.integer(0, 1):
                    extent = dice.pick(near) * dice.pick((1, 2)) + dice.integer(-1, 1)
                extents[f"{segment.name}.{axis.name}"] = max(0, min(extent, most))
    return extents


def _shared(mask: ir.Mask, extents: Mapping[str, int]) -> dict[str, int]:
    """Axes of one name in both spaces, of one size: what `q.g == k.g` usually means."""
    first: dict[str, int] = {}
    for space in (mask.queries, mask.keys):
        for segment in space.segments:
            for axis in segment.axes:
                size = axis.extent or extents[f"{segment.name}.{axis.name}"]
                first.setdefault(axis.name, size)
    return {full: first[full.partition(".")[2]] for full in extents}


def tokens(space: ir.Space, extents: Mapping[str, int]) -> int:
    """How many tokens the space has at these extents."""
    return sum(
        math.prod(axis.extent or extents[f"{segment.name}.{axis.name}"] for axis in segment.axes)
        for segment in space.segments
    )


# ---------------------------------------------------------------------------- inputs


def draw_inputs(
    mask: ir.Mask, sizes: Mapping[str, int], batch: int, heads: int, dice: Dice
) -> dict[str, IntArray]:
    """Values for every run-time input of the mask, shaped as declared.

    Args:
        mask: Whose inputs.
        sizes: What ``ir.resolve_sizes`` says of the lengths, without the inputs' own dims.
        batch: Of the call.
        heads: Of the queries.
        dice: Where choices come from.

    Returns:
        bool arrays for inputs declared bool, int64 for int and list, float64 for real. Documents, clusters, positions,
        flags and neighbour lists with empty slots: what the declaration allows, not more.
    """
    inputs, least = {}, ir.least_sizes(mask, sizes)
    asked, shared = sizes_asked(mask, sizes, dice.pick), dict[str | int, int]()
    for table in mask.tables:
        known = ir.known_shape(mask, table, sizes, batch, heads)
        shape = []
        for dim, size in zip(table.dims, known, strict=True):
            drawn = _size(size, least.get((table.name, dim), 0), dice)
            if size is None and mask.conditions:  # which may compare dims of one name
                low, high = asked.get(str(dim), (0, drawn + 1))
                drawn = shared.setdefault(dim, max(low, min(high, max(2, drawn))))
            shape.append(drawn)
        style = dice.pick(_STYLES["list" if table.is_list else table.kind.value])
        generator = np.random.default_rng(dice.integer(0, 9999))
        inputs[table.name] = style(generator, tuple(shape), sizes)
    if mask.conditions:
        random = np.random.default_rng(dice.integer(0, 9999))
        return obedient(mask, inputs, sizes, batch, heads, random)
    return inputs


def _size(known: int | None, least: int, dice: Dice) -> int:
    """Draws the size of one dim; a free one is at least as long as the positions that read it."""
    return max(least, dice.pick((3, 1, 2, 5, 8))) if known is None else known


def _few(rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> IntArray:
    return rng.integers(0, 3, shape)


def _runs(rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> IntArray:
    """Packed documents: equal numbers lie together."""
    return np.sort(rng.integers(0, 5, shape), axis=-1)


def _anywhere(
    rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
) -> IntArray:
    """Positions, some of them just outside."""
    return rng.integers(-2, max(sizes["q"], sizes["k"]) + 2, shape)


def _flags(rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> IntArray:
    return np.asarray(rng.random(shape) < rng.choice([0.0, 0.1, 0.5, 0.9, 1.0]))


def _padded(rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> IntArray:
    """True up to some length, as in padded batches."""
    kept = rng.integers(0, shape[-1] + 1, (*shape[:-1], 1))
    return np.asarray(np.arange(shape[-1]) < kept)


def _slots(rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> IntArray:
    """Entries within the keys, some slots empty, some entries twice."""
    most = int(rng.choice([2, max(2, sizes["k"] // 8), max(2, sizes["k"])]))
    return rng.integers(-1, most, shape)


def _normals(
    rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
) -> IntArray:
    return rng.standard_normal(shape)


def _positives(
    rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
) -> IntArray:
    """Numbers that have logarithms and roots."""
    return rng.uniform(0.1, 1.5, shape)


_STYLES: Mapping[str, Sequence[Any]] = {
    "int": (_few, _runs, _anywhere),
    "bool": (_flags, _padded),
    "list": (_slots,),
    "real": (_normals, _positives),
}
