"""The keys of few queries at any lengths: what is asked of a pattern once, so that each step costs some arithmetic.

k <= q and q - k < w      -->  1 query of n keys sees [max(0, n - w), n)
doc[q] == doc[k]          -->  one look at a row of ``doc``; nothing of it is remembered
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attndsl import ir
from attndsl.schedule.key_runs import Keys
from attndsl.schedule.key_sets import KeySets, in_classes
from attndsl.schedule.key_solver import Place, Solver, is_solved, solver


@dataclass(frozen=True, slots=True, eq=False)
class KeyRule:
    """A normal mask that is solved for the key, over plain sequences, with tables by position at the most."""

    mask: ir.Mask
    layer: int
    solve: Solver
    by_batch: bool  # whether batch elements see other keys, and heads
    by_head: bool
    counts_back: bool  # whether queries are the last tokens, not the first
    is_costly: bool  # whether keys are listed one by one: those of a length are worth keeping

    @staticmethod
    def of(mask: ir.Mask, layer: int) -> KeyRule | None:
        """None where keys must be tried one by one, or where more of a call must be known than its lengths."""
        spaces = mask.queries.segments or mask.keys.segments or mask.is_rectangular
        if spaces or mask.conditions or mask.zeros is not ir.ZERO:
            return None
        if any(table.is_list or table.indexed_dims != ("pos",) for table in mask.tables):
            return None
        if ir.holds(mask.root, *ir.LOOPS):
            return None
        if not is_solved(mask.root):
            return None
        deps = mask.root.deps
        apart = bool(deps & ir.Deps.BATCH), bool(deps & ir.Deps.HEAD)
        about = mask.align is ir.Align.END, ir.holds(mask.root, ir.Mod)
        return KeyRule(mask, layer, solver(mask.root), *apart, *about)

    def key_sets(
        self, q_len: int, k_lens: Sequence[int], batch: int, heads: int, tables: Mapping[str, Any]
    ) -> KeySets:
        """The keys of the queries of a call.

        Args:
            q_len: Queries, the last of the tokens, or the first ones, as the mask aligns them.
            k_lens: Keys of each batch element, or one number for all; no fewer than queries.
            batch: Batch elements.
            heads: Heads.
            tables: Integers, int64, and truth values by the names of the mask: [batch or 1, heads or 1, positions],
                as declared. Entries behind the last key are not read.
        """
        batches = batch if len(k_lens) > 1 or self.by_batch else 1
        held = range(heads if self.by_head else 1)
        found: list[tuple[Keys, ...]] = []
        for b in range(batches):
            length = k_lens[0] if len(k_lens) == 1 else k_lens[b]
            cut = {name: array[..., :length] for name, array in tables.items()}
            for h in held:
                rows = [self.keys(i, q_len, length, (b, h, heads), cut) for i in range(q_len)]
                found.append(tuple(rows))
        return in_classes(found, batches)

    def keys(
        self,
        row: int,
        q_len: int,
        k_len: int,
        among: tuple[int, int, int],
        tables: Mapping[str, Any],
    ) -> Keys:
        """The keys of one query of a call.

        ``among``: (its batch element, its head, how many heads there are); ``tables`` have an entry for each key.
        """
        b, h, heads = among
        position = k_len - q_len + row if self.counts_back else row
        sizes = {"q": q_len, "k": k_len}
        at = Place(position, b, h, sizes, tables, self.mask, heads, self.layer)
        return self.solve(at, ((0, k_len),) if k_len else ())
