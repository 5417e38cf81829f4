"""The keys that single queries see: for calls of so few queries that tiles would be mostly air.

    k <= q and q - k < w or k < g     q = 5000     -->  [0, g) and [5000 - w + 1, 5001)

Conditions that bound the key are solved for it; what they leave is tried, all keys at once. The price follows the
keys that are seen, not the length, where the conditions allow.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from attndsl import ir
from attndsl.schedule.calls import Call
from attndsl.schedule.key_runs import Keys, Runs
from attndsl.schedule.key_solver import Place, solver
from attndsl.schedule.model import ShortArray
from attndsl.schedule.relations import positions_of

_ONE_CLASS: Final = np.zeros((1, 1), np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class KeySets:
    """The keys of each query of a call, by distinct (batch, head) class."""

    classes: tuple[tuple[Keys, ...], ...]  # [classes][queries]
    class_of: ShortArray  # [1 or batch, 1 or heads], index into classes

    @property
    def nbytes(self) -> int:
        """Bytes of the positions."""
        arrays = (keys for one in self.classes for keys in one if isinstance(keys, np.ndarray))
        return self.class_of.nbytes + sum(keys.nbytes for keys in arrays)


def key_sets(mask: ir.Mask, call: Call) -> KeySets:
    """The keys that each query of a call sees under a normal mask."""
    queries, keys = positions_of(mask, call)
    whole: Runs = ((keys.start, keys.stop),) if keys else ()
    deps, solve = mask.root.deps, solver(mask.root)
    batches = call.batch if deps & ir.Deps.BATCH else 1
    heads = call.heads if deps & ir.Deps.HEAD else 1
    about = call.sizes, call.tables, mask, call.heads, call.layer
    found = [
        tuple(
            () if q < 0 and mask.is_placed else solve(Place(q, b, h, *about), whole)
            for q in queries  # none stands before the first token
        )
        for b, h in itertools.product(range(batches), range(heads))
    ]
    return in_classes(found, batches)


def in_classes(found: Sequence[tuple[Keys, ...]], batches: int) -> KeySets:
    """The keys of each query, for each batch element and in it for each head, equal ones together."""
    if len(found) == 1:
        return KeySets((found[0],), _ONE_CLASS)
    names: dict[object, int] = {}
    classes: list[tuple[Keys, ...]] = []
    class_of = []
    for rows in found:
        class_of.append(names.setdefault(tuple(map(_name, rows)), len(names)))
        if len(names) > len(classes):
            classes.append(rows)
    return KeySets(tuple(classes), np.array(class_of, np.int32).reshape(batches, -1))


def _name(keys: Keys) -> object:
    return keys if isinstance(keys, tuple) else keys.tobytes()
