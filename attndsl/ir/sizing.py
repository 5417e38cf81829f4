"""The lengths of one call: every ``Size`` a mask may mention, inferred and checked.

Each space whose tokens are counted is an equation, the sum over its segments of the products of their extents; each
dim of a table that is named by an axis is another. All are gathered first, and solved and checked together: one axis
may stand in several.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from attndsl.ir.mask import Align, Axis, Mask, Segment, Space, Table
from attndsl.ir.misfits import misfit
from attndsl.ir.reads import Read, reads
from attndsl.source import AttnDslError, Diagnostic, brief, suggest

MAX_LENGTH = 1 << 40


def resolve_sizes(
    mask: Mask,
    q_len: int,
    k_len: int,
    extents: Mapping[str, int] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, int]:
    """Values for all ``Size`` nodes of the mask at these lengths.

    Sizes that are not given follow from the lengths, wherever an equation has one unknown left. ``extents`` names
    axes ("y") or, where two segments share an axis name, "segment.axis". ``shapes`` are those of the run-time
    tables without their batch and head dims; free table dims are taken from them.

    Raises:
        AttnDslError: A401 extents missing, unknown, or contradicting each other or a length; A402 lengths
            that make no sense; A501 a table whose shape does not fit.
    """
    given = named_extents(extents)
    _check_lengths(mask, q_len, k_len)
    _check_names(mask, given)
    counts = _counts(mask, q_len, k_len)
    known = _stated(mask, given)
    _solve(counts, known)
    for count in counts:
        count.check(known)
    sizes = {"q": q_len, "k": k_len} | {full: extent.value for full, extent in known.items()}
    found = shapes or {}
    for table in mask.tables:
        if table.name in found:
            sizes |= _table_sizes(mask, table, found[table.name], sizes, known)
    for read in reads(mask) if found else ():
        if read.table.name in found:
            _check_read(read, found[read.table.name][read.place], sizes)
    return sizes


def named_extents(extents: Mapping[str, int] | None) -> dict[str, int]:
    """The extents as a dict of ints by name: "y" or "image.y".

    Raises:
        AttnDslError: A401, they are no mapping, a name is none, or a size is no integer.
    """
    given: object = {} if extents is None else extents
    if not isinstance(given, Mapping):
        title = f"extents are given by the names of axes, not as {brief(given)}"
        raise _fail("A401", title, helps=('for example extents={"y": 56, "x": 56}',))
    for name, value in given.items():
        if not (isinstance(name, str) and all(map(str.isidentifier, name.split(".")))):
            raise _fail("A401", f"{brief(name)} is no name of an axis")
        # an int first: torch.compile cannot ask one that it holds open for its attributes
        if isinstance(value, bool) or not (isinstance(value, int) or hasattr(value, "__index__")):
            title = f"extent of {name!r} must be an integer, got {brief(value)}"
            raise _fail("A401", title)
    return {name: value if isinstance(value, int) else int(value) for name, value in given.items()}


def stated_length(space: Space, extents: Mapping[str, int]) -> int | None:
    """How many tokens the space has by its declaration and these extents; None where they leave it open."""
    if not space.segments:
        return None
    sizes = {full: extents.get(full, extents.get(short, own)) for full, short, own in _axes(space)}
    each = [[sizes[f"{s.name}.{axis.name}"] for axis in s.axes] for s in space.segments]
    if any(size is None for extent in each for size in extent):
        return None
    return sum(math.prod(size or 0 for size in extent) for extent in each)


def axes_named(mask: Mask, dim: str) -> list[str]:
    """The axes, "segment.axis", that a dim of that name has the extent of; none for a dim of its own."""
    axes = _axes(mask.keys) + _axes(mask.queries)
    return list(dict.fromkeys(full for full, short, _ in axes if dim in (full, short)))


def shapes_of(mask: Mask, tables: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of arrays that have all declared dims, without those of batch and head."""
    return {
        table.name: tuple(np.shape(tables[table.name])[len(table.dims) - len(table.indexed_dims) :])
        for table in mask.tables
    }


def known_shape(
    mask: Mask, table: Table, sizes: Mapping[str, int], batch: int, heads: int
) -> tuple[int | None, ...]:
    """The shape that the table must have at these sizes; None for dims of any size."""
    return tuple(
        {"batch": batch, "head": heads}.get(str(dim), _expected(mask, dim, sizes))
        for dim in table.dims
    )


def _fail(code: str, title: str, *notes: str, helps: tuple[str, ...] = ()) -> AttnDslError:
    return AttnDslError(Diagnostic(code=code, title=title, notes=notes, helps=helps))


