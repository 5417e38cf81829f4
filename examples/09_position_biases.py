"""Positions as biases of scores: ALiBi's slopes, and T5's trained table of distances."""

from __future__ import annotations

import torch

import attndsl
from attndsl.nn import Attention, alibi_slopes

TEXT = """
input slope: real[head]
input bias: real[head, 32]

## Press, Smith and Lewis, ICLR 2022.
attention alibi over causal = score s - slope[head] * (q - k)

## Raffel et al., JMLR 2020: eight buckets of one token each, eight of growing size, for either direction.
def far(d: int) = if d < 8 then d else min(15, 2 + ilog2(d * d))
def bucket(d: int) = if d > 0 then 16 + far(d) else far(-d)
attention t5 over 0 <= k = score s + bias[bucket(k - q)]
"""


def main() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 8, 300, 64) for _ in range(3))
    distance = torch.arange(300)[:, None] - torch.arange(300)
    scores = q @ k.mT / 8

    alibi = Attention(attndsl.compile(TEXT, entry="alibi"), buffers={"slope": alibi_slopes(8)})
    biased = scores - alibi_slopes(8)[:, None, None] * distance
    wanted = biased.masked_fill(distance < 0, -torch.inf).softmax(-1) @ v
    differences = [(alibi(q, k, v) - wanted).abs().max()]

    t5 = Attention(attndsl.compile(TEXT, entry="t5"), parameters={"bias": torch.randn(8, 32)})
    out = t5(q, k, v, scale=1.0)  # T5 does not scale
    out.square().mean().backward()
    table, n = t5.owned["bias"], distance.abs()
    far = torch.where(
        n < 8, n, (8 + torch.log(n / 8 + 1e-9) / torch.log(torch.tensor(16.0)) * 8).long()
    )
    buckets = far.clamp(max=15) + 16 * (distance < 0)
    dense = table.detach().requires_grad_()
    wanted = (q @ k.mT + dense[:, buckets]).softmax(-1) @ v
    wanted.square().mean().backward()
    differences += [(out - wanted).abs().max(), (table.grad - dense.grad).abs().max()]
    print(f"largest difference from dense attention: {max(differences):.1e}")


if __name__ == "__main__":
    main()
