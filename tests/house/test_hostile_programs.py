"""Long, deep and costly programs: each step answers soon, or is refused at a place."""

import functools
import operator
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import attndsl
from attndsl.frontend import any_, frames, k, minimum, q, to_mask
from attndsl.source import AttnDslError
from attndsl.syntax import limits
from tests.support.work import A_SECOND, calls_of, in_memory
from tests.support.work import within as in_calls

MOST_MEMORY = 100 << 20  # bytes that a step may add to what the process holds
LONGEST_TEXT = 2_000_000  # characters that a pattern or what explains it may print


def unequal_truths(count: int) -> str:
    levels = [f"v{i} = v{i - 1} != ({'kq'[i % 2]} % {i + 1} == 0)" for i in range(1, count)]
    return f"let v0 = q < k, {', '.join(levels)}: v{count - 1}"


def joined(sign: str, template: str, *numbers: int) -> str:
    return sign.join(template.format(i, i + 2, i * 7, i * i) for i in range(*numbers))


# Data that people generate: compiled, scheduled and printed in a second.
LONG = {
    "unequal keys": joined(" and ", "k != {}", 3_000),
    "distances": joined(" or ", "k == q - {2}", 1_500),
    "ranges and residues": joined(" or ", "(k <= q - {0} and q % {1} == 1)", 1, 700),
    "a list": f"k in [{joined(', ', '{2}', 6_000)}]",
    "a minimum": f"k <= min({joined(', ', 'q * {0} % {1}', 1, 800)})",
    "rectangles": joined(" or ", "({0} <= q < {2} and {0} * 5 % 37 <= k < {0} % 40)", 1, 400),
}
# Short, and much work where nobody looks after it.
COSTLY = {
    "distances": joined(" or ", "k == q - {2}", 200),
    "a minimum": f"k <= min({joined(', ', 'q * {0} % {1}', 1, 100)})",
    "unequal truths": unequal_truths(20),
    "residues of a loop": "any a in 0..512: (q * a + k) % 509 == 1",
    "a chain of let": "let v0 = q"
    + "".join(f", v{i} = v{i - 1} * v{i - 1} % 1009 + v{i - 1}" for i in range(1, 60))
    + ": k <= v59",
    "distances from lines": joined(" + ", "abs(q - {0} * k + {3})", 1, 60) + " <= 5000",
    "many moduli": joined(" and ", "(q - k) % {1} != 1", 60),
    "quotients": joined(" + ", "(q - k * {0}) // {1}", 1, 60) + " <= 5000",
    "distances squared": "let v0 = q - k"
    + "".join(f", v{i} = v{i - 1} * v{i - 1} + 5" for i in range(1, 60))
    + ": v59 >= k",
}


def within(action: Callable[[], object]) -> object:
    """Result of the action, or its error; soon in either case, and in little memory."""
    try:
        return in_memory(MOST_MEMORY, lambda: in_calls(A_SECOND, action))
    except AttnDslError as error:
        return error


@pytest.fixture(scope="module", autouse=True)
def _all_is_loaded() -> None:
    attndsl.compile("causal and q - k < 9").emit()


@pytest.mark.parametrize("name", LONG)
def test_long_lists_of_conditions_compile_run_and_print(name):
    pattern = within(lambda: attndsl.compile(f"pattern p = {LONG[name]}"))
    assert isinstance(pattern, attndsl.Pattern)
    assert isinstance(text := within(lambda: repr(pattern)), str)
    assert len(text) < LONGEST_TEXT
    schedule = within(lambda: pattern.schedule(40, tile=(16, 16)))
    assert (schedule.cover() == pattern.mask(40)[0, 0].numpy()).all()


@pytest.mark.parametrize("name", COSTLY)
def test_costly_programs_are_answered(name):
    pattern = within(lambda: attndsl.compile(f"pattern p = {COSTLY[name]}\n    assert causal"))
    assert isinstance(pattern, attndsl.Pattern)
    assert len(within(lambda: repr(pattern))) < LONGEST_TEXT
    for step in (pattern.schedule, pattern.mask):
        within(lambda step=step: step(300))
    assert "def in_pattern" in str(emitted := within(pattern.emit)) or emitted.code == "A403"
    assert within(pattern.facts)["causal"] in ("proved", "false", "not decided")
    assert len(within(pattern.claims)) == 1
    if "unequal" in name:
        assert len(within(lambda: pattern.explain(40))) < LONGEST_TEXT


def test_the_residues_of_a_wide_loop_are_scheduled_and_explained():
    pattern = attndsl.compile("pattern p = any a in 0..4096: (q * a + k) % 4093 == 1")
    schedule = within(lambda: pattern.schedule(40))
    assert (schedule.cover() == pattern.mask(40)[0, 0].numpy()).all()
    assert "live" in within(lambda: pattern.explain(300))


