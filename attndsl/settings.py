"""A pattern or attention with its values, and a call small enough to look at; every choice is told."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from attndsl import frontend, ir, patterns
from attndsl.compiler import Program
from attndsl.inputs import counted, obedient, sizes_asked
from attndsl.schedule import Call
from attndsl.source import AttnDslError, Diagnostic
from attndsl.sources import is_attention, read_attention, read_mask

TRIED = (4, 3, 2, 1, 0)  # for parameters without a default, in turn
# Where no length is given: the length of a sequence, or the sides of a grid with so many open axes.
SMALL = {0: 32, 1: 32, 2: 12, 3: 6}
LARGE = {0: 4096, 1: 4096, 2: 64, 3: 16}
LARGEST_PICTURE = 1024  # tokens a side that are chosen unasked
MOST_INVENTED = 1 << 24  # entries of an input that is made up
_FEW = 6  # entries along a dim that is made up to please a condition
CROWDED = 0.7  # a denser mask shows nothing of its pattern: try a larger one


@dataclass(frozen=True)
class Subject:
    """A pattern or attention: what it declares, the values it has now, those of them that nobody gave.

    ``masks``: the pattern, or those of all parts of ``attention``. ``example``: sizes and inputs that come with an
    entry of the library, where nothing was asked for.
    """

    source: str
    signature: frontend.Signature
    values: dict[str, frontend.Given]
    chosen: dict[str, frontend.Given]
    masks: tuple[ir.Mask, ...]
    attention: ir.Attention | None = None
    example: patterns.Trial | None = None

    @property
    def mask(self) -> ir.Mask:
        """The pattern, or that of the first part."""
        return self.masks[0]

    @property
    def inputs(self) -> tuple[ir.Table, ...]:
        """Its inputs, those of all parts, each once."""
        found = {table.name: table for mask in self.masks for table in mask.tables}
        more = () if self.attention is None else self.attention.tables
        return tuple((found | {table.name: table for table in more}).values())


@dataclass(frozen=True)
class Setting:
    """Lengths, extents and inputs of a call, and remarks on those that were made up."""

    q_len: int
    k_len: int
    heads: int = 1
    batch: int = 1
    extents: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    made_up: dict[str, str] = field(default_factory=dict)

    def call(self, program: Program) -> Call:
        """Builds the call of the program."""
        return program.call(
            self.q_len, self.k_len, self.batch, self.heads, self.extents, self.inputs
        )


@dataclass(frozen=True)
class Asked:
    """A call as far as somebody described it; None where nothing was said. ``inputs`` are arrays by name."""

    q_len: int | None = None
    k_len: int | None = None
    heads: int | None = None
    batch: int | None = None
    extents: dict[str, int] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    layer: int = 0


def with_values(
    source: str, signature: frontend.Signature, values: Mapping[str, frontend.Given],
    entry: str | None = None, align: str | None = None, layer: int | None = None,
) -> Subject:  # fmt: skip
    """The pattern or attention with these values, and with the first that will do for parameters left open."""
    read = read_attention if is_attention(source, entry) else read_mask
    given = dict(values)
    lacking = [p for p in signature.parameters if p.default is None and p.name not in given]
    refusal: AttnDslError | None = None
    for number in TRIED if lacking else (0,):
        chosen = {p.name: _value_of(p.kind, number) for p in lacking}
        try:
            made = read(source, entry, {**given, **chosen}, align, layer)
        except AttnDslError as error:
            refusal = refusal or error
        else:
            every = {**given, **chosen}
            if isinstance(made, ir.Mask):
                return Subject(source, signature, every, chosen, (made,))
            return Subject(source, signature, every, chosen, made.masks, made)
    assert refusal is not None
    if lacking:  # what the user is asked for, rather than what we tried
        read(source, entry, given, align, layer)
    raise refusal


def _value_of(kind: str, number: int) -> frontend.Given:
    match kind:
        case "bool":
            return True
        case "list":
            return [number]
        case "real":
            return float(number)
        case _:
            return number


def literal(value: frontend.Given) -> str:
    """A value as the language writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def spelled(values: Mapping[str, frontend.Given]) -> str:
    """`(w=4, n=2)`, or nothing."""
    parts = [f"{name}={literal(value)}" for name, value in values.items()]
    return f"({', '.join(parts)})" if parts else ""


def example_setting(example: patterns.Trial) -> Setting:
    """The call of an entry's example."""
    words = dict.fromkeys(example.inputs, "as in the example of its entry")
    return Setting(
        example.q_len,
        example.k_len,
        example.heads,
        example.batch,
        example.extents,
        dict(example.inputs),
        words,
    )


