"""Laws that must hold for every program: parser, printer, IR, passes, facts, schedules and back ends."""

import numpy as np

import attndsl
from attndsl import frontend, ir
from attndsl import syntax as syn
from attndsl.passes import steps
from attndsl.source import AttnDslError
from attndsl.testing import AttentionProgram, Program
from tests.fuzz.calling import check_call, check_conflicts
from tests.rooms.frontend.interpreter import interpreted

# Reasons for which a program may be refused: numbers and ranges that are too large, a divisor that turns out constant.
REFUSED = ("A302", "A303", "A304", "A305")
VERIFIED = 3  # one program in so many has its facts and other calls judged, which takes longest


def check_text(text: str, seed: int = 0) -> None:
    """Laws that hold for a program whatever it should mean, and what ``verify`` asks.

    Raises:
        AssertionError: with what went wrong.
    """
    mask = check_forms(text)
    if mask is not None:
        report = attndsl.verify(attndsl.compile(mask), seconds=0, seed=seed)
        assert report.ok or report.skipped, str(report)


def check_forms(text: str) -> ir.Mask | None:
    """The mask of a program, which its canonical layout and its saved form give again; None where it is refused.

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
            return None
        raise
    again = frontend.elaborate(syn.parse(printed))
    assert (again.root, again.zeros) == (mask.root, mask.zeros), "formatting changes the meaning"
    assert ir.load(ir.dump(mask)) == mask, "a saved pattern reads back differently"
    return mask


def check_program(program: Program, seed: int = 0) -> None:
    """The text means what an interpreter says; each pass keeps that, and so does the call; ``check_text`` of some."""
    if check_forms(program.text) is None:
        return
    p = attndsl.compile(program.text, layer=program.layer)
    pairs, zeros = interpreted(program, syn.parse(program.text))
    if p.ir.is_placed and p.ir.align is ir.Align.END:  # no query stands before the first token
        absent = max(0, program.q_len - program.k_len)
        pairs[:, :, :absent], zeros[:, :, :absent] = False, 0
    assert np.array_equal(_meaning(p.ir, program), pairs), "the mask is not what the text says"
    for name, made in steps(p.ir):
        assert np.array_equal(_meaning(made, program), pairs), f"{name} changes the meaning"
    check_call(p, program, pairs, zeros, seed)
    check_conflicts(p, program, seed)
    if seed % VERIFIED == 0:
        check_text(program.text, seed)


def check_attention(program: AttentionProgram, seed: int = 0) -> None:
    """Layout, saved and printed forms keep an attention; back ends give what the oracle does, with every gradient."""
    module = syn.parse(program.text)
    printed = syn.format(module)
    assert syn.format(syn.parse(printed)) == printed, "the formatter is not done after one pass"
    made = frontend.elaborate_attention(module)
    assert frontend.elaborate_attention(syn.parse(printed)) == made, (
        "formatting changes the meaning"
    )
    assert ir.load_attention(ir.dump_attention(made)) == made, "a saved one reads back differently"
    report = attndsl.verify(attndsl.compile(made), seconds=0, seed=seed)
    assert report.ok or report.skipped, str(report)


def _meaning(mask: ir.Mask, program: Program) -> np.ndarray:
    return ir.meaning(
        mask, program.q_len, program.k_len, program.sizes, program.tables,
        program.batch, program.heads, program.layer,
    )  # fmt: skip
