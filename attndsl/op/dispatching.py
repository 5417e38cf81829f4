"""When a call need not be an operator: the dispatcher takes longer than a short kernel runs."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, ParamSpec, TypeVar

import torch
from torch import Tensor

from attndsl.op.legacy_vmap import is_mapped

P = ParamSpec("P")
T = TypeVar("T")

PLAIN: Final = frozenset({Tensor, torch.nn.Parameter})


def eager_only(function: Callable[P, T]) -> Callable[P, T]:
    """The function, with dynamo, where somebody has loaded it, told to look away."""
    quiet: list[
        Callable[P, T]
    ] = []  # not a cache of functools, of which dynamo warns where it traces this

    @functools.wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> T:
        dynamo: Any = sys.modules.get("torch._dynamo")
        if dynamo is None:
            return function(*args, **options)
        if not quiet:
            quiet.append(dynamo.disable(function))
        return quiet[0](*args, **options)

    return run


def needs_dispatcher(*tensors: Tensor) -> bool:
    """Whether anything follows operators as they are called: a tracer, a mode, a transform, a profiler, a subclass."""
    return has_dispatch_hooks() or any(
        type(x) not in PLAIN or x.is_meta or is_mapped(x) for x in tensors
    )


def are_plain(*tensors: Any) -> bool:
    """Whether they are tensors of a CPU, and nothing else that they might be."""
    for x in tensors:  # no call for each: one of Python takes as long as all that is asked here
        if type(x) not in PLAIN or not x.is_cpu or x.layout is not torch.strided:
            return False
        if x.is_nested or is_mapped(x):
            return False
    return True


def has_dispatch_hooks() -> bool:
    """Whether a tracer, a mode, a transform or a profiler follows operators, whatever their tensors are."""
    compiler = torch.compiler
    return (
        # both of `is_compiling`, which asks TorchScript first: a step of decoding feels it
        compiler.is_dynamo_compiling()
        or compiler._is_compiling_flag
        or torch._C._is_tracing()
        or torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._is_torch_function_mode_enabled()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
    )


@contextlib.contextmanager
def outside_transforms() -> Iterator[None]:
    """For reading tensors that no transform concerns: within one, even ``numpy`` of a plain tensor is transformed."""
    if not torch._C._are_functorch_transforms_active():
        yield
        return
    with torch._functorch.pyfunctorch.temporarily_clear_interpreter_stack():
        yield


def unwrapped(x: Any) -> Any:
    """The tensor below the derivatives of ``torch.func``; not below vmap, where there is more than one."""
    functional = torch._C._functorch
    while isinstance(x, Tensor) and functional.is_gradtrackingtensor(x):
        x = functional.get_unwrapped(x)
    return x
