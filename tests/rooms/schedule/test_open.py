"""Schedules of inputs that are not looked at: no pair is lost, none is added, on NumPy and on torch alike."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import Tensor

import attndsl
from attndsl import ir
from attndsl.backends import OnDevice
from attndsl.compiler import Program
from attndsl.open_lowering import Placing
from attndsl.positions import hidden
from attndsl.schedule import EMPTY, FULL, Classifier, OpenValues, open_candidates, open_env
from attndsl.schedule.open_masks import superset
from attndsl.source import AttnDslError
from attndsl.testing import programs
from tests.fuzz.checking import REFUSED

TILES = [(4, 4), (8, 16), (16, 8), (1, 32), (7, 3)]
NAMESPACES = {"numpy": np, "torch": OnDevice(torch.device("cpu"))}
INPUTS = """
input doc: int[batch, pos]
input keep: bool[batch, pos]
input reach: int[head]
input own: int[batch, head, q]
input ends: int[entries]
"""
ROOTS = [
    "doc[q] == doc[k]",
    "causal and doc[q] == doc[k]",
    "not (doc[q] < doc[k]) or q - k == 3",
    "causal and keep[k] and q - k <= reach",
    "if keep[q] then window(5) else k < 4 or doc[k] == 2",
    "own[q] * 3 - k >= doc[k] // 2",
    "(own[q] + k) % 4 == doc[k] % 4",
    "abs(own[q] - k) <= reach and ilog2(k + 1) <= pow2(doc[q])",
    "min(own[q], 9) <= max(k - doc[k], 2)",
    "if head < 2 then doc[q] == doc[k] else k <= q - reach",
    "(count j in 0..len(ends.entries): ends[j] <= q) == (count j in 0..len(ends.entries): ends[j] <= k)",
    "doc[q] in [0, 2] and [3, 1, 2][k % 3] <= own[q]",
    "keep[q - k]",
]


def states(made: Program, call, tile, xp, at: Mapping[str, Tensor] | None = None) -> np.ndarray:
    """The states of all tiles, [batch, heads, rows, columns]. ``at``: the positions of a call that is open."""
    types = {name: array.dtype for name, array in call.tables.items()}
    mask = made.open(call, types)
    found = open_candidates(mask, tile)
    tables = {name: xp.asarray(np.array(array)) for name, array in call.tables.items()}
    if at is not None:
        placing = Placing(made.mask, (call.q_len, call.k_len), call.batch, {}, torch.device("cpu"))
        placed, sound = placing.tables({hidden(name): x for name, x in at.items()}, mask.placed)
        assert all(sound)
        tables |= placed
    each = []
    for number, piece in enumerate(mask.pieces):
        values = OpenValues(open_env(mask, piece, xp), tables)
        flat = np.asarray(Classifier.of(mask, piece, found, number, xp).states(values))
        for of_plan in flat.reshape(len(piece.batch), -1):
            square = np.full(found.grid, EMPTY)
            square[found.tiles[number]] = of_plan
            each.append(square)
    return np.array(each)[np.broadcast_to(mask.plan_of, (call.batch, call.heads))]


def check(found: np.ndarray, dense: np.ndarray, tile: tuple[int, int]) -> None:
    for place in np.ndindex(found.shape):
        b, h, row, column = place
        pairs = dense[b, h, row * tile[0] :, column * tile[1] :][: tile[0], : tile[1]]
        assert found[place] != EMPTY or not pairs.any(), "a live pair is lost"
        assert found[place] != FULL or pairs.all(), "a pair is added"


@settings(max_examples=25)
@given(
    st.sampled_from(ROOTS),
    st.integers(1, 60),
    st.integers(0, 9),
    st.integers(0, 20),
    st.sampled_from(TILES),
)
def test_no_pair_is_lost_and_none_added(root, k_len, fewer, seed, tile):
    random, q_len = np.random.default_rng(seed), max(1, k_len - fewer)
    made = attndsl.compile(f"{INPUTS}pattern p = {root}")._program
    given = {
        "doc": np.sort(random.integers(0, 4, (2, k_len)), axis=1) * random.choice([1, 1 << 40]),
        "keep": np.repeat(random.random((2, k_len // 8 + 1)) < 0.5, 8, axis=1)[:, :k_len],
        "reach": random.integers(0, k_len, (3,)),
        "own": random.integers(-2, k_len + 2, (2, 3, q_len)),
        "ends": np.sort(random.integers(0, k_len + 1, (5,))),
    }
    tables = {table.name: given[table.name] for table in made.mask.tables}
    call = made.call(q_len, k_len, 2, 3, None, tables)
    found = {name: states(made, call, tile, xp) for name, xp in NAMESPACES.items()}
    assert np.array_equal(found["numpy"], found["torch"])
    check(found["numpy"], made.dense(call), tile)


@settings(max_examples=25)
@given(programs(depth=2), st.sampled_from(TILES))
def test_random_programs(program, tile):
    try:
        made = attndsl.compile(program.text, layer=program.layer)._program
        tables = {table.name: program.tables[table.name] for table in made.mask.tables}
        axes = {name: n for name, n in program.sizes.items() if ir.axes_named(made.mask, name)}
        lengths = program.q_len, program.k_len, program.batch, program.heads
        call = made.call(*lengths, axes, tables)
        found, dense = states(made, call, tile, NAMESPACES["torch"]), made.dense(call)
    except ir.NotOpen:
        reject()
    except AttnDslError as error:
        if error.code not in (*REFUSED, "A403", "A404", "A501"):
            raise
        reject()
    check(found, dense, tile)


PLACED = [
    "causal",
    "window(5, 2) or k < 3",
    "doc[q] == doc[k]",
    "causal and k < len(k) // 2 or q - k == 1",
    "k <= own[q] and keep[k]",
]


@settings(max_examples=30)
@given(
    st.sampled_from(PLACED),
    st.sampled_from(["end", "start"]),
    st.sampled_from(
        ["q_start", "kv_len", "q_start kv_len", "q_len k_start", "k_pos", "q_pos k_pos"]
    ),
    st.integers(0, 20),
    st.sampled_from(TILES),
)
def test_positions_that_are_not_looked_at(root, align, names, seed, tile):
    random, q_len, k_len = np.random.default_rng(seed), 21, 40
    made = attndsl.compile(f"{INPUTS}pattern p = {root}", align=align)._program
    doc = np.sort(random.integers(0, 4, (2, k_len)), axis=1)
    own, keep = random.integers(-2, k_len, (2, 3, q_len)), random.random((2, k_len)) < 0.7
    given = {"doc": doc, "keep": keep, "own": own}
    tables = {table.name: given[table.name] for table in made.mask.tables}
    drawn = {
        "q_start": random.integers(-3, k_len - q_len, (2,)),
        "kv_len": random.integers(k_len // 2, k_len + 1, (2,)),
        "q_len": random.integers(0, q_len + 1, (2,)),
        "k_start": random.integers(-5, 1, (2,)),
        "q_pos": random.permuted(np.tile(np.arange(-1, k_len - 1), (2, 1)), axis=1)[:, :q_len],
        "k_pos": random.permuted(np.tile(np.arange(-1, k_len - 1), (2, 1)), axis=1),
    }
    at = {hidden(name): drawn[name] for name in names.split()}
    try:
        dense = made.dense(made.call(q_len, k_len, 2, 3, None, tables | at))
        like = {name: x * 0 for name, x in at.items()}
        call = made.call(q_len, k_len, 2, 3, None, tables | like, is_open=True)
        places = {name: torch.from_numpy(drawn[name]) for name in names.split()}
        found = states(made, call, tile, NAMESPACES["torch"], places)
    except ir.NotOpen:
        reject()
    except AttnDslError as error:  # an input has fewer entries than there are positions
        if error.code not in ("A413", "A501"):
            raise
        reject()
    check(found, dense, tile)


def test_sorted_documents_cost_their_tiles_alone():
    made = attndsl.compile("documents_causal")._program
    doc = np.repeat(np.arange(8), 64)[None, :500]  # the last tile is cut
    call = made.call(500, 500, 1, 1, None, {"doc": doc})
    found = states(made, call, (16, 16), NAMESPACES["torch"])[0, 0]
    exact = made.schedule(call, (16, 16))
    assert (found == FULL).sum() == exact.full.nnz
    assert (found != EMPTY).sum() == exact.full.nnz + exact.partial.nnz


@pytest.mark.parametrize(
    ("root", "known"),
    [
        ("causal and doc[q] == doc[k]", "k <= q"),
        ("window(3) or keep[k]", "true"),
        ("causal and not (window(3) and keep[k])", "k <= q"),
        ("causal and not keep[k] and q - k < 9", "causal and q - k < 9"),
    ],
)
def test_candidates_are_what_inputs_may_leave(root, known):
    asked = attndsl.compile(f"{INPUTS}pattern p = {root}").ir.root
    assert superset(asked, ["doc", "keep"]) is attndsl.compile(f"pattern p = {known}").ir.root


def test_numbers_that_may_be_too_large_are_left_to_the_host():
    made = attndsl.compile("input a: int[pos]\npattern p = a[q] * a[k] * a[k] * a[k] <= 9")._program
    call = made.call(8, 8, 1, 1, None, {"a": np.arange(8)})
    with pytest.raises(ir.NotOpen, match="a number may pass"):
        made.open(call, {"a": np.dtype(np.int64)})
    made.open(call, {"a": np.dtype(np.int8)})
