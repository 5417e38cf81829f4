"""Patterns as Python text: stand-alone files that need torch and triton, and functions on tensors."""

from attndsl.emission.bundle import emit
from attndsl.emission.predicates import predicate

__all__ = ["emit", "predicate"]
