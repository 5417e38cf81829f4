"""Attentions as text and as JSON: read again, they are the same; what is wrong is refused."""

import json

import pytest
from hypothesis import given, settings

from attndsl import ir, sources
from attndsl.source import AttnDslError
from attndsl.testing import AttentionProgram, attentions

TEXT = """
input bias: real[head, q, k]
input rel: real[head, 5, d]
attention a over image = gate() * (over abs(q.y - k.y) <= 1: score s + dot(q, rel[q.x % 5]) / 3 mass exp(bias[q, 0]))
def gate() = 0.5
"""


@given(attentions())
@settings(max_examples=30)
def test_an_attention_that_is_written_and_read_is_the_same(program: AttentionProgram):
    made = sources.read_attention(program.text)
    loaded = ir.load_attention(ir.dump_attention(made))
    assert loaded == made
    assert (loaded.digest, loaded.name, loaded.doc) == (made.digest, made.name, made.doc)
    assert sources.read_attention(ir.show_attention(made)) == made


def test_spaces_are_written_with_an_attention():
    made = sources.read_attention(TEXT)
    assert sources.read_attention(ir.show_attention(made)) == made
    assert ir.load_attention(ir.dump_attention(made)) == made


def test_the_sign_of_a_remainder_is_written_outside_of_it():
    text = "k == -(q % 3) + 1"
    shown = ir.show(ir.scale(ir.mod(ir.Pos(ir.Side.QUERY), ir.Const(3)), -1))
    assert shown == "-(q % 3)"
    mask = sources.read_mask(text)
    assert sources.read_mask(ir.show(mask.root)).root is mask.root


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("terms", 0, 0), 99),
        (("terms", 0, 2, 0, 1), "softmx"),
        (("terms", 0, 2, 0, 3), 0),
        (("terms", 0, 2, 0, 6), [2, 2]),
        (("tables", 0, 1), "list"),
        (("tables", 0, 0), "other"),
        (("masks", 0, "root"), 10**6),
        (("format",), 7),
        (("extra",), 1),
    ],
)
def test_a_document_that_is_no_attention_is_refused(path: tuple[str | int, ...], value: object):
    document = json.loads(ir.dump_attention(sources.read_attention(TEXT)))
    at = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    with pytest.raises(AttnDslError, match="A405"):
        ir.load_attention(json.dumps(document))


def test_numbers_of_saved_attentions_are_finite_reals():
    text = ir.dump_attention(sources.read_attention(TEXT))
    for wrong in ("Infinity", "1", '"0.5"', "NaN"):
        changed = text.replace('"Number", 0.5', f'"Number", {wrong}')
        assert changed != text
        with pytest.raises(AttnDslError, match="A405"):
            ir.load_attention(changed)
