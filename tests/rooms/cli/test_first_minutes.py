"""The first things that a newcomer does show what they are said to show."""

import argparse
import logging
import re
from pathlib import Path

import pytest
import torch

import attndsl
from attndsl import patterns, settings
from attndsl.cli import main
from attndsl.cli.arguments import complete_names
from attndsl.sources import read_mask

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (text,) = re.findall(r"```attn file=local.attn\n(.*?)```", README, re.DOTALL)
    Path("local.attn").write_text(text, encoding="utf-8")
    return "local.attn"


def test_the_window_of_the_readme_is_visible(local, capsys):
    assert main(["show", local]) == 0
    shown = capsys.readouterr().out
    assert "1,024 queries" in shown
    assert "query 1023 sees 516 keys: 0..3, 512..1023" in shown


def test_the_file_of_the_readme_is_in_its_canonical_layout(local):
    assert main(["fmt", "--check", local]) == 0


def test_an_explanation_fits_80_columns(local, capsys):
    assert main(["explain", local]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "at this cost" in " ".join(" ".join(lines).split())


@pytest.mark.parametrize(
    ("text", "length"), [("window(8)", 32), ("causal and q - k < 100", 256), ("k <= q", 32)]
)
def test_a_length_is_chosen_that_shows_the_numbers_of_a_pattern(text, length):
    assert settings.setting(read_mask(text), settings.Asked()).q_len == length


def test_a_number_that_no_picture_could_show_changes_nothing():
    assert settings.setting(read_mask("q - k < 4096"), settings.Asked()).q_len <= 64


def test_a_log_tells_back_end_and_order(caplog):
    pattern = attndsl.compile("causal and q % 8 == k % 8 and q - k < 500")
    q, k, v = torch.randn(3, 1, 1, 600, 16)
    with caplog.at_level(logging.INFO, logger="attndsl"):
        pattern(q, k, v)
        pattern(q, k, v)
    (said,) = [each.getMessage() for each in caplog.records]
    assert re.fullmatch(
        r"given: 600 queries, 600 keys: back end blocked, tokens in the order .+", said
    )


def test_names_and_files_complete(local):
    argument = argparse.ArgumentParser().add_argument("pattern")
    complete_names(argument)
    assert "swin" in argument.completer("swi")
    assert "local.attn" in argument.completer("loc")
    assert argument.completer("no such") == []


def test_a_file_of_the_library_is_checked_once():
    from attndsl.patterns import entries

    for cached in (entries.entry, entries._signatures):
        cached.cache_clear()
    for name in patterns.published():
        patterns.entry(name)
    assert entries._signatures.cache_info().misses == len(
        {patterns.entry(n).family for n in patterns.published()}
    )


def test_the_file_of_published_attentions_is_checked_once(monkeypatch):
    from attndsl.patterns import scored

    scored._named_signatures.cache_clear()
    seen = []
    original = scored.signatures
    monkeypatch.setattr(
        scored, "signatures", lambda module: seen.append(module) or original(module)
    )
    listed = [patterns.attention_signature(name).name for name in patterns.attentions()]
    assert listed == [*patterns.attentions()]
    assert len(seen) == 1
