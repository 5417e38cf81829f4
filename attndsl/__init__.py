"""attndsl: a compiler for attention patterns.

Everything public is a name of this package. Names load on first use (PEP 562): ``import attndsl``
costs nothing, and the language, the schedules and the pictures work without importing torch. Whoever imports
torch, before or after, finds the operators declared: a saved program may call them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from attndsl.importing import after_import

if TYPE_CHECKING:
    from attndsl import flex, library, nn, patterns, reals, selections
    from attndsl.attentions import Attention
    from attndsl.chosen_tables import Selected
    from attndsl.compiled import Pattern
    from attndsl.compiling import attention, compile  # noqa: A004 - the public name
    from attndsl.conversion import from_block_mask, from_intervals, from_mask, from_mask_mod
    from attndsl.frontend import (
        all_,
        any_,
        batch,
        clamp,
        count_,
        grid,
        head,
        heads,
        ilog2,
        k,
        layer,
        length,
        maximum,
        minimum,
        pattern,
        pow2,
        q,
        space,
        sum_,
        table,
        where,
    )
    from attndsl.op import merge
    from attndsl.ragged import varlen
    from attndsl.selected import KeySummaries
    from attndsl.source import AttnDslError
    from attndsl.tree_inputs import subtrees
    from attndsl.verification import equivalent, implies, verify

__version__ = "0.1.0"

_PYTHON_FORM = (
    "all_", "any_", "batch", "clamp", "count_", "grid", "head", "heads", "ilog2", "k", "layer", "length",
    "maximum", "minimum", "pattern", "pow2", "q", "space", "sum_", "table", "where",
)  # fmt: skip

# public name -> "module:attribute", or "module" where the name is a whole module. To add a name: a
# line here, one in `__all__`, and the import under TYPE_CHECKING that lets type checkers see it.
_HOMES = {
    "Attention": "attndsl.attentions:Attention",
    "attention": "attndsl.compiling:attention",
    "reals": "attndsl.reals",
    "selections": "attndsl.selections",
    "AttnDslError": "attndsl.source:AttnDslError",
    "Pattern": "attndsl.compiled:Pattern",
    "KeySummaries": "attndsl.selected:KeySummaries",
    "Selected": "attndsl.chosen_tables:Selected",
    "compile": "attndsl.compiling:compile",
    "flex": "attndsl.flex",
    **{
        name: f"attndsl.conversion:{name}"
        for name in ("from_block_mask", "from_intervals", "from_mask", "from_mask_mod")
    },
    "library": "attndsl.library",
    "nn": "attndsl.nn",
    "patterns": "attndsl.patterns",
    "merge": "attndsl.op:merge",
    "subtrees": "attndsl.tree_inputs:subtrees",
    "varlen": "attndsl.ragged:varlen",
    "equivalent": "attndsl.verification:equivalent",
    "implies": "attndsl.verification:implies",
    "verify": "attndsl.verification:verify",
    **{name: f"attndsl.frontend:{name}" for name in _PYTHON_FORM},
}

__all__ = [
    "Attention", "AttnDslError", "KeySummaries", "Pattern", "Selected", "__version__", "all_", "any_", "attention",
    "batch", "clamp", "compile", "count_", "equivalent", "flex", "from_block_mask", "from_intervals", "from_mask",
    "from_mask_mod", "grid", "head", "heads", "ilog2", "implies", "k", "layer", "length", "library",
    "maximum", "merge", "minimum", "nn", "pattern", "patterns", "pow2", "q", "reals", "selections", "space", "subtrees",
    "sum_", "table", "varlen", "verify", "where",
]  # fmt: skip


after_import("torch", lambda: importlib.import_module("attndsl.operators"))


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = importlib.import_module(module)
    globals()[name] = found = getattr(value, attribute) if attribute else value
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
