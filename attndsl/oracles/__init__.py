"""Floor -1: the meaning of each row of the catalogue of published patterns, a formula each.

One row, one rule (or one a part of it): which key each query may see, in NumPy alone, on the coordinates of
queries, a column, and keys, a row, and written from the paper's formula or the released code. Nothing here
imports another room: these judge what the others make of the library's entries.

```
says(43, "davit", "y x", lambda q, k, window: same(q, k, "y x", window, window), "y=5 x=7 window=3")
```

- A rule gives one batch element and one head, and broadcasts to [Q, K]; ``Oracle.expected(case)`` gives
  bool [batch, heads, Q, K].
- Its arguments are extents, parameters and inputs; ``head``, ``heads`` and ``layer`` come from the case.
- Zero keys (score 0, value 0) are counted by a rule of their own, ``zeros=``: places that an implementation pads,
  counted one by one. ``Oracle.zero_keys(case)`` gives [batch, heads, Q].
- Tokens of a grid are in row-major order of the axes as listed; in two segments, one after the other.
- ``n`` counts the positions of a flat axis; ``m`` those of a key axis of its own.
- Inputs have a leading batch axis in the case, and none in the rule. Lists are padded with -1.

``JOINS`` says which entry of the library states which oracle; ``attention`` is the textbook's, under a mask.
"""

from . import axes, given, neighbourhoods, selected, sequences, windows
from .joins import JOINS, Join, Question
from .registry import Case, Oracle
from .textbook import attention

_FAMILIES = (axes, given, neighbourhoods, selected, sequences, windows)
ORACLES: tuple[Oracle, ...] = tuple(oracle for family in _FAMILIES for oracle in family.RULES)

__all__ = ["JOINS", "ORACLES", "Case", "Join", "Oracle", "Question", "attention"]
