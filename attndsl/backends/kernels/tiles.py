"""Device functions shared by all kernels: the work items, addresses of tiles, and masks of their pairs.

A program handles one *item*: a stretch of the live tiles of one query tile (or key tile) of one head.
An item is six int32: tile, first and last FULL entry, first and last PARTIAL entry, slot. An item with a
slot >= 0 holds only part of its tile's work and leaves its result there, to be merged afterwards.
"""

import triton
import triton.language as tl

ITEM = tl.constexpr(6)


@triton.jit
def deal(first_items, plan_of, plan_batch, plan_head, at_once, width, heads):
    """(batch, head, plan, item, whether there is one) of this program.

    Items are numbered longest first. ``at_once`` heads work on an item together, so that the long items
    of all of them start early while their keys share the cache; ``width`` is the most items of any plan.
    """
    program = tl.program_id(0)
    section = program // (width * at_once)
    rest = program % (width * at_once)
    both = section * at_once + rest % at_once
    batch, head = both // heads, both % heads
    plan = tl.load(plan_of + batch * plan_batch + head * plan_head)
    item = tl.load(first_items + plan) + rest // at_once
    return batch, head, plan, item, item < tl.load(first_items + plan + 1)


@triton.jit
def stretches(items, item):
    """The tile of an item, the first and last FULL entry, the first and last PARTIAL one."""
    at = items + item * ITEM
    return tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3), tl.load(at + 4)


@triton.jit
def addresses(base, first, row, step, column, across, order, ORDERED: tl.constexpr):
    """Addresses of a tile: rows ``first + row``, ``step`` apart, and columns, ``across`` apart.

    ``row`` and ``column`` lie along the two axes of the result. The part that moves from tile to tile is one
    scalar of 64 bits; offsets within a tile have 32. ``order``, if ORDERED, holds the row in memory of
    each row as the schedule counts them.
    """
    if ORDERED:
        return base + tl.load(order + first + row).to(tl.int64) * step + column * across
    else:
        return base + first.to(tl.int64) * step + (row * step + column * across)


@triton.jit
def positions(first, row, order, ORDERED: tl.constexpr):
    """Where those rows lie in memory, which is where the pattern knows them."""
    if ORDERED:
        return tl.load(order + first + row)
    else:
        return first + row


@triton.jit
def paged(
    K, V, first, keys, kb, vb, order, inside, column_pages, n_pages,
    ORDERED: tl.constexpr, PAGE: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """(where the pages of a tile's keys begin, of its values, the row within, whether it is there), in a pool.

    ``column_pages`` has the page of each PAGE rows; a key whose page is none of the ``n_pages`` is not there.
    """
    if ORDERED or PAGE % BK != 0:
        row = positions(first, keys, order, ORDERED)
        page = tl.load(column_pages + row // PAGE, mask=inside, other=-1)
        place = row % PAGE
    else:  # one page for all
        page = tl.load(column_pages + first // PAGE)
        place = first % PAGE + keys
    there = inside & (page >= 0) & (page < n_pages)
    page = page.to(tl.int64)
    return K + page * kb, V + page * vb, place, there


@triton.jit
def fetch(at, inside, column, WIDTH: tl.constexpr, PADDED: tl.constexpr, BOUNDED: tl.constexpr):
    """A tile, 0 outside the rows that are ``inside`` (if BOUNDED) and the WIDTH columns that exist."""
    if BOUNDED:
        if WIDTH == PADDED:
            return tl.load(at, mask=inside, other=0.0)
        else:
            return tl.load(at, mask=inside & (column < WIDTH), other=0.0)
    else:
        if WIDTH == PADDED:
            return tl.load(at)
        else:
            return tl.load(at, mask=column < WIDTH, other=0.0)


@triton.jit
def unpack(masks, mask, query, key, BQ: tl.constexpr, BK: tl.constexpr):
    """The pairs of a tile by its entry in the bank: int32 [n, BK / 32, BQ], a bit a key, lowest first.

    ``query`` and ``key`` count within the tile, one along each axis of the result.
    """
    at = masks + mask.to(tl.int64) * (BQ * BK // 32) + query
    word = tl.load(at)
    for i in tl.static_range(1, BK // 32):
        word = tl.where(key >= 32 * i, tl.load(at + i * BQ), word)
    return ((word >> (key & 31)) & 1) != 0