def setting(mask: ir.Mask, asked: Asked, sides: Mapping[int, int] = SMALL) -> Setting:
    """The call that was asked for.

    Lengths that were left open follow from ``sides``, and are doubled while a picture would show nothing of the
    pattern: the mask is next to full, or a number in it is more than half as long as the sequence.

    Raises:
        AttnDslError: lengths, extents or inputs that do not fit the pattern.
    """
    loaded = asked.inputs
    lengths = _Lengths(asked.q_len, asked.k_len, asked.extents).taught_by(mask, loaded)
    tables = [table for table in mask.tables if table.name in loaded]
    least = 2 if mask.root.deps & ir.Deps.HEAD else 1
    heads = asked.heads or max(least, counted("head", tables, loaded))
    batch = asked.batch or counted("batch", tables, loaded)
    trials = (
        _with_inputs(mask, replace(trial, batch=batch), loaded, asked.seed)
        for trial in _settings(mask, lengths, heads, sides)
    )
    smallest = next(trials)
    if lengths.are_given or _shows(mask, smallest, asked.layer):
        return smallest
    return next((each for each in trials if _shows(mask, each, asked.layer)), smallest)


@dataclass(frozen=True)
class _Lengths:
    q_len: int | None
    k_len: int | None
    extents: dict[str, int]

    @property
    def are_given(self) -> bool:
        return self.q_len is not None or self.k_len is not None

    def taught_by(self, mask: ir.Mask, loaded: Mapping[str, Any]) -> _Lengths:
        """With the lengths of the input files, where no option gives them."""
        found: dict[str, int] = {}
        for table in mask.tables:
            shape = np.shape(loaded[table.name]) if table.name in loaded else ()
            named = zip(reversed(table.dims), reversed(shape), strict=False)
            found |= {"k" if dim == "pos" else str(dim): size for dim, size in named}
        k_len = found.get("k", self.q_len) if self.k_len is None else self.k_len
        q_len = found.get("q", k_len) if self.q_len is None else self.q_len
        return _Lengths(q_len, k_len, self.extents)


def _settings(
    mask: ir.Mask, lengths: _Lengths, heads: int, sides: Mapping[int, int]
) -> Iterator[Setting]:
    """The call asked for; or else ever larger ones, the smallest first."""
    given = lengths.extents
    if lengths.q_len is not None or lengths.k_len is not None:
        length = lengths.q_len or lengths.k_len or 1
        k_len = lengths.k_len or length
        yield Setting(length, k_len, heads, extents=given | _roots(mask, k_len, given))
        return
    open_axes = _open_axes(mask.keys, given) | _open_axes(mask.queries, given)
    side = sides[min(3, len(open_axes))]
    while True:
        extents = given | dict.fromkeys(sorted(open_axes), side)
        k_len = _tokens(mask.keys, extents, side)
        q_len = _tokens(mask.queries, extents, side) if mask.is_rectangular else k_len
        yield Setting(q_len, k_len, heads, extents=extents)
        side *= 2
        is_fixed = bool(mask.keys.segments) and not open_axes
        if is_fixed or 2 * max(q_len, k_len) > LARGEST_PICTURE:
            return


def _open_axes(space: ir.Space, given: Mapping[str, int]) -> set[str]:
    return {
        axis.name
        for segment in space.segments
        for axis in segment.axes
        if axis.extent is None
        and axis.name not in given
        and f"{segment.name}.{axis.name}" not in given
    }


def _tokens(space: ir.Space, extents: Mapping[str, int], side: int) -> int:
    if not space.segments:
        return side
    return sum(
        math.prod(_extent_of(segment, axis, extents) for axis in segment.axes)
        for segment in space.segments
    )


def _extent_of(segment: ir.Segment, axis: ir.Axis, extents: Mapping[str, int]) -> int:
    full = f"{segment.name}.{axis.name}"
    return axis.extent or extents[full if full in extents else axis.name]


def _roots(mask: ir.Mask, length: int, given: Mapping[str, int]) -> dict[str, int]:
    """A square for a length alone: 196 tokens of an image are 14 by 14."""
    axes = _open_axes(mask.keys, given)
    if given or len(mask.keys.segments) != 1 or len(axes) < 2:
        return {}
    side = round(length ** (1 / len(axes)))
    return dict.fromkeys(sorted(axes), side) if side ** len(axes) == length else {}


def _shows(mask: ir.Mask, found: Setting, layer: int) -> bool:
    """Whether a picture of the call shows the pattern."""
    widest = max((n for n in _numbers(mask) if 2 * n <= LARGEST_PICTURE), default=0)
    is_hidden = not mask.keys.segments and 2 * widest > max(found.q_len, found.k_len)
    return not is_hidden and not _is_crowded(mask, found, layer)


def _numbers(mask: ir.Mask) -> Iterator[int]:
    """The numbers that the relation is written with."""
    for node in ir.postorder(mask.root):
        match node:
            case ir.Const(value=n) | ir.Le(bound=n) | ir.Eq(bound=n):
                yield abs(n)
            case _:
                pass


