"""Something was computed from activations before; the pattern consumes the table that holds it."""

import numpy as np

from .given import flags, flat, ids, lists
from .registry import Case, oracle, pairs, rng, up
from .two_spaces import named


def ranks(seed, n, *shape):
    """For each token its place in some sorted order of n tokens."""
    draw = rng(seed)
    orders = [draw.permutation(n) for _ in np.ndindex(*shape)]
    return np.array(orders).reshape(*shape, n)


@oracle(
    4,
    "catanet",
    [
        Case({"n": 12}, {"group": 3}, {"rank": ranks(1, 12, 2)}, batch=2),
        Case({"n": 14}, {"group": 4}, {"rank": ranks(2, 14, 1)}, heads=2),
        Case({"n": 1}, {"group": 4}, {"rank": ranks(3, 1, 1)}),
    ],
)
def catanet(n, group, rank):
    group = min(n, group)
    lacking = up(n, group) * group - n
    mirrored = range(n - 1, max(n - lacking - group, 0) - 1, -1)
    places = [*range(n), *mirrored]  # sorted tokens, and the tail once more, backwards

    def rule(i, j):
        first = rank[i] // group * group
        return rank[j] in places[first : first + 2 * group]

    return flat(n, rule)


@oracle(
    30,
    "dcal",
    [
        Case({"n": 10}, {}, {"selected": flags(4, 0.4, 2, 10)}, batch=2),
        Case({"n": 7}, {}, {"selected": flags(5, 0.3, 1, 7)}, heads=2),
        Case({"n": 1}, {}, {"selected": np.array([[False]])}),
    ],
)
def dcal(n, selected):
    return flat(n, lambda i, j: selected[i])


@oracle(
    31,
    "ems",
    [
        Case({"n": 1, "m": 14}, {"recent": 3}, {"kept": flags(6, 0.4, 2, 2, 14)}, heads=2, batch=2),
        Case({"n": 1, "m": 9}, {"recent": 0}, {"kept": flags(7, 0.5, 1, 3, 9)}, heads=3),
        Case({"n": 1, "m": 1}, {"recent": 4}, {"kept": np.array([[[False]]])}),
    ],
    causal=True,
)
def ems(n, m, recent, kept, head):
    return pairs(range(n), range(m), lambda i, j: kept[head, j] or j >= m - recent)


def choices(seed, batch, p, c, g):
    return {
        "cls_choice": lists(seed, c, 2, batch),
        "patch_choice": lists(seed + 1, g, 3, batch, p),
    }


@oracle(
    37,
    "tcpa",
    [
        Case({"p": 6, "c": 4, "g": 5}, {}, choices(8, 2, 6, 4, 5), batch=2),
        Case({"p": 9, "c": 3, "g": 7}, {}, choices(10, 1, 9, 3, 7), heads=2),
        Case({"p": 1, "c": 2, "g": 3}, {}, choices(12, 1, 1, 2, 3)),
    ],
)
def tcpa(p, c, g, cls_choice, patch_choice):
    queries = [("cls", 0), *named("patch", range(p))]
    keys = [
        ("cls", 0),
        *named("cls prompt", range(c)),
        *named("image prompt", range(g)),
        *named("patch", range(p)),
    ]

    def rule(query, key):
        (ours, i), (theirs, j) = query, key
        match theirs:
            case "cls prompt":
                return ours == "cls" and j in cls_choice
            case "image prompt":
                return ours == "patch" and j in patch_choice[i]
            case _:
                return True

    return pairs(queries, keys, rule)


