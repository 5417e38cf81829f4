"""Published forms of patterns in plain torch: reshapes, rolls, gathers, and SDPA.

A form is made once for the sizes of a call, with the masks and the indices that a module would keep, and is then
called with q, k and v, [B, H, N, D]. Each gives what its pattern gives, at the edges too, and is written to be fast:
views where views do, one fused call where one does, no mask where none is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.functional import scaled_dot_product_attention as sdpa

Run: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
Form: TypeAlias = Callable[..., Run]  # of a size and the values of the pattern's parameters


@dataclass(frozen=True)
class Size:
    """Sizes of a call: the axes that its tokens fill, batch, heads, channels of a head; keys where they differ."""

    axes: tuple[int, ...]
    batch: int = 1
    heads: int = 8
    width: int = 64
    keys: int = 0
    kv_heads: int = 0

    @property
    def tokens(self) -> int:
        """Queries of a batch element."""
        return math.prod(self.axes)

    def tensors(self, dtype: torch.dtype) -> list[Tensor]:
        """Random q, k, v, and a gradient of the output."""
        queries = (self.batch, self.heads, self.tokens, self.width)
        keys = (self.batch, self.kv_heads or self.heads, self.keys or self.tokens, self.width)
        return [torch.randn(shape).to(dtype) for shape in (queries, keys, keys, queries)]

    def __str__(self) -> str:
        kv_heads = f":{self.kv_heads}" if self.kv_heads else ""
        keys = f" over {self.keys}" if self.keys else ""
        tokens = "x".join(map(str, self.axes))
        return f"{self.batch} of {tokens}{keys}, {self.heads}{kv_heads} of {self.width}"


@dataclass(frozen=True)
class Fold:
    """Tokens of a grid in groups of equal boxes, side by side or spread: [B, H, N, D] as [B * H, groups, box, D]."""

    axes: tuple[int, ...]
    box: tuple[int, ...]
    spread: bool = False

    def apart(self, x: Tensor) -> Tensor:
        """Each group for itself; a view where there is one axis in runs."""
        shape, order = self._split()
        parts = x.reshape(-1, *shape, x.shape[-1]).permute(0, *order, len(order) + 1)
        return parts.reshape(len(parts), -1, math.prod(self.box), x.shape[-1])

    def together(self, x: Tensor, batch: int) -> Tensor:
        """The way back."""
        shape, order = self._split()
        parts = x.reshape(-1, *(shape[at - 1] for at in order), x.shape[-1])
        back = [1 + order.index(at) for at in range(1, len(order) + 1)]
        joined = parts.permute(0, *back, len(order) + 1)
        return joined.reshape(batch, -1, math.prod(self.axes), x.shape[-1])

    def _split(self) -> tuple[list[int], list[int]]:
        """Each axis as two, and these in the order groups, members."""
        pairs = [(n // b, b) for n, b in zip(self.axes, self.box, strict=True)]
        shape = [
            n
            for group, member in pairs
            for n in ((member, group) if self.spread else (group, member))
        ]
        groups = [2 * axis + (2 if self.spread else 1) for axis in range(len(pairs))]
        members = [2 * axis + (1 if self.spread else 2) for axis in range(len(pairs))]
        return shape, groups + members


def folded(fold: Fold, causal: bool = False) -> Run:
    """Attention within each group."""

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = sdpa(fold.apart(q), fold.apart(k), fold.apart(v), is_causal=causal)
        return fold.together(out, len(q))

    return run


def boxes(size: Size, box: tuple[int, ...], spread: bool = False, causal: bool = False) -> Run:
    """Equal boxes of neighbours; or, spread, of members evenly over each axis. An extent of 0 is the whole axis."""
    whole = tuple(b or n for n, b in zip(size.axes, box, strict=True))
    return folded(Fold(size.axes, whole, spread), causal)


def by_head(first: Run, second: Run, alternating: bool = False) -> Run:
    """One form for half of the heads, another for the others: halves, or every other head."""

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        half = q.shape[1] // 2
        one, two = (
            (slice(0, None, 2), slice(1, None, 2))
            if alternating
            else (slice(half), slice(half, None))
        )
        parts = first(q[:, one], k[:, one], v[:, one]), second(q[:, two], k[:, two], v[:, two])
        return torch.stack(parts, 2).flatten(1, 2) if alternating else torch.cat(parts, 1)

    return run


# ------------------------------------------------------------------------ whole


def dense(size: Size, causal: bool = False) -> Run:
    """One call of SDPA."""
    return lambda q, k, v: sdpa(q, k, v, is_causal=causal, enable_gqa=k.shape[1] != q.shape[1])


def prefix(size: Size, n: int) -> Run:
    """A full call for the prefix, a causal one for what follows."""

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        head = sdpa(q[:, :, :n], k[:, :, :n], v[:, :, :n])
        return torch.cat((head, sdpa(q, k, v, is_causal=True)[:, :, n:]), 2)

    return run


def padded(size: Size, keep: Tensor) -> Run:
    """A mask of keys."""
    mask = keep[:, None, None]
    return lambda q, k, v: sdpa(q, k, v, mask)


def documents(size: Size, lengths: tuple[int, ...]) -> Run:
    """Causal calls, one a document; one for all where they are equal."""
    if len(set(lengths)) == 1:
        return boxes(size, (lengths[0],), causal=True)

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = zip(*(x.split(lengths, 2) for x in (q, k, v)), strict=True)
        return torch.cat([sdpa(*part, is_causal=True) for part in parts], 2)

    return run


def growing(size: Size, b: int) -> Run:
    """Block after block, each over all keys up to its end."""

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ends = range(b, q.shape[2] + 1, b)
        return torch.cat([sdpa(q[:, :, e - b : e], k[:, :, :e], v[:, :, :e]) for e in ends], 2)

    return run


# ------------------------------------------------------------------------ windows in chunks


def around(x: Tensor, back: int, ahead: int) -> Tensor:
    """Chunks [BH, C, w, D] with their neighbours, [BH, C, (back + 1 + ahead) * w, D]; zeros beyond the ends."""
    count, wide = x.shape[1], F.pad(x, (0, 0, 0, 0, back, ahead))
    return torch.cat([wide[:, at : at + count] for at in range(back + 1 + ahead)], 2)


def chunked(
    size: Size,
    chunk: int,
    back: int,
    ahead: int,
    seen: Callable[[Tensor, Tensor], Tensor],
    leading: int = 0,
) -> Run:
    """Chunks of a sequence over their neighbours' keys, and over ``leading`` keys that all see, by one mask."""
    fold = Fold(size.axes, (chunk,))
    start = torch.arange(0, size.tokens, chunk)[:, None, None]
    query = start + torch.arange(chunk)[:, None]
    key = start + torch.arange(-back * chunk, (1 + ahead) * chunk)
    mask = seen(query, key) & (key >= leading) & (key < size.tokens)
    first = seen(query, torch.arange(leading).expand(len(start), 1, leading))
    mask = torch.cat((first, mask), 2)[None]

    def keys(x: Tensor) -> Tensor:
        near = around(fold.apart(x), back, ahead)
        lead = x[:, :, :leading].flatten(0, 1)[:, None].expand(-1, near.shape[1], -1, -1)
        return torch.cat((lead, near), 2) if leading else near

    return lambda q, k, v: fold.together(sdpa(fold.apart(q), keys(k), keys(v), mask), len(q))


