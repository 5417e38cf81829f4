"""Something was computed from activations before; the pattern consumes the table that holds it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .registry import Oracle, flags, ids, lists, ranks, says
from .tokens import Array, Tokens, among, up


def causal(q: Tokens, k: Tokens) -> Any:
    return k.n <= q.n


def catanet(q: Tokens, k: Tokens, n: int, group: int, rank: Any) -> Any:
    """Sorted tokens, and the tail once more, backwards: a group sees itself and what follows it there."""
    group = min(n, group)
    lacking = up(n, group) * group - n
    places = np.array([*range(n), *range(n - 1, max(n - lacking - group, 0) - 1, -1)])
    first = rank[q.n] // group * group
    return among(places[first[..., None] + np.arange(2 * group)], rank[k.n])


def routing(q: Tokens, k: Tokens, causal: bool, members: Any, head: int) -> Any:
    mine, theirs = ((members[head] == each.n[..., None, None]).any(axis=-1) for each in (q, k))
    return (mine & theirs).any(axis=-1) & (not causal or k.n <= q.n)


def of_group(table: Any, head: int, heads: int) -> Any:
    """Picks the part of a table that belongs to the KV head of a query head."""
    return table[head // (heads // len(table))]


def kinetics(
    q: Tokens, k: Tokens, m: int, sink: int, local: int, block: int, chosen: Any,
    head: int, heads: int
) -> Any:  # fmt: skip
    """Whole blocks stand between the sinks and the local keys."""
    pages = of_group(chosen, head, heads)
    whole = max(m - local - sink, 0) // block * block
    between = (k.m >= sink) & (k.m < sink + whole)
    return ~between | np.isin((k.m - sink) // block, pages)


def infllm2(
    q: Tokens, k: Tokens, n: int, dense_len: int, block: int, initial: int, local: int,
    chosen: Any, head: int, heads: int
) -> Any:  # fmt: skip
    b = k.n // block
    touches_local = b >= np.maximum(q.n - local + 1, 0) // block
    picked = among(of_group(chosen, head, heads)[q.n], b)
    return causal(q, k) & ((n <= dense_len) | (b < initial) | touches_local | picked)


def reformer(q: Tokens, k: Tokens, n: int, chunk: int, rank: Any, head: int) -> Any:
    """Chunks in a ring, the last before the first."""
    mine, theirs = (rank[head, each.n] // chunk for each in (q, k))
    return (theirs == mine) | (theirs == np.where(mine > 0, mine - 1, up(n, chunk) - 1))


def hyperattention_causal(
    q: Tokens, k: Tokens, n: int, block: int, exact: int, q_rank: Any, k_rank: Any, head: int
) -> Any:
    """Exact when short; of two halves the later sees the earlier in blocks, if it is long itself."""
    seen: Array = np.zeros((n, n), dtype=bool)

    def halve(start: int, stop: int, depth: int) -> None:
        if stop - start <= exact:
            seen[start:stop, start:stop] = np.tri(stop - start, dtype=bool)
            return
        middle = (start + stop) // 2
        mine = q_rank[head, depth, middle:stop, None] // block
        theirs = k_rank[head, depth, None, start:middle] // block
        seen[middle:stop, start:middle] = (mine == theirs) | (stop - middle < exact)
        halve(start, middle, depth + 1)
        halve(middle, stop, depth + 1)

    halve(0, n, 0)
    return seen


def tcpa(q: Tokens, k: Tokens, cls_choice: Any, patch_choice: Any) -> Any:
    return (
        k.cls
        | k.patch
        | q.cls & k.cls_prompt & among(cls_choice, k.c)
        | q.patch & k.image_prompt & among(patch_choice[q.p], k.g)
    )


BINS = "n=12 bins=3 batch=2 | n=11 bins=4 heads=2 | n=1 bins=2"
CHOSEN = "n=12 slots={0} heads=2 batch=2 | n=9 slots={0} heads=3 | n=1 slots=1"
BY_HEAD = lists("batch heads n", "n", "slots")

RULES: tuple[Oracle, ...] = (
    says(3, "ttvsr", "t p", lambda q, k, stride, track:
         (k.t % stride == 0) & (k.t < q.t) & (k.p == track[q.at, k.t]),
         "t=4 p=9 tp=36 stride=2 batch=2 | t=5 p=8 tp=40 stride=3 | t=3 p=1 tp=3 stride=1",
         causal=True, track=ids("batch tp t", "p")),
    says(4, "catanet", "n", catanet, "n=12 group=3 batch=2 | n=14 group=4 heads=2 | n=1 group=4",
         rank=ranks("batch n")),
    says(30, "dcal", "n", lambda q, k, selected: selected[q.n], "n=10 batch=2 | n=7 heads=2 | n=1",
         selected=flags("batch n", 0.4)),
    says(31, "ems", "n -> m", lambda q, k, m, recent, kept, head:
         kept[head, k.m] | (k.m >= m - recent),
         "n=1 m=14 recent=3 heads=2 batch=2 | n=1 m=9 recent=0 heads=3 | n=1 m=1 recent=4",
         causal=True, kept=flags("batch heads m", 0.4)),
    says(37, "tcpa", "cls: 1 + patch: p -> cls: 1 + cls_prompt: c + image_prompt: g + patch: p", tcpa,
         "p=6 c=4 g=5 batch=2 | p=9 c=3 g=7 heads=2 | p=1 c=2 g=3",
         cls_choice=lists("batch", "c", "2"), patch_choice=lists("batch p", "g", "3")),
    says(47, "anchor_attention", "n", lambda q, k, initial, group, chosen, head:
         causal(q, k) & ((k.n < initial) | (q.n // group == k.n // group)
                         | among(chosen[head, q.n // group], k.n)),
         "n=16 initial=2 group=4 groups=4 slots=5 heads=2 batch=2"
         "| n=18 initial=1 group=5 groups=4 slots=6 | n=1 initial=0 group=4 groups=1 slots=1",
         causal=True, chosen=lists("batch heads groups", "n", "slots")),
    says(55, "routing", "n", routing,
         "n=12 causal=true clusters=3 slots=5 heads=2 batch=2"
         "| n=10 causal=false clusters=3 slots=6 | n=1 causal=true clusters=1 slots=1",
         members=lists("batch heads clusters", "n", "slots")),
    says(58, "kinetics", "n -> m", kinetics,
         "n=1 m=24 sink=2 local=3 block=4 kv_heads=2 blocks=6 slots=3 heads=4 batch=2"
         "| n=1 m=15 sink=0 local=2 block=5 kv_heads=1 blocks=3 slots=2"
         "| n=1 m=1 sink=1 local=1 block=4 kv_heads=1 blocks=1 slots=1", causal=True,
         chosen=lists("batch kv_heads", "blocks", "slots")),
    says(64, "sparse_frontier", "n", lambda q, k, vertical, slash, head:
         causal(q, k) & (vertical[head, k.n] | slash[head, np.maximum(q.n - k.n, 0)]),
         "n=12 heads=2 batch=2 | n=9 | n=1", part="vertical_slash", causal=True,
         vertical=flags("batch heads n", 0.2), slash=flags("batch heads n", 0.2)),
    says(64, "sparse_frontier", "n", lambda q, k, block, live, head:
         causal(q, k) & live[head, q.n // block, k.n // block],
         "n=12 block=3 rows=4 heads=2 batch=2 | n=11 block=4 rows=3 | n=1 block=2 rows=1",
         part="blocks", causal=True, live=flags("batch heads rows rows", 0.5)),
    says(64, "sparse_frontier", "n -> m", lambda q, k, page, chosen, head:
         np.isin(k.m // page, chosen[head]),
         "n=1 m=16 page=4 pages=4 slots=3 heads=2 batch=2 | n=1 m=13 page=5 pages=3 slots=3"
         "| n=1 m=1 page=2 pages=1 slots=1", part="pages", causal=True,
         chosen=lists("batch heads", "pages", "slots")),
    says(65, "scale_kv", "n -> m", lambda q, k, n, m, kept, head: (k.m >= m - n) | kept[head, k.m],
         "n=9 m=14 heads=3 batch=2 | n=4 m=5 heads=2 | n=1 m=1", kept=flags("batch heads m", 0.4)),
    says(73, "histoformer", "n", lambda q, k, n, bins, rank:
         rank[q.n] // up(n, bins) == rank[k.n] // up(n, bins), BINS, part="bin",
         rank=ranks("batch n")),
    says(73, "histoformer", "n", lambda q, k, bins, rank: rank[q.n] % bins == rank[k.n] % bins,
         BINS, part="frequency", rank=ranks("batch n")),
    says(74, "dynamic_mask", "n", lambda q, k, chosen, head, heads:
         causal(q, k) & among(of_group(chosen, head, heads)[q.n], k.n),
         "n=12 kv_heads=2 slots=5 heads=4 batch=2 | n=9 kv_heads=3 slots=5 heads=3"
         "| n=1 kv_heads=1 slots=1", causal=True, chosen=lists("batch kv_heads n", "n", "slots")),
    says(76, "acmil", "n -> m", lambda q, k, top, dropped: ~(top[q.n, k.m] & dropped[q.n, k.m]),
         "n=3 m=12 batch=2 | n=5 m=7 | n=1 m=9", top=flags("batch n m", 0.4),
         dropped=flags("batch n m", 0.6)),
    says(81, "lra", "n", lambda q, k, window, marked:
         (q.n - k.n < window - window // 2) & (k.n - q.n <= window // 2)  # left: with its own key
         | marked[q.n] | marked[k.n],
         "n=12 window=4 batch=2 | n=11 window=3 | n=1 window=2", part="longformer",
         marked=flags("batch n", 0.15)),
    says(81, "lra", "n", reformer, "n=12 chunk=3 heads=2 batch=2 | n=14 chunk=4 | n=1 chunk=2",
         part="reformer", rank=ranks("batch heads n")),
    says(83, "axformer", "n", lambda q, k, chosen, head: among(chosen[head, q.n], k.n),
         CHOSEN.format(4), chosen=BY_HEAD),
    says(86, "drsformer", "n", lambda q, k, kept, order, head:
         among(order[head, q.n, :kept], k.n), "n=8 kept=4 heads=2 batch=2 | n=9 kept=6 | n=1 kept=1",
         order=ranks("batch heads n n")),
    says(88, "infllm2", "n", infllm2,
         "n=20 dense_len=19 block=3 initial=1 local=4 kv_heads=2 blocks=7 slots=2 heads=4 batch=2"
         "| n=21 dense_len=0 block=4 initial=0 local=1 kv_heads=1 blocks=6 slots=3"
         "| n=8 dense_len=8 block=2 initial=1 local=2 kv_heads=1 blocks=4 slots=1"
         "| n=1 dense_len=0 block=2 initial=0 local=3 kv_heads=1 blocks=1 slots=1", causal=True,
         chosen=lists("batch kv_heads n", "blocks", "slots")),
    says(89, "spark", "n", lambda q, k, chosen, head: causal(q, k) & among(chosen[head, q.n], k.n),
         CHOSEN.format(6), causal=True, chosen=BY_HEAD),
    says(90, "hyperattention", "n -> m", lambda q, k, n, block, exact, q_rank, k_rank, sampled, head:
         (n < exact) | (q_rank[head, q.n] // block == k_rank[head, k.m] // block)
         | sampled[head, k.m],
         "n=12 m=12 block=4 exact=12 heads=2 batch=2 | n=7 m=10 block=3 exact=7"
         "| n=1 m=5 block=2 exact=2", q_rank=ranks("batch heads n"), k_rank=ranks("batch heads m"),
         sampled=flags("batch heads m", 0.2)),
    says(90, "hyperattention", "n", hyperattention_causal,
         "n=16 block=2 exact=4 depths=3 | n=13 block=3 exact=3 depths=4 | n=3 block=2 exact=4 depths=1",
         part="causal", causal=True, q_rank=ranks("batch heads depths n"),
         k_rank=ranks("batch heads depths n")),
    says(94, "nsa_latent", "n", lambda q, k, block, chosen, head, heads:
         causal(q, k) & among(of_group(chosen, head, heads)[q.n], k.n // block),
         "n=16 block=4 kv_heads=2 blocks=4 slots=2 heads=4 batch=2"
         "| n=13 block=3 kv_heads=1 blocks=5 slots=3 | n=1 block=2 kv_heads=1 blocks=1 slots=1",
         part="selected", causal=True, chosen=lists("batch kv_heads n", "blocks", "slots")),
    says(98, "moba", "n", lambda q, k, block, chosen, head:
         causal(q, k) & ((q.n // block == k.n // block) | among(chosen[head, q.n], k.n // block)),
         "n=16 block=4 blocks=4 slots=2 heads=2 batch=2 | n=14 block=3 blocks=5 slots=2"
         "| n=1 block=2 blocks=1 slots=1", causal=True,
         chosen=lists("batch heads n", "blocks", "slots")),
)  # fmt: skip
