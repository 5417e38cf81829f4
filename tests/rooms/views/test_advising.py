"""Advice on parameters: what is suggested fits better, by a count made the slow way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import attndsl
from attndsl.views import Fit, near, suggest


@given(st.integers(0, 5000), st.sampled_from([16, 64, 128]))
def test_values_tried_are_near_and_distinct(value: int, tile: int):
    tried = list(near(value, tile))
    assert len(set(tried)) == len(tried)
    assert value not in tried
    assert all(each >= 0 and abs(each - value) <= max(1, value // 8) for each in tried)


@pytest.mark.parametrize(
    ("value", "first"), [(120, 128), (500, 512), (250, 256), (1000, 1024), (7, 8)]
)
def test_the_roundest_value_is_tried_first(value: int, first: int):
    assert next(near(value, 128)) == first


def tiles(pattern: attndsl.Pattern, length: int) -> tuple[int, int, int]:
    """(full, partial, pairs), from the dense mask."""
    dense = pattern.mask(length)[0, 0].numpy()
    square = dense.reshape(length // 128, 128, length // 128, 128)
    held = square.sum(axis=(1, 3))
    full = int((held == 128 * 128).sum())
    return full, int((held > 0).sum()) - full, int(held.sum())


@pytest.mark.parametrize(
    ("name", "values", "parameter", "better"),
    [
        ("block", {"b": 120}, "b", 128),
        ("block", {"b": 250}, "b", 256),
        ("lookback", {"b": 136, "n": 1}, "b", 128),
        ("block_causal", {"b": 127}, "b", 128),
    ],
)
def test_blocks_are_brought_to_the_tile(name, values, parameter, better):
    pattern = attndsl.compile(name, **values)
    found = {each.parameter: each for each in pattern.explanation(2048).nearby}[parameter]
    assert found.better == better
    for fit, given_values in (found.before, values), (found.after, {**values, parameter: better}):
        full, partial, pairs = tiles(attndsl.compile(name, **given_values), 2048)
        assert (fit.full, fit.partial, fit.pairs) == (full, partial, pairs)
        assert fit.computed == (full + partial) * 128 * 128
    assert found.after.is_whole
    assert f"{parameter}={better} instead of {values[parameter]}" in str(found)


@pytest.mark.parametrize(("name", "values"), [("block", {"b": 256}), ("causal", {}), ("full", {})])
def test_what_fits_gets_no_advice(name, values):
    assert attndsl.compile(name, **values).explanation(1024).nearby == ()


def test_a_source_without_parameters_gets_none():
    assert attndsl.compile("pattern p = block(120)").explanation(1024).nearby == ()


def test_defaults_are_varied_and_constraints_kept():
    text = "pattern p(b: int = 120) where b <= 121 = q // b == k // b"
    assert attndsl.compile(text).explanation(2048).nearby == ()
    free = attndsl.compile(text.replace("where b <= 121 ", "")).explanation(2048).nearby
    assert [each.better for each in free] == [128]


def test_the_cheapest_is_kept_and_little_gains_are_not_worth_saying():
    before = Fit(0, 10, 1000, 500)
    fits = {9: Fit(0, 10, 1000, 520), 10: Fit(0, 10, 1000, 700), 7: Fit(0, 10, 1000, 640)}
    (found,) = suggest({"w": 8}, before, lambda name, value: fits.get(value), 128)
    assert (found.better, found.after.dearness) == (7, pytest.approx(1000 / 640))
    assert suggest({"w": 8}, before, lambda name, value: fits[9], 128) == ()
    assert suggest({"w": 8}, Fit(4, 0, 4, 4), lambda name, value: fits[10], 128) == ()
    assert np.isinf(Fit(0, 0, 0, 0).dearness)
