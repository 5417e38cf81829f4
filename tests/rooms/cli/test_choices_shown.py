"""Pictures and explanations of patterns that choose show a choice, and what is known of it."""

import pytest

from attndsl.cli import main


def test_a_picture_shows_blocks_that_were_chosen(capsys: pytest.CaptureFixture[str]):
    assert (
        main(["show", "select_moba", "-p", "b=8", "-p", "n=2", "--q-len", "32", "--heads", "1"])
        == 0
    )
    out = capsys.readouterr().out
    assert "made up here: chosen from random vectors" in out
    rows = [line[6:].ljust(32) for line in out.splitlines() if {*line} & {*"█▀▄"}]
    assert len(rows) == 16  # of two queries each
    for i in range(32):
        seen = {j // 8 for j, sign in enumerate(rows[i // 2]) if sign in ("█▄" if i % 2 else "█▀")}
        assert i // 8 in seen
        assert len(seen) == (2 if i >= 8 else 1)


def test_a_choice_is_told_by_its_fields(capsys: pytest.CaptureFixture[str]):
    assert main(["show", "select_kinetics", "--q-len", "16"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "paper Kinetics: Rethinking Test-Time Scaling Laws (row 058 of the catalogue)" in out
    assert "Example:" not in out


def test_an_explanation_says_what_a_choice_costs_and_whether_it_knows_the_future(
    capsys: pytest.CaptureFixture[str],
):
    assert main(["explain", "select_quest", "--q-len", "256", "-p", "n=4"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "pages at most 4 of 16 units" in out
    assert "MFLOP to score them; knows the future: a unit that ends behind the query" in out


@pytest.mark.parametrize("name", ["select_routing", "select_dsa", "select_xattention"])
def test_inputs_of_a_choice_are_made_up(name: str, capsys: pytest.CaptureFixture[str]):
    assert main(["show", name, "--q-len", "40", *(["-p", "b=8"] if "xatt" in name else [])]) == 0
    assert "chosen from random vectors" in capsys.readouterr().out
