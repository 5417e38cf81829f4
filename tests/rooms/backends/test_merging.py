"""Parts of a pattern, merged: the same as the whole, forward and backward."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from attndsl.backends import Blocked, Executable
from tests.rooms.backends.agreement import SCALE, assert_agrees, both
from tests.rooms.backends.cases import Case, cases
from tests.support.dense_schedule import DenseWork


def joined(parts: list[DenseWork], case: Case) -> Executable:
    """One call over all of them."""
    return Executable(tuple(part.lowered(Blocked(), case.q, case.k, case.v) for part in parts))


@given(case=cases(torch.float64), count=st.integers(1, 3), seed=st.integers(0, 99))
def test_disjoint_parts_agree_with_the_whole(case: Case, count: int, seed: int):
    owner = np.random.default_rng(seed).integers(0, count, case.masks.shape[2:])
    parts = [DenseWork(case.masks & (owner == n), case.tile) for n in range(count)]
    assert_agrees(both(joined(parts, case), case), case)


def test_a_key_that_is_not_finite_spoils_the_queries_that_see_it_in_any_part():
    case = Case(
        np.tril(np.ones((1, 1, 40, 40), bool)), (16, 16),
        *torch.randn(4, 1, 1, 40, 8, dtype=torch.float64), None,
    )  # fmt: skip
    spoilt = replace(case, k=case.k.clone())
    spoilt.k[0, 0, 30] = torch.nan
    near = np.abs(np.arange(40)[:, None] - np.arange(40)) < 4
    parts = [DenseWork(spoilt.masks & part, (16, 16)) for part in (near, ~near)]
    out, lse = joined(parts, spoilt).forward(spoilt.q, spoilt.k, spoilt.v, scale=SCALE)
    assert out[0, 0, :30].isfinite().all()
    assert lse[0, 0, :30].isfinite().all()
    assert out[0, 0, 30:].isnan().all()
