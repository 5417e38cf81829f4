"""Floor 8: is it right? Patterns against their meaning, patterns against patterns, kernels of anyone."""

from attndsl.verification.attentions import AttentionSubject
from attndsl.verification.cases import Case, Tensors, dense, zero_keys
from attndsl.verification.claims import JUDGES, fact_fault, frame_fault, frames
from attndsl.verification.comparing import CounterExample, Status, Verdict, equivalent, implies
from attndsl.verification.drawing import Dice, Random, draw_case, draw_inputs
from attndsl.verification.judging import describe, judge
from attndsl.verification.references import Fault, Kernel
from attndsl.verification.running import Failure, Report, one_thread, verify
from attndsl.verification.shrinking import shrink
from attndsl.verification.subjects import Skipped
from attndsl.verification.tolerances import allowances

__all__ = [
    "AttentionSubject",
    "Case",
    "CounterExample",
    "Dice",
    "Failure",
    "Fault",
    "JUDGES",
    "Kernel",
    "Random",
    "Report",
    "Skipped",
    "Status",
    "Tensors",
    "Verdict",
    "allowances",
    "dense",
    "describe",
    "draw_case",
    "draw_inputs",
    "equivalent",
    "fact_fault",
    "frame_fault",
    "frames",
    "implies",
    "judge",
    "one_thread",
    "shrink",
    "verify",
    "zero_keys",
]
