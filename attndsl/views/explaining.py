"""A pattern in one call as the compiler sees it: each step, the order of tokens, what it costs, advice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from attndsl import ir
from attndsl.schedule import Plan, Schedule, TokenOrder
from attndsl.views.advising import Suggestion
from attndsl.views.costs import Cost, cost, report, total

NATURAL: Final = "natural"
WORTH_SAYING = 0.9  # advice is given when it leaves at most this share of the work


@dataclass(frozen=True, slots=True)
class Device:
    """Peaks of a device as its maker states them: dense 16-bit matrix FLOP/s, and bytes/s of memory."""

    name: str
    flops: float
    bandwidth: float

    def least_time(self, flops: float, moved: float) -> float:
        """Seconds that no kernel beats: the roofline (Williams, Waterman and Patterson 2009)."""
        return max(flops / self.flops, moved / self.bandwidth)


DEVICES: Final = (
    Device("H200", 989e12, 4.8e12),
    Device("A100", 312e12, 2.04e12),
    Device("B200", 2250e12, 8.0e12),
    Device("MI300X", 1307e12, 5.3e12),
)


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tiles of one distinct (batch, head) class of one part, and the orders they are taken in."""

    queries: str
    keys: str
    full: int
    partial: int


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Tiles and costs of one layout, part by part: the classes, the cost, how kernels decide PARTIAL tiles."""

    layout: str
    parts: tuple[tuple[Tokens, ...], ...]
    costs: tuple[Cost, ...]
    partial: tuple[str, ...] = ()

    @property
    def cost(self) -> Cost:
        """The cost of all parts together."""
        return total(self.costs)

    @property
    def is_natural(self) -> bool:
        """One part, tokens as they come."""
        return {(item.queries, item.keys) for part in self.parts for item in part} <= {
            (NATURAL, NATURAL)
        } and len(self.parts) == 1

    def seconds(self, device: Device) -> tuple[float, float]:
        """The roofline of forward and backward."""
        whole = self.cost
        return (
            device.least_time(whole.forward_flops, whole.forward.compulsory),
            device.least_time(whole.backward_flops, whole.backward.compulsory),
        )

    def dense_seconds(self, device: Device) -> tuple[float, float]:
        """That of attention over all pairs."""
        one = self.costs[0]
        return (
            device.least_time(one.dense_forward_flops, one.forward.compulsory),
            device.least_time(one.dense_backward_flops, one.backward.compulsory),
        )


def arrangement(
    layout: str,
    parts: Sequence[Schedule],
    head_dim: int,
    heads: int,
    batch: int = 1,
    partial: Sequence[str] = (),
) -> Arrangement:
    """Count what the schedules of a call cost."""
    return Arrangement(
        layout,
        tuple(tuple(_tokens(plan) for plan in part.plans) for part in parts),
        tuple(cost(part, head_dim, heads=heads, batch=batch) for part in parts),
        tuple(partial),
    )


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds of forward and backward, predicted on a processor, by layout; "dense" is among them."""

    machine: str
    seconds: Mapping[str, tuple[float, float]]


def _tokens(plan: Plan) -> Tokens:
    def name(order: TokenOrder | None) -> str:
        return NATURAL if order is None else order.name

    return Tokens(name(plan.q_order), name(plan.k_order), plan.full.nnz, plan.partial.nnz)