@oracle(
    47,
    "anchor_attention",
    [
        Case(
            {"n": 16},
            {"initial": 2, "group": 4},
            {"chosen": lists(14, 16, 5, 2, 2, 4)},
            heads=2,
            batch=2,
        ),
        Case({"n": 18}, {"initial": 1, "group": 5}, {"chosen": lists(15, 18, 6, 1, 1, 4)}),
        Case({"n": 1}, {"initial": 0, "group": 4}, {"chosen": lists(16, 1, 1, 1, 1, 1)}),
    ],
    causal=True,
)
def anchor_attention(n, initial, group, chosen, head):
    def rule(i, j):
        local = i // group == j // group
        return j <= i and (j < initial or local or j in chosen[head, i // group])

    return flat(n, rule)


@oracle(
    55,
    "routing",
    [
        Case({"n": 12}, {"causal": True}, {"members": lists(17, 12, 5, 2, 2, 3)}, heads=2, batch=2),
        Case({"n": 10}, {"causal": False}, {"members": lists(18, 10, 6, 1, 1, 3)}),
        Case({"n": 1}, {"causal": True}, {"members": np.array([[[[0]]]])}),
    ],
)
def routing(n, causal, members, head):
    def rule(i, j):
        together = any(i in cluster and j in cluster for cluster in members[head])
        return together and (j <= i or not causal)

    return flat(n, rule)


@oracle(
    58,
    "kinetics",
    [
        Case(
            {"n": 1, "m": 22},
            {"sink": 2, "local": 3, "block": 4, "kv_heads": 2},
            {"chosen": lists(19, 6, 3, 2, 2)},
            heads=4,
            batch=2,
        ),
        Case(
            {"n": 1, "m": 15},
            {"sink": 0, "local": 2, "block": 5, "kv_heads": 1},
            {"chosen": lists(20, 3, 2, 1, 1)},
        ),
        Case(
            {"n": 1, "m": 1},
            {"sink": 1, "local": 1, "block": 4, "kv_heads": 1},
            {"chosen": lists(21, 1, 1, 1, 1)},
        ),
    ],
    causal=True,
)
def kinetics(n, m, sink, local, block, kv_heads, chosen, head, heads):
    pages = chosen[head // (heads // kv_heads)]
    seen = {*range(sink)}
    start = sink
    while start + block + local <= m:  # whole blocks before the local keys
        if (start - sink) // block in pages:
            seen |= {*range(start, start + block)}
        start += block
    seen |= {*range(start, m)}
    return pairs(range(n), range(m), lambda i, j: j in seen)


@oracle(
    64,
    "sparse_frontier",
    [
        Case(
            {"n": 12},
            {},
            {"vertical": flags(22, 0.2, 2, 2, 12), "slash": flags(23, 0.2, 2, 2, 12)},
            heads=2,
            batch=2,
        ),
        Case({"n": 9}, {}, {"vertical": flags(24, 0.1, 1, 1, 9), "slash": flags(25, 0.3, 1, 1, 9)}),
        Case({"n": 1}, {}, {"vertical": flags(26, 0.5, 1, 1, 1), "slash": np.array([[[True]]])}),
    ],
    part="vertical_slash",
    causal=True,
)
def sparse_frontier_vertical_slash(n, vertical, slash, head):
    return flat(n, lambda i, j: j <= i and (vertical[head, j] or slash[head, i - j]))


@oracle(
    64,
    "sparse_frontier",
    [
        Case({"n": 12}, {"block": 3}, {"live": flags(27, 0.5, 2, 2, 4, 4)}, heads=2, batch=2),
        Case({"n": 11}, {"block": 4}, {"live": flags(28, 0.6, 1, 1, 3, 3)}),
        Case({"n": 1}, {"block": 2}, {"live": np.array([[[[True]]]])}),
    ],
    part="blocks",
    causal=True,
)
def sparse_frontier_blocks(n, block, live, head):
    return flat(n, lambda i, j: j <= i and live[head, i // block, j // block])


@oracle(
    64,
    "sparse_frontier",
    [
        Case({"n": 1, "m": 16}, {"page": 4}, {"chosen": lists(29, 4, 3, 2, 2)}, heads=2, batch=2),
        Case({"n": 1, "m": 13}, {"page": 5}, {"chosen": np.array([[[2, 0, -1]]])}),
        Case({"n": 1, "m": 1}, {"page": 2}, {"chosen": np.array([[[-1]]])}),
    ],
    part="pages",
    causal=True,
)
def sparse_frontier_pages(n, m, page, chosen, head):
    return pairs(range(n), range(m), lambda i, j: j // page in chosen[head])


@oracle(
    65,
    "scale_kv",
    [
        Case({"n": 9, "m": 14}, {}, {"kept": flags(30, 0.5, 2, 3, 14)}, heads=3, batch=2),
        Case({"n": 4, "m": 5}, {}, {"kept": np.array([[[False] * 5] * 2])}, heads=2),
        Case({"n": 1, "m": 1}, {}, {"kept": np.array([[[False]]])}),
    ],
)
def scale_kv(n, m, kept, head):
    return pairs(range(n), range(m), lambda i, j: j >= m - n or kept[head, j])


BINS = [
    Case({"n": 12}, {"bins": 3}, {"rank": ranks(34, 12, 2)}, batch=2),
    Case({"n": 11}, {"bins": 4}, {"rank": ranks(35, 11, 1)}, heads=2),
    Case({"n": 1}, {"bins": 2}, {"rank": ranks(36, 1, 1)}),
]


@oracle(73, "histoformer", BINS, part="bin")
def histoformer_bin(n, bins, rank):
    size = up(n, bins)
    return flat(n, lambda i, j: rank[i] // size == rank[j] // size)


@oracle(73, "histoformer", BINS, part="frequency")
def histoformer_frequency(n, bins, rank):
    return flat(n, lambda i, j: rank[i] % bins == rank[j] % bins)


def chosen_tokens(seed, slots):
    """Cases over n tokens with a list of tokens for each head and query."""
    return [
        Case({"n": 12}, {}, {"chosen": lists(seed, 12, slots, 2, 2, 12)}, heads=2, batch=2),
        Case({"n": 9}, {}, {"chosen": lists(seed + 1, 9, slots, 1, 3, 9)}, heads=3),
        Case({"n": 1}, {}, {"chosen": np.array([[[[0]]]])}),
    ]


@oracle(
    74,
    "dynamic_mask",
    [
        Case({"n": 12}, {"kv_heads": 2}, {"chosen": lists(37, 12, 5, 2, 2, 12)}, heads=4, batch=2),
        Case({"n": 9}, {"kv_heads": 3}, {"chosen": lists(38, 9, 5, 1, 3, 9)}, heads=3),
        Case({"n": 1}, {"kv_heads": 1}, {"chosen": np.array([[[[0]]]])}),
    ],
    causal=True,
)
def dynamic_mask(n, kv_heads, chosen, head, heads):
    group = head // (heads // kv_heads)
    return flat(n, lambda i, j: j <= i and j in chosen[group, i])


@oracle(83, "axformer", chosen_tokens(40, 4))
def axformer(n, chosen, head):
    return flat(n, lambda i, j: j in chosen[head, i])


@oracle(89, "spark", chosen_tokens(43, 6), causal=True)
def spark(n, chosen, head):
    return flat(n, lambda i, j: j <= i and j in chosen[head, i])


@oracle(
    76,
    "acmil",
    [
        Case(
            {"n": 3, "m": 12},
            {},
            {"top": flags(46, 0.4, 2, 3, 12), "dropped": flags(47, 0.6, 2, 3, 12)},
            batch=2,
        ),
        Case(
            {"n": 5, "m": 7},
            {},
            {"top": flags(48, 0.5, 1, 5, 7), "dropped": flags(49, 0.5, 1, 5, 7)},
        ),
        Case(
            {"n": 1, "m": 9},
            {},
            {"top": flags(50, 0.5, 1, 1, 9), "dropped": flags(51, 0.5, 1, 1, 9)},
        ),
    ],
)
def acmil(n, m, top, dropped):
    return pairs(range(n), range(m), lambda i, j: not (top[i, j] and dropped[i, j]))


@oracle(
    81,
    "lra",
    [
        Case({"n": 12}, {"window": 4}, {"marked": flags(52, 0.1, 2, 12)}, batch=2),
        Case({"n": 11}, {"window": 3}, {"marked": flags(53, 0.2, 1, 11)}),
        Case({"n": 1}, {"window": 2}, {"marked": np.array([[False]])}),
    ],
    part="longformer",
)
def lra_longformer(n, window, marked):
    left = window - window // 2  # counts the query's own key
    around = range(1 - left, window // 2 + 1)
    return flat(n, lambda i, j: j - i in around or marked[i] or marked[j])


def drawn(seed, head, a, draw, blocks):
    """The block that a draw gives to query block a: the language's own hash, in plain numbers."""

    def mixed(hashed, number):
        return ((hashed + number * 3) % PRIME) ** 2 + 12345

    high, low = (mixed(seed, which) % PRIME for which in (1, 2))
    for one, other in ((head, draw), (a, head), (draw, a)):
        high, low = mixed(high, one) % PRIME, mixed(low, other) % PRIME
    return (high * PRIME + low) % blocks


PRIME = 32749


@oracle(
    81,
    "lra",
    [
        Case({"n": 24}, {"block": 3, "count": 1, "seed": 0}, heads=2, batch=2),
        Case({"n": 26}, {"block": 3, "count": 2, "seed": 5}, heads=2),
        Case({"n": 1}, {"block": 2, "count": 1, "seed": 1}),
    ],
    part="bigbird",
)
def lra_bigbird(n, block, count, seed, head):
    last = (n - 1) // block

    def rule(i, j):
        a, b = i // block, j // block
        everywhere = a in (0, last) or b in (0, last)
        random = [drawn(seed, head, a, draw, last + 1) for draw in range(count)]
        return everywhere or abs(a - b) <= 1 or b in random

    return flat(n, rule)


def hashed(seed, buckets, batch, heads, n):
    """Each token's place when tokens are sorted by bucket, then by position."""
    order = np.argsort(ids(seed, buckets, batch, heads, n), axis=-1, kind="stable")
    return {"rank": np.argsort(order, axis=-1)}


@oracle(
    81,
    "lra",
    [
        Case({"n": 12}, {"chunk": 3}, hashed(57, 3, 2, 2, 12), heads=2, batch=2),
        Case({"n": 14}, {"chunk": 4}, hashed(58, 2, 1, 1, 14)),
        Case({"n": 1}, {"chunk": 2}, hashed(59, 2, 1, 1, 1)),
    ],
    part="reformer",
)
def lra_reformer(n, chunk, rank, head):
    chunks = up(n, chunk)

    def rule(i, j):
        mine = int(rank[head, i]) // chunk
        before = mine - 1 if mine > 0 else chunks - 1
        return rank[head, j] // chunk in (mine, before)

    return flat(n, rule)


@oracle(
    86,
    "drsformer",
    [
        Case({"n": 8}, {"k": 4}, {"order": ranks(60, 8, 2, 2, 8)}, heads=2, batch=2),
        Case({"n": 9}, {"k": 6}, {"order": ranks(61, 9, 1, 1, 9)}),
        Case({"n": 1}, {"k": 1}, {"order": ranks(62, 1, 1, 1, 1)}),
    ],
)
def drsformer(n, k, order, head):
    return flat(n, lambda i, j: j in order[head, i, :k])


@oracle(
    88,
    "infllm2",
    [
        Case(
            {"n": 20},
            {"dense_len": 19, "block": 3, "initial": 1, "local": 4, "kv_heads": 2},
            {"chosen": lists(63, 7, 2, 2, 2, 20)},
            heads=4,
            batch=2,
        ),
        Case(
            {"n": 21},
            {"dense_len": 0, "block": 4, "initial": 0, "local": 1, "kv_heads": 1},
            {"chosen": lists(64, 6, 3, 1, 1, 21)},
        ),
        Case(
            {"n": 8},
            {"dense_len": 8, "block": 2, "initial": 1, "local": 2, "kv_heads": 1},
            {"chosen": lists(65, 4, 1, 1, 1, 8)},
        ),
        Case(
            {"n": 1},
            {"dense_len": 0, "block": 2, "initial": 0, "local": 3, "kv_heads": 1},
            {"chosen": np.array([[[[-1]]]])},
        ),
    ],
    causal=True,
)
def infllm2(n, dense_len, block, initial, local, kv_heads, chosen, head, heads):
    group = head // (heads // kv_heads)

    def rule(i, j):
        b = j // block
        touches_local = b >= max(i - local + 1, 0) // block
        seen = b < initial or touches_local or b in chosen[group, i]
        return j <= i and (n <= dense_len or seen)

    return flat(n, rule)


@oracle(
    90,
    "hyperattention",
    [
        Case(
            {"n": 12, "m": 12},
            {"block": 4, "exact": 12},
            {
                "q_rank": ranks(66, 12, 2, 2),
                "k_rank": ranks(67, 12, 2, 2),
                "sampled": flags(68, 0.2, 2, 2, 12),
            },
            heads=2,
            batch=2,
        ),
        Case(
            {"n": 7, "m": 10},
            {"block": 3, "exact": 7},
            {
                "q_rank": ranks(69, 7, 1, 1),
                "k_rank": ranks(70, 10, 1, 1),
                "sampled": flags(71, 0.1, 1, 1, 10),
            },
        ),
        Case(
            {"n": 1, "m": 5},
            {"block": 2, "exact": 2},
            {
                "q_rank": ranks(72, 1, 1, 1),
                "k_rank": ranks(73, 5, 1, 1),
                "sampled": flags(74, 0.2, 1, 1, 5),
            },
        ),
    ],
)
def hyperattention(n, m, block, exact, q_rank, k_rank, sampled, head):
    q_rank, k_rank, sampled = q_rank[head], k_rank[head], sampled[head]

    def rule(i, j):
        return n < exact or q_rank[i] // block == k_rank[j] // block or sampled[j]

    return pairs(range(n), range(m), rule)


def rank_levels(seed, n, levels):
    """At each depth of the recursion, places in the sorted order of the half that a token is in."""
    return {"q_rank": ranks(seed, n, 1, 1, levels), "k_rank": ranks(seed + 1, n, 1, 1, levels)}


@oracle(
    90,
    "hyperattention",
    [
        Case({"n": 16}, {"block": 2, "exact": 4}, rank_levels(75, 16, 3)),
        Case({"n": 13}, {"block": 3, "exact": 3}, rank_levels(77, 13, 4)),
        Case({"n": 3}, {"block": 2, "exact": 4}, rank_levels(79, 3, 1)),
    ],
    part="causal",
    causal=True,
)
def hyperattention_causal(n, block, exact, q_rank, k_rank, head):
    def seen(i, j, start, stop, depth):
        """Both lie in [start, stop): exact when short, one block when the halves part them."""
        middle = (start + stop) // 2
        if stop - start <= exact:
            return j <= i
        if j < middle <= i:
            return (
                stop - middle < exact
                or q_rank[head, depth, i] // block == k_rank[head, depth, j] // block
            )
        if i < middle <= j:
            return False
        half = (start, middle) if i < middle else (middle, stop)
        return seen(i, j, *half, depth + 1)

    return flat(n, lambda i, j: seen(i, j, 0, n, 0))


@oracle(
    92,
    "selective",
    [
        Case({"n": 12}, {}, {"evicted_at": ids(81, 16, 2, 12)}, batch=2),
        Case({"n": 9}, {}, {"evicted_at": ids(82, 12, 1, 9)}, heads=2),
        Case({"n": 1}, {}, {"evicted_at": np.array([[1]])}),
    ],
    causal=True,
)
def selective(n, evicted_at):
    return flat(n, lambda i, j: j <= i < evicted_at[j])


@oracle(
    94,
    "nsa_latent",
    [
        Case(
            {"n": 16},
            {"block": 4, "kv_heads": 2},
            {"chosen": lists(83, 4, 2, 2, 2, 16)},
            heads=4,
            batch=2,
        ),
        Case({"n": 13}, {"block": 3, "kv_heads": 1}, {"chosen": lists(84, 5, 3, 1, 1, 13)}),
        Case({"n": 1}, {"block": 2, "kv_heads": 1}, {"chosen": np.array([[[[0]]]])}),
    ],
    part="selected",
    causal=True,
)
def nsa_latent_selected(n, block, kv_heads, chosen, head, heads):
    blocks = chosen[head // (heads // kv_heads)]
    return flat(n, lambda i, j: j <= i and j // block in blocks[i])


@oracle(
    98,
    "moba",
    [
        Case({"n": 16}, {"block": 4}, {"chosen": lists(85, 4, 2, 2, 2, 16)}, heads=2, batch=2),
        Case({"n": 14}, {"block": 3}, {"chosen": lists(86, 5, 2, 1, 1, 14)}),
        Case({"n": 1}, {"block": 2}, {"chosen": np.array([[[[-1]]]])}),
    ],
    causal=True,
)
def moba(n, block, chosen, head):
    def rule(i, j):
        return j <= i and (i // block == j // block or j // block in chosen[head, i])

    return flat(n, rule)


@oracle(
    100,
    "lean",
    [
        Case({"n": 1, "m": 12}, {}, {"length": np.array([12, 5, 0])}, heads=2, batch=3),
        Case({"n": 1, "m": 7}, {}, {"length": np.array([4])}),
        Case({"n": 1, "m": 1}, {}, {"length": np.array([1])}),
    ],
    causal=True,
)
def lean(n, m, length):
    return pairs(range(n), range(m), lambda i, j: j < length)
