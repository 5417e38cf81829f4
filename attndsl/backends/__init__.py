"""Floor 5: schedules and tensors in, attention out.

``blocked`` on CPUs, ``triton`` on GPUs, ``reference`` as the oracle.
"""

from __future__ import annotations

from attndsl.backends import requirements  # noqa: F401 - first: it looks at the version of torch
from attndsl.backends.block_masks import (
    BlockMask,
    MaskMod,
    block_mask,
    has_loops,
    mask_function,
    pair_of,
    stored_function,
)
from attndsl.backends.blocked import Blocked, best_tile
from attndsl.backends.column_values import query_values
from attndsl.backends.composed import Composed
from attndsl.backends.denominators import joined, with_mass
from attndsl.backends.dense import Dense, attend
from attndsl.backends.dense_scores import DensePart, attend_scored
from attndsl.backends.dtypes import EIGHT_BITS, lse_dtype, out_dtype
from attndsl.backends.executable import Executable
from attndsl.backends.on_device import OnDevice
from attndsl.backends.packed import PackedComposed, PackedKernels, Side
from attndsl.backends.pages import PagedRows, Pages
from attndsl.backends.plain_scores import PlainScores
from attndsl.backends.protocol import (
    Backend,
    ForwardKernels,
    Kernels,
    OpenKernels,
    ReadsOnlySeen,
    Request,
    TakesKeySets,
    TakesLists,
    TakesOpenMasks,
    TakesPairs,
    TakesWhole,
    Tile,
    is_scheduled_on,
)
from attndsl.backends.scores import (
    BoundScore,
    BreaksSticks,
    ScoredExecutable,
    ScoredKernels,
    TakesScores,
    TakesWholeScores,
)
from attndsl.backends.selection import OTHERS, WHOLE, choose, names, unit_chooser
from attndsl.backends.timing import (
    REFERENCE,
    Machine,
    Times,
    predict,
    predict_dense,
    this_machine,
    tile_costs_of,
)
from attndsl.backends.tuning import Tunable, Tuned, edition
from attndsl.backends.whole_strips import WholeStrips

__all__ = [
    "EIGHT_BITS",
    "OTHERS",
    "REFERENCE",
    "WHOLE",
    "Backend",
    "BlockMask",
    "Blocked",
    "BoundScore",
    "BreaksSticks",
    "Composed",
    "Dense",
    "DensePart",
    "Executable",
    "ForwardKernels",
    "Kernels",
    "Machine",
    "MaskMod",
    "OnDevice",
    "OpenKernels",
    "PackedComposed",
    "PackedKernels",
    "PagedRows",
    "Pages",
    "PlainScores",
    "ReadsOnlySeen",
    "Request",
    "ScoredExecutable",
    "ScoredKernels",
    "Side",
    "TakesKeySets",
    "TakesLists",
    "TakesWhole",
    "TakesWholeScores",
    "WholeStrips",
    "TakesOpenMasks",
    "TakesPairs",
    "TakesScores",
    "Tile",
    "Times",
    "Tunable",
    "Tuned",
    "attend",
    "attend_scored",
    "best_tile",
    "block_mask",
    "choose",
    "edition",
    "has_loops",
    "is_scheduled_on",
    "joined",
    "lse_dtype",
    "mask_function",
    "names",
    "out_dtype",
    "pair_of",
    "predict",
    "predict_dense",
    "query_values",
    "stored_function",
    "this_machine",
    "tile_costs_of",
    "unit_chooser",
    "with_mass",
]
