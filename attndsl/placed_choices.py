"""Choices of calls that say where their tokens stand: made on the tokens in order, put into the rows of the call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from attndsl import ir
from attndsl.positions import BOUNDS, NAMES, read_positions
from attndsl.source import AttnDslError, Diagnostic

Rows: TypeAlias = slice | Tensor  # those of a tensor; a slice where they follow each other
Select: TypeAlias = Callable[[Tensor, Tensor, Mapping[str, Any]], Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True, eq=False)
class TokensInOrder:
    """The batch elements ``which`` whose tokens lie in the same rows: ``queries`` of q, ``keys`` of k, by position.

    Keys stand at positions 0, 1, ..., queries at some that follow each other, ``behind`` before the last key.
    """

    which: list[int]
    queries: Rows
    keys: Rows
    tokens: int  # queries
    many: int  # keys
    behind: int


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where the tokens of a call stand; ``key`` is a digest of it."""

    elements: tuple[TokensInOrder, ...]
    key: bytes

    @staticmethod
    def of(
        q: Tensor, k: Tensor, selections: Sequence[ir.Chosen], given: Mapping[str, Any]
    ) -> Places:
        """Reads positions, on the host.

        Raises:
            AttnDslError: A413, they make no sense; A509, tokens lack, or no selection is made there.
        """
        if strange := sorted(given.keys() - {*NAMES}):
            what = "packed sequences" if strange[0] in BOUNDS else "pages"
            raise _refused(f"a call with {what}, `{strange[0]}`, does not choose")
        for each in selections:
            if isinstance(each, ir.Selection) and each.is_on_grid:
                raise _refused(f"`{each.name}` chooses tiles of a grid, in calls without positions")
        align = selections[0].align
        lengths, batch = (q.shape[2], k.shape[2]), q.shape[0]
        mask = ir.Mask(ir.TRUE, align=align)
        found = read_positions(mask, lengths, batch, given, None, {})
        at = [
            np.broadcast_to(np.where(rows.exist(), rows.positions(), -1), (batch, rows.count))
            for rows in (found.q, found.k)
        ]
        alike: dict[bytes, list[int]] = {}
        for b in range(batch):
            alike.setdefault(at[0][b].tobytes() + b"/" + at[1][b].tobytes(), []).append(b)
        elements = tuple(
            _in_order(at[0][some[0]], at[1][some[0]], some, align, q.device)
            for some in alike.values()
        )
        key = hashlib.blake2b(repr([sorted(alike.items())]).encode(), digest_size=16)
        return Places(elements, key.digest())


def _in_order(
    q: ir.IntArray, k: ir.IntArray, which: list[int], align: ir.Align, device: torch.device
) -> TokensInOrder:
    rows_q, rows_k = (np.argsort(x, kind="stable")[np.count_nonzero(x < 0) :] for x in (q, k))
    many, first = len(rows_k), int(q[rows_q[0]]) if len(rows_q) else 0
    if not np.array_equal(k[rows_k], np.arange(many)):
        note = "units are counted from position 0, and a key that lacks would be a part of one"
        raise _refused("a call chooses where its keys are those of positions 0, 1, 2, ...", note)
    stop = first + len(rows_q)
    is_run = np.array_equal(q[rows_q], np.arange(first, stop)) and (
        len(rows_q) == 0 or stop <= many
    )
    if not is_run or (align is ir.Align.START and first):
        raise _refused(
            "a call chooses where its queries follow each other, each at a key's position"
        )
    behind = many - stop if align is ir.Align.END and len(rows_q) else 0
    return TokensInOrder(
        which, _rows(rows_q, device), _rows(rows_k, device), len(rows_q), many, behind
    )


def _rows(found: ir.IntArray, device: torch.device) -> Rows:
    first = int(found[0]) if len(found) else 0
    if np.array_equal(found, np.arange(first, first + len(found))):
        return slice(first, first + len(found))
    return torch.as_tensor(found, device=device)


def _along(place: int, rows: Rows | list[int]) -> tuple[Any, ...]:
    """The index of some rows along a dim."""
    return (slice(None),) * place + (rows,)


