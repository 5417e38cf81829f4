"""Floor 0: what is worth remembering between processes, in a folder of the user's. Standard library only."""

from .folder import keep, load_bytes, location, recall, store_bytes

__all__ = ["keep", "store_bytes", "location", "recall", "load_bytes"]
