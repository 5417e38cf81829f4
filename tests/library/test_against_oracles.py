"""Every entry of the library is what its oracle, written from the paper's formula alone, says it is."""

import numpy as np
import pytest

from attndsl import library
from tests.library.joins import JOINS, Join, found
from tests.library.oracles import ORACLES, Oracle


@pytest.mark.parametrize("oracle", ORACLES, ids=lambda oracle: oracle.id)
def test_an_entry_equals_its_oracle(oracle: Oracle):
    join = JOINS[oracle.id]
    for case in oracle.cases:
        case = join.recast(case) if join.recast else case
        expected = oracle.expected(case)
        got = found(join, case, *expected.shape[2:])
        different = np.argwhere(np.broadcast_to(got, expected.shape) != expected)
        assert not len(different), (
            f"{case}: (batch, head, q, k) {different[0]}, {len(different)} in all"
        )


def test_every_entry_has_an_oracle_or_is_dense():
    judged = {join.entry for join in JOINS.values()}
    for name in set(library.names()) - judged:
        text = library.describe(name).text
        assert text.endswith("= true"), f"{name} is judged by nobody"


def test_the_comparison_notices_a_wrong_entry():
    oracle = next(each for each in ORACLES if each.id == "096-griffin")
    case = oracle.cases[0]
    got = found(Join("based"), case, *oracle.expected(case).shape[2:])  # one key more
    assert (got != oracle.expected(case)).any()
