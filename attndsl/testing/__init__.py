"""Floor 9: for tests, ours and yours: generated programs and calls, a judge of kernels, a plugin for pytest.

The only room that imports hypothesis, and only for what draws: the judges of kernels work without.
Names load on first use: pytest reads the plugin in every run, also of those who never ask for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attndsl.testing.attention_sampling import AttentionProgram, attentions
    from attndsl.testing.calls import cases, inputs, tensors
    from attndsl.testing.kernels import assert_matches_dense, sweep
    from attndsl.testing.sampling import Program, programs
    from attndsl.verification import Case

__all__ = [
    "AttentionProgram", "Case", "Program", "assert_matches_dense", "attentions", "cases", "inputs",
    "programs", "sweep", "tensors",
]  # fmt: skip

_HOMES = {
    "AttentionProgram": "attention_sampling",
    "Case": "kernels",
    "Program": "sampling",
    "assert_matches_dense": "kernels",
    "attentions": "attention_sampling",
    "cases": "calls",
    "inputs": "calls",
    "programs": "sampling",
    "sweep": "kernels",
    "tensors": "calls",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"attndsl.testing.{_HOMES[name]}")
    globals()[name] = found = getattr(home, name)
    return found
