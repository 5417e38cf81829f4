"""The function that users of an emitted file call: its keywords are the pattern's inputs and open extents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attndsl import ir
from attndsl.emission.names import Names, calling, escaped, quoted
from attndsl.emission.relations import Relation

GIVEN = (
    "q", "k", "v", "scale", "return_lse", "schedule", "out", "lse", "check", "as_input", "resolved", "numbers",
    "recalled", "Schedule", "Pattern", "Attention", "attention", "functools", "batch", "head", "heads",
    "q_len", "k_len", "device", "sizes", "schedule_of", "extents", "in_pattern", "zero_keys", "LONGEST", "HEADS",
    "LARGEST", "torch", "tl", "triton", "sees", "counts", "pattern", "inputs", "conditions", "require",
    "positions", "told", "Positions", "Spaces", "spaces", "placed", "pattern_of", "make", "at", "judged", "stated",
    "attended", "q_start", "q_pos", "k_start", "kv_len", "k_pos", "head_start",
)  # fmt: skip


# Dims, lengths and counts as local names.
LENGTHS = {
    "batch": "batch", "head": "heads", "heads": "heads", "q": "q_len", "k": "k_len", "pos": "k_len",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Traits:
    """Facts about the pattern that the schedule of a call is given."""

    batches: bool  # whether batch elements differ
    heads: bool  # whether heads do
    back: int | None  # the farthest key behind a query that it sees; None without a bound
    ahead: int | None


@dataclass(frozen=True, slots=True)
class Keywords:
    """The keywords of a call, by what they stand for."""

    inputs: dict[str, str]  # input -> keyword
    axes: dict[str, str]  # open axis, "segment.axis" -> its extent, as the keywords give it
    extents: dict[str, str]  # keyword -> what it is the extent of
    sizes: dict[str, str]  # length, as nodes name it -> local name


@dataclass(frozen=True, slots=True)
class ScoredInputs:
    """Inputs and lengths of the functions of the scores over a pattern."""

    suffix: str  # of the names of functions of this pattern
    tables: tuple[ir.Table, ...]  # real inputs
    ints: dict[str, str]  # parameter -> name of the int or bool input
    sizes: dict[str, str]  # parameter -> name of the length
    reads: tuple[ir.Read, ...]  # reads at positions, of any input
    reals: dict[str, str]  # real input -> its keyword


def attention_function(mask: ir.Mask, relation: Relation, traits: Traits) -> tuple[str, str]:
    """The text of ``attention`` and of what it calls; and how a call of it looks."""
    names = Names(*GIVEN, *relation.sizes)
    keywords = keywords_of(mask, relation.sizes, names)
    parts = [
        _attention(mask, keywords),
        _schedule_of(mask, keywords),
        pattern_of(mask, relation, traits, keywords),
    ]
    text = "\n\n\n".join(parts)
    shown = [f"{name}={name}" for name in keywords.inputs.values()]
    shown += [f"{name}=..." for name in list(keywords.extents)[1:]]
    return text + "\n", ", ".join(["q", "k", "v", *shown])


def keywords_of(mask: ir.Mask, named: Mapping[str, str], names: Names) -> Keywords:
    """The keywords of a call; ``named`` are sizes by the names that functions of the mask know them by."""
    inputs = {table.name: names.of(("input", table.name), table.name) for table in mask.tables}
    axes, extents = _extents(mask, names)
    parameters = {size: name for name, size in named.items()}
    sizes = {full: parameters.get(full) or names.of(("size", full), f"len_{_short(mask, full)}")
             for full in _axes(mask)}  # fmt: skip
    return Keywords(inputs, axes, extents, sizes | parameters)


def _spaces(mask: ir.Mask) -> list[tuple[ir.Space, str]]:
    """The spaces to resolve, with the length of each. Queries of the space of the keys say nothing of its size."""
    found = [(mask.keys, "k_len")]
    if mask.is_rectangular:
        found.append((mask.queries, "q_len"))
    return [(space, length) for space, length in found if space.segments]


def _axes(mask: ir.Mask) -> list[str]:
    found = [
        f"{s.name}.{a.name}" for space, _ in _spaces(mask) for s in space.segments for a in s.axes
    ]
    return list(dict.fromkeys(found))


def _open_axes(mask: ir.Mask) -> list[str]:
    found = [
        f"{segment.name}.{axis.name}"
        for space, _ in _spaces(mask)
        for segment in space.segments
        for axis in segment.axes
        if axis.extent is None
    ]
    return list(dict.fromkeys(found))


def _extents(mask: ir.Mask, names: Names) -> tuple[dict[str, str], dict[str, str]]:
    """A keyword for each open axis; one more for axes of one name in several segments."""
    axes, extents = dict[str, str](), dict[str, str]()
    for full in _open_axes(mask):
        own = names.of(("axis", full), _short(mask, full))
        axes[full], extents[own] = own, full
        common = full.partition(".")[2]
        if _short(mask, full) != common:
            shared = names.of(("axes", common), common)
            axes[full] = f"{shared} if {own} is None else {own}"
            extents[shared] = f"{common} in all segments"
    return axes, extents


def _short(mask: ir.Mask, full: str) -> str:
    """The name of an axis; with that of its segment where another segment has it too."""
    segment, _, short = full.partition(".")
    owners = {other.partition(".")[0] for other in _axes(mask) if other.endswith(f".{short}")}
    return short if owners == {segment} else f"{segment}_{short}"


def _schedule_of(mask: ir.Mask, keywords: Keywords) -> str:
    named = [*keywords.inputs.values(), *keywords.extents]
    parameters = ["q_len", "k_len", "batch", "heads", "device", *named, "positions=None"]
    extents = {
        str(space.name): f"stated({_extents_of(space, keywords)})" for space, _ in _spaces(mask)
    }
    sides = mask.queries if mask.is_rectangular else None, mask.keys
    stated = [extents.get(str(side.name), "None") if side else "None" for side in sides]
    about = [mask.align is ir.Align.END, mask.is_placed, mask.is_rectangular]
    bound = ["pattern_of", *(f"{x}={x}" for x in named)]
    lines = calling("make = functools.partial", bound) if named else ["make = pattern_of"]
    lines += calling("spaces = Spaces", [*map(str, about), *stated])
    told = [
        "positions",
        "make",
        "(q_len, k_len, batch, heads)",
        "device",
        "spaces",
        "(LONGEST, HEADS)",
    ]
    lines += calling("pattern = placed", told)
    lines += ["return Schedule(pattern)"]
    head = calling("def schedule_of", parameters, ":", 100)
    doc = '    """The schedule of a call; its inputs are checked."""'
    return "\n".join([*head, doc, *(f"    {line}" for line in lines)])


def pattern_of(
    mask: ir.Mask,
    relation: Relation,
    traits: Traits,
    keywords: Keywords,
    scored: ScoredInputs | None = None,
) -> str:
    """The text of the function that makes a pattern at the lengths of a call."""
    suffix = scored.suffix if scored else ""
    named = [keywords.inputs[table.name] for table in mask.tables]
    named += [f"{name}_shape" for name in (scored.reals.values() if scored else ())]
    named += keywords.extents
    parameters = ["q_len", "k_len", "batch", "heads", "device", "at=None"]
    parameters += ["*", *named] if named else []
    lines = []
    if mask.keys.segments and not mask.is_rectangular:
        lines += ["if q_len > k_len:", '    raise ValueError("there are more queries than tokens")']
    if _spaces(mask):
        lines += _resolving(mask, keywords)
    checked = [*ir.reads(mask), *(scored.reads if scored else ())]
    for table in mask.tables:
        lines += _reading(mask, table, keywords, checked)
    for table in scored.tables if scored else ():
        lines += _fitting(mask, table, keywords, checked, f"{keywords.inputs[table.name]}_shape")
    given = [f"{name}={keywords.inputs[table]}" for name, table in relation.tables.items()]
    if relation.sizes:
        known = [f"{name}={name}" for name in relation.sizes]
        lines += calling("sizes = numbers", ["device", *known])
        given.append("**sizes")
    if relation.conditions:
        lines += calling(f"conditions{suffix}", ["*judged(at, batch, heads, device)", *given])
    functions = [("sees", f"in_pattern{suffix}"), ("counts", f"zero_keys{suffix}")]
    for name, function in functions if relation.zero_keys else functions[:1]:
        lines += calling(f"{name} = functools.partial", [function, *given])
    told = _told_of_pattern(mask, traits, has_zero_keys=bool(relation.zero_keys))
    if scored and (scored.ints or scored.sizes):
        lines += _given(scored, keywords)
        told.append("given=given")
    lines += calling("return Pattern", told)
    head = calling(f"def pattern_of{suffix}", parameters, ":", 100)
    doc = '    """The pattern at the lengths of a call; its inputs are checked."""'
    return "\n".join([*head, doc, *(f"    {line}" for line in lines)])


def _told_of_pattern(mask: ir.Mask, traits: Traits, *, has_zero_keys: bool) -> list[str]:
    counts = ["batch" if traits.batches else "1", "heads" if traits.heads else "1"]
    told = ["sees", "q_len", "k_len", *counts, "device"]
    if mask.align is ir.Align.END:
        told.append("q_start=k_len - q_len")
    bounds = {"back": traits.back, "ahead": traits.ahead}
    near = {name: bound for name, bound in bounds.items() if bound is not None}
    # the bounds are proved for positions from 0 on
    told += [f"{name}={bound} if q_len <= k_len else None" for name, bound in near.items()]
    return [*told, "zero_keys=counts"] if has_zero_keys else told


def _given(scored: ScoredInputs, keywords: Keywords) -> list[str]:
    """Statements that gather int and bool inputs and lengths for functions of scores."""
    known = LENGTHS | keywords.sizes
    sizes = [f"{name}={known.get(size, size)}" for name, size in scored.sizes.items()]
    ints = [f"{name}={keywords.inputs[table]}" for name, table in scored.ints.items()]
    if not sizes:
        return calling("given = dict", ints)
    lines = calling("given = numbers", ["device", *sizes])
    return [*lines, *calling("given |= dict", ints)] if ints else lines


def _extent_of(full: str, axis: ir.Axis, keywords: Keywords) -> str:
    return keywords.axes[full] if axis.extent is None else str(axis.extent)


def _extents_of(space: ir.Space, keywords: Keywords) -> str:
    """The extents of each segment, as a list."""
    segments = [
        ", ".join(_extent_of(f"{s.name}.{a.name}", a, keywords) for a in s.axes)
        for s in space.segments
    ]
    return f"[{', '.join(f'[{each}]' for each in segments)}]"


def _resolving(mask: ir.Mask, keywords: Keywords) -> list[str]:
    """All extents at once, and each space as the places of its extents among them."""
    axes = {
        f"{segment.name}.{axis.name}": axis
        for space, _ in _spaces(mask)
        for segment in space.segments
        for axis in segment.axes
    }
    places = {full: place for place, full in enumerate(axes)}
    given = [_extent_of(full, axis, keywords) for full, axis in axes.items()]
    items, opening = [f"[{', '.join(given)}]"], list[str]()
    if len(items[0]) > 60:
        items, opening = ["extents"], ["extents = [", *(f"    {each}," for each in given), "]"]
    for space, length in _spaces(mask):
        segments = [[places[f"{s.name}.{axis.name}"] for axis in s.axes] for s in space.segments]
        items.append(f"({quoted(space.name)}, {length}, {segments})")
    targets = [keywords.sizes[full] for full in axes]
    left = ", ".join(targets) if len(targets) > 1 else f"({targets[0]},)"
    return [*opening, *calling(f"{left} = resolved", items)]


def _reading(
    mask: ir.Mask, table: ir.Table, keywords: Keywords, checked: Sequence[ir.Read]
) -> list[str]:
    name = keywords.inputs[table.name]
    shape, more = _shape(mask, table, keywords, checked, f"{name}.shape")
    kind = "list" if table.is_list else "bool" if table.kind is ir.Sort.BOOL else "int"
    dims = [quoted(dim) if isinstance(dim, str) else str(dim) for dim in table.dims]
    spelled = [f"({', '.join(each)}{',' * (len(each) == 1)})" for each in (dims, shape)]
    told = [quoted(table.name), name, quoted(kind), *spelled, "device", "LARGEST", "at"]
    return [*calling(f"{name} = as_input", told), *more]


def _fitting(
    mask: ir.Mask, table: ir.Table, keywords: Keywords, checked: Sequence[ir.Read], given: str
) -> list[str]:
    """Statements that judge the shape ``given`` of a real input, in which no dim repeats an entry any more."""
    shape, more = _shape(mask, table, keywords, checked, given)
    spelled = f"({', '.join(shape)}{',' * (len(shape) == 1)})"
    asks = [size for size in shape if size != "None"]
    return [*(calling("fits", [quoted(table.name), given, spelled]) if asks else ()), *more]


def _shape(
    mask: ir.Mask, table: ir.Table, keywords: Keywords, checked: Sequence[ir.Read], given: str
) -> tuple[list[str], list[str]]:
    """The extents that an input must have, None for any, and statements that read or judge those it has."""
    name = keywords.inputs[table.name]
    shape, more = [], []
    for place, dim in enumerate(table.dims):
        extent = _extent(mask, table, dim, keywords)
        if extent is None:
            size = keywords.sizes.get(f"{table.name}:{dim}")
            more += [f"{size} = {given}[{place}]"] if size else []
        for other in ir.axes_named(mask, str(dim))[1:]:
            more += [f"if {keywords.sizes[other]} != {extent}:"]
            more += [
                f'    raise ValueError("axes of one name differ, and {name} has but one dim for them")'
            ]
        shape.append(extent or "None")
    for read in dict.fromkeys(each for each in checked if each.table == table):
        place, known = (
            len(table.dims) - len(table.indexed_dims) + read.place,
            LENGTHS | keywords.sizes,
        )
        least = (
            known[read.length] if read.block == 1 else f"-(-{known[read.length]} // {read.block})"
        )
        if shape[place] != least:
            more += [f"if {given}[{place}] < {least}:"]
            more += [f'    raise ValueError("{name} has too few entries for so many tokens")']
    return shape, more


def _extent(mask: ir.Mask, table: ir.Table, dim: str | int, keywords: Keywords) -> str | None:
    """The required size of a dim; None if any will do."""
    if isinstance(dim, int):
        return str(dim)
    if dim in LENGTHS:
        return LENGTHS[dim]
    owners = ir.axes_named(mask, dim)
    return keywords.sizes[owners[0]] if owners else None


def _attention(mask: ir.Mask, keywords: Keywords) -> str:
    inputs, axes = list(keywords.inputs.values()), list(keywords.extents)
    options = ["q", "k", "v", "*", *inputs, *(f"{name}=None" for name in axes)]
    options += ["scale=None", "return_lse=False", "**positions"]
    head = calling("def attention", options, ":", 100)
    sizes = ["q.shape[2]", "k.shape[2]", "*q.shape[:2]", "q.device"]
    lines = ['"""softmax(scale q kᵀ, over the pairs of the pattern) v.', "", "Args:"]
    lines += [f"    {name}: {text}" for name, text in _told(mask, keywords)]
    lines += [
        "",
        "Returns:",
        "    out [B, H, Q, Dv] and, if asked for, its log-sum-exp [B, H, Q], float32. Both are differentiable.",
        "    A query without a key has out 0, log-sum-exp -inf and no gradient.",
        '"""',
        "check(q, k, v, LONGEST, HEADS)",
        "told = Positions(**positions)",
        *_tuple("sizes = ", [*sizes, *axes]),
    ]
    given = [*inputs, "*told.values()"]
    together, *more = _tuple("", given) if inputs else ["told.values()"]
    if more or len(inputs) > 2:
        together = "inputs"
        lines += _tuple("inputs = ", given)
    asked = ["*sizes[:5]", *inputs, *(["*sizes[5:]"] if axes else []), "told"]
    made = f"lambda: schedule_of({', '.join(asked)})"
    lines += calling("schedule = recalled", ["sizes", together, made])
    lines += [
        "scale = q.shape[3] ** -0.5 if scale is None else float(scale)",
        "out, lse = attended(q, k, v, schedule, scale)",
        "return (out, lse) if return_lse else out",
    ]
    return "\n".join([*head, *(f"    {line}".rstrip() for line in lines)])


