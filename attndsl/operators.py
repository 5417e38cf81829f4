"""The operators as torch knows them, declared without what computes them, which is imported when they first run.

A program that torch.export saved names its operators: they must be there when it is loaded, and ``import attndsl``
alone makes them so. Nothing here costs more than milliseconds once torch is imported.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, Final

import torch

from attndsl.importing import after_import

# ``digest`` names a program that this process holds, 0 where ``program`` is its text. Names stand apart by commas:
# torch.jit.trace takes no lists of texts.
_CALL: Final = (
    "str program, SymInt digest, str names, str axes, SymInt[] extents, "
    "str layout, str backend, float scale"
)
_SCORED_CALL: Final = (
    "str attention, int layer, float dropout, str names, str axes, SymInt[] extents, "
    "str layout, str backend, float scale"
)
_SCORED: Final = {
    "scored": f"(Tensor[] xs, {_SCORED_CALL}) -> (Tensor, Tensor)",
    "scored_derivative": (
        "(Tensor[] xs, Tensor[] known, Tensor[] cotangents, bool[] given, bool[] wanted, "
        f"{_SCORED_CALL}) -> Tensor[]"
    ),
}
_CHOICES: Final = {
    "choose": "(Tensor q, Tensor k, Tensor[] inputs, str names, SymInt digest, float scale) -> Tensor[]",
}
_SCHEMAS: Final = {
    "attention": f"(Tensor q, Tensor k, Tensor v, Tensor[] tables, {_CALL}) -> (Tensor, Tensor, Tensor)",
    "attention_derivative": (
        "(Tensor[] xs, Tensor out, Tensor lse, Tensor stamp, Tensor[] tables, str rule, "
        f"{_CALL}) -> Tensor[]"
    ),
}


def _kernel(operator: str, part: str) -> Callable[..., Any]:
    """The part of that name of the operator's kernels in ``attndsl.op``, imported when it is first called."""
    kernels = "SCORED_KERNELS" if operator in _SCORED else "KERNELS"
    kernels = "CHOICE_KERNELS" if operator in _CHOICES else kernels

    def run(*args: Any, **options: Any) -> Any:
        function = getattr(getattr(importlib.import_module("attndsl.op"), kernels)[operator], part)
        # no argument is optional: None is what AOTInductor makes of an empty list
        return function(*([] if arg is None else arg for arg in args), **options)

    return run


def _declared() -> Any:
    """The library that makes the operators: they are there as long as it lives.

    ``torch.library.custom_op`` would do for less, but its first call imports all of torch._dynamo: two seconds.
    """
    library: Any = torch.library.Library("attndsl", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name, schema in _SCHEMAS.items():
        library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        library.impl(name, _kernel(name, "compute"), "CompositeExplicitAutograd")
        library.impl(name, _kernel(name, "autograd"), "Autograd", with_keyset=True)
        library.impl(name, _kernel(name, "legacy_vmap"), "Batched")
        torch.library.register_fake(f"attndsl::{name}", _kernel(name, "fake"), lib=library)
        torch.library.register_vmap(f"attndsl::{name}", _kernel(name, "vmap"), lib=library)
    for name, schema in _CHOICES.items():
        library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        library.impl(name, _kernel(name, "compute"), "CompositeExplicitAutograd")
        torch.library.register_fake(f"attndsl::{name}", _kernel(name, "fake"), lib=library)
    for name, schema in _SCORED.items():
        library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        library.impl(name, _kernel(name, "compute"), "CompositeExplicitAutograd")
        torch.library.register_fake(f"attndsl::{name}", _kernel(name, "fake"), lib=library)
        torch.library.register_autograd(
            f"attndsl::{name}",
            _kernel(name, "backward"),
            setup_context=_kernel(name, "setup"),
            lib=library,
        )
    return library


def _count_flops() -> None:
    register = sys.modules["torch.utils.flop_counter"].register_flop_formula
    for name in _SCHEMAS:
        register(getattr(torch.ops.attndsl, name), get_raw=True)(_kernel(name, "flops"))


_LIBRARY: Final = _declared()
after_import("torch.utils.flop_counter", _count_flops)
