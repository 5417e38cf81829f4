"""The arithmetic of emitted files: floors, remainders, powers and reads are the language's."""

import itertools

import pytest
import torch

from attndsl.backends import integers

MOST = (1 << 62) - 1
LEFT = (-MOST, -8, -7, -1, 0, 1, 6, 7, 30, 62, 63, (1 << 61) + 1, MOST)
RIGHT = (-MOST, -3, -1, 0, 1, 2, 7, 64, MOST)


@pytest.mark.parametrize("as_scalar", [False, True])
def test_quotients_floor_and_are_zero_where_the_divisor_is_not_positive(as_scalar: bool):
    for a, b in itertools.product(LEFT, RIGHT):
        left, right = (torch.tensor(a) if not as_scalar else a), torch.tensor(b)
        truth = (a // b, a % b) if b > 0 else (0, 0)
        found = integers.quotient(left, right), integers.remainder(left, right)
        assert tuple(int(x) for x in found) == truth


def test_logarithms_and_powers_are_exact():
    for a in (*LEFT, *(1 << n for n in range(62)), *((1 << n) - 1 for n in range(62))):
        assert int(integers.ilog2(torch.tensor(a))) == (a.bit_length() - 1 if a > 0 else -1)
        assert int(integers.pow2(torch.tensor(a))) == (1 << a if 0 <= a <= 62 else 0)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_what_lies_outside_an_input_is_zero(dtype: torch.dtype):
    values = torch.arange(1, 7).view(2, 3).to(dtype)
    rows, columns = torch.arange(-2, 4)[:, None], torch.arange(-2, 5)
    found = integers.read(values, rows, columns)
    assert found.dtype == dtype
    for i, j in itertools.product(range(6), range(7)):
        row, column = i - 2, j - 2
        inside = 0 <= row < 2 and 0 <= column < 3
        assert found[i, j] == (values[row, column] if inside else 0)
    assert integers.read(values[:0], rows, 1).eq(0).all()
    assert integers.read(values, 1, 3) == 0


def test_a_loop_goes_over_whatever_any_position_asks_for():
    q, ends = torch.arange(3), torch.tensor([[4], [6]])
    assert [int(j) for j in integers.span(q, ends, q.device)] == [0, 1, 2, 3, 4, 5]
    assert [int(j) for j in integers.span(5, torch.tensor(2), q.device)] == []
    assert [int(j) for j in integers.span(0, ends[:0], q.device)] == []
    with pytest.raises(ValueError, match="runs over 100000 values"):
        list(integers.span(0, 100_000, q.device))
