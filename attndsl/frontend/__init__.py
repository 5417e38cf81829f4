"""Floor 2: meaning given to names. A syntax tree, or Python expressions, become a mask.

`elaborate` and `signature` take a parsed module; `files` resolves its imports. The other names are
the Python form: expressions over `q` and `k`, and `to_mask`, which sets them in their spaces.
"""

from .embedding import (
    Expr,
    Operand,
    Row,
    Table,
    all_,
    any_,
    batch,
    clamp,
    count_,
    grid,
    head,
    heads,
    ilog2,
    k,
    layer,
    length,
    maximum,
    minimum,
    pow2,
    q,
    space,
    sum_,
    table,
    where,
)
from .entry import (
    Given,
    Parameter,
    Signature,
    described,
    elaborate,
    elaborate_attention,
    kind_of,
    prelude,
    signature,
)
from .files import files
from .precedence import precedence_hint
from .scope import Definition, Resolve
from .space_binding import PatternFunction, pattern, python_form, to_mask

__all__ = [
    "Definition", "Expr", "Given", "Operand", "Parameter", "PatternFunction", "Resolve", "Row",
    "Signature", "Table", "all_", "any_", "batch", "clamp", "count_", "described", "elaborate", "elaborate_attention",
    "files",
    "grid", "head", "heads", "ilog2", "k", "kind_of", "layer", "length", "maximum", "minimum", "pattern",
    "pow2", "precedence_hint", "prelude", "python_form", "q", "signature", "space", "sum_", "table", "to_mask", "where",
]  # fmt: skip
