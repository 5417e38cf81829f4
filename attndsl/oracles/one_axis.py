"""Language models: a flat axis, mostly causal, a closed form of positions, heads and layers."""

from .registry import Case, oracle, pairs


def flat(n, rule):
    return pairs(range(n), range(n), rule)


def back(n, window):
    """The last ``window`` keys, the query's own among them."""
    return flat(n, lambda i, j: i - window < j <= i)


def lengths(*cases):
    """Cases from (n, {parameter: value})."""
    return [Case({"n": n}, params) for n, params in cases]


WINDOWS = lengths((12, {"window": 4}), (9, {"window": 1}), (1, {"window": 3}), (7, {"window": 20}))


@oracle(
    17,
    "short_range",
    [
        Case({"n": 10}, {"window": 3, "local_heads": 1}, heads=2),
        Case({"n": 7}, {"window": 1, "local_heads": 2}, heads=4),
        Case({"n": 1}, {"window": 4, "local_heads": 3}, heads=3),
    ],
    causal=True,
)
def short_range(n, window, local_heads, head):
    reach = window if head < local_heads else n
    return flat(n, lambda i, j: i - reach < j <= i)


GROUPS = [
    Case({"n": 16}, {"group": 4}, heads=2),
    Case({"n": 18}, {"group": 4}, heads=4),
    Case({"n": 13}, {"group": 5}, heads=2),
    Case({"n": 1}, {"group": 4}, heads=2),
]


