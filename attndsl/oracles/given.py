"""A run-time input says it: ids of segments, regions and documents, flags, neighbour lists, adjacency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .registry import Draw, Oracle, flags, given, ids, lists, runs, says
from .tokens import Array, Tokens, among, near

ONE_EACH = "n=12 batch=2 | n=9 heads=2 | n=1"
LISTED = "n=12 slots={0} batch=2 | n=7 slots={0} heads=2 | n=1 slots=1"
REFERENCES = "n=5 c=2 m=4 batch=2 | n=3 c=3 m=5 | n=1 c=1 m=6"
OWN_AND_REFERENCES = "n -> own: n + reference: c m"
SHOWN = flags("batch c m", 0.5)
NONE, A, B = -1, 0, 1  # images


def regions(q: Tokens, k: Tokens, region: Any) -> Any:
    return region[q.n] == region[k.n]


def listed(q: Tokens, k: Tokens, neighbours: Any) -> Any:
    return among(neighbours[q.n], k.n)


def in_document(q: Tokens, k: Tokens, document: Any) -> Any:
    return document[q.n] == document[k.n]


def blockrank(q: Tokens, k: Tokens, blocks: int, block: Any, valid: Any) -> Any:
    mine, theirs = block[q.n], block[k.n]
    within = (mine == theirs) & (k.n <= q.n)
    of_the_instruction = (theirs == 0) & (mine >= 1)
    of_the_query = (mine == blocks - 1) & (theirs < blocks - 1)
    return valid[k.n] & (within | of_the_instruction | of_the_query)


def creative_upscale(q: Tokens, k: Tokens, region: Any, concerns: Any, owner: Any) -> Any:
    mine = region[q.n]
    return k.whole & concerns[mine, k.g] | k.regional & (owner[k.r] == mine)


def eligen(q: Tokens, k: Tokens, prompt: Any, touches: Any) -> Any:
    mine, theirs = prompt[q.words], prompt[k.words]
    return (
        q.prompt & k.prompt & (mine == theirs)
        | q.prompt & k.image & touches[mine, k.n]
        | q.image & k.prompt & touches[theirs, q.n]
        | q.image & k.image
    )


def mma(q: Tokens, k: Tokens, image: Any, question: Any) -> Any:
    return (k.n <= q.n) | (image[q.n] >= 0) & (question[k.n] == image[q.n])


def every_patch_by_the_last(dims: str) -> Draw:
    """The patches that each region touches; the last is the whole picture."""

    def draw(rng: np.random.Generator, sizes: Mapping[str, Any]) -> Array:
        touches = flags(dims, 0.4)(rng, sizes)
        touches[:, -1] = True
        return touches

    return draw


def symmetric(dims: str) -> Draw:
    """Adjacency, every vertex its own neighbour."""

    def draw(rng: np.random.Generator, sizes: Mapping[str, Any]) -> Array:
        drawn = flags(dims, 0.2)(rng, sizes)
        either: Array = drawn | drawn.swapaxes(1, 2) | np.eye(drawn.shape[1], dtype=bool)
        return either

    return draw


def nested(dims: str) -> Draw:
    """The tokens kept by each stage: some of those that the stage before kept."""
    return lambda rng, sizes: flags(dims, 0.7)(rng, sizes).cumprod(axis=1).astype(bool)


def padded(rng: np.random.Generator, sizes: Mapping[str, Any]) -> Array:
    """Marks tokens that are no padding: eight in ten, and every third."""
    drawn = flags("batch n", 0.8)(rng, sizes)
    drawn[:, 2::3] = True
    return drawn


RULES: tuple[Oracle, ...] = (
    says(7, "rat", "n", regions, ONE_EACH, part="region", region=ids("batch n", "4")),
    says(15, "blockrank", "n", blockrank, "n=12 blocks=4 batch=2 | n=9 blocks=3 | n=2 blocks=2",
         causal=True, valid=padded, block=given(
             np.repeat([[0, 1, 2, 3]] * 2, 3, axis=1), [0, 0, 1, 1, 1, 1, 1, 2, 2], [0, 1])),
    says(28, "gps", "n", lambda q, k, neighbours: (k.n == q.n) | listed(q, k, neighbours),
         LISTED.format(4), part="local", neighbours=lists("batch n", "n", "slots")),
    says(28, "gps", "n", lambda q, k, graph: graph[q.n] == graph[k.n], ONE_EACH, part="global",
         graph=runs("batch n", "3")),
    says(41, "magicinfinite", "t y x -> a", lambda q, k, region, speaker: region[q.at] == speaker[k.a],
         "t=5 y=1 x=2 n=10 a=6 batch=2 | t=1 y=7 x=1 n=7 a=9 heads=2 | t=1 y=1 x=5 n=5 a=1",
         region=ids("batch n", "2", low=-1), speaker=ids("batch a", "2")),
    says(52, "largegt", "n -> h n", lambda q, k, neighbours: among(neighbours[q.n], k.n),
         "n=10 h=3 slots=4 batch=2 | n=7 h=2 slots=5 | n=1 h=3 slots=1", part="local",
         neighbours=lists("batch n", "n", "slots")),
    says(52, "largegt", "n -> m", lambda q, k, cluster_size: cluster_size[k.m] > 0,
         "n=6 m=8 batch=2 | n=4 m=5 | n=1 m=3", part="codebook", cluster_size=ids("batch m", "3")),
    says(69, "creative_upscale", "n -> whole: g + regional: r", creative_upscale,
         "n=9 g=5 r=6 batch=2 | n=7 g=3 r=4 | n=1 g=4 r=2", region=ids("batch n", "3"),
         concerns=flags("batch 3 g", 0.5), owner=ids("batch r", "3")),
    says(70, "magicface", OWN_AND_REFERENCES, lambda q, k, foreground: k.own | foreground[k.c, k.m],
         REFERENCES, part="rsa", foreground=SHOWN),
    says(70, "magicface", OWN_AND_REFERENCES, lambda q, k, foreground, concept:
         k.own | (concept[q.n] == k.c) & foreground[k.c, k.m],
         REFERENCES, part="rba", foreground=SHOWN, concept=ids("batch n", "c")),
    says(71, "dreamtuner", OWN_AND_REFERENCES, lambda q, k, foreground: k.own | foreground[k.c, k.m],
         "n=6 c=1 m=8 batch=2 | n=4 c=1 m=5 heads=2 | n=1 c=1 m=3", foreground=SHOWN),
    says(75, "mask_bench", "n", lambda q, k, window: (q.n >= k.n) & (q.n - k.n <= window),
         "n=12 window=4 | n=9 window=0 | n=1 window=3 | n=7 window=20", part="sliding", causal=True),
    says(75, "mask_bench", "n", lambda q, k, window: near(q, k, "n", window),
         "n=12 window=4 | n=9 window=0 | n=1 window=3", part="window"),
    says(75, "mask_bench", "n", lambda q, k, window, sink:
         (abs(q.n - k.n) <= window) | (q.n < sink) | (k.n < sink),
         "n=12 window=2 sink=1 | n=11 window=1 sink=3 | n=1 window=1 sink=1", part="global_sliding"),
    says(75, "mask_bench", "n", lambda q, k, prefix: (k.n <= q.n) | (k.n < prefix),
         "n=9 prefix=3 | n=8 prefix=1 | n=2 prefix=2", part="prefix"),
    says(75, "mask_bench", "n", in_document, ONE_EACH, part="document",
         document=runs("batch n", "4")),
    says(75, "mask_bench", "n", lambda q, k, document: in_document(q, k, document) & (k.n <= q.n),
         ONE_EACH, part="causal_document", causal=True, document=runs("batch n", "3")),
    says(75, "mask_bench", "n", lambda q, k, block, document:
         in_document(q, k, document) & (k.n < (q.n // block + 1) * block),
         "n=12 block=3 batch=2 | n=10 block=4 | n=1 block=4", part="block_causal_document",
         document=runs("batch n", "3")),
    says(75, "mask_bench", "n", lambda q, k, document, prefix:
         in_document(q, k, document) & ((k.n <= q.n) | prefix[k.n]),
         ONE_EACH, part="prefix_document", document=runs("batch n", "3"),
         prefix=flags("batch n", 0.4)),
    says(75, "mask_bench", "n", lambda q, k, answer:
         (k.n <= q.n) & ((answer[k.n] == 0) | (answer[k.n] == answer[q.n])),
         ONE_EACH, part="shared_question", causal=True, answer=runs("batch n", "4")),
    says(75, "mask_bench", "n", lambda q, k, last, block:
         (k.n <= q.n) & ((block[q.n] == block[k.n]) | (block[q.n] == last)),
         "n=12 last=2 batch=2 | n=9 last=3 | n=1 last=0", part="causal_blockwise", causal=True,
         block=given([np.arange(12) // 4, np.arange(12) // 5], [0, 0, 1, 2, 2, 2, 3, 3, 3], [0])),
    says(75, "mask_bench", "n", lambda q, k, block, live: live[q.n // block, k.n // block],
         "n=12 block=4 rows=3 batch=2 | n=10 block=3 rows=4 | n=1 block=2 rows=1",
         part="uniform_blocks", live=flags("batch rows rows", 0.5)),
    says(75, "mask_bench", "n", lambda q, k, block, live: live[block[q.n], block[k.n]],
         "n=12 rows=4 batch=2 | n=9 rows=3 | n=1 rows=2", part="variable_blocks",
         block=runs("batch n", "rows"), live=flags("batch rows rows", 0.5)),
    says(79, "freecustom", OWN_AND_REFERENCES, lambda q, k, foreground: k.own | foreground[k.c, k.m],
         REFERENCES, foreground=SHOWN),
    says(82, "iared", "n", lambda q, k, depth, keep, layer:
         (kept := keep[layer // depth])[q.n] & kept[k.n],
         "n=10 depth=2 stages=3 batch=2 layer=1 | n=10 depth=2 stages=3 batch=2 layer=2"
         "| n=7 depth=3 stages=2 heads=2 layer=5 | n=1 depth=1 stages=1",
         keep=nested("batch stages n")),
    says(85, "fit2", "n", lambda q, k, segment: segment[q.n] == segment[k.n], ONE_EACH,
         segment=runs("batch n", "2")),
    says(95, "pointgs", "n", listed, LISTED.format(5), neighbours=lists("batch n", "n", "slots")),
    says(103, "eligen", "prompt: words + image: n", eligen,
         "words=7 n=6 prompts=3 batch=2 | words=4 n=9 prompts=2 | words=5 n=1 prompts=4",
         prompt=runs("batch words", "prompts"), touches=every_patch_by_the_last("batch prompts n")),
    says(104, "smarttrim", "n", lambda q, k, keep, gate, head: keep[q.n] & keep[k.n] & gate[head],
         "n=10 heads=4 batch=2 | n=7 heads=2 | n=1", keep=flags("batch n", 0.7),
         gate=flags("batch heads", 0.6)),
    says(105, "fastmetro", "joint: j + vertex: v", lambda q, k, adjacency:
         q.joint | k.joint | adjacency[q.v, k.v],
         "j=4 v=9 | j=2 v=12 heads=2 | j=1 v=5", adjacency=symmetric("batch v v")),
    says(109, "mma", "n", mma, "n=9 | n=10 batch=2 | n=2",
         image=given(
             [NONE, A, A, A, NONE, NONE, NONE, NONE, NONE],
             [[A, A, NONE, NONE, B, B, B, NONE, NONE, NONE],
              [NONE, NONE, A, NONE, NONE, NONE, NONE, NONE, NONE, NONE]], [NONE, NONE]),
         question=given(
             [NONE, NONE, NONE, NONE, A, A, A, NONE, NONE],
             [[NONE, NONE, A, A, NONE, NONE, NONE, B, B, NONE],
              [NONE, NONE, NONE, A, A, A, A, A, A, NONE]], [NONE, NONE])),
)  # fmt: skip
