"""Functions of which autograd is told nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def undifferentiated(function: Callable[P, T]) -> Callable[P, T]:
    """The function, under ``torch.no_grad`` where that is not so already: to enter it takes a dozen calls."""
    guarded = torch.no_grad()(function)

    @functools.wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> T:
        return (guarded if torch.is_grad_enabled() else function)(*args, **options)

    return run
