"""Bounds of results: sound for right computations in every dtype, and far below what one wrong pair does."""

import numpy as np
import pytest
import torch

import attndsl
from attndsl.verification import Random, dense, draw_case
from attndsl.verification.references import first_fault, oracle, run, truth, wrong_entries
from attndsl.verification.running import kernel_of

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
WINDOW = attndsl.compile("window", left=40)


@pytest.mark.parametrize("dtype", DTYPES)
def test_right_computations_stay_within_half_of_what_is_allowed(dtype):
    for index in range(12):
        case = draw_case(WINDOW.ir, Random(3, index), 150, dtype=dtype, layout="natural")
        mask, tensors = dense(WINDOW, case), case.tensors()
        known = truth(mask, tensors, case.factor)
        for found in (
            oracle(mask, tensors, case.factor),
            run(kernel_of(WINDOW, case, "blocked"), tensors),
        ):
            assert first_fault(found, known) is None, str(case)
            for name, got in found.items():
                wrong = wrong_entries(got, known.exact[name], known.allowed[name] / 2)
                assert not wrong.any(), f"{name} of {case}"


def test_one_wrong_pair_is_seen_in_the_numbers():
    for index in range(40):
        case = draw_case(WINDOW.ir, Random(7, index), 300, dtype=torch.float32, layout="natural")
        mask, tensors = dense(WINDOW, case), case.tensors()
        known = truth(mask, tensors, case.factor)
        pairs = mask.expand(case.batch, case.heads, -1, -1).clone()
        places = pairs.nonzero()
        if not len(places):
            continue
        at = tuple(places[int(np.random.default_rng(index).integers(len(places)))])
        pairs[at] = False
        assert first_fault(oracle(pairs, tensors, case.factor), known) is not None, str(case)


def test_what_sees_nothing_is_exactly_zero():
    p = attndsl.compile("pattern p = k < q")
    case = draw_case(p.ir, Random(1, 1), 20, q_len=9, k_len=9, layout="natural")
    known = truth(dense(p, case), case.tensors(), case.factor)
    assert (known.allowed["out"][:, :, 0] == 0).all()
    assert (known.allowed["dk"][:, :, -1] <= 1e-30).all(), "no query sees the last key"


def test_what_is_not_finite_must_be_the_same():
    inf, nan = float("inf"), float("nan")
    got = torch.tensor([0.0, -inf, inf, nan, 1.0, 1.5, nan])
    want = torch.tensor([-inf, -inf, -inf, nan, nan, 1.0, 1.0], dtype=torch.float64)
    wrong = wrong_entries(got, want, torch.ones(7, dtype=torch.float64))
    assert wrong.tolist() == [True, False, True, False, True, False, True]
