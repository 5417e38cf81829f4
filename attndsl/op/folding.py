"""One call in place of many: a mapped dim that becomes part of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from attndsl.op.operator_call import Call


@dataclass(frozen=True, slots=True)
class Fold:
    """A mapped dim as part of the batch: so many calls, each of a batch of elements, as one call."""

    calls: int
    batch: int
    batched: list[bool]  # which tables have the batch dim

    @staticmethod
    def find(
        call: Call,
        calls: int,
        xs: Sequence[Tensor],
        dims: Sequence[int | None],
        table_dims: Sequence[int | None],
    ) -> Fold | None:
        """None where one call would not do the same: what an element sees depends on more than its tables."""
        differ = [dim is not None for dim in table_dims]
        batched = call.planner.batched(call.options.names, differ)
        if batched is None:
            return None
        return Fold(calls, xs[0].shape[1 if dims[0] == 0 else 0], batched)

    def of(self, xs: Sequence[Tensor], dims: Sequence[int | None]) -> list[Tensor]:
        """Tensors [batch or 1, ...] as [calls * batch, ...], with the mapped dim where they have one."""
        moved = (
            x.unsqueeze(0) if dim is None else x.movedim(dim, 0)
            for x, dim in zip(xs, dims, strict=True)
        )
        return [x.expand(self.calls, self.batch, *x.shape[2:]).flatten(0, 1) for x in moved]

    def of_tables(self, tables: Sequence[Tensor], dims: Sequence[int | None]) -> list[Tensor]:
        """The same of tables that have a batch dim; the others serve all."""
        pairs = zip(tables, dims, self.batched, strict=True)
        return [self.of([x], [dim])[0] if batched else x for x, dim, batched in pairs]

    def undone(self, x: Tensor) -> Tensor:
        """[calls * batch, ...] as [calls, batch, ...]."""
        return x.reshape(self.calls, self.batch, *x.shape[1:])


def entry_of(index: int, xs: Sequence[Tensor], dims: Sequence[int | None]) -> list[Tensor]:
    pairs = zip(xs, dims, strict=True)
    return [x if dim is None else x.select(dim, index) for x, dim in pairs]