def _check_lengths(mask: Mask, q_len: int, k_len: int) -> None:
    name = mask.name or "the pattern"
    for length in (q_len, k_len):
        if isinstance(length, bool) or not hasattr(length, "__index__"):
            raise _fail("A402", f"{name}: a length is an integer, not {brief(length)}")
    if min(q_len, k_len) < 0 or max(q_len, k_len) > MAX_LENGTH:
        raise _fail(
            "A402",
            f"{name}: lengths must lie between 0 and 2**40, got {brief(q_len)} and {brief(k_len)}",
        )
    if mask.keys.segments and not mask.is_rectangular and q_len > k_len:
        which = "last" if mask.align is Align.END else "first"
        raise _fail(
            "A402",
            f"{name}: {q_len} queries do not fit the {k_len} tokens of {mask.keys.name}",
            f"queries are the {which} tokens of the space (align {mask.align})",
        )


def _axes(space: Space) -> list[tuple[str, str, int | None]]:
    return [(f"{s.name}.{a.name}", a.name, a.extent) for s in space.segments for a in s.axes]


def _check_names(mask: Mask, given: Mapping[str, object]) -> None:
    axes = _axes(mask.queries) + _axes(mask.keys)
    known = {full for full, _, _ in axes} | {short for _, short, _ in axes}
    for name, value in given.items():
        if name not in known:
            hint = suggest(name, known)
            helps = (f"did you mean {hint!r}?",) if hint else ()
            have = ", ".join(sorted({short for _, short, _ in axes})) or "none"
            raise _fail("A401", f"no axis named {name!r}", f"axes here: {have}", helps=helps)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_LENGTH:
            raise _fail(
                "A401", f"extent of {name!r} must be an integer from 0 on, got {brief(value)}"
            )


# ---------------------------------------------------------------------------- extents


