"""The attention of each system of the catalogue that has one beside its formula, in plain torch: outputs and gradients.

Pairs are those of the pattern, which has tests of its own; all else is written out from the papers and their code.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import attndsl
from attndsl import patterns

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass
class At:
    """A call in float64: scores [B, H, Q, K], pairs, and all that a formula reads."""

    q: Tensor
    k: Tensor
    v: Tensor
    seen: Tensor
    values: Mapping[str, Any]
    layer: int
    extents: Mapping[str, int]
    ints: Mapping[str, Tensor]
    reals: dict[str, Tensor] = field(default_factory=dict)

    @property
    def s(self) -> Tensor:
        return self.q @ self.k.mT / math.sqrt(self.q.shape[-1])

    @property
    def heads(self) -> Tensor:
        return torch.arange(self.q.shape[1])[:, None, None]

    def is_low(self, low: int, high: int) -> Tensor:
        """One number for the first half of the heads, another for the second."""
        return torch.where(self.heads < self.q.shape[1] // 2, low, high)

    def places(self, grid: str = "image") -> tuple[Tensor, Tensor, int]:
        """Rows and columns of an image, and how many columns there are."""
        y, x = (self.extents.get(f"{grid}.{axis}", self.extents.get(axis, 0)) for axis in "yx")
        row = torch.arange(y * x)
        return row // x, row % x, x

    def steps(
        self, queries: str = "image", keys: str = "image", times: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Rows and columns from the key to the query."""
        (qy, qx, _), (ky, kx, _) = self.places(queries), self.places(keys)
        return qy[:, None] // times - ky, qx[:, None] // times - kx

    def table(self, dy: Tensor, dx: Tensor, height: Any, width: Any) -> Tensor:
        entry = (dy + height - 1) * (2 * width - 1) + dx + width - 1
        table = self.reals["table"]
        return table[
            self.heads, entry.clamp(0, table.shape[1] - 1).expand(len(table), *entry.shape[-2:])
        ]

    def softmax(
        self, scores: Tensor, mass: Tensor | float = 0.0, seen: Tensor | None = None
    ) -> Tensor:
        """Weights, with more in the denominators."""
        weights = torch.exp(scores.masked_fill(~(self.seen if seen is None else seen), -math.inf))
        whole = weights.sum(-1, keepdim=True) + (
            mass if isinstance(mass, float) else mass[..., None]
        )
        return weights / whole.masked_fill(whole == 0, 1.0)


def biased(*shape: Any, **told: Any) -> Callable[[At], Tensor]:
    """Scores plus a table by the step from the key to the query."""
    return lambda c: c.softmax(c.s + c.table(*c.steps(**told), *(n(c) for n in shape))) @ c.v


def value(name: str) -> Callable[[At], int]:
    return lambda c: int(c.values[name])


