"""Calls through the kernel of torch's flex_attention: our blocks, and the pattern as its mask_mod."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from attndsl.backends import block_mask, has_loops, mask_function, stored_function
from attndsl.compiler import Program
from attndsl.op.checks import wants_gradient
from attndsl.op.dispatching import eager_only
from attndsl.op.foreign import call_of, refusal
from attndsl.op.planning import Planner

_BLOCK = (128, 128)  # queries and keys; flex_attention's own default


@eager_only
def attend_with_flex(
    planner: Planner,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    extents: Mapping[str, int] | None,
    inputs: Mapping[str, Any],
) -> tuple[Tensor, Tensor]:
    """(out, lse) of a call, compiled on GPUs and eager, dense, elsewhere.

    Raises:
        AttnDslError: A4xx for lengths, A520: zero keys, positions, gradients on CPUs, or what flex_attention refuses.
    """
    from torch.nn.attention.flex_attention import AuxRequest

    if q.device.type == "cpu" and wants_gradient(q, k, v):
        raise refusal("flex", "flex_attention has no backward on CPUs")
    blocks, program = _blocks(planner, q, k, extents, inputs), _kernel(q.device.type)
    group = q.shape[1] != k.shape[1]
    dynamo: Any = importlib.import_module("torch._dynamo.utils")
    try:
        with dynamo.disable_cache_limit():  # a pattern more is no reason to run without a kernel
            out, more = program(
                *(q, k, v), block_mask=blocks, scale=scale, enable_gqa=group, return_aux=AuxRequest(lse=True)
            )  # fmt: skip
    except (NotImplementedError, ValueError) as error:
        raise refusal("flex", str(error).partition("\n")[0]) from error
    return out, more.lse


@functools.cache
def _kernel(device: str) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    kernel: Callable[..., Any] = flex_attention
    return kernel if device == "cpu" else torch.compile(kernel, dynamic=False)


def _blocks(
    planner: Planner,
    q: Tensor,
    k: Tensor,
    extents: Mapping[str, int] | None,
    inputs: Mapping[str, Any],
) -> Any:
    """The BlockMask of a call, remembered while its inputs hold the same."""
    program: Program = planner.program
    call, key = call_of("flex", planner, q, k, extents, inputs)

    def make() -> Any:
        normal, rows = program.rows(call)
        if has_loops(normal):
            mod = stored_function(program.schedule(call, _BLOCK), q.device)
        else:
            tables = {name: torch.from_numpy(x.copy()) for name, x in rows.tables.items()}
            mod = mask_function(normal, rows, tables, q.device)
        return block_mask(normal, rows, _BLOCK, mod, q.device)

    return planner.memo(("flex", q.device, *key), make)
