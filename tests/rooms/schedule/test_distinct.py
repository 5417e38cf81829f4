"""Equal rows are found whatever the hashes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attndsl.schedule import distinct


@pytest.fixture(params=["hashed", "colliding"], scope="module", autouse=True)
def hashes(request):
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "colliding":
            patch.setattr(distinct, "_weights", lambda count: np.zeros(count, dtype=np.int64))
            patch.setattr(distinct, "AT_ONCE", 8)
        yield


@given(st.integers(0, 40), st.integers(1, 5), st.integers(0, 99), st.booleans())
def test_classes_of_rows(count, width, seed, shifted):
    rows = np.random.default_rng(seed).integers(0, 2, (count, width))
    offset = rows[:, 0] if shifted else None
    first, which = distinct.row_classes(rows, offset)
    plain = rows - rows[:, :1] if shifted else rows
    assert np.array_equal(plain[first][which], plain)
    assert len(first) == len(np.unique(plain, axis=0))


@given(st.lists(st.integers(0, 8), max_size=5), st.integers(1, 4), st.integers(0, 99))
def test_rows_are_numbered_as_they_come(counts, width, seed):
    rng = np.random.default_rng(seed)
    parts = [rng.integers(0, 2, (count, width), dtype=np.int32) for count in counts]
    made = distinct.Distinct(sum(counts), width)
    numbers = [made.add(rows).tolist() for rows in parts]
    known = {}
    assert numbers == [
        [known.setdefault(tuple(r), len(known)) for r in rows.tolist()] for rows in parts
    ]
    assert list(map(tuple, made.rows.tolist())) == list(known)
