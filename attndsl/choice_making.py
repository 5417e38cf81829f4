"""The making of the tables of selections, one after the other, from the tensors and inputs of a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attndsl import ir, selecting
from attndsl.backends import unit_chooser
from attndsl.chosen_tables import Shape, for_each_head
from attndsl.inputs import fitted, read


@dataclass(frozen=True, slots=True)
class Making:
    """One making of tables: the tensors and inputs of a call, and the tables so far."""

    q: Tensor
    k: Tensor
    scale: float
    given: Mapping[str, Any]
    shape: Shape
    layer: int
    summaries: selecting.KeySummaries | None
    made: dict[str, Tensor] = field(default_factory=dict)

    def produce(self, chosen: ir.Chosen) -> None:
        """Makes a table, and those that it asks."""
        if chosen.name not in self.made:
            for each in chosen.within:
                self.produce(each)
            self.made[chosen.name] = selecting.produce(chosen, self.activations(chosen))

    def activations(self, chosen: ir.Chosen) -> selecting.Activations:
        """The tensors that it is made from, the tables that it asks among them.

        Raises:
            AttnDslError: A501, an input lacks or does not fit.
        """
        shape, given = self.shape, self.given
        tables: dict[str, np.ndarray[Any, Any]] = {}
        reals: dict[str, Tensor] = {}
        for table in chosen.tables:
            if table.name in self.made:
                found = self.made[table.name]
                found = for_each_head(found, shape) if "head" in table.dims else found
                tables[table.name] = found.cpu().numpy()
            elif table.name not in given:
                title = f"the call needs the input {table.name!r}, which its selection {chosen.name!r} reads"
                raise ir.misfit(table, title)
            elif table.kind is ir.Sort.REAL:
                reals[table.name] = _real(table, given[table.name], shape)
            else:
                sizes = {"batch": shape.batch, "head": shape.heads, "q": shape.q_len}
                sizes |= {"k": shape.k_len, "pos": shape.k_len}
                tables[table.name] = fitted(table, read(table.name, given[table.name]), sizes)
        call = self.q, self.k, self.scale, tables, reals, self.layer, self.summaries
        return selecting.Activations(*call, dict(shape.extents), unit_chooser(self.q.device))


def _real(table: ir.Table, value: Any, shape: Shape) -> Tensor:
    """A real input, of the sizes that the call has.

    Raises:
        AttnDslError: A501.
    """
    found = value if isinstance(value, Tensor) else torch.as_tensor(value)
    sizes = {
        "batch": (1, shape.batch), "head": (1, shape.heads), "q": (shape.q_len,),
        "k": (shape.k_len,), "pos": (shape.k_len,),
    }  # fmt: skip
    fits = found.dim() == len(table.dims) and all(
        size in sizes.get(str(dim), (dim if isinstance(dim, int) else size,))
        for dim, size in zip(table.dims, found.shape, strict=True)
    )
    if not fits or not found.is_floating_point() or found.device != shape.device:
        title = f"input {table.name!r} does not fit: {list(found.shape)} {found.dtype} on {found.device}"
        raise ir.misfit(table, title)
    return found
