"""``ORACLES``: what every row of the catalogue means."""

from tests.library.oracles import (
    axes_and_video,
    given,
    neighbourhoods,
    one_axis,
    selected,
    two_spaces,
    windows,
)
from tests.library.oracles.registry import ORACLES, Case, Oracle

# Importing a family registers its oracles.
FAMILIES = (axes_and_video, given, neighbourhoods, one_axis, selected, two_spaces, windows)

__all__ = ["FAMILIES", "ORACLES", "Case", "Oracle"]
