"""Partitions of a grid: a query sees the keys of its own window, stripe, strip or residue class."""

from .registry import Case, axes, grid, oracle, pairs, rng, up

TWO_D = [
    Case({"y": 6, "x": 8}, {"window": 2}),
    Case({"y": 7, "x": 10}, {"window": 3}),
    Case({"y": 1, "x": 9}, {"window": 4}, heads=2, batch=2),
    Case({"y": 5, "x": 1}, {"window": 1}),
]
SHIFTED = [
    Case({"y": 8, "x": 8}, {"window": 4}),
    Case({"y": 8, "x": 8}, {"window": 4}, layer=1),
    Case({"y": 9, "x": 7}, {"window": 3}, layer=1),
    Case({"y": 5, "x": 11}, {"window": 7}, layer=3, heads=2),
    Case({"y": 1, "x": 6}, {"window": 2}, layer=2),
]
RECTANGLES = [
    Case({"y": 8, "x": 8}, {"height": 2, "width": 4}, heads=2),
    Case({"y": 8, "x": 8}, {"height": 2, "width": 4}, heads=2, layer=1),
    Case({"y": 7, "x": 9}, {"height": 2, "width": 6}, heads=4, layer=1),
    Case({"y": 1, "x": 10}, {"height": 1, "width": 3}, heads=2),
]


