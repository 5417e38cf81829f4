"""Keys around a query: clipped, clamped, dilated, strided or grown from a block."""

from .registry import Case, axes, grid, oracle, outside, pairs, rng, up


def near(y, x, radius):
    """The square around the query; what falls off the image is no key."""
    tokens = grid(y, x)
    return pairs(tokens, tokens, lambda i, j: all(abs(a - b) <= radius for a, b in axes(i, j)))


SQUARES = [
    Case({"y": 9, "x": 8}, {"radius": 3}),
    Case({"y": 5, "x": 7}, {"radius": 1}, heads=2),
    Case({"y": 1, "x": 6}, {"radius": 2}),
]


@oracle(2, "dlgsanet", SQUARES)
def dlgsanet(y, x, radius):
    return near(y, x, radius)


FIELDS = [
    Case({"u": 3, "v": 2, "h": 4, "w": 3}, {"reach": 1}),
    Case({"u": 2, "v": 2, "h": 3, "w": 5}, {"reach": 2}),
    Case({"u": 1, "v": 3, "h": 7, "w": 2}, {"reach": 5}),
]


@oracle(12, "lf_epi", FIELDS, part="uh")
def lf_epi_uh(u, v, h, w, reach):
    tokens = grid(u, v, h, w)
    return pairs(
        tokens, tokens, lambda i, j: i[1] == j[1] and i[3] == j[3] and abs(i[2] - j[2]) <= reach
    )


@oracle(12, "lf_epi", FIELDS, part="vw")
def lf_epi_vw(u, v, h, w, reach):
    tokens = grid(u, v, h, w)
    return pairs(
        tokens, tokens, lambda i, j: i[0] == j[0] and i[2] == j[2] and abs(i[3] - j[3]) <= reach
    )


def nearest(seed, batch, n, **sizes):
    """For each query the key of the grid next to it; it may lie just outside, as a flow may lead."""
    draw = rng(seed)
    return {f"near_{axis}": draw.integers(0, size + 1, (batch, n)) for axis, size in sizes.items()}


def outside_the_frame(n, t, y, x, offset, radius, near_t, near_y, near_x):
    steps = range(-radius, radius + 1)
    around = [
        [(near_y[i] + down, near_x[i] + right) for down in steps for right in steps]
        for i in range(n)
    ]
    return [outside(taps, y, x) for taps in around]


@oracle(
    14,
    "evenhancer",
    [
        Case(
            {"n": 12, "t": 4, "y": 5, "x": 6},
            {"offset": -1, "radius": 1},
            nearest(1, 2, 12, t=4, y=5, x=6),
            batch=2,
        ),
        Case(
            {"n": 9, "t": 3, "y": 7, "x": 4},
            {"offset": 2, "radius": 3},
            nearest(2, 1, 9, t=3, y=7, x=4),
        ),
        Case(
            {"n": 1, "t": 1, "y": 6, "x": 5},
            {"offset": 0, "radius": 2},
            nearest(3, 1, 1, t=1, y=6, x=5),
        ),
    ],
    zeros=outside_the_frame,
)
def evenhancer(n, t, y, x, offset, radius, near_t, near_y, near_x):
    def rule(i, j):
        in_frame = j[0] == max(0, min(near_t[i] + offset, t - 1))
        return in_frame and abs(j[1] - near_y[i]) <= radius and abs(j[2] - near_x[i]) <= radius

    return pairs(range(n), grid(t, y, x), rule)


