"""Teach Triton's interpreter bfloat16: it keeps the numbers as 16-bit integers, and computes with them as such.

Here they are widened to float32, which holds each of them exactly, and results are rounded to the nearest, ties to
even, as GPUs do. Products of two are exact in float32, and sums of products are kept in it: that is what a tensor
core does, but for the order of the sum.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

Handle = interpreter.TensorHandle
Builder = interpreter.InterpreterBuilder


def widened(bits: np.ndarray) -> np.ndarray:
    """The float32 of the same values."""
    return (np.asarray(bits, np.uint16).astype(np.uint32) << 16).view(np.float32)


def rounded(values: np.ndarray) -> np.ndarray:
    """The nearest bfloat16, ties to even, as bits."""
    values = np.asarray(values, np.float32)
    bits = values.view(np.uint32)
    nearest = (bits.astype(np.uint64) + 0x7FFF + (bits >> 16 & 1)) >> 16  # 64 bits: none is lost
    return np.where(np.isnan(values), 0x7FC0, nearest).astype(np.uint16)


def _is_small(handle: Any) -> bool:
    return handle.dtype.scalar == tl.bfloat16


def _wide(handle: Any) -> Any:
    return Handle(widened(handle.data), tl.float32) if _is_small(handle) else handle


def _small(handle: Any) -> Any:
    """A result of float32 arithmetic on bfloat16; a truth value stays one."""
    is_truth = handle.data.dtype == bool
    return handle if is_truth else Handle(rounded(handle.data), tl.bfloat16)


def _arithmetic(plain: Callable[..., Any], operands: int) -> Callable[..., Any]:
    def computed(self: Any, *args: Any) -> Any:
        if not any(map(_is_small, args[:operands])):
            return plain(self, *args)
        assert all(map(_is_small, args[:operands])), "operands of one dtype"
        return _small(plain(self, *map(_wide, args[:operands]), *args[operands:]))

    return computed


def _cast(plain: Callable[..., Any]) -> Callable[..., Any]:
    def cast(self: Any, source: Any, kind: Any, *rest: Any) -> Any:
        if _is_small(source) == (kind.scalar == tl.bfloat16):
            return plain(self, source, kind, *rest)
        wide = _wide(source)
        target = kind if _is_small(source) else tl.float32
        if wide.dtype.scalar != target.scalar:
            wide = plain(self, wide, target, *rest)
        return wide if _is_small(source) else _small(wide)

    return cast


def _product(plain: Callable[..., Any]) -> Callable[..., Any]:
    def product(self: Any, left: Any, right: Any, *rest: Any) -> Any:
        return plain(self, _wide(left), _wide(right), *rest)

    return product


def _reduction(plain: Callable[..., Any]) -> Callable[..., Any]:
    def reduced(self: Any, given: Any) -> Any:
        assert all(item.dtype.scalar != tl.bfloat16 for item in given), "no kernel reduces bfloat16"
        return plain(self, given)

    return reduced


@contextlib.contextmanager
def taught() -> Iterator[None]:
    """Kernels that run within are computed with bfloat16 as the hardware has it."""
    changes = {
        (Builder, "binary_op"): _arithmetic(Builder.binary_op, 2),
        (Builder, "unary_op"): _arithmetic(Builder.unary_op, 1),
        (Builder, "create_fma"): _arithmetic(Builder.create_fma, 3),
        (Builder, "create_clampf"): _arithmetic(Builder.create_clampf, 3),
        (Builder, "create_idiv"): _arithmetic(Builder.create_idiv, 2),
        (Builder, "create_dot"): _product(Builder.create_dot),
        (Builder, "cast_impl"): _cast(Builder.cast_impl),
        (Builder, "create_fp_to_fp"): _cast(Builder.create_fp_to_fp),
        (interpreter.ReduceOps, "apply_impl"): _reduction(interpreter.ReduceOps.apply_impl),
    }
    with contextlib.ExitStack() as stack:
        for (owner, name), change in changes.items():
            stack.enter_context(mock.patch.object(owner, name, change))
        yield
