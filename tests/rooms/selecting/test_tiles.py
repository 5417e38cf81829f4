"""Tiles of grids as units, against loops over coordinates: sets bit for bit, outputs, and what is refused."""

import math
import pickle

import numpy as np
import pytest
import torch

import attndsl
from attndsl import k, q
from attndsl import selections as s
from attndsl.reals import dot as product
from attndsl.source import AttnDslError
from tests.support.selection_loops import dot, listed, softmax, top

NEAR = {"atol": 1e-5, "rtol": 1e-4}  # of float32
VIDEO = """
grid volume(t, y, x)
units cube = tiles(t = 2, y = 2, x = 3) of volume
select hot(n: int) over cube for cube = dot(mean(q), mean(k)) where cube.t <= q.t take top n
pattern video over volume = k in hot(3)[q]
"""
IMAGE = """
grid image(y, x = 7)
select near over tiles(y = 3, x = 4) of image per group =
    sum over group: softmax over tile where tile.y <= q.y: scale * dot(q, max(k))
    where not (tile.y == q.y // 3 * 3 and tile.x == q.x // 4 * 4), tile.y <= q.y
    take top 2
pattern local over image = (q.y // 3 == k.y // 3 and q.x // 4 == k.x // 4) or k in near[q]
"""


def tokens_of_tiles(extents, sizes):
    """The tokens of each tile, {first coordinates: numbers of tokens}, in the order of tiles and of tokens."""
    found = {
        at: [] for at in np.ndindex(*(-(-n // m) for n, m in zip(extents, sizes, strict=True)))
    }
    for place, at in enumerate(np.ndindex(*extents)):
        found[tuple(x // m for x, m in zip(at, sizes, strict=True))].append(place)
    firsts = {tuple(x * m for x, m in zip(at, sizes, strict=True)): v for at, v in found.items()}
    return list(firsts.items())


def mean_of(x, some):
    """The mean of rows, added one by one."""
    total = np.zeros(x.shape[1])
    for row in some:
        total += x[row].astype(np.float64)
    return (total / len(some)).astype(np.float32)


def drawn(seed, *shape, integers):
    random = torch.Generator().manual_seed(seed)
    made = torch.randint(-2, 3, shape, generator=random).float()
    return made if integers else torch.randn(shape, generator=random)


def dense(q, k, v, seen):
    """Attention over pairs, float64; rows without keys are 0."""
    k, v = (x.double().repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = (q.double() @ k.mT * q.shape[3] ** -0.5).masked_fill(~seen, -math.inf)
    return scores.softmax(-1).nan_to_num(0.0) @ v


@pytest.mark.parametrize("integers", [False, True], ids=["random", "ties"])
@pytest.mark.parametrize("extents", [(3, 4, 7), (1, 1, 1), (2, 5, 3)])
def test_cubes_of_a_video_choose_cubes_by_their_means(extents, integers):
    length = math.prod(extents)
    x, y, z = (drawn(i, 2, 2, length, 4, integers=integers) for i in range(3))
    x, y, z = (each.requires_grad_() for each in (x, y, z))
    cubes = tokens_of_tiles(extents, (2, 2, 3))
    p, given = attndsl.compile(VIDEO), dict(zip("tyx", extents, strict=True))
    selection = p.select(x, y, extents=given)
    assert selection["hot"].shape == (2, 2, len(cubes), 3)
    seen = torch.zeros(2, 2, length, length, dtype=torch.bool)
    for b, h, row in np.ndindex(2, 2, len(cubes)):
        mine, own = cubes[row]
        rows = x[b, h].detach().numpy(), y[b, h].detach().numpy()
        scores = {
            n: dot(mean_of(rows[0], own), mean_of(rows[1], some))
            for n, (first, some) in enumerate(cubes)
            if first[0] <= mine[0]
        }
        chosen = top(scores, 3)
        assert listed(selection["hot"][b, h, row].numpy()) == chosen
        for n in chosen:
            seen[b, h, torch.tensor(own)[:, None], torch.tensor(cubes[n][1])] = True
    assert torch.equal(p.mask(length, heads=2, batch=2, extents=given, hot=selection["hot"]), seen)
    out, expected = p(x, y, z, extents=given), dense(x, y, z, seen)
    torch.testing.assert_close(out.double(), expected, **NEAR)
    mine = torch.autograd.grad(out.sum(), (x, y, z))
    for one, other in zip(mine, torch.autograd.grad(expected.sum(), (x, y, z)), strict=True):
        torch.testing.assert_close(one, other, **NEAR)


@pytest.mark.parametrize("length", [49, 35, 7])
def test_queries_of_a_group_choose_tiles_of_an_image(length):
    x, y, z = (drawn(3 + i, 1, (4, 2, 2)[i], length, 4, integers=False) for i in range(3))
    y[0, 0, length // 2, 0] = math.nan
    tiles = tokens_of_tiles((length // 7, 7), (3, 4))
    p = attndsl.compile(IMAGE)
    last, steps = p.select(x, y)["near"], 3
    for g, i in np.ndindex(2, length):
        row, column = divmod(i, 7)
        shares = dict.fromkeys((n for n, (first, _) in enumerate(tiles) if first[0] <= row), 0.0)
        for h in (2 * g, 2 * g + 1):
            keys = y[0, g].numpy()
            values = {n: dot(x[0, h, i].numpy(), keys[tiles[n][1]].max(0)) / 2 for n in shares}
            has_nan = any(math.isnan(value) for value in values.values())
            found = dict.fromkeys(shares, math.nan) if has_nan else softmax(values)
            shares = {n: shares[n] + found[n] for n in shares}
        own = row // 3 * 3, column // 4 * 4
        others = {n: share for n, share in shares.items() if tiles[n][0] != own}
        assert listed(last[0, g, i].numpy()) == top(others, 2)
    few = p.select(x[:, :, -steps:], y)["near"]  # a step sees what the last rows of the whole do
    assert torch.equal(few, last[:, :, -steps:])
    seen = p.mask(length, heads=4, near=last.repeat_interleave(2, 1))
    y = y.nan_to_num(0.0)
    out = p(x, y, z, near=last.repeat_interleave(2, 1))
    torch.testing.assert_close(out.double(), dense(x, y, z, seen), **NEAR)


def test_tiles_of_many_tokens_are_lists_of_keys_in_the_order_of_tiles(caplog):
    p = attndsl.compile("""
        grid image(y, x = 30)
        select past(n: int) over tiles(y = 7, x = 8) of image = dot(q, mean(k)) where tile.y <= q.y take top n
        pattern local over image = k <= q and (q - k < 3 or k in past(2)[q])
    """)
    length = 30 * 36
    x, y, z = (drawn(7 + i, 1, 2, length, 8, integers=False).requires_grad_() for i in range(3))
    with caplog.at_level("INFO"):
        out = p(x, y, z)
    assert "lists of keys" in caplog.text
    expected = dense(x, y, z, p.mask(length, heads=2, past=p.select(x, y)["past"]))
    torch.testing.assert_close(out.double(), expected, **NEAR)
    seed = drawn(10, *out.shape, integers=False)
    mine = torch.autograd.grad(out, (x, y, z), seed)
    for one, other in zip(
        mine, torch.autograd.grad(expected, (x, y, z), seed.double()), strict=True
    ):
        torch.testing.assert_close(one, other, **NEAR)


def test_the_python_form_of_tiles_is_that_of_the_text():
    cube = s.tiles(attndsl.grid("volume", "t", "y", "x"), t=2, y=2, x=3)
    past = cube.first("t") <= cube.queries.first("t")
    score = product(cube.queries.mean(), cube.mean())
    hot = s.select("hot", score, s.top(3), over=cube, rows=cube, where=past)
    video = attndsl.pattern(lambda: k.isin(hot[q]), over=attndsl.grid("volume", "t", "y", "x"))
    one, other = attndsl.compile(video()), attndsl.compile(VIDEO)
    assert one.ir.selections == other.ir.selections
    assert one.digest == other.digest
    assert pickle.loads(pickle.dumps(other)).ir.selections == other.ir.selections
    with pytest.raises(AttnDslError, match=r"there is no `volume\.x`: the pattern has no space"):
        attndsl.compile(k.isin(hot[q]))
    with pytest.raises(AttnDslError, match="this is about tiles of 2 x 2 x 3 of queries"):
        s.select("odd", score, s.top(3), over=cube, rows=cube, where=cube.first("t") <= q.t)
    with pytest.raises(AttnDslError, match="a size along each axis, here `t`, `y` and `x`"):
        s.tiles(attndsl.grid("volume", "t", "y", "x"), t=2)


@pytest.mark.parametrize(
    ("said", "instead", "message"),
    [
        ("of volume\n", "of volum\n", "there is no grid `volum`"),
        ("x = 3)", "x = 3, z = 1)", "a tile of `volume` has no axis `z`"),
        ("y = 2, ", "", "and none along `y`"),
        ("x = 3)", "x = 0)", "a size of tiles is a known int from 1 to 2\\*\\*20, not 0"),
        ("cube.t <= q.t", "cube.start <= 3", "only `q` and `k` have coordinates"),
        ("cube.t <= q.t", "cube.t <= q", "write `q.t`, `q.y`, `q.x` or `q.index`"),
        ("cube.t <= q.t", "k.t <= q.t", "write `cube.t`, `cube.y`, `cube.x` or `cube`"),
        ("dot(mean(q), mean(k))", "sum over queries: dot(q, mean(k))", "queries of a tile are not folded"),
        ("dot(mean(q), mean(k))", "antidiagonal(q, k)", "antidiagonals are those of blocks"),
        ("over volume =", "=", "write `over volume`"),
        ("tiles(t", "boxes(t", "there are no units `boxes`"),
    ],
)  # fmt: skip
def test_tiles_that_cannot_be_are_refused_where_they_are_written(said, instead, message):
    assert said in VIDEO
    with pytest.raises(AttnDslError, match=message) as refused:
        attndsl.compile(VIDEO.replace(said, instead))
    assert "-->" in str(refused.value)


def test_calls_that_do_not_fit_the_grid_are_refused():
    p = attndsl.compile(VIDEO)
    x = torch.randn(1, 1, 24, 4)
    selection = p.select(x, x, extents={"t": 2, "y": 3, "x": 4})
    with pytest.raises(AttnDslError, match="made for another call") as refused:
        p(x, x, x, selection=selection, extents={"t": 2, "y": 4, "x": 3})
    assert "volume.y" in str(refused.value)
    with pytest.raises(AttnDslError, match="chooses for tiles of 'volume', 24 queries, and this"):
        p.select(x[:, :, 4:], x, extents={"t": 2, "y": 3, "x": 4})
    with pytest.raises(AttnDslError, match="extent"):
        p.select(x, x)


def test_tiles_that_end_before_the_query_are_proved_causal():
    text = """
    grid volume(t, y, x)
    select early over tiles(t = 2, y = 2, x = 2) of volume = dot(q, mean(k)) where {} take top 2
    pattern p over volume = k in early[q]
    """
    told = attndsl.claims.leaks
    for where in ("tile.t + 2 <= q.t", "tile.t // 2 < q.t // 2"):
        assert told(attndsl.compile(text.format(where)).ir.selections[0]) == ()
    assert told(attndsl.compile(text.format("tile.t <= q.t")).ir.selections[0])
