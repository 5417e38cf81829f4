"""Floor 5: schedules and tensors in, attention out.

``blocked`` on CPUs, ``triton`` on GPUs, ``reference`` as the oracle.
"""

from __future__ import annotations

from attndsl.backends import requirements  # noqa: F401 - first: it looks at the version of torch
from attndsl.backends.blocked import Blocked, best_tile
from attndsl.backends.composed import Composed
from attndsl.backends.dense import Dense, attend
from attndsl.backends.merging import backward_parts, forward_parts
from attndsl.backends.protocol import EIGHT_BITS, Backend, Request, lse_dtype, out_dtype
from attndsl.backends.selection import choose, names
from attndsl.backends.timing import (
    REFERENCE,
    Machine,
    Times,
    predict,
    predict_dense,
    this_machine,
    tile_costs_of,
)
from attndsl.backends.tuning import Tunable, Tuned
from attndsl.backends.work import Work

__all__ = [
    "EIGHT_BITS",
    "REFERENCE",
    "Backend",
    "Blocked",
    "Composed",
    "Dense",
    "Machine",
    "Request",
    "Times",
    "Tunable",
    "Tuned",
    "Work",
    "attend",
    "backward_parts",
    "best_tile",
    "choose",
    "forward_parts",
    "lse_dtype",
    "names",
    "out_dtype",
    "predict",
    "predict_dense",
    "tile_costs_of",
    "this_machine",
]
