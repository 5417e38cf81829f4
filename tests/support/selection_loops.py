"""The meaning of selections in plain loops: float64 on float32 operands, each score rounded once."""

import math

import numpy as np


def blocks(size, every, length, whole=False):
    """[start, stop) of each block."""
    found = [(at, min(at + size, length)) for at in range(0, length, every)]
    return [(a, b) for a, b in found if b - a == size] if whole else found


def mean(x, start, stop):
    """The mean of rows, float32."""
    return (x[start:stop].astype(np.float64).sum(0) / (stop - start)).astype(np.float32)


def dot(a, b):
    """The inner product of float32 vectors, float64."""
    with np.errstate(invalid="ignore"):  # 0 * inf
        return float(np.dot(a.astype(np.float64), b.astype(np.float64)))


def softmax(values):
    """The softmax of {unit: value}, those of -inf at 0."""
    if not values:
        return {}
    most = max(values.values())
    if most == -math.inf:
        return dict.fromkeys(values, 0.0)
    exps = {unit: math.exp(value - most) for unit, value in values.items()}
    total = sum(exps.values())
    return {unit: value / total for unit, value in exps.items()}


def top(scores, n, forced=()):
    """The n units of the highest scores among {unit: score}, forced ones first, as a sorted list."""
    rounded = {unit: float(np.float32(score)) for unit, score in scores.items()}
    live = [
        u for u in rounded if u in forced or not (math.isnan(rounded[u]) or rounded[u] == -math.inf)
    ]
    order = sorted(
        live,
        key=lambda unit: (unit not in forced, -rounded[unit] if unit not in forced else 0, unit),
    )
    return sorted(order[:n])


def listed(row):
    """The units in a row of a table, whose empty slots stand behind them."""
    units = [int(unit) for unit in row if unit >= 0]
    assert list(row[: len(units)]) == units
    return units
