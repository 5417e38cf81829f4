"""Floor 0: what is worth remembering, in a process and between processes. Standard library only."""

from .folder import keep, load_bytes, location, recall, store_bytes
from .memo import Memo, bytes_of

__all__ = ["Memo", "bytes_of", "keep", "store_bytes", "location", "recall", "load_bytes"]
