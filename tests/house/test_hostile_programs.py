"""Long, deep and costly programs: each step answers soon, or is refused at a place."""

import functools
import json
import operator
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import attndsl
from attndsl.frontend import any_, k, minimum, q, to_mask
from attndsl.source import AttnDslError

MOST_SECONDS = 12.0  # of processor time, a step; about one on a machine that does nothing else
MOST_MEMORY = 300 << 20  # bytes, beyond what a process that has compiled something holds
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
    "a chain of let": "let v0 = q"
    + "".join(f", v{i} = v{i - 1} * v{i - 1} % 1009 + v{i - 1}" for i in range(1, 190))
    + ": k <= v189",
    "distances from lines": joined(" + ", "abs(q - {0} * k + {3})", 1, 300) + " <= 5000",
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


def test_a_table_of_many_dims_is_not_drawn():
    names = [f"d{i}" for i in range(40)]
    text = f"input t: int[{', '.join(names)}]\npattern p = t[{', '.join('q' for _ in names)}] <= k"
    pattern = attndsl.compile(f"{text}\n    assert causal")
    assert within(pattern.facts)["causal"] == "not decided"
    assert "not decided" in str(within(pattern.claims)[0])


def calls_of(action: Callable[[], object]) -> int:
    """How many functions are called: a measure of work that no other process changes."""
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


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
    "minima in Python": lambda n: to_mask(
        functools.reduce(minimum, (q % (i + 2) for i in range(n))) <= k
    ),
}


@pytest.mark.parametrize("name", GROWING)
def test_the_work_of_a_long_program_grows_with_its_length(name):
    GROWING[name](10)
    once, twice = (calls_of(lambda n=n: GROWING[name](n)) for n in (1_000, 2_000))
    assert twice < 2.4 * once


IN_MEMORY = {
    "ranges and residues": LONG["ranges and residues"],
    "more unequal truths": COSTLY["more unequal truths"],
    "residues of a loop": COSTLY["residues of a loop"],
    "a chain of let": COSTLY["a chain of let"],
    "quotients": joined(" + ", "(q - k * {0}) // {1}", 1, 300) + " <= 5000",
    "distances squared": "let v0 = q - k"
    + "".join(f", v{i} = v{i - 1} * v{i - 1} + 5" for i in range(1, 60))
    + ": v59 >= k",
}


def peak(text: str) -> int:
    """Bytes that a process takes for a program beyond what it held before."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        pattern = attndsl.compile(f"pattern p = {text}\n    assert causal")
    except AttnDslError:
        return 0
    for step in (pattern.facts, pattern.claims, pattern.emit, pattern.__repr__):
        within(step)
    for step in (pattern.schedule, pattern.mask):
        within(lambda step=step: step(300))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10


def peaks() -> None:
    """Prints the name and the peak of each program, each in a process of its own."""
    peak("k <= q")
    for name, text in IN_MEMORY.items():
        sys.stdout.flush()
        if os.fork() == 0:
            print(json.dumps([name, peak(text)]), flush=True)
            os._exit(0)
        os.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="the system counts in other units")
def test_hostile_programs_are_answered_in_little_memory(tmp_path):
    run = f"import runpy; runpy.run_path({__file__!r})['peaks']()"
    root = str(Path(__file__).parents[2])
    env = os.environ | {"PYTHONPATH": root, "ATTNDSL_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", run]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    found = dict(json.loads(line) for line in done.stdout.splitlines())
    assert found.keys() == IN_MEMORY.keys()
    assert {name: size for name, size in found.items() if size > MOST_MEMORY} == {}


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


def test_a_long_chain_of_let_is_explained_soon():
    program = attndsl.compile(f"pattern p = {COSTLY['a chain of let']}")
    assert len(str(within(lambda: program.explain(100)))) < LONGEST_TEXT
