"""Inputs that do not fit: where they were declared, and what to give instead."""

import pytest
import torch

import attndsl
from attndsl import frontend
from attndsl.frontend import k, q
from attndsl.source import AttnDslError

TEXT = """input table: real[head, 4]
input bias: real[batch, k]
input group: int[batch, pos]
attention a over group[q] == group[k] = score s + table[min(abs(q - k), 3)] + bias[k]
"""
ATTENTION = attndsl.compile(TEXT)
Q, K, V = (torch.randn(2, 4, 9, 4) for _ in range(3))
FITTING = {
    "table": torch.zeros(4, 4),
    "bias": torch.zeros(2, 9),
    "group": torch.zeros(2, 9, dtype=torch.long),
}
CASES = {
    "too few dims": ("table", torch.zeros(4), "`table=x[None]`"),
    "heads": ("table", torch.zeros(3, 4), "or there are 4"),
    "columns": ("table", torch.zeros(4, 5), "expected 4"),
    "keys": ("bias", torch.zeros(2, 8), "expected 9"),
    "truth values": ("table", torch.zeros(4, 4, dtype=torch.bool), "`table=x.float()`"),
    "text": ("table", "x", "cannot be read"),
    "nothing": ("bias", None, "cannot be read"),
    "reals for ints": ("group", torch.zeros(2, 9), "`group=x.long()`"),
    "a gradient of ints": ("group", torch.zeros(2, 9, requires_grad=True), "have no gradient"),
    "positions": ("group", torch.zeros(2, 8, dtype=torch.long), "expected 9"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_declaration_is_shown_with_what_to_give_instead(case):
    name, value, told = CASES[case]
    with pytest.raises(AttnDslError) as caught:
        ATTENTION(Q, K, V, inputs={**FITTING, name: value})
    assert caught.value.code == "A501"
    span = caught.value.diagnostics[0].span
    assert span is not None
    assert span.text == next(line for line in TEXT.splitlines() if f"input {name}:" in line)
    assert told in str(caught.value)


def test_an_input_that_is_missing_is_shown_where_it_was_declared():
    with pytest.raises(AttnDslError, match=r"declared here(.|\n)*besides: bias") as caught:
        ATTENTION(Q, K, V, table=FITTING["table"])
    assert caught.value.diagnostics[0].span.text == "input group: int[batch, pos]"


def test_a_pattern_refuses_a_gradient_of_ints():
    pattern = attndsl.compile("input near: int[k]\npattern p = near[k] <= q")
    with pytest.raises(AttnDslError, match=r"(?s)have no gradient.*`x\.detach\(\)\.long\(\)`"):
        pattern(Q, K, V, near=torch.zeros(9, requires_grad=True))


def test_inputs_of_python_are_shown_where_they_were_made():
    rel = frontend.table("rel", "real", "head", 3)
    made = attndsl.Attention(frontend.scored(attndsl.compile(k <= q).ir, lambda s: s + rel[q - k]))
    with pytest.raises(AttnDslError) as caught:
        made(Q, K, V, rel=torch.zeros(4, 2))
    assert caught.value.diagnostics[0].span.text == 'frontend.table("rel", "real", "head", 3)'


def test_reads_outside_are_refused_in_python_too():
    rel = frontend.table("rel", "real", "head", 3)
    with pytest.raises(AttnDslError) as caught:
        frontend.scored(attndsl.compile(k <= q).ir, lambda s: s + rel[k - q - 1])
    assert caught.value.code == "A307"
    assert caught.value.diagnostics[0].span is not None


def test_a_saved_attention_says_how_an_input_was_declared():
    saved = attndsl.Attention(attndsl.ir.load_attention(attndsl.ir.dump_attention(ATTENTION.ir)))
    with pytest.raises(AttnDslError, match=r"declared: table: real\[head, 4\]"):
        saved(Q, K, V, inputs={**FITTING, "table": torch.zeros(3, 4)})