@dataclass(frozen=True, slots=True)
class Explanation:
    """``str`` of it is for people, ``record`` for tools."""

    name: str
    meaning: ir.Node
    steps: tuple[tuple[str, ir.Node], ...]  # the relation after each pass
    facts: Mapping[str, str]
    q_len: int
    k_len: int
    heads: int
    head_dim: int
    natural: Arrangement
    auto: Arrangement
    tiles: tuple[Arrangement, ...] = ()  # "auto" in tiles of other sizes
    clock: Clock | None = None
    nearby: tuple[Suggestion, ...] = ()
    zeros: ir.Node = ir.ZERO  # how many zero keys a query sees
    align: ir.Align = ir.Align.END
    batch: int = 1
    hints: tuple[str, ...] = ()  # misreadings that the text invites
    # Readings of the call by the kernels of others.
    others: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)  # what is known of selections

    @property
    def advice(self) -> tuple[str, ...]:
        """Misreadings that the text invites, and suggestions that would make the call cheaper."""
        return (*self.hints, *self._advice())

    def _advice(self) -> Iterator[str]:
        now, natural = self.auto.cost, self.natural.cost
        if now.live == 0:
            return
        if now.live <= WORTH_SAYING * natural.live:
            yield f'layout="auto" computes {now.live:,} tiles instead of {natural.live:,}'
        finer = min((each.cost for each in self.tiles), key=_computed, default=now)
        if _computed(finer) <= WORTH_SAYING * _computed(now):
            less = 1 - _computed(finer) / _computed(now)
            more = finer.forward.streamed / now.forward.streamed
            bq, bk = finer.tile
            yield (
                f"tiles of {bq} x {bk} compute {less:.0%} fewer pairs, "
                f"and load {more:.2g} times the bytes"
            )
        if 0 < now.pairs <= WORTH_SAYING * _computed(now):
            more = _computed(now) / now.pairs
            yield f"rounded out to whole tiles, it could see {more:.1f} times as many pairs at this cost"
        yield from map(str, self.nearby)

    def record(self) -> dict[str, Any]:
        """The value as plain data that JSON can hold. ``docs/explain.schema.json`` describes it."""
        return {
            "name": self.name,
            "meaning": ir.show(self.meaning),
            "zeros": ir.show(self.zeros),
            "align": self.align.value,
            "steps": {name: ir.show(root) for name, root in self.steps},
            "facts": dict(self.facts),
            "choices": dict(self.choices),
            "q_len": self.q_len,
            "k_len": self.k_len,
            "heads": self.heads,
            "batch": self.batch,
            "head_dim": self.head_dim,
            "cost": _plain(self.natural.cost),
            "layouts": {each.layout: _layout(each) for each in (self.natural, self.auto)},
            "tiles": [_plain(each.cost) for each in self.tiles],
            "cpu": None
            if self.clock is None
            else {
                "machine": self.clock.machine,
                "seconds": {name: _both(pair) for name, pair in self.clock.seconds.items()},
            },
            "others": dict(self.others),
            "nearby": [asdict(each) for each in self.nearby],
            "advice": list(self.advice),
        }

    def __str__(self) -> str:
        bq, bk = self.natural.cost.tile
        lines = [f"pattern  {self.name}", f"meaning  {ir.show(self.meaning)}"]
        lines += [f"zeros    {ir.show(self.zeros)}"] if self.zeros is not ir.ZERO else []
        position = "i + len(k) - len(q)" if self.align is ir.Align.END else "i"
        lines += [f"align    {self.align}: query i is at position {position}"]
        lines += self._passes()
        lines += ["facts", *(f"  {name:24} {fact}" for name, fact in self.facts.items())]
        if self.choices:
            lines += ["chooses", *(f"  {name:24} {text}" for name, text in self.choices.items())]
        batch = f", batch of {self.batch}" if self.batch > 1 else ""
        lines += [f"schedule of {self.q_len} queries x {self.k_len} keys{batch}, tile {bq} x {bk}"]
        lines += [f"  {line}" for line in _work(self.natural)]
        lines += ['layout="auto"', *(f"  {line}" for line in self._orders())]
        lines += ["at the least, by the roofline"]
        lines += [f"  {line}" for line in self._times()]
        lines += self._clocked()
        lines += self._of_others()
        lines += [f"advice   {text}" for text in self.advice]
        return "\n".join(lines)

    def _passes(self) -> Iterator[str]:
        before = self.meaning
        for name, root in self.steps:
            if root is not before:
                yield f"after {name}"
                yield f"         {ir.show(root)}"
            before = root

    def _orders(self) -> Iterator[str]:
        if self.auto.is_natural:
            yield "the natural order is the cheapest of those that the pattern suggests"
            return
        for number, (classes, tile_costs) in enumerate(
            zip(self.auto.parts, self.auto.costs, strict=True)
        ):
            part = f"part {number + 1}: " if len(self.auto.parts) > 1 else ""
            yield f"{part}{tile_costs.live:,} tiles live, {tile_costs.full:,} of them full"
            for item in classes:
                same = item.queries == item.keys
                order = item.queries if same else f"queries {item.queries}; keys {item.keys}"
                yield f"  {item.full + item.partial:,} in the order {order}"
        yield from _work(self.auto)

    def _of_others(self) -> Iterator[str]:
        if not self.others:
            return
        is_square = not self.others["sdpa"].startswith("no")
        square = ", torch's kernel of one square" if is_square and self.auto.is_natural else ""
        yield "back ends"
        yield f"  {'auto':18} on CPUs blocked{square}; on GPUs triton"
        yield from (f"  {name:18} {words}" for name, words in self.others.items())

    def _times(self) -> Iterator[str]:
        for device in DEVICES:
            ours, dense = self.auto.seconds(device), self.auto.dense_seconds(device)
            yield f"{device.name:8} {_spelled(ours)}, {_gain(dense, ours)}"
        yield f"dense arithmetic is {self.auto.cost.speedup:.1f} times as much"

    def _clocked(self) -> Iterator[str]:
        if self.clock is None:
            return
        yield f"predicted for {self.clock.machine}, float32"
        dense = self.clock.seconds["dense"]
        for name, pair in self.clock.seconds.items():
            gain = "" if name == "dense" else f", {_gain(dense, pair)}"
            yield f"  {name:8} {_spelled(pair)}{gain}"


