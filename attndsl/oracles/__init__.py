"""Floor -1: the meaning of each row of the catalogue of published patterns, in plain loops.

One row, one function (or one a part of it): which key each query may see, asked pair by pair of Python
integers and written from the paper's formula or the released code, in NumPy alone. Nothing here imports
another room: these judge what the others make of the library's entries.

```
@oracle(43, "davit", [Case({"y": 5, "x": 7}, {"window": 3})])
def davit(y, x, window):
    return windows((y, x), (window, window))
```

- A function gives one batch element and one head, bool [Q, K]; ``Oracle.expected(case)`` gives
  [batch, heads, Q, K].
- Its arguments are extents, parameters and inputs; ``head``, ``heads`` and ``layer`` come from the case.
- Zero keys (score 0, value 0) are counted by a function of the same arguments, ``@oracle(..., zeros=...)``:
  places that an implementation pads, counted one by one. ``Oracle.zero_keys(case)`` gives [batch, heads, Q].
- Tokens of a grid are in row-major order of the extents as listed; in two segments, one after the other.
- ``n`` counts the positions of a flat axis; ``m`` those of a key axis of its own.
- Inputs have a leading batch axis in the case, and none in the function. Lists are padded with -1.

``JOINS`` says which entry of the library states which oracle; ``attention`` is the textbook's, under a mask.
"""

from . import (
    axes_and_video,
    given,
    neighbourhoods,
    one_axis,
    selected,
    two_spaces,
    windows,
)
from .joins import JOINS, Join, Question
from .registry import ORACLES, Case, Oracle
from .textbook import attention

# Importing a family registers its oracles.
FAMILIES = (axes_and_video, given, neighbourhoods, one_axis, selected, two_spaces, windows)

__all__ = ["FAMILIES", "JOINS", "ORACLES", "Case", "Join", "Oracle", "Question", "attention"]
