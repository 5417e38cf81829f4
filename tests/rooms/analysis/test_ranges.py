"""The abstract domain, exhausted: every operation on all small ranges contains every value it can give."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from attndsl.analysis import Range, Truths
from attndsl.analysis import ranges as operations

# low, how many values, step; a range of one value has step 0
SMALL = [
    (low, count, step)
    for low, count, step in itertools.product(range(-5, 6), (1, 2, 3), (0, 1, 2, 3))
    if (count == 1) == (step == 0)
]


def stacked(items: list[tuple[int, int, int]], has_step: bool) -> Range:
    low, count, step = np.array(items).T
    last = low + (count - 1) * step
    return Range(low, last, step) if has_step else Range(low, last)


def members(item: Range, has_step: bool) -> list[np.ndarray]:
    """Arrays of values, one of each range; together all values of each."""
    stride = item.stride if has_step else np.ones_like(item.low)
    return [np.minimum(item.low + i * stride, item.high) for i in range(7)]


def assert_contains(result: Range, value: np.ndarray, what: str) -> None:
    step = result.stride
    aligned = np.where(
        step > 0, (value - result.low) % np.maximum(step, 1) == 0, value == result.low
    )
    right = (result.low <= value) & (value <= result.high) & aligned
    first = int(np.argmin(right))
    assert right.all(), (
        f"{what}: {value[first]} is not in {result.low[first]}..{result.high[first]}"
    )


def pairs(has_step: bool) -> tuple[Range, Range]:
    left, right = zip(*itertools.product(SMALL, SMALL), strict=True)
    return stacked(list(left), has_step), stacked(list(right), has_step)


def quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(b > 0, a // np.maximum(b, 1), 0)


def remainder(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(b > 0, a % np.maximum(b, 1), 0)


BINARY: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add, "mul": np.multiply, "floordiv": quotient, "mod": remainder,
    "minimum": np.minimum, "maximum": np.maximum,
}  # fmt: skip
TIGHT = ("add", "minimum", "maximum")  # both ends are taken by some pair of values


@pytest.mark.parametrize("has_step", [True, False])
@pytest.mark.parametrize("name", BINARY)
def test_two_ranges_give_one_that_contains_all(name: str, has_step: bool):
    left, right = pairs(has_step)
    result = getattr(operations, name)(left, right)
    values = [
        BINARY[name](a, b)
        for a, b in itertools.product(members(left, has_step), members(right, has_step))
    ]
    for value in values:
        assert_contains(result, value, name)
    if name in TIGHT:
        assert np.array_equal(result.low, np.min(values, axis=0))
        assert np.array_equal(result.high, np.max(values, axis=0))


@pytest.mark.parametrize("has_step", [True, False])
@pytest.mark.parametrize("factor", range(-3, 4))
def test_a_multiple_contains_all_multiples_and_its_ends_are_taken(factor: int, has_step: bool):
    item = stacked(SMALL, has_step)
    result = operations.scale(item, factor)
    values = [value * factor for value in members(item, has_step)]
    for value in values:
        assert_contains(result, value, f"times {factor}")
    assert np.array_equal(result.low, np.min(values, axis=0))
    assert np.array_equal(result.high, np.max(values, axis=0))


@pytest.mark.parametrize("divisor", range(1, 8))
@pytest.mark.parametrize("name", ["floordiv", "mod"])
def test_division_by_a_number_is_exact_at_its_ends_where_it_does_not_wrap(name: str, divisor: int):
    item = stacked(SMALL, True)
    result = getattr(operations, name)(item, Range.point(item.low * 0 + divisor))
    values = [BINARY[name](value, np.full_like(value, divisor)) for value in members(item, True)]
    for value in values:
        assert_contains(result, value, name)
    exact = item.low // divisor == item.high // divisor if name == "mod" else item.low == item.low
    assert np.array_equal(result.low[exact], np.min(values, axis=0)[exact])
    assert np.array_equal(result.high[exact], np.max(values, axis=0)[exact])


def test_absolute_values_lie_between_the_least_and_the_greatest():
    item = stacked(SMALL, True)
    result = operations.absolute(item)
    for value in members(item, True):
        assert_contains(result, abs(value), "absolute")
    dense = stacked([each for each in SMALL if each[2] <= 1], False)
    values = np.abs(members(dense, False))
    assert np.array_equal(operations.absolute(dense).low, values.min(0))
    assert np.array_equal(operations.absolute(dense).high, values.max(0))


@pytest.mark.parametrize("has_step", [True, False])
@pytest.mark.parametrize(("may_hold", "may_fail"), [(True, True), (True, False), (False, True)])
def test_a_choice_contains_the_branches_it_may_take(may_hold: bool, may_fail: bool, has_step: bool):
    yes, no = pairs(has_step)
    full = np.ones(len(yes.low), bool)
    result = operations.choose(Truths(full & may_hold, full & may_fail), yes, no)
    for possible, branch in ((may_hold, yes), (may_fail, no)):
        for value in members(branch, has_step) if possible else ():
            assert_contains(result, value, "choose")
    if may_hold != may_fail:
        taken = yes if may_hold else no
        assert np.array_equal(result.low, taken.low)
        assert np.array_equal(result.high, taken.high)


@pytest.mark.parametrize("has_step", [True, False])
@pytest.mark.parametrize("bound", range(-12, 13))
def test_comparisons_are_decided_exactly(bound: int, has_step: bool):
    item = stacked(SMALL, has_step)
    values = np.array(members(item, has_step))
    for name, plain in (("at_most", values <= bound), ("equals", values == bound)):
        verdict = getattr(operations, name)(item, bound)
        assert np.array_equal(verdict.may_hold, plain.any(0)), name
        assert np.array_equal(verdict.may_fail, ~plain.all(0)), name
