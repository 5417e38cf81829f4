"""A causal window: say it, see it, call it, and compare it with dense attention."""

import torch
from torch.nn import functional as F

import attndsl

PATTERN = """
## The last `w` keys up to and including the query's own.
pattern local(w: int = 128) where w >= 1 = 0 <= q - k < w
"""


def main() -> None:
    """Compile once; the same pattern serves every length."""
    print(attndsl.compile(PATTERN, w=3).draw(8))

    local = attndsl.compile(PATTERN)
    length = 2048
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 4, length, 64, requires_grad=True) for _ in range(3))

    out = local(q, k, v)
    dense = F.scaled_dot_product_attention(q, k, v, attn_mask=local.mask(length))
    error = (out - dense).abs().max().item()

    seed = torch.randn_like(out)
    ours = torch.autograd.grad(out, (q, k, v), seed)
    theirs = torch.autograd.grad(dense, (q, k, v), seed)
    error = max(error, *((a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True)))

    schedule = local.schedule(length)
    print(
        f"\n{schedule.density:.0%} of the tiles are computed, {schedule.nbytes:,} bytes say which"
    )
    print(f"largest difference from dense attention: {error:.1e}")


if __name__ == "__main__":
    main()
