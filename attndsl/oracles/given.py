"""A run-time input says it: ids of segments, regions and documents, flags, neighbour lists, adjacency."""

import numpy as np

from .registry import Case, grid, oracle, pairs, rng
from .two_spaces import named


def ids(seed, count, *shape):
    """Drawn ids below ``count``."""
    return rng(seed).integers(0, count, shape)


def runs(seed, count, *shape):
    """Drawn ids in ascending order along the last axis: documents laid end to end."""
    return np.sort(ids(seed, count, *shape), axis=-1)


def flags(seed, share, *shape):
    """Drawn truths, each true with chance ``share``."""
    return rng(seed).random(shape) < share


def lists(seed, n, slots, *shape):
    """Lists of at most ``slots`` different numbers below n, in no order, padded with -1."""
    draw = rng(seed)
    table = np.full((*shape, slots), -1)
    for place in np.ndindex(*shape):
        entries = draw.permutation(n)[: draw.integers(0, slots + 1)]
        table[place][: len(entries)] = entries
    return table


def flat(n, rule):
    return pairs(range(n), range(n), rule)


def by_ids(name, count, draw=ids):
    """Cases over n tokens with one id each."""
    return [
        Case({"n": 12}, {}, {name: draw(1, count, 2, 12)}, batch=2),
        Case({"n": 9}, {}, {name: draw(2, count, 1, 9)}, heads=2),
        Case({"n": 1}, {}, {name: draw(3, count, 1, 1)}),
    ]


@oracle(7, "rat", by_ids("region", 4), part="region")
def rat_region(n, region):
    return flat(n, lambda i, j: region[i] == region[j])


@oracle(28, "gps", by_ids("graph", 3, runs), part="global")
def gps_global(n, graph):
    return flat(n, lambda i, j: graph[i] == graph[j])


@oracle(85, "fit2", by_ids("segment", 2, lambda *draw: 1 - runs(*draw)))
def fit2(n, segment):
    return flat(n, lambda i, j: segment[i] == segment[j])


def listed(name, slots):
    """Cases over n tokens with a list of tokens each."""
    return [
        Case({"n": 12}, {}, {name: lists(4, 12, slots, 2, 12)}, batch=2),
        Case({"n": 7}, {}, {name: lists(5, 7, slots, 1, 7)}, heads=2),
        Case({"n": 1}, {}, {name: lists(6, 1, 1, 1, 1)}),
    ]


@oracle(28, "gps", listed("neighbours", 4), part="local")
def gps_local(n, neighbours):
    return flat(n, lambda i, j: j == i or j in neighbours[i])


@oracle(95, "pointgs", listed("neighbours", 5))
def pointgs(n, neighbours):
    return flat(n, lambda i, j: j in neighbours[i])


@oracle(
    52,
    "largegt",
    [
        Case({"n": 10, "h": 3}, {}, {"neighbours": lists(70, 10, 4, 2, 10)}, batch=2),
        Case({"n": 7, "h": 2}, {}, {"neighbours": lists(71, 7, 5, 1, 7)}),
        Case({"n": 1, "h": 3}, {}, {"neighbours": np.array([[[0]]])}),
    ],
    part="local",
)
def largegt_local(n, h, neighbours):
    return pairs(range(n), grid(h, n), lambda i, j: j[1] in neighbours[i])


@oracle(
    52,
    "largegt",
    [
        Case({"n": 6, "m": 8}, {}, {"cluster_size": ids(7, 3, 2, 8)}, batch=2),
        Case({"n": 4, "m": 5}, {}, {"cluster_size": ids(8, 2, 1, 5)}),
        Case({"n": 1, "m": 3}, {}, {"cluster_size": np.array([[0, 4, 0]])}),
    ],
    part="codebook",
)
def largegt_codebook(n, m, cluster_size):
    return pairs(range(n), range(m), lambda i, j: cluster_size[j] > 0)


PADDED = np.array(
    [[1, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 1], [1, 1, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1]], bool
)


