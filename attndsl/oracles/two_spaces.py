"""Queries in one space, keys in another: super tokens, latents, pooled grids, cells, meta tokens, summaries."""

import numpy as np

from .registry import Case, axes, grid, oracle, outside, pairs, up


def named(name, tokens):
    """The tokens of a segment, each tagged with the segment's name."""
    return [(name, token) for token in tokens]


SUPER = [
    Case({"y": 6, "x": 8, "cy": 3, "cx": 4}, {"cell_y": 2, "cell_x": 2}),
    Case({"y": 7, "x": 9, "cy": 4, "cx": 3}, {"cell_y": 2, "cell_x": 3}),
    Case({"y": 1, "x": 10, "cy": 1, "cx": 5}, {"cell_y": 4, "cell_x": 2}),
]


def around_the_cell(pixel, cell, sizes):
    """The super token is the pixel's own or one of the eight around it."""
    return all(abs(a // size - c) <= 1 for a, c, size in axes(pixel, cell, sizes))


def cells_outside(y, x, cy, cx, cell_y, cell_x):
    around = grid(3, 3)
    return [
        outside([(a // cell_y + u - 1, b // cell_x + v - 1) for u, v in around], cy, cx)
        for a, b in grid(y, x)
    ]


@oracle(1, "stvit", SUPER, part="association", zeros=cells_outside)
def stvit_association(y, x, cy, cx, cell_y, cell_x):
    return pairs(grid(y, x), grid(cy, cx), lambda i, c: around_the_cell(i, c, (cell_y, cell_x)))


@oracle(1, "stvit", SUPER, part="update")
def stvit_update(y, x, cy, cx, cell_y, cell_x):
    return pairs(grid(cy, cx), grid(y, x), lambda c, j: around_the_cell(j, c, (cell_y, cell_x)))


@oracle(
    11,
    "lmr",
    [
        Case({"r": 5, "y": 3, "x": 4}),
        Case({"r": 1, "y": 4, "x": 3}),
        Case({"r": 3, "y": 1, "x": 7}),
    ],
)
def lmr(r, y, x):
    return pairs(grid(y, x), grid(r, y, x), lambda i, j: j[1:] == i)


@oracle(16, "duoformer", [Case({"p": 4, "s": 6}), Case({"p": 3, "s": 7}), Case({"p": 5, "s": 1})])
def duoformer(p, s):
    tokens = grid(p, s)
    return pairs(tokens, tokens, lambda i, j: i[0] == j[0])


DATA = [Case({"g": 4, "p": 5}), Case({"g": 1, "p": 6}), Case({"g": 7, "p": 3}, heads=2)]
LATENT = [Case({"g": 4, "m": 3}), Case({"g": 1, "m": 5}), Case({"g": 6, "m": 1})]
BOTH = [
    Case({"g": 4, "p": 5, "m": 2}),
    Case({"g": 3, "p": 4, "m": 1}, heads=2),
    Case({"g": 2, "p": 1, "m": 3}),
]


@oracle(26, "fit", DATA, part="local")
def fit_local(g, p):
    return pairs(grid(g, p), grid(g, p), lambda i, j: i[0] == j[0])


@oracle(26, "fit", BOTH, part="read")
def fit_read(g, m, p):
    return pairs(grid(g, m), grid(g, p), lambda i, j: i[0] == j[0])


@oracle(26, "fit", BOTH, part="write")
def fit_write(g, p, m):
    return pairs(grid(g, p), grid(g, m), lambda i, j: i[0] == j[0])


@oracle(26, "fit", LATENT, part="causal_global")
def fit_causal_global(g, m):
    return pairs(grid(g, m), grid(g, m), lambda i, j: j[0] <= i[0])


@oracle(26, "fit", DATA, part="causal_local", causal=True)
def fit_causal_local(g, p):
    return pairs(grid(g, p), grid(g, p), lambda i, j: i[0] == j[0] and j[1] <= i[1])


@oracle(26, "fit", BOTH, part="causal_write")
def fit_causal_write(g, p, m):
    keys = named("phantom", range(m)) + named("latent", grid(g, m))

    def rule(i, key):
        where, j = key
        return where == "phantom" if i[0] == 0 else where == "latent" and j[0] == i[0] - 1

    return pairs(grid(g, p), keys, rule)


@oracle(
    67,
    "vsa",
    [
        Case({"y": 4, "x": 6, "b": 6, "s": 4}, {"window": 2}, heads=2),
        Case({"y": 5, "x": 4, "b": 4, "s": 9}, {"window": 3}, batch=2),
        Case({"y": 1, "x": 7, "b": 3, "s": 1}, {"window": 3}),
    ],
)
def vsa(y, x, b, s, window):
    across = up(x, window)
    queries = [i[0] // window * across + i[1] // window for i in grid(y, x)]
    return pairs(queries, grid(b, s), lambda own, j: j[0] == own)


POOLED = {"y": 4, "x": 6, "py": 2, "px": 3}


@oracle(
    35,
    "transnext",
    [
        Case(POOLED, {"window": 3}),
        Case({"y": 7, "x": 5, "py": 3, "px": 2}, {"window": 5}),
        Case({"y": 1, "x": 9, "py": 1, "px": 2}, {"window": 3}),
    ],
)
def transnext(y, x, py, px, window):
    keys = named("image", grid(y, x)) + named("pooled", grid(py, px))

    def rule(i, key):
        where, j = key
        return where == "pooled" or all(abs(a - b) <= window // 2 for a, b in axes(i, j))

    return pairs(grid(y, x), keys, rule)


@oracle(
    38,
    "hilo",
    [
        Case(POOLED, {"window": 2, "low": 50}, heads=4),
        Case({"y": 5, "x": 7, "py": 2, "px": 3}, {"window": 3, "low": 50}, heads=3),
        Case({"y": 1, "x": 6, "py": 1, "px": 2}, {"window": 3, "low": 90}, heads=2),
        Case({"y": 3, "x": 2, "py": 3, "px": 2}, {"window": 1, "low": 50}, heads=2),
    ],
    part="both",
)
def hilo_both(y, x, py, px, window, low, head, heads):
    pooled_heads = heads * low // 100 if window > 1 else heads  # the last ones
    return windows_or_pooled(y, x, py, px, window, head < heads - pooled_heads)


def windows_or_pooled(y, x, py, px, window, high):
    """A head of the one kind sees its window of the image, a head of the other all pooled tokens."""
    keys = named("image", grid(y, x)) + named("pooled", grid(py, px))

    def rule(i, key):
        where, j = key
        if where == "pooled":
            return not high
        return high and all(a // window == b // window for a, b in axes(i, j))

    return pairs(grid(y, x), keys, rule)


@oracle(
    59,
    "sgformer",
    [
        Case({"y": 8, "x": 9, "py": 2, "px": 2}, {"window": 7}, heads=2),
        Case({"y": 5, "x": 6, "py": 2, "px": 3}, {"window": 3}, heads=4),
        Case({"y": 1, "x": 8, "py": 1, "px": 2}, {"window": 3}, heads=2),
    ],
)
def sgformer(y, x, py, px, window, head, heads):
    return windows_or_pooled(y, x, py, px, window, head >= heads // 2)


@oracle(
    42,
    "hicom",
    [
        Case({"ct": 2, "cy": 2, "cx": 3, "t": 4, "y": 4, "x": 6}),
        Case({"ct": 2, "cy": 3, "cx": 2, "t": 3, "y": 5, "x": 5}),
        Case({"ct": 1, "cy": 1, "cx": 5, "t": 1, "y": 3, "x": 7}),
    ],
)
def hicom(ct, cy, cx, t, y, x):
    spans = [cells_of_one_size(*axis) for axis in axes((ct, cy, cx), (t, y, x))]
    return pairs(
        grid(ct, cy, cx),
        grid(t, y, x),
        lambda i, j: all(b in span[c] for c, b, span in axes(i, j, spans)),
    )


def cells_of_one_size(cells, n):
    """The positions of each cell, dealt out in turn; one that gets a position less begins one early."""
    size = up(n, cells)
    whole = n % cells or cells  # cells that get as many as their size
    spans, dealt = [], 0
    for cell in range(cells):
        got = size if cell < whole else size - 1
        spans.append(range(dealt + got - size, dealt + got))
        dealt += got
    return spans


@oracle(
    44,
    "lizard",
    [
        Case({"s": 4, "n": 12}, {"window": 3}),
        Case({"s": 1, "n": 9}, {"window": 5}, heads=2),
        Case({"s": 2, "n": 1}, {"window": 4}),
    ],
)
def lizard(s, n, window):
    keys = named("meta", range(s)) + named("text", range(n))

    def rule(i, key):
        where, j = key
        return where == "meta" or i - window < j <= i

    return pairs(range(n), keys, rule)


@oracle(46, "block_transformer", [Case({"n": n}) for n in (1, 7, 12)], part="block", causal=True)
def block_transformer_block(n):
    return pairs(range(n), range(n), lambda a, b: b <= a)


@oracle(
    46,
    "block_transformer",
    [
        Case({"c": 6, "n": 12}, {"block": 4, "width": 2}),
        Case({"c": 4, "n": 10}, {"block": 3, "width": 1}),
        Case({"c": 1, "n": 1}, {"block": 4, "width": 3}),
    ],
    part="token",
    causal=True,
)
def block_transformer_token(c, n, block, width):
    tokens = named("context", range(c)) + named("text", range(n))

    def rule(query, key):
        (ours, i), (theirs, j) = query, key
        match ours, theirs:
            case "context", "context":  # those of a block are a causal sequence
                return i // width == j // width and j <= i
            case "text", "context":
                return j // width + 1 == i // block
            case "text", "text":
                return i // block == j // block and j <= i
            case _:
                return False

    return pairs(tokens, tokens, rule)


@oracle(
    48,
    "attn_upsample",
    [
        Case({"y": 8, "x": 8, "cy": 4, "cx": 4}, {"window": 2, "scale": 2}),
        Case({"y": 7, "x": 10, "cy": 4, "cx": 5}, {"window": 3, "scale": 2}),
        Case({"y": 1, "x": 12, "cy": 1, "cx": 4}, {"window": 2, "scale": 3}),
    ],
)
def attn_upsample(y, x, cy, cx, window, scale):
    return pairs(
        grid(y, x),
        grid(cy, cx),
        lambda i, j: all(a // (scale * window) == b // window for a, b in axes(i, j)),
    )


@oracle(
    53,
    "cca",
    [
        Case({"c": 4, "n": 16}, {"group": 4, "window": 4}),
        Case({"c": 6, "n": 19}, {"group": 3, "window": 6}),
        Case({"c": 4, "n": 18}, {"group": 4, "window": 5}),
        Case({"c": 1, "n": 5}, {"group": 5, "window": 2}),
    ],
)
def cca(c, n, group, window):
    keys = named("core", range(c)) + named("raw", range(n))

    def rule(i, key):
        where, j = key
        pooled = max(0, (i + 1 - window) // group)  # core tokens that the query reads
        if where == "core":
            return j + 1 <= pooled
        return group * pooled <= j <= i

    return pairs(range(n), keys, rule)


def scale_dit(s, y, x, ly, lx, high_to_low, low_to_low, window):
    """The role table; two of its cells depend on how many low-resolution tokens there are."""
    tokens = named("text", range(s)) + named("high", grid(y, x)) + named("low", grid(ly, lx))

    def rule(query, key):
        (ours, i), (theirs, j) = query, key
        match ours, theirs:
            case ("text", _) | (_, "text"):
                return True
            case ("high", "high"):
                return all(a // window == b // window for a, b in axes(i, j))
            case ("high", "low"):
                return high_to_low(i, j)
            case ("low", "low"):
                return low_to_low(i, j)
            case _:  # low to high
                return False

    return pairs(tokens, tokens, rule)


@oracle(
    57,
    "scale_dit",
    [
        Case({"s": 2, "y": 4, "x": 6, "ly": 2, "lx": 3}, {"window": 2}),
        Case({"s": 1, "y": 5, "x": 7, "ly": 3, "lx": 4}, {"window": 3}),
        Case({"s": 3, "y": 1, "x": 8, "ly": 1, "lx": 4}, {"window": 4}, heads=2),
    ],
    part="small",
)
def scale_dit_small(s, y, x, ly, lx, window):
    return scale_dit(s, y, x, ly, lx, lambda i, j: True, lambda i, j: True, window)


@oracle(
    57,
    "scale_dit",
    [
        Case({"s": 2, "y": 8, "x": 8, "ly": 4, "lx": 4}, {"window": 4, "ratio": 2, "block": 4}),
        Case({"s": 1, "y": 6, "x": 9, "ly": 2, "lx": 3}, {"window": 3, "ratio": 3, "block": 4}),
        Case({"s": 1, "y": 1, "x": 10, "ly": 1, "lx": 5}, {"window": 4, "ratio": 2, "block": 2}),
    ],
    part="large",
)
def scale_dit_large(s, y, x, ly, lx, window, ratio, block):
    def high_to_low(i, j):  # where the low token lies on the high grid
        return all(a // window == b * ratio // window for a, b in axes(i, j))

    def low_to_low(i, j):
        return (i[0] * lx + i[1]) // block == (j[0] * lx + j[1]) // block

    return scale_dit(s, y, x, ly, lx, high_to_low, low_to_low, window)


@oracle(
    94,
    "nsa_latent",
    [
        Case({"n": 12, "c": 5}, {"length": 4, "stride": 2}, {"before": np.array([0])}),
        Case({"n": 3, "c": 4}, {"length": 3, "stride": 3}, {"before": np.array([9, 4])}, batch=2),
        Case({"n": 1, "c": 1}, {"length": 2, "stride": 1}, {"before": np.array([1])}),
    ],
    part="compressed",
)
def nsa_latent_compressed(n, c, length, stride, before):
    ends = [b * stride + length for b in range(c)]  # of a block, its last token included
    return pairs(range(n), ends, lambda i, end: end <= before + i + 1)


def dense(row, name, part, cases):
    """A part in which every query sees every key: tokens of a grid, and m others."""

    @oracle(row, name, cases, part=part, dense=True)
    def rule(y, x, m):
        return pairs(grid(y, x), range(m), lambda i, j: True)


IMAGES = [Case({"y": 3, "x": 4, "m": 5}), Case({"y": 1, "x": 6, "m": 2}, heads=2)]
dense(6, "rgt", "global", IMAGES)
dense(24, "maformer", "global", IMAGES)


@oracle(
    19,
    "sviptr",
    [Case({"y": 4, "x": 6, "py": 2, "px": 3}), Case({"y": 3, "x": 5, "py": 1, "px": 2})],
    part="global",
    dense=True,
)
def sviptr_global(y, x, py, px):
    return pairs(grid(y, x), grid(py, px), lambda i, j: True)


@oracle(
    91,
    "efficient_conformer",
    [Case({"qn": 4, "n": 8}), Case({"qn": 1, "n": 3}, heads=2)],
    part="strided",
    dense=True,
)
def efficient_conformer_strided(qn, n):
    return pairs(range(qn), range(n), lambda i, j: True)


@oracle(
    110,
    "srformer",
    [
        Case({"y": 8, "x": 8}, {"window": 4, "shift": 0}),
        Case({"y": 8, "x": 8}, {"window": 4, "shift": 2}),
        Case({"y": 10, "x": 6}, {"window": 4, "shift": 2}),
        Case({"y": 2, "x": 12}, {"window": 8, "shift": 4}, heads=2),
    ],
)
def srformer(y, x, window, shift):
    def rule(i, j):  # a folded key covers the rows 2b and 2b + 1; shifts are even, windows too
        return all((a - shift) // window == (2 * b - shift) // window for a, b in axes(i, j))

    return pairs(grid(y, x), grid(y // 2, x // 2), rule)


@oracle(
    51,
    "cab",
    [
        Case({"n": 5, "m": 9}),
        Case({"n": 7, "m": 7}),
        Case({"n": 6, "m": 4}),
        Case({"n": 1, "m": 3}),
    ],
    part="causal_cross",
    dense=True,
)
def cab_causal_cross(n, m):
    return pairs(range(n), range(m), lambda i, j: True)
