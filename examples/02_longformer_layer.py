"""A Longformer encoder layer over padded sequences: patterns are joined as truth values are.

Windows for all, a few global tokens that see and are seen by all, and no padding anywhere. The
window and the global tokens are patterns of the prelude, `keep` is an input of it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attndsl

PATTERN = """
## Longformer's window and global tokens, among the tokens that are no padding.
pattern encoder(w: int, g: int) = longformer(w, g) and keep[k]
"""


class EncoderLayer(nn.Module):
    """Attention and a feed-forward net, each behind a norm and around a residual."""

    def __init__(self, pattern: attndsl.Pattern, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = attndsl.nn.PatternSelfAttention(pattern, dim, heads)
        self.before_attention = nn.LayerNorm(dim)
        self.before_feed = nn.LayerNorm(dim)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """x [B, S, dim], keep bool [B, S] -> [B, S, dim]."""
        x = x + self.attention(self.before_attention(x), keep=keep)
        return x + self.feed(self.before_feed(x))


class DenseAttention(nn.Module):
    """The reference of the layer: PyTorch's attention under the whole mask."""

    def __init__(self, pattern: attndsl.Pattern) -> None:
        super().__init__()
        self.pattern = pattern

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, extents: None, inputs: None, keep: Tensor
    ) -> Tensor:
        """Same as `attndsl.nn.PatternAttention`."""
        mask = self.pattern.mask(q.shape[2], batch=q.shape[0], keep=keep)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def main() -> None:
    """One layer, two attentions, the same outputs and the same gradients."""
    pattern = attndsl.compile(PATTERN, w=64, g=2)
    torch.manual_seed(0)
    layer = EncoderLayer(pattern, dim=128, heads=4)
    lengths = torch.tensor([1000, 640])
    keep = torch.arange(1024) < lengths[:, None]
    x = torch.randn(2, 1024, 128)

    results = []
    for attention in (layer.attention.attention, DenseAttention(pattern)):
        layer.attention.attention = attention
        layer.zero_grad()
        out = layer(x, keep)
        out[keep].square().mean().backward()
        results.append([out.detach(), *(p.grad.clone() for p in layer.parameters())])

    error = max((a - b).abs().max().item() for a, b in zip(*results, strict=True))
    schedule = pattern.schedule(1024, batch=2, tile=(64, 64), keep=keep)
    live = [schedule.plan(batch=b).live for b in range(2)]
    print(f"tiles of 64 x 64 computed, of {16 * 16}: {live[0]} and, shorter, {live[1]}")
    print(f"largest difference from dense attention: {error:.1e}")


if __name__ == "__main__":
    main()
