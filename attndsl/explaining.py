"""Everything that ``explain`` says of a pattern in one call: counted, predicted, and tried nearby."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from attndsl import (
    backends,
    claims,
    codegen,
    families,
    frontend,
    ir,
    lowering,
    neighbourhoods,
    passes,
    views,
)
from attndsl import schedule as scheduling
from attndsl.analysis import Fact
from attndsl.compiler import Program
from attndsl.source import AttnDslError
from attndsl.sources import Source, describe, open_module, read_mask

_MOST_TOLD: Final = 2_000  # PARTIAL tiles that are looked into for families: a tenth of a second
TILE: Final = (128, 128)
OTHER_TILES: Final = ((64, 64), (64, 128), (128, 64))
# Live tiles up to which others are counted, of which there are four times as many.
MOST_SMALL = 1 << 20
MOST_TIMED = 20_000  # tiles up to which a layout is timed: strips are made of them one by one
MOST_VARIED = 1 << 15  # and parameters are varied
MOST_ARRANGED = 2_000  # nodes and operands of a relation up to which other tiles are made


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a pattern came from, which says what it would be with other values."""

    source: Source
    entry: str | None
    values: Mapping[str, frontend.Given]
    align: str | None = None

    def mask(self, layer: int) -> ir.Mask:
        """The pattern, read anew for that layer."""
        return read_mask(self.source, self.entry, self.values, self.align, layer)

    def whole_numbers(self) -> dict[str, int]:
        """The parameters that hold an integer, given or by a default that is one."""
        found = dict(self.values)
        if isinstance(self.source, str):
            for each in describe(self.source, self.entry).parameters:
                if each.default is not None and each.default.isdecimal():
                    found.setdefault(each.name, int(each.default))
        return {name: n for name, n in found.items() if type(n) is int}

    def hints(self, facts: Mapping[str, claims.FactValue]) -> tuple[str, ...]:
        """Misreadings that the text invites, each with a way out; ``facts`` are those of the pattern."""
        if facts["causal"] is not Fact.REFUTED or not isinstance(self.source, str | os.PathLike):
            return ()
        module, name, resolve = open_module(self.source, self.entry)
        found = frontend.precedence_hint(module, name, self.values, resolve)
        return () if found is None else (found,)

    def varied(self, name: str, value: int, layer: int) -> Program | None:
        """The pattern with another value of one parameter; None where a constraint forbids it."""
        try:
            mask = replace(self, values={**self.values, name: value}).mask(layer)
        except AttnDslError:
            return None
        return Program(mask, layer)


