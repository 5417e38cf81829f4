import copy
import pickle

import pytest

from attndsl.source import (
    AttnDslError,
    Diagnostic,
    InternalError,
    Label,
    Source,
    Span,
    render,
    suggest,
)

SOURCE = Source("a.attn", "pattern a = b\n")
FAULT = Diagnostic("A201", "no name `b`", (Label(Span(SOURCE, 12, 13), "not defined"),))


def test_an_error_reads_as_its_rendering():
    error = AttnDslError(FAULT)
    assert str(error) == render(FAULT)
    assert (error.code, error.diagnostics) == ("A201", (FAULT,))
    assert AttnDslError([FAULT, FAULT]).diagnostics == (FAULT, FAULT)


@pytest.mark.parametrize("kind", [AttnDslError, InternalError])
@pytest.mark.parametrize("again", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_an_error_survives_another_process(kind: type, again):
    error = again(kind((FAULT,)))
    assert type(error) is kind
    assert error.diagnostics == (FAULT,)
    assert str(error) == render(FAULT)


def test_an_error_without_a_fault_is_refused():
    with pytest.raises(ValueError, match="needs a diagnostic"):
        AttnDslError(())


def test_at_most_ten_faults_are_written_out():
    assert str(AttnDslError([FAULT] * 10)).count("error[A201]") == 10
    text = str(AttnDslError([FAULT] * 12))
    assert text.count("error[A201]") == 10
    assert text.endswith("\n\n... and 2 more errors")
    assert str(AttnDslError([FAULT] * 11)).endswith("\n\n... and 1 more error")


def test_our_own_faults_say_that_they_are_ours():
    error = InternalError("a tile was lost")
    assert error.code == "A901"
    assert "a bug in attndsl" in str(error)
    assert isinstance(error, AttnDslError)


def test_the_first_primary_label_is_where_to_look():
    cause, culprit = Span(SOURCE, 0, 7), Span(SOURCE, 8, 9)
    labels = (Label(cause, primary=False), Label(culprit))
    assert Diagnostic("A201", "t", labels).span == culprit
    assert Diagnostic("A201", "t", labels[:1]).span == cause
    assert Diagnostic("A201", "t").span is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("widow", "window"),
        ("Window", "window"),
        ("CAUSAL", "causal"),
        ("zzz", None),
        ("", None),
        ("w" * 65, None),
    ],
)
def test_a_near_name_is_suggested(name: str, expected: str | None):
    assert suggest(name, ["causal", "window", "swin", "window" * 20]) == expected


def test_nothing_is_suggested_from_nothing():
    assert suggest("window", []) is None
