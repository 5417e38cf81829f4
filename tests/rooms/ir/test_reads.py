"""Queries before the first token see nothing; tables that are too short are refused; calls may lack keys."""

from typing import Any

import numpy as np
import pytest
import torch

import attndsl
from attndsl import ir
from attndsl.passes import steps

DOC = torch.tensor([[0, 0, 1]])


def rows(text: str, q_len: int, k_len: int, **given: Any) -> list[list[int]]:
    mask = attndsl.compile(text).mask(q_len, k_len, **given)[0, 0]
    return [torch.nonzero(row).flatten().tolist() for row in mask]


def test_queries_before_the_first_token_see_no_key():
    assert rows("documents", 5, 3, doc=DOC) == [[], [], [0, 1], [0, 1], [2]]
    assert rows("window(2)", 4, 2) == [[], [], [0, 1], [0, 1]]
    assert rows("pattern p align start = k + 2 >= q", 4, 2) == [[0, 1], [0, 1], [0, 1], [1]]


def test_queries_are_alike_to_a_pattern_that_does_not_ask_where_they_stand():
    assert rows("k < 2", 4, 3) == [[0, 1]] * 4
    keep = torch.tensor([[True, False, True]])
    assert rows("input keep: bool[batch, k]\npattern p = keep[k]", 5, 3, keep=keep) == [[0, 2]] * 5


def test_they_count_no_zero_key():
    p = attndsl.compile("pattern p = causal zeros 3 - q")
    assert p.zero_keys(5, 3)[0, 0].tolist() == [0, 0, 3, 2, 1]
    few = attndsl.compile("pattern p = causal zeros q + 1")  # negative before the first token
    assert few.zero_keys(5, 3)[0, 0].tolist() == [0, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("documents", {"doc": DOC}),
        ("window(1)", {}),
        ("k < 9 and q < len(k)", {}),
        ("pattern p = abs(q - k) < 2 zeros 2", {}),
    ],
)
def test_all_that_computes_agrees(text: str, given: dict[str, Any]):
    p, (q_len, k_len) = attndsl.compile(text), (5, 3)
    dense = p.mask(q_len, k_len, **given)[0, 0].numpy()
    assert not dense[:2].any()
    for tile in ((16, 16), (1, 2)):
        assert np.array_equal(p.schedule(q_len, k_len, tile=tile, **given).cover(), dense)
    make = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, n, 8, generator=make) for n in (q_len, k_len))
    found = [p(q, k, k, backend=name, **given) for name in ("blocked", "reference")]
    assert torch.allclose(*found, atol=1e-6)
    assert not found[0][0, 0, :2].any()


@pytest.mark.parametrize(
    "text", ["k < 9 and q < len(k)", "max(q, k) >= q", "k < 9 and q + 2 > 0 - k"]
)
def test_no_pass_forgets_that_queries_are_placed(text: str):
    mask = attndsl.compile(text).ir
    meant = ir.meaning(mask, 5, 3, {"q": 5, "k": 3})
    for name, made in steps(mask):
        assert np.array_equal(ir.meaning(made, 5, 3, {"q": 5, "k": 3}), meant), name


T = torch.tensor([1, 2, 3])
GRID = "grid g(y=4, x=2)\ninput t: int[n]\npattern p over g = t[q.y] == k.y"
SHORT = {
    "of any size": ("input t: int[n]\npattern p = t[q] == t[k]", 5, 5),
    "of a fixed size": ("input t: int[3]\npattern p = t[k] <= q", 5, 5),
    "by blocks": ("input t: int[n]\npattern p = t[q // 2] == t[k // 2]", 7, 7),
    "of the keys, by queries": ("input t: int[pos]\npattern p align start = t[q] == t[k]", 5, 3),
    "of the queries, by keys": ("input t: int[q]\npattern p = t[q] == t[k]", 3, 5),
    "by coordinates": (GRID, 8, 8),
    "in a count": ("input t: int[n]\npattern p = causal zeros abs(t[q])", 5, 5),
}


@pytest.mark.parametrize("name", SHORT)
def test_a_table_that_is_too_short_for_the_call_is_refused(name: str):
    text, q_len, k_len = SHORT[name]
    with pytest.raises(attndsl.AttnDslError, match="too few for"):
        attndsl.compile(text).mask(q_len, k_len, t=T)


def test_a_list_that_is_too_short_is_refused():
    text = "input t: list[n, slots]\npattern p = k in t[q]"
    assert rows(text, 3, 3, t=T[:, None] - 1) == [[0], [1], [2]]
    with pytest.raises(attndsl.AttnDslError, match="too few for"):
        rows(text, 4, 4, t=T[:, None])
    said = "input t: list[n, slots]\npattern p = k in t[min(q, len(t.n))]"
    assert rows(said, 4, 4, t=T[:, None] - 1) == [[0], [1], [2], []]


def test_what_a_pattern_says_of_a_short_table_holds():
    within = "q < len(t.n) and k < len(t.n) and t[q] == t[k]"
    assert rows(f"input t: int[n]\npattern p = {within}", 4, 4, t=T) == [[0], [1], [2], []]
    fixed = "input t: int[3]\npattern p = q < 3 and k < 3 and t[q] == t[k]"
    assert rows(fixed, 4, 4, t=T) == [[0], [1], [2], []]
    with pytest.raises(attndsl.AttnDslError, match="too few for"):
        rows("input t: int[n]\npattern p = q < 4 and t[q] == t[k]", 4, 4, t=T)
    with pytest.raises(attndsl.AttnDslError, match="too few for"):
        rows("input t: int[3]\npattern p = q < 4 and k < 3 and t[q] == t[k]", 4, 4, t=T)
    ends = "input t: int[n]\npattern p = t[q - 1] == t[k + 1]"  # 0 beyond the ends
    assert rows(ends, 3, 3, t=T) == [[2], [], [0]]


def test_a_table_that_is_long_enough_is_read():
    for text in (
        "input t: int[q]\npattern p = t[q] == t[k]",
        "input t: int[k]\npattern p = t[q] == t[k]",
    ):
        assert rows(text, 3, 3, t=T) == [[0], [1], [2]]
    assert rows("input t: int[q]\npattern p = t[q] == k", 3, 5, t=T) == [[1], [2], [3]]
    blocks = "input t: int[n]\npattern p = t[q // 2] == t[k // 2]"
    assert rows(blocks, 5, 5, t=T) == [[0, 1], [0, 1], [2, 3], [2, 3], [4]]


def test_a_call_without_keys_may_read_beyond_a_table():
    p = attndsl.compile("input t: int[3, n]\npattern p = t[k // 2, 12] == 0")
    table = torch.ones(3, 3, dtype=torch.int64)
    assert p.mask(2, 0, t=table).shape == (1, 1, 2, 0)
    assert p.mask(2, 2, t=table).all()


@pytest.mark.parametrize(
    "text", ["any j in k..q: (j * q + k) % 3 == 0", "(sum j in q..k: (j * q + k) % 3) >= 1"]
)
def test_a_call_without_keys_has_no_numbers_to_try(text: str):
    p = attndsl.compile(text)
    assert p.mask(3, 0).shape == (1, 1, 3, 0)
    assert p.mask(3, 3).any()


def test_a_condition_may_stand_in_a_loop_and_behind_it():
    p = attndsl.compile("(any v in q..k: 2 * q < k and k % 3 * v != 8) and 2 * q < k")
    seen = [
        [any(2 * q < k and k % 3 * v != 8 for v in range(q, k)) for k in range(6)] for q in range(6)
    ]
    assert p.mask(6)[0, 0].tolist() == seen