def choose_in_places(
    selections: Sequence[ir.Chosen],
    inputs: Iterable[ir.Table],
    q: Tensor,
    k: Tensor,
    given: Mapping[str, Any],
    places: Places,
    select: Select,
) -> dict[str, Tensor]:
    """The tables of selections for the rows of a call, -1 where there is no token.

    Args:
        selections: What is chosen.
        inputs: The inputs they read, as they are declared.
        q: Queries of the call.
        k: Keys of the call.
        given: Inputs of the call.
        places: Where its tokens stand.
        select: Makes the tables of a call without positions.

    Raises:
        AttnDslError: A509, queries behind these have a say.
    """
    declared = {table.name: table for table in inputs}
    parts: dict[str, list[Tensor]] = {each.name: [] for each in selections}
    is_all = len(places.elements) == 1
    for some in places.elements:
        if some.behind:
            _check_alone(selections)
        cut = {name: _cut(declared[name], x, some) for name, x in given.items() if name in declared}
        rows, keys = (x.detach() if is_all else x.detach()[some.which] for x in (q, k))
        rows, keys = rows[_along(2, some.queries)], keys[_along(2, some.keys)]
        made = select(pad(rows, (0, 0, 0, some.behind)) if some.behind else rows, keys, cut)
        for each in selections:
            parts[each.name].append(
                _in_rows(each.table, made[each.name], some, q.shape[2], k.shape[2])
            )
    order = np.argsort([b for some in places.elements for b in some.which]).tolist()
    return {name: _joined(made)[order] for name, made in parts.items()}


def _cut(table: ir.Table, value: Any, some: TokensInOrder) -> Tensor:
    """An input for these batch elements and tokens. One by position begins with position 0 as it is."""
    found = torch.as_tensor(value)
    for place, dim in enumerate(table.dims):
        if place >= found.dim():
            break  # which is refused where it is read
        size = found.shape[place]
        if dim == "batch" and size > 1:
            found = found[_along(place, some.which)]
        elif dim == "q":
            found = found[_along(place, some.queries)]
            more = [0] * (2 * (found.dim() - place) - 1)
            found = pad(found, (*more, some.behind)) if some.behind else found
        elif dim == "k":
            found = found[_along(place, some.keys)]
        elif dim == "pos":
            found = found[_along(place, slice(some.many))]
    return found


def _in_rows(table: ir.Table, made: Tensor, some: TokensInOrder, q_len: int, k_len: int) -> Tensor:
    """A table of the tokens in order as one of the rows in memory."""
    for place, dim in enumerate(table.dims):
        if dim in ("q", "k"):
            rows, count = (some.queries, q_len) if dim == "q" else (some.keys, k_len)
            shape = [*made.shape]
            shape[place] = count
            placed = made.new_full(shape, -1)
            held = some.tokens if dim == "q" else some.many
            placed[_along(place, rows)] = made[_along(place, slice(held))]
            made = placed
    return made


def _joined(parts: list[Tensor]) -> Tensor:
    """Tables of some batch elements each, the smaller ones with empty slots and rows behind."""
    shape = [max(sizes) for sizes in zip(*(part.shape for part in parts), strict=True)]
    found = []
    for part in parts:
        lacking = [most - own for most, own in zip(shape[1:], part.shape[1:], strict=True)]
        found.append(pad(part, [x for each in reversed(lacking) for x in (0, each)], value=-1))
    return torch.cat(found)


def _check_alone(selections: Iterable[ir.Chosen]) -> None:
    """Whether each query chooses for itself, however many are behind it."""
    for each in ir.with_inner(selections):
        if isinstance(each, ir.Rank):
            is_alone = each.side is ir.Side.KEY
        elif isinstance(each.queries, ir.selection.Numbers):
            is_alone = True
        else:
            is_alone = each.queries is None and not each.by_column
        if not is_alone:
            title = f"queries choose together in `{each.name}`, and those behind these are not here"
            raise _refused(title)


def _refused(title: str, *notes: str) -> AttnDslError:
    helps = ("give it the tables by their names, units counted from position 0",)
    return AttnDslError(Diagnostic("A509", title, notes=notes, helps=helps))
