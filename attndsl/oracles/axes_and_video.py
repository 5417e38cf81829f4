"""A chosen axis is shared or free; widths that depend on another axis' distance; scales and frames."""

from .registry import Case, axes, grid, oracle, pairs, rng
from .two_spaces import named


@oracle(
    5,
    "redundancy",
    [
        Case(
            {"t": 2, "y": 4, "x": 4},
            {"window_t": 1, "window_y": 2, "window_x": 2, "kinds": (0, 1, 2)},
            heads=3,
        ),
        Case(
            {"t": 3, "y": 3, "x": 5},
            {"window_t": 2, "window_y": 2, "window_x": 3, "kinds": (2, 1)},
            heads=2,
        ),
        Case(
            {"t": 1, "y": 1, "x": 7},
            {"window_t": 1, "window_y": 1, "window_x": 2, "kinds": (1, 2)},
            heads=2,
        ),
    ],
)
def redundancy(t, y, x, window_t, window_y, window_x, kinds, head):
    tokens = grid(t, y, x)
    sizes = (window_t, window_y, window_x)

    def rule(i, j):
        match kinds[head]:
            case 0:
                return True
            case 1:
                return i[0] == j[0]
            case _:
                return all(a // size == b // size for a, b, size in axes(i, j, sizes))

    return pairs(tokens, tokens, rule)


def sharing(axis, *extents):
    """Query and key agree on one axis and are free on the other."""
    tokens = grid(*extents)
    return pairs(tokens, tokens, lambda i, j: i[axis] == j[axis])


@oracle(
    87, "deftan", [Case({"t": 4, "f": 5}), Case({"t": 1, "f": 7}), Case({"t": 6, "f": 3})], part="f"
)
def deftan_f(t, f):
    return sharing(0, t, f)


@oracle(
    87, "deftan", [Case({"t": 4, "f": 5}), Case({"t": 7, "f": 1}), Case({"t": 6, "f": 3})], part="t"
)
def deftan_t(t, f):
    return sharing(1, t, f)


@oracle(
    99,
    "mcanet",
    [Case({"y": 4, "x": 5}), Case({"y": 7, "x": 3}), Case({"y": 1, "x": 6})],
    part="columns",
)
def mcanet_columns(y, x):
    return sharing(1, y, x)


@oracle(
    99,
    "mcanet",
    [Case({"y": 4, "x": 5}), Case({"y": 7, "x": 3}), Case({"y": 6, "x": 1})],
    part="rows",
)
def mcanet_rows(y, x):
    return sharing(0, y, x)


@oracle(
    102, "npt", [Case({"n": 4, "d": 5}), Case({"n": 7, "d": 3}), Case({"n": 1, "d": 6})], part="aba"
)
def npt_aba(n, d):
    return sharing(0, n, d)


@oracle(
    102, "npt", [Case({"n": 4, "d": 5}), Case({"n": 7, "d": 3}), Case({"n": 6, "d": 1})], part="abd"
)
def npt_abd(n, d):
    return sharing(1, n, d)


def tracks(seed, batch, t, p):
    """Where the trajectory of every token lies in every frame."""
    return {"track": rng(seed).integers(0, p, (batch, t * p, t))}


@oracle(
    3,
    "ttvsr",
    [
        Case({"t": 4, "p": 9}, {"stride": 2}, tracks(1, 2, 4, 9), batch=2),
        Case({"t": 5, "p": 8}, {"stride": 3}, tracks(2, 1, 5, 8)),
        Case({"t": 3, "p": 1}, {"stride": 1}, tracks(3, 1, 3, 1)),
    ],
    causal=True,
)
def ttvsr(t, p, stride, track):
    def rule(query, key):
        (now, place), (then, there) = query, key
        stored = then % stride == 0 and then < now
        return stored and there == track[now * p + place, then]

    return pairs(grid(t, p), grid(t, p), rule)


SEGMENTED = [
    ({"t": 10, "y": 2, "x": 1, "m": 12}, 5, 1),
    ({"t": 7, "y": 1, "x": 2, "m": 9}, 3, 2),
    ({"t": 1, "y": 2, "x": 3, "m": 8}, 2, 1),
]


@oracle(
    93,
    "presto",
    [
        Case(
            extents,
            {"segments": segments},
            {"caption": rng(seed).integers(0, segments, (batch, extents["m"]))},
            batch=batch,
        )
        for seed, (extents, segments, batch) in enumerate(SEGMENTED)
    ],
)
def presto(t, y, x, m, segments, caption):
    return pairs(grid(t, y, x), range(m), lambda i, j: caption[j] == i[0] * segments // t)


@oracle(
    77,
    "mvar",
    [
        Case({"n": 14}, {"sides": (1, 2, 3)}),
        Case({"n": 21}, {"sides": (1, 2, 4)}),
        Case({"n": 2}, {"sides": (1, 1)}),
    ],
)
def mvar(n, sides):
    scale = [s for s, side in enumerate(sides) for _ in range(side**2)]
    return pairs(range(n), range(n), lambda i, j: scale[i] == scale[j])


def radial_pair(i, j, s, block, decay, full_neighbour):
    """Query (frame, place) and key (frame, place), s places in a frame."""
    d, e = abs(i[0] - j[0]), abs(i[1] - j[1])
    if j[0] == 0:  # sink frame
        return True
    if d == 0:
        return True  # width s: the whole frame
    share = 2 ** s.bit_length() / 2 ** d.bit_length()
    kept = share >= block or d % int(block / share) == 0  # frames are thinned out
    if d == 1:
        return kept and e <= (s if full_neighbour else s // 2)
    return kept and e <= max(block, decay * share)


RADIAL = [
    Case({"t": 6, "s": 8}, {"block": 2, "decay": 1, "full_neighbour": False}),
    Case({"t": 9, "s": 5}, {"block": 4, "decay": 1, "full_neighbour": True}),
    Case({"t": 17, "s": 4}, {"block": 2, "decay": 1, "full_neighbour": False}),
    Case({"t": 5, "s": 12}, {"block": 4, "decay": 2, "full_neighbour": False}),
    Case({"t": 7, "s": 4}, {"block": 8, "decay": 1, "full_neighbour": False}),
]


@oracle(66, "radial", [*RADIAL, Case({"t": 1, "s": 6}, RADIAL[0].params)])
def radial(t, s, block, decay, full_neighbour):
    tokens = grid(t, s)
    return pairs(tokens, tokens, lambda i, j: radial_pair(i, j, s, block, decay, full_neighbour))


@oracle(
    66,
    "radial",
    [
        Case(case.extents | {"words": text}, case.params)
        for case, text in zip(RADIAL, (3, 1, 2, 5, 1), strict=True)
    ],
    part="joint",
)
def radial_joint(t, s, words, block, decay, full_neighbour):
    tokens = named("video", grid(t, s)) + named("text", range(words))

    def rule(query, key):
        (ours, i), (theirs, j) = query, key
        if "text" in (ours, theirs):
            return True
        return radial_pair(i, j, s, block, decay, full_neighbour)

    return pairs(tokens, tokens, rule)
