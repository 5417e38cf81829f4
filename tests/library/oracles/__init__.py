"""``ORACLES``: what every row of the catalogue means."""

from tests.library.oracles import windows
from tests.library.oracles.registry import ORACLES, Case, Oracle

FAMILIES = (windows,)  # importing one registers its oracles

__all__ = ["FAMILIES", "ORACLES", "Case", "Oracle"]
