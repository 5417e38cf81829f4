"""Row 067, the whole way: windows of varying size, sampled between pixels, attended to by the library's entry."""

import itertools
import math

import numpy as np
import torch

from attndsl import library

Y, X, WINDOW, HEADS, WIDTH = 6, 8, 4, 2, 5
ROWS, COLUMNS = 2, 2  # windows


def at(image: np.ndarray, y: float, x: float) -> np.ndarray:
    """Between the four pixels around a point, by their distances; what is outside is zero."""
    top, left = math.floor(y), math.floor(x)
    found = np.zeros(image.shape[-1])
    for row, column in itertools.product((top, top + 1), (left, left + 1)):
        if 0 <= row < Y and 0 <= column < X:
            found += (1 - abs(y - row)) * (1 - abs(x - column)) * image[row, column]
    return found


def points(scale: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """[heads, windows, samples, (y, x)]: the uniform grid of each window's rectangle, in pixels."""
    steps = torch.arange(WINDOW, dtype=torch.float64) - (WINDOW - 1) / 2
    around = torch.cartesian_prod(steps, steps)
    centres = torch.cartesian_prod(
        torch.arange(ROWS, dtype=torch.float64), torch.arange(COLUMNS, dtype=torch.float64)
    )
    centres = centres * WINDOW + (WINDOW - 1) / 2
    return (centres + offset)[:, :, None] + scale[:, :, None] * around


def sampled(image: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """An image [heads, Y * X, width] at the points: keys or values [1, heads, windows * samples, width]."""
    pixels = image.reshape(HEADS, Y, X, WIDTH).permute(0, 3, 1, 2)
    to_unit = 2 * (where + 0.5) / torch.tensor([Y, X], dtype=torch.float64) - 1
    made = torch.nn.functional.grid_sample(
        pixels, to_unit.flip(-1), padding_mode="zeros", align_corners=False
    )
    return made.permute(0, 2, 3, 1).reshape(1, HEADS, -1, WIDTH)


def test_varying_windows_attend_to_samples_between_pixels_with_gradients_to_their_size():
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=draw)

    q, k, v = (normal(HEADS, Y * X, WIDTH) for _ in range(3))
    windows = ROWS * COLUMNS
    scale = (1 + 0.5 * normal(HEADS, windows, 2)).requires_grad_()
    offset = (2 * normal(HEADS, windows, 2)).requires_grad_()
    pattern = library.load("vsa", window=WINDOW)
    sizes = {"y": Y, "x": X, "b": windows, "s": WINDOW * WINDOW}

    def attention(scale: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        where = points(scale, offset)
        return pattern(q[None], sampled(k, where), sampled(v, where), extents=sizes)[0]

    found = attention(scale, offset).detach().numpy()
    where = points(scale, offset).detach().numpy()
    images = [x.reshape(HEADS, Y, X, WIDTH).numpy() for x in (k, v)]
    outside = 0
    for h, y, x in itertools.product(range(HEADS), range(Y), range(X)):
        own = where[h, y // WINDOW * COLUMNS + x // WINDOW]
        keys, values = (np.stack([at(image[h], *point) for point in own]) for image in images)
        weights = np.exp(keys @ q[h, y * X + x].numpy() / math.sqrt(WIDTH))
        outside += (keys == 0).all(axis=1).sum()
        right = weights @ values / weights.sum()  # what lies outside counts as exp(0)
        np.testing.assert_allclose(found[h, y * X + x], right, rtol=0, atol=1e-12)
    assert outside > 0
    assert torch.autograd.gradcheck(attention, (scale, offset))
