"""Launches that are repeated: the compiled kernel is looked up once, later only pointers are new."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar, get_type_hints

import torch
from torch import Tensor

from attndsl.backends.arguments import by_name

_ALIGNMENT: Final = 16  # bytes; whether a pointer is a multiple is compiled in
# AMD's compiler also looks at how large the storage behind a pointer is.
_REPEATS: Final = torch.version.hip is None

Call = TypeVar("Call", bound=NamedTuple)


class Launch(Generic[Call]):
    """A kernel over a grid, with all that it is given after the tensors of a call.

    Triton looks a compiled kernel up by the type, the alignment and the divisors of each argument: for sixty
    of them that takes longer than a short kernel runs. Here all but the pointers of the tensors, and numbers that
    no kernel is compiled for, stay the same, so the kernel that was found for aligned ones serves all that are.
    A launch serves one device and one set of dtypes and strides, which its owner guarantees.
    """

    def __init__(
        self, kernel: Any, grid: Sequence[int], call: type[Call], given: object, **options: int
    ) -> None:
        """``call`` is the type of what differs from call to call, ``given`` a dataclass of all that stays.

        Raises:
            TypeError: the two are not the parameters of the kernel, the first of them in its order.
        """
        self._kernel, self._options = kernel, options
        self._grid = (*grid, 1, 1)[:3]
        changing, named = call._fields, by_name(given)
        count, names = len(changing), tuple(kernel.arg_names)
        if names[:count] != changing or sorted(names[count:]) != sorted(named):
            odd = set(names) ^ {*changing, *named}
            raise TypeError(f"{kernel.__name__} takes other arguments, or in another order: {odd}")
        self._tensors = sum(hint is not float for hint in get_type_hints(call).values())
        self._given = tuple(named[name] for name in names[count:])
        self._pointers: tuple[Any, ...] = ()  # the same, tensors by their addresses
        self._compiled: Any = None

    def __call__(self, call: Call) -> None:
        """Run it on the current stream."""
        tensors, numbers = call[: self._tensors], call[self._tensors :]
        pointers = [None if x is None else x.data_ptr() for x in tensors]
        aligned = not functools.reduce(operator.or_, filter(None, pointers), 0) % _ALIGNMENT
        if aligned and self._compiled is not None:
            self._compiled[self._grid](*pointers, *numbers, *self._pointers)
            return
        made = self._kernel[self._grid](*call, *self._given, **self._options)
        if aligned and _REPEATS and made is not None:  # None, where kernels are interpreted
            self._pointers = tuple(
                x.data_ptr() if isinstance(x, Tensor) else x for x in self._given
            )
            self._compiled = made