@dataclass(frozen=True, slots=True)
class _Extent:
    """A number of tokens along an axis. ``why`` says what it follows from, where it is not stated."""

    value: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Count:
    """One equation: the segments of a space hold so many tokens together."""

    space: Space
    length: int
    word: str  # for what is counted

    def unknown(self, known: Mapping[str, _Extent]) -> list[str]:
        """The axes whose extents are open."""
        return [full for full, _, _ in _axes(self.space) if full not in known]

    def parts(self, known: Mapping[str, _Extent], default: int = 1) -> Iterator[int]:
        """How many tokens each segment has, open extents taken for ``default``."""
        for item in self.space.segments:
            names = (f"{item.name}.{axis.name}" for axis in item.axes)
            yield math.prod(known[n].value if n in known else default for n in names)

    def unit(self, known: Mapping[str, _Extent]) -> int:
        """How many tokens more there are when the one open extent is larger by one."""
        return sum(self.parts(known)) - sum(self.parts(known, 0))

    def solved(self, axis: str, known: Mapping[str, _Extent]) -> _Extent:
        """The one extent that is open; 0 where no extent makes a difference."""
        left, unit = self.length - sum(self.parts(known, 0)), self.unit(known)
        if left < 0 or (left % unit if unit else left):
            title = f"{self.length} {self.word} do not fill {self.space.name}: {left} are left for {axis}"
            notes = self.reasons(known)
            helps = ("check the length and the extents given",)
            raise _fail("A401", f"{title}, in units of {unit}", *notes, helps=helps)
        why = f"follows from the {self.length} {self.word} of {self.space.name}: {self.spelled(known)}"
        return _Extent(left // unit if unit else 0, why)

    def check(self, known: Mapping[str, _Extent]) -> None:
        """Refuse extents that are open, or make another number of tokens."""
        if unknown := self.unknown(known):
            names = [full.partition(".")[2] for full in unknown]
            example = ", ".join(f'"{name}": ...' for name in names)
            title = f"the extents of {', '.join(names)} in {self.space.name} cannot be inferred"
            title += f" from {self.length} {self.word}"
            raise _fail("A401", title, helps=(f"pass extents={{{example}}}",))
        total = sum(self.parts(known))
        if total != self.length:
            title = f"extents give {total} tokens, but there are {self.length}"
            title += "" if self.word == "tokens" else f" {self.word}"
            notes = f"{self.space.name} is {self.spelled(known)}", *self.reasons(known)
            raise _fail("A401", title, *notes)

    def spelled(self, known: Mapping[str, _Extent]) -> str:
        """The space as a sum of products."""

        def extent(segment: Segment, axis: Axis) -> str:
            found = known.get(f"{segment.name}.{axis.name}")
            return f"{axis.name}={found.value}" if found else axis.name

        return " + ".join(
            " * ".join(extent(segment, axis) for axis in segment.axes)
            for segment in self.space.segments
        )

    def reasons(self, known: Mapping[str, _Extent]) -> list[str]:
        """Sources of the extents that follow from something else."""
        here = ((full, known[full]) for full, _, _ in _axes(self.space) if full in known)
        return [f"{full} = {found.value} {found.why}" for full, found in here if found.why]


def _counts(mask: Mask, q_len: int, k_len: int) -> list[_Count]:
    """Queries of the space of the keys are some of its tokens, and say nothing of its size."""
    if not mask.is_rectangular:
        found = [_Count(mask.keys, k_len, "tokens")]
    else:
        found = [_Count(mask.keys, k_len, "keys"), _Count(mask.queries, q_len, "queries")]
    return [count for count in found if count.space.segments]


def _stated(mask: Mask, given: Mapping[str, int]) -> dict[str, _Extent]:
    """The extents that are declared or given."""
    known: dict[str, _Extent] = {}
    for full, short, fixed in (*_axes(mask.keys), *_axes(mask.queries)):
        value = given.get(full, given.get(short))
        if fixed is not None and value is not None and value != fixed:
            title = f"axis {full} is fixed to {fixed} by its declaration, got {value}"
            raise _fail("A401", title)
        value = fixed if value is None else value
        if value is not None:
            known[full] = _Extent(value)
    return known


def _solve(counts: list[_Count], known: dict[str, _Extent]) -> None:
    """Add what follows, one extent after the other; what an empty segment leaves open comes last."""
    while ready := [count for count in counts if len(count.unknown(known)) == 1]:
        count = min(ready, key=lambda count: count.unit(known) == 0)
        (axis,) = count.unknown(known)
        known[axis] = count.solved(axis, known)


# ---------------------------------------------------------------------------- tables


def _table_sizes(
    mask: Mask,
    table: Table,
    shape: tuple[int, ...],
    sizes: Mapping[str, int],
    known: Mapping[str, _Extent],
) -> dict[str, int]:
    dims = table.indexed_dims
    if len(shape) != len(dims):
        raise misfit(table, f"input {table.name!r} has {len(shape)} dims beside batch and head")
    found: dict[str, int] = {}
    for dim, size in zip(dims, shape, strict=True):
        axes = axes_named(mask, dim) if isinstance(dim, str) else []
        expected = _expected(mask, dim, sizes)
        if expected is None:
            found[f"{table.name}:{dim}"] = size
        elif wrong := [full for full in axes if sizes[full] != size]:
            full = wrong[0]
            title = f"input {table.name!r} has {size} entries along {dim!r}, but {full} is {sizes[full]}"
            raise misfit(
                table, title, (), (f"{full} {known[full].why}",) if known[full].why else ()
            )
        elif size != expected:
            title = f"input {table.name!r} has {size} entries along {dim!r}, expected {expected}"
            raise misfit(table, title)
    return found


def least_sizes(mask: Mask, sizes: Mapping[str, int]) -> dict[tuple[str, str | int], int]:
    """How many entries tables must have along dims that are read at positions, by table and dim."""
    found: dict[tuple[str, str | int], int] = {}
    for read in reads(mask):
        key = read.table.name, read.dim
        found[key] = max(found.get(key, 0), _least(read, sizes))
    return found


def _least(read: Read, sizes: Mapping[str, int]) -> int:
    return -(-sizes[read.length] // read.block)


def _check_read(read: Read, size: int, sizes: Mapping[str, int]) -> None:
    least = _least(read, sizes)
    if size >= least:
        return
    name, dim = read.table.name, read.dim
    length = dim if isinstance(dim, int) else f"len({name}.{dim})"
    helps = f"if what lies beyond shall read nothing, say so: `{name}[min({read.index}, {length})]`"
    if dim in ("q", "k", "pos"):
        helps = "declare two inputs, one over `q` and one over `k`"
    title = (
        f"input {name!r} has {size} entries along {dim!r}, too few for {sizes[read.length]} tokens"
    )
    note = f"it is read at each `{read.position}`: `{name}[{read.index}]` needs {least}"
    raise misfit(read.table, title, (helps,), (note,))


def _expected(mask: Mask, dim: str | int, sizes: Mapping[str, int]) -> int | None:
    if isinstance(dim, int):
        return dim
    if dim in ("q", "k"):
        return sizes[dim]
    if dim == "pos":
        return sizes["k"]
    axes = axes_named(mask, dim)
    return sizes[axes[0]] if axes else None
