"""Lengths, extents and saved patterns: what is inferred, and what each mistake is told."""

from pathlib import Path

import pytest

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


def more_queries_than_tokens():
    ir.resolve_sizes(mask(IMAGE), 14, 12, {"x": 4})


def too_large():
    program = Program(mask("pattern p = q * q * q * q * q * q * k < 7"))
    program.schedule(program.call(4096, 4096, 1, 1, None, {}), (64, 64))


def no_tile():
    attndsl.compile("causal").schedule(64, tile=(0, 8))


def too_wide():
    program = Program(mask("pattern p = any j in 0..len(k): q == k + 2 * j"))
    program.schedule(program.call(5000, 5000, 1, 1, None, {}), (64, 64))


def fewer_than_no_zeros():
    attndsl.compile("pattern p = causal zeros 3 - q").zero_keys(6)


def too_many_zeros():
    attndsl.compile("pattern p = causal zeros q * pow2(60)").zero_keys(6)


def not_saved():
    ir.load('{"format": 1, "nodes": [["Import", "os"]]}')


MISTAKES = [two_unknown, does_not_fill, misspelt_axis, more_queries_than_tokens]
MISTAKES += [too_large, no_tile, too_wide, fewer_than_no_zeros, too_many_zeros, not_saved]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake, golden):
    with pytest.raises(attndsl.AttnDslError) as caught:
        mistake()
    golden(GOLDEN / f"{mistake.__name__}.err", str(caught.value) + "\n")
