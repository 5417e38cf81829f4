"""Launches that are repeated: the compiled kernel is looked up once, later only pointers are new."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

_ALIGNMENT: Final = 16  # bytes; whether a pointer is a multiple is compiled in
# AMD's compiler also looks at how large the storage behind a pointer is.
_REPEATS: Final = torch.version.hip is None


class Launch:
    """A kernel over a grid, with all that it is given after its tensors.

    Triton looks a compiled kernel up by the type, the alignment and the divisors of each argument: for sixty
    of them that takes longer than a short kernel runs. Here all but the pointers of the tensors, and numbers that
    no kernel is compiled for, stay the same, so the kernel that was found for aligned ones serves all that are.
    Of one device, dtypes and strides: whoever keeps it sees to that.
    """

    def __init__(
        self,
        kernel: Any,
        grid: Sequence[int],
        given: Sequence[Any],
        constants: Sequence[Any],
        **options: int,
    ) -> None:
        """``given`` follows the tensors; numbers of a call come next, and ``constants`` last."""
        self._kernel, self._options = kernel, options
        self._grid = (*grid, 1, 1)[:3]
        self._given, self._constants = tuple(given), tuple(constants)
        self._pointers = tuple(x.data_ptr() if isinstance(x, Tensor) else x for x in given)
        self._compiled: Any = None

    def __call__(self, tensors: Sequence[Tensor | None], *numbers: float) -> None:
        """Run it on the current stream."""
        numbers = tuple(map(float, numbers))  # of an integer its value would be compiled in
        pointers = [None if x is None else x.data_ptr() for x in tensors]
        aligned = not functools.reduce(operator.or_, filter(None, pointers), 0) % _ALIGNMENT
        if aligned and self._compiled is not None:
            self._compiled[self._grid](*pointers, *self._pointers, *numbers, *self._constants)
            return
        launch = self._kernel[self._grid]
        made = launch(*tensors, *self._given, *numbers, *self._constants, **self._options)
        if aligned and _REPEATS:
            self._compiled = made  # None, where kernels are interpreted