def _work(of: Arrangement) -> Iterator[str]:
    """Lines about the work and about how PARTIAL tiles are decided, once where parts agree."""
    yield from report(of.cost).splitlines()
    if len(set(of.partial)) <= 1:
        yield from (f"partial  {words}" for words in of.partial[:1])
    else:
        for number, words in enumerate(of.partial):
            yield f"partial  part {number + 1}: {words}"


def _computed(of: Cost) -> int:
    return of.live * of.tile[0] * of.tile[1]


def _layout(of: Arrangement) -> dict[str, Any]:
    partial = of.partial or ("",) * len(of.parts)
    return {
        "parts": [
            {
                "classes": [asdict(item) for item in classes],
                "cost": _plain(tile_costs),
                "partial": words,
            }
            for classes, tile_costs, words in zip(of.parts, of.costs, partial, strict=True)
        ],
        "cost": _plain(of.cost),
        "live": of.cost.live,
        "roofline_seconds": {device.name: _both(of.seconds(device)) for device in DEVICES},
        "dense_roofline_seconds": {
            device.name: _both(of.dense_seconds(device)) for device in DEVICES
        },
    }


def _both(pair: tuple[float, float]) -> dict[str, float]:
    return dict(zip(("forward", "backward"), pair, strict=True))


def _spelled(pair: tuple[float, float]) -> str:
    forward, backward = map(_duration, pair)
    return f"{forward} forward, {backward} backward"


def _gain(dense: tuple[float, float], ours: tuple[float, float]) -> str:
    """How much sooner both passes are done than dense ones."""
    times = sum(dense) / sum(ours) if sum(ours) else float("inf")
    return f"{times:.3g} times as fast as dense"


def _plain(tile_costs: Cost) -> dict[str, Any]:
    shares = {"density": tile_costs.density, "waste": tile_costs.waste}
    return asdict(tile_costs) | {"live": tile_costs.live} | shares


def _duration(seconds: float) -> str:
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
