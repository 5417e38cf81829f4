"""`causal and a or b` is told to show later keys; what can be read in no other way is left alone."""

from pathlib import Path

import pytest

import attndsl
from attndsl import library, patterns
from attndsl import syntax as syn
from attndsl.cli import main
from attndsl.frontend import precedence_hint


def hints(source: str, entry: str | None = None, **values: int) -> tuple[str, ...]:
    return attndsl.compile(source, entry=entry, values=values).explanation(64).hints


@pytest.mark.parametrize(
    ("head", "body", "meant", "outside"),
    [
        (
            "pattern p = ",
            "causal and block(8) or global_tokens(4)",
            "causal and (block(8) or global_tokens(4))",
            "global_tokens(4) or causal and block(8)",
        ),
        (
            "pattern p(w: int = 3) = ",
            "k < q and q % 2 == 0 and window(w) or k < 4",
            "k < q and (q % 2 == 0 and window(w) or k < 4)",
            "k < 4 or k < q and q % 2 == 0 and window(w)",
        ),
        (
            "pattern past = k <= q\npattern p = ",
            "q == 5 or head == 0 and past and window(2) or k < 4",
            "past and (q == 5 or head == 0 and window(2) or k < 4)",
            "k < 4 or q == 5 or head == 0 and past and window(2)",
        ),
    ],
)
def test_later_keys_behind_an_or_are_told_with_both_ways_to_say_it(head, body, meant, outside):
    (hint,) = hints(head + body)
    assert f"`{meant}`" in hint
    assert f"`{outside}`" in hint
    written, causal, same = (attndsl.compile(head + text) for text in (body, meant, outside))
    assert written.mask(12, heads=2).equal(same.mask(12, heads=2))
    assert not causal.mask(12, heads=2).triu(1).any()
    assert written.mask(12, heads=2).triu(1).any()


@pytest.mark.parametrize(
    "text",
    [
        "(causal and block(8)) or global_tokens(4)",
        "global_tokens(4) or causal and block(8)",
        "causal and (block(8) or global_tokens(4))",
        "causal and block(8) or k <= q and k < 4",
        "causal_window(8) and q % 2 == 0 or window(2)",
        "q == k and head == 0 or window(3)",
        "window(3) and causal or k < 4",
        "causal or k < 4",
        "full",
    ],
)
def test_there_is_no_false_alarm(text: str):
    assert hints(text) == ()


def test_no_pattern_of_ours_raises_it():
    prelude = syn.parse(patterns.source(), "prelude.attn")
    texts = [(prelude, name) for name in patterns.names()]
    texts += [(patterns.module_of(name), name) for name in library.names()]
    for module, name in texts:
        assert precedence_hint(module, name) is None, name


def test_check_tells_it_and_is_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "leak.attn"
    path.write_text(
        "pattern p = causal and window(3) or k < 4\npattern fine = causal and window(3)\n"
    )
    assert main(["check", str(path), "--seconds", "0.01"]) == 0
    said = capsys.readouterr().out
    assert said.count("hint: `and` binds tighter than `or`") == 1
    assert "`causal and (window(3) or k < 4)` shows none" in said
