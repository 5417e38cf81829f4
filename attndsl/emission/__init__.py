"""Stand-alone files: a pattern as Python text that needs torch and triton, and nothing of this package."""

from attndsl.emission.bundle import emit

__all__ = ["emit"]
