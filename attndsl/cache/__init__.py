"""Floor 0: what is worth remembering between processes, in a folder of the user's. Standard library only."""

from .folder import keep, keep_bytes, location, recall, recall_bytes

__all__ = ["keep", "keep_bytes", "location", "recall", "recall_bytes"]
