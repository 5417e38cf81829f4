"""MoBA in a few lines: blocks chosen from q and k, the choice shared by two layers, a step of decoding."""

import torch
from torch.nn.functional import scaled_dot_product_attention

import attndsl

PROGRAM = """
## The own block, and the three blocks before it whose mean keys fit the query best.
select past(b: int) over blocks(b) = dot(q, mean(k)) where block < q // b take top 3
pattern chosen(b: int = 32) = k <= q and (k // b == q // b or k in past(b)[q])
"""


def main() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 4, 512, 32, requires_grad=True) for _ in "qkv")
    chosen = attndsl.compile(PROGRAM)
    out = chosen(q, k, v)

    selection = chosen.select(q, k)
    table = selection["past"]
    blocks = torch.arange(512) // 32
    own = blocks[:, None] == blocks
    named = (table[..., None] == blocks).any(-2)
    mask = (own | named) & torch.ones(512, 512, dtype=torch.bool).tril()
    expected = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    print(f"largest difference from dense attention: {(out - expected).abs().max():.1e}")
    print(f"keys seen by the last query: {mask[0, 0, -1].sum().item()} of 512")

    out.square().sum().backward()
    print(f"gradient of k: {k.grad.abs().sum() > 0}")

    with torch.no_grad():
        other = chosen(q, k, torch.randn_like(v), selection=selection)
        print(f"a second layer with the same choice: {tuple(other.shape)}")
        step = chosen(q[:, :, -1:], k, v)
        print(
            f"a step of decoding differs from the last row by {(step - out[:, :, -1:]).abs().max():.1e}"
        )


if __name__ == "__main__":
    main()
