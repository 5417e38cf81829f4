"""Lengths, extents and saved patterns: what is inferred, and what each mistake is told."""

from pathlib import Path

import pytest
import torch

import attndsl
from attndsl import frontend, ir
from attndsl import syntax as syn
from attndsl.compiler import Program

GOLDEN = Path(__file__).parents[2] / "golden" / "errors" / "A4"
IMAGE = "grid image(y, x)\npattern p over image = q.y == k.y"


def mask(text: str) -> ir.Mask:
    return frontend.elaborate(syn.parse(text))


def test_the_one_unknown_extent_follows_from_the_length():
    assert ir.resolve_sizes(mask(IMAGE), 12, 12, {"x": 4})["image.y"] == 3
    joint = mask("space s = text(5) ++ image(y=2, x)\npattern p over s = q in text or k in image")
    assert ir.resolve_sizes(joint, 11, 11)["image.x"] == 3


BETWEEN = "grid tokens(n)\nspace s = meta(m) ++ tokens\npattern p over tokens -> s = k.n == -1"


@pytest.mark.parametrize("extent", ["2", 2.0, True, None, [2]])
def test_an_extent_is_an_integer(extent: object):
    for asked in (attndsl.compile(IMAGE).mask, attndsl.compile(IMAGE).schedule):
        with pytest.raises(attndsl.AttnDslError, match="extent of 'y' must be an integer"):
            asked(4, extents={"y": extent})


def test_an_extent_that_two_spaces_share_follows_from_either():
    for extents in (None, {"m": 4}, {"n": 6}, {"m": 4, "n": 6}):
        sizes = ir.resolve_sizes(mask(BETWEEN), 6, 10, extents)
        assert (sizes["meta.m"], sizes["tokens.n"]) == (4, 6)


def test_extents_that_contradict_a_length_are_refused_everywhere():
    p = attndsl.compile(BETWEEN)
    q, k = torch.zeros(1, 1, 3, 8), torch.zeros(1, 1, 10, 8)
    calls = [lambda: p.mask(3, 10, extents={"m": 4}), lambda: p.schedule(3, 10, extents={"m": 4})]
    calls += [
        lambda name=name: p(q, k, k, extents={"m": 4}, backend=name)
        for name in ("reference", "blocked")
    ]
    for call in calls:
        with pytest.raises(attndsl.AttnDslError, match="A401"):
            call()


@pytest.mark.parametrize("given", [{"latent.g": 3, "data.g": 2}, {"latent.g": 2, "data.g": 3}])
def test_a_dim_of_two_axes_of_one_name_has_the_extent_of_both(given: dict[str, int]):
    made = mask(
        "grid latent(g, m)\ngrid data(g, n)\ninput t: bool[g]\n"
        "pattern p over latent -> data = t[q.g] and t[k.g]"
    )
    for size in (2, 3):
        with pytest.raises(attndsl.AttnDslError, match="A501"):
            ir.resolve_sizes(made, 6, 6, given, {"t": (size,)})


def test_the_keys_alone_tell_the_extents_of_a_space_that_queries_are_a_part_of():
    p = attndsl.compile("grid g(y=2, x)\npattern p over g align start = q.y == k.y")
    assert p.mask(4, 8)[0, 0].int().tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]] * 4
    below = attndsl.compile("grid g(y=2, x)\npattern p over g align start = k.y <= 1")
    assert below.mask(4, 8).sum() == below.schedule(4, 8).cover().sum() == 32
    make = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, n, 8, generator=make) for n in (4, 8, 8))
    assert torch.allclose(p(q, k, v, backend="blocked"), p(q, k, v, backend="reference"), atol=1e-6)
    with pytest.raises(attndsl.AttnDslError, match="A402"):
        p.mask(9, 8)


JOINT = "space s = text(i) ++ image(y, x)\npattern p over s = k in text or q.y == k.y"


@pytest.mark.parametrize(
    ("extents", "length", "count"),
    [
        ({"i": 0, "y": 2}, 6, 18),
        ({"y": 0, "x": 3}, 6, 36),
        ({"y": 0, "i": 6}, 6, 36),
        ({"i": 0, "y": 0}, 0, 0),
    ],
)
def test_segments_may_be_empty(extents: dict[str, int], length: int, count: int):
    p = attndsl.compile(JOINT)
    assert p.mask(length, extents=extents).sum() == count
    assert p.schedule(length, extents=extents, tile=(4, 4)).cover().sum() == count
    x = torch.ones(1, 1, length, 8)
    assert torch.allclose(p(x, x, x, extents=extents), x)


def test_what_an_empty_segment_leaves_open_follows_from_elsewhere():
    made = mask("grid g(n)\nspace s = a(n=3) ++ b(i, m)\npattern p over s -> g = k.n >= 0")
    assert ir.resolve_sizes(made, 3, 2, {"i": 0})["b.m"] == 0
    with pytest.raises(attndsl.AttnDslError, match="A401"):
        ir.resolve_sizes(made, 4, 2, {"i": 0})


def test_saved_patterns_come_back():
    for text in (
        IMAGE,
        "pattern p = any j in 0..9: q - k == pow2(j)",
        "pattern p = window(3) or k < 4",
        "input t: int[batch, q]\npattern p = k < 4 zeros if q < 4 then t[q] else len(k)",
        "pattern p = q < 3 zeros if q < 3 then 1 else 0",  # the root is a part of the count
    ):
        made = mask(text)
        assert ir.load(ir.dump(made)) == made


def two_unknown():
    ir.resolve_sizes(mask(IMAGE), 12, 12)


def does_not_fill():
    ir.resolve_sizes(mask(IMAGE), 13, 13, {"x": 4})


def misspelt_axis():
    ir.resolve_sizes(
        mask("grid image(yy, xx)\npattern p over image = q.yy == k.yy"), 4, 4, {"yz": 2}
    )


def contradicting():
    ir.resolve_sizes(mask(BETWEEN), 3, 10, {"m": 4})


def more_queries_than_tokens():
    ir.resolve_sizes(mask(IMAGE), 14, 12, {"x": 4})


def too_large():
    program = Program(mask("pattern p = q * q * q * q * q * q * k < 7"))
    program.schedule(program.call(4096, 4096, 1, 1, None, {}), (64, 64))


def no_tile():
    attndsl.compile("causal").schedule(64, tile=(0, 8))


def too_wide():
    program = Program(mask("pattern p = any j in 0..len(k): q == k * j"))
    program.schedule(program.call(5000, 5000, 1, 1, None, {}), (64, 64))


def fewer_than_no_zeros():
    attndsl.compile("pattern p = causal zeros 3 - q").zero_keys(6)


def too_many_zeros():
    attndsl.compile("pattern p = causal zeros q * pow2(60)").zero_keys(6)


def not_saved():
    ir.load('{"format": 1, "nodes": [["Import", "os"]]}')


MISTAKES = [two_unknown, does_not_fill, contradicting, misspelt_axis, more_queries_than_tokens]
MISTAKES += [too_large, no_tile, too_wide, fewer_than_no_zeros, too_many_zeros, not_saved]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake, golden):
    with pytest.raises(attndsl.AttnDslError) as caught:
        mistake()
    golden(GOLDEN / f"{mistake.__name__}.err", str(caught.value) + "\n")