def explanation(
    program: Program,
    call: scheduling.Call,
    head_dim: int,
    machine: backends.Machine,
    origin: Origin | None,
) -> views.Explanation:
    """Explains a pattern: its properties, the cost of a call in either order, and what would be cheaper."""
    natural = _arranged(program, call, "natural", head_dim, TILE)
    auto = _arranged(program, call, "auto", head_dim, TILE)
    copies = max(1, call.heads * call.batch)
    live = auto.cost.live // copies
    extents = {name: size for name, size in call.sizes.items() if "." in name}
    is_long = _is_long(program)
    small = OTHER_TILES if live <= MOST_SMALL and not is_long else ()

    lengths = call.q_len, call.k_len

    def fit(name: str, value: int) -> views.Fit | None:
        other = origin.varied(name, value, program.layer) if origin else None
        if other is None:
            return None
        try:
            again = other.call(*lengths, call.batch, call.heads, extents, call.tables)
        except AttnDslError:
            return None
        layout = "natural" if auto.is_natural else "auto"
        return _fit(_arranged(other, again, layout, head_dim, TILE))

    vary = origin is not None and live <= MOST_VARIED and call.positions is None and not is_long
    numbers = origin.whole_numbers() if origin and vary else {}
    facts = claims.facts(program.mask, program.normal, program.layer)
    return views.Explanation(
        program.mask.name,
        program.mask.root,
        _steps(program, call),
        {name: str(fact) for name, fact in facts.items()},
        *lengths,
        call.heads,
        head_dim,
        natural,
        auto,
        tuple(_arranged(program, call, "auto", head_dim, tile) for tile in small),
        _clock(program, call, head_dim, machine, natural.cost.live // copies),
        views.suggest(numbers, _fit(auto), fit, TILE[1]) if numbers else (),
        program.mask.zeros,
        program.mask.align,
        call.batch,
        origin.hints(facts) if origin else (),
        families_told(program, call),
        claims.told(program.mask.selections, call.sizes, call.heads, head_dim)
        | _beside_attending(program, call, head_dim),
    )


def _beside_attending(program: Program, call: scheduling.Call, head_dim: int) -> dict[str, str]:
    """The work of attending over the lists of a call that chooses, and the part of choosing, in words, by a title."""
    lists = program.lists(call) if program.mask.selections else None
    if lists is None:
        return {}
    held = [sum(len(chunk.queries) for chunk in one) for one in lists.classes]
    copies = call.batch * call.heads // lists.class_of.size
    visits = copies * sum(held[which] for which in lists.class_of.flat) / call.batch
    attending = 4.0 * head_dim * scheduling.BLOCK * visits
    chosen = program.mask.selections
    choosing = sum(claims.scoring_work(x, call.sizes, call.heads, head_dim) for x in chosen)
    share = choosing / max(1.0, attending + choosing)
    visited = f"{visits:,.0f} times a query and a block of {scheduling.BLOCK} keys"
    return {
        "attending": f"{visited}, {attending / 1e6:,.3g} MFLOP; choosing is {share:.0%} of both"
    }


def _is_long(program: Program) -> bool:
    """Whether a schedule of the relation takes so long that no further one is made to be told of."""
    return ir.is_larger(program.normal.root, MOST_ARRANGED)


def _steps(program: Program, call: scheduling.Call) -> tuple[tuple[str, ir.Node], ...]:
    """The relation after each pass, by the name of the pass."""
    found = [(name, mask.root) for name, mask in passes.steps(program.mask, program.without)]
    if call.positions is not None:
        found.append(("set_positions", program.rows(call)[0].root))
    return tuple(found)


def _arranged(
    program: Program, call: scheduling.Call, layout: str, head_dim: int, tile: tuple[int, int]
) -> views.Arrangement:
    """Tiles and costs of a layout; the token order is that for tiles of 128, whatever the tile."""
    parts = program.tiled(call, layout, tile, counted=TILE)
    schedules = [part.schedules[tile] for part in parts]
    words = [_decided(part.bound) for part in parts]
    return views.arrangement(layout, schedules, head_dim, call.heads, call.batch, words)


@functools.lru_cache(maxsize=2)  # a pattern in two orders, each asked for several tiles
def _decided(of: scheduling.BoundMask) -> str:
    return codegen.choice(of.roots, of.tables, of.queries, of.keys)


def _fit(of: views.Arrangement) -> views.Fit:
    whole = of.cost
    computed = whole.live * whole.tile[0] * whole.tile[1]
    return views.Fit(whole.full, whole.partial, computed, whole.pairs)


def _clock(
    program: Program, call: scheduling.Call, head_dim: int, machine: backends.Machine, live: int
) -> views.Clock:
    """The times of dense attention, of "auto", and of the natural order, if its tiles are not too many."""
    tile, tile_costs = lowering.searched_by("cpu", call, head_dim)
    counts = {"heads": call.heads, "batch": call.batch}

    def seconds(layout: str) -> tuple[float, float]:
        parts = program.tiled(call, layout, tile, tile_costs=tile_costs)
        schedules = [part.schedules[tile] for part in parts]
        found = backends.predict(schedules, head_dim, machine, **counts)
        return found.forward, found.backward

    dense = backends.predict_dense(call.q_len, call.k_len, head_dim, machine, **counts)
    is_long = _is_long(program)
    layouts = ("natural", "auto") if live <= MOST_TIMED and not is_long else ("auto",)
    times = {layout: seconds(layout) for layout in layouts}
    return views.Clock(machine.name, times | {"dense": (dense.forward, dense.backward)})


def families_told(program: Program, call: scheduling.Call) -> dict[str, str]:
    """Says what kernels of others take a call for, by the names of back ends, or why they do not: "no: ..."."""
    names = ("sdpa", "varlen, flash_attn", "natten")
    if program.mask.zeros is not ir.ZERO:
        return dict.fromkeys(names, "no: the pattern has zero keys, which are no pairs")
    if call.positions is not None:
        return dict.fromkeys(names, "no: positions of tokens are not given to it")
    schedule = program.schedule(call, families.TILE)
    if sum(plan.partial.nnz for plan in schedule.plans) > _MOST_TOLD:
        return dict.fromkeys(names, "not looked for among so many tiles")
    asked = (
        lambda: "one triangle" if families.is_causal_square(schedule) else "all pairs",
        lambda: str(families.documents(schedule, call.batch)),
        lambda: str(neighbourhoods.neighbourhood(program, call)),
    )
    return {name: _family_answer(ask) for name, ask in zip(names, asked, strict=True)}


def _family_answer(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except families.NotInFamily as error:
        return f"no: {error.reason}"
