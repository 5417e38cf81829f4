"""The lengths of one call: every ``Size`` a mask may mention, inferred and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping

from attndsl.ir.mask import Align, Mask, Space, Table
from attndsl.source import AttnDslError, Diagnostic, suggest

MAX_LENGTH = 1 << 40


def resolve_sizes(
    mask: Mask,
    q_len: int,
    k_len: int,
    extents: Mapping[str, int] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, int]:
    """Values for all ``Size`` nodes of the mask at these lengths.

    One unknown extent of a space is inferred from its length. ``extents`` names axes ("y") or, where two
    segments share an axis name, "segment.axis". ``shapes`` are those of the run-time tables without their
    batch and head dims; free table dims are taken from them.

    Raises:
        AttnDslError: A401 extents missing, unknown, or not multiplying to the length; A402 lengths that
            make no sense; A501 a table whose shape does not fit.
    """
    given = named_extents(extents)
    _check_lengths(mask, q_len, k_len)
    _check_names(mask, given)
    sizes = {"q": q_len, "k": k_len}
    sizes |= _extents(mask, mask.keys, k_len, given)
    query_len = q_len if mask.is_rectangular or mask.align is Align.START else k_len
    if mask.is_rectangular or mask.align is Align.START:
        sizes |= _extents(mask, mask.queries, query_len, given)
    for table in mask.tables:
        shape = (shapes or {}).get(table.name)
        if shape is not None:
            sizes |= _table_sizes(mask, table, shape, sizes)
    return sizes


def named_extents(extents: Mapping[str, int] | None) -> dict[str, int]:
    """The extents as a dict.

    Raises:
        AttnDslError: A401, they are no mapping.
    """
    given: object = extents
    if given is None or isinstance(given, Mapping):
        return dict(given or {})
    title = f"extents are given by the names of axes, not as {given!r:.40}"
    raise _fail("A401", title, helps=('for example extents={"y": 56, "x": 56}',))


def _fail(code: str, title: str, *notes: str, helps: tuple[str, ...] = ()) -> AttnDslError:
    return AttnDslError(Diagnostic(code=code, title=title, notes=notes, helps=helps))


def _check_lengths(mask: Mask, q_len: int, k_len: int) -> None:
    name = mask.name or "the pattern"
    for length in (q_len, k_len):
        if isinstance(length, bool) or not hasattr(length, "__index__"):
            raise _fail("A402", f"{name}: a length is an integer, not {length!r:.40}")
    if min(q_len, k_len) < 0 or max(q_len, k_len) > MAX_LENGTH:
        raise _fail(
            "A402",
            f"{name}: lengths must lie between 0 and 2**40, got {q_len} and {k_len}",
        )
    if mask.keys.segments and mask.align is Align.END and q_len > k_len:
        raise _fail(
            "A402",
            f"{name}: {q_len} queries do not fit the {k_len} tokens of {mask.keys.name}",
            "queries are the last tokens of the space (align end)",
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
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_LENGTH:
            raise _fail("A401", f"extent of {name!r} must be a positive integer, got {value!r}")


def _extents(mask: Mask, space: Space, length: int, given: Mapping[str, int]) -> dict[str, int]:
    """Sizes of all axes of the space; the one that is not given follows from the length."""
    sizes: dict[str, int] = {}
    unknown: list[tuple[str, str]] = []
    for full, short, fixed in _axes(space):
        value = given.get(full, given.get(short))
        if fixed is not None and value is not None and value != fixed:
            raise _fail(
                "A401",
                f"axis {full} is fixed to {fixed} by its declaration, got {value}",
            )
        value = fixed if value is None else value
        if value is None:
            unknown.append((full, short))
        else:
            sizes[full] = value
    if len(unknown) > 1:
        names = [short for _, short in unknown]
        example = ", ".join(f'"{name}": ...' for name in names)
        raise _fail(
            "A401",
            f"the extents of {', '.join(names)} in {space.name} cannot be inferred from {length} tokens",
            helps=(f"pass extents={{{example}}}",),
        )
    if unknown:
        sizes[unknown[0][0]] = _solve(space, unknown[0][0], length, sizes)
    if space.segments:
        _check_total(space, length, sizes)
    return sizes


def _segment_sizes(space: Space, sizes: Mapping[str, int]) -> list[int]:
    return [
        math.prod(sizes[f"{item.name}.{axis.name}"] for axis in item.axes)
        for item in space.segments
    ]


def _solve(space: Space, unknown: str, length: int, sizes: Mapping[str, int]) -> int:
    """The extent of the one unknown axis."""
    with_one = _segment_sizes(space, {**sizes, unknown: 1})
    owner = next(i for i, item in enumerate(space.segments) if unknown.startswith(item.name + "."))
    left = length - sum(with_one) + with_one[owner]
    unit = with_one[owner]
    if left < 0 or left % unit:
        raise _fail(
            "A401",
            f"{length} tokens do not fill {space.name}: {left} are left for {unknown}, in units of {unit}",
            helps=("check the length and the extents given",),
        )
    return left // unit


def _check_total(space: Space, length: int, sizes: Mapping[str, int]) -> None:
    parts = _segment_sizes(space, sizes)
    if sum(parts) != length:
        spelled = " + ".join(
            " * ".join(f"{axis.name}={sizes[f'{item.name}.{axis.name}']}" for axis in item.axes)
            for item in space.segments
        )
        raise _fail(
            "A401",
            f"extents give {sum(parts)} tokens, but there are {length}",
            f"{space.name} is {spelled}",
        )


def _table_sizes(
    mask: Mask, table: Table, shape: tuple[int, ...], sizes: Mapping[str, int]
) -> dict[str, int]:
    dims = table.indexed_dims
    declared = f"{table.name}: {table.kind}[{', '.join(map(str, table.dims))}]"
    if len(shape) != len(dims):
        raise _fail(
            "A501",
            f"input {table.name!r} has {len(shape)} dims beside batch and head",
            declared,
        )
    found: dict[str, int] = {}
    for dim, size in zip(dims, shape, strict=True):
        expected = _expected(mask, dim, {**sizes, **found})
        if expected is None:
            found[f"{table.name}:{dim}"] = size
        elif size != expected:
            raise _fail(
                "A501",
                f"input {table.name!r} has {size} entries along {dim!r}, expected {expected}",
                f"declared as {declared}",
            )
    return found


def _expected(mask: Mask, dim: str | int, sizes: Mapping[str, int]) -> int | None:
    if isinstance(dim, int):
        return dim
    if dim in ("q", "k"):
        return sizes[dim]
    if dim == "pos":
        return sizes["k"]
    matches = [sizes[full] for full, short, _ in _axes(mask.keys) if dim in (full, short)]
    matches += [sizes[full] for full, short, _ in _axes(mask.queries) if dim in (full, short)]
    return matches[0] if matches else None
