"""Heads that differ: by formula, or by a tensor. Heads that are alike share their schedule."""

import torch
from torch.nn import functional as F

import attndsl

PATTERN = """
## Half of the heads look near, the other half far: every 32nd key of the past.
pattern mixed(w: int = 128, step: int = 32) =
    causal and (if head < heads // 2 then q - k < w else (q - k) % step == 0)

input reach: int[head]

## As far back as each head is told when it runs.
pattern told = 0 <= q - k < reach
"""


def main() -> None:
    """The two patterns of the file, each against dense attention."""
    heads, length = 8, 1024
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, heads, length, 32)

    mixed = attndsl.compile(PATTERN, entry="mixed")
    told = attndsl.compile(PATTERN, entry="told")
    reach = torch.tensor([1, 16, 16, 64, 64, 64, 256, 1024])

    error = 0.0
    for pattern, inputs in ((mixed, {}), (told, {"reach": reach})):
        mask = pattern.mask(length, heads=heads, **inputs)
        dense = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        error = max(error, (pattern(q, k, v, **inputs) - dense).abs().max().item())

        schedule = pattern.schedule(length, heads=heads, tile=(64, 64), **inputs)
        live = [schedule.plan(head=head).live for head in range(heads)]
        print(f"{pattern.name}: {len(schedule.plans)} schedules for {heads} heads, tiles {live}")
    print(f"largest difference from dense attention: {error:.1e}")


if __name__ == "__main__":
    main()
