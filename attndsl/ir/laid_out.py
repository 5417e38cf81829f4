"""The meaning of a call whose tokens stand anywhere: each row and each input is laid out in order of positions.

Written beside `semantics`, and like it shares no code with the passes, so that it can judge them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from attndsl.ir.dense import check_pairs, checked_counts, rows_at_once
from attndsl.ir.mask import Align, Mask, Table
from attndsl.ir.positions import BoolArray, IntArray, Positions, Rows, of_element
from attndsl.ir.semantics import Env, evaluate
from attndsl.ir.sizing import axes_named


def meaning_at(
    mask: Mask,
    at: Positions,
    tables: Mapping[str, Any],
    batch: int = 1,
    heads: int = 1,
    layer: int = 0,
) -> BoolArray:
    """The dense mask of the rows as they lie in memory, bool [batch, heads, rows of q, rows of k].

    ``tables`` have all declared dims; along ``q`` and ``k`` an entry for each row.

    Raises:
        AttnDslError: A404, a quantifier is too wide at these lengths; A407, the mask is too large.
    """
    q_len, k_len = at.q.count, at.k.count
    check_pairs(batch * heads * q_len * k_len)
    result = np.zeros((batch, heads, q_len, k_len), dtype=bool)
    step = rows_at_once(heads * k_len)
    for b, env in elements_at(mask, at, tables, batch, heads, layer):
        exist = of_element(at.q.exist(), b)[:, None] & of_element(at.k.exist(), b)
        for start in range(0, q_len, step):
            rows = slice(start, start + step)
            here = env(env.q[rows, None], env.k, np.arange(heads)[:, None, None])
            seen = evaluate(mask.root, here)
            result[b, :, rows] = np.broadcast_to(seen, result[b, :, rows].shape) & exist[rows]
    return result


def zero_keys_at(
    mask: Mask,
    at: Positions,
    tables: Mapping[str, Any],
    batch: int = 1,
    heads: int = 1,
    layer: int = 0,
) -> IntArray:
    """How many zero keys each row of q sees, int64 [batch, heads, rows of q].

    Raises:
        AttnDslError: A404, a quantifier is too wide at these lengths; A408, a count is negative.
    """
    count = np.zeros((batch, heads, at.q.count), dtype=np.int64)
    for b, env in elements_at(mask, at, tables, batch, heads, layer):
        found = evaluate(mask.zeros, env(env.q, 0, np.arange(heads)[:, None]))
        count[b] = np.where(of_element(at.q.exist(), b), found, 0)
    return checked_counts(mask, count)


class Element:
    """One batch element: the positions of its rows, and the environment of some of them.

    ``first`` is the position of the first entry of an input over the queries.
    """

    def __init__(self, q: IntArray, k: IntArray, first: int, **rest: Any) -> None:
        self.q, self.k, self.first, self._rest = q, k, first, rest

    def __call__(self, q: Any, k: Any, head: Any) -> Env:
        return Env(q=q, k=k, head=head, **self._rest)


def elements_at(
    mask: Mask, at: Positions, tables: Mapping[str, Any], batch: int, heads: int, layer: int
) -> Iterator[tuple[int, Element]]:
    """Each batch element, by number, its tables laid out in order of positions."""
    for b in range(batch):
        sizes = of_element(at.sizes, b)
        # an input over the queries holds those of the call: the first one is at this position
        first = sizes["k"] - sizes["q"] if mask.align is Align.END else 0
        laid = {
            table.name: _laid_out(mask, table, np.asarray(tables[table.name]), at, b, sizes, first)
            for table in mask.tables
        }
        q, k = (of_element(rows.positions(), b) for rows in (at.q, at.k))
        given = {"heads": heads, "layer": layer, "sizes": sizes, "tables": laid}
        yield b, Element(q, k, first, batch=b, queries=mask.queries, keys=mask.keys, **given)


def _laid_out(
    mask: Mask,
    table: Table,
    array: Any,
    at: Positions,
    b: int,
    sizes: Mapping[str, int],
    first: int,
) -> Any:
    """The table as a call on the tokens alone would be given it: 0 where there is none, as outside of tables."""
    array = array if array.dtype.kind == "b" else array.astype(np.int64)
    nothing = -1 if table.is_list else 0
    for axis, dim in enumerate(table.dims):
        if dim in ("q", "k"):
            rows, start = (at.q, first) if dim == "q" else (at.k, 0)
            array = _moved(array, axis, rows, b, sizes[str(dim)], start, nothing)
        elif isinstance(dim, str) and dim not in ("batch", "head"):
            axes = ["k"] if dim == "pos" else axes_named(mask, dim)
            if axes:
                array = array[(slice(None),) * axis + (slice(sizes[axes[0]]),)]
    return array


def _moved(array: Any, axis: int, rows: Rows, b: int, length: int, start: int, nothing: int) -> Any:
    shape = [*array.shape[:axis], length, *array.shape[axis + 1 :]]
    made = np.full(shape, False if array.dtype.kind == "b" else nothing, dtype=array.dtype)
    exist = of_element(rows.exist(), b)
    places = of_element(rows.positions(), b)[exist] - start
    before = (slice(None),) * axis
    made[(*before, places)] = array[(*before, exist)]
    return made
