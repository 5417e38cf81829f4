"""Floor 9: generators for tests, ours and yours. The only room that imports hypothesis."""

from .programs import Program, programs

__all__ = ["Program", "programs"]
