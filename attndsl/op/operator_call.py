"""Arguments and results of the operator: a call in a form that torch can take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from attndsl.op.planning import Options, Planner, ProgramName, planner_from


class Call(NamedTuple):
    """A call but for its tensors, as the operators take it."""

    name: ProgramName
    options: Options

    @property
    def planner(self) -> Planner:
        """The planner of its program."""
        return planner_from(self.name)

    @staticmethod
    def of(program: str, digest: int, *options: Any) -> Call:
        """From these arguments."""
        names, axes, extents, *rest = options
        named = split_names(names), split_names(axes), tuple(extents)
        return Call(ProgramName(program, digest), Options(*named, *rest))


def flat(call: Call) -> tuple[Any, ...]:
    """The last arguments of both operators."""
    # by index: dynamo of torch 2.9 takes no fields of tuples within a tuple
    name, options = call[0], call[1]
    names, axes, extents = options[0], options[1], options[2]
    return name[0], name[1], ",".join(names), ",".join(axes), list(extents), *options[3:]


class Known(NamedTuple):
    """Results of the forward that a derivative is given."""

    out: Tensor
    lse: Tensor
    stamp: Tensor


def split_names(names: str) -> tuple[str, ...]:
    """The names of a text, which stand apart by commas."""
    return tuple(names.split(",")) if names else ()


class Kernels(NamedTuple):
    """Functions behind an operator, as ``attndsl.operators`` registers them."""

    compute: Callable[..., Any]
    fake: Callable[..., Any]
    autograd: Callable[..., Any]
    vmap: Callable[..., Any]
    legacy_vmap: Callable[..., Any]
    flops: Callable[..., int]
