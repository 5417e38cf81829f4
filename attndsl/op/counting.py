"""Floating-point operations of the operators, for counters that ask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attndsl import views
from attndsl.op.planning import Planner
from attndsl.op.rules import FORWARD, Rule, Vjp
from attndsl.packed import PackedCall, read_call

_TILE = (128, 128)  # of the schedule whose pairs are counted; the pairs are the same in any


def flops(rule: Rule, pairs: int, head_dim: int, value_dim: int) -> int:
    """The operations of the matrix products of a rule; a multiplication and an addition are two.

    The forward has two products, Q Kᵀ and P V. Its first derivative in reverse mode has five (Q Kᵀ again, dO Vᵀ and
    three for dQ, dK and dV), as torch counts dense attention. Every other is composed: a product, and two for
    its derivative.
    """
    if rule is FORWARD:
        return 2 * pairs * (head_dim + value_dim)
    if isinstance(rule, Vjp) and rule.rule is FORWARD:
        return 2 * pairs * (3 * head_dim + 2 * value_dim)
    return 3 * flops(rule.rule, pairs, head_dim, value_dim)  # type: ignore[union-attr]


def live_pairs(
    planner: Planner | None,
    q: Tensor,
    k: Tensor,
    tables: Sequence[Tensor],
    names: Sequence[str],
    extents: dict[str, int],
) -> int:
    """Pairs of q [B, H, Q, D] and k that the pattern holds, of all batch elements and heads.

    All pairs where that cannot be known: lengths are symbolic, or a table holds no data.
    """
    batch, heads, q_len, _ = q.shape
    sizes = batch, heads, q_len, k.shape[2], *extents.values()
    symbolic = any(isinstance(size, torch.SymInt) for size in sizes)
    if planner is None or symbolic or not all(map(_holds_data, tables)):
        return math.prod(sizes[:4])
    program, arrays = planner.program, dict(zip(names, tables, strict=True))
    call = read_call(program, (q_len, k.shape[2], batch, heads), extents, arrays)
    parts = [call] if not isinstance(call, PackedCall) else [group.call for group in call.groups]
    program = program if not isinstance(call, PackedCall) else call.program
    costs = (
        views.cost(program.schedule(part, _TILE), 1, heads=heads, batch=part.batch)
        for part in parts
    )
    return sum(cost.pairs for cost in costs)


def _holds_data(table: Any) -> bool:
    return not table.is_meta and type(table) in (Tensor, torch.nn.Parameter)
