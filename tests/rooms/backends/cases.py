"""Random calls: masks with structure, shapes, dtypes and memory layouts."""

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st

LAYOUTS = ("plain", "length before heads", "slice of more", "width not innermost", "shared heads")


@dataclass(frozen=True, repr=False)
class Case:
    masks: np.ndarray  # [1 or B, 1 or H, Q, K]
    tile: tuple[int, int]
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    dout: torch.Tensor
    dlse: torch.Tensor | None

    @property
    def mask(self) -> torch.Tensor:
        return torch.from_numpy(self.masks)

    def __repr__(self) -> str:
        shapes = [tuple(x.shape) for x in (self.q, self.k, self.v)]
        return f"Case({self.masks.shape}, tile {self.tile}, {shapes}, {self.q.dtype})"


def random_mask(rng: np.random.Generator, q_len: int, k_len: int) -> np.ndarray:
    """Some of: blocks, bands, global keys and queries, scattered pairs. Then some empty queries."""
    q, k = np.arange(q_len)[:, None], np.arange(k_len)
    mask = np.zeros((q_len, k_len), dtype=bool)
    for kind in rng.choice(8, size=rng.integers(1, 4), replace=False):
        if kind == 0:
            size = int(rng.choice([8, 16, 32]))
            blocks = rng.random((q_len // size + 1, k_len // size + 1)) < rng.random() * 0.5
            mask |= np.kron(blocks, np.ones((size, size), bool))[:q_len, :k_len]
        elif kind == 1:
            left, right = rng.integers(0, 60, 2)
            mask |= (q - k <= left) & (k - q <= right)
        elif kind == 2:
            mask |= rng.random(k_len) < 0.05
        elif kind == 3:
            mask[rng.random(q_len) < 0.03] = True
        elif kind == 4:
            mask |= rng.random((q_len, k_len)) < rng.choice([0.001, 0.1, 0.9])
        elif kind == 5:
            mask |= k <= q + k_len - q_len
        elif kind == 6:  # equally many blocks in each row of blocks, with holes
            size = int(rng.choice([16, 32]))
            places = rng.random((q_len // size + 1, k_len // size + 1)).argsort(1) < 3
            holes = rng.random((q_len, k_len)) < 0.2
            mask |= np.kron(places, np.ones((size, size), bool))[:q_len, :k_len] & ~holes
        else:  # backwards: the later the query, the earlier its keys
            mask |= abs(q + k - k_len) <= rng.integers(1, 30)
    mask[rng.random(q_len) < rng.choice([0.0, 0.1])] = False
    return mask


def laid_out(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: torch.dtype, layout: str
) -> torch.Tensor:
    """Normal numbers [B, H, S, D] in one of many memory layouts."""
    B, H, S, D = shape

    def normal(*size: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(size)).to(dtype)

    match layout:
        case "length before heads":
            return normal(B, S, H, D).transpose(1, 2)
        case "slice of more":
            return normal(B, H, S + 3, D + 5)[:, :, 2 : 2 + S, 1 : 1 + D]
        case "width not innermost":
            return normal(B, H, D, S).transpose(2, 3)
        case "shared heads":
            return normal(B, 1, S, D).expand(B, H, S, D)
    return normal(B, H, S, D)


@st.composite
def cases(draw: st.DrawFn, dtype: torch.dtype = torch.float64, longest: int = 300) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = st.one_of(st.integers(1, 20), st.integers(1, longest))
    q_len, k_len = draw(lengths), draw(lengths)
    B, kv_heads, group = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    H = kv_heads * group
    D, Dv = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    Dv = D if draw(st.booleans()) else Dv
    classes = draw(st.sampled_from([1, B])), draw(st.sampled_from([1, H]))
    masks = np.stack(
        [random_mask(rng, q_len, k_len) for _ in range(classes[0] * classes[1])]
    ).reshape(*classes, q_len, k_len)
    if draw(st.booleans()) and classes[1] > 1:
        masks[:, 1] = masks[:, 0]
    layout = st.sampled_from(LAYOUTS)
    tiles = st.sampled_from([16, 32, 64])
    return Case(
        masks,
        (draw(tiles), draw(tiles)),
        laid_out(rng, (B, H, q_len, D), dtype, draw(layout)),
        laid_out(rng, (B, kv_heads, k_len, D), dtype, draw(layout)),
        laid_out(rng, (B, kv_heads, k_len, Dv), dtype, draw(layout)),
        laid_out(rng, (B, H, q_len, Dv), dtype, draw(layout)),
        torch.from_numpy(rng.standard_normal((B, H, q_len))).to(
            torch.float64 if dtype == torch.float64 else torch.float32
        )
        if draw(st.booleans())
        else None,
    )