def _tuple(head: str, items: list[str]) -> list[str]:
    """The items as a tuple behind ``head``, on one line or on one each."""
    together = f"{head}({', '.join(items)}{',' * (len(items) == 1)})"
    return [together] if len(together) <= 96 else [f"{head}(", *(f"    {x}," for x in items), ")"]


def _told(mask: ir.Mask, keywords: Keywords) -> list[tuple[str, str]]:
    """Documentation of each argument."""
    told = [
        ("q", "Queries [B, H, Q, D], bfloat16, float16 or float32, of any strides."),
        ("k", "Keys [B, Hkv, K, D]; Hkv divides H."),
        ("v", "Values [B, Hkv, K, Dv]."),
    ]
    told += [(keywords.inputs[table.name], told_of_input(table)) for table in mask.tables]
    told += told_of_extents(keywords)
    told.append(("scale", "Of the scores; 1 / sqrt(D) by default."))
    told.append(("return_lse", "Whether to return the log-sum-exp too."))
    told.append(
        (
            "positions",
            "Where tokens and heads stand, as in `Positions`: q_start, kv_len, head_start, ...",
        )
    )
    return told


_KINDS = {ir.Sort.BOOL: "truth values", ir.Sort.INT: "integers", ir.Sort.REAL: "real numbers"}


def told_of_input(table: ir.Table) -> str:
    """Documentation of an input."""
    dims = escaped(", ".join(map(str, table.dims)))
    more = "; negative entries are empty" if table.is_list else ""
    return f"Input [{dims}], {_KINDS[table.kind]}{more}."


def told_of_extents(keywords: Keywords) -> list[tuple[str, str]]:
    """Documentation of the extents of axes."""
    return [
        (name, f"Extent of the axis {escaped(full)}; one of a space may be left out.")
        for full, name in keywords.axes.items()
    ]
