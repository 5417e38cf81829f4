"""A mask as four device functions, its numbers apart.

    constants(c)            -> the numbers of one plan, read once
    query_terms(c, t, row)  -> everything that depends on the query alone, once for each query tile
    key_terms(c, t, row)    -> likewise of the key
    keep(c, q, k)           -> what is left to do for each pair: comparisons, and, or

A term that takes more than a few operations is computed here, for all positions, and read by the kernel
from ``t``. Every number of the mask (lengths, window sizes, extents, the head's share) is read from ``constants``.
So the text depends on the shape of the pattern alone: one compiled kernel serves every length, every
window and every head. Sums and junctions are written in an order that does not depend on numbers either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from attndsl import ir
from attndsl.codegen.magnitudes import Domain
from attndsl.codegen.writing import OpenTerms, OverBudget, Terms, Written, write

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

# Operations a pair. Reading a bit of a mask takes about four, an eighth of a byte from memory, and fewer
# registers than the terms of a dear predicate: those are what spills first.
MOST_PAIR_OPERATIONS: Final = 6
MOST_OPEN_OPERATIONS: Final = 16  # where stored masks would take reading the inputs to the host
_MOST_PAIR_NODES: Final = 500  # of a relation; operations are not counted where there are more


@dataclass(frozen=True, slots=True, eq=False)
class Predicate:
    """The functions, and what they read."""

    text: str
    constants: Array  # int64 [plans, n]
    tables: Array  # int32 or int64: terms by position; constants say where they begin
    pair_operations: int


def predicate(
    roots: Sequence[ir.Node], tables: Mapping[str, Any], queries: range, keys: range
) -> Predicate:
    """Device functions that serve all ``roots``, one for each plan of a schedule.

    Args:
        roots: Bound and separated: no sizes, no head, no quantifier is left.
        tables: The arrays they read.
        queries: Positions of the queries; they start below 0 when there are more queries than keys.
        keys: Positions of the keys.

    Raises:
        TooDear: masks are the better way: more work for each pair than reading a bit, a quantifier that
            is left, or heads whose patterns have different shapes.
    """
    terms = Terms()
    domain = Domain(queries, keys, tables)
    written = _written([(root, domain, terms) for root in roots], MOST_PAIR_OPERATIONS)
    constants = np.array([one.constants for one in written], dtype=np.int64)
    return Predicate(written[0].text, constants, terms.joined(), written[0].pair_operations)


@dataclass(frozen=True, slots=True, eq=False)
class OpenPredicate:
    """The functions of a mask whose tables are not known yet, and what there is to fill in for each root.

    Terms of a root lie in one row of ``terms[root].size`` numbers, a row a plan, one behind the other; after the last
    row are ``WIDEST_TILE`` more.
    """

    text: str
    constants: Array  # int64 [roots, n], for rows that begin at 0
    starts: tuple[int, ...]  # which constants say where a term begins
    unknown: tuple[
        tuple[tuple[int, ir.Node], ...], ...
    ]  # of each root: which constants the tables decide
    terms: tuple[OpenTerms, ...]  # of each root
    is_short: bool  # whether 32 bits are enough for the terms


def open_predicate(
    roots: Sequence[ir.Node],
    bounds: Mapping[str, tuple[int, int]],
    tables: Mapping[str, Any],
    queries: range,
    keys: range,
) -> OpenPredicate:
    """Like ``predicate``, for tables of which the bounds of their values are known.

    Raises:
        OverBudget: as ``predicate``.
    """
    domain = Domain(queries, keys, tables, bounds)
    terms = tuple(OpenTerms() for _ in roots)
    asked = [(root, domain, own) for root, own in zip(roots, terms, strict=True)]
    written = _written(asked, MOST_OPEN_OPERATIONS)
    constants = np.array([one.constants for one in written], dtype=np.int64)
    unknown = tuple(one.unknown for one in written)
    is_short = "tl.int64" not in written[0].text
    return OpenPredicate(written[0].text, constants, written[0].starts, unknown, terms, is_short)


def _written(
    asked: Sequence[tuple[ir.Node, Domain, Terms | OpenTerms]], most: int
) -> list[Written]:
    """The roots, written alike.

    Raises:
        OverBudget: they differ, there is none, or one takes too many operations.
    """
    for root, _, _ in asked:
        of_pairs = sum(node.is_pair for node in ir.postorder(root))
        if of_pairs > _MOST_PAIR_NODES:
            raise OverBudget(f"the pattern has {of_pairs} parts that depend on the pair")
    written = [write(root, domain, terms) for root, domain, terms in asked]
    if len({one.text for one in written}) > 1:
        raise OverBudget("heads or batch elements have patterns of different shapes")
    if not written:
        raise OverBudget("there is nothing to compute")
    operations = written[0].pair_operations
    if operations > most:
        raise OverBudget(f"to evaluate the pattern takes {operations} operations a pair")
    return written


def choice(roots: Sequence[ir.Node], tables: Mapping[str, Any], queries: range, keys: range) -> str:
    """How kernels decide the pairs of PARTIAL tiles, in words; arguments as for ``predicate``."""
    try:
        made = predicate(roots, tables, queries, keys)
    except OverBudget as reason:
        return f"kernels read masks, a bit a pair: {reason}"
    count = made.pair_operations
    return f"kernels evaluate the pattern: {count} operation{'s' * (count != 1)} a pair"