def same(i, j, sizes, shifts):
    """Same window on every axis; a window border stands at each shift + multiple of the size."""
    return all((a - s) // size == (b - s) // size for a, b, size, s in axes(i, j, sizes, shifts))


def windows(extents, sizes, shifts=(0, 0, 0)):
    tokens = grid(*extents)
    return pairs(tokens, tokens, lambda i, j: same(i, j, sizes, shifts[: len(sizes)]))


def swin(y, x, window, layer):
    """Every other layer moves the borders by half a window; what is cut off at an edge stays apart."""
    shift = window // 2 if layer % 2 else 0
    return windows((y, x), (window, window), (shift, shift))


def square(row, name, part=""):
    """A row whose index set is nothing but square windows."""

    @oracle(row, name, TWO_D, part=part)
    def rule(y, x, window):
        return windows((y, x), (window, window))


square(7, "rat", "window")
square(23, "lvit")
square(24, "maformer")
square(32, "gcvit")
square(40, "complete_modelling", "local")
square(43, "davit")
square(45, "lola_specvit")
square(63, "crossformer", "sda")


@oracle(6, "rgt", RECTANGLES)
def rgt(y, x, height, width, head, heads, layer):
    sizes = (height, width) if head < heads // 2 else (width, height)
    shifts = [size // 2 if layer % 2 else 0 for size in sizes]
    return windows((y, x), sizes, shifts)


@oracle(8, "hat", SHIFTED, part="window")
def hat_window(y, x, window, layer):
    return swin(y, x, window, layer)


def tile_of(i, extent, count):
    """The number of the tile, of ``count`` equal ones of [0, extent), that a position lies in."""
    return i * count // extent


@oracle(
    9,
    "ultragen",
    [
        Case({"t": 2, "y": 8, "x": 8}, {"even": 4, "odd": 5}),
        Case({"t": 1, "y": 10, "x": 5}, {"even": 4, "odd": 5}, layer=1),
        Case({"t": 3, "y": 4, "x": 6}, {"even": 2, "odd": 3}, layer=2),
        Case({"t": 2, "y": 1, "x": 7}, {"even": 2, "odd": 3}, layer=1),
    ],
)
def ultragen(t, y, x, even, odd, layer):
    count = odd if layer % 2 else even
    tokens = grid(t, y, x)

    def rule(i, j):
        return tile_of(i[1], y, count) == tile_of(j[1], y, count) and tile_of(
            i[2], x, count
        ) == tile_of(j[2], x, count)

    return pairs(tokens, tokens, rule)


@oracle(
    10,
    "simplegvr",
    [
        Case({"t": 10, "y": 2, "x": 2}, {"unit": 5}),
        Case({"t": 12, "y": 1, "x": 3}, {"unit": 5}, layer=1),
        Case({"t": 1, "y": 2, "x": 2}, {"unit": 4}, layer=1),
        Case({"t": 9, "y": 2, "x": 1}, {"unit": 4}, layer=3),
    ],
    part="interleave",
)
def simplegvr_interleave(t, y, x, unit, layer):
    shift = unit // 2 if layer % 2 else 0
    tokens = grid(t, y, x)
    return pairs(tokens, tokens, lambda i, j: (i[0] + shift) // unit == (j[0] + shift) // unit)


def chosen(seed, batch, heads, units, slots):
    """For each unit so many units."""
    return {"chosen_units": rng(seed).integers(0, units, (batch, heads, units, slots))}


@oracle(
    10,
    "simplegvr",
    [
        Case(
            {"t": 2, "y": 4, "x": 6},
            {"window_y": 2, "window_x": 3},
            chosen(1, 2, 2, 8, 1),
            heads=2,
            batch=2,
        ),
        Case({"t": 2, "y": 5, "x": 4}, {"window_y": 2, "window_x": 3}, chosen(2, 1, 1, 12, 2)),
        Case({"t": 5, "y": 1, "x": 3}, {"window_y": 3, "window_x": 2}, chosen(3, 1, 1, 10, 3)),
    ],
    part="sparse_local",
)
def simplegvr_sparse_local(t, y, x, window_y, window_x, chosen_units, head):
    down, across = up(y, window_y), up(x, window_x)
    tokens = grid(t, y, x)

    def unit(i):
        return (i[0] * down + i[1] // window_y) * across + i[2] // window_x

    def rule(i, j):
        return unit(j) == unit(i) or unit(j) in chosen_units[head, unit(i)]

    return pairs(tokens, tokens, rule)


@oracle(13, "craft", RECTANGLES)
def craft(y, x, height, width, head, heads, layer):
    sizes = (height, width) if head < heads // 2 else (width, height)
    shifts = [size // 2 if layer % 2 else 0 for size in sizes]
    tokens = grid(y, x)

    def rule(i, j):  # rolled first, so that the windows wrap around the image
        return all(
            (a - s) % extent // size == (b - s) % extent // size
            for a, b, size, s, extent in axes(i, j, sizes, shifts, (y, x))
        )

    return pairs(tokens, tokens, rule)


@oracle(
    19,
    "sviptr",
    [
        Case({"y": 4, "x": 9}, {"stripe": 3}, heads=2),
        Case({"y": 5, "x": 7}, {"stripe": 2}, heads=4),
        Case({"y": 1, "x": 8}, {"stripe": 4}, heads=2),
    ],
)
def sviptr(y, x, stripe, head, heads):
    axis = 1 if head < heads // 2 else 0  # full-height stripes, then full-width ones
    tokens = grid(y, x)
    return pairs(tokens, tokens, lambda i, j: i[axis] // stripe == j[axis] // stripe)


@oracle(
    20, "mossformer", [Case({"n": n}, {"group": g}) for n, g in [(16, 4), (13, 5), (1, 4), (9, 2)]]
)
def mossformer(n, group):
    return windows((n,), (group,))


@oracle(
    21,
    "maxvit",
    [Case({"y": y, "x": x}, {"block": b}) for y, x, b in [(6, 6, 3), (7, 9, 4), (1, 5, 2)]],
    part="block",
)
def maxvit_block(y, x, block):
    return windows((y, x), (block, block))


def spaced(extents, count):
    """``count`` tokens an axis, evenly spaced: the classes of a residue."""
    tokens = grid(*extents)
    steps = [up(extent, c) for extent, c in zip(extents, count, strict=True)]
    return pairs(tokens, tokens, lambda i, j: all(a % s == b % s for a, b, s in axes(i, j, steps)))


@oracle(
    21,
    "maxvit",
    [
        Case({"y": y, "x": x}, {"grid_size": g})
        for y, x, g in [(6, 9, 3), (8, 8, 2), (7, 10, 3), (1, 5, 2)]
    ],
    part="grid",
)
def maxvit_grid(y, x, grid_size):
    return spaced((y, x), (grid_size, grid_size))


BOXES = [
    Case({"t": 4, "y": 4, "x": 6}, {"group": (2, 2, 3)}),
    Case({"t": 3, "y": 5, "x": 4}, {"group": (2, 2, 2)}),
    Case({"t": 1, "y": 6, "x": 7}, {"group": (2, 3, 3)}, heads=2),
]


@oracle(27, "dformer", BOXES, part="local")
def dformer_local(t, y, x, group):
    return windows((t, y, x), group)


@oracle(27, "dformer", BOXES, part="dilated")
def dformer_dilated(t, y, x, group):
    return spaced((t, y, x), group)


@oracle(29, "lamamba", SHIFTED)
def lamamba(y, x, window, layer):
    return swin(y, x, window, layer)


@oracle(34, "maniqa", SHIFTED)
def maniqa(y, x, window, layer):
    return swin(y, x, window, layer)


RESIDUES = [(8, 8, 4), (7, 9, 2), (1, 5, 3)]


def residues(y, x, step):
    """Every ``step``-th token on both axes."""
    tokens = grid(y, x)
    return pairs(tokens, tokens, lambda i, j: all(a % step == b % step for a, b in axes(i, j)))


@oracle(
    40,
    "complete_modelling",
    [Case({"y": y, "x": x}, {"window": w}) for y, x, w in RESIDUES],
    part="between",
)
def complete_modelling_between(y, x, window):
    return residues(y, x, window)


@oracle(
    63, "crossformer", [Case({"y": y, "x": x}, {"interval": i}) for y, x, i in RESIDUES], part="lda"
)
def crossformer_lda(y, x, interval):
    return residues(y, x, interval)


VIEWS = [
    Case({"v": 3, "y": 4, "x": 4}, {"side": 2}),
    Case({"v": 2, "y": 5, "x": 7}, {"side": 3}),
    Case({"v": 1, "y": 1, "x": 8}, {"side": 7}, heads=2),
]


@oracle(80, "lrgt", VIEWS, part="grouped")
def lrgt_grouped(v, y, x, side):
    tokens = grid(v, y, x)
    return pairs(
        tokens, tokens, lambda i, j: i[1] % side == j[1] % side and i[2] % side == j[2] % side
    )


@oracle(80, "lrgt", [Case(case.extents) for case in VIEWS[:2]], part="view")
def lrgt_view(v, y, x):
    tokens = grid(v, y, x)
    return pairs(tokens, tokens, lambda i, j: i[0] == j[0])


@oracle(
    106,
    "yolo12",
    [
        Case({"y": y, "x": x}, {"areas": a})
        for y, x, a in [(8, 4, 4), (5, 7, 4), (6, 3, 1), (6, 5, 4), (1, 9, 2)]
    ],
)
def yolo12(y, x, areas):
    n = y * x
    return pairs(range(n), range(n), lambda i, j: i * areas // n == j * areas // n)