@oracle(
    15,
    "blockrank",
    [
        Case(
            {"n": 12},
            {"blocks": 4},
            {"block": np.repeat([[0, 1, 2, 3]] * 2, 3, axis=1), "valid": PADDED},
            batch=2,
        ),
        Case(
            {"n": 9},
            {"blocks": 3},
            {"block": np.array([[0, 0, 1, 1, 1, 1, 1, 2, 2]]), "valid": flags(9, 0.8, 1, 9)},
        ),
        Case(
            {"n": 2},
            {"blocks": 2},
            {"block": np.array([[0, 1]]), "valid": np.array([[True, True]])},
        ),
    ],
    causal=True,
)
def blockrank(n, blocks, block, valid):
    def rule(i, j):
        within = block[i] == block[j] and j <= i
        of_the_instruction = block[j] == 0 and block[i] >= 1
        of_the_query = block[i] == blocks - 1 and block[j] < blocks - 1
        return valid[j] and (within or of_the_instruction or of_the_query)

    return flat(n, rule)


def speakers(seed, batch, n, m):
    """Regions of the video tokens, -1 for none, and the speaker of each audio token."""
    return {"region": ids(seed, 3, batch, n) - 1, "speaker": ids(seed + 1, 2, batch, m)}


@oracle(
    41,
    "magicinfinite",
    [
        Case({"n": 10, "m": 6}, {}, speakers(10, 2, 10, 6), batch=2),
        Case({"n": 7, "m": 9}, {}, speakers(12, 1, 7, 9), heads=2),
        Case({"n": 5, "m": 1}, {}, speakers(14, 1, 5, 1)),
    ],
)
def magicinfinite(n, m, region, speaker):
    return pairs(range(n), range(m), lambda i, j: region[i] == speaker[j])


def prompts(seed, batch, n, g, r):
    """Regions of the pixels, which global tokens concern each, and who owns the regional tokens."""
    return {
        "region": ids(seed, 3, batch, n),
        "concerns": flags(seed + 1, 0.5, batch, 3, g),
        "owner": ids(seed + 2, 3, batch, r),
    }


@oracle(
    69,
    "creative_upscale",
    [
        Case({"n": 9, "g": 5, "r": 6}, {}, prompts(16, 2, 9, 5, 6), batch=2),
        Case({"n": 7, "g": 3, "r": 4}, {}, prompts(19, 1, 7, 3, 4)),
        Case({"n": 1, "g": 4, "r": 2}, {}, prompts(22, 1, 1, 4, 2)),
    ],
)
def creative_upscale(n, g, r, region, concerns, owner):
    keys = named("global", range(g)) + named("regional", range(r))

    def rule(i, key):
        where, j = key
        return concerns[region[i], j] if where == "global" else owner[j] == region[i]

    return pairs(range(n), keys, rule)


@oracle(
    71,
    "dreamtuner",
    [
        Case({"n": 6, "m": 8}, {}, {"foreground": flags(25, 0.5, 2, 8)}, batch=2),
        Case({"n": 4, "m": 5}, {}, {"foreground": flags(26, 0.3, 1, 5)}, heads=2),
        Case({"n": 1, "m": 3}, {}, {"foreground": flags(27, 0.5, 1, 3)}),
    ],
)
def dreamtuner(n, m, foreground):
    keys = named("own", range(n)) + named("reference", range(m))

    def rule(i, key):
        where, j = key
        return where == "own" or foreground[j]

    return pairs(range(n), keys, rule)


REFERENCES = [
    ({"n": 5, "c": 2, "m": 4}, 2),
    ({"n": 3, "c": 3, "m": 5}, 1),
    ({"n": 1, "c": 1, "m": 6}, 1),
]


def references(seed, **more):
    """Own tokens and c references of m tokens, of which some are foreground."""
    return [
        Case(
            sizes,
            {},
            {"foreground": flags(seed + batch, 0.5, batch, sizes["c"], sizes["m"])}
            | {name: draw(batch, sizes) for name, draw in more.items()},
            batch=batch,
        )
        for sizes, batch in REFERENCES
    ]


def own_and_references(n, c, m, allowed):
    """Own tokens always; of the references what ``allowed(i, c, place)`` says."""
    keys = named("own", range(n)) + [(r, place) for r in range(c) for place in range(m)]

    def rule(i, key):
        where, j = key
        return where == "own" or allowed(i, where, j)

    return pairs(range(n), keys, rule)


@oracle(79, "freecustom", references(30))
def freecustom(n, c, m, foreground):
    return own_and_references(n, c, m, lambda i, r, j: foreground[r, j])


@oracle(70, "magicface", references(33), part="rsa")
def magicface_rsa(n, c, m, foreground):
    return own_and_references(n, c, m, lambda i, r, j: foreground[r, j])