def natten(i, j, n, window, dilation=1, stride=1, causal=False):
    """Generalized neighbourhood attention on one axis, as published."""
    if i % dilation != j % dilation:
        return False
    last = len(range(i % dilation, n, dilation)) - 1  # of the positions with this residue
    i, j = i // dilation, j // dilation
    if causal:
        leader = min(i // stride * stride + stride - 1, last)
        return j <= i and leader - j < window
    left, right = window // 2, window // 2 + window % 2 - 1
    leader = min(i // stride * stride + stride // 2, last)
    centre = max(left, min(leader, last - right))
    return centre - left <= j <= centre + right


def neighbourhood(extents, *per_axis):
    tokens = grid(*extents)
    return pairs(
        tokens,
        tokens,
        lambda i, j: all(natten(*axis) for axis in axes(i, j, extents, *per_axis)),
    )


@oracle(
    18,
    "dinat",
    [
        Case({"y": 7, "x": 8}, {"window": 3, "dilation": 2}),
        Case({"y": 7, "x": 8}, {"window": 3, "dilation": 2}, layer=1),
        Case({"y": 9, "x": 6}, {"window": 2, "dilation": 3}, layer=1),
        Case({"y": 1, "x": 9}, {"window": 5, "dilation": 4}, layer=3),
        Case({"y": 8, "x": 9}, {"window": 4, "dilation": 2}, layer=2, heads=2),
    ],
)
def dinat(y, x, window, dilation, layer):
    step = dilation if layer % 2 else 1
    return neighbourhood((y, x), (window, window), (step, step))


@oracle(
    22,
    "kan_dina",
    [
        Case({"y": 7, "x": 9}, {"window": 3, "dilation": 2}),
        Case({"y": 8, "x": 5}, {"window": 3, "dilation": 3}),
        Case({"y": 1, "x": 10}, {"window": 3, "dilation": 1}),
    ],
)
def kan_dina(y, x, window, dilation):
    return neighbourhood((y, x), (window, window), (dilation, dilation))


@oracle(
    36,
    "segman",
    [
        Case({"y": y, "x": x}, {"window": w})
        for y, x, w in [(7, 8, 3), (9, 6, 5), (5, 5, 4), (1, 7, 3)]
    ],
)
def segman(y, x, window):
    return neighbourhood((y, x), (window, window))


def gna_case(extents, window, stride, dilation, causal, heads=1):
    params = {"window": window, "stride": stride, "dilation": dilation, "causal": causal}
    return Case(extents, params, heads=heads)


@oracle(
    49,
    "gna",
    [
        gna_case({"n": 17}, 4, 1, 1, False),
        gna_case({"n": 17}, 4, 4, 1, False),
        gna_case({"n": 18}, 5, 2, 2, False),
        gna_case({"n": 19}, 4, 3, 2, True),
        gna_case({"n": 3}, 5, 2, 1, False),
    ],
    part="1d",
)
def gna_1d(n, window, stride, dilation, causal):
    return neighbourhood((n,), (window,), (dilation,), (stride,), (causal,))


@oracle(
    49,
    "gna",
    [
        gna_case({"y": 7, "x": 8}, (3, 4), (1, 2), (1, 1), (False, False)),
        gna_case({"y": 9, "x": 7}, (4, 3), (4, 3), (1, 2), (False, False)),
        gna_case({"y": 6, "x": 9}, (3, 3), (2, 1), (1, 2), (True, False)),
        gna_case({"y": 1, "x": 8}, (2, 5), (1, 3), (1, 1), (True, True)),
    ],
    part="2d",
)
def gna_2d(y, x, window, stride, dilation, causal):
    return neighbourhood((y, x), window, dilation, stride, causal)


@oracle(
    49,
    "gna",
    [
        gna_case({"t": 4, "y": 4, "x": 9}, (2, 3, 3), (1, 2, 1), (1, 1, 2), (True, False, False)),
        gna_case({"t": 5, "y": 3, "x": 7}, (3, 3, 4), (3, 1, 2), (1, 1, 1), (False, False, False)),
        gna_case({"t": 1, "y": 4, "x": 5}, (1, 2, 3), (1, 2, 3), (1, 2, 1), (False, True, False)),
    ],
    part="3d",
)
def gna_3d(t, y, x, window, stride, dilation, causal):
    return neighbourhood((t, y, x), window, dilation, stride, causal)


@oracle(
    50,
    "fna",
    [
        Case({"n": 16}, {"window": 5, "dilation": 1, "causal": False}),
        Case({"n": 17}, {"window": 4, "dilation": 3, "causal": False}),
        Case({"n": 15}, {"window": 3, "dilation": 2, "causal": True}),
        Case({"n": 2}, {"window": 3, "dilation": 1, "causal": False}),
    ],
    part="1d",
)
def fna_1d(n, window, dilation, causal):
    return neighbourhood((n,), (window,), (dilation,), (1,), (causal,))


@oracle(
    50,
    "fna",
    [
        Case({"y": 7, "x": 8}, {"window": (3, 5), "dilation": (1, 1), "causal": (False, False)}),
        Case({"y": 9, "x": 7}, {"window": (4, 3), "dilation": (2, 2), "causal": (False, False)}),
        Case({"y": 6, "x": 8}, {"window": (3, 3), "dilation": (1, 2), "causal": (True, False)}),
        Case({"y": 1, "x": 9}, {"window": (1, 3), "dilation": (1, 1), "causal": (False, True)}),
    ],
    part="2d",
)
def fna_2d(y, x, window, dilation, causal):
    return neighbourhood((y, x), window, dilation, (1, 1), causal)


@oracle(
    107,
    "a2mamba",
    [
        Case({"y": 7, "x": 9}, {"window": 3}, heads=2),
        Case({"y": 8, "x": 4}, {"window": 3}, heads=4),
        Case({"y": 3, "x": 11}, {"window": 2}, heads=2),
    ],
)
def a2mamba(y, x, window, head, heads):
    wide = head >= heads // 2
    steps = [min(n // window, window) if wide else 1 for n in (y, x)]
    return neighbourhood((y, x), (window, window), steps)


def taps(i, height, width, dilation):
    """Where the kernel reads around a pixel, inside the image and outside."""
    return [
        (i[0] + dilation * (u - (height - 1) // 2), i[1] + dilation * (t - (width - 1) // 2))
        for u in range(height)
        for t in range(width)
    ]


def taps_outside(y, x, height, width, dilation):
    return [outside(taps(i, height, width, dilation), y, x) for i in grid(y, x)]


@oracle(
    56,
    "tic",
    [
        Case({"y": 7, "x": 8}, {"height": 3, "width": 5, "dilation": 1}),
        Case({"y": 9, "x": 7}, {"height": 3, "width": 3, "dilation": 2}),
        Case({"y": 1, "x": 9}, {"height": 5, "width": 3, "dilation": 3}),
    ],
    zeros=taps_outside,
)
def tic(y, x, height, width, dilation):
    tokens = grid(y, x)
    return pairs(tokens, tokens, lambda i, j: j in taps(i, height, width, dilation))


def outside_the_halo(i, block, halo, *sizes):
    """Counts the places of the grown block around a query that lie outside the image."""
    rows, columns = (range(a // block * block - halo, a // block * block + block + halo) for a in i)
    return outside([(a, b) for a in rows for b in columns], *sizes)


def halo_outside(y, x, block, halo):
    return [outside_the_halo(i, block, halo, y, x) for i in grid(y, x)]


def downsampled_halo_outside(qy, qx, y, x, block, halo, stride):
    queries = [(a * stride, b * stride) for a, b in grid(qy, qx)]
    return [outside_the_halo(i, block, halo, y, x) for i in queries]


@oracle(
    54,
    "halonet",
    [
        Case({"y": 6, "x": 9}, {"block": 3, "halo": 1}),
        Case({"y": 7, "x": 8}, {"block": 4, "halo": 2}),
        Case({"y": 1, "x": 10}, {"block": 2, "halo": 3}, heads=2),
    ],
    part="halo",
    zeros=halo_outside,
)
def halonet(y, x, block, halo):
    tokens = grid(y, x)
    return pairs(tokens, tokens, lambda i, j: in_halo(i, j, block, halo))


def in_halo(i, j, block, halo):
    """The query's block, grown on each side."""
    return all(-halo <= b - block * (a // block) < block + halo for a, b in axes(i, j))


@oracle(
    54,
    "halonet",
    [
        Case({"qy": 3, "qx": 4, "y": 6, "x": 8}, {"block": 2, "halo": 1, "stride": 2}),
        Case({"qy": 3, "qx": 3, "y": 7, "x": 9}, {"block": 4, "halo": 2, "stride": 3}),
        Case({"qy": 1, "qx": 5, "y": 1, "x": 9}, {"block": 3, "halo": 0, "stride": 2}),
    ],
    part="downsampled",
    zeros=downsampled_halo_outside,
)
def halonet_downsampled(qy, qx, y, x, block, halo, stride):
    queries = [(a * stride, b * stride) for a, b in grid(qy, qx)]
    return pairs(queries, grid(y, x), lambda i, j: in_halo(i, j, block, halo))


def overlap_outside(y, x, window, overlap):
    return [outside_the_halo(i, window, overlap, y, x) for i in grid(y, x)]


@oracle(
    8,
    "hat",
    [
        Case({"y": 8, "x": 8}, {"window": 4, "overlap": 1}),
        Case({"y": 7, "x": 9}, {"window": 4, "overlap": 2}),
        Case({"y": 1, "x": 6}, {"window": 2, "overlap": 1}),
    ],
    part="ocab",
    zeros=overlap_outside,
)
def hat_ocab(y, x, window, overlap):
    tokens = grid(y, x)

    def rule(i, j):  # the window of the query is window number a // window
        return all(
            a // window * window - overlap <= b < a // window * window + window + overlap
            for a, b in axes(i, j)
        )

    return pairs(tokens, tokens, rule)


@oracle(
    60,
    "varying_window",
    [
        Case({"y": 8, "x": 8}, {"window": 2, "ratio": 2}),
        Case({"y": 9, "x": 10}, {"window": 2, "ratio": 4}),
        Case({"y": 7, "x": 11}, {"window": 3, "ratio": 3}),
        Case({"y": 1, "x": 12}, {"window": 4, "ratio": 2}, heads=2),
    ],
)
def varying_window(y, x, window, ratio):
    tokens = grid(y, x)

    def rule(i, j):  # twice the distance from the common centre is below the context's width
        return all(
            abs(2 * (b - a // window * window) - (window - 1)) < ratio * window
            for a, b in axes(i, j)
        )

    return pairs(tokens, tokens, rule)


def frames_missing(n, pad, top, devices):
    return [sum(not 0 <= i + step < n for step in range(-pad, pad + 1)) for i in range(n)]


@oracle(
    25,
    "video_infinity",
    [
        Case({"n": 16}, {"pad": 2, "top": 4, "devices": 2}),
        Case({"n": 21}, {"pad": 1, "top": 7, "devices": 3}),  # 7 frames each, share 2, stride 3
        Case({"n": 12}, {"pad": 3, "top": 2, "devices": 4}),  # less than a frame a device
        Case({"n": 1}, {"pad": 3, "top": 2, "devices": 1}),
    ],
    zeros=frames_missing,
)
def video_infinity(n, pad, top, devices):
    own = up(n, devices)
    share = top // devices
    stride = max(own // share, 1) if share else own
    sampled: list[int] = []
    for start in range(0, n, own):
        sampled += range(start, start + own, stride)
    sampled = sampled[:top]
    return pairs(range(n), range(n), lambda i, j: abs(i - j) <= pad or j in sampled)


@oracle(
    33, "freelong", [Case({"n": n}, {"window": w}) for n, w in [(12, 4), (13, 5), (3, 1), (1, 16)]]
)
def freelong(n, window):
    half = window // 2
    return pairs(range(n), range(n), lambda i, j: max(0, i - half) <= j < min(n, i + half + 1))
