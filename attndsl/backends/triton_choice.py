"""The choice of the units with the greatest inner products, on GPUs: scored and chosen in one kernel."""

from __future__ import annotations

from typing import Any, Final

import torch
import triton
from torch import Tensor

from attndsl import ir
from attndsl.backends import kernels
from attndsl.backends.configs import Config, architecture, options, padded
from attndsl.backends.generated import load
from attndsl.backends.launching import Launch
from attndsl.backends.list_arguments import ChooseUnitsArgs, ChooseUnitsCall
from attndsl.backends.standalone import on_device
from attndsl.codegen import OverBudget, predicate

WIDEST: Final = 256  # numbers of a vector
MOST: Final = 64  # units that are taken: their keys lie in registers
MULTIPLY: Final = ("sm80", "sm90")  # whose matrix units take float64, as Triton compiles it
# Numbers of a vector, past which a matrix of them does not fit the shared memory.
MULTIPLIED: Final = 128


def config(count: int) -> Config:
    """Rows at once, and warps, by how many units are taken; these lie in registers."""
    return (
        Config(32, 32, 4, 1)
        if count <= 16
        else Config(16, padded(count), 4 if count <= 32 else 8, 1)
    )


def chosen_units(
    x: Tensor,
    y: Tensor,
    factor: float,
    where: ir.Node,
    keeping: ir.Node,
    numbers: range,
    count: int,
) -> Tensor | None:
    """The numbers of the units of the greatest scores, int32 [B, H, rows, count], ascending, -1 behind them.

    None where no kernel does it.

    Args:
        x: Vectors of the rows, float64 [B, H, rows, D].
        y: Vectors of the units, float64 [B, Hkv, units, D].
        factor: A score is the factor times an inner product, rounded to float32.
        where: Which units are candidates, bound: of `Pos(QUERY)`, the number of a row, and `Pos(KEY)`, that of a unit.
        keeping: Likewise, candidates that are taken whatever their score.
        numbers: The numbers of the rows.
        count: How many are taken.
    """
    (batch, heads, rows, width), units = x.shape, y.shape[2]
    if not 1 <= count <= MOST or not 1 <= width <= WIDEST or 0 in (batch, heads, rows, units):
        return None
    given: dict[str, Any] = {}
    try:
        for name, root in (("where", where), ("keeping", keeping)):
            made = predicate([root], {}, numbers, range(units))
            given[f"{name}_constants"] = torch.from_numpy(made.constants).to(x.device)
            given[f"{name}_tables"] = torch.from_numpy(made.tables).to(x.device)
            functions = load(made.text)
            given[name.upper()] = functions["KEEP"]
            for part, named in (("CONSTANTS",) * 2, ("QUERY", "QUERY_TERMS"), ("KEY", "KEY_TERMS")):
                given[f"{name.upper()}_{part}"] = functions[named]
    except OverBudget:
        return None
    x, y = x.contiguous(), y.contiguous()
    arch, own = architecture(x.device), config(count)
    found = torch.empty((batch, heads, rows, count), dtype=torch.int32, device=x.device)
    for letter, tensor in (("x", x), ("y", y)):
        steps = zip("bhs", tensor.stride(), strict=False)
        given |= {letter + dim: step for dim, step in steps}
    args = ChooseUnitsArgs(
        **given,
        rows=rows,
        units=units,
        heads=heads,
        GROUP=heads // y.shape[1],
        D=width,
        BD=padded(width),
        BQ=own.bq,
        W=padded(count),
        SLOTS=count,
        MATRIX=arch in MULTIPLY and width <= MULTIPLIED,
    )
    grid = triton.cdiv(rows, own.bq), batch * heads
    scale = torch.full((1,), factor, dtype=torch.float64, device=x.device)
    compiled = options(arch, own)
    with on_device(x):
        Launch(kernels.choose_units, grid, ChooseUnitsCall, args, **compiled)(
            ChooseUnitsCall(x, y, scale, found)
        )
    return found
