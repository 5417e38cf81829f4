"""Work items that kernels are given for a schedule."""

import attndsl
from attndsl.backends.work_partition import device_masks


def test_the_masks_of_tiles_at_the_ends_hold_what_is_inside():
    schedule = attndsl.compile("full").schedule(40, 50, tile=(32, 32))
    *_, keys, queries = device_masks(schedule)
    assert (keys == (1 << 18) - 1).all()  # 50 = 32 + 18: the bits of each query
    assert (queries[:, :8] == -1).all()  # 40 = 32 + 8: all bits of these, none of the others
    assert (queries[:, 8:] == 0).all()
