"""Programs that failed once do not fail again, and a few fresh ones do not fail at all."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attndsl.testing import AttentionProgram, Program, attentions, programs
from tests.fuzz.checking import check_attention, check_program, check_text

FINDINGS = sorted((Path(__file__).parent / "findings").glob("*.attn"))


def test_what_was_found_stays_mended():
    for path in FINDINGS:
        check_text(path.read_text(encoding="utf-8"))


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(programs(depth=3), st.integers(0, 999))
def test_random_programs_hold_what_all_programs_hold(program: Program, seed: int):
    check_program(program, seed)


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(attentions(depth=2), st.integers(0, 999))
def test_random_attentions_are_what_the_oracle_says(program: AttentionProgram, seed: int):
    check_attention(program, seed)
