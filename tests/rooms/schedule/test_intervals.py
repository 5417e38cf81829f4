"""Unions of regions between lines, which a table of entries gives, against loops over rows, columns and entries."""

from collections.abc import Callable

import numpy as np
import pytest

import attndsl
from attndsl.schedule import intervals
from tests.support.work import within

from .test_exact import check

INPUTS = "".join(f"input {name}: int[n]\n" for name in "abcdef")
Rule = Callable[[int, int, list[int]], bool]

CASES: dict[str, Rule] = {
    "a[s] <= q < b[s] and c[s] <= k < d[s]": lambda q, k, x: x[0] <= q < x[1] and x[2] <= k < x[3],
    "a[s] <= q < b[s] and c[s] <= k < d[s] and (e[s] % 3 == 0 or k - q <= c[s] - a[s] + 3)"
    " and (e[s] % 2 == 0 or k + q >= f[s] + 9)": lambda q, k, x: (
        x[0] <= q < x[1]
        and x[2] <= k < x[3]
        and (x[4] % 3 == 0 or k - q <= x[2] - x[0] + 3)
        and (x[5] + 9 <= q + k or x[4] % 2 == 0)
    ),
    "a[s] <= q < b[s] and 2 * q - k <= c[s] and k - 3 * q <= d[s] - 40": lambda q, k, x: (
        x[0] <= q < x[1] and 2 * q - x[2] <= k <= 3 * q + x[3] - 40
    ),
    "c[s] <= q < d[s] and k == q + a[s] - b[s]": lambda q, k, x: (
        x[2] <= q < x[3] and k == q + x[0] - x[1]
    ),
    "c[s] <= k < d[s] and k - q in a[s] - 20..b[s] - 20": lambda q, k, x: (
        x[2] <= k < x[3] and x[0] - 20 <= k - q < x[1] - 20
    ),
    "e[s] % 4 == 1 and q <= a[s] and not k < c[s]": lambda q, k, x: (
        x[4] % 4 == 1 and q <= x[0] and k >= x[2]
    ),
    "q == a[s] and (f[s] > 20 or c[s] <= k)": lambda q, k, x: (
        q == x[0] and (x[5] > 20 or x[2] <= k)
    ),
    "e[s] > 99": lambda q, k, x: x[4] > 99,
}


@pytest.mark.parametrize("body", CASES)
@pytest.mark.parametrize("lengths", [(40, 40), (23, 37)], ids=str)
def test_a_union_is_what_loops_say(body: str, lengths: tuple[int, int]):
    random = np.random.default_rng(len(body))
    for count, wide in [(17, 45), (60, 45), (90, 12)]:
        tables = {name: random.integers(0, wide, count) for name in "abcdef"}
        rows = [list(row) for row in zip(*(tables[n].tolist() for n in "abcdef"), strict=True)]
        m, n = lengths
        expected = [
            [any(CASES[body](i + n - m, j, row) for row in rows) for j in range(n)]
            for i in range(m)
        ]
        dense = np.array(expected)[None, None]
        for text, truth in [
            (f"any s in 0..len(a.n): {body}", dense),
            (f"not any s in 0..len(a.n): {body}", ~dense),
        ]:
            pattern = attndsl.compile(f"{INPUTS}pattern p = {text}")
            given = {t.name: tables[t.name] for t in pattern.ir.tables}
            check(pattern.schedule(m, n, inputs=given, tile=(8, 4)), truth)


def test_regions_are_found_on_the_side_that_needs_fewer_intervals(
    monkeypatch: pytest.MonkeyPatch,
):
    """Cells of a board, and stripes that touch: as many intervals as stay apart, at any query or any key."""
    seen: list[tuple[str, int]] = []

    def union(*given: object) -> object:
        rows, tables = found = plain(*given)
        seen.append((rows.side.value, len(tables[0])))
        return found

    plain = intervals.union
    monkeypatch.setattr("attndsl.schedule.loops.union", union)
    text = f"{INPUTS}pattern p = any s in 0..len(a.n): a[s] <= q < b[s] and c[s] <= k < d[s]"
    pattern = attndsl.compile(text)
    stripes = np.arange(20)
    cells = np.array([(i, j) for i in range(6) for j in range(6) if (i + j) % 2 == 0]).T
    for a, c, width in [(0 * stripes, 2 * stripes, (40, 2)), (6 * cells[0], 6 * cells[1], (6, 6))]:
        given = {"a": a, "b": a + width[0], "c": c, "d": c + width[1]}
        pattern.schedule(40, inputs=given)
    assert seen == [("q", 1), ("q", 3)]


def test_a_thousand_slices_are_scheduled_together():
    n, count = 65536, 1024
    random = np.random.default_rng(0)
    cuts = np.sort(random.choice(np.arange(1, n), count - 1, replace=False))
    documents = np.stack([np.append(0, cuts), np.append(cuts, n)], axis=1)
    anywhere = [np.sort(random.integers(0, n, (count, 2)), axis=1) for _ in range(2)]
    pattern = attndsl.compile("slices")
    kinds = random.integers(0, 4, count)
    for q_ranges, k_ranges in [(documents, documents), anywhere]:
        given = {"q_ranges": q_ranges, "k_ranges": k_ranges, "attn_type_map": kinds}
        within(100_000, lambda given=given: pattern.schedule(n, inputs=given))
