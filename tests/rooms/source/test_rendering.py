import re
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attndsl.source import Diagnostic, Label, Source, Span, render, render_all
from tests.support.work import within


def span_of(source: Source, text: str, nth: int = 0) -> Span:
    start = -1
    for _ in range(nth + 1):
        start = source.text.index(text, start + 1)
    return Span(source, start, start + len(text))


def one(source: Source, span: Span, text: str = "here") -> str:
    return render(Diagnostic("A201", "title", (Label(span, text),)))


def expect(text: str) -> str:
    return dedent(text).strip("\n")


def test_the_shape_of_an_error():
    source = Source("local.attn", "pattern local(w) =\n\n    causal & window(w)\n")
    labels = (
        Label(span_of(source, "(w)", 1), "expected at least 1"),
        Label(span_of(source, "w"), "`w` is 0 in this use", primary=False),
    )
    fault = Diagnostic(
        "A203",
        "window needs a positive size",
        labels,
        ("window(0) keeps none",),
        ("write `nothing`\nif you mean no keys",),
    )
    assert render(fault) == expect(
        """
        error[A203]: window needs a positive size
         --> local.attn:3:20
          |
        1 | pattern local(w) =
          |               - `w` is 0 in this use
        2 |
        3 |     causal & window(w)
          |                    ^^^ expected at least 1
          |
          = note: window(0) keeps none
          = help: write `nothing`
                  if you mean no keys
        """
    )


def test_without_labels_only_title_and_remarks_remain():
    assert render(Diagnostic("A401", "t")) == "error[A401]: t"
    assert render(Diagnostic("A401", "t", notes=("n",))) == "error[A401]: t\n  = note: n"


def test_lines_far_apart_are_joined_by_dots_and_numbers_are_aligned():
    source = Source("a", "first\n" + "x\n" * 10 + "last\n")
    labels = (Label(span_of(source, "last"), "two"), Label(span_of(source, "first"), "one"))
    assert render(Diagnostic("A201", "t", labels)) == expect(
        """
        error[A201]: t
          --> a:12:1
           |
         1 | first
           | ^^^^^ one
        ...
        12 | last
           | ^^^^ two
        """
    )


def test_labels_of_one_line_hang_below_each_other():
    source = Source("a", "f(x, yy, z)")
    labels = (
        Label(span_of(source, "x"), "first", primary=False),
        Label(span_of(source, "yy"), "second"),
        Label(span_of(source, "z"), "third", primary=False),
    )
    assert render(Diagnostic("A201", "t", labels)).split("\n")[3:] == [
        "1 | f(x, yy, z)",
        "  |   -  ^^  - third",
        "  |   |  second",
        "  |   first",
    ]


def test_a_label_inside_another_keeps_both_texts():
    source = Source("a", "abc + d")
    labels = (
        Label(Span(source, 0, 7), "the sum", primary=False),
        Label(Span(source, 6, 7), "the last"),
    )
    assert render(Diagnostic("A201", "t", labels)).split("\n")[4:] == [
        "  | ------^ the last",
        "  | the sum",
    ]


def test_a_label_over_several_lines_marks_the_first_and_the_last():
    source = Source("a", "if a\n  then b\n  else c\n")
    assert one(source, Span(source, 3, 22)).split("\n")[3:] == [
        "1 | if a",
        "  |    ^",
        "2 |   then b",
        "3 |   else c",
        "  |   ^^^^^^ here",
    ]


def test_an_empty_span_still_gets_a_caret():
    source = Source("a", "pattern a =\n")
    assert one(source, Span(source, 11, 11)).split("\n")[3:] == [
        "1 | pattern a =",
        "  |            ^ here",
    ]
    assert one(Source("a", ""), Span(Source("a", ""), 0, 0)).split("\n")[1:] == [
        " --> a:1:1",
        "  |",
        "1 |",
        "  | ^ here",
    ]


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("\tX", 4),
        ("ab\tX", 4),
        ("abcd\tX", 8),
        ("# 窓 X", 5),  # wide: two columns
        ("# e\u0301 X", 4),  # combining: none
        ("# 👩\u200d🔬 X", 7),
        ("\x1b[31mX", 5),  # an escape is shown, not obeyed
        ("\u202eX", 1),
    ],
)
def test_the_caret_stands_under_its_character(line: str, column: int):
    source = Source("a", line)
    rows = one(source, span_of(source, "X")).split("\n")
    assert rows[4] == "  | " + " " * column + "^ here"
    assert "\x1b" not in rows[3]
    assert "\u202e" not in rows[3]
    assert "\t" not in rows[3]


@pytest.mark.parametrize("at", [0, 3, 50, 95, 96, 97, 500, 10_000 - 1])
def test_a_long_line_is_windowed_around_the_caret(at: int):
    text = "." * at + "X" + "." * (10_000 - at - 1)
    source = Source("a", text)
    _, place, _, line, marks = one(source, Span(source, at, at + 1)).split("\n")
    assert place == f" --> a:1:{at + 1}"
    assert len(line) <= 4 + 96 + 4
    assert line[marks.index("^")] == "X"


def test_a_long_label_is_clipped_to_the_window():
    source = Source("a", "x" * 5_000)
    line, marks = one(source, Span(source, 0, 5_000)).split("\n")[3:]
    assert line.endswith("x ...")
    assert marks == "  | " + "^" * (len(line) - 8) + " here"


def test_labels_in_another_file_follow_in_their_own_excerpt():
    here, there = Source("a.attn", "import x"), Source("b.attn", "pattern x = 1")
    labels = (
        Label(Span(there, 8, 9), "defined here", primary=False),
        Label(Span(here, 7, 8), "imported here"),
    )
    assert render(Diagnostic("A201", "t", labels)) == expect(
        """
        error[A201]: t
         --> a.attn:1:8
          |
        1 | import x
          |        ^ imported here
         ::: b.attn:1:9
          |
        1 | pattern x = 1
          |         - defined here
        """
    )


def test_colour_only_decorates():
    source = Source("a", "f(x, y)\ng(y)\n")
    labels = (Label(span_of(source, "x"), "one"), Label(span_of(source, "y"), "two", primary=False))
    fault = Diagnostic("A201", "t", labels, ("n",), ("h",))
    plain, coloured = render(fault), render(fault, colour=True)
    assert "\x1b" not in plain
    assert "\x1b[1;31m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain
    assert render_all((fault, fault), colour=True) == f"{coloured}\n\n{coloured}"


def test_what_the_user_wrote_cannot_break_the_lines_of_a_message():
    fault = Diagnostic("A201", "no name `a\rb\x1b[2J`", notes=("a\x00b",))
    assert render(fault) == "error[A201]: no name `a␍b␛[2J`\n  = note: a␀b"


def test_a_megabyte_in_one_line_is_no_trouble():
    source = Source("a", "x" * 1_000_000)
    text = within(10_000, lambda: one(source, Span(source, 999_000, 999_001)))
    assert len(text) < 500


@given(st.text(), st.data())
def test_any_span_of_any_text_renders_with_its_mark(text: str, data: st.DataObject):
    source = Source("a", text)
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, len(text)))
    rows = one(source, Span(source, start, stop)).split("\n")
    assert (
        rows[1]
        == f"{rows[1].split('-->')[0]}--> a:{source.locate(start)[0]}:{source.locate(start)[1]}"
    )
    assert any(re.fullmatch(r" +\|  *\^+ here", row) for row in rows)
    assert all(row == row.rstrip() or "|" in row for row in rows)
