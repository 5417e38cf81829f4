"""A small call of each entry, whole: what to compile, and tensors, extents and inputs to run it on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attndsl import patterns
from attndsl.attentions import Attention
from attndsl.compiled import Pattern

from .shelf import describe, load

WIDTH = 16  # of a head: what the smallest tensor cores take
_FOREIGN = 4  # keys under each name that an attention has beside those of the call


@dataclass(frozen=True, slots=True)
class Example:
    """A call of an entry at sizes one can look at.

    Attributes:
        name: The entry.
        layer: The layer it is compiled for.
        values: Its parameters, where they are not the paper's.
        q: Queries [B, H, Q, 16].
        k: Keys [B, H, K, 16].
        v: Values [B, H, K, 16].
        extents: The size of every axis of its grids, by full name: {"image.y": 9}.
        inputs: Its run-time inputs by name, on the device of q.
        keys: Keys and values beside those of the call, by name: pairs of [B, H, 4, 16].
    """

    name: str
    layer: int
    values: dict[str, Any]
    q: Tensor
    k: Tensor
    v: Tensor
    extents: dict[str, int]
    inputs: dict[str, Tensor]
    keys: dict[str, tuple[Tensor, Tensor]]

    @property
    def pattern(self) -> Pattern | Attention:
        """The entry, compiled: a pattern, or the attention that some published selections are."""
        return load(self.name, layer=self.layer, values=self.values)

    def call(self, **options: Any) -> Any:
        """Runs it: the output [B, H, Q, 16], as ``pattern(q, k, v, ...)`` returns it.

        Args:
            **options: As of ``Pattern.__call__``: ``backend``, ``layout``, ``return_lse``, ...
        """
        given = {"extents": self.extents, "inputs": self.inputs, **self.keys, **options}
        return self.pattern(self.q, self.k, self.v, **given)


def example(
    name: str,
    *,
    seed: int = 0,
    layer: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Example:
    """Makes a small call of any entry, or of a published selection; equal arguments give equal numbers.

    Args:
        name: An entry, a selection, or the number of a row, then its first entry.
        seed: What tensors and inputs are drawn from.
        layer: Which layer, where layers differ; by default the first that is of interest.
        dtype: Of q, k and v.
        device: Where tensors and inputs live. They are drawn on the CPU, so they are the same anywhere.

    Raises:
        AttnDslError: A211, there is no such entry.
    """
    entry = describe(name)
    trial = patterns.trial(entry, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    lengths = (trial.q_len, trial.k_len, trial.k_len)
    q, k, v = (
        torch.randn(trial.batch, trial.heads, length, WIDTH, generator=draw).to(device, dtype)
        for length in lengths
    )
    inputs = {name: torch.from_numpy(array).to(device) for name, array in trial.inputs.items()}
    chosen = trial.layers[0] if layer is None else layer
    made = Example(entry.name, chosen, trial.values, q, k, v, trial.extents, inputs, {})
    if isinstance(attention := made.pattern, Attention):
        shape = (2, trial.batch, trial.heads, _FOREIGN, WIDTH)
        for name in attention.ir.key_inputs:
            key, value = torch.randn(shape, generator=draw).to(device, dtype)
            made.keys[name] = key, value
    return made
