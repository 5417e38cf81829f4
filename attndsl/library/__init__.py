"""The library of published patterns: every system of a catalogue of 110, as entries one can compile.

```
attndsl.library.names()  # "stvit", "stvit_update", "dlgsanet", ...
attndsl.library.describe("049")  # title, source, reading, edges, what is missing, the text
attndsl.library.load("gna", sy=13, ty=4)
attndsl.library.example("049").call()  # a small call of it, tensors and all
attndsl.library.attention("gpt_oss", w=128)  # an attention: scores, mass, branches
```
"""

from attndsl.patterns import Entry

from .examples import Example, example
from .judging import Checked, check
from .shelf import attention, attentions, describe, load, names, rows, selections

__all__ = [
    "Checked", "Entry", "Example", "attention", "attentions", "check", "describe", "example", "load", "names", "rows",
    "selections",
]  # fmt: skip
