"""Token orders that a pattern itself suggests.

    q % 8 == k % 8                      equal values on both sides: sort by them, and classes lie together
    k % 128 == 127,  flag[k]            a condition on one side: what meets it first, side by side
    abs(q.y - k.y) <= 3 and ...         distances on several axes: boxes of tokens
    all of these at once                classes first, boxes of what is left within each class

Nothing here compares them: the search counts each suggestion.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from attndsl import ir
from attndsl.passes import lower_root, separate_root, split_sides

_MOST_GROUPS = 8  # alternatives of a union that are examined
_MOST_COLUMNS = 16  # conditions of one side that sort it each by itself


@dataclass(frozen=True, slots=True)
class Candidate:
    """The keys to sort either side by."""

    name: str
    of_queries: tuple[ir.Node, ...]
    of_keys: tuple[ir.Node, ...]
    shape: tuple[int, ...] = ()  # extents of a box, in steps


@dataclass(frozen=True, slots=True)
class Axes:
    """The coordinates of both sides, where they live on one grid, and its extents."""

    names: tuple[str, ...]
    of_queries: tuple[ir.Node, ...]
    of_keys: tuple[ir.Node, ...]
    extents: tuple[int, ...]


def candidates(root: ir.Node, axes: Axes | None, tokens: int) -> list[tuple[Candidate, ...]]:
    """Returns orders worth counting, for a root whose lengths are bound. ``tokens`` is the size of a tile.

    Orders that differ only in the shape of a box are in one tuple.
    """
    found: dict[tuple[tuple[ir.Node, ...], tuple[ir.Node, ...]], tuple[Candidate, ...]] = {}
    for group in groups(root):
        classes = _classes(group)
        single = [classes] if classes.of_queries else []
        options: list[tuple[Candidate, ...]] = [(item,) for item in (*single, *_one_sided(group))]
        options += [_boxes(classes, axes, tokens)] if axes else []
        for family in filter(None, options):
            found.setdefault((family[0].of_queries, family[0].of_keys), family)
    return list(found.values())


def starts(family: Sequence[Candidate]) -> list[Candidate]:
    """The box nearest to a cube, and for each axis that among those which reach farthest along it."""

    def round_(some: Iterable[Candidate]) -> Candidate:
        return min(some, key=lambda item: sum(side.bit_length() ** 2 for side in item.shape))

    found = [round_(family)]
    for axis in range(len(family[0].shape)):
        longest = max(item.shape[axis] for item in family)
        found.append(round_(item for item in family if item.shape[axis] == longest))
    return list(dict.fromkeys(found))


def neighbours(family: Sequence[Candidate], item: Candidate) -> list[Candidate]:
    """The boxes twice as long on one side and half as long on another."""
    place = [side.bit_length() for side in item.shape]
    steps = ([a.bit_length() - b for a, b in zip(o.shape, place, strict=True)] for o in family)
    near = [sum(map(abs, step)) == 2 and sum(step) == 0 for step in steps]
    return list(itertools.compress(family, near))


def form(root: ir.Node) -> tuple[str, ...]:
    """Key that is equal for roots that differ in numbers alone, such as the seeds or widths of heads."""
    kinds = (type(node).__name__ for node in ir.postorder(root) if not isinstance(node, ir.Const))
    return tuple(sorted(kinds))


def groups(root: ir.Node) -> list[tuple[ir.Node, ...]]:
    """The conditions that hold together in each alternative of the pattern."""
    conjuncts = root.items if isinstance(root, ir.And) else (root,)
    plain = tuple(item for item in conjuncts if not isinstance(item, ir.Or))
    unions = [item for item in conjuncts if isinstance(item, ir.Or)]
    made = [plain] if plain else []
    for union in unions:
        for part in itertools.islice(union.items, _MOST_GROUPS):
            inner = part.items if isinstance(part, ir.And) else (part,)
            made.append((*plain, *inner))
    return made


@functools.lru_cache(maxsize=1024)  # alternatives share conditions
def _classes(group: tuple[ir.Node, ...]) -> Candidate:
    """f(q) == g(k): tokens with equal values form a class, and see their own class only."""
    sides: dict[tuple[ir.Node, ir.Node], None] = {}
    for node in group:
        parts = split_sides(node.item) if isinstance(node, ir.Eq) else None
        if parts is not None and all(part.deps & ir.Deps.PAIR for part in parts):
            sides[_upright(*parts)] = None
    name = ", ".join(ir.show(mine) for mine, _ in sides)
    return Candidate(f"by {name}", *_columns(sides))


def _upright(mine: ir.Node, theirs: ir.Node) -> tuple[ir.Node, ir.Node]:
    """f == g or -f == -g, whichever reads better, below ``%`` too: classes in increasing order."""
    match mine, theirs:
        case ir.Mod(left=f, right=m), ir.Mod(left=g, right=n) if m is n:
            upright = _upright(f, g)
            return ir.mod(upright[0], m), ir.mod(upright[1], m)
    terms, _ = ir.linear(mine)
    if all(factor < 0 for factor in terms.values()):
        return ir.scale(mine, -1), ir.scale(theirs, -1)
    return mine, theirs


def _columns(
    sides: Iterable[tuple[ir.Node, ir.Node]],
) -> tuple[tuple[ir.Node, ...], tuple[ir.Node, ...]]:
    pairs = tuple(sides)
    return tuple(mine for mine, _ in pairs), tuple(theirs for _, theirs in pairs)


def _one_sided(group: tuple[ir.Node, ...]) -> Iterator[Candidate]:
    """Sorts tokens that meet the conditions of their side alone first, class by class where there are classes."""
    of = {
        side: tuple(
            ir.negate(node)
            for node in group
            if node.deps & ir.Deps.PAIR == side.deps and node.sort is ir.Sort.BOOL
        )
        for side in ir.Side
    }
    queries, keys = (
        each if len(each) <= _MOST_COLUMNS else (ir.disj(*each),)
        for each in (of[ir.Side.QUERY], of[ir.Side.KEY])
    )
    classes = _classes(group)
    for mine, theirs in ((queries, ()), ((), keys), (queries, keys)):
        if mine or theirs:
            name = f"first {', '.join(_met(node) for node in (*mine, *theirs))}"
            yield Candidate(name, mine, theirs)
            if classes.of_queries and (mine, theirs) == (queries, keys):
                sides = (*mine, *classes.of_queries), (*theirs, *classes.of_keys)
                yield Candidate(f"{name}, {classes.name}", *sides)


def _met(failed: ir.Node) -> str:
    """The opposite of a condition in words; its name, where there are thousands."""
    if isinstance(failed, ir.Or) and len(failed.items) > _MOST_COLUMNS:
        return f"what meets {len(failed.items):,} conditions"
    return ir.show(ir.negate(failed))


@functools.lru_cache(maxsize=64)
def _boxes(classes: Candidate, axes: Axes, tokens: int) -> tuple[Candidate, ...]:
    """Boxes of about ``tokens`` tokens of one class, of every shape in powers of two."""
    steps = [_modulus(classes.of_queries, axis) for axis in axes.of_queries]
    cut = functools.cache(ir.floordiv)  # shapes have few sizes between them
    extents = [
        1 if axis in classes.of_queries else -(-extent // step)  # a class has one place on it
        for axis, extent, step in zip(axes.of_queries, axes.extents, steps, strict=True)
    ]
    found = []
    for shape in shapes(tokens, extents):
        sizes = [ir.Const(size * step) for size, step in zip(shape, steps, strict=True)]
        keys = [
            tuple(cut(axis, size) for axis, size in zip(side, sizes, strict=True))
            for side in (axes.of_queries, axes.of_keys)
        ]
        spelled = (f"{n}={size.value}" for n, size in zip(axes.names, sizes, strict=True))
        name = f"boxes({', '.join(spelled)})"
        joined = f"{classes.name}, {name}" if classes.of_queries else name
        sides = (*classes.of_queries, *keys[0]), (*classes.of_keys, *keys[1])
        found.append(Candidate(joined, *sides, shape))
    return tuple(found)


def _modulus(keys: Iterable[ir.Node], axis: ir.Node) -> int:
    """The step between tokens of one class along the axis: m where a key is ``axis % m``."""
    found = 1
    for key in keys:
        match key:
            case ir.Mod(right=ir.Const(value=m)) if ir.mod(axis, ir.Const(m)) is key:
                found = math.lcm(found, m)
    return found


def shapes(tokens: int, extents: Iterable[int]) -> Iterator[tuple[int, ...]]:
    """Boxes in powers of two that hold ``tokens`` tokens, none much larger than the extents."""
    first, *rest = extents
    if not rest:
        if tokens < 2 * first:
            yield (tokens,)
        return
    size = 1
    while size <= tokens and size < 2 * first:
        yield from ((size, *others) for others in shapes(tokens // size, rest))
        size *= 2


def axes_of(mask: ir.Mask, sizes: dict[str, int]) -> Axes | None:
    """The grid both sides live on: the largest segment with more than one axis to speak of."""
    if mask.queries != mask.keys:
        return None
    best: tuple[int, ir.Segment] | None = None
    for segment in mask.keys.segments:
        extents = [sizes[f"{segment.name}.{axis.name}"] for axis in segment.axes]
        if sum(extent > 1 for extent in extents) > 1 and (not best or math.prod(extents) > best[0]):
            best = math.prod(extents), segment
    if best is None:
        return None
    segment = best[1]
    wide = [
        (axis.name, sizes[f"{segment.name}.{axis.name}"])
        for axis in segment.axes
        if sizes[f"{segment.name}.{axis.name}"] > 1
    ]
    of_queries, of_keys = (
        tuple(lower_root(ir.Coord(side, f"{segment.name}.{name}"), mask) for name, _ in wide)
        for side in ir.Side
    )
    return Axes(
        tuple(name for name, _ in wide), of_queries, of_keys, tuple(extent for _, extent in wide)
    )


def splits(root: ir.Node) -> Iterator[tuple[ir.Node, ...]]:
    """Yields ways to write a pattern as disjoint parts: one alternative of a union, and the rest."""
    conjuncts = root.items if isinstance(root, ir.And) else (root,)
    for union in conjuncts:
        if not isinstance(union, ir.Or):
            continue
        common = [item for item in conjuncts if item is not union]
        for first in union.items:
            others = [item for item in union.items if item is not first]
            rest = ir.conj(*common, ir.disj(*others), ir.negate(first))
            yield ir.conj(*common, first), separate_root(rest)
