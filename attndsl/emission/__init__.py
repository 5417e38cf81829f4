"""Patterns and attentions as Python text: stand-alone files that need torch and triton, and functions on tensors."""

from attndsl.emission.attentions import emit_attention
from attndsl.emission.bundle import emit
from attndsl.emission.predicates import predicate

__all__ = ["emit", "emit_attention", "predicate"]
