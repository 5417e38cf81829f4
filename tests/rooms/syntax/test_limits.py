"""Hostile and silly programs: an error with a place, soon, and no crash."""

import tracemalloc

import pytest

from attndsl import syntax as syn
from attndsl.source import AttnDslError
from tests.support.work import A_SECOND, within

MANY = 250_000


def fault(text: str) -> tuple[str, AttnDslError]:
    with pytest.raises(AttnDslError) as caught:
        syn.parse(text, "a.attn")
    return caught.value.code, caught.value


@pytest.mark.parametrize(
    "body",
    [
        "(" * MANY,
        "[" * MANY,
        "f(" * MANY,
        "a[" * MANY,
        "not " * MANY,
        "-" * MANY,
        "if a then " * (MANY // 4),
        "if a then b else " * (MANY // 8),
        "let x = 1: " * (MANY // 8),
        "let x = " * (MANY // 4),
        "any j in 0..1: " * (MANY // 8),
        "all j in 0..1: not " * (MANY // 8),
        "q" + ".y" * MANY,
        "q" + "[1]" * MANY,
        "(" * 201 + "k" + ")" * 201,
        "not " * 200 + "k",
        "if a then b else " * 200 + "k",
        "q" + ".y" * 200,
    ],
    ids=lambda body: f"{body[:12]} of {len(body)}",
)
def test_deep_nesting_is_refused_soon_and_with_its_place(body: str):
    syn.parse("")  # not the time to build the parser
    code, error = within(A_SECOND, lambda: fault(f"pattern p = {body}"))
    assert code == "A103"
    assert " --> a.attn:1:" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        "(" * 200 + "k" + ")" * 200,
        "not " * 199 + "k",
        "-" * 199 + "k",
        "if a then b else " * 199 + "k",
        "if a then " * 199 + "k" + " else b" * 199,
        "let x = 1, y = 2: " * 199 + "k",
        "any j in 0..1: " * 198 + "k",
        "q" + ".y" * 199,
        "f(1, n=" * 199 + "k" + ")" * 199,
        "a or b and c < 1 + 2 * -f(1, x=" * 28 + "k" + ")" * 28,
        "(a + (b * " * 99 + "k" + "))" * 99,
    ],
    ids=lambda body: f"{body[:12]} of {len(body)}",
)
def test_all_that_the_limit_allows_is_read_and_written(body: str):
    text = syn.format(syn.parse(f"pattern p = {body}"))
    assert syn.format(syn.parse(text)) == text  # `==` of such trees would exhaust Python's stack


def test_long_chains_are_flat():
    for operator in ("+", "*", "and", "or", "<"):
        (declaration,) = syn.parse(
            f"pattern p = {f' {operator} '.join(['a'] * 10_000)}"
        ).declarations
        assert len(syn.children(declaration.body)) == 10_000


def test_brackets_left_open_in_one_declaration_do_not_count_in_the_next():
    _, error = fault("pattern p = (k\n" * 300)
    assert {diagnostic.code for diagnostic in error.diagnostics} == {"A107"}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("pattern p = a" + "+a" * 200_000, "A102"),
        ("x" * (2**20 + 1), "A102"),
        ("é" * (2**19 + 1), "A102"),
        ("pattern p = " + "9" * 1_000_000, "A105"),
        ("pattern p = " + ")" * 1_000_000, "A101"),
        (" " * 1_000_000 + "&", "A104"),
        ("\n" * 1_000_000 + "&", "A104"),
        ('import "' + "a" * 1_000_000, "A107"),
        ("k" * 1_000_000, "A101"),
        ("pattern p = k & q\n" * 50_000, "A104"),
    ],
    ids=lambda value: f"{value[:15]!r} of {len(value)}",
)
def test_a_large_file_fails_soon_and_shortly(text: str, code: str):
    syn.parse("")
    found, error = within(2 * A_SECOND, lambda: fault(text))
    rendered = str(error)
    assert found == code
    assert len(error.diagnostics) <= 10
    assert len(rendered) < 10_000


def test_a_text_far_too_large_costs_no_memory():
    text = "é" * 50_000_000
    tracemalloc.start()
    try:
        fault(text)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("char", ["\0", "\ud800"])
def test_what_no_file_can_hold_is_refused_in_a_text_too(char: str):
    code, error = fault(f"pattern p = k\n  {char}")
    assert code == "A102"
    assert f"a.attn:2:3\n  |\n2 |   {'␀' if char == chr(0) else chr(0xFFFD)}\n" in str(error)
