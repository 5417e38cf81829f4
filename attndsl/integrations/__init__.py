"""Floor 8½: attention for models of other libraries. Each module needs its library, and is imported by name."""

from typing import Final

# Libraries that have a module here.
LIBRARIES: Final = ("diffusers", "transformers")

__all__ = ["LIBRARIES"]
