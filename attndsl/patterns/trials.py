"""Sizes and inputs to try an entry of the library on, from the `Example:` of its comment.

```
Example: n=24, heads=2, w=5, layer=[0, 1], doc sorted 0..4, rank permuted, near in 0..y
```

`name=` gives a parameter, the extent of an axis, `q`, `k` or `n` (both lengths of a flat pattern;
`q` alone: the queries are the last tokens of the keys' space), `heads`, `batch`, the values of
`layer`, or a free dim of an input, which may be that of a parameter. The other clauses say how an
input is drawn: uniformly, uniformly and sorted, or as a permutation; a bound may be an axis. Inputs
that are not mentioned: lists hold keys and empty slots, ints keys, bools are tossed, reals are
normal. `Large:` is read alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from attndsl import ir

from .entries import Entry

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_CLAUSE = re.compile(
    r"([\w.]+)(?:=(-?\d+|\[[^\]]*\]|true|false)| (in|sorted) (-?\d+)\.\.([\w.]+)| (permuted))(?:, |$)"
)
_LARGE = {0: 8192, 1: 8192, 2: 64, 3: 16, 4: 8}  # a length, or the side of a grid of so many axes


@dataclass(frozen=True)
class Trial:
    """One call to try: what to compile with, and what to run it on."""

    values: dict[str, Any]
    q_len: int
    k_len: int
    heads: int
    batch: int
    layers: tuple[int, ...]
    extents: dict[str, int]
    inputs: dict[str, Array]


@dataclass(frozen=True)
class _Draw:
    how: str
    low: int
    high: str


def trial(entry: Entry, grow: int = 0, seed: int = 0) -> Trial:
    """The example of an entry, all free extents and lengths ``grow`` larger.

    Equal arguments give equal inputs.
    """
    given, draws = _clauses(entry)
    shown = entry.signature
    parameters = {each.name for each in shown.parameters}
    values = {name: value for name, value in given.items() if name in parameters}
    numbers = {name: value for name, value in given.items() if name not in parameters}
    extents = _extents(entry, numbers, grow)
    q_len = _length(shown.queries, extents, numbers.get("q", numbers.get("n")), grow)
    k_len = _length(shown.keys, extents, numbers.get("k", numbers.get("n")), grow)
    if shown.queries.segments and "q" in numbers:
        q_len = numbers["q"] + grow
    heads, batch = numbers.get("heads", 1), numbers.get("batch", 2 if shown.inputs else 1)
    layers = numbers.get("layer", 0)
    axes = {*extents, *(full.rpartition(".")[2] for full in extents)}
    plain = {name: value for name, value in numbers.items() if name not in axes}
    named = {name: value for name, value in values.items() if isinstance(value, int)}
    sizes = {**named, **plain, **extents, "batch": batch, "head": heads, "q": q_len, "k": k_len}
    rng = np.random.default_rng(seed)
    inputs = {
        table.name: _drawn(rng, table, {**sizes, "pos": k_len}, draws.get(table.name))
        for table in shown.inputs
    }
    return Trial(
        values, q_len, k_len, heads, batch,
        tuple(layers) if isinstance(layers, list) else (layers,), extents, inputs,
    )  # fmt: skip


def large_trial(entry: Entry) -> Trial | None:
    """A call of the size that papers have, with their parameters; None where inputs decide."""
    shown = entry.signature
    if shown.inputs or any(each.default is None for each in shown.parameters):
        return None
    if entry.large:
        return trial(replace(entry, example=entry.large))
    axes = [axis.name for segment in shown.queries.segments for axis in segment.axes]
    small = trial(entry)
    sizes = [f"{name}={_LARGE[len(axes)]}" for name in axes or ["n"]]
    settings = [f"heads={small.heads}", f"layer={[*small.layers]}"]
    return trial(replace(entry, example=", ".join([*sizes, *settings])))


def _clauses(entry: Entry) -> tuple[dict[str, Any], dict[str, _Draw]]:
    given: dict[str, Any] = {}
    draws: dict[str, _Draw] = {}
    at = 0
    for match in _CLAUSE.finditer(entry.example):
        assert match.start() == at, f"{entry.name}: cannot read {entry.example[at:]!r}"
        at = match.end()
        name, value, how, low, high, permuted = match.groups()
        if value is None:
            draws[name] = _Draw(permuted or how, int(low or 0), high or "")
        elif value.startswith("["):
            given[name] = [int(item) for item in value[1:-1].split(",")]
        else:
            given[name] = value == "true" if value in ("true", "false") else int(value)
    assert at == len(entry.example), f"{entry.name}: cannot read {entry.example[at:]!r}"
    return given, draws


def _extents(entry: Entry, numbers: Mapping[str, int], grow: int) -> dict[str, int]:
    """Extents of every axis that the declarations leave open; fixed ones come along under their full names."""
    found: dict[str, int] = {}
    for space in (entry.signature.queries, entry.signature.keys):
        for segment in space.segments:
            for axis in segment.axes:
                full = f"{segment.name}.{axis.name}"
                plain = numbers.get(full, numbers.get(axis.name))
                assert axis.extent or plain, f"{entry.name}: its example lacks {full}"
                found[full] = axis.extent or (plain or 0) + grow
    return found


def _length(space: ir.Space, extents: Mapping[str, int], given: int | None, grow: int) -> int:
    if not space.segments:
        assert given is not None, "the example of a flat pattern gives n, or q and k"
        return given + grow
    return sum(
        math.prod(extents[f"{segment.name}.{axis.name}"] for axis in segment.axes)
        for segment in space.segments
    )


def _drawn(
    rng: np.random.Generator, table: ir.Table, sizes: Mapping[str, int], draw: _Draw | None
) -> Array:
    shape = tuple(dim if isinstance(dim, int) else _size(dim, sizes) for dim in table.dims)
    if table.kind is ir.Sort.BOOL:
        return rng.random(shape) < 0.5
    if table.kind is ir.Sort.REAL and draw is None:
        return rng.standard_normal(shape, np.float32)
    if draw is None:
        draw = _Draw("in", -1 if table.is_list else 0, "k")
    if draw.how == "permuted":
        return rng.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1)
    high = int(draw.high) if draw.high.isdigit() else _size(draw.high, sizes)
    if table.kind is ir.Sort.REAL:
        return rng.uniform(draw.low, high, shape).astype(np.float32)
    made = rng.integers(draw.low, high, shape)
    return np.sort(made, axis=-1) if draw.how == "sorted" else made


def _size(name: str, sizes: Mapping[str, int]) -> int:
    """The size called that: in full, or by the last part of its name."""
    if name in sizes:
        return sizes[name]
    return next(size for full, size in sizes.items() if full.rpartition(".")[2] == name)
