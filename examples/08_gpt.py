"""A small GPT that reads its mask from gpt.attn, trained for a moment on Python's own sources.

The file says what each layer sees. Change it and run again: no line below depends on it.
"""

import argparse
import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attndsl

MASK = Path(__file__).with_name("gpt.attn")
CONTEXT, DIM, HEADS, LAYERS = 128, 64, 2, 2


class DenseAttention(nn.Module):
    """PyTorch's attention under the whole mask: what the model is judged by."""

    def __init__(self, pattern: attndsl.Pattern) -> None:
        super().__init__()
        self.register_buffer("mask", pattern.mask(CONTEXT))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, extents: None, inputs: None) -> Tensor:
        """Same as `attndsl.nn.PatternAttention`."""
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)


class Block(nn.Module):
    """A pre-norm transformer block whose mask may depend on its layer."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        pattern = attndsl.compile(MASK, layer=layer)
        self.attention = attndsl.nn.PatternSelfAttention(pattern, DIM, HEADS)
        self.before_attention, self.before_feed = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.feed = nn.Sequential(nn.Linear(DIM, 4 * DIM), nn.GELU(), nn.Linear(4 * DIM, DIM))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, S, dim] -> the same shape."""
        x = x + self.attention(self.before_attention(x))
        return x + self.feed(self.before_feed(x))


class GPT(nn.Module):
    """Bytes in, logits of the next byte out."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = nn.Embedding(256, DIM)
        self.positions = nn.Embedding(CONTEXT, DIM)
        self.blocks = nn.Sequential(*(Block(layer) for layer in range(LAYERS)))
        self.head = nn.Sequential(nn.LayerNorm(DIM), nn.Linear(DIM, 256))

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, S] -> [B, S, 256]."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.head(self.blocks(self.bytes(tokens) + self.positions(places)))


def train(model: GPT, text: Tensor, steps: int) -> list[float]:
    """Losses over a few steps, on batches that depend on nothing but the step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    draws = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(steps):
        starts = torch.randint(len(text) - CONTEXT, (8,), generator=draws)
        rows = torch.stack([text[start : start + CONTEXT + 1] for start in starts])
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main() -> None:
    """The same model twice, sparse and dense: the losses stay together."""
    torch.manual_seed(0)
    model = GPT()
    twin = copy.deepcopy(model)
    for block in twin.blocks:
        block.attention.attention = DenseAttention(block.attention.attention.pattern)

    source = Path(argparse.__file__).read_bytes()  # text that comes with every Python
    text = torch.frombuffer(bytearray(source), dtype=torch.uint8).long()
    losses, dense = (train(each, text, steps=20) for each in (model, twin))
    for step in range(0, len(losses), 5):
        print(f"step {step:2}: loss {losses[step]:.4f}, dense {dense[step]:.4f}")
    error = max(abs(a - b) for a, b in zip(losses, dense, strict=True))
    print(f"largest difference from dense attention: {error:.1e}")


if __name__ == "__main__":
    main()
