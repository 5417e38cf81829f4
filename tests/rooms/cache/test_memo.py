"""A memo keeps what was asked for last, within counts and bytes."""

import tracemalloc

import numpy as np
import pytest
import torch

import attndsl
from attndsl.cache import Memo
from attndsl.cache import memo as memo_file


def of_bytes(count: int) -> np.ndarray:
    return np.zeros(count, dtype=np.uint8)


def kept(memo: Memo, *keys: object) -> list[object]:
    return [key for key in keys if memo.get(key) is not None]


def test_a_result_is_made_once_even_if_it_is_none():
    memo, made = Memo(4), []
    for _ in range(3):
        assert memo("key", lambda: made.append(1)) is None
    assert made == [1]


def test_the_results_that_were_asked_for_last_stay():
    memo = Memo(2)
    for key in ("a", "b"):
        memo(key, lambda: of_bytes(1))
    assert kept(memo, "a") == ["a"]
    memo("c", lambda: of_bytes(1))
    assert kept(memo, "a", "b", "c") == ["a", "c"]


def test_heavy_results_give_way_by_bytes_and_light_ones_stay(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memo_file, "LARGEST_HELD", 100)
    memo = Memo(10)
    memo("light", lambda: "text")
    memo("pair", lambda: (of_bytes(30), of_bytes(30)))
    memo("one", lambda: of_bytes(40))
    assert kept(memo, "light", "pair", "one") == ["light", "pair", "one"]
    memo("more", lambda: of_bytes(1))
    assert kept(memo, "light", "pair", "one", "more") == ["light", "one", "more"]
    memo("huge", lambda: of_bytes(1_000))
    assert kept(memo, "light", "one", "more", "huge") == ["light", "huge"]
    memo("next", lambda: of_bytes(60))
    assert kept(memo, "light", "huge", "next") == ["light", "next"]


def test_a_key_that_comes_back_is_weighed_anew(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memo_file, "LARGEST_HELD", 100)
    memo = Memo(10)
    for _ in range(5):
        for key in "abc":
            memo(key, lambda: of_bytes(60))
    assert kept(memo, *"abc") == ["c"]


def test_a_pattern_keeps_tables_by_bytes_not_by_calls(monkeypatch: pytest.MonkeyPatch):
    length, calls = 4_000, 12
    table = np.arange(length)
    monkeypatch.setattr(memo_file, "LARGEST_HELD", 2 * table.nbytes)
    monkeypatch.setattr("attndsl.op.contents.LARGEST_COPIES", 2 * table.nbytes)
    pattern = attndsl.compile("input t: int[pos]\npattern p = k <= q and t[q] == t[k]")
    q = torch.zeros(1, 1, length, 1)
    pattern(q, q, q, t=torch.from_numpy(table))
    tracemalloc.start()
    try:
        for number in range(calls):
            pattern(q, q, q, t=torch.from_numpy(table // (number + 2)))
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # two tables at a time, and copies of two to compare with; the program and the planner share what they hold
    assert held < 8 * table.nbytes < calls * table.nbytes