def shifted_groups(n, group, head, heads):
    """The group of each position: borders every ``group``, half a group later for half the heads."""
    borders = range(0 if head < heads // 2 else group // 2, n, group)
    return [sum(border <= i for border in borders) for i in range(n)]


@oracle(39, "longlora", GROUPS, causal=True)
def longlora(n, group, head, heads):
    of = shifted_groups(n, group, head, heads)
    return flat(n, lambda i, j: of[i] == of[j] and j <= i)


@oracle(51, "cab", lengths((8, {}), (5, {}), (1, {})), part="causal_self", causal=True)
def cab_causal_self(n):
    return flat(n, lambda i, j: j <= i)


def power_of_two(d):
    return d > 0 and d & (d - 1) == 0


@oracle(
    61,
    "power_attention",
    lengths(
        (20, {"window": 3, "sink": 1}),
        (35, {"window": 1, "sink": 2}),
        (1, {"window": 1, "sink": 1}),
    ),
    part="tokens",
    causal=True,
)
def power_attention_tokens(n, window, sink):
    return flat(n, lambda i, j: j <= i and (power_of_two(i - j) or i - j < window or j < sink))


@oracle(
    61,
    "power_attention",
    lengths(
        (32, {"block": 2, "window": 1, "sink": 1}),
        (29, {"block": 3, "window": 2, "sink": 1}),
        (3, {"block": 4, "window": 5, "sink": 1}),
    ),
    part="blocks",
    causal=True,
)
def power_attention_blocks(n, block, window, sink):
    def rule(i, j):
        apart = i // block - j // block
        near = apart < window or power_of_two(apart) or j // block < sink
        return j <= i and near

    return flat(n, rule)


@oracle(
    62,
    "sinklora",
    [
        Case({"n": 16}, {"group": 4, "sink": 0}, heads=4),
        Case({"n": 18}, {"group": 6, "sink": 2}, heads=2),
        Case({"n": 15}, {"group": 6, "sink": 4}, heads=2),
        Case({"n": 1}, {"group": 2, "sink": 1}, heads=2),
    ],
    causal=True,
)
def sinklora(n, group, sink, head, heads):
    of = shifted_groups(n, group, head, heads)
    return flat(n, lambda i, j: j <= i and (of[i] == of[j] or i < sink or j < sink))


@oracle(68, "lsm", lengths((6, {}), (1, {})), dense=True)
def lsm(n):
    return flat(n, lambda i, j: True)


@oracle(78, "sequence_parallel", lengths((7, {}), (1, {})), dense=True)
def sequence_parallel(n):
    return flat(n, lambda i, j: True)


@oracle(72, "based", WINDOWS, causal=True)
def based(n, window):
    return flat(n, lambda i, j: i - window <= j <= i)


@oracle(
    81,
    "lra",
    lengths(
        (16, {"block": 4, "summary": 1, "cls": False}),
        (19, {"block": 6, "summary": 2, "cls": False}),
        (1, {"block": 4, "summary": 1, "cls": False}),
    ),
    part="fixed",
    causal=True,
)
def lra_fixed(n, block, summary, cls):
    tokens = [*["cls"] * cls, *range(n - cls)]

    def rule(a, b):
        i, j = tokens[a], tokens[b]
        if "cls" in (i, j):
            return True
        return j <= i and (i // block == j // block or j % block in {0, *last})

    last = range(block - summary, block)
    return flat(n, rule)


@oracle(
    81,
    "lra",
    lengths((16, {"stride": 4}), (19, {"stride": 5}), (1, {"stride": 3})),
    part="strided",
    causal=True,
)
def lra_strided(n, stride):
    return flat(n, lambda i, j: j <= i and ((i - j) % stride == 0 or i - j < stride))


@oracle(
    81, "lra", lengths((12, {"groups": 3}), (13, {"groups": 4}), (1, {"groups": 2})), part="local"
)
def lra_local(n, groups):
    return flat(n, lambda i, j: i % groups == j % groups)


LAYERS = [(10, 1), (10, 2), (7, 0), (1, 3)]


@oracle(
    84,
    "not_every_layer",
    [Case({"n": n}, {"window": 3, "full_layers": 2}, layer=layer) for n, layer in LAYERS],
    part="window",
    causal=True,
)
def not_every_layer_window(n, window, full_layers, layer):
    return flat(n, lambda i, j: j <= i and (layer < full_layers or i - j <= window))


@oracle(
    84,
    "not_every_layer",
    [Case({"n": n}, {"block": 3, "full_layers": 2}, layer=layer) for n, layer in LAYERS],
    part="blocks",
    causal=True,
)
def not_every_layer_blocks(n, block, full_layers, layer):
    return flat(n, lambda i, j: j <= i and (layer < full_layers or i // block == j // block))


@oracle(
    91,
    "efficient_conformer",
    lengths((12, {"group": 3}), (13, {"group": 4}), (1, {"group": 2})),
    part="grouped",
)
def efficient_conformer_grouped(n, group):
    return flat(n, lambda i, j: i % group == j % group)


@oracle(
    91,
    "efficient_conformer",
    [
        Case({"n": 12}, {"group": 3}, heads=6),
        Case({"n": 10}, {"group": 2}, heads=4),
        Case({"n": 3}, {"group": 2}, heads=2),
    ],
    part="by_head",
)
def efficient_conformer_by_head(n, group, head, heads):
    residue = head * group // heads
    return flat(n, lambda i, j: i % group == residue and j % group == residue)


@oracle(94, "nsa_latent", WINDOWS, part="local", causal=True)
def nsa_latent_local(n, window):
    return back(n, window)


@oracle(96, "griffin", WINDOWS, causal=True)
def griffin(n, window):
    return back(n, window)


@oracle(
    97,
    "rope_nope",
    [
        Case({"n": n}, {"window": 3, "period": 4}, layer=layer)
        for n, layer in [(9, 0), (8, 3), (7, 6), (1, 7)]
    ],
    causal=True,
)
def rope_nope(n, window, period, layer):
    full = layer % period == period - 1
    return flat(n, lambda i, j: j <= i and (full or i - j < window))


@oracle(
    101,
    "infini",
    lengths((12, {"segment": 4}), (11, {"segment": 3}), (1, {"segment": 5})),
    causal=True,
)
def infini(n, segment):
    return flat(n, lambda i, j: i // segment == j // segment and j <= i)


@oracle(108, "hydra", lengths((8, {}), (5, {}), (1, {})), causal=True)
def hydra(n):
    return flat(n, lambda i, j: j <= i)


@oracle(75, "mask_bench", WINDOWS, part="sliding", causal=True)
def mask_bench_sliding(n, window):
    return back(n, window)


@oracle(
    75,
    "mask_bench",
    lengths(
        (12, {"window": 2, "sink": 1}),
        (11, {"window": 1, "sink": 3}),
        (1, {"window": 1, "sink": 1}),
    ),
    part="global_sliding",
)
def mask_bench_global_sliding(n, window, sink):
    return flat(n, lambda i, j: abs(i - j) <= window or i < sink or j < sink)


@oracle(
    75,
    "mask_bench",
    lengths((9, {"prefix": 3}), (8, {"prefix": 1}), (2, {"prefix": 2})),
    part="prefix",
)
def mask_bench_prefix(n, prefix):
    return flat(n, lambda i, j: j <= i or j < prefix)
