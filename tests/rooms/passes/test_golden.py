"""Each pass before and after, as a text and by meaning.

A file of ``golden/passes`` holds programs of one pass, each followed by ``----`` and what it becomes.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from attndsl import frontend, ir
from attndsl import syntax as syn
from attndsl.passes import PIPELINE, steps

GOLDEN = Path(__file__).parents[2] / "golden" / "passes"


def fixtures(name: str) -> Iterator[tuple[str, str]]:
    text = (GOLDEN / f"{name}.attn").read_text(encoding="utf-8")
    for item in text.split("\n====\n"):
        program, _, expected = item.partition("\n----\n")
        yield program.strip(), expected.strip()


def around(name: str, program: str) -> tuple[ir.Mask, ir.Mask]:
    """Input and output of the pass."""
    before = frontend.elaborate(syn.parse(program))
    for step, after in steps(before):
        if step == name:
            return before, after
        before = after
    raise AssertionError(f"no pass {name}")


@pytest.mark.parametrize("name", PIPELINE)
def test_what_each_pass_makes_of_its_examples(name: str, golden):
    shown = [(program, ir.show(around(name, program)[1].root)) for program, _ in fixtures(name)]
    text = "\n====\n".join(f"{program}\n----\n{after}" for program, after in shown)
    golden(GOLDEN / f"{name}.attn", text + "\n")


@pytest.mark.parametrize("name", PIPELINE)
def test_the_examples_are_changed_and_mean_the_same(name: str):
    for program, _ in fixtures(name):
        before, after = around(name, program)
        assert after.root is not before.root, program
        for q_len, k_len in ((12, 12), (6, 20)):
            given = {"y": 2} if before.keys.segments else {}
            sizes = ir.resolve_sizes(before, q_len, k_len, given, {"doc": (k_len,)})
            tables = {"doc": np.arange(k_len)[None] // 5}
            expected, found = (
                ir.meaning(mask, q_len, k_len, sizes, tables, heads=4) for mask in (before, after)
            )
            assert np.array_equal(found, expected), program