def _is_crowded(mask: ir.Mask, found: Setting, layer: int) -> bool:
    if max(found.q_len, found.k_len) > LARGEST_PICTURE:
        return False
    program = Program(mask, layer)
    return bool(program.dense(found.call(program)).mean() > CROWDED)


def _with_inputs(mask: ir.Mask, trial: Setting, loaded: Mapping[str, Any], seed: int) -> Setting:
    """With the inputs that were loaded, and the others made up."""
    sizes = ir.resolve_sizes(mask, trial.q_len, trial.k_len, trial.extents)
    inputs, words = dict(loaded), dict[str, str]()
    asked = sizes_asked(mask, sizes)
    chosen = _chosen(mask, trial, loaded, seed)
    for table in mask.tables:
        shape = ir.known_shape(mask, table, sizes, trial.batch, trial.heads)
        if table.name in chosen and table.name not in loaded:
            inputs[table.name], words[table.name] = chosen[table.name], "chosen from random vectors"
        elif table.name in loaded:
            inputs[table.name] = _spread(table, loaded[table.name], shape)
        else:
            rng = np.random.default_rng(seed)
            if mask.conditions:
                few = (asked.get(str(dim), (0, _FEW)) for dim in table.dims)
                free = (max(low, min(high, _FEW)) for low, high in few)
                shape = tuple(b if a is None else a for a, b in zip(shape, free, strict=True))
            inputs[table.name], words[table.name] = _invented(table, shape, sizes["k"], rng)
    if mask.conditions and words:
        random = np.random.default_rng(seed)
        made = obedient(mask, inputs, sizes, trial.batch, trial.heads, random)
        words = {
            name: text if made[name] is inputs[name] else "as the pattern asks"
            for name, text in words.items()
        }
        inputs |= {name: made[name] for name in words}
    return replace(trial, inputs=inputs, made_up=words)


def _chosen(mask: ir.Mask, trial: Setting, loaded: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The tables that selections make of random q, k and real inputs; none where inputs of theirs are no reals."""
    asked = [each for each in mask.selections if each.name not in loaded]
    made = {each.name for each in mask.selections}
    read = {table for each in asked for table in each.tables if table.name not in made}
    if not asked or any(table.kind is not ir.Sort.REAL for table in read):
        return {}
    import torch  # pictures of other patterns do without

    from attndsl.selected import Selector

    draws = torch.Generator().manual_seed(seed)
    sizes = {"batch": trial.batch, "head": trial.heads, "q": trial.q_len}
    sizes |= {"k": trial.k_len, "pos": trial.k_len}

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draws)

    real = {
        table.name: random(
            *(sizes.get(str(dim), dim if isinstance(dim, int) else _FEW) for dim in table.dims)
        )
        for table in read
    }
    q, k = (random(trial.batch, trial.heads, n, _FEW) for n in (trial.q_len, trial.k_len))
    found = Selector.of((mask,), 0).select(q, k, None, real)
    read_too = {table.name for table in mask.tables} & real.keys()  # a pattern reads their lengths
    tables = {**found, **{name: real[name] for name in read_too}}
    return {name: table.numpy() for name, table in tables.items() if name not in loaded}


def _spread(table: ir.Table, array: Any, shape: Sequence[int | None]) -> Any:
    """The same for every batch element and head, where the file leaves these dims out."""
    missing = len(table.dims) - array.ndim
    leading = table.dims[: max(0, missing)]
    if not leading or not set(leading) <= {"batch", "head"}:
        return array
    counts = [size for size in shape[: len(leading)] if size is not None]
    return np.broadcast_to(array, (*counts, *array.shape))


def _invented(
    table: ir.Table, known: Sequence[int | None], k_len: int, rng: np.random.Generator
) -> tuple[Any, str]:
    """Contents that make a picture, and what they are in words."""
    shape = [k_len if size is None else size for size in known]
    if table.is_list and known[-1] is None:
        shape[-1] = 4  # slots, under whatever name
    if math.prod(shape) > MOST_INVENTED:
        title = f"input `{table.name}` would have {math.prod(shape):,} entries: too many to make up"
        raise AttnDslError(Diagnostic("A602", title, helps=(f"give `{table.name}` itself",)))
    if table.is_list:
        places = table.indexed_dims[:1] in (("q",), ("pos",), ("k",))
        most = k_len if places else max(2, math.isqrt(k_len))
        return rng.integers(0, most, shape), f"{shape[-1]} random entries below {most} in each list"
    if table.kind is ir.Sort.BOOL:
        kept = max(1, 3 * shape[-1] // 4)
        return np.broadcast_to(np.arange(shape[-1]) < kept, shape), f"true for the first {kept}"
    if table.indexed_dims == ("pos",):
        starts = rng.random(shape) < max(4 / shape[-1], 1 / 64)
        return np.cumsum(starts, axis=-1), "documents of random lengths"
    return rng.integers(0, 4, shape), "random ids from 0 to 3"
