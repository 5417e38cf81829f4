"""Floor 0: what is worth remembering between processes, in a folder of the user's. Standard library only."""

from .folder import keep, location, recall

__all__ = ["keep", "location", "recall"]
