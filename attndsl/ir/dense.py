"""Dense masks and counts of zero keys: the meaning evaluated at every pair, some rows at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from attndsl.ir.array_arithmetic import Value
from attndsl.ir.mask import Mask
from attndsl.ir.semantics import Env, evaluate, held_at_once
from attndsl.source import AttnDslError, Diagnostic

_MOST_PAIRS = 1 << 32  # of a dense mask: 4 GiB
_PAIRS_AT_ONCE = 1 << 21  # bounds the memory of intermediate values


def check_pairs(count: int) -> None:
    """Refuses a dense mask of too many pairs.

    Raises:
        AttnDslError: A407, the mask is too large.
    """
    if count > _MOST_PAIRS:
        title = f"a dense mask of {count:,} pairs is too large"
        notes = (f"at most {_MOST_PAIRS:,} are written out",)
        helps = ("a schedule has no such limit",)
        raise AttnDslError(Diagnostic("A407", title, notes=notes, helps=helps))


def meaning(
    mask: Mask,
    q_len: int,
    k_len: int,
    sizes: Mapping[str, int],
    tables: Mapping[str, Value] | None = None,
    batch: int = 1,
    heads: int = 1,
    layer: int = 0,
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The dense mask, bool [batch, heads, q_len, k_len], by evaluating every pair.

    Zero keys are not in it: they are no pairs, see `zero_keys`.

    Raises:
        AttnDslError: A404, a quantifier is too wide at these lengths; A407, the mask is too large.
    """
    check_pairs(batch * heads * q_len * k_len)
    result = np.empty((batch, heads, q_len, k_len), dtype=bool)
    tables = _wide(tables)
    shift = mask.shift(q_len, k_len)
    rows = rows_at_once(batch * heads * k_len * max(1, held_at_once(mask.root) // 8))
    for start in range(0, q_len, rows):
        stop = min(start + rows, q_len)
        env = Env(
            q=np.arange(start, stop, dtype=np.int64)[:, None] + shift,
            k=np.arange(k_len, dtype=np.int64)[None, :],
            batch=np.arange(batch)[:, None, None, None],
            head=np.arange(heads)[:, None, None],
            heads=heads,
            layer=layer,
            sizes=sizes,
            tables=tables,
            queries=mask.queries,
            keys=mask.keys,
            places=dict(mask.places),
        )
        result[:, :, start:stop] = evaluate(mask.root, env)
    result[:, :, : mask.absent(q_len, k_len)] = False
    return result


def rows_at_once(pairs: int) -> int:
    """How many rows of so many pairs are evaluated at once."""
    return max(1, _PAIRS_AT_ONCE // max(1, pairs))


def _wide(tables: Mapping[str, Value] | None) -> dict[str, Value]:
    """Tables whose integers have 64 bits: narrower ones would wrap."""
    arrays = {name: np.asarray(table) for name, table in (tables or {}).items()}
    return {
        name: table if table.dtype.kind == "b" else table.astype(np.int64, copy=False)
        for name, table in arrays.items()
    }


def zero_keys(
    mask: Mask,
    q_len: int,
    k_len: int,
    sizes: Mapping[str, int],
    tables: Mapping[str, Value] | None = None,
    batch: int = 1,
    heads: int = 1,
    layer: int = 0,
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """How many zero keys each query sees, [batch, heads, q_len], dims of 1 where all are alike.

    Raises:
        AttnDslError: A404, a quantifier is too wide at these lengths; A408, a count is negative.
    """
    env = Env(
        q=np.arange(q_len, dtype=np.int64) + mask.shift(q_len, k_len),
        k=0,  # the count does not depend on it
        batch=np.arange(batch)[:, None, None],
        head=np.arange(heads)[:, None],
        heads=heads,
        layer=layer,
        sizes=sizes,
        tables=_wide(tables),
        queries=mask.queries,
        keys=mask.keys,
        places=dict(mask.places),
    )
    count = np.asarray(evaluate(mask.zeros, env), dtype=np.int64)
    count = count.reshape((1,) * (3 - count.ndim) + count.shape)
    count = np.array(np.broadcast_to(count, (*count.shape[:2], q_len)))
    count[..., : mask.absent(q_len, k_len)] = 0
    return checked_counts(mask, count)


def checked_counts(
    mask: Mask, count: np.ndarray[Any, np.dtype[np.int64]]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The counts of zero keys, [batch, heads, q_len].

    Raises:
        AttnDslError: A408, one is negative.
    """
    wrong = np.argwhere(count < 0)
    if len(wrong):
        at = tuple(int(index) for index in wrong[0])
        raise AttnDslError(_negative(mask.name, int(count[at]), at[2]))
    return count


def _negative(name: str, count: int, query: int) -> Diagnostic:
    title = f"{name or 'the pattern'} counts fewer than 0 zero keys"
    helps = ("count only what lies outside: `zeros max(0, ...)`",)
    return Diagnostic("A408", title, notes=(f"{count} for query {query}",), helps=helps)