def causal_window(size: Size, w: int) -> Run:
    """Chunks of w over their own and the chunk before."""
    return chunked(size, w, 1, 0, lambda i, j: (j <= i) & (i - j < w))


def lookback(size: Size, b: int) -> Run:
    """Causal keys of the own block and the one before."""
    return chunked(size, b, 1, 0, lambda i, j: j <= i)


def streaming(size: Size, w: int, n: int) -> Run:
    """Chunks of w over the chunk before, and the sinks."""
    return chunked(size, w, 1, 0, lambda i, j: (j <= i) & ((i - j < w) | (j < n)), leading=n)


def longformer(size: Size, w: int, g: int) -> Run:
    """Chunks of w over three chunks and the global keys; then the global queries, over all."""
    local = chunked(size, w, 1, 1, lambda i, j: ((i - j).abs() <= w) | (j < g), leading=g)

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.cat((sdpa(q[:, :, :g], k, v), local(q, k, v)[:, :, g:]), 2)

    return run


def dilated(size: Size, left: int, d: int) -> Run:
    """Residue classes, each with a window in chunks."""
    fold = Fold(size.axes, (size.tokens // d,), spread=True)
    window = chunked(Size((size.tokens // d,)), left, 1, 1, lambda i, j: (i - j).abs() <= left)
    return lambda q, k, v: fold.together(window(*map(fold.apart, (q, k, v))), len(q))


def bigbird(size: Size, b: int, live: Tensor) -> Run:
    """Live blocks of each query block gathered, [H, N / b, N / b]; the first block of queries sees all."""
    counts = live[:, 1:].sum(2)
    most, heads = int(counts.max()), torch.arange(len(live))[:, None, None]
    picked = live[:, 1:].int().topk(most, 2).indices
    mask = (torch.arange(most) < counts[:, :, None]).repeat_interleave(b, 2)[:, :, None]

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch, count, blocks, width = q.shape[0], *live.shape[:2], q.shape[3]
        k_blocks, v_blocks = (
            x.view(batch, count, blocks, b, width)[:, heads, picked].flatten(3, 4).flatten(0, 1)
            for x in (k, v)
        )
        rest = q[:, :, b:].reshape(batch * count, blocks - 1, b, width)
        out = sdpa(rest, k_blocks, v_blocks, mask.repeat(batch, 1, 1, 1))
        return torch.cat((sdpa(q[:, :, :b], k, v), out.view(batch, count, -1, width)), 2)

    return run


def strided_by_head(size: Size, s: int) -> Run:
    """Sparse Transformer: a window in chunks for even heads, columns for odd ones."""
    window = chunked(size, s, 1, 0, lambda i, j: (j <= i) & (i - j <= s))
    columns = boxes(size, (size.tokens // s,), spread=True, causal=True)
    return by_head(window, columns, alternating=True)


def fixed_by_head(size: Size, s: int, c: int) -> Run:
    """Sparse Transformer: blocks for even heads, the last keys of all blocks for odd ones."""
    kept = torch.arange(size.tokens).view(-1, s)[:, -c:].flatten()
    mask = kept <= torch.arange(size.tokens)[:, None]

    def summaries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        short = (x.unflatten(2, (-1, s))[..., -c:, :].flatten(2, 3) for x in (k, v))
        return sdpa(q, *short, mask)

    return by_head(boxes(size, (s,), causal=True), summaries, alternating=True)


def longlora(size: Size, group: int) -> Run:
    """Causal groups; for the second half of the heads they begin half a group later, with halves at both ends."""
    half, n = group // 2, size.tokens
    ends = boxes(Size((2 * half,)), (half,), causal=True)
    middle = boxes(Size((n - 2 * half,)), (group,), causal=True)

    def shifted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        outer = (torch.cat((x[:, :, :half], x[:, :, n - half :]), 2) for x in (q, k, v))
        first, last = ends(*outer).split(half, 2)
        inner = middle(*(x[:, :, half : n - half] for x in (q, k, v)))
        return torch.cat((first, inner, last), 2)

    return by_head(boxes(size, (group,), causal=True), shifted)


# ------------------------------------------------------------------------ images


def swin(size: Size, m: int, s: int = 0, wrapped: bool = False) -> Run:
    """The image padded, rolled, in windows of m; regions that do not belong together are masked."""
    high, wide = size.axes
    pads = (-high % m, -wide % m)
    full = (high + pads[0], wide + pads[1])
    fold = Fold(full, (m, m))
    bands = [
        (torch.arange(x) >= s).int() + (torch.arange(x) >= n).int()
        for x, n in zip(full, size.axes, strict=True)
    ]
    region = (3 * bands[0][:, None] + bands[1]).roll((-s, -s), (0, 1)).view(1, 1, -1, 1)
    region = fold.apart(region)[..., 0]
    mask = region[..., :, None] == region[..., None, :]
    bare = wrapped or bool(mask.all())

    def there(x: Tensor) -> Tensor:
        image = x.unflatten(2, size.axes)
        image = F.pad(image, (0, 0, 0, pads[1], 0, pads[0])) if any(pads) else image
        image = image.roll((-s, -s), (2, 3)) if s else image
        return fold.apart(image.flatten(2, 3))

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = fold.together(sdpa(there(q), there(k), there(v), None if bare else mask), len(q))
        image = out.unflatten(2, full)
        image = image.roll((s, s), (2, 3)) if s else image
        return image[:, :, :high, :wide].flatten(2, 3)

    return run


def halo(size: Size, b: int, h: int) -> Run:
    """Blocks of b by b over the unfolded image, which is padded by zero keys."""
    fold, side = Fold(size.axes, (b, b)), b + 2 * h

    def wide(x: Tensor) -> Tensor:
        image = x.flatten(0, 1).mT.unflatten(2, size.axes)
        patches = F.unfold(image, side, padding=h, stride=b)
        return patches.view(len(image), x.shape[3], side * side, -1).permute(0, 3, 2, 1)

    return lambda q, k, v: fold.together(sdpa(fold.apart(q), wide(k), wide(v)), len(q))


def _near(length: int, window: int, dilation: int) -> Tensor:
    """The places [length, window] that each place of an axis sees: the window moves inwards at the ends."""
    rows = []
    for i in range(length):
        members = range(i % dilation, length, dilation)
        first = min(max(i // dilation - window // 2, 0), len(members) - window)
        rows.append(list(members[first : first + window]))
    return torch.tensor(rows)


def neighbourhood(size: Size, window: int, dilation: int = 1, gathered: bool = True) -> Run:
    """The keys of each query gathered, [N, window * window]; or a dense mask of them."""
    y, x = (_near(n, window, dilation) for n in size.axes)
    seen = (y[:, None, :, None] * size.axes[1] + x[None, :, None, :]).flatten(0, 1).flatten(1)
    if not gathered:
        mask = torch.zeros(size.tokens, size.tokens, dtype=torch.bool).scatter_(1, seen, True)
        return lambda q, k, v: sdpa(q, k, v, mask)

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q * q.shape[3] ** -0.5)[..., None, :] @ k[:, :, seen].mT
        return (scores.softmax(-1) @ v[:, :, seen]).squeeze(3)

    return run
