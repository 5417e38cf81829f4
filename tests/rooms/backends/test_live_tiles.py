"""The host of emitted files, in the package: a pattern that is a function on tensors is found and attended to."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")

from attndsl.backends import live_tiles, standalone
from attndsl.backends.triton import INTERPRETED
from tests.rooms.backends.agreement import SCALE, assert_agrees
from tests.rooms.backends.cases import Case, cases, random_mask
from tests.rooms.emission.dense import dense

CPU = torch.device("cpu")


def pattern_of(masks: np.ndarray) -> live_tiles.Pattern:
    """A pattern that looks every pair up."""
    known = torch.from_numpy(masks)
    batch, heads, q_len, k_len = masks.shape

    def sees(q, k, b, h):
        return known[b, h, q.clamp(max=q_len - 1), k.clamp(max=k_len - 1)]

    return live_tiles.Pattern(sees, q_len, k_len, batch, heads, CPU)


@pytest.mark.skipif(not INTERPRETED, reason="it runs in Triton's interpreter")
@settings(max_examples=5)
@given(case=cases(torch.float32, longest=90), shortest=st.sampled_from([1, 8]))
def test_it_agrees_with_the_oracle(case: Case, shortest: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_tiles, "SHORTEST", shortest)
        schedule = live_tiles.Schedule(pattern_of(case.masks))
        leaves = [x.detach().requires_grad_() for x in (case.q, case.k, case.v)]
        out, lse = standalone.Attention.apply(*leaves, schedule, SCALE)
        sent, arriving = [out], [case.dout]
        if case.dlse is not None:
            sent, arriving = [out, lse], [case.dout, torch.where(lse.isfinite(), case.dlse, 0.0)]
            case = replace(case, dlse=arriving[1])
        grads = torch.autograd.grad(sent, leaves, arriving)
    assert_agrees([out.detach(), lse.detach(), *grads], case)


@pytest.mark.parametrize("pairs", [1, 1 << 12, 1 << 23])
def test_tiles_are_the_pattern_however_many_pairs_are_evaluated_at_once(
    pairs: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(live_tiles, "PAIRS_AT_ONCE", pairs)
    rng = np.random.default_rng(0)
    masks = np.stack([random_mask(rng, 90, 150) for _ in range(6)]).reshape(2, 3, 90, 150)
    found = live_tiles.find_tiles(pattern_of(masks), 16, 32)
    assert np.array_equal(dense(found, (16, 32), 90, 150), masks)
    assert len(found.masks.unique(dim=0)) == len(found.masks)


@pytest.mark.parametrize(("back", "ahead"), [(33, 17), (31, 32), (None, 0), (0, None)])
@pytest.mark.parametrize("q_start", [0, 50])
def test_only_what_is_in_reach_is_evaluated(
    back: int | None, ahead: int | None, q_start: int, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def sees(q, k, b, h):
        asked.append(len(q) * len(k))
        near = torch.ones(len(q), len(k), dtype=torch.bool)
        near &= q - k <= back if back is not None else near
        return near & (k - q <= ahead) if ahead is not None else near

    monkeypatch.setattr(live_tiles, "PAIRS_AT_ONCE", 1)
    plain = live_tiles.Pattern(sees, 150, 200, 1, 1, CPU, q_start)
    whole, some = live_tiles.find_tiles(plain, 16, 32), sum(asked)
    near = live_tiles.find_tiles(replace(plain, back=back, ahead=ahead), 16, 32)
    assert all(map(torch.equal, whole, near))
    assert sum(asked) - some < some * 0.9


def test_nothing_is_found_where_there_is_nothing():
    for shape in ((1, 1, 0, 5), (1, 2, 5, 0)):
        found = live_tiles.find_tiles(pattern_of(np.ones(shape, bool)), 16, 32)
        assert not found.states.any()
        assert len(found.masks) == 0
