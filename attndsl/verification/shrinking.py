"""From a failing case to a small one: shorter, fewer heads, plainer inputs, while it still fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from attndsl import ir
from attndsl.source import AttnDslError
from attndsl.verification.cases import Case
from attndsl.verification.drawing import tokens


def shrink(
    mask: ir.Mask, case: Case, still_fails: Callable[[Case], bool], seconds: float = 5.0
) -> Case:
    """The smallest case that was found to fail, starting from one that does."""
    stop = time.monotonic() + seconds
    improved = True
    while improved:
        improved = False
        for smaller in _smaller(mask, case):
            if time.monotonic() > stop:
                return case
            if still_fails(smaller):
                case, improved = smaller, True
                break
    return case


def _smaller(mask: ir.Mask, case: Case) -> Iterator[Case]:
    """Cases a step simpler, the largest steps first."""
    if case.batch > 1:
        yield _cut(mask, case, batch=1)
    for heads, kv_heads in ((1, 1), (2, 1), (2, 2)):
        if heads < case.heads or (heads == case.heads and kv_heads < case.kv_heads):
            yield _cut(mask, case, heads=heads, kv_heads=kv_heads)
    if mask.queries.segments or mask.keys.segments:
        yield from _smaller_spaces(mask, case)
    else:
        yield from _shorter(mask, case)
    if (case.head_dim, case.value_dim) != (1, 1):
        yield replace(case, head_dim=1, value_dim=1)
    yield from _plainer_inputs(case)
    if case.dtype != torch.float64:
        yield replace(case, dtype=torch.float64)
    if case.layout != "natural":
        yield replace(case, layout="natural")
    if case.scale is not None:
        yield replace(case, scale=None)
    if not case.is_contiguous:
        yield replace(case, is_contiguous=True)


def _steps(size: int, least: int = 1) -> list[int]:
    """Sizes to try below this one, the smallest first."""
    tries = {least, size // 4, size // 2, size * 3 // 4, size - 1}
    return sorted(n for n in tries if least <= n < size)


def _shorter(mask: ir.Mask, case: Case) -> Iterator[Case]:
    if case.q_len == case.k_len:
        for size in _steps(case.k_len):
            yield _cut(mask, case, q_len=size, k_len=size)
    for size in _steps(case.k_len):
        yield _cut(mask, case, k_len=size)
    for size in _steps(case.q_len):
        yield _cut(mask, case, q_len=size)


def _smaller_spaces(mask: ir.Mask, case: Case) -> Iterator[Case]:
    is_square = case.q_len == case.k_len and not mask.is_rectangular
    is_one_space = not mask.is_rectangular
    sizes = ir.resolve_sizes(mask, case.q_len, case.k_len, case.extents)
    whole = {name: size for name, size in sizes.items() if "." in name}
    for name in case.extents:
        for size in _steps(whole[name]):
            extents = {**whole, name: size}
            q_len, k_len = (
                tokens(space, extents) if space.segments else length
                for space, length in ((mask.queries, case.q_len), (mask.keys, case.k_len))
            )
            if is_one_space and not is_square:
                q_len = min(case.q_len, k_len)
            yield _cut(mask, case, extents=extents, q_len=q_len, k_len=k_len)
    if is_one_space:
        for size in _steps(case.q_len):
            yield _cut(mask, case, q_len=size)


def _plainer_inputs(case: Case) -> Iterator[Case]:
    for name, value in case.inputs.items():
        for plain in (np.zeros_like(value), np.where(value < 0, 0, value)):
            if not np.array_equal(plain, value):
                yield replace(case, inputs={**case.inputs, name: plain})


def _cut(mask: ir.Mask, case: Case, **changes: Any) -> Case:
    """The case with other sizes; its inputs are cut to fit."""
    changed = replace(case, **changes)
    call = changed.q_len, changed.k_len, changed.extents
    try:
        sizes = ir.resolve_sizes(mask, *call)
        inputs = {}
        for table in mask.tables:
            shape = ir.known_shape(mask, table, sizes, changed.batch, changed.heads)
            inputs[table.name] = _fit(case.inputs[table.name], shape)
        ir.resolve_sizes(mask, *call, ir.shapes_of(mask, inputs))
    except AttnDslError:  # these sizes do not go together, or an input is too short
        return case
    return replace(changed, inputs=inputs)


def _fit(value: Any, known: tuple[int | None, ...]) -> Any:
    short = value[tuple(slice(0, size) for size in known)]
    wanted = [n if size is None else size for size, n in zip(known, short.shape, strict=True)]
    return np.resize(short, wanted) if list(short.shape) != wanted else short
