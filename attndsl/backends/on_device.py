"""The functions of torch for code that is given NumPy's or these: arrays are made on one device."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor


class OnDevice:
    """The functions of torch, which make arrays on one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def arange(self, start: int, stop: int) -> Tensor:
        """The numbers from the start up to the stop."""
        return torch.arange(start, stop, device=self._device)

    def asarray(self, value: Any) -> Tensor:
        """The value as a tensor; tuples, which are part of a pattern, are moved once."""
        if isinstance(value, Tensor):
            return value
        return _constant(value, self._device) if isinstance(value, tuple) else self._moved(value)

    def _moved(self, value: Any) -> Tensor:
        return torch.as_tensor(np.asarray(value), device=self._device)


@functools.lru_cache(maxsize=64)
def _constant(value: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(value, device=device)
