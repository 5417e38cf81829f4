"""Notebooks show pictures with words, every text escaped."""

import html
import re
import xml.etree.ElementTree as ET

import attndsl

HOSTILE = '## <script>alert(1)</script> & "quotes"\npattern p(w: int = 4) = 0 <= q - k < w\n'


def texts(page: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(page).iter()]


def test_a_pattern_shows_its_words_and_its_mask():
    page = attndsl.compile(HOSTILE)._repr_html_()
    assert "<script>" not in page
    shown = texts(page)  # well formed, too
    assert '<script>alert(1)</script> & "quotes"' in shown
    assert "p" in shown
    assert {"q", "k", "allowed", "not allowed"} <= set(shown)
    assert any(re.fullmatch(r"32 queries × 32 keys, .* allowed", text) for text in shown)


def test_a_pattern_that_cannot_be_drawn_says_why():
    pattern = attndsl.compile("input big: int[100_000, 100_000]\npattern p = big[q, k] == 1")
    assert "no picture: input `big` would have" in pattern._repr_html_()


def test_an_attention_shows_its_text_and_the_masks_of_its_parts():
    page = attndsl.compile("gpt_oss", w=8)._repr_html_()
    assert page.count("<svg") == 1
    assert "mass" in page
    texts(page)


def test_a_schedule_prints_a_summary_and_shows_its_tiles():
    schedule = attndsl.compile("causal").schedule(1000, tile=(128, 128))
    assert repr(schedule) == (
        "<Schedule of 1,000 queries x 1,000 keys in tiles of 128 x 128: 28 full and 8 partial of 64, 1 plan>"
    )
    page = schedule._repr_html_()
    assert {"q", "k", "full: no mask", "partial: masked", "empty: skipped"} <= set(texts(page))


def test_a_schedule_of_several_plans_prints_and_shows_them():
    schedule = attndsl.compile("causal and (head == 0 or q - k < 64)").schedule(512, heads=2)
    assert "2 plans" in repr(schedule)
    assert texts(schedule._repr_html_())


def test_results_that_are_words_keep_their_layout():
    verdict = attndsl.equivalent("causal", "k < q")
    page = verdict._repr_html_()
    assert html.unescape(page) == f"<pre>{verdict}</pre>"
    report = attndsl.verify("causal", seconds=0.01)
    assert html.unescape(report._repr_html_()) == f"<pre>{report}</pre>"
