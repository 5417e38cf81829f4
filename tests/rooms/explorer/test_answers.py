"""Answers to the page's questions: right, complete, and from the text alone."""

import base64
import math

import numpy as np
import pytest

import attndsl
from attndsl import explorer
from attndsl.explorer import BadQuestion, answer

LOCAL = "pattern local(w: int = 5, g: int = 2) where w >= 1 = k <= q and (q - k < w or k < g)\n"
GRID = "grid image(y, x)\npattern near over image = max(abs(q.y - k.y), abs(q.x - k.x)) <= 1\n"


def cells(picture):
    flat = np.frombuffer(base64.b64decode(picture["cells"]), dtype=np.uint8)
    return flat.reshape(picture["shape"])


def test_all_faults_of_a_text_are_found_and_located():
    text = "pattern a = widow(3)\n\npattern b(w: int) = q.z == w\n"
    found = answer("check", {"text": text})
    places = [text[x["start"] : x["stop"]] for each in found["problems"] for x in each["labels"]]
    assert [each["code"] for each in found["problems"]] == ["A201", "A206"]
    assert places == ["widow", "q.z"]
    assert found["patterns"] == []


def test_faults_of_values_are_found_while_one_types():
    found = answer("check", {"text": "pattern a(w: int = 0) where w >= 1 = q - k < w\n"})
    assert found["problems"]
    assert [each["name"] for each in found["patterns"]] == ["a"]


def test_a_bare_expression_is_a_pattern_and_its_faults_lie_where_they_were_typed():
    text = "causal and widow(3)"
    (fault,) = answer("check", {"text": text})["problems"]
    assert text[fault["labels"][0]["start"] : fault["labels"][0]["stop"]] == "widow"


def test_the_mask_is_that_of_the_pattern():
    found = answer("look", {"text": LOCAL, "values": {"w": 3}, "q_len": 20, "k_len": 20})
    assert np.array_equal(
        cells(found["picture"]), attndsl.compile(LOCAL, w=3).mask(20)[0, 0].numpy()
    )
    assert found["counts"]["pairs"] == int(attndsl.compile(LOCAL, w=3).mask(20).sum())


def test_a_million_tokens_are_looked_at_in_whole_and_in_part():
    length = 1 << 20
    whole = answer("look", {"text": LOCAL, "values": {"w": 4096}, "q_len": length, "k_len": length})
    assert whole["picture"]["step"] * 512 >= length
    window = {"rows": [900_000, 900_040], "columns": [896_000, 896_040]}
    part = answer(
        "look", {"text": LOCAL, "values": {"w": 4096}, "q_len": length, "k_len": length} | window
    )
    q, k = np.ogrid[900_000:900_040, 896_000:896_040]
    assert np.array_equal(cells(part["picture"]), (k <= q) & (q - k < 4096))


@pytest.mark.parametrize("window", [[0, 0], [7, 3], [90, 99], [0, 1000]])
def test_a_window_beyond_the_tokens_shows_those_there_are(window):
    found = answer(
        "look", {"text": LOCAL, "q_len": 8, "k_len": 8, "rows": window, "columns": window}
    )
    (first, stop), shape = found["picture"]["rows"], found["picture"]["shape"]
    assert 0 <= first < stop <= 8
    assert shape == [stop - first, stop - first]


def test_a_query_and_a_key_are_shown_on_their_grid():
    found = answer("sight", {"text": GRID, "extents": {"y": 4, "x": 6}, "query": 8, "key": 23})
    (grid,) = found["keys"]["grids"]
    seen = cells(grid) == 255
    assert np.array_equal(np.argwhere(seen), [[y, x] for y in (0, 1, 2) for x in (1, 2, 3)])
    assert grid["own"] == 8
    assert found["queries"]["runs"] == "16..17, 22..23"


def test_queries_are_the_last_positions_of_the_keys():
    found = answer(
        "sight", {"text": "pattern p = causal\n", "q_len": 3, "k_len": 8, "query": 0, "key": 6}
    )
    assert found["keys"]["count"] == 6
    assert found["keys"]["grids"][0]["own"] == 5
    assert found["queries"]["runs"] == "1..2"
    assert np.flatnonzero(cells(found["queries"]["grids"][0])).tolist() == [6, 7]


def test_two_patterns_differ_first_where_their_masks_do():
    a, b = "pattern a = causal\n", "pattern b = causal and q - k != 40\n"
    found = answer("compare", {"text": a, "q_len": 200, "k_len": 200, "with": {"text": b}})
    assert found["pair"] == {"query": 40, "key": 0, "in": "A"}
    assert (found["only_first"], found["only_second"]) == (160, 0)
    alike = answer("compare", {"text": a, "q_len": 200, "k_len": 200, "with": {"text": a}})
    assert alike["pair"] is None


def test_patterns_of_unlike_spaces_are_refused_in_words():
    found = answer(
        "compare",
        {"text": GRID, "with": {"text": "grid line(y)\npattern a over line = q.y <= k.y\n"}},
    )
    assert found["problems"]


def test_tiles_are_shown_before_and_after_the_chosen_order():
    found = answer("tiles", {"text": "pattern p = q % 16 == k % 16\n", "q_len": 512, "k_len": 512})
    before, after = found["pictures"]
    assert before["full"] == 0
    assert after["partial"] == 0
    assert after["full"] < before["partial"]


