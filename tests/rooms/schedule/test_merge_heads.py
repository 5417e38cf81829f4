"""Heads that see the same have one plan, whatever their patterns look like."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attndsl.compiler import Program
from attndsl.sources import read_mask

WITHOUT = ("merge_heads",)
TILE = (4, 4)


def schedules(text: str, length: int, heads: int, layout: str = "natural", **inputs):
    """With the simplification and without it."""
    made = []
    for without in ((), WITHOUT):
        program = Program(read_mask(text), 0, without)
        call = program.call(length, length, 1, heads, None, inputs)
        made.append((program, call, program.schedule(call, TILE, layout)))
    return made


def check(program, call, schedule) -> None:
    """Every head computes exactly what it means."""
    for batch in range(call.batch):
        for head in range(call.heads):
            expected = program.dense(call)[batch, head]
            assert np.array_equal(schedule.cover(batch, head), expected), head


SAME = {
    "windows wider than the sequence": ("q - k < 8 * pow2(head) and k <= q", 2),
    "six heads and two": ("if head < 6 then window(3) else (q - k) % 8 == 0 and k <= q", 2),
    "clamped": ("window(min(head + 5, 7))", 3),
    "said in two ways": ("if head < 4 then q // 4 == k // 4 else q - q % 4 <= k < q - q % 4 + 4", 1),
    "none but one": ("head == 3 and causal", 2),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_heads_of_one_schedule_have_one_plan(name: str):
    text, count = SAME[name]
    merged, apart = schedules(f"pattern p = {text}", 16, 8)
    check(*merged)
    assert len(merged[2].plans) == count
    assert merged[2].nbytes <= apart[2].nbytes
    assert merged[2].plan_of.shape == (1, 8)


def test_six_and_two_heads_store_two_plans_not_eight():
    """The run-time table hides from the compiler what the heads have in common."""
    text = "input reach: int[head]\npattern p = 0 <= q - k < reach"
    reach = np.array([64, 70, 80, 90, 99, 128, 5, 5])
    (_, _, merged), (_, _, apart) = schedules(text, 64, 8, reach=reach)
    assert [len(each.plans) for each in (merged, apart)] == [2, 7]
    assert merged.plan_of.tolist() == [[0, 0, 0, 0, 0, 0, 1, 1]]
    assert merged.nbytes < apart.nbytes / 3


def test_equal_tiles_under_different_masks_are_stored_once():
    text = "input reach: int[head]\npattern p = 0 <= q - k < reach"
    (program, call, merged), (_, _, apart) = schedules(text, 64, 2, reach=np.array([6, 7]))
    check(program, call, merged)
    one, two = merged.plans
    assert one.full is two.full
    assert one.partial is two.partial
    assert merged.index_nbytes < apart.index_nbytes


def test_plans_stay_merged_at_other_tiles_and_agree_with_the_relation():
    program = Program(read_mask("pattern p = q - k < max(20 - 2 * head, 10) and k <= q"))
    call = program.call(16, 16, 1, 8, None, {})
    (part,) = program.tiled(call, "natural", TILE, (8, 4), (16, 16))
    assert len(part.bound.roots) == 4  # of heads 0 (to 2), 3, 4, 5 (to 7)
    for schedule in part.schedules.values():
        check(program, call, schedule)
        assert len(schedule.plans) == 4


def test_plans_in_different_orders_stay_apart():
    """Their tiles hold other tokens, even where the numbers of the tiles agree."""
    text = "pattern p = if head == 0 then q % 4 == k % 4 else q // 4 == k // 4"
    (program, call, schedule), _ = schedules(text, 16, 2, "auto")
    check(program, call, schedule)
    assert schedule.plans[0].q_order is not None
    assert schedule.plans[1].q_order is None
    assert [plan.live for plan in schedule.plans] == [4, 4]
    assert len(schedule.plans) == 2


@settings(max_examples=60)
@given(
    st.lists(st.integers(-1, 24), min_size=1, max_size=6),
    st.lists(st.integers(1, 5), min_size=6, max_size=6),
    st.integers(1, 23),
    st.sampled_from(["natural", "auto"]),
)
def test_merging_changes_no_head(reach: list[int], step: list[int], length: int, layout: str):
    text = (
        "input reach: int[head]\ninput step: int[head]\n"
        "pattern p = 0 <= q - k < reach and any j in 1..6: j == step and (q - k) % j == 0"
    )
    inputs = {"reach": np.array(reach), "step": np.array(step[: len(reach)])}
    merged, apart = schedules(text, length, len(reach), layout, **inputs)
    check(*merged)
    check(*apart)
    meanings = {merged[0].dense(merged[1])[0, head].tobytes() for head in range(len(reach))}
    if layout == "natural":
        assert len(merged[2].plans) == len(meanings)
