"""Scores as large language models have them: caps (Gemma 2), sinks (gpt-oss), differences of two softmaxes."""

from __future__ import annotations

import torch

import attndsl
from attndsl.nn import Attention

TEXT = """
input sink: real[head]
input lam: real[head]

## Gemma 2: scores are capped smoothly, before the mask.
attention gemma(c: real = 50.0) over causal = score c * tanh(s / c)

## gpt-oss: a trained number of each head weighs in the denominator alone; every other layer sees a window.
attention oss(w: int = 128) over causal and (layer % 2 == 1 or q - k < w) = score s mass exp(sink[head])

## Ye et al., 2024: heads 2i and 2i + 1 share values; what both see is noise.
attention differential over causal = (by pair 0: score s) - lam[head] * (by pair 1: score s)
"""


def main() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 8, 500, 32) for _ in range(3))
    distance = torch.arange(500)[:, None] - torch.arange(500)
    scores, future = q @ k.mT / 32**0.5, distance < 0

    gemma = attndsl.compile(TEXT, entry="gemma", c=5.0)
    wanted = (5 * torch.tanh(scores / 5)).masked_fill(future, -torch.inf).softmax(-1) @ v
    differences = [(gemma(q, k, v) - wanted).abs().max()]

    sink = torch.randn(8)
    oss = Attention(attndsl.compile(TEXT, entry="oss"), parameters={"sink": sink.clone()})
    seen = scores.masked_fill(future | (distance >= 128), -torch.inf)
    both = torch.cat((seen, sink[:, None, None].expand(1, 8, 500, 1)), -1).softmax(-1)
    wanted = both[..., :-1] @ v
    differences.append((oss(q, k, v) - wanted).abs().max())

    lam, values = torch.rand(4), torch.randn(1, 4, 500, 64)
    p = scores.masked_fill(future, -torch.inf).softmax(-1)
    wanted = p[:, 0::2] @ values - lam[:, None, None] * (p[:, 1::2] @ values)
    found = attndsl.compile(TEXT, entry="differential")(q, k, values, lam=lam)
    differences.append((found - wanted).abs().max())
    print(f"largest difference from dense attention: {max(differences):.1e}")


if __name__ == "__main__":
    main()
