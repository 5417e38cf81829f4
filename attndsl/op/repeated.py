"""Calls like an earlier one: what was asked and decided then holds, but for what their inputs hold.

Whether a call is refused, and how it runs, is a question of shapes, dtypes, options and inputs. A plain call on a CPU
that agrees with an earlier one in all of them goes to its kernels at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from attndsl.backends import edition
from attndsl.op.autograd import run
from attndsl.op.checks import wants_gradient
from attndsl.op.dispatching import are_plain, eager_only, has_dispatch_hooks
from attndsl.op.planning import Planner
from attndsl.op.steps import step

Kind: TypeAlias = tuple[object, ...]  # all in which calls differ that run in different ways


def at_once(
    planner: Planner,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: object,
    backend: str,
    layout: str | None,
    extents: Mapping[str, int] | None,
    inputs: Mapping[str, Any] | None,
    positions: Mapping[str, Any] | None,
    stamp: bytes | None,
) -> tuple[Kind | None, tuple[Tensor, Tensor] | None]:
    """The kind of a call, and (out, lse) where little needs to be asked for them; None: of no kind, and asked in full.

    Raises:
        AttnDslError: as ``step``.
    """
    if has_dispatch_hooks() or not are_plain(q, k, v) or not q.dim() == k.dim() == v.dim() == 4:
        return None, None
    kind: Kind | None = None
    if not positions and q.shape[2] > 1:  # one of a step has a length of its own
        asked = scale, backend, layout, extents, inputs, stamp
        kind, made = _repeated(planner, q, k, v, *asked)
        if made is not None:
            return kind, made
    if extents or layout or stamp is not None:
        return kind, None
    return kind, step(planner, q, k, v, scale, backend, inputs, positions)


@eager_only
def _repeated(
    planner: Planner,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: object,
    backend: str,
    layout: str | None,
    extents: Mapping[str, int] | None,
    inputs: Mapping[str, Any] | None,
    stamp: bytes | None,
) -> tuple[Kind | None, tuple[Tensor, Tensor] | None]:
    """The kind of a call without positions, and (out, lse) if one of its kind has run and is remembered.

    ``stamp``: that of the inputs, where these are known not to change.
    """
    is_plain = type(scale) in (float, type(None)) and type(backend) is str
    if not is_plain or torch.is_autocast_enabled("cpu"):
        return None, None
    axes: tuple[tuple[str, int], ...] = ()
    if extents:
        if type(extents) is not dict or any(type(x) is not int for x in extents.values()):
            return None, None
        axes = tuple(extents.items())
    names: tuple[str, ...] = ()
    tables: list[Tensor] = []
    if inputs:
        names = tuple(sorted(inputs))
        tables = [inputs[name] for name in names]
        if not are_plain(*tables):
            return None, None
        if stamp is None:
            stamp = planner.stamp(names, tables)
    asked = scale, backend, layout, axes, names, stamp, edition(), wants_gradient(q, k, v)
    kind = q.shape, k.shape, v.shape, q.dtype, k.dtype, v.dtype, *asked
    known = planner.ready(kind)
    if known is None:
        return kind, None
    return kind, run(planner, known[0], q, k, v, tables, known[1])
