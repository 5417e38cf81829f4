"""Long, deep and costly programs: each step answers soon, or is refused at a place."""

import time
from collections.abc import Callable

import pytest

import attndsl
from attndsl.frontend import any_, k, q
from attndsl.source import AttnDslError

MOST_SECONDS = 12.0  # of processor time, a step; about one on a machine that does nothing else
LONGEST_TEXT = 2_000_000  # characters that a pattern or what explains it may print


def unequal_truths(count: int) -> str:
    levels = [f"v{i} = v{i - 1} != ({'kq'[i % 2]} % {i + 1} == 0)" for i in range(1, count)]
    return f"let v0 = q < k, {', '.join(levels)}: v{count - 1}"


def joined(sign: str, template: str, *numbers: int) -> str:
    return sign.join(template.format(i, i + 2, i * 7, i * i) for i in range(*numbers))


# Data that people generate: compiled, scheduled and printed in a time that grows with their length.
LONG = {
    "unequal keys": joined(" and ", "k != {}", 30_000),
    "distances": joined(" or ", "k == q - {2}", 5_000),
    "ranges and residues": joined(" or ", "(k <= q - {0} and q % {1} == 1)", 1, 2_000),
    "a list": f"k in [{joined(', ', '{2}', 60_000)}]",
    "a minimum": f"k <= min({joined(', ', 'q * {0} % {1}', 1, 2_000)})",
}
# Short, and much work where nobody looks after it.
COSTLY = {
    "distances": joined(" or ", "k == q - {2}", 1_000),
    "a minimum": f"k <= min({joined(', ', 'q * {0} % {1}', 1, 500)})",
    "unequal truths": unequal_truths(26),
    "more unequal truths": unequal_truths(60),
    "residues of a loop": "any a in 0..4096: (q * a + k) % 4093 == 1",
    "many moduli": joined(" and ", "(q - k) % {1} != 1", 150),
}


def within(action: Callable[[], object]) -> object:
    """Result of the action, or its error; soon in either case."""
    start = time.process_time()
    try:
        found = action()
    except AttnDslError as error:
        found = error
    assert time.process_time() - start < MOST_SECONDS
    return found


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
    within(lambda: pattern.schedule(300))
    assert within(pattern.facts)["causal"] in ("proved", "false", "not decided")
    assert len(within(pattern.claims)) == 1
    if "unequal" in name:
        assert len(within(lambda: pattern.explain(100))) < LONGEST_TEXT


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

    pattern = within(lambda: attndsl.compile(claim(600, 599)))
    assert isinstance(pattern, attndsl.Pattern)
    within(pattern.claims)
    assert "false" in str(attndsl.compile(claim(40, 3)).claims()[0])
    assert attndsl.compile(claim(40, 39)).claims()[0].ok


def test_many_claims_are_answered():
    lines = "".join(f"    assert q - k >= {-i}\n" for i in range(200))
    pattern = within(lambda: attndsl.compile(f"pattern p = k <= q\n{lines}"))
    assert len(within(pattern.claims)) == 200
