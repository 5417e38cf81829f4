"""Attentions pair by pair, in scalars of float64: shares nothing with the package but autograd of torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Scalar = Any  # a tensor without dims, or a number


@dataclass(frozen=True)
class Pair:
    """A query, at position ``q`` and row ``row``, and a key at position ``k``; ``x`` are the inputs by name."""

    q: int
    k: int
    head: int
    batch: int
    row: int
    x: Mapping[str, Tensor]
    of_q: Tensor
    of_k: Tensor


@dataclass(frozen=True)
class Loop:
    """A published attention as functions of a pair: which pairs, their scores, their weights."""

    sees: Callable[[int, int], bool]
    score: Callable[[Scalar, Pair], Scalar] = field(default=lambda s, p: s)
    form: str = "softmax"
    weight: Callable[[Scalar], Scalar] = field(default=torch.exp)
    factor: Callable[[Pair], Scalar] = field(default=lambda p: 1.0)
    mass: Callable[[Pair], Scalar] | None = None
    align_start: bool = False


def attend(loop: Loop, q: Tensor, k: Tensor, v: Tensor, x: Mapping[str, Tensor]) -> Tensor:
    """out [B, H, Q, Dv], a number at a time."""
    batch, heads, q_len, dim = q.shape
    group, k_len = heads // k.shape[1], k.shape[2]
    first = 0 if loop.align_start else k_len - q_len
    rows = []
    for b in range(batch):
        for h in range(heads):
            of_k, of_v = k[b, h // group], v[b, h // group]
            scores, pairs = [], []
            for i in range(q_len):
                mine = [
                    Pair(i + first, j, h, b, i, x, q[b, h, i], of_k[j])
                    for j in range(k_len)
                    if i + first >= 0 and loop.sees(i + first, j)
                ]
                pairs.append(mine)
                scores.append([loop.score(p.of_q @ p.of_k / math.sqrt(dim), p) for p in mine])
            for i in range(q_len):
                weights = _weights(loop, pairs, scores, i)
                out = torch.zeros(v.shape[3], dtype=v.dtype)
                for p, w in zip(pairs[i], weights, strict=True):
                    out = out + w * loop.factor(p) * of_v[p.k]
                rows.append(out)
    return torch.stack(rows).reshape(batch, heads, q_len, -1)


def _weights(
    loop: Loop, pairs: Sequence[Sequence[Pair]], scores: Sequence[Sequence[Scalar]], i: int
) -> list[Scalar]:
    mine, keys = scores[i], [p.k for p in pairs[i]]
    if not mine:
        return []
    extra = loop.mass(pairs[i][0]) if loop.mass is not None else 0.0
    match loop.form:
        case "softmax":
            top = max(number(t) for t in mine)
            each = [torch.exp(t - top) for t in mine]
            return [w / (sum(each) + extra * math.exp(-top)) for w in each]
        case "pointwise":
            return [loop.weight(t) for t in mine]
        case "l1":
            each = [loop.weight(t) for t in mine]
            return [w / (sum(each) + extra) for w in each]
        case "entmax":
            return _entmax(mine)
        case "stick":
            found = []
            for j, t in zip(keys, mine, strict=True):
                w = torch.sigmoid(t)
                for m, other in zip(keys, mine, strict=True):
                    w = w * (1 - torch.sigmoid(other)) if m > j else w
                found.append(w)
            return found
        case "columns":
            found = []
            for j, t in zip(keys, mine, strict=True):
                column = [
                    s
                    for p, row in zip(pairs, scores, strict=True)
                    for o, s in zip(p, row, strict=True)
                    if o.k == j
                ]
                found.append(torch.exp(t) / sum(torch.exp(s) for s in column))
            return found
        case _:
            raise AssertionError(loop.form)


def number(t: Scalar) -> float:
    """A scalar without its derivative."""
    return float(t.detach())


def _entmax(scores: Sequence[Scalar]) -> list[Scalar]:
    """Bisection for the support, then its threshold in closed form, which autograd differentiates."""
    z = [t / 2 for t in scores]
    low, high = max(map(number, z)) - 1.0, max(map(number, z))
    for _ in range(200):
        middle = (low + high) / 2
        if sum(max(number(t) - middle, 0.0) ** 2 for t in z) >= 1.0:
            low = middle
        else:
            high = middle
    support = [t for t in z if number(t) > low]
    n, mean = len(support), sum(support) / len(support)
    spread = sum((t - mean) ** 2 for t in support)
    tau = mean - torch.sqrt((1 - spread) / n)
    return [torch.clamp(t - tau, min=0.0) ** 2 for t in z]
