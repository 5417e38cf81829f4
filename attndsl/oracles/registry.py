"""An oracle: the index set of one row of the catalogue, as a formula on the coordinates of queries and keys.

``says(96, "griffin", "n", lambda q, k, window: ..., "n=12 window=4 | n=9 window=1")``: the rule is asked for one
batch element and one head, with the tokens of its spaces and, by name, what else it needs: extents, parameters,
inputs (the slice of this batch element), ``head``, ``heads`` and ``layer``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from .tokens import Array, Tokens, segments

Rule: TypeAlias = Callable[..., Any]
Draw: TypeAlias = Callable[[np.random.Generator, Mapping[str, Any]], Array]


@dataclass(frozen=True)
class Case:
    """One call: sizes of axes and segments, values of parameters, run-time inputs [batch, ...]."""

    extents: dict[str, int]
    params: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Array] = field(default_factory=dict)
    heads: int = 1
    batch: int = 1
    layer: int = 0


@dataclass(frozen=True)
class Oracle:
    """Meaning of a catalogue row; rows with several patterns have one for each ``part``.

    Attributes:
        row: Its number.
        name: The system.
        part: The one of its patterns, "" if it has no other.
        queries: The space of the queries, as ``tokens.segments`` reads it.
        keys: That of the keys.
        rule: The pairs, from the tokens of both; broadcasts to [Q, K].
        cases: Calls to compare on.
        causal: A promise, and tested: no key comes after its query.
        dense: Whether the index set is all pairs.
        zeros: The number of zero keys (score 0, value 0) of each query, [Q, 1]; None: there are none.
    """

    row: int
    name: str
    part: str
    queries: str
    keys: str
    rule: Rule
    cases: Sequence[Case]
    causal: bool
    dense: bool
    zeros: Rule | None

    @property
    def id(self) -> str:
        return f"{self.row:03}-{self.name}" + (f"-{self.part}" if self.part else "")

    def expected(self, case: Case) -> Array:
        """The mask, bool [batch, heads, Q, K]."""
        heads = range(case.heads)
        return np.array([[self.one(case, b, h) for h in heads] for b in range(case.batch)])

    def zero_keys(self, case: Case) -> Array:
        """How many keys of score 0 and value 0 each query has beside its pairs, int64 [batch, heads, Q]."""
        zeros = self.zeros or (lambda q, k: 0)
        made = [
            [self._asked(zeros, case, b, h)[:, 0] for h in range(case.heads)]
            for b in range(case.batch)
        ]
        return np.array(made, dtype=np.int64)

    def one(self, case: Case, b: int, head: int) -> Array:
        """The mask of one batch element and head, bool [Q, K]."""
        unknown = {*case.params, *case.inputs} - _asked_by(self.rule)
        assert not unknown, f"{self.id} does not take {sorted(unknown)}"
        return self._asked(self.rule, case, b, head).astype(bool)

    def _asked(self, rule: Rule, case: Case, b: int, head: int) -> Array:
        q, k = (
            Tokens(space, case.extents, shape)
            for space, shape in ((self.queries, (-1, 1)), (self.keys, (1, -1)))
        )
        known = {
            **case.extents, **case.params, **{name: each[b] for name, each in case.inputs.items()},
            "head": head, "heads": case.heads, "layer": case.layer,
        }  # fmt: skip
        asked = _asked_by(rule)
        found = rule(q, k, **{name: it for name, it in known.items() if name in asked})
        return np.broadcast_to(found, (q.count, k.count))


def _asked_by(rule: Rule) -> set[str]:
    return {*inspect.signature(rule).parameters}


def says(
    row: int,
    name: str,
    over: str,
    rule: Rule,
    cases: str,
    *,
    part: str = "",
    causal: bool = False,
    dense: bool = False,
    zeros: Rule | None = None,
    **inputs: Draw,
) -> Oracle:
    """An oracle over "queries -> keys", or one space for both, and its cases, as in "n=12 window=4 | n=9 window=1".

    A case gives extents, parameters, ``heads``, ``batch`` and ``layer``, and sizes that only the draws of inputs
    need. Inputs are drawn anew for each, equal ones in every process.
    """
    queries, _, keys = over.partition("->")
    keys = keys or queries
    axes = {axis for space in (queries, keys) for _, names in segments(space) for axis in names}
    asked = _asked_by(rule)
    built = []
    for index, text in enumerate(cases.split("|")):
        sizes = {key: _value(it) for key, _, it in (each.partition("=") for each in text.split())}
        options = {key: sizes[key] for key in ("heads", "batch", "layer") if key in sizes}
        extents = {key: it for key, it in sizes.items() if key in axes}
        params = {
            key: it for key, it in sizes.items() if key in asked and not {key} & (axes | {*options})
        }
        whole = {"heads": 1, "batch": 1, "case": index, **sizes}
        drawn = {
            key: draw(np.random.default_rng([row, index, at]), whole)
            for at, (key, draw) in enumerate(inputs.items())
        }
        built.append(Case(extents, params, drawn, **options))
    return Oracle(row, name, part, queries, keys, rule, built, causal, dense, zeros)


def _value(text: str) -> Any:
    """Reads 3, true, or (1,true)."""
    if text.startswith("("):
        return tuple(map(_value, text[1:-1].split(",")))
    return text == "true" if text in ("true", "false") else int(text)


def _shape(dims: str, sizes: Mapping[str, Any]) -> list[int]:
    """Reads "batch heads 4 n"."""
    return [sizes[dim] if dim in sizes else int(dim) for dim in dims.split()]


def ids(dims: str, count: str, low: int = 0) -> Draw:
    """Drawn ids from ``low`` on and below ``count``, a size or a number."""
    return lambda rng, sizes: rng.integers(low, _shape(count, sizes)[0], _shape(dims, sizes))


def runs(dims: str, count: str) -> Draw:
    """Drawn ids in ascending order along the last axis: documents laid end to end."""
    return lambda rng, sizes: np.sort(ids(dims, count)(rng, sizes), axis=-1)


def flags(dims: str, share: float) -> Draw:
    """Drawn truths, each true with chance ``share``."""
    return lambda rng, sizes: rng.random(_shape(dims, sizes)) < share


def ranks(dims: str) -> Draw:
    """Drawn permutations along the last axis: the place of each token in some sorted order."""
    return lambda rng, sizes: np.argsort(rng.random(_shape(dims, sizes)), axis=-1)


def lists(dims: str, count: str, slots: str) -> Draw:
    """Lists of at most so many different numbers below ``count``, in no order, padded with -1."""

    def draw(rng: np.random.Generator, sizes: Mapping[str, Any]) -> Array:
        (most,), (below,), shape = _shape(slots, sizes), _shape(count, sizes), _shape(dims, sizes)
        order = np.argsort(rng.random([*shape, max(below, most)]), axis=-1)[..., :most]
        filled = rng.integers(0, most + 1, shape)[..., None] > np.arange(most)
        return np.where(filled & (order < below), order, -1)

    return draw


def given(*tables: Any) -> Draw:
    """Takes the table of each case, written without its batch axis where that is 1."""

    def draw(_: np.random.Generator, sizes: Mapping[str, Any]) -> Array:
        table = np.array(tables[sizes["case"]])
        return table if sizes["batch"] > 1 else table[None]

    return draw
