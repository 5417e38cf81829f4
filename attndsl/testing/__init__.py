"""Floor 9: for tests, ours and yours: generated programs and calls, and a judge of kernels.

The only room that imports hypothesis, and only for what draws: ``assert_matches_dense`` works without.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from attndsl.testing.kernels import assert_matches_dense
from attndsl.verification import Case

if TYPE_CHECKING:
    from attndsl.testing.calls import cases, inputs, tensors
    from attndsl.testing.sampling import Program, programs

__all__ = [
    "Case", "Program", "assert_matches_dense", "cases", "inputs", "programs", "tensors",
]  # fmt: skip

_HOMES = {
    "Program": "sampling",
    "cases": "calls",
    "inputs": "calls",
    "programs": "sampling",
    "tensors": "calls",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"attndsl.testing.{_HOMES[name]}")
    globals()[name] = found = getattr(home, name)
    return found
