"""Operators, and when a call need not be one: the dispatcher takes longer than a short kernel runs."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")

_PLAIN: Final = frozenset({Tensor, torch.nn.Parameter})


def operator(name: str, function: Callable[..., Any]) -> Any:
    """Make a function an operator, ``torch.ops.attndsl.<name>``.

    ``torch.library.custom_op`` would do, but that its first call imports all of torch._dynamo: two seconds.
    """
    schema = torch.library.infer_schema(function, mutates_args=())
    full_name = f"attndsl::{name}"
    torch.library.define(full_name, schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(full_name, "default", function)
    return getattr(torch.ops.attndsl, name).default


def eager_only(function: Callable[P, T]) -> Callable[P, T]:
    """The function, with dynamo, where somebody has loaded it, told to look away."""

    @functools.cache
    def quiet(dynamo: Any) -> Callable[P, T]:
        return dynamo.disable(function)  # type: ignore[no-any-return]

    @functools.wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> T:
        dynamo = sys.modules.get("torch._dynamo")
        chosen = function if dynamo is None else quiet(dynamo)
        return chosen(*args, **options)

    return run


def needs_dispatcher(*tensors: Tensor) -> bool:
    """Whether anything follows operators as they are called: a tracer, a mode, a transform, a profiler, a subclass."""
    return (
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._is_torch_function_mode_enabled()
        or torch._C._are_functorch_transforms_active()
        or any(type(x) not in _PLAIN or x.is_meta for x in tensors)
    )
