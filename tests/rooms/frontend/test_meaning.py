"""Random programs: what the compiler builds means what an interpreter of the text says."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings

import attndsl
from attndsl import frontend, ir
from attndsl import syntax as syn
from attndsl.cli import main
from attndsl.source import AttnDslError
from attndsl.testing import Program, programs

from .interpreter import interpreted


def elaborated(module: syn.Module) -> ir.Mask:
    try:
        return frontend.elaborate(module)
    except AttnDslError as error:
        # A divisor that turns out to be a constant: the one fault the generator cannot rule out.
        assume(error.code != "A302")
        raise


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(programs())
def test_a_program_means_what_its_text_says(program: Program):
    module = syn.parse(program.text)
    mask = elaborated(module)
    call = (
        mask, program.q_len, program.k_len, program.sizes, program.tables,
        program.batch, program.heads, program.layer,
    )  # fmt: skip
    pairs, zeros = interpreted(program, module)
    if mask.is_placed and mask.align is ir.Align.END:  # no query stands before the first token
        absent = max(0, program.q_len - program.k_len)
        pairs[:, :, :absent], zeros[:, :, :absent] = False, 0
    assert (ir.meaning(*call) == pairs).all(), ir.show(mask.root)
    assert (ir.zero_keys(*call) == zeros).all(), ir.show(mask.zeros)


EARLY = "pattern early(w: int = 2) where layer < 3, w <= 9 = 0 <= q - k < w\n"


def test_a_constraint_on_the_layer_is_judged_for_the_layer_that_is_compiled(tmp_path: Path):
    assert attndsl.compile(EARLY, layer=2).mask(4).sum() == 7
    with pytest.raises(AttnDslError, match=r"(?s)A301.*`layer < 3`.*layer = 3") as refused:
        attndsl.compile(EARLY, layer=3)
    assert refused.value.diagnostics[0].span.line == 1
    path = tmp_path / "early.attn"
    path.write_text(EARLY, encoding="utf-8")
    for words in ("check --seconds 0.01", "show", "explain", "emit"):
        assert main([*words.split(), str(path), "--layer", "3"]) == 2


def test_what_a_list_must_satisfy_entry_by_entry_is_judged():
    text = "pattern p(ends: list) where all i in 1..len(ends): ends[i - 1] <= ends[i] = k in ends"
    assert attndsl.compile(text, ends=[3, 3, 9]).mask(4)[0, 0, 0].tolist() == [0, 0, 0, 1]
    assert attndsl.compile(text, ends=[]).ir.root is ir.FALSE
    with pytest.raises(AttnDslError, match=r"(?s)A301.*`p` needs this.*ends = \[3, 9, 4\]"):
        attndsl.compile(text, ends=[3, 9, 4])


def test_a_constraint_on_the_layer_is_trusted_in_a_branch_that_may_not_be_taken():
    text = EARLY + "pattern p = if layer < 3 then early else causal"
    assert attndsl.compile(text, layer=3).mask(3).sum() == 6
    assert attndsl.compile(text, layer=0).mask(3).sum() == 5
