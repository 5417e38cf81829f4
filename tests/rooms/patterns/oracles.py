"""Meaning of each pattern of the prelude, in plain Python on plain ints, without code of the package.

A flat oracle takes the query position, the key position, the number of positions and the head; one
over a grid takes coordinates and extents as tuples.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

FlatRule = Callable[[int, int, int, int], bool]
GridRule = Callable[[tuple[int, ...], tuple[int, ...], tuple[int, ...]], bool]


@dataclass(frozen=True)
class Flat:
    name: str
    values: dict[str, object]
    rule: FlatRule
    heads: int = 1


@dataclass(frozen=True)
class OnGrid:
    name: str
    values: dict[str, object]
    rule: GridRule
    extents: list[tuple[int, ...]] = field(default_factory=list)


def is_power(d: int) -> bool:
    return d == 0 or d in {2**j for j in range(40)}


def window_with_step(i: int, j: int, size: int, step: int) -> bool:
    return j in [i + step * s for s in range(-(size // 2), size - size // 2)]


def natten(i: int, j: int, n: int, size: int, step: int = 1, stride: int = 1, past: bool = False):
    """The keys of one axis, listed class by class."""
    mine = [p for p in range(n) if p % step == i % step]
    at, last = mine.index(i), len(mine) - 1
    if past:
        leader = min(at // stride * stride + stride - 1, last)
        return j in mine and j <= i and leader - mine.index(j) < size
    leader = min(at // stride * stride + stride // 2, last)
    before, after = size // 2, size - size // 2 - 1
    start = leader - before
    if leader + after > last:  # too far right: moved left, but never beyond the first
        start = last - size + 1
    start = max(start, 0)
    return j in mine[start : start + size]


def ring(i: int, j: int, n: int, left: int, right: int) -> bool:
    return any((i + s) % n == j for s in range(-left, right + 1)) or left + right + 1 >= n


def shifted(p: int, b: int, s: int) -> int:
    borders = [m for m in range(-s, p + 1) if (m + s) % b == 0]
    return borders[-1]


def rolled(p: int, n: int, b: int, s: int) -> int:
    order = [(m - s) % n for m in range(n)]  # what stands at each rolled place
    return order.index(p) // b


def mix(h: int, x: int) -> int:
    t = (h + 3 * (x % 32749)) % 32749
    return (t**2 + 12345) % 32749


def drawn(i: int, j: int, n: int, h: int, b: int, count: int, seed: int) -> bool:
    blocks = -(-n // b)
    for draw in range(count):
        first, second = mix(seed, 1), mix(seed, 2)
        for one, two in zip((h, i // b, draw), (draw, h, i // b), strict=True):
            first, second = mix(first, one), mix(second, two)
        if (first * 32749 + second) % blocks == j // b:
            return True
    return False


def bird(i: int, j: int, n: int, h: int) -> bool:
    near = i // 2 - j // 2 in (-1, 0, 1)
    return near or i < 2 or j < 2 or drawn(i, j, n, h, 2, 1, 0)


RUNS = [range(2), range(2, 3), range(3, 9), range(9, 99)]

FLAT = [
    Flat("full", {}, lambda i, j, n, h: True),
    Flat("nothing", {}, lambda i, j, n, h: False),
    Flat("diagonal", {}, lambda i, j, n, h: i == j),
    Flat("causal", {}, lambda i, j, n, h: j in range(i + 1)),
    Flat("prefix", {"n": 3}, lambda i, j, n, h: j <= i or j in (0, 1, 2)),
    Flat("prefix", {"n": 0}, lambda i, j, n, h: j <= i),
    Flat("window", {"left": 2}, lambda i, j, n, h: j in range(i - 2, i + 3)),
    Flat("window", {"left": 3, "right": 1}, lambda i, j, n, h: j in range(i - 3, i + 2)),
    Flat("window", {"left": 0, "right": 0}, lambda i, j, n, h: i == j),
    Flat("padded_window", {"left": 2, "right": 1}, lambda i, j, n, h: -2 <= j - i <= 1),
    Flat("causal_window", {"w": 1}, lambda i, j, n, h: i == j),
    Flat("causal_window", {"w": 4}, lambda i, j, n, h: j in (i, i - 1, i - 2, i - 3)),
    Flat("dilated", {"left": 2, "d": 3}, lambda i, j, n, h: j - i in (-6, -3, 0, 3, 6)),
    Flat("dilated", {"left": 1, "d": 2, "right": 3}, lambda i, j, n, h: j - i in (-2, 0, 2, 4, 6)),
    Flat("causal_dilated", {"w": 3, "d": 2}, lambda i, j, n, h: i - j in (0, 2, 4)),
    Flat("causal_dilated", {"w": 1, "d": 5}, lambda i, j, n, h: i == j),
    Flat("wrapped_window", {"left": 2}, lambda i, j, n, h: ring(i, j, n, 2, 2)),
    Flat("wrapped_window", {"left": 1, "right": 4}, lambda i, j, n, h: ring(i, j, n, 1, 4)),
    Flat("power_of_two", {}, lambda i, j, n, h: is_power(abs(i - j))),
    Flat("power_of_two_blocks", {"b": 3}, lambda i, j, n, h: is_power(abs(i // 3 - j // 3))),
    Flat("sink", {"n": 2}, lambda i, j, n, h: j in (0, 1)),
    Flat("global_queries", {"n": 2}, lambda i, j, n, h: i in (0, 1)),
    Flat("global_keys", {"n": 2}, lambda i, j, n, h: j in (0, 1)),
    Flat("global_tokens", {"n": 2}, lambda i, j, n, h: i in (0, 1) or j in (0, 1)),
    Flat("global_queries_at", {"tokens": [1, 5, 6]}, lambda i, j, n, h: i in (1, 5, 6)),
    Flat("global_keys_at", {"tokens": [6, 1, 5]}, lambda i, j, n, h: j in (1, 5, 6)),
    Flat("global_tokens_at", {"tokens": [0, 9]}, lambda i, j, n, h: i in (0, 9) or j in (0, 9)),
    Flat("global_tokens_at", {"tokens": []}, lambda i, j, n, h: False),
    Flat("streaming", {"w": 3, "n": 2}, lambda i, j, n, h: j in (0, 1, i, i - 1, i - 2) and j <= i),
    Flat("longformer", {"w": 2, "g": 1}, lambda i, j, n, h: j in range(i - 2, i + 3) or not i * j),
    Flat("block", {"b": 4}, lambda i, j, n, h: i // 4 == j // 4),
    Flat("block_causal", {"b": 4}, lambda i, j, n, h: j in range((i // 4 + 1) * 4)),
    Flat("lookback", {"b": 3}, lambda i, j, n, h: i // 3 - j // 3 in (0, 1)),
    Flat("lookback", {"b": 2, "n": 2}, lambda i, j, n, h: i // 2 - j // 2 in (0, 1, 2)),
    Flat(
        "segments",
        {"ends": [2, 3, 9]},
        lambda i, j, n, h: any({i, j} <= set(run) for run in RUNS),
    ),
    Flat(
        "segments_causal",
        {"ends": [2, 3, 9]},
        lambda i, j, n, h: any(i in run and j < run.stop for run in RUNS),
    ),
    Flat("halo", {"b": 4, "h": 2}, lambda i, j, n, h: j in range(i // 4 * 4 - 2, i // 4 * 4 + 6)),
    Flat(
        "shifted_block", {"b": 4, "s": 1}, lambda i, j, n, h: shifted(i, 4, 1) == shifted(j, 4, 1)
    ),
    Flat(
        "wrapped_block",
        {"b": 4, "s": 3},
        lambda i, j, n, h: rolled(i, n, 4, 3) == rolled(j, n, 4, 3),
    ),
    Flat("residues", {"d": 3}, lambda i, j, n, h: (i - j) % 3 == 0),
    Flat("strided", {"s": 3}, lambda i, j, n, h: i - j in (0, 1, 2, *range(3, n, 3))),
    Flat(
        "strided_by_head",
        {"s": 3},
        lambda i, j, n, h: i - j in ((0, 1, 2, 3), range(0, n, 3))[h % 2],
        3,
    ),
    Flat("fixed", {"s": 4}, lambda i, j, n, h: j <= i and (i // 4 == j // 4 or j % 4 == 3)),
    Flat(
        "fixed",
        {"s": 4, "c": 2},
        lambda i, j, n, h: j <= i and (i // 4 == j // 4 or j % 4 in (2, 3)),
    ),
    Flat(
        "fixed_by_head",
        {"s": 4},
        lambda i, j, n, h: j <= i and (j % 4 == 3 if h % 2 else i // 4 == j // 4),
        3,
    ),
    Flat(
        "random_blocks",
        {"b": 3, "count": 2, "seed": 7},
        lambda i, j, n, h: drawn(i, j, n, h, 3, 2, 7),
        3,
    ),
    Flat("random_blocks", {"b": 2, "count": 0}, lambda i, j, n, h: False),
    Flat("bigbird", {"b": 2, "count": 1, "g": 1}, bird, 2),
    Flat("box1d", {"size": 3}, lambda i, j, n, h: window_with_step(i, j, 3, 1)),
    Flat("box1d", {"size": 4, "d": 2}, lambda i, j, n, h: j - i in (-4, -2, 0, 2)),
    *(
        Flat(
            "neighborhood1d",
            {"size": size, "d": d, "stride": stride, "past": past},
            lambda i, j, n, h, a=(size, d, stride, past): natten(i, j, n, *a),
        )
        for size, d, stride, past in [
            (3, 1, 1, False),
            (4, 1, 1, False),
            (5, 2, 1, False),
            (4, 3, 1, False),
            (3, 1, 2, False),
            (4, 1, 4, False),
            (6, 2, 3, False),
            (1, 1, 1, False),
            (3, 1, 1, True),
            (4, 2, 1, True),
            (4, 1, 3, True),
            (5, 3, 2, True),
        ]
    ),
]


IMAGES = [(5, 7), (8, 6), (1, 9), (4, 3)]
VOLUMES = [(3, 4, 5), (2, 1, 6)]


def maxvit(i: int, j: int, n: int, g: int) -> bool:
    step = -(-n // g)
    return i % step == j % step


def natten2(options: list[tuple[object, ...]]) -> GridRule:
    return lambda i, j, n: all(
        natten(a, b, m, *option) for a, b, m, option in zip(i, j, n, options, strict=True)
    )


GRIDS = [
    OnGrid(
        "box2d",
        {"sy": 3},
        lambda i, j, n: all(abs(a - b) <= 1 for a, b in zip(i, j, strict=False)),
        IMAGES,
    ),
    OnGrid(
        "box2d",
        {"sy": 2, "sx": 5, "dx": 2},
        lambda i, j, n: j[0] - i[0] in (-1, 0) and j[1] - i[1] in (-4, -2, 0, 2, 4),
        IMAGES,
    ),
    OnGrid(
        "padded_box2d",
        {"sy": 4, "sx": 3, "dy": 1, "dx": 2},
        lambda i, j, n: j[0] - i[0] in (-2, -1, 0, 1) and j[1] - i[1] in (-2, 0, 2),
        IMAGES,
    ),
    OnGrid("neighborhood2d", {"sy": 3}, natten2([(3,), (3,)]), IMAGES),
    OnGrid(
        "neighborhood2d",
        {"sy": 3, "sx": 4, "dy": 2, "dx": 1, "tx": 2, "px": False},
        natten2([(3, 2, 1), (4, 1, 2)]),
        IMAGES,
    ),
    OnGrid(
        "neighborhood2d",
        {"sy": 3, "py": True, "dy": 1, "dx": 3},
        natten2([(3, 1, 1, True), (3, 3, 1, False)]),
        IMAGES,
    ),
    OnGrid("axial2d", {"axis": 0}, lambda i, j, n: i[1] == j[1], IMAGES),
    OnGrid("axial2d", {"axis": 1}, lambda i, j, n: i[0] == j[0], IMAGES),
    OnGrid("cross2d", {}, lambda i, j, n: i[0] == j[0] or i[1] == j[1], IMAGES),
    OnGrid(
        "swin",
        {"m": 3},
        lambda i, j, n: all(a // 3 == b // 3 for a, b in zip(i, j, strict=False)),
        IMAGES,
    ),
    OnGrid(
        "swin",
        {"m": 4, "s": 2},
        lambda i, j, n: all(
            shifted(a, 4, 2) == shifted(b, 4, 2) for a, b in zip(i, j, strict=False)
        ),
        IMAGES,
    ),
    OnGrid(
        "swin",  # an odd window: after a roll by -2 the first window starts at position 2
        {"m": 5, "s": 2},
        lambda i, j, n: all(
            rolled(a, 100, 5, -2) == rolled(b, 100, 5, -2) for a, b in zip(i, j, strict=False)
        ),
        IMAGES,
    ),
    OnGrid(
        "wrapped_swin",
        {"m": 3, "s": 1},
        lambda i, j, n: all(
            rolled(a, m, 3, -1) == rolled(b, m, 3, -1) for a, b, m in zip(i, j, n, strict=False)
        ),
        IMAGES,
    ),
    OnGrid(
        "maxvit_grid",
        {"g": 2},
        lambda i, j, n: all(maxvit(a, b, m, 2) for a, b, m in zip(i, j, n, strict=False)),
        IMAGES,
    ),
    OnGrid(
        "maxvit_grid",
        {"g": 3},
        lambda i, j, n: all(maxvit(a, b, m, 3) for a, b, m in zip(i, j, n, strict=False)),
        IMAGES,
    ),
    OnGrid(
        "halo2d",
        {"b": 3, "h": 1},
        lambda i, j, n: all(
            b in range(a // 3 * 3 - 1, a // 3 * 3 + 4) for a, b in zip(i, j, strict=False)
        ),
        IMAGES,
    ),
    OnGrid(
        "padded_halo2d",
        {"b": 2, "h": 3},
        lambda i, j, n: all(
            b in range(a // 2 * 2 - 3, a // 2 * 2 + 5) for a, b in zip(i, j, strict=False)
        ),
        IMAGES,
    ),
    OnGrid(
        "box3d",
        {"st": 1, "sy": 3},
        lambda i, j, n: i[0] == j[0] and all(abs(a - b) < 2 for a, b in zip(i, j, strict=False)),
        VOLUMES,
    ),
    OnGrid(
        "neighborhood3d",
        {"st": 2, "sy": 3, "dt": 1, "pt": True, "dy": 2, "dx": 1, "py": False},
        natten2([(2, 1, 1, True), (3, 2), (3, 1)]),
        VOLUMES,
    ),
    OnGrid("axial3d", {"axis": 0}, lambda i, j, n: i[1:] == j[1:], VOLUMES),
    OnGrid("axial3d", {"axis": 1}, lambda i, j, n: i[::2] == j[::2], VOLUMES),
    OnGrid("axial3d", {"axis": 2}, lambda i, j, n: i[:2] == j[:2], VOLUMES),
    OnGrid(
        "cross3d", {}, lambda i, j, n: sum(a != b for a, b in zip(i, j, strict=False)) < 2, VOLUMES
    ),
    OnGrid("frame_causal", {}, lambda i, j, n: j[0] <= i[0], VOLUMES),
]
