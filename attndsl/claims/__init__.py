"""Properties of a pattern: proved for all lengths where possible, exact at one length otherwise."""

from attndsl.claims.choices import leaks, scoring_work, told
from attndsl.claims.examples import Ranges, calls
from attndsl.claims.facts import FactValue, facts, facts_at
from attndsl.claims.graph import Components, TokenGraph
from attndsl.claims.judging import Counterexample, Judgement, judge, judge_at
from attndsl.claims.rows import Rows, rows_without_keys, without_keys

__all__ = [
    "Components", "Counterexample", "FactValue", "Judgement", "Ranges", "Rows", "TokenGraph", "calls",
    "facts", "facts_at", "judge", "judge_at", "leaks", "scoring_work", "told", "rows_without_keys",
    "without_keys",
]  # fmt: skip
