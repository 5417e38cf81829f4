"""Inputs of the pattern `tree`, from the parent of each token."""

from __future__ import annotations

from typing import Any

import numpy as np

from attndsl.inputs import input_error, read


def subtrees(parents: Any) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
    """Numbers the nodes of trees so that a subtree is one run: the inputs of the pattern ``tree``.

    Args:
        parents: int [nodes] or [batch, nodes], the parent of each node, negative for none. In any order; several
            nodes may have none.

    Returns:
        ``order`` and ``end``, int64 [batch, nodes]: the place of each node in preorder, siblings by number, and the
        place behind the last node of its subtree. Node ``k`` is an ancestor of ``q``, or ``q`` itself, where
        ``order[k] <= order[q] < end[k]``.

    Raises:
        AttnDslError: A501, parents that are no such numbers, or that go in a circle.
    """
    array = np.atleast_2d(read("parents", parents))
    if array.ndim != 2 or (array.size and array.dtype.kind not in "ui"):
        raise input_error(
            f"parents are integers, [nodes] or [batch, nodes], got {list(array.shape)}"
        )
    both = [_numbered(row.tolist(), batch) for batch, row in enumerate(array)]
    found = np.array(both, dtype=np.int64).reshape(len(array), 2, array.shape[1])
    return {"order": found[:, 0], "end": found[:, 1]}


def _numbered(parents: list[int], batch: int) -> tuple[list[int], list[int]]:
    children: list[list[int]] = [[] for _ in parents]
    roots: list[int] = []
    for node, parent in enumerate(parents):
        if parent >= len(parents):
            where = f"batch element {batch}: node {node} has parent {parent}"
            raise input_error(
                f"a parent is one of {len(parents)} nodes, or negative for none", where
            )
        (roots if parent < 0 else children[parent]).append(node)
    preorder, waiting = list[int](), roots[::-1]
    while waiting:
        preorder.append(waiting.pop())
        waiting += children[preorder[-1]][::-1]
    order, size = [-1] * len(parents), [1] * len(parents)
    for place, node in enumerate(preorder):
        order[node] = place
    if len(preorder) < len(parents):
        raise input_error(
            "parents go in a circle", f"batch element {batch}: {_circle(parents, order)}"
        )
    for node in reversed(preorder):
        if parents[node] >= 0:
            size[parents[node]] += size[node]
    return order, [place + count for place, count in zip(order, size, strict=True)]


def _circle(parents: list[int], order: list[int]) -> str:
    """Follows the parents of a node that no root leads to, until one comes again."""
    node, seen = order.index(-1), dict[int, None]()
    while node not in seen:
        seen[node] = None
        node = parents[node]
    path = [*list(seen)[list(seen).index(node) :], node]
    shown = [str(each) for each in path]
    return " -> ".join(shown if len(shown) <= 8 else [*shown[:6], "...", shown[-1]])
