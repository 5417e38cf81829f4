"""Functions of real numbers that generated scores call, as the text of Triton functions."""

from __future__ import annotations

from typing import Final

HELPERS: Final = {
    "tanh": '''\
@triton.jit
def tanh(x):
    """By its series near 0, where the quotient would lose digits."""
    e = tl.exp(-2.0 * tl.abs(x))
    far = tl.where(x < 0, -1.0, 1.0) * (1.0 - e) / (1.0 + e)
    square = x * x
    near = x * (1.0 + square * (-0.33333334 + square * (0.13333334 - square * 0.053968254)))
    return tl.where(square < 0.01, near, far)''',
    "sigmoid": """\
@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))""",
    "softplus": '''\
@triton.jit
def softplus(x):
    """log(1 + exp(x)); log1p by what 1 + e rounds to."""
    e = tl.exp(-tl.abs(x))
    one = 1.0 + e
    tail = tl.where(one == 1.0, e, tl.log(one) * (e / tl.where(one == 1.0, 1.0, one - 1.0)))
    return tl.where(x > 0, x, 0.0) + tl.where(x == x, tail, x)''',
    "drawn": '''\
@triton.jit
def drawn(x, least):
    """1 where the number drawn for x is at least that, else 0."""
    x = x.to(tl.int32) * 0x7FEB352D
    x = (x ^ (x >> 15)) * -0x7B935975
    return tl.where((x & 0x7FFFFFFF) >= least, 1.0, 0.0)''',
    "floor_quotient": '''\
@triton.jit
def floor_quotient(a, b):
    """Floored, and 0 where the divisor is not positive; Triton's own is cut off towards 0."""
    by = tl.where(b > 0, b, 1)
    return tl.where(b > 0, a // by - tl.where(a % by < 0, 1, 0), 0)''',
    "floor_remainder": '''\
@triton.jit
def floor_remainder(a, b):
    """Never negative, and 0 where the divisor is not positive."""
    by = tl.where(b > 0, b, 1)
    return tl.where(b > 0, a % by + tl.where(a % by < 0, by, 0), 0)''',
}


FUNCTIONS: Final = {
    "exp": "tl.exp({})",
    "exp2": "tl.exp2({})",
    "log": "tl.log({})",
    "sqrt": "tl.sqrt_rn({})",
    "abs": "tl.abs({})",
    "relu": "tl.where({0} < 0, 0.0, {0})",
    "sign": "(tl.where({0} > 0, 1.0, 0.0) - tl.where({0} < 0, 1.0, 0.0))",
    "step": "tl.where({} > 0, 1.0, 0.0)",
}  # those of the helpers are called
