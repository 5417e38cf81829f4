"""An oracle: the index set of one catalogue row, as loops over plain Python integers.

An oracle is a function that gives the pairs of one batch element and one head, bool [Q, K]. It names what it needs
as arguments: extents (``y``, ``x``, ``n``), parameters, inputs (the slice of this batch element), and, where they
matter, ``head``, ``heads`` and ``layer``. ``Oracle.expected`` calls it for every batch element and head.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Q = TypeVar("Q")
K = TypeVar("K")


@dataclass(frozen=True)
class Case:
    """One call: sizes of axes and segments, values of parameters, run-time inputs [batch, ...]."""

    extents: dict[str, int]
    params: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, NDArray[Any]] = field(default_factory=dict)
    heads: int = 1
    batch: int = 1
    layer: int = 0


@dataclass(frozen=True)
class Oracle:
    """The meaning of a catalogue row; rows with several patterns have one oracle for each ``part``."""

    row: int
    name: str
    part: str
    rule: Callable[..., Mask]
    cases: Sequence[Case]
    causal: bool  # a promise, and tested: no key comes after its query
    dense: bool  # the row's index set is all pairs
    zeros: Callable[..., Sequence[int]] | None = (
        None  # zero keys of each query: takes what the rule takes
    )

    @property
    def id(self) -> str:
        return f"{self.row:03}-{self.name}" + (f"-{self.part}" if self.part else "")

    def expected(self, case: Case) -> Mask:
        """The mask, bool [batch, heads, Q, K]."""
        return np.stack(
            [np.stack([self.one(case, b, h) for h in range(case.heads)]) for b in range(case.batch)]
        )

    def zero_keys(self, case: Case) -> NDArray[np.int64]:
        """How many keys of score 0 and value 0 each query has beside its pairs, int64 [batch, heads, Q]."""
        if self.zeros is None:
            return np.zeros(self.expected(case).shape[:3], dtype=np.int64)
        heads = range(case.heads)
        made = [[self.one(case, b, h, self.zeros) for h in heads] for b in range(case.batch)]
        return np.array(made, dtype=np.int64)

    def one(self, case: Case, b: int, head: int, rule: Callable[..., Any] | None = None) -> Any:
        asked_of = rule or self.rule
        ours = {name: table[b] for name, table in case.inputs.items()}
        given = {"head": head, "heads": case.heads, "layer": case.layer}
        asked = inspect.signature(asked_of).parameters
        known = case.extents | case.params | ours
        unknown = set(known) - set(asked)
        assert not unknown, f"{self.id} does not take {sorted(unknown)}"
        return asked_of(**known, **{name: given[name] for name in asked if name in given})


ORACLES: list[Oracle] = []


def oracle(
    row: int,
    name: str,
    cases: Sequence[Case],
    *,
    part: str = "",
    causal: bool = False,
    dense: bool = False,
    zeros: Callable[..., Sequence[int]] | None = None,
) -> Callable[[Callable[..., Mask]], Callable[..., Mask]]:
    """Register a function as the oracle of a row (or of one part of it)."""

    def register(rule: Callable[..., Mask]) -> Callable[..., Mask]:
        ORACLES.append(Oracle(row, name, part, rule, cases, causal, dense, zeros))
        return rule

    return register


def pairs(queries: Iterable[Q], keys: Sequence[K], rule: Callable[[Q, K], bool]) -> Mask:
    """``rule`` asked for every pair, bool [Q, K]."""
    rows = [[bool(rule(i, j)) for j in keys] for i in queries]
    return np.array(rows, dtype=bool).reshape(len(rows), len(keys))


def grid(*sizes: int) -> list[tuple[int, ...]]:
    """The coordinates of a grid, last axis fastest: the order of its tokens."""
    return list(product(*map(range, sizes)))


def outside(taps: Iterable[Sequence[int]], *sizes: int) -> int:
    """How many places lie outside a grid: where an implementation that pads it finds zeros."""
    return sum(not all(0 <= at < size for at, size in axes(tap, sizes)) for tap in taps)


def axes(
    i: Sequence[int], j: Sequence[int], *others: Sequence[object]
) -> Iterator[tuple[Any, ...]]:
    """Axis by axis: the query's coordinate, the key's, and what else is given per axis."""
    return zip(i, j, *others, strict=True)


def up(n: int, m: int) -> int:
    """n / m, rounded up."""
    return -(-n // m)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)
