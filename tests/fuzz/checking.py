"""Laws that must hold for every program: parser, printer, IR, passes, facts, schedules and back ends."""

import numpy as np

import attndsl
from attndsl import frontend, ir
from attndsl import syntax as syn
from attndsl.passes import steps
from attndsl.source import AttnDslError
from attndsl.testing import Program

# Reasons for which a program may be refused: numbers and ranges that are too large, a divisor that turns out constant.
REFUSED = ("A302", "A303", "A304", "A305")


def check_text(text: str, seed: int = 0) -> None:
    """Laws that hold for a program whatever it should mean.

    Raises:
        AssertionError: with what went wrong.
    """
    module = syn.parse(text)
    printed = syn.format(module)
    assert syn.format(syn.parse(printed)) == printed, "the formatter is not done after one pass"
    try:
        mask = frontend.elaborate(module)
    except AttnDslError as error:
        if error.code in REFUSED:
            return
        raise
    again = frontend.elaborate(syn.parse(printed))
    assert (again.root, again.zeros) == (mask.root, mask.zeros), "formatting changes the meaning"
    assert ir.load(ir.dump(mask)) == mask, "a saved pattern reads back differently"
    p = attndsl.compile(mask)
    report = attndsl.verify(p, seconds=0, seed=seed)
    assert report.ok or report.skipped, str(report)


def check_program(program: Program, seed: int = 0) -> None:
    """``check_text``, and each pass keeps the meaning at the lengths of the program."""
    check_text(program.text, seed)
    try:
        mask = frontend.elaborate(syn.parse(program.text))
    except AttnDslError:
        return
    expected = _meaning(mask, program)
    for name, made in steps(mask):
        assert np.array_equal(_meaning(made, program), expected), f"{name} changes the meaning"


def _meaning(mask: ir.Mask, program: Program) -> np.ndarray:
    return ir.meaning(
        mask, program.q_len, program.k_len, program.sizes, program.tables,
        program.batch, program.heads, program.layer,
    )  # fmt: skip
