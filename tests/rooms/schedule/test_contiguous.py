"""Good orders of equality classes and unions have as few tiles as possible."""

import numpy as np
import pytest

from attndsl.compiler import Program
from attndsl.sources import read_mask


def schedule_of(text: str, length: int, layout: str, extents=None, tile=(16, 16), **inputs):
    program = Program(read_mask(text))
    call = program.call(length, length, 1, 1, extents, inputs)
    made = program.schedule(call, tile, layout)
    assert np.array_equal(made.cover(), program.dense(call)[0, 0])
    return made


GRID = "grid image(y, x)\npattern p over image = "
SHUFFLED = np.random.default_rng(0).permutation(np.repeat(np.arange(4), 64))[None]

CLASSES = {
    "clusters": ("same_cluster", None, {"q_cluster": SHUFFLED[None], "k_cluster": SHUFFLED[None]}),
    "documents": ("documents", None, {"doc": SHUFFLED}),
    "windows of an image": (GRID + "swin(8)", {"y": 16}, {}),
    "a grid over an image": (GRID + "maxvit_grid(8)", {"y": 16}, {}),
    "columns": (GRID + "axial2d(0)", {"y": 16}, {}),
    "residues": ("pattern p = residues(4)", None, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_equality_classes_become_blocks_on_the_diagonal(name: str):
    """256 tokens in classes of 64 (columns: of 16): nothing but FULL tiles, of each class with itself."""
    text, extents, inputs = CLASSES[name]
    natural = schedule_of(text, 256, "natural", extents, **inputs)
    auto = schedule_of(text, 256, "auto", extents, **inputs)
    each = auto.full.nnz // 16  # tiles in a row: those of one class
    rows, columns = auto.full.pairs().T
    assert auto.partial.nnz == 0
    assert np.array_equal(rows // each, columns // each)
    assert auto.full.nnz * 16 * 16 == auto.cover().sum()
    assert auto.full.nnz < natural.full.nnz + natural.partial.nnz


UNIONS = [
    "window(8) or q % 16 == k % 16",
    "causal_window(20) or k < 20 or q < 5",
    "q // 16 == k // 16 or q // 32 == k // 32 + 1 or window(3)",
]


@pytest.mark.parametrize("text", UNIONS)
@pytest.mark.parametrize("layout", ["natural", "auto"])
def test_a_union_visits_each_tile_once(text: str, layout: str):
    made = schedule_of(f"pattern p = {text}", 256, layout)
    tiles = np.concatenate([made.full.pairs(), made.partial.pairs()])
    assert len(np.unique(tiles, axis=0)) == len(tiles)


@pytest.mark.parametrize("text", [*UNIONS, "strided(32)"])
def test_parts_of_a_union_hold_each_pair_once(text: str):
    program = Program(read_mask(f"pattern p = {text}"))
    call = program.call(256, 256, 1, 1, None, {})
    parts = program.tiled(call, "auto", (16, 16))
    count = sum(part.schedules[16, 16].cover().astype(int) for part in parts)
    assert np.array_equal(count, program.dense(call)[0, 0])
