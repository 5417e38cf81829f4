"""Facts of selections: whether they know the future, how many units they take, what their scores cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from attndsl import analysis, ir

sel, reals = ir.selection, ir.reals

_K, _Q = ir.Pos(ir.Side.KEY), ir.Pos(ir.Side.QUERY)


def leaks(chosen: ir.Chosen) -> tuple[str, ...]:
    """Ways in which a choice knows tokens behind the query it is for, in words; without any it is proved causal.

    Proved: the same choice is made however the sequence goes on. So the rows of a prefill choose what steps of
    decoding do.
    """
    found = dict.fromkeys(_own_leaks(chosen))
    for each in chosen.within:
        found |= dict.fromkeys(f"`{each.name}`: {leak}" for leak in leaks(each))
    return tuple(found)


def _own_leaks(chosen: ir.Chosen) -> Iterator[str]:
    if isinstance(chosen, ir.Rank):
        yield "where a token stands depends on tokens behind it"
        return
    rows = chosen.queries
    where = ir.TRUE if _reads_conditions(chosen.where) else chosen.where
    if chosen.choice.take is sel.Take.SAMPLE:
        assert isinstance(chosen.units, sel.Groups), "numbers are chosen by labels alone"
        if rows is not None or not _is_past(chosen.units, where):
            yield "units behind the query are drawn from, too"
        return
    if chosen.by_column:
        if not isinstance(rows, sel.Numbers):
            yield "units take queries: later ones compete"
        elif chosen.units != sel.TOKENS:
            yield "a unit is summarised as a whole"
        return
    if isinstance(rows, sel.Numbers):
        yield "numbers take tokens of the whole sequence: later ones compete"
        return
    if isinstance(rows, sel.Tiles) or (rows is not None and not rows.is_token):
        yield "queries choose together: later ones have a say"
        return
    units = chosen.units
    if isinstance(units, sel.Numbers):
        return
    roots = (chosen.score, chosen.where, chosen.keeping, chosen.choice.amount)
    for root in roots:
        yield from _of_scores(root, units, where)
    if chosen.choice.take in (sel.Take.REACHING, sel.Take.WITHIN) and not _is_past(units, where):
        yield "units behind the query are candidates"


def _reads_conditions(where: ir.Node) -> bool:
    return any(isinstance(node, sel.Exceeds) for node in ir.postorder(where))


def _of_scores(root: ir.Node, units: sel.Groups, where: ir.Node) -> Iterator[str]:
    """Leaks of an expression that is asked of the units for which a condition holds."""
    waiting, seen = [root], set[ir.Node]()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        match node:
            case sel.Reduced(units=(sel.Units() | sel.Tiles()) as own, item=item, where=inner):
                yield from _of_scores(item, own, inner)
                if not _is_past(own, inner) and node.how is sel.Fold.SOFTMAX:
                    yield "shares are those among units behind the query, too"
            case sel.RowFold(units=own, item=item, where=inner):
                yield from _of_scores(item, own, inner)
            case sel.Pooled(side=ir.Side.KEY) | sel.Bound() | sel.Antidiagonal():
                if not _is_past(units, where):
                    yield "a unit that ends behind the query is summarised"
            case reals.Own(side=ir.Side.KEY):
                if not _is_past(units, where):
                    yield "keys behind the query are scored"
            case reals.Row() | ir.Load() if node.deps & ir.Deps.KEY:
                if not _is_past(units, where):
                    yield f"`{node.table}` is read behind the query"
                waiting += node.parts
            case _:
                waiting += node.parts


def _is_past(units: sel.Groups, where: ir.Node) -> bool:
    """Whether it is proved that units for which a condition holds end at the query, or before.

    A tile does where it ends before the query along the first axis.
    """
    if isinstance(units, sel.Tiles):
        at: ir.Node = ir.Coord(
            ir.Side.QUERY, f"{units.space.segments[0].name}.{units.axes[0].name}"
        )
        unit, size = units.first_number(_K), units.sizes[0]
        ends: tuple[ir.Node, ...] = (ir.add(ir.scale(unit, size), ir.Const(size + 1)),)
    else:
        at, unit, size = _Q, _K, units.size
        ends = ir.add(units.start(_K), ir.Const(size)), units.end(_K, ir.Size("k"))
    known: dict[ir.Node, tuple[int, int]] = {unit: (0, analysis.FAR), at: (0, analysis.FAR)}
    later = [ir.conj(where, ir.lt(ir.add(at, ir.Const(1)), end)) for end in ends]
    if any(analysis.impossible(each, known) for each in later):
        return True
    # The query in its own block, and how many blocks before it the unit is: `k < q // b` is a bound of the latter.
    block, rest, before = map(analysis.variable, range(3))
    values: dict[ir.Node, ir.Node] = {
        at: ir.add(ir.scale(block, size), rest),
        unit: ir.sub(block, ir.add(before, ir.Const(1))),
    }
    far = analysis.FAR
    free = {block: (0, far), rest: (0, size - 1), before: (-far, far)}
    return any(analysis.impossible(ir.substitute(each, values), free) for each in later)


def told(
    chosen: Iterable[ir.Chosen], sizes: Mapping[str, int], heads: int, head_dim: int
) -> dict[str, str]:
    """Facts of each selection, by name, in words; ``sizes`` are those of a call."""
    return {each.name: _told(each, sizes, heads, head_dim) for each in chosen}


def _told(chosen: ir.Chosen, sizes: Mapping[str, int], heads: int, head_dim: int) -> str:
    found = leaks(chosen)
    words = f"knows the future: {'; '.join(found)}" if found else "causal, proved"
    if isinstance(chosen, ir.Rank):
        return words
    slots, units = chosen.table.dims[-1], chosen.units
    most = f"at most {slots}" if isinstance(slots, int) else "any number"
    if isinstance(units, sel.Numbers) or isinstance(chosen.queries, sel.Numbers):
        return f"{most} each; {words}"
    flops = scoring_work(chosen, sizes, heads, head_dim)
    many = _count(units, sizes, "k")
    return f"{most} of {many:,} units, {flops / 1e6:,.3g} MFLOP to score them; {words}"


def scoring_work(chosen: ir.Chosen, sizes: Mapping[str, int], heads: int, head_dim: int) -> float:
    """The floating-point operations of the products in scores, of one batch element of a call of these sizes.

    Choices of numbers are left out, as how many there are is not known.
    """
    units = getattr(chosen, "units", None)
    if isinstance(chosen, ir.Rank) or not isinstance(units, sel.Groups):
        return 0.0
    rows = 1
    if chosen.queries is None:
        rows = sizes["q"]
    elif isinstance(chosen.queries, sel.Groups):
        rows = _count(chosen.queries, sizes, "q")
    else:
        return 0.0
    products = sum(
        _products(root, rows, _count(units, sizes, "k"), sizes) for root in chosen.expressions()
    )
    return 2.0 * products * heads * head_dim


def _products(root: ir.Node, rows: int, many: int, sizes: Mapping[str, int]) -> int:
    """How many products of vectors an expression of so many rows and units has; one that stands twice counts once."""
    found, waiting, seen = 0, [root], set[ir.Node]()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        match node:
            case sel.Reduced(units=(sel.Units() | sel.Tiles()) as own) | sel.RowFold(units=own):
                inside = _count(own, sizes, "k")
                found += sum(
                    _products(each, rows, inside, sizes) for each in (node.item, node.where)
                )
            case sel.QueryFold(rows=own):
                inside = _count(own, sizes, "q")
                found += sum(
                    _products(each, inside, many, sizes) for each in (node.item, node.where)
                )
            case reals.Dot() | sel.Bound() | sel.Antidiagonal():
                found += rows * many
            case _:
                waiting += node.parts
    return found


def _count(units: sel.Groups, sizes: Mapping[str, int], side: str) -> int:
    """How many units there are in a call."""
    return units.count(sizes) if isinstance(units, sel.Tiles) else units.count(sizes[side])
