"""Every entry of the library against the oracle of its row.

``JOINS`` says which entry, at which layer, states which oracle. The judge that users have, `attndsl check --library`,
compares meanings, output and gradients; here it is run, and beside it what it leaves out: exact schedules, other
backends and layouts.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from attndsl import AttnDslError, Pattern, library, oracles
from attndsl.library import judging
from attndsl.oracles import JOINS, ORACLES, Case, Join

BY_ID = {oracle.id: oracle for oracle in ORACLES}


def compiled(joint: Join, case: Case) -> tuple[Pattern, dict[str, object]]:
    """The entry, and what a call of it needs besides lengths."""
    question = joint.ask(case)
    pattern = library.load(question.entry, layer=question.layer, **question.values)
    return pattern, judging.given(pattern, question)


each_join = pytest.mark.parametrize(
    "joint", JOINS, ids=lambda joint: f"{joint.oracle}={joint.entry}@{joint.layer}"
)


@each_join
def test_an_entry_is_scheduled_and_computed_as_its_oracle_says(joint: Join):
    oracle = BY_ID[joint.oracle]
    for case in oracle.cases:
        assert not judging.disagreement(joint, oracle, case)
        expected = oracle.expected(case)
        pattern, call = compiled(joint, case)
        sizes = (*expected.shape[2:], case.heads)
        schedule = pattern.schedule(*sizes, batch=case.batch, tile=(4, 8), **call)
        for b, h in np.ndindex(expected.shape[:2]):
            assert np.array_equal(schedule.cover(b, h), expected[b, h]), (case, b, h)


# A hundred products of size 1, a dozen roundings deep.
CLOSE = {torch.float64: 1e-12, torch.float32: 3e-5}


@each_join
@pytest.mark.parametrize("layout", [pytest.param("natural", marks=pytest.mark.slow), "residues(3)"])
def test_a_kernel_attends_to_what_its_oracle_says(joint: Join, layout: str):
    """The whole way, schedule and kernels included, there and back."""
    attend(joint, BY_ID[joint.oracle].cases[1], "triton", layout, torch.float32)


LARGE = {
    "018-dinat": Case({"y": 26, "x": 23}, {"window": 5, "dilation": 4}, layer=1),
    "021-maxvit-grid": Case({"y": 28, "x": 21}, {"grid_size": 7}),
    "025-video_infinity": Case({"n": 600}, {"pad": 9, "top": 12, "devices": 4}),
    "039-longlora": Case({"n": 650}, {"group": 96}, heads=2),
    "053-cca": Case({"c": 40, "n": 645}, {"group": 16, "window": 70}),
    "061-power_attention-blocks": Case({"n": 700}, {"block": 16, "window": 2, "sink": 1}),
    "062-sinklora": Case({"n": 600}, {"group": 120, "sink": 3}, heads=2),
    "066-radial-joint": Case(
        {"t": 9, "s": 64, "words": 17}, {"block": 16, "decay": 100, "full_neighbour": False}
    ),
    "080-lrgt-grouped": Case({"v": 3, "y": 14, "x": 14}, {"side": 7}),
    "102-npt-abd": Case({"n": 37, "d": 16}),
    "107-a2mamba": Case({"y": 22, "x": 26}, {"window": 5}, heads=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["natural", "auto"])
@pytest.mark.parametrize("oracle", LARGE)
def test_entries_of_many_tiles_attend_to_what_their_oracles_say(oracle: str, layout: str):
    joint = next(joint for joint in JOINS if joint.oracle == oracle)
    attend(joint, LARGE[oracle], "blocked", layout, torch.float64)


def attend(joint: Join, case: Case, backend: str, layout: str, dtype: torch.dtype) -> None:
    """Output, log-sum-exp and gradients against NumPy's under the oracle's mask."""
    expected = BY_ID[joint.oracle].expected(case)
    b, h, q_len, k_len = expected.shape
    draw = np.random.default_rng(0)
    lengths = (q_len, k_len, k_len, q_len)
    q, k, v, d_out = (draw.standard_normal((b, h, n, 16)) for n in lengths)
    pattern, call = compiled(joint, case)
    leaves = [torch.tensor(x, dtype=dtype, requires_grad=True) for x in (q, k, v)]
    out, lse = pattern(*leaves, return_lse=True, backend=backend, layout=layout, **call)
    gradients = torch.autograd.grad(out, leaves, torch.tensor(d_out, dtype=dtype))
    wanted = oracles.attention(q, k, v, d_out, expected, BY_ID[joint.oracle].zero_keys(case))
    for found, right in zip((out, lse, *gradients), wanted, strict=True):
        np.testing.assert_allclose(found.detach().numpy(), right, atol=CLOSE[dtype])


@pytest.mark.parametrize("row", ["044-lizard", "046-block_transformer-token", "053-cca"])
def test_a_step_of_decoding_is_the_last_rows_of_the_whole(row: str):
    joint = next(joint for joint in JOINS if joint.oracle == row)
    case = BY_ID[row].cases[0]
    expected = torch.from_numpy(BY_ID[row].expected(case))
    pattern, call = compiled(joint, case)
    draw = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, 1, n, 8, dtype=torch.float64, generator=draw)
        for n in (expected.shape[2], expected.shape[3], expected.shape[3])
    )
    whole = pattern(q, k, v, **call)
    for steps in (1, 3):
        found = pattern.mask(steps, expected.shape[3], **call)
        assert torch.equal(found, expected[:, :, -steps:])
        np.testing.assert_allclose(pattern(q[:, :, -steps:], k, v, **call), whole[:, :, -steps:])


def test_compressed_blocks_are_seen_by_a_step_of_decoding_as_by_the_whole():
    pattern = library.load("nsa_compressed", length=4, stride=3)
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 1, n, 8, dtype=torch.float64, generator=draw) for n in (14, 4, 4))
    sizes = {"n": 14, "c": 4}
    whole = pattern(q, k, v, extents=sizes)
    assert not whole[:, :, :3].any()  # no block has ended
    for start in (5, 11, 13):
        found = pattern(q[:, :, start:], k, v, extents=sizes, q_start=start)
        np.testing.assert_allclose(found, whole[:, :, start:])


def test_causal_cross_attention_sees_every_key_and_causal_self_attention_does_not():
    assert library.load("cab", past=True, cross=True).mask(3, 5).all()
    assert library.load("cab", past=True).mask(3, 3).tolist()[0][0] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


def test_a_node_without_neighbours_sees_itself():
    alone = torch.full((1, 3, 2), -1)
    assert torch.equal(
        library.load("gps_local").mask(3, 3, neighbors=alone)[0, 0], torch.eye(3, dtype=torch.bool)
    )


def test_srformer_refuses_a_shift_that_cuts_folds_apart():
    assert library.load("srformer", window=22)
    with pytest.raises(AttnDslError, match="needs `shift % 2 == 0`") as caught:
        library.load("srformer", window=22, shift=11)
    assert caught.value.diagnostics[0].code == "A301"


def test_every_oracle_is_stated_and_every_entry_judged():
    assert {joint.oracle for joint in JOINS} == BY_ID.keys()
    assert {joint.entry for joint in JOINS} >= set(library.names())


def test_an_entry_stands_in_the_row_of_its_oracle():
    for joint in JOINS:
        if joint.entry in library.names():
            assert int(library.describe(joint.entry).row) == BY_ID[joint.oracle].row


def test_an_entry_that_differs_from_its_oracle_is_told_where():
    joint = next(joint for joint in JOINS if joint.entry == "griffin")
    oracle = BY_ID[joint.oracle]
    (case, *_) = oracle.cases
    wider = replace(joint, more={"window": 5})
    assert judging.disagreement(wider, oracle, case).startswith(
        "query 4 of head 0, batch 0 should not see key 0 on a case of 096-griffin"
    )
    unpadded = replace(oracle, zeros=lambda q, k: 1)
    assert judging.disagreement(joint, unpadded, case).startswith("the zero keys differ")