def test_costs_and_kernel_are_those_of_the_package():
    question = {"text": LOCAL, "q_len": 256, "k_len": 256}
    found = answer("explain", question)
    assert found["record"]["facts"]["causal"] == "proved"
    assert "def in_pattern(q, k" in answer("kernel", question)["function"]


def test_an_attention_shows_the_pairs_of_its_pattern():
    text = "attention capped(c: real = 30.0) over causal = score c * tanh(s / c)\n"
    assert [each["name"] for each in answer("check", {"text": text})["patterns"]] == ["capped"]
    found = answer(
        "look", {"text": text, "entry": "capped", "values": {"c": 2.5}, "q_len": 8, "k_len": 8}
    )
    assert found["call"]["attention"]
    assert found["counts"]["pairs"] == 36
    explained = answer("explain", {"text": text, "entry": "capped", "q_len": 64})
    assert explained["record"]["q_len"] == 64


def test_exported_python_runs_and_computes_the_pattern():
    question = {"text": LOCAL, "values": {"w": 3}, "q_len": 8, "k_len": 8, "head_dim": 4}
    found = answer("export", question)
    names: dict = {}
    exec(found["python"], names)
    assert names["pattern"] == attndsl.compile(LOCAL, w=3)
    assert names["out"].shape == (1, 1, 8, 4)
    assert base64.b64decode(found["png"]).startswith(b"\x89PNG")
    assert found["svg"].startswith("<svg")


def test_exported_block_mask_code_runs():
    pytest.importorskip("attndsl.flex")
    found = answer("export", {"text": GRID, "extents": {"image.y": 4, "image.x": 6}})
    names: dict = {}
    exec(found["block_mask"], names)
    assert names["block_mask"].shape == (1, 1, 24, 24)


def test_quotes_in_a_text_never_become_code():
    hostile = 'pattern p = k <= q  # """ + __import__("os").abort() + """\n'
    names: dict = {}
    exec(answer("export", {"text": hostile, "q_len": 4, "k_len": 4})["python"], names)
    assert names["pattern"] == attndsl.compile("pattern p = k <= q")


def test_no_file_is_read(tmp_path, monkeypatch):
    (tmp_path / "secret.attn").write_text("pattern secret = k == 41\n")
    monkeypatch.chdir(tmp_path)
    for text in ("secret.attn", "secret.attn:secret", 'import "secret.attn"\npattern p = secret\n'):
        for kind in ("check", "look", "explain", "export"):
            found = answer(kind, {"text": text})
            assert found["problems"], (kind, text)
            assert "41" not in str(found)


SQUARES = "".join(f"let x{i} = x{i - 1} * x{i - 1}: " for i in range(1, 60))


@pytest.mark.parametrize(
    ("text", "extents", "code"),
    [
        (f"pattern p = let x0 = q + k: {SQUARES}x59 > 3\n", {}, "A403"),
        (f"pattern p = {'(' * 20_000}q{')' * 20_000} <= k\n", {}, "A103"),
        (f"pattern p = k < {'9' * 100_000}\n", {}, "A105"),
        ("pattern p = any i in 0..1000000000: (q * i + k) % 7919 == i % 13\n", {}, "A303"),
        ("grid g(y, x)\npattern p over g = q.y == k.y\n", {"g.y": 1 << 20, "g.x": 1 << 20}, "A407"),
    ],
    ids=["squares", "parentheses", "digits", "a range", "extents"],
)
def test_hostile_texts_are_refused_with_a_code(text, extents, code):
    found = answer("look", {"text": text, "extents": extents})
    assert [each["code"] for each in found["problems"]] == [code]


@pytest.mark.parametrize(
    "data",
    [
        None, [], {}, {"text": 3}, {"text": "x" * 300_000}, {"text": "", "wild": 1}, {"text": "", "q_len": 0},
        {"text": "", "q_len": 1 << 30}, {"text": "", "rows": [1]}, {"text": "", "extents": {"y": -1}},
        {"text": "", "values": {"w": {}}}, {"text": "", "heads": True}, {"text": "", "cells": 1e9},
        {"text": "", "values": {"w": math.inf, "v": "x"}},
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused_in_one_sentence(data):
    with pytest.raises(BadQuestion) as error:
        answer("look", data)
    assert "\n" not in str(error.value)


def test_unknown_questions_are_refused():
    with pytest.raises(BadQuestion):
        answer("delete", {"text": LOCAL})


@pytest.mark.parametrize(
    "name", ["swin", "longformer", "causal_window", "gpt_oss", "t5_encoder", "select_moba"]
)
def test_a_published_pattern_brings_all_that_it_needs(name):
    start = explorer.start_of(name)
    found = answer("look", {"text": start.text, "entry": start.entry})
    assert found["call"]["name"] == name


def test_a_file_is_what_it_starts_with(tmp_path):
    (tmp_path / "mine.attn").write_text(LOCAL)
    assert explorer.start_of(str(tmp_path / "mine.attn")).text == LOCAL
    assert explorer.start_of(str(tmp_path / "mine.attn:local")).entry == "local"
    with pytest.raises(attndsl.AttnDslError):
        explorer.start_of("no_such_pattern")
