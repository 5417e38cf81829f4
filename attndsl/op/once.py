"""Derivatives that are not differentiated again, and say so wherever the graph leads.

A mark of torch, ``once_differentiable``, is seen only by those that go through its results; asked for the gradients of
given inputs, autograd leaves out what does not reach them, and a second derivative would lack a part in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from attndsl.source import AttnDslError, Diagnostic


class _Once(torch.autograd.Function):
    """A function of tensors, which is computed by the one that stands before them."""

    @staticmethod
    def forward(compute: Callable[[], tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
        del tensors
        return compute()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        del ctx, inputs, output

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        del ctx, grads
        title = "attentions have no second derivatives on this back end"
        raise AttnDslError(Diagnostic("A520", title, helps=('backend="reference" has',)))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        raise unmapped()


def once(
    compute: Callable[[], tuple[Tensor, ...]], tensors: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """Runs ``compute``, whose results depend on ``tensors``; a derivative of them is refused (A520)."""
    found: tuple[Tensor, ...] = _Once.apply(compute, *(x for x in tensors if x is not None))  # type: ignore[no-untyped-call]
    return found


def unmapped() -> AttnDslError:
    """The refusal of ``vmap``."""
    title = "vmap does not go through attentions"
    helps = ("put the mapped dim into the batch", 'or ask for backend="reference"')
    return AttnDslError(Diagnostic("A520", title, helps=helps))


def undirected() -> AttnDslError:
    """The refusal of forward-mode derivatives."""
    title = "attentions have no forward-mode derivatives on this back end"
    return AttnDslError(Diagnostic("A520", title, helps=('backend="reference" has',)))
