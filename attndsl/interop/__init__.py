"""Floor 7½: masks as other libraries have them. A mask_mod of flex_attention is traced to a mask of the IR.

`trace` runs a mask_mod on symbols and gives the mask with the tensors that it reads. `Exports` are the methods of a
pattern that give it to other libraries.
"""

from .exports import Exports
from .tracing import Traced, is_mask_mod, trace

__all__ = ["Exports", "Traced", "is_mask_mod", "trace"]