@oracle(
    70,
    "magicface",
    references(36, concept=lambda batch, sizes: ids(39, sizes["c"], batch, sizes["n"])),
    part="rba",
)
def magicface_rba(n, c, m, foreground, concept):
    return own_and_references(n, c, m, lambda i, r, j: concept[i] == r and foreground[r, j])


def stages(seed, batch, count, n):
    """The tokens kept by each stage of layers: some of those that the stage before kept."""
    return {"keep": np.logical_and.accumulate(flags(seed, 0.7, batch, count, n), axis=1)}


@oracle(
    82,
    "iared",
    [
        Case({"n": 10}, {"depth": 2}, stages(40, 2, 3, 10), batch=2, layer=1),
        Case({"n": 10}, {"depth": 2}, stages(40, 2, 3, 10), batch=2, layer=2),
        Case({"n": 7}, {"depth": 3}, stages(41, 1, 2, 7), heads=2, layer=5),
        Case({"n": 1}, {"depth": 1}, {"keep": np.array([[[True]]])}),
    ],
)
def iared(n, depth, keep, layer):
    kept = keep[layer // depth]
    return flat(n, lambda i, j: kept[i] and kept[j])


@oracle(
    104,
    "smarttrim",
    [
        Case(
            {"n": 10},
            {},
            {"keep": flags(42, 0.7, 2, 10), "gate": flags(43, 0.5, 2, 4)},
            heads=4,
            batch=2,
        ),
        Case(
            {"n": 7}, {}, {"keep": flags(44, 0.5, 1, 7), "gate": np.array([[True, False]])}, heads=2
        ),
        Case({"n": 1}, {}, {"keep": np.array([[True]]), "gate": np.array([[True]])}),
    ],
)
def smarttrim(n, keep, gate, head):
    return flat(n, lambda i, j: keep[i] and keep[j] and gate[head])


def entities(seed, batch, words, n, prompts_):
    """The prompt of each word (the last is the global one), and the patches that each touches."""
    touches = flags(seed, 0.4, batch, prompts_, n)
    touches[:, -1] = True
    return {"prompt": runs(seed + 1, prompts_, batch, words), "touches": touches}


@oracle(
    103,
    "eligen",
    [
        Case({"words": 7, "n": 6}, {}, entities(45, 2, 7, 6, 3), batch=2),
        Case({"words": 4, "n": 9}, {}, entities(47, 1, 4, 9, 2)),
        Case({"words": 5, "n": 1}, {}, entities(49, 1, 5, 1, 4)),
    ],
)
def eligen(words, n, prompt, touches):
    tokens = named("prompt", range(words)) + named("image", range(n))

    def rule(query, key):
        (ours, i), (theirs, j) = query, key
        match ours, theirs:
            case ("prompt", "prompt"):
                return prompt[i] == prompt[j]
            case ("prompt", "image"):
                return touches[prompt[i], j]
            case ("image", "prompt"):
                return touches[prompt[j], i]
            case _:
                return True

    return pairs(tokens, tokens, rule)


def mesh(seed, batch, v):
    """A symmetric adjacency, every vertex its own neighbour."""
    drawn = flags(seed, 0.2, batch, v, v)
    return {"adjacency": drawn | drawn.swapaxes(1, 2) | np.eye(v, dtype=bool)}


@oracle(
    105,
    "fastmetro",
    [
        Case({"j": 4, "v": 9}, {}, mesh(51, 1, 9)),
        Case({"j": 2, "v": 12}, {}, mesh(52, 1, 12), heads=2),
        Case({"j": 1, "v": 5}, {}, mesh(53, 1, 5)),
    ],
)
def fastmetro(j, v, adjacency):
    tokens = named("joint", range(j)) + named("vertex", range(v))

    def rule(query, key):
        (ours, a), (theirs, b) = query, key
        return "joint" in (ours, theirs) or adjacency[a, b]

    return pairs(tokens, tokens, rule)


NO, A, B = -1, 0, 1
ONE_PICTURE = {
    "image": [[NO, A, A, A, NO, NO, NO, NO, NO]],
    "question": [[NO, NO, NO, NO, A, A, A, NO, NO]],
}
TWO_PICTURES = {
    "image": [[A, A, NO, NO, B, B, B, NO, NO, NO], [NO, NO, A, NO, NO, NO, NO, NO, NO, NO]],
    "question": [[NO, NO, A, A, NO, NO, NO, B, B, NO], [NO, NO, NO, A, A, A, A, A, A, NO]],
}


@oracle(
    109,
    "mma",
    [
        Case({"n": 9}, {}, {name: np.array(table) for name, table in ONE_PICTURE.items()}),
        Case(
            {"n": 10}, {}, {name: np.array(table) for name, table in TWO_PICTURES.items()}, batch=2
        ),
        Case({"n": 2}, {}, {"image": np.array([[NO, NO]]), "question": np.array([[NO, NO]])}),
    ],
)
def mma(n, image, question):
    return flat(n, lambda i, j: j <= i or (image[i] >= 0 and question[j] == image[i]))


@oracle(75, "mask_bench", by_ids("document", 4, runs), part="document")
def mask_bench_document(n, document):
    return flat(n, lambda i, j: document[i] == document[j])


@oracle(75, "mask_bench", by_ids("document", 3, runs), part="causal_document", causal=True)
def mask_bench_causal_document(n, document):
    return flat(n, lambda i, j: document[i] == document[j] and j <= i)


@oracle(
    75,
    "mask_bench",
    [
        Case({"n": 12}, {"window": 3}, {"document": runs(54, 3, 2, 12)}, batch=2),
        Case({"n": 9}, {"window": 2}, {"document": runs(55, 2, 1, 9)}),
        Case({"n": 1}, {"window": 4}, {"document": runs(56, 2, 1, 1)}),
    ],
    part="sliding_document",
    causal=True,
)
def mask_bench_sliding_document(n, window, document):
    return flat(n, lambda i, j: document[i] == document[j] and i - window < j <= i)


@oracle(75, "mask_bench", by_ids("answer", 4, runs), part="shared_question", causal=True)
def mask_bench_shared_question(n, answer):
    return flat(n, lambda i, j: j <= i and answer[j] in (0, answer[i]))


@oracle(
    75,
    "mask_bench",
    [
        Case(
            {"n": 12},
            {"last": 2},
            {"block": np.array([np.arange(12) // 4, np.arange(12) // 5])},
            batch=2,
        ),
        Case({"n": 9}, {"last": 3}, {"block": np.array([[0, 0, 1, 2, 2, 2, 3, 3, 3]])}),
        Case({"n": 1}, {"last": 0}, {"block": np.array([[0]])}),
    ],
    part="causal_blockwise",
    causal=True,
)
def mask_bench_causal_blockwise(n, last, block):
    return flat(n, lambda i, j: j <= i and (block[i] == block[j] or block[i] == last))


@oracle(
    75,
    "mask_bench",
    [
        Case(
            {"n": 12},
            {},
            {"document": runs(57, 3, 2, 12), "prefix": flags(58, 0.3, 2, 12)},
            batch=2,
        ),
        Case({"n": 9}, {}, {"document": runs(59, 2, 1, 9), "prefix": flags(60, 0.5, 1, 9)}),
        Case({"n": 1}, {}, {"document": runs(61, 2, 1, 1), "prefix": np.array([[False]])}),
    ],
    part="prefix_document",
)
def mask_bench_prefix_document(n, document, prefix):
    return flat(n, lambda i, j: document[i] == document[j] and (j <= i or prefix[j]))


@oracle(
    75,
    "mask_bench",
    [
        Case({"n": 12}, {"block": 4}, {"live": flags(62, 0.5, 2, 3, 3)}, batch=2),
        Case({"n": 10}, {"block": 3}, {"live": flags(63, 0.4, 1, 4, 4)}),
        Case({"n": 1}, {"block": 2}, {"live": np.array([[[True]]])}),
    ],
    part="uniform_blocks",
)
def mask_bench_uniform_blocks(n, block, live):
    return flat(n, lambda i, j: live[i // block, j // block])


@oracle(
    75,
    "mask_bench",
    [
        Case(
            {"n": 12}, {}, {"block": runs(64, 4, 2, 12), "live": flags(65, 0.5, 2, 4, 4)}, batch=2
        ),
        Case({"n": 9}, {}, {"block": runs(66, 3, 1, 9), "live": flags(67, 0.4, 1, 3, 3)}),
        Case({"n": 1}, {}, {"block": np.array([[1]]), "live": flags(68, 0.5, 1, 2, 2)}),
    ],
    part="variable_blocks",
)
def mask_bench_variable_blocks(n, block, live):
    return flat(n, lambda i, j: live[block[i], block[j]])
