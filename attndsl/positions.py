"""Positions of the tokens of a call, read from its arguments, checked, and filled in where it says nothing.

All of it travels with the extents (numbers) and the inputs (tensors) of a call, under names that no program can
spell.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import numpy as np

from attndsl import ir
from attndsl.inputs import read
from attndsl.source import AttnDslError, Diagnostic, brief

MAX_POSITION: Final = 1 << 40  # as lengths


@dataclass(frozen=True, slots=True)
class Names:
    """The arguments that say where the rows of one side stand."""

    rows: str  # of which tensor
    start: str
    length: str
    outright: str


QUERIES: Final = Names("q", "q_start", "q_len", "q_pos")
KEYS: Final = Names("k", "k_start", "kv_len", "k_pos")
NAMES: Final = tuple(
    name for side in (QUERIES, KEYS) for name in (side.start, side.length, side.outright)
)
BOUNDS: Final = ("cu_seqlens_q", "cu_seqlens_k")  # where packed sequences begin and end
BLOCK_TABLE: Final = "block_table"  # beside them in calls: the pages in which k and v lie


def hidden(name: str) -> str:
    """The name under which an argument travels."""
    return f"<{name}>"


def split(named: Mapping[str, Any] | None) -> tuple[dict[str, Any], Any]:
    """Takes what travels out of the inputs or extents of a call: (positions by their own names, the rest)."""
    if not isinstance(named, Mapping) or not named:
        return {}, named
    found = {name: named[hidden(name)] for name in NAMES if hidden(name) in named}
    taken = {hidden(name) for name in found}
    return found, {name: value for name, value in named.items() if name not in taken}


def read_positions(
    mask: ir.Mask,
    counts: tuple[int, int],
    batch: int,
    given: Mapping[str, Any],
    extents: Mapping[str, int] | None,
    shapes: Mapping[str, tuple[int, ...]],
    unknown: Collection[str] = (),
) -> ir.Positions:
    """The positions of all rows, and the lengths that follow for each batch element.

    Args:
        mask: The pattern.
        counts: How many rows q and k have.
        batch: How many batch elements.
        given: What the call says, by the names of its arguments: ints, or arrays.
        extents: Sizes of grid axes.
        shapes: Those of the inputs, without batch and head.
        unknown: Names of arguments that have their shape alone: contents are not looked at.

    Raises:
        AttnDslError: A413, what is given makes no sense; A401, A402 extents and lengths; A501 an input that does not
            fit.
    """
    arrays = {name: _array(name, value) for name, value in given.items()}
    k = _rows(KEYS, counts[1], batch, arrays, unknown)
    q = _rows(QUERIES, counts[0], batch, arrays, unknown)
    q, q_len, k_len = _lengths(mask, q, k, arrays, extents)
    if unknown:
        return ir.Positions(q, k, (_sizes(mask, counts, counts, extents, shapes),))
    pairs = np.stack(np.broadcast_arrays(q_len, k_len), axis=-1).tolist()
    found = {
        pair: _sizes(mask, pair, counts, extents, shapes)
        for pair in dict.fromkeys(map(tuple, pairs))
    }
    sizes = tuple(found[pair] for pair in map(tuple, pairs))
    return ir.Positions(q, k, sizes if len(found) > 1 else sizes[:1])


def _lengths(
    mask: ir.Mask,
    q: ir.Rows,
    k: ir.Rows,
    given: Collection[str],
    extents: Mapping[str, int] | None,
) -> tuple[ir.Rows, Any, Any]:
    """(rows of q, as the pattern aligns them where nothing says where they stand, ``len(q)``, ``len(k)``)."""
    ends, xp = mask.align is ir.Align.END, k.xp
    last = k.end()
    is_told = QUERIES.start in given or QUERIES.outright in given
    if not is_told:
        start, unknown = (last - q.stop if ends else q.start), q.unknown
        if ends and (k.unknown or q.unknown):
            unknown |= {"start"}
        before = not mask.is_placed
        q = ir.Rows(q.count, start, q.stop, None, before, unknown, xp)
    elif ends:
        last = xp.maximum(last, q.end())
    k_len = _length(mask.keys, last, "keys" if mask.is_rectangular else "tokens", extents)
    if ends:  # from the first query on, as where the queries are the last tokens
        q_len = k_len - (xp.minimum(q.first(), k_len) if is_told else q.start)
    elif mask.is_rectangular:
        q_len = _length(mask.queries, q.end(), "queries", extents)
    else:
        q_len = q.end()
    return q, q_len, k_len


def open_tables(
    mask: ir.Mask,
    counts: tuple[int, int],
    given: Mapping[str, Any],
    xp: Any,
) -> tuple[dict[str, Any], list[Any]]:
    """The tables that `set_positions` reads where positions were not known to it, by name; and whether all is sound.

    Args:
        mask: The pattern, between plain sequences.
        counts: How many rows q and k have.
        given: What the call says, by the names of its arguments: ints, or arrays int64 of [batch or 1], or
            [batch or 1, rows], checked but for their contents.
        xp: The functions of such arrays.

    Returns:
        Tables [batch or 1] or [batch or 1, rows], and truths that are false where the host would refuse the call.
    """
    sound: list[Any] = []
    k = _open_rows(KEYS, counts[1], given, xp, sound)
    q = _open_rows(QUERIES, counts[0], given, xp, sound)
    q, q_len, k_len = _lengths(mask, q, k, given, None)
    found = {"<len q>": q_len, "<len k>": k_len}
    for side, rows in (("q", q), ("k", k)):
        found |= {f"<{side}_start>": rows.start, f"<{side}_stop>": rows.stop}
        found |= {} if rows.at is None else {f"<{side}_pos>": rows.at}
    return found, sound


def _open_rows(
    names: Names, count: int, given: Mapping[str, Any], xp: Any, sound: list[Any]
) -> ir.Rows:
    """The rows of a side by arrays of any kind. Demands on them are added to ``sound``."""
    start, stop, at = (given.get(x) for x in (names.start, names.length, names.outright))
    start = xp.asarray(0 if start is None else start).reshape(-1)
    stop = xp.asarray(count if stop is None else stop).reshape(-1)
    sound.append((abs(start) <= MAX_POSITION).all())
    sound.append(((stop >= 0) & (stop <= count)).all())
    if at is None:
        return ir.Rows(count, start, stop, xp=xp)
    at = xp.where(xp.arange(0, count) < stop[:, None], at, -1)
    ordered = xp.sort(at, -1)[0]
    repeats = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    sound.append(~repeats.any() & ((at >= -1) & (at <= MAX_POSITION)).all())
    return ir.Rows(count, xp.asarray([0]), xp.asarray([count]), at, xp=xp)


def with_heads(extents: Mapping[str, int] | None, start: int, total: int) -> dict[str, Any]:
    """The extents of a call, and which heads it holds: those from ``start`` on, of ``total``."""
    return {**(extents or {}), hidden("head_start"): start, hidden("heads"): total}


def split_heads(extents: Any) -> tuple[tuple[int, int] | None, Any]:
    """Takes out what ``with_heads`` put in: ((start, total) or None, the extents)."""
    names = hidden("head_start"), hidden("heads")
    if not isinstance(extents, Mapping) or names[0] not in extents:
        return None, extents
    start, total = (extents[name] for name in names)
    return (start, total), {name: x for name, x in extents.items() if name not in names}


def _length(
    space: ir.Space, last: ir.IntArray, word: str, extents: Mapping[str, int] | None
) -> ir.IntArray:
    """How many positions a side has: as many as extents state, or up to the last token."""
    stated = ir.stated_length(space, ir.named_extents(extents))
    if stated is None:
        return last
    if (past := int(last.max(initial=0))) > stated:
        refuse(
            f"the {word} end at position {past - 1}, but {space.name} has {stated} tokens",
            f"positions of {space.name} are those from 0 to {stated - 1}",
        )
    return np.array([stated])


def _sizes(
    mask: ir.Mask,
    lengths: tuple[int, int],
    counts: tuple[int, int],
    extents: Mapping[str, int] | None,
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, int]:
    """All sizes at these lengths. Inputs by position may have more entries than there are positions."""
    sizes = ir.resolve_sizes(mask, *lengths, extents)
    if not shapes:
        return sizes
    given = {"q": counts[0], "k": counts[1]}
    fitting: dict[str, tuple[int, ...]] = {}
    for table in mask.tables:
        shape = []
        for dim, size in zip(table.indexed_dims, shapes[table.name], strict=True):
            if dim in given:
                if size != given[str(dim)]:
                    title = f"input {table.name!r} has {size} entries along {dim!r}"
                    title += f", but {dim} has {given[str(dim)]} rows"
                    raise AttnDslError(Diagnostic("A501", title))
                size = sizes[str(dim)]
            elif isinstance(dim, str):
                axes = ["k"] if dim == "pos" else ir.axes_named(mask, dim)
                size = min([size, *(sizes[axis] for axis in axes[:1])])
            shape.append(size)
        fitting[table.name] = tuple(shape)
    return ir.resolve_sizes(mask, *lengths, extents, fitting)


# ---------------------------------------------------------------------------- what is given


def _array(name: str, value: Any) -> Any:
    """An argument as an array of whole numbers.

    Raises:
        AttnDslError: A413, it is none.
    """
    array = read(name, value)
    if array.dtype.kind not in "iu":
        shown = f"a tensor of {array.dtype}" if array.ndim else brief(value)
        refuse(f"{name} must be an integer type, not {shown}")
    return array.astype(np.int64)


def _rows(
    names: Names, count: int, batch: int, given: Mapping[str, Any], unknown: Collection[str]
) -> ir.Rows:
    """The rows of a side, from position 0 on where nothing says otherwise."""
    check_names(names, given)
    start = _numbers(names.start, given.get(names.start, 0), batch)
    stop = _numbers(names.length, given.get(names.length, count), batch)
    _check_values(names.start, start, -MAX_POSITION, MAX_POSITION)
    _check_values(names.length, stop, 0, count, f"{names.rows} has {count} rows")
    at = given.get(names.outright)
    if at is None:
        fields = (("start", names.start), ("stop", names.length))
        return ir.Rows(
            count, start, stop, unknown=frozenset(x for x, name in fields if name in unknown)
        )
    if at.ndim != 2 or at.shape[0] not in (1, batch) or at.shape[1] != count:
        shapes = [f"[{size}, {count}]" for size in dict.fromkeys((batch, 1))]
        refuse(
            f"{names.outright} needs the shape {' or '.join(shapes)}, got {list(at.shape)}",
            f"a position for each row of {names.rows}",
        )
    if {names.outright, names.length} & set(unknown):
        rest = np.zeros(1, np.int64), np.full(1, count), at
        return ir.Rows(count, *rest, unknown=frozenset({"at"}))
    _check_values(names.outright, at, -1, MAX_POSITION)
    at = np.where(np.arange(count) < stop[:, None], at, -1)
    _check_repeats(names.outright, at)
    return ir.Rows(count, np.zeros(1, np.int64), np.full(1, count), at)


def check_names(names: Names, given: Iterable[str]) -> None:
    """Positions are given by their start or outright.

    Raises:
        AttnDslError: A413, they are given twice.
    """
    if names.start in given and names.outright in given:
        refuse(f"positions are given twice: by {names.start} and by {names.outright}")


def _numbers(name: str, value: Any, batch: int) -> ir.IntArray:
    """A number for each batch element, or one for all."""
    array = np.asarray(value, dtype=np.int64)
    if array.ndim > 1 or (array.ndim == 1 and len(array) not in (1, batch)):
        refuse(f"{name} is a number, or one for each of the {batch} batch elements",
              f"got shape {list(array.shape)}")  # fmt: skip
    return array.reshape(-1)


def _check_values(name: str, values: Any, least: int, most: int, what: str = "") -> None:
    wrong = np.argwhere((values < least) | (values > most))
    if not len(wrong):
        return
    at = tuple(int(index) for index in wrong[0])
    value = int(values[at])
    where = "" if len(values) == 1 else f" for batch element {at[0]}"
    bounds = f"but {what}" if what and value > most else f"not from {least} to {most}"
    refuse(f"{name} is {value}{where}, {bounds}")


def _check_repeats(name: str, at: ir.IntArray) -> None:
    ordered = np.sort(at, axis=1)
    same = np.argwhere((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0))
    if len(same):
        element, place = (int(index) for index in same[0])
        title = (
            f"two rows stand at position {int(ordered[element, place])} of batch element {element}"
        )
        refuse(title, f"each position in {name} is that of one token; -1 stands for no token")


def refuse(title: str, *notes: str) -> NoReturn:
    """Refuses what a call says of positions.

    Raises:
        AttnDslError: A413.
    """
    raise AttnDslError(Diagnostic("A413", title, notes=notes))


def counted_by(given: Mapping[str, Any]) -> Sequence[int]:
    """How many batch elements each argument is for, where it says."""
    return [int(np.shape(value)[0]) for value in given.values() if np.ndim(value)]
