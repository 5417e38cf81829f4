"""Numbers past 64 bits: the meaning has them right, and whatever computes in 64 bits is refused alike."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

import attndsl
from attndsl import ir

N = 24
T = [(1 << 63) - 1, -(1 << 63), 0, 5, *range(20)]
POWER = "q" + " * q" * 12


def read(i: int) -> int:
    return T[i] if 0 <= i < N else 0


PATTERNS: dict[str, Callable[[int, int], bool]] = {
    f"{POWER} <= k": lambda q, k: q**13 <= k,
    f"{POWER} % 7 == k % 7": lambda q, k: q**13 % 7 == k % 7,
    f"ilog2({POWER}) >= 2 * k": lambda q, k: (q**13).bit_length() - 1 >= 2 * k,
    f"max({POWER}, k) // 100 < {POWER}": lambda q, k: max(q**13, k) // 100 < q**13,
    f"abs(k - {POWER}) <= 3": lambda q, k: abs(k - q**13) <= 3,
    f"t[{POWER} - 1] == t[k]": lambda q, k: read(q**13 - 1) == T[k],
    "t[q] - t[k] <= 0": lambda q, k: T[q] - T[k] <= 0,
    "t[q] + 1 > t[k]": lambda q, k: T[q] + 1 > T[k],
    "abs(t[q]) >= t[k]": lambda q, k: abs(T[q]) >= T[k],
    "any j in 0..3: t[q] + j == t[k] + 1": lambda q, k: T[k] + 1 - T[q] in range(3),
    "(if q < 9 then pow2(40) else 1) * (if k < 9 then pow2(41) else 2) > 2 * pow2(40)":
        lambda q, k: (2**40 if q < 9 else 1) * (2**41 if k < 9 else 2) > 2**41,
}  # fmt: skip


@pytest.mark.parametrize("text", PATTERNS)
def test_the_meaning_does_not_wrap(text: str):
    mask = attndsl.compile(f"input t: int[pos]\npattern p = {text}").ir
    tables = {"t": np.array(T)} if mask.tables else {}
    found = ir.meaning(mask, N, N, ir.resolve_sizes(mask, N, N), tables)
    wanted = [[PATTERNS[text](q, k) for k in range(N)] for q in range(N)]
    assert np.array_equal(found[0, 0], wanted)


def test_narrow_tables_do_not_wrap():
    mask = attndsl.compile("input t: int[pos]\npattern p = 100 * t[q] <= k").ir
    narrow = {"t": np.full(4, 2, dtype=np.int8)}
    assert not ir.meaning(mask, 4, 4, {"q": 4, "k": 4}, narrow).any()


@pytest.mark.parametrize("text", [f"{POWER} <= k", "t[q] - t[k] <= 0"])
def test_calls_of_every_kind_are_refused(text: str):
    p = attndsl.compile(f"input t: int[pos]\npattern p = {text}")
    x = torch.zeros(1, 1, 100, 8)
    inputs = {"t": torch.tensor(T + [0] * (100 - N))} if p.ir.tables else {}
    calls = [
        lambda: p.mask(100, **inputs),
        lambda: p.schedule(100, **inputs),
        lambda: p(x, x, x, backend="reference", **inputs),
        lambda: p(x, x, x, backend="blocked", **inputs),
    ]
    for call in calls:
        with pytest.raises(attndsl.AttnDslError, match="A403"):
            call()
