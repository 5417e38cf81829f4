"""The kernels, hand-written: which pairs exist reaches them as lists of tiles and a mask or predicate."""

from attndsl.backends.kernels.backward import backward_keys, backward_queries, prepare_backward
from attndsl.backends.kernels.choosing import choose_units
from attndsl.backends.kernels.forward import forward
from attndsl.backends.kernels.listed import (
    lists_backward,
    lists_forward,
    lists_merge,
    lists_sum_keys,
    lists_sum_queries,
)
from attndsl.backends.kernels.merging import merge_outputs, sum_chunks
from attndsl.backends.kernels.pairs import backward_pairs
from attndsl.backends.kernels.stick import (
    stick_backward_keys,
    stick_backward_queries,
    stick_forward,
)

__all__ = [
    "backward_keys",
    "backward_pairs",
    "backward_queries",
    "choose_units",
    "forward",
    "lists_backward",
    "lists_forward",
    "lists_merge",
    "lists_sum_keys",
    "lists_sum_queries",
    "merge_outputs",
    "prepare_backward",
    "stick_backward_keys",
    "stick_backward_queries",
    "stick_forward",
    "sum_chunks",
]
