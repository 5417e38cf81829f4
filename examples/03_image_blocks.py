"""Swin and NAT blocks on images: one module, and the pattern decides which block it is.

Coordinates come from a grid. Its height is passed with the call, its width follows from the
number of tokens, so one pattern serves every image size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attndsl

# All three are patterns of the prelude, over the grid image(y, x).
WINDOWS = attndsl.compile("swin", m=8)
SHIFTED = attndsl.compile("swin", m=8, s=4)
NEIGHBOURHOOD = attndsl.compile("neighborhood2d", sy=7)


class ImageBlock(nn.Module):
    """A pre-norm transformer block on feature maps."""

    def __init__(self, pattern: attndsl.Pattern, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = attndsl.nn.PatternSelfAttention(pattern, dim, heads, bias=True)
        self.before_attention = nn.LayerNorm(dim)
        self.before_feed = nn.LayerNorm(dim)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, image: Tensor) -> Tensor:
        """image [B, height, width, dim] -> the same shape."""
        height = image.shape[1]
        x = image.flatten(1, 2)
        x = x + self.attention(self.before_attention(x), extents={"y": height})
        x = x + self.feed(self.before_feed(x))
        return x.view_as(image)


def difference(block: ImageBlock, image: Tensor) -> float:
    """The largest difference between the block's attention and a dense one, on this image."""
    layer, extents = block.attention, {"y": image.shape[1]}
    pattern, x = layer.attention.pattern, block.before_attention(image.flatten(1, 2))
    projections = layer.project_q, layer.project_k, layer.project_v
    q, k, v = (p(x).unflatten(-1, (layer.heads, -1)).transpose(1, 2) for p in projections)
    mask = pattern.mask(x.shape[1], extents=extents)
    dense = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return (pattern(q, k, v, extents=extents) - dense).abs().max().item()


def main() -> None:
    """A stage of three blocks, on images of two sizes."""
    print(NEIGHBOURHOOD.draw(144, extents={"y": 12}, query=15), end="\n\n")

    torch.manual_seed(0)
    blocks = [ImageBlock(each, dim=64, heads=4) for each in (WINDOWS, SHIFTED, NEIGHBOURHOOD)]
    stage = nn.Sequential(*blocks)
    error = 0.0
    with torch.no_grad():
        for height, width in ((32, 32), (24, 40)):
            image = torch.randn(2, height, width, 64)
            assert stage(image).shape == image.shape
            error = max(error, *(difference(block, image) for block in blocks))
    print(f"largest difference from dense attention: {error:.1e}")


if __name__ == "__main__":
    main()
