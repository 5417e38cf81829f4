"""A video DiT block: a caption and a video in one sequence, each with its own coordinates.

The space has two segments. Captions are seen by all and see all; video tokens see a neighbourhood
in time, height and width besides. The neighbourhood is the prelude's, written for a volume of
its own: used here, it means the only segment that has its axes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attndsl

PATTERN = """
space clip = text(16) ++ video(t, y, x)

## Text and video see each other; within the video, `st` frames of `s` by `s` tokens.
pattern guided(st: int = 3, s: int = 5) over clip =
    q in text or k in text or neighborhood3d(st, s, s)
"""


class DiTBlock(nn.Module):
    """Attention and a feed-forward net, scaled and shifted by an embedding of the noise level."""

    def __init__(self, pattern: attndsl.Pattern, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = attndsl.nn.PatternSelfAttention(pattern, dim, heads)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.modulation = nn.Linear(dim, 6 * dim)
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)

    def forward(self, x: Tensor, noise: Tensor, extents: dict[str, int]) -> Tensor:
        """x [B, S, dim], noise [B, dim] -> [B, S, dim]."""
        shift, scale, gate, shift2, scale2, gate2 = self.modulation(noise)[:, None].chunk(6, dim=-1)
        x = x + gate * self.attention(self.norm(x) * (1 + scale) + shift, extents=extents)
        return x + gate2 * self.feed(self.norm(x) * (1 + scale2) + shift2)


def main() -> None:
    """A clip of 8 frames of 12 by 12, with 16 tokens of text."""
    guided = attndsl.compile(PATTERN)
    frames, height, width = 8, 12, 12
    extents = {"t": frames, "y": height}
    length = 16 + frames * height * width

    centre = 16 + 4 * height * width + 5 * width + 6
    seen = int(guided.mask(length, extents=extents)[0, 0, centre].sum())
    print(f"a video token sees {seen} of {length} tokens: 16 of text, 3 x 5 x 5 of video")

    torch.manual_seed(0)
    block = DiTBlock(guided, dim=64, heads=4)
    x, noise = torch.randn(1, length, 64), torch.randn(1, 64)
    assert block(x, noise, extents).shape == x.shape

    q, k, v = torch.randn(3, 1, 4, length, 32)
    mask = guided.mask(length, extents=extents)
    dense = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    error = (guided(q, k, v, extents=extents) - dense).abs().max().item()
    print(f"largest difference from dense attention: {error:.1e}")


if __name__ == "__main__":
    main()
