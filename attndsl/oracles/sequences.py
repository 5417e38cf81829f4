"""Language models: a flat axis, mostly causal, a closed form of positions, heads and layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .registry import Oracle, given, ids, says
from .tokens import Tokens, all_of, spread


def causal(q: Tokens, k: Tokens) -> Any:
    return k.n <= q.n


def back(q: Tokens, k: Tokens, window: int) -> Any:
    """The last ``window`` keys, the query's own among them."""
    return (q.n - window < k.n) & (k.n <= q.n)


def blocked(q: Tokens, k: Tokens, block: int) -> Any:
    return q.n // block == k.n // block


def every(q: Tokens, k: Tokens) -> Any:
    return True


def shifted(q: Tokens, k: Tokens, n: int, group: int, head: int, heads: int) -> Any:
    """Groups begin every ``group``, half a group later for half the heads."""
    borders = np.arange(0 if head < heads // 2 else group // 2, n, group)
    mine, theirs = (np.searchsorted(borders, each.n, side="right") for each in (q, k))
    return (mine == theirs) & causal(q, k)


def power_of_two(d: Any) -> Any:
    return (d > 0) & (d & (d - 1) == 0)


def power_blocks(q: Tokens, k: Tokens, block: int, window: int, sink: int) -> Any:
    apart = q.n // block - k.n // block
    return causal(q, k) & ((apart < window) | power_of_two(apart) | (k.n // block < sink))


def fixed(q: Tokens, k: Tokens, block: int, summary: int, cls: bool) -> Any:
    """A CLS token stands before the sequence, whose places are counted without it."""
    i, j = q.n - cls, k.n - cls
    seen = (i // block == j // block) | np.isin(j % block, [0, *range(block - summary, block)])
    return (j <= i) & seen | cls & ((i < 0) | (j < 0))


PRIME = 32749


def drawn(seed: int, head: int, a: Any, draw: int, blocks: int) -> Any:
    """The block that a draw gives to query block a: the language's own hash."""

    def mixed(hashed: Any, number: Any) -> Any:
        return (((hashed + number * 3) % PRIME) ** 2 + 12345) % PRIME

    high, low = mixed(seed, 1), mixed(seed, 2)
    for one, other in ((head, draw), (a, head), (draw, a)):
        high, low = mixed(high, one), mixed(low, other)
    return (high * PRIME + low) % blocks


def bigbird(q: Tokens, k: Tokens, n: int, block: int, count: int, seed: int, head: int) -> Any:
    last, a, b = (n - 1) // block, q.n // block, k.n // block
    seen = (abs(a - b) <= 1) | np.isin(a, (0, last)) | np.isin(b, (0, last))
    for draw in range(count):
        seen = seen | (b == drawn(seed, head, a, draw, last + 1))
    return seen


def pooled_then_raw(q: Tokens, k: Tokens, group: int, window: int) -> Any:
    """Whole groups before the window as core tokens, what comes after them raw."""
    cores = np.maximum(0, (q.n + 1 - window) // group)
    return k.core & (k.c + 1 <= cores) | k.raw & (group * cores <= k.n) & (k.n <= q.n)


def contexts(q: Tokens, k: Tokens, block: int, width: int) -> Any:
    """Contexts of the block before, which see each other, then the block's own tokens, causally."""
    of_contexts = q.context & k.context & (q.c // width == k.c // width) & (k.c <= q.c)
    before = k.context & (k.c // width + 1 == q.n // block)
    return of_contexts | q.text & (before | k.text & blocked(q, k, block) & (k.n <= q.n))


def sampled_frames(q: Tokens, k: Tokens, n: int, pad: int, top: int, devices: int) -> Any:
    """Frames near by, and those that the devices sample of their shares."""
    own, share = -(-n // devices), top // devices
    stride = max(own // share, 1) if share else own
    frames = [f for start in range(0, n, own) for f in range(start, start + own, stride)]
    return (abs(q.n - k.n) <= pad) | np.isin(k.n, frames[:top])


WINDOWS = "n=12 window=4 | n=9 window=1 | n=1 window=3 | n=7 window=20"
SHORT = "n=8 | n=5 | n=1"
LAYERS = "n=10 {0} layer=1 | n=10 {0} layer=2 | n=7 {0} layer=0 | n=1 {0} layer=3"

RULES: tuple[Oracle, ...] = (
    says(17, "short_range", "n", lambda q, k, n, window, local_heads, head:
         back(q, k, window if head < local_heads else n),
         "n=10 window=3 local_heads=1 heads=2 | n=7 window=1 local_heads=2 heads=4"
         "| n=1 window=4 local_heads=3 heads=3", causal=True),
    says(20, "mossformer", "n", lambda q, k, group: blocked(q, k, block=group),
         "n=16 group=4 | n=13 group=5 | n=1 group=4 | n=9 group=2"),
    says(25, "video_infinity", "n", sampled_frames,
         "n=16 pad=2 top=4 devices=2 | n=21 pad=1 top=7 devices=3 | n=12 pad=3 top=2 devices=4"
         "| n=1 pad=3 top=2 devices=1",
         zeros=lambda q, k, n, pad: sum((q.n + d < 0) | (q.n + d >= n) for d in range(-pad, pad + 1))),
    says(33, "freelong", "n", lambda q, k, window:
         (q.n - window // 2 <= k.n) & (k.n < q.n + window // 2 + 1),
         "n=12 window=4 | n=13 window=5 | n=3 window=1 | n=1 window=16"),
    says(39, "longlora", "n", shifted,
         "n=16 group=4 heads=2 | n=18 group=4 heads=4 | n=13 group=5 heads=2 | n=1 group=4 heads=2",
         causal=True),
    says(44, "lizard", "n -> meta: s + text: n", lambda q, k, window: k.meta | back(q, k, window),
         "s=4 n=12 window=3 | s=1 n=9 window=5 heads=2 | s=2 n=1 window=4"),
    says(46, "block_transformer", "n", causal, "n=1 | n=7 | n=12", part="block", causal=True),
    says(46, "block_transformer", "context: c + text: n", contexts,
         "c=6 n=12 block=4 width=2 | c=4 n=10 block=3 width=1 | c=1 n=1 block=4 width=3",
         part="token", causal=True),
    says(51, "cab", "n", causal, SHORT, part="causal_self", causal=True),
    says(51, "cab", "n -> m", every, "n=5 m=9 | n=7 m=7 | n=6 m=4 | n=1 m=3",
         part="causal_cross", dense=True),
    says(53, "cca", "n -> core: c + raw: n", pooled_then_raw,
         "c=4 n=16 group=4 window=4 | c=6 n=19 group=3 window=6 | c=4 n=18 group=4 window=5"
         "| c=1 n=5 group=5 window=2"),
    says(61, "power_attention", "n", lambda q, k, window, sink: power_blocks(q, k, 1, window, sink),
         "n=20 window=3 sink=1 | n=35 window=1 sink=2 | n=1 window=1 sink=1",
         part="tokens", causal=True),
    says(61, "power_attention", "n", power_blocks,
         "n=32 block=2 window=1 sink=1 | n=29 block=3 window=2 sink=1 | n=3 block=4 window=5 sink=1",
         part="blocks", causal=True),
    says(62, "sinklora", "n", lambda q, k, n, group, sink, head, heads:
         shifted(q, k, n, group, head, heads) | causal(q, k) & ((q.n < sink) | (k.n < sink)),
         "n=16 group=4 sink=0 heads=4 | n=18 group=6 sink=2 heads=2 | n=15 group=6 sink=4 heads=2"
         "| n=1 group=2 sink=1 heads=2", causal=True),
    says(68, "lsm", "n", every, "n=6 | n=1", dense=True),
    says(72, "based", "n", lambda q, k, window: (q.n - window <= k.n) & (k.n <= q.n), WINDOWS,
         causal=True),
    says(77, "mvar", "n", lambda q, k, ends:
         (scale := np.repeat(range(len(ends)), np.diff(ends, prepend=0)))[q.n] == scale[k.n],
         "n=14 ends=(1,5,14) | n=21 ends=(1,5,21) | n=2 ends=(1,2)"),
    says(78, "sequence_parallel", "n", every, "n=7 | n=1", dense=True),
    says(81, "lra", "n", fixed,
         "n=16 block=4 summary=1 cls=false | n=19 block=6 summary=2 cls=false"
         "| n=9 block=4 summary=1 cls=true | n=1 block=4 summary=1 cls=false", part="fixed"),
    says(81, "lra", "n", lambda q, k, stride:
         causal(q, k) & (((q.n - k.n) % stride == 0) | (q.n - k.n < stride)),
         "n=16 stride=4 | n=19 stride=5 | n=1 stride=3", part="strided", causal=True),
    says(81, "lra", "n", lambda q, k, groups: spread(q, k, "n", groups),
         "n=12 groups=3 | n=13 groups=4 | n=1 groups=2", part="local"),
    says(81, "lra", "n", bigbird,
         "n=24 block=3 count=1 seed=0 heads=2 batch=2 | n=26 block=3 count=2 seed=5 heads=2"
         "| n=1 block=2 count=1 seed=1", part="bigbird"),
    says(84, "not_every_layer", "n", lambda q, k, window, full_layers, layer:
         causal(q, k) & ((layer < full_layers) | (q.n - k.n <= window)),
         LAYERS.format("window=3 full_layers=2"), part="window", causal=True),
    says(84, "not_every_layer", "n", lambda q, k, block, full_layers, layer:
         causal(q, k) & ((layer < full_layers) | blocked(q, k, block)),
         LAYERS.format("block=3 full_layers=2"), part="blocks", causal=True),
    says(91, "efficient_conformer", "n", lambda q, k, group: spread(q, k, "n", group),
         "n=12 group=3 | n=13 group=4 | n=1 group=2", part="grouped"),
    says(91, "efficient_conformer", "n", lambda q, k, group, head, heads:
         all_of(each.n % group == head * group // heads for each in (q, k)),
         "n=12 group=3 heads=6 | n=10 group=2 heads=4 | n=3 group=2 heads=2", part="by_head"),
    says(91, "efficient_conformer", "qn -> n", every, "qn=4 n=8 | qn=1 n=3 heads=2",
         part="strided", dense=True),
    says(92, "selective", "n", lambda q, k, evicted_at: causal(q, k) & (q.n < evicted_at[k.n]),
         "n=12 until=16 batch=2 | n=9 until=12 heads=2 | n=1 until=2", causal=True,
         evicted_at=ids("batch n", "until")),
    says(94, "nsa_latent", "n", back, WINDOWS, part="local", causal=True),
    says(94, "nsa_latent", "n -> c", lambda q, k, length, stride:
         k.c * stride + length <= q.n + 1,  # tokens that a block takes, and that there are
         "n=12 c=5 length=4 stride=2 | n=13 c=4 length=3 stride=3 | n=1 c=1 length=2 stride=1",
         part="compressed"),
    says(96, "griffin", "n", back, WINDOWS, causal=True),
    says(97, "rope_nope", "n", lambda q, k, n, window, period, layer:
         back(q, k, n if layer % period == period - 1 else window),
         "n=9 window=3 period=4 layer=0 | n=8 window=3 period=4 layer=3"
         "| n=7 window=3 period=4 layer=6 | n=1 window=3 period=4 layer=7", causal=True),
    says(100, "lean", "n -> m", lambda q, k, length: k.m < length,
         "n=1 m=12 heads=2 batch=3 | n=1 m=7 | n=1 m=1", causal=True,
         length=given([12, 5, 0], 4, 1)),
    says(101, "infini", "n", lambda q, k, segment: causal(q, k) & blocked(q, k, segment),
         "n=12 segment=4 | n=11 segment=3 | n=1 segment=5", causal=True),
    says(108, "hydra", "n", causal, SHORT, causal=True),
)  # fmt: skip
