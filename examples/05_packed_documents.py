"""Packed documents: several in one row, none sees another, and the tiles follow their borders.

The ids of the documents are an input: they change with every batch and nothing is compiled anew.
"""

import torch
from torch.nn import functional as F

import attndsl

PATTERN = """
input doc: int[batch, pos]

## The keys of the query's own document, up to and including its own.
pattern packed = doc[q] == doc[k] and k <= q
"""


def main() -> None:
    """A packed row gives what its documents give one by one."""
    packed = attndsl.compile(PATTERN)
    lengths = [700, 100, 37, 611, 600]
    total = sum(lengths)
    ids = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]

    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 4, total, 64)
    out = packed(q, k, v, doc=ids)

    alone = attndsl.compile("causal")
    documents = zip(*(x.split(lengths, dim=2) for x in (q, k, v)), strict=True)
    one_by_one = torch.cat([alone(*document) for document in documents], dim=2)
    print(f"largest difference from the documents alone: {(out - one_by_one).abs().max():.1e}")

    dense = F.scaled_dot_product_attention(q, k, v, attn_mask=packed.mask(total, doc=ids))
    print(f"largest difference from dense attention: {(out - dense).abs().max():.1e}")

    one_document = torch.zeros_like(ids)
    for name, doc in (("packed", ids), ("one document", one_document)):
        schedule = packed.schedule(total, tile=(64, 64), doc=doc)
        print(f"{name}: {schedule.plan().live} tiles of 64 x 64")


if __name__ == "__main__":
    main()
