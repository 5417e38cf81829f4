"""A layer of Swin Transformer: shifted windows with a trained table of relative positions, written as one attention."""

from __future__ import annotations

import torch
from torch import Tensor

import attndsl
from attndsl.nn import Attention

SIZE, WINDOW, SHIFT, HEADS = 28, 7, 3, 4

TEXT = """
grid image(y, x)
input table: real[head, 169]

## Liu et al., ICCV 2021: windows of m by m after a cyclic shift by r, in which what was not adjacent is apart.
def at(z: int, n: int, m: int, r: int) = (z - r) % n
def part(z: int, n: int, m: int, r: int) = if r > 0 and z < r then 1 else 0
pattern windows(m: int = 7, r: int = 0) over image =
    at(q.y, len(y), m, r) // m == at(k.y, len(y), m, r) // m
    and at(q.x, len(x), m, r) // m == at(k.x, len(x), m, r) // m
    and part(q.y, len(y), m, r) == part(k.y, len(y), m, r)
    and part(q.x, len(x), m, r) == part(k.x, len(x), m, r)
attention swin(m: int = 7, r: int = 0) over windows(m, r) =
    score s + table[
        (at(q.y, len(y), m, r) % m - at(k.y, len(y), m, r) % m + m - 1) * (2 * m - 1)
            + at(q.x, len(x), m, r) % m - at(k.x, len(x), m, r) % m + m - 1]
"""


def published(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """The layer as it is usually written: roll, cut into windows, mask what is not adjacent, roll back."""

    def windows(x: Tensor) -> Tensor:
        x = x.unflatten(2, (SIZE, SIZE)).roll((-SHIFT, -SHIFT), (2, 3))
        x = x.unflatten(3, (-1, WINDOW)).unflatten(2, (-1, WINDOW))
        return x.permute(0, 2, 4, 1, 3, 5, 6).flatten(4, 5)

    place = torch.arange(WINDOW * WINDOW)
    y, x = place // WINDOW, place % WINDOW
    index = (y[:, None] - y + WINDOW - 1) * (2 * WINDOW - 1) + x[:, None] - x + WINDOW - 1
    edge = torch.zeros(SIZE)
    edge[-SHIFT:] = 1  # rows that came round
    label = (edge[:, None] * 2 + edge).unflatten(1, (-1, WINDOW)).unflatten(0, (-1, WINDOW))
    label = label.permute(0, 2, 1, 3).flatten(2)[:, :, None]
    apart = label[..., :, None] != label[..., None, :]
    q, k, v = map(windows, (q, k, v))
    scores = q @ k.mT / q.shape[-1] ** 0.5 + table[:, index]
    out = scores.masked_fill(apart, -torch.inf).softmax(-1) @ v
    count = SIZE // WINDOW
    out = (
        out.unflatten(4, (WINDOW, WINDOW))
        .permute(0, 3, 1, 4, 2, 5, 6)
        .reshape(1, HEADS, count * WINDOW, count * WINDOW, -1)
    )
    return out.roll((SHIFT, SHIFT), (2, 3)).flatten(2, 3)


def main() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, SIZE * SIZE, 32) for _ in range(3))
    compiled = attndsl.compile(TEXT, r=SHIFT)
    layer = Attention(compiled, parameters={"table": torch.randn(HEADS, 169)})
    out = layer(q, k, v, extents={"y": SIZE, "x": SIZE})
    out.square().mean().backward()
    found = layer.owned["table"]
    table = found.detach().requires_grad_()
    wanted = published(q, k, v, table)
    wanted.square().mean().backward()
    differences = (out - wanted).abs().max(), (found.grad - table.grad).abs().max()
    print(f"largest difference from dense attention: {max(differences):.1e}")


if __name__ == "__main__":
    main()
