"""A pattern in one call as the compiler sees it: each step, the order of tokens, what it costs, advice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from attndsl import ir
from attndsl.schedule import Order, Plan, Schedule
from attndsl.views.costs import Cost, cost, report

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
    """What one layout comes to: the classes of each part, and the cost of each part."""

    layout: str
    parts: tuple[tuple[Tokens, ...], ...]
    costs: tuple[Cost, ...]

    @property
    def live(self) -> int:
        """Tiles computed, all batch elements and heads together."""
        return sum(each.live for each in self.costs)

    @property
    def forward_flops(self) -> int:
        """Arithmetic of the forward pass."""
        return sum(each.forward_flops for each in self.costs)

    @property
    def backward_flops(self) -> int:
        """Arithmetic of the backward pass."""
        return sum(each.backward_flops for each in self.costs)

    @property
    def speedup(self) -> float:
        """Arithmetic of dense attention over ours."""
        done = self.forward_flops
        return self.costs[0].dense_forward_flops / done if done else float("inf")

    def seconds(self, device: Device) -> tuple[float, float]:
        """The roofline of forward and backward."""
        forward = sum(each.forward.compulsory for each in self.costs)
        backward = sum(each.backward.compulsory for each in self.costs)
        return (
            device.least_time(self.forward_flops, forward),
            device.least_time(self.backward_flops, backward),
        )


def arrangement(
    layout: str, parts: Sequence[Schedule], head_dim: int, heads: int, batch: int = 1
) -> Arrangement:
    """Count what the schedules of a call cost."""
    return Arrangement(
        layout,
        tuple(tuple(_tokens(plan) for plan in part.plans) for part in parts),
        tuple(cost(part, head_dim, heads=heads, batch=batch) for part in parts),
    )


def _tokens(plan: Plan) -> Tokens:
    def name(order: Order | None) -> str:
        return "natural" if order is None else order.name

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
    finer: Arrangement  # "auto" in tiles of half the size
    partial: str = ""  # how kernels decide the pairs of PARTIAL tiles
    zeros: ir.Node = ir.ZERO  # how many zero keys a query sees

    @property
    def advice(self) -> tuple[str, ...]:
        """What would make the call cheaper, if anything does."""
        return tuple(self._advice())

    def _advice(self) -> Iterator[str]:
        if self.auto.live <= WORTH_SAYING * self.natural.live:
            yield (
                f'layout="auto" computes {self.auto.live:,} tiles instead of {self.natural.live:,}'
            )
        if self.finer.forward_flops <= WORTH_SAYING * self.auto.forward_flops:
            less = 1 - self.finer.forward_flops / self.auto.forward_flops
            bq, bk = self.finer.costs[0].tile
            yield f"tiles of {bq} x {bk} compute {less:.0%} fewer pairs"
        pairs = sum(each.pairs for each in self.auto.costs)
        bq, bk = self.auto.costs[0].tile
        if 0 < pairs <= WORTH_SAYING * self.auto.live * bq * bk:
            more = self.auto.live * bq * bk / pairs
            yield f"rounded out to whole tiles, it could see {more:.1f} times as many pairs at this cost"

    def record(self) -> dict[str, Any]:
        """As plain data: what JSON can hold."""
        return {
            "name": self.name,
            "meaning": ir.show(self.meaning),
            "zeros": ir.show(self.zeros),
            "steps": {name: ir.show(root) for name, root in self.steps},
            "facts": dict(self.facts),
            "q_len": self.q_len,
            "k_len": self.k_len,
            "heads": self.heads,
            "head_dim": self.head_dim,
            "cost": _plain(self.natural.costs[0]),
            "partial": self.partial,
            "layouts": {
                each.layout: {
                    "parts": [
                        {"classes": [asdict(item) for item in classes], "cost": _plain(price)}
                        for classes, price in zip(each.parts, each.costs, strict=True)
                    ],
                    "live": each.live,
                    "speedup": each.speedup,
                    "roofline_seconds": {
                        device.name: dict(
                            zip(("forward", "backward"), each.seconds(device), strict=True)
                        )
                        for device in DEVICES
                    },
                }
                for each in (self.natural, self.auto)
            },
            "advice": list(self.advice),
        }

    def __str__(self) -> str:
        (bq, bk), whole = self.natural.costs[0].tile, self.natural.costs[0]
        lines = [f"pattern  {self.name}", f"meaning  {ir.show(self.meaning)}"]
        lines += [f"zeros    {ir.show(self.zeros)}"] if self.zeros is not ir.ZERO else []
        lines += self._passes()
        lines += ["facts", *(f"  {name:24} {fact}" for name, fact in self.facts.items())]
        lines += [f"schedule of {self.q_len} queries x {self.k_len} keys, tile {bq} x {bk}"]
        lines += [f"  {line}" for line in report(whole).splitlines()]
        lines += [f"  partial  {self.partial}"] if self.partial else []
        lines += ['layout="auto"', *(f"  {line}" for line in self._orders())]
        lines += ["at the least, by the roofline"]
        lines += [f"  {line}" for line in self._times()]
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
        if self.auto.live == self.natural.live and len(self.auto.parts) == 1:
            yield "the natural order is the cheapest of those that the pattern suggests"
            return
        for number, (classes, price) in enumerate(
            zip(self.auto.parts, self.auto.costs, strict=True)
        ):
            part = f"part {number + 1}: " if len(self.auto.parts) > 1 else ""
            yield f"{part}{price.live:,} tiles live, {price.full:,} of them full"
            for item in classes:
                same = item.queries == item.keys
                order = item.queries if same else f"queries {item.queries}; keys {item.keys}"
                yield f"  {item.full + item.partial:,} in the order {order}"

    def _times(self) -> Iterator[str]:
        for device in DEVICES:
            forward, backward = (_duration(each) for each in self.auto.seconds(device))
            yield f"{device.name:8} {forward} forward, {backward} backward"
        yield f"dense arithmetic is {self.auto.speedup:.1f} times as much"


def _plain(price: Cost) -> dict[str, Any]:
    return asdict(price) | {"density": price.density, "waste": price.waste}


def _duration(seconds: float) -> str:
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
