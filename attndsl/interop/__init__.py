"""Floor 7½: masks as other libraries have them. A mask_mod of flex_attention is traced to a mask of the IR.

`trace` runs a mask_mod on symbols and gives the mask with the tensors that it reads.
"""

from .tracing import MaskMod, Traced, is_mask_mod, trace

__all__ = ["MaskMod", "Traced", "is_mask_mod", "trace"]
