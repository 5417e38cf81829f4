"""The units of the highest scores of each row, as scores are made: no matrix of rows and units is ever in memory.

A unit's *key* is its score, as an integer of the same order, above its number from the last: of equal scores the lower
number has the greater key, and no two keys of a row are equal. The least int64 is the key of what is never taken, the
greatest int32 the order of what is taken in any case. The W greatest keys so far lie in ascending order; W new ones in
descending order beside them, the greater of each two are the W greatest of all (Batcher 1968), to be sorted.
"""

import triton
import triton.language as tl


@triton.jit
def _keys(scores, candidates, forced, units):
    """int64 keys in the order of choice; the least of what is no candidate, and of scores of -inf and NaN."""
    scores = scores + 0.0  # -0.0 is 0.0
    bits = scores.to(tl.int32, bitcast=True)
    order = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    order = tl.where(forced, 0x7FFFFFFF, order).to(tl.int64)
    live = candidates & (forced | (scores > float("-inf")))
    return tl.where(live, (order << 32) + (0xFFFFFFFF - units.to(tl.int64)), -0x8000000000000000)


@triton.jit(do_not_specialize=["rows", "units"])
def choose_units(
    X, Y, Factor, Found, xb, xh, xs, yb, yh, ys,
    where_constants, where_tables, keeping_constants, keeping_tables,
    rows, units, heads,
    GROUP: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, BQ: tl.constexpr, W: tl.constexpr, SLOTS: tl.constexpr,
    MATRIX: tl.constexpr,
    WHERE_CONSTANTS: tl.constexpr, WHERE_QUERY: tl.constexpr, WHERE_KEY: tl.constexpr, WHERE: tl.constexpr,
    KEEPING_CONSTANTS: tl.constexpr, KEEPING_QUERY: tl.constexpr, KEEPING_KEY: tl.constexpr, KEEPING: tl.constexpr,
):  # fmt: skip
    """Found [B, H, rows, SLOTS], int32: the units of the greatest factor * X Yᵀ, in ascending order, -1 behind them.

    X [B, H, rows, D] and Y [B, H / GROUP, units, D], float64, the last dim contiguous. Scores are rounded to float32
    once. WHERE says which units are candidates of a row, KEEPING which of these are taken whatever their score.
    MATRIX: whether the device multiplies matrices of float64.
    """
    both = tl.program_id(1)
    b, h = (both // heads).to(tl.int64), (both % heads).to(tl.int64)
    row, d = tl.program_id(0) * BQ + tl.arange(0, BQ), tl.arange(0, BD)
    inside = row < rows
    X += b * xb + h * xh
    Y += b * yb + h // GROUP * yh
    x_at = X + row.to(tl.int64) * xs
    if MATRIX:
        x_inside = inside[:, None] & (d[None, :] < D)
        x = tl.load(x_at[:, None] + d[None, :], mask=x_inside, other=0.0)
    factor = tl.load(Factor)
    where_numbers = WHERE_CONSTANTS(where_constants)
    where_terms = WHERE_QUERY(where_numbers, where_tables, row[:, None])
    keeping_numbers = KEEPING_CONSTANTS(keeping_constants)
    keeping_terms = KEEPING_QUERY(keeping_numbers, keeping_tables, row[:, None])
    best = tl.full([BQ, W], -0x8000000000000000, tl.int64)
    for begin in range(0, units, W):
        unit = begin + tl.arange(0, W)
        exists = unit < units
        terms = WHERE_KEY(where_numbers, where_tables, unit[None, :])
        candidates = WHERE(where_numbers, where_terms, terms) & exists[None, :] & inside[:, None]
        if tl.sum(candidates.to(tl.int32)) > 0:
            y_at = Y + unit.to(tl.int64) * ys
            if MATRIX:
                y_inside = exists[None, :] & (d[:, None] < D)
                y = tl.load(y_at[None, :] + d[:, None], mask=y_inside, other=0.0)
                products = tl.dot(x, y, out_dtype=tl.float64)
            else:
                products = tl.zeros([BQ, W], tl.float64)
                for i in range(D):
                    x_i = tl.load(x_at + i, mask=inside, other=0.0)
                    y_i = tl.load(y_at + i, mask=exists, other=0.0)
                    products += x_i[:, None] * y_i[None, :]
            scores = (products * factor).to(tl.float32)
            kept = KEEPING_KEY(keeping_numbers, keeping_tables, unit[None, :])
            forced = KEEPING(keeping_numbers, keeping_terms, kept) & candidates
            keys = _keys(scores, candidates, forced, unit[None, :])
            if tl.sum((tl.max(keys, 1) > tl.min(best, 1)).to(tl.int32)) > 0:
                best = tl.bitonic_merge(tl.maximum(best, tl.sort(keys, descending=True)))
    # the SLOTS greatest, by number
    place = tl.arange(0, W)[None, :]
    taken = (best != -0x8000000000000000) & (place >= W - SLOTS)
    numbers = tl.sort(tl.where(taken, (0xFFFFFFFF - (best & 0xFFFFFFFF)).to(tl.int32), 0x7FFFFFFF))
    at = Found + (both.to(tl.int64) * rows + row.to(tl.int64)[:, None]) * SLOTS + place
    found = tl.where(numbers == 0x7FFFFFFF, -1, numbers)
    tl.store(at, found, mask=inside[:, None] & (place < SLOTS))