def ahead(c: At, spacing: Any) -> Tensor:
    """Scores plus a table by the steps from the query to the key, so far apart."""
    (dy, dx), window = c.steps(), c.values["window"]
    by, bx = spacing if isinstance(spacing, tuple) else (spacing, spacing)
    return c.softmax(c.s + c.table(-dy // by, -dx // bx, window, window)) @ c.v


def rgt(c: At) -> Tensor:
    height, width = c.values["height"], c.values["width"]
    dy, dx = c.steps()
    return c.softmax(c.s + c.table(dy, dx, c.is_low(height, width), c.is_low(width, height))) @ c.v


def craft(c: At) -> Tensor:
    y, x, columns = c.places()
    at = []
    for z, count, size in ((y, len(y) // columns, c.is_low(2, 4)), (x, columns, c.is_low(4, 2))):
        mine = (z - c.layer * (size // 2)) % count % size
        at.append(mine.mT - mine)
    return c.softmax(c.s + c.table(*at, c.is_low(2, 4), c.is_low(4, 2))) @ c.v


def maxvit_grid(c: At) -> Tensor:
    y, x, columns = c.places()
    side = c.values["grid_size"]
    cell_y, cell_x = y // (len(y) // columns // side), x // (columns // side)
    dy, dx = cell_y[:, None] - cell_y, cell_x[:, None] - cell_x
    return c.softmax(c.s + c.table(dy, dx, side, side)) @ c.v


def halonet(c: At) -> Tensor:
    (dy, dx), far = c.steps(), c.values["block"] + c.values["halo"] - 1
    logits = [
        torch.einsum("bhqd,qkd->bhqk", c.q, c.reals[name][(far - step).clamp(0, 2 * far)])
        for name, step in (("rel_y", dy), ("rel_x", dx))
    ]
    return c.softmax(c.s + sum(logits) / math.sqrt(16), c.reals["rim"].exp()) @ c.v


def transnext(c: At) -> Tensor:
    window = c.values["window"]
    cosine = F.normalize(c.q, dim=-1) @ F.normalize(c.k, dim=-1).mT
    pixels, count = c.q.shape[2], c.k.shape[2]
    out = c.softmax(F.softplus(c.reals["tau"])[:, None, None] * math.log(count) * cosine) @ c.v
    dy, dx = c.steps()
    place = (window // 2 - dy) * window + window // 2 - dx
    rows = c.reals["learned"][:, place.clamp(0, window**2 - 1)]
    added = torch.einsum("bhqd,hqkd->bhqk", F.normalize(c.q, dim=-1), rows)
    return out + added.masked_fill(~c.seen[..., :pixels], 0.0) @ c.v[:, :, :pixels]


def dlgsanet(c: At) -> Tensor:
    (dy, dx), radius = c.steps(), c.values["radius"]
    place = (radius - dy) * (2 * radius + 1) + radius - dx
    filters = c.reals["filter"]
    weights = filters.gather(-1, place.clamp(0, filters.shape[-1] - 1).expand(*c.s.shape))
    return weights.masked_fill(~c.seen, 0.0) @ c.v


def by_column(c: At) -> Tensor:
    weights = c.s.masked_fill(~c.seen, -math.inf).softmax(-2)
    return weights.masked_fill(~c.seen.any(-2, keepdim=True), 0.0) @ c.v


def weighed(multiply: bool) -> Callable[[At], Tensor]:
    def formula(c: At) -> Tensor:
        own, concepts, tokens = (
            c.extents[name] for name in ("own.n", "reference.c", "reference.m")
        )
        weight = torch.cat(
            (torch.ones(own, dtype=c.s.dtype), c.reals["weight"].repeat_interleave(tokens))
        )
        assert len(weight) == c.k.shape[2] == own + concepts * tokens
        return c.softmax(c.s * weight if multiply else c.s + weight.log()) @ c.v

    return formula


def catanet(c: At) -> Tensor:
    keys, values = c.reals["centres"]
    beside = (c.q @ keys.mT / math.sqrt(16)).softmax(-1) @ values
    return c.softmax(c.s) @ c.v + beside


def samples(c: At) -> Tensor:
    (y, x, _), window = c.places(), c.values["window"]
    s = torch.arange(c.k.shape[2]) % c.extents["window_samples.s"]
    dy, dx = (y % window)[:, None] - s // window, (x % window)[:, None] - s % window
    return c.softmax(c.s + c.table(dy, dx, window, window)) @ c.v


def drsformer(c: At) -> Tensor:
    n = c.k.shape[2]
    total = torch.zeros_like(c.q)
    for i, kept in enumerate((n // 2, 2 * n // 3, 3 * n // 4, 4 * n // 5)):
        seen = torch.zeros_like(c.s, dtype=torch.bool).scatter(
            -1, c.ints["order"][..., :kept], True
        )
        total = total + c.reals["mix"][i] * (c.softmax(c.s, seen=seen) @ c.v)
    return total


def axformer(c: At) -> Tensor:
    whole = c.s.softmax(-1)
    return whole.masked_fill(~c.seen, 0.0) @ c.v


def spark(c: At) -> Tensor:
    return (c.softmax(c.s) * F.softplus(c.reals["spare_q"] @ c.reals["spare_k"].mT)) @ c.v


def hyperattention(c: At) -> Tensor:
    ranks = [c.ints[name] // c.values["block"] for name in ("q_rank", "k_rank")]
    same = ranks[0][..., None] == ranks[1][..., None, :]
    return c.softmax(c.s + math.log(c.k.shape[2] / 3) * (~same).double()) @ c.v


def relative(c: At, group: int) -> Tensor:
    n, rel = c.k.shape[2], c.reals["rel"]
    back = torch.arange(n)[:, None] - torch.arange(n)
    place = (back // group + len(rel) // 2).clamp(0, len(rel) - 1)
    return c.softmax(c.s + torch.einsum("bhqd,qkd->bhqk", c.q, rel[place]) / 4) @ c.v


def strided(c: At) -> Tensor:
    n, rel = c.k.shape[2], c.reals["rel"]
    place = 2 * torch.arange(c.q.shape[2])[:, None] - torch.arange(n) + n - 1
    return c.softmax(c.s + torch.einsum("bhqd,qkd->bhqk", c.q, rel[place]) / 4) @ c.v


def evenhancer(c: At) -> Tensor:
    radius, (y, x) = c.values["radius"], (c.extents["volume.y"], c.extents["volume.x"])
    row = torch.arange(c.k.shape[2])
    dy, dx = (
        at - c.ints[name][:, :, None]
        for name, at in (("near_y", row // x % y), ("near_x", row % x))
    )
    bias = c.reals["bias"]
    place = ((dy + radius) * (2 * radius + 1) + dx + radius).clamp(0, bias.shape[-1] - 1)
    scores = c.s + bias.gather(-1, place[:, None].expand(*c.s.shape))
    return c.softmax(scores, c.reals["rim"].exp()) @ c.v


def presto(c: At) -> Tensor:
    frames, each = c.extents["volume.t"], c.extents["volume.y"] * c.extents["volume.x"]
    t, overlap = torch.arange(c.q.shape[2]) // each, c.values["overlap"]
    total, count = torch.zeros_like(c.q), torch.zeros(c.q.shape[2], dtype=c.q.dtype)
    for i in range(5):
        inside = (i * frames // 5 - overlap <= t) & (t < (i + 1) * frames // 5 + overlap)
        seen = inside[:, None] & (c.ints["caption"] == i)[:, None, None]
        total = total + c.softmax(c.s, seen=seen.expand(c.s.shape)) @ c.v
        count = count + inside
    return total / count[:, None]


def ttvsr(c: At) -> Tensor:
    """Query by query: the best of the tracked places of earlier key frames, times its cosine."""
    places, stride = c.values["places"], c.values["stride"]
    q, k = F.normalize(c.q, dim=-1), F.normalize(c.k, dim=-1)
    out = torch.zeros_like(c.v)
    for b, h, i in itertools.product(*map(range, c.q.shape[:3])):
        frames = range(0, i // places, stride)
        keys = [t * places + int(c.ints["track"][b, i, t]) for t in frames]
        scores = [q[b, h, i] @ k[b, h, j] for j in keys]
        if scores:
            best = max(range(len(scores)), key=lambda n: float(scores[n].detach()))
            out[b, h, i] = scores[best] * c.v[b, h, keys[best]]
    return out


def video_infinity(c: At) -> Tensor:
    """Query by query: frames gathered as in the released code, near ones with zeros around, then sampled ones."""
    pad, top, devices, near, far = (c.values[n] for n in ("pad", "top", "devices", "near", "far"))
    n, out = c.k.shape[2], []
    own = -(-n // devices)
    stride = max(own // (top // devices), 1)
    sampled = [x for x in range(n) if x % own % stride == 0]
    sampled = sampled[:top]
    wide_k, wide_v = (F.pad(x, (0, 0, pad, pad)) for x in (c.k, c.v))
    for i in range(n):
        keys, values = (
            torch.cat([wide[:, :, i : i + 2 * pad + 1], x[:, :, sampled]], 2)
            for wide, x in ((wide_k, c.k), (wide_v, c.v))
        )
        added = torch.tensor([near] * (2 * pad + 1) + [far] * len(sampled), dtype=c.q.dtype)
        weights = (c.q[:, :, i, None] @ keys.mT / math.sqrt(c.q.shape[-1]) + added).softmax(-1)
        out.append(weights @ values)
    return torch.cat(out, 2)


def infini(c: At) -> Tensor:
    """Segment by segment, with the memory as its state: a matrix, and a sum of keys."""
    size, share = c.values["segment"], c.reals["gate"].sigmoid()[:, None, None]
    q, k, out = c.reals["memory_q"], c.reals["memory_k"], []
    state = c.v.new_zeros(*c.v.shape[:2], q.shape[-1], c.v.shape[-1])
    norm = c.v.new_zeros(*c.v.shape[:2], q.shape[-1])
    for first in range(0, c.q.shape[2], size):
        here = slice(first, first + size)
        local = c.s[:, :, here, here]
        late = torch.ones(local.shape[-2:], dtype=torch.bool).triu(1)
        beside = local.masked_fill(late, -math.inf).softmax(-1) @ c.v[:, :, here]
        read = q[:, :, here] @ state / (q[:, :, here] @ norm[..., None]) if first else 0.0
        out.append(share * read + (1 - share) * beside)
        state = state + k[:, :, here].mT @ c.v[:, :, here]
        norm = norm + k[:, :, here].sum(2)
    return torch.cat(out, 2)


def longformer(c: At) -> Tensor:
    (wide_k, wide_v), is_global = c.reals["wide"], c.ints["is_global"].bool()[:, None, :, None]
    local = c.softmax(c.s) @ c.v
    return torch.where(is_global, (c.q @ wide_k.mT / 4).softmax(-1) @ wide_v, local)


@dataclass
class Formula:
    of: Callable[[At], Tensor]
    inputs: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    values: Mapping[str, Any] | None = None
    layer: int | None = None  # None: the last of those that differ


def square(n: int) -> dict[str, tuple[Any, ...]]:
    return {"table": ("H", (2 * n - 1) ** 2)}


WINDOW = biased(value("window"), value("window"))
FORMULAS = {
    "rgt_local": Formula(rgt, {"table": ("H", 5 * 11)}),
    "hat": Formula(WINDOW, square(4)),
    "hat_overlap": Formula(
        lambda c: c.softmax(c.s + c.table(*c.steps(), 5, 5), c.reals["rim"].exp()) @ c.v,
        square(5) | {"rim": ("B", "H", "Q")},
    ),
    "craft": Formula(craft, {"table": ("H", 3 * 7)}),
    "maxvit": Formula(maxvit_grid, square(3)),
    "lamamba_diff": Formula(WINDOW, square(3)),
    "gcvit": Formula(WINDOW, square(4)),
    "maniqa": Formula(WINDOW, square(4)),
    "crossformer": Formula(
        lambda c: c.softmax(c.s + c.table(*(z // 4 for z in c.steps()), 3, 3)) @ c.v, square(3),
        {"window": 3, "interval": 4, "side": 3},
    ),
    "srformer": Formula(biased(lambda _: 2, lambda _: 2, queries="image", keys="folded", times=2), square(2)),
    "dinat": Formula(lambda c: ahead(c, c.values["dilation"]), square(3)),
    "medvit_v2": Formula(lambda c: ahead(c, c.values["dilation"]), square(3)),
    "segman": Formula(lambda c: ahead(c, 1), square(5)),
    "a2mamba": Formula(
        lambda c: ahead(c, (c.is_low(1, max(min(9 // 3, 3), 1)), c.is_low(1, max(min(13 // 3, 3), 1)))), square(3)
    ),
    "fna1d": Formula(
        lambda c: (
            c.softmax(
                c.s
                + c.reals["table"][
                    :, ((torch.arange(20) - torch.arange(20)[:, None]) // 3 + 3).clamp(0, 6)
                ]
            )
            @ c.v
        ),
        {"table": ("H", 7)},
    ),
    "halonet": Formula(halonet, {"rel_y": (11, 16), "rel_x": (11, 16), "rim": ("B", "H", "Q")}),
    "transnext": Formula(transnext, {"tau": ("H",), "learned": ("H", 9, 16)}, {"window": 3}),
    "dlgsanet": Formula(dlgsanet, {"filter": ("B", "H", "Q", 25)}),
    "stvit_update": Formula(by_column),
    "gps_local": Formula(lambda c: c.softmax(c.s + c.reals["edge"]) @ c.v, {"edge": ("B", "H", "Q", "K")}),
    "largegt_global": Formula(
        lambda c: c.softmax(c.s + c.ints["cluster_size"].double().clamp(min=1).log()[:, None, None]) @ c.v
    ),
    "magicface": Formula(weighed(False), {"weight": (3,)}),
    "magicface_regions": Formula(weighed(False), {"weight": (3,)}),
    "dreamtuner": Formula(weighed(False), {"weight": (1,)}),
    "freecustom": Formula(weighed(True), {"weight": (2,)}),
    "catanet": Formula(catanet),
    "vsa": Formula(samples, square(3)),
    "histoformer": Formula(lambda c: c.softmax(c.s, 1.0) @ c.v),
    "histoformer_frequency": Formula(lambda c: c.softmax(c.s, 1.0) @ c.v),
    "dynamic_mask": Formula(
        lambda c: c.softmax(c.s + c.reals["bias"][:, :, None]) @ c.v, {"bias": ("B", "H", "K")}
    ),
    "drsformer": Formula(drsformer, {"mix": (4,)}, {}),
    "axformer": Formula(axformer),
    "spark": Formula(spark, {"spare_q": ("B", "H", "Q", 5), "spare_k": ("B", "H", "K", 5)}),
    "selective": Formula(
        lambda c: c.softmax(c.s - c.reals["penalty"][:, None]) @ c.v, {"penalty": ("B", "Q", "K")}
    ),
    "hyperattention": Formula(hyperattention, values={"block": 5, "exact": 4, "samples": 3}),
    "mossformer": Formula(lambda c: F.relu(c.s).square().masked_fill(~c.seen, 0.0) @ c.v),
    "efficient_conformer_by_head": Formula(
        lambda c: relative(c, 3), {"rel": (17, 16)}, {"group": 3, "longest": 9}
    ),
    "efficient_conformer_strided": Formula(strided, {"rel": (27, 16)}),
    "evenhancer": Formula(evenhancer, {"bias": ("B", "H", "Q", 9), "rim": ("B", "H", "Q")}),
    "presto": Formula(presto, values={"overlap": 1}),
    "lrgt": Formula(
        lambda c: (c.s + c.reals["confidence"][:, None, None]).softmax(-1) @ c.v, {"confidence": ("B", "K")}, {}
    ),
    "mcanet": Formula(lambda c: (F.normalize(c.q, dim=-1) @ F.normalize(c.k, dim=-1).mT).softmax(-1) @ c.v),
    "npt": Formula(lambda c: c.s.softmax(-1) @ c.v),
    "ttvsr": Formula(ttvsr, values={"places": 6, "stride": 2}),
    "video_infinity": Formula(
        video_infinity, values={"pad": 2, "top": 10, "devices": 5, "near": 0.75, "far": -0.5}
    ),
    "infini": Formula(
        infini, {"gate": ("H",), "memory_q": ("B", "H", "Q", 5), "memory_k": ("B", "H", "K", 5)}
    ),
    "lra_longformer": Formula(longformer),
    "blockrank": Formula(lambda c: c.softmax(c.s) @ c.v),
    "hilo": Formula(lambda c: c.softmax(c.s) @ c.v),
    "sgformer": Formula(lambda c: c.softmax(c.s) @ c.v),
}  # fmt: skip


ELSEWHERE = {"catanet": ("centres", 4), "lra_longformer": ("wide", None)}
"""Names of keys and values from elsewhere, and how many: as many as the call's own where none is said."""
POSITIVE = {"weight", "memory_q", "memory_k"}
FLAT = {"lrgt", "mcanet", "npt", "ttvsr"}
"""Entries on grids whose attention is of tokens in a line."""
APART = {"cca", "vwformer"}
"""Attentions with other keys than their entry; loops of their own, below, hold them."""


def call_of(entry: str, formula: Formula) -> tuple[At, dict[str, Any]]:
    """A small call of the entry with the real inputs of its attention, and what the attention is called with."""
    layers = patterns.trial(patterns.entry(entry)).layers
    layer = layers[-1] if formula.layer is None else formula.layer
    ex = attndsl.library.example(entry, layer=layer, dtype=torch.float64)
    size = {"B": ex.q.shape[0], "H": ex.q.shape[1], "Q": ex.q.shape[2], "K": ex.k.shape[2]}
    draw = torch.Generator().manual_seed(len(entry))
    reals: dict[str, Any] = {}
    for name, dims in formula.inputs.items():
        made = torch.randn(*(size.get(n, n) for n in dims), generator=draw, dtype=torch.float64)
        reals[name] = (made.abs() + 0.5 if name in POSITIVE else made).requires_grad_()
    named = dict(reals)
    if entry in ELSEWHERE:
        name, length = ELSEWHERE[entry]
        shape = 2, size["B"], size["H"], length or size["K"], 16
        named[name] = reals[name] = tuple(torch.randn(*shape, dtype=torch.float64).requires_grad_())
    lengths = {"q_len": size["Q"], "k_len": size["K"], "batch": size["B"], "heads": size["H"]}
    seen = ex.pattern.mask(**lengths, extents=ex.extents or None, inputs=ex.inputs).expand(
        *size.values()
    )
    leaves = (x.requires_grad_() for x in (ex.q, ex.k, ex.v))
    ints = {name: x.long() for name, x in ex.inputs.items()}
    values = ex.values if formula.values is None else formula.values
    at = At(*leaves, seen, values, layer, ex.extents, ints, reals)
    asked = {
        table.name for table in attndsl.library.load(f"{entry}_attention", values=values).inputs
    }
    told = {name: x for name, x in ex.inputs.items() if name in asked or entry == "ttvsr"}
    keys = {n: x for n, x in named.items() if isinstance(x, tuple)}
    inputs = {**told, **{n: x for n, x in named.items() if n not in keys}}
    extents = None if entry in FLAT else ex.extents or None
    return at, {"extents": extents, "inputs": inputs, **keys}


def test_there_is_a_formula_for_each():
    beside = set(patterns.attentions()) - set(patterns.named_attentions())
    assert {f"{entry}_attention" for entry in (*FORMULAS, *APART)} == beside


@pytest.mark.parametrize("entry", FORMULAS)
def test_the_attention_of_a_system_is_its_formula_with_every_gradient(entry: str):
    formula = FORMULAS[entry]
    at, call = call_of(entry, formula)
    a = attndsl.library.load(f"{entry}_attention", layer=at.layer, values=at.values)
    found, wanted = a(at.q, at.k, at.v, **call), formula.of(at)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)
    given = (x if isinstance(x, tuple) else (x,) for x in at.reals.values())
    leaves = (at.q, at.k, at.v, *itertools.chain(*given))
    grads, right = (
        torch.autograd.grad(out.sin().sum(), leaves, allow_unused=True) for out in (found, wanted)
    )
    for leaf, mine, theirs in zip(leaves, grads, right, strict=True):
        mine, theirs = (torch.zeros_like(leaf) if x is None else x for x in (mine, theirs))
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)


def checked(found: Tensor, wanted: Tensor, leaves: tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)
    grads = [torch.autograd.grad(out.sin().sum(), leaves) for out in (found, wanted)]
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)


def test_core_tokens_and_raw_keys_share_one_softmax():
    window, group, n = 8, 4, 25
    q, k, v = (torch.randn(1, 2, n, 16, dtype=torch.float64, requires_grad=True) for _ in range(3))
    cores = tuple(
        torch.randn(1, 2, n // group, 16, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    rows = []
    for i in range(n):
        count = max((i + 1 - window) // group, 0)
        keys, values = (
            torch.cat([of_cores[:, :, :count], own[:, :, count * group : i + 1]], 2)
            for of_cores, own in zip(cores, (k, v), strict=True)
        )
        rows.append((q[:, :, i, None] @ keys.mT / 4).softmax(-1) @ values)
    a = attndsl.library.load("cca_attention", window=window, group=group)
    checked(a(q, k, v, cores=cores), torch.cat(rows, 2), (q, k, v, *cores))


def test_contexts_are_folded_to_keys_of_each_window():
    y, x, window, p = 5, 6, 3, 2
    q = torch.randn(1, 2, y * x, 16, dtype=torch.float64, requires_grad=True)
    k, v = (
        torch.randn(1, 2, 2 * 2 * p, 16, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    rows = []
    for i in range(y * x):
        number = i // x // window * 2 + i % x // window
        keys, values = (z[:, :, number * p : (number + 1) * p] for z in (k, v))
        rows.append((q[:, :, i, None] @ keys.mT / 4).softmax(-1) @ values)
    extents = {"image.y": y, "image.x": x, "folded.y": 2, "folded.x": 2, "folded.p": p}
    a = attndsl.library.load("vwformer_attention", window=window)
    checked(a(q, k, v, extents=extents), torch.cat(rows, 2), (q, k, v))


@pytest.mark.parametrize("name", ["mcanet_attention", "npt_attention"])
def test_all_places_of_a_line_share_the_weights_of_its_wide_token(name):
    lines, places, width = 4, 3, 2
    q, k, v = (torch.randn(lines, places, width, dtype=torch.float64) for _ in range(3))
    scores = torch.zeros(lines, lines, dtype=torch.float64)
    for one, other, place in itertools.product(range(lines), range(lines), range(places)):
        scores[one, other] += q[one, place] @ k[other, place]
    if name == "mcanet_attention":
        scores = scores / q.flatten(1).norm(dim=1)[:, None] / k.flatten(1).norm(dim=1)
    else:
        scores = scores / math.sqrt(places * width)
    wanted = torch.einsum("ij,jpw->ipw", scores.softmax(-1), v)
    wide = (z.flatten(1)[None, None] for z in (q, k, v))
    found = attndsl.library.load(name)(*wide)[0, 0].view(lines, places, width)
    torch.testing.assert_close(found, wanted)
