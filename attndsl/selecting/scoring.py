"""The scores of what was chosen, with their gradients."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from attndsl import ir

from .producing import STRIP, Activations, scored, strips_of, summaries_of

sel = ir.selection


def scores(
    selection: ir.Selection, given: Activations, table: Tensor, strip: int = STRIP
) -> Tensor:
    """The score of each unit in a table of a selection, float32 of its shape, -inf in empty slots.

    Gradients reach q, k and the real inputs. Scores are made strip by strip, and again in the backward.
    """
    made = summaries_of(selection, given, graph=True)
    shared = selection.shared is sel.Shared.HEADS
    wanted = table[:, None] if shared else table
    parts = []
    for place, (numbers, first) in enumerate(strips_of(selection, made, strip)):
        part = wanted if selection.by_column else wanted[:, :, first : first + len(numbers)]
        if not place:  # the first makes summaries that others share
            parts.append(_of_strip(selection, made, part, numbers, first))
        else:
            again = (selection, made, part, numbers, first)
            parts.append(checkpoint(_of_strip, *again, use_reentrant=False))
    if not parts:
        return torch.full(table.shape, -math.inf, device=table.device)
    if selection.by_column:
        found = torch.stack(parts).amax(0)
    else:
        found = torch.cat(parts, 2)
    return found[:, 0] if shared else found


def _of_strip(
    selection: ir.Selection, made: object, table: Tensor, numbers: np.ndarray, first: int
) -> Tensor:
    found, _, _ = scored(selection, made, numbers, first)  # type: ignore[arg-type]
    if selection.by_column:
        found, at = found.mT, table.long() - int(numbers[0])
    else:
        at = table.long()
    there = (table >= 0) & (at >= 0) & (at < found.shape[-1])
    if not found.shape[-1]:
        return torch.full(table.shape, -math.inf, device=table.device)
    taken = found.gather(-1, at.clamp(0, found.shape[-1] - 1))
    return torch.where(there, taken, -math.inf)
