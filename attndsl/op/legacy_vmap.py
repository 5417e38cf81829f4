"""The vmap of torch before torch.func, which ``is_grads_batched`` and ``jacobian(vectorize=True)`` still take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

# True for a tensor with a dim that is hidden for the old vmap.
is_mapped: Final[Callable[[Any], bool]] = torch._C._functorch.is_legacy_batchedtensor


def one_by_one(operator: Callable[..., Any], *args: Any) -> Any:
    """Calls an operator on each element of all hidden dims of its tensors, and hides these dims in the results."""
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    leaves, tree = tree_flatten(args)
    return _each(lambda xs: operator(*tree_unflatten(xs, tree)), leaves, level)


def _each(call: Callable[[Sequence[Any]], Any], leaves: Sequence[Any], level: int) -> Any:
    if level == 0:
        return call(leaves)
    shown = {
        place: torch._remove_batch_dim(x, level, 1, 0)  # where it has none there, of size 1
        for place, x in enumerate(leaves)
        if isinstance(x, Tensor) and is_mapped(x)
    }
    count = max((x.shape[0] for x in shown.values()), default=1)
    results = []
    for i in range(count):
        taken = {place: x[i % x.shape[0]] for place, x in shown.items()}
        results.append(_each(call, [taken.get(p, x) for p, x in enumerate(leaves)], level - 1))
    if count == 1:
        return results[0]
    return tree_map(lambda *xs: torch._add_batch_dim(torch.stack(xs), 0, level), *results)
