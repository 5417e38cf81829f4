"""`attndsl check` on back ends that are wrong on purpose: it names the pair, the tile, the factor, the gradient."""

from pathlib import Path
from unittest import mock

import pytest

import attndsl
from attndsl.backends import Executable
from attndsl.cli import main

FORWARD, BACKWARD = Executable.forward, Executable.backward
PATTERN = """
pattern mine = 0 <= q - k < 20
    assert causal
    assert keys per query <= 20
"""


def computing(text):
    """A back end that computes another pattern."""
    other = attndsl.compile(f"pattern other = {text}")

    def forward(self, q, k, v, *, scale):
        return other(q, k, v, scale=scale, return_lse=True, backend="reference")

    return {"forward": forward}


def wrong_scale_in_dk(self, q, k, v, out, lse, dout, dlse, *, scale):
    dq, dk, dv = BACKWARD(self, q, k, v, out, lse, dout, dlse, scale=scale)
    return dq, dk * scale, dv


def without_lse(self, q, k, v, out, lse, dout, dlse, *, scale):
    return BACKWARD(self, q, k, v, out, lse, dout, None, scale=scale)


@pytest.mark.parametrize(
    ("wrong", "what", "said"),
    [
        (
            computing("0 <= q - k <= 20"),
            "out",
            "the kernel sees this pair, the pattern says otherwise",
        ),
        (
            computing("0 <= q - k < 20 and not (4 <= q < 8 and 4 <= k < 8)"),
            "out",
            "the kernel does not see this pair",
        ),
        ({"backward": wrong_scale_in_dk}, "dk", "the scale is applied twice"),
        ({"backward": without_lse}, "dq", "as if none arrived through the log-sum-exp"),
    ],
    ids=["off by one", "dropped tile", "scale in dk", "gradient of lse"],
)
def test_it_says_what_is_wrong(
    wrong, what, said, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "mine.attn"
    file.write_text(PATTERN)
    with mock.patch.multiple(Executable, **wrong):
        status = main(["check", str(file), "--seconds", "60", "--backend", "blocked"])
    text = capsys.readouterr().out
    assert status == 1
    assert f"mine: wrong, backend blocked on cpu, {what}\n" in text
    assert said in text
    assert "\n        at      " in text
    assert "proved: causal\n" in text
    assert "proved: keys per query <= 20\n" in text


def test_a_false_claim_does_not_hide_what_is_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "mine.attn"
    file.write_text(PATTERN.replace("<= 20", "<= 19"))
    assert main(["check", str(file), "--seconds", "0.1"]) == 1
    text = capsys.readouterr().out
    assert "false: keys per query <= 19\n" in text
    assert "calls of up to" in text, "the rest is verified all the same"
