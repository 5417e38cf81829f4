"""Rules of what is computed from which tensors: attention itself, or a derivative of it to any order.

A rule maps tensors to tensors, and its derivatives are rules. A first derivative is taken by the back end, any other
of ``backends.Composed``. All tensors of a rule begin with the batch dim.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
from torch import Tensor

from attndsl.backends import Composed, PackedComposed

Tensors: TypeAlias = tuple[Tensor, ...]
Function: TypeAlias = Callable[..., Tensors]


@dataclass(frozen=True, slots=True)
class Forward:
    """(q, k, v) -> (out, lse)."""

    inputs = 3
    text: str = ""

    def of(self, composed: Composed | PackedComposed) -> Function:
        """The function, of the call that ``composed`` is."""
        return composed.outputs

    def like(self, xs: Sequence[Tensor], known: Sequence[Tensor]) -> Sequence[Tensor]:
        """Tensors of the shapes and dtypes of the results; ``known``: out and lse of the forward."""
        del xs
        return known


@dataclass(frozen=True, slots=True)
class Vjp:
    """(inputs of a rule, cotangents of its outputs, those that are ``given``) -> cotangents of the inputs."""

    rule: Rule
    given: tuple[bool, ...]

    @property
    def inputs(self) -> int:
        """How many tensors it takes."""
        return self.rule.inputs + sum(self.given)

    @property
    def text(self) -> str:
        """The text that ``read`` reads."""
        return _after(self.rule, "".join("1" if given else "0" for given in self.given))

    def of(self, composed: Composed | PackedComposed) -> Function:
        """Same as ``Forward.of``."""
        function, count = self.rule.of(composed), self.rule.inputs

        def outputs(*xs: Tensor) -> Tensors:
            return tuple(x for x, given in zip(function(*xs), self.given, strict=True) if given)

        return lambda *xs: torch.func.vjp(outputs, *xs[:count])[1](xs[count:])

    def like(self, xs: Sequence[Tensor], known: Sequence[Tensor]) -> Sequence[Tensor]:
        """Same as ``Forward.like``."""
        del known
        return xs[: self.rule.inputs]


@dataclass(frozen=True, slots=True)
class Jvp:
    """(inputs of a rule, their tangents) -> tangents of its outputs."""

    rule: Rule

    @property
    def inputs(self) -> int:
        """How many tensors it takes."""
        return 2 * self.rule.inputs

    @property
    def text(self) -> str:
        """The text that ``read`` reads."""
        return _after(self.rule, "jvp")

    def of(self, composed: Composed | PackedComposed) -> Function:
        """Same as ``Forward.of``.

        u -> uJ is linear, and its transpose is t -> Jt: beyond the first order no forward mode is needed, which torch
        does not nest.
        """
        if isinstance(self.rule, Forward):
            return composed.tangents
        function, count = self.rule.of(composed), self.rule.inputs

        def pushed(*xs: Tensor) -> Tensors:
            outputs, pull, *_ = torch.func.vjp(function, *xs[:count])
            zeros = tuple(map(torch.zeros_like, outputs))
            made: Tensors = torch.func.vjp(lambda *u: pull(u), *zeros)[1](xs[count:])
            return made

        return pushed

    def like(self, xs: Sequence[Tensor], known: Sequence[Tensor]) -> Sequence[Tensor]:
        """Same as ``Forward.like``."""
        return self.rule.like(xs[: self.rule.inputs], known)


Rule: TypeAlias = Forward | Vjp | Jvp
FORWARD: Final = Forward()


def _after(rule: Rule, item: str) -> str:
    return f"{rule.text},{item}" if rule.text else item


@functools.cache
def read(text: str) -> Rule:
    """The rule of that text: derivatives apart by commas, the innermost first."""
    rule: Rule = FORWARD
    for item in text.split(",") if text else ():
        rule = Jvp(rule) if item == "jvp" else Vjp(rule, tuple(flag == "1" for flag in item))
    return rule
