import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attndsl.source import NOWHERE, Source, Span


def test_lines_and_columns_count_from_one():
    source = Source("a.attn", "one\ntwo\n\nfour")
    assert source.locate(0) == (1, 1)
    assert source.locate(3) == (1, 4)  # the newline belongs to its line
    assert source.locate(4) == (2, 1)
    assert source.locate(8) == (3, 1)
    assert source.locate(13) == (4, 5)  # the end
    assert source.locate(99) == (4, 5)
    assert source.locate(-1) == (1, 1)
    assert [source.line(number) for number in (1, 2, 3, 4)] == ["one", "two", "", "four"]


@pytest.mark.parametrize("line", [0, 3, -1])
def test_a_line_that_is_not_there_is_refused(line: int):
    with pytest.raises(IndexError, match=f"a.attn has 2 lines, not {line}"):
        Source("a.attn", "one\ntwo").bounds(line)


@given(st.text(alphabet="ab\n"))
def test_offsets_follow_from_lines_and_columns(text: str):
    source = Source("t", text)
    for offset in range(len(text) + 1):
        line, column = source.locate(offset)
        assert (line, column) == (
            text[:offset].count("\n") + 1,
            offset - text.rfind("\n", 0, offset),
        )
        start, stop = source.bounds(line)
        assert start + column - 1 == offset
        assert text[start:stop] == text.split("\n")[line - 1]


def test_a_span_knows_its_text_and_prints_as_a_clickable_place():
    span = Span(Source("dir/a.attn", "one\n  two"), 6, 9)
    assert (span.text, span.line, span.column, str(span)) == ("two", 2, 3, "dir/a.attn:2:3")
    assert Span(span.source, 0, 3).to(span).text == "one\n  two"
    assert str(NOWHERE) == "<nowhere>:1:1"


def test_equal_sources_are_equal_whether_or_not_their_lines_were_counted():
    one, two = Source("a", "x\ny"), Source("a", "x\ny")
    assert one.locate(2) == (2, 1)
    assert one == two
    assert hash(one) == hash(two)
    assert pickle.loads(pickle.dumps(Span(one, 2, 3))) == Span(two, 2, 3)
    assert "\n" not in repr(Span(one, 0, 1))