REFUSED = {
    "two loops": ("A303", "pattern p = any a in 0..4096: any b in 0..4096: a * b == q + k"),
    "two loops over all": (
        "A303",
        "pattern p = all a in 0..4096: all b in 0..4096: a * b != q + k",
    ),
    "three loops": (
        "A303",
        "pattern p = any a in 0..300: any b in 0..300: any c in 0..300: a * b + c * c == q * k",
    ),
    "axes": (
        "A209",
        f"grid g({joined(', ', 'a{0}', 5_000)})\npattern p over g = q.a0 == k.a0",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_programs_that_would_never_end_are_refused_where_they_say_so(name):
    code, text = REFUSED[name]
    error = within(lambda: attndsl.compile(text))
    assert isinstance(error, AttnDslError)
    assert error.code == code
    assert error.diagnostics[0].span is not None


def test_loops_in_python_that_would_never_end_are_refused():
    error = within(lambda: any_(0, 4096, lambda a: any_(0, 4096, lambda b: a * b == q + k)))
    assert isinstance(error, AttnDslError)
    assert error.code == "A303"


def test_disjoint_relations_are_compared_by_halves():
    def claim(count: int, last: int) -> str:
        parts = [*(f"a({i})" for i in range(count - 1)), f"a({last})"]
        return (
            "def a(i: int) = q - k == i\npattern p = k <= q\n"
            f"    assert disjoint({', '.join(parts)})"
        )

    pattern = within(lambda: attndsl.compile(claim(100, 99)))
    assert isinstance(pattern, attndsl.Pattern)
    within(pattern.claims)
    assert "false" in str(attndsl.compile(claim(40, 3)).claims()[0])
    assert attndsl.compile(claim(40, 39)).claims()[0].ok


def test_many_claims_are_answered():
    lines = "".join(f"    assert q - k >= {-i}\n" for i in range(60))
    pattern = within(lambda: attndsl.compile(f"pattern p = k <= q\n{lines}"))
    assert len(within(pattern.claims)) == 60


# Numbers that double their digits, wherever they are worked out.
SQUARED = {
    "positions": "q + 3",
    "distances": "q - k",
    "lengths": "len(k)",
    "positions, and more": "if k < q then q + 1 else k",
}


@pytest.mark.parametrize("name", SQUARED)
def test_numbers_that_are_squared_again_and_again_are_answered(name):
    squares = "".join(f", v{i} = v{i - 1} * v{i - 1} + 5" for i in range(1, 60))
    text = f"pattern p = let v0 = {SQUARED[name]}{squares}: v59 >= k\n    assert causal"
    pattern = within(lambda: attndsl.compile(text))
    assert isinstance(pattern, attndsl.Pattern)
    assert within(lambda: pattern.schedule(300)).code == "A403"
    assert within(lambda: pattern.mask(40)).code == "A403"
    assert within(pattern.facts)["causal"] == "not decided"
    assert "not decided" in str(within(pattern.claims)[0])
    assert len(repr(pattern.claims())) < LONGEST_TEXT


def failing(text: str) -> None:
    with pytest.raises(AttnDslError):
        attndsl.compile(text)


GROWING = {
    "unknown names": lambda n: failing(f"pattern p = {joined(' and ', 'zz{0} <= q', n)}"),
    "unequal keys": lambda n: attndsl.compile(f"pattern p = {joined(' and ', 'k != {}', n)}"),
    "a list": lambda n: attndsl.compile(f"pattern p = k in [{joined(', ', '{2}', n)}]"),
    "distances": lambda n: attndsl.compile(f"pattern p = {joined(' or ', 'k == q - {2}', n)}"),
    "residues": lambda n: attndsl.compile(f"pattern p = {joined(' + ', 'q % {1}', n)} <= k"),
    "sums in Python": lambda n: to_mask(
        functools.reduce(operator.add, (abs(q - i) for i in range(n))) <= k
    ),
    "conditions in Python": lambda n: to_mask(
        functools.reduce(operator.and_, (q != i for i in range(n)))
    ),
    "minima in Python": lambda n: to_mask(
        functools.reduce(minimum, (q % (i + 2) for i in range(n))) <= k
    ),
}


@pytest.mark.parametrize("name", GROWING)
def test_the_work_of_a_long_program_grows_with_its_length(name):
    GROWING[name](10)
    once, twice = (calls_of(lambda n=n: GROWING[name](n)) for n in (500, 1_000))
    assert twice < 2.4 * once


MANY_AXES = {
    "open": f"grid g({joined(', ', 'a{0}', 59)})\npattern p over g = q.a0 == k.a0",
    "all compared": f"grid g({joined(', ', 'a{0}=1', 59)}, x)\n"
    f"pattern p over g = {joined(' and ', 'q.a{0} == k.a{0}', 59)}",
}


@pytest.mark.parametrize("name", MANY_AXES)
def test_facts_of_grids_of_many_axes_are_found_or_left_open(name):
    facts = within(attndsl.compile(MANY_AXES[name]).facts)
    assert facts["symmetric"] == "proved"
    assert facts["causal"] == "false"


def test_the_manual_states_the_budgets():
    manual = (Path(attndsl.__file__).parents[1] / "docs" / "language.md").read_text("utf-8")
    rows = dict(
        re.findall(r"^\| ([^|]+) \| ([^|]+) \|", manual.partition("## Limits")[2], re.MULTILINE)
    )
    steps, nodes = (f"{most:,}".replace(",", " ") for most in (frames.MOST_WORK, frames.MOST_NODES))
    assert rows["work to expand a pattern"] == f"{steps} steps, {nodes} distinct expressions"
    assert f"{limits.MOST_TOKENS:,} tokens".replace(",", " ") in rows["file"]
    assert rows["`any`, `all`, `count`, `sum`"] == f"{frames.WIDEST_RANGE} numbers that are tried"


def test_a_long_chain_of_let_is_explained_soon():
    program = attndsl.compile(f"pattern p = {COSTLY['a chain of let']}")
    assert len(str(within(lambda: program.explain(100)))) < LONGEST_TEXT
