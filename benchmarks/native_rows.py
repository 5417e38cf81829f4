"""The rows of natives.py: a pattern, its published form, and the sizes at which they are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import native_forms as forms
import torch
from native_forms import Form, Run, Size
from torch import Tensor

import attndsl


def _no_inputs(size: Size) -> dict[str, Tensor]:
    return {}


@dataclass(frozen=True)
class Native:
    """A pattern and its published form, which is called with a size and the pattern's values, in this order.

    ``given`` makes what the form takes besides; ``inputs`` the pattern's run-time inputs. ``tiny`` and ``small`` are
    a size and values for tests.
    """

    name: str
    pattern: str
    form: Form
    sizes: tuple[Size, ...]
    tiny: Size
    values: dict[str, Any] = field(default_factory=dict)
    small: dict[str, Any] = field(default_factory=dict)
    layer: int = 0
    inputs: Callable[[Size], dict[str, Tensor]] = _no_inputs
    given: Callable[[Size, dict[str, Any]], dict[str, Any]] = lambda size, values: values
    backward: bool = True

    def ours(self, size: Size) -> Callable[..., Tensor]:
        """The compiled pattern, called as a user would."""
        pattern = attndsl.compile(self.pattern, layer=self.layer, **self._values(size))
        names = {2: ("y", "x"), 3: ("t", "y", "x")}.get(len(size.axes), ())
        extents = dict(zip(names, size.axes, strict=True)) if names else None
        inputs = self.inputs(size)
        return lambda q, k, v, **options: pattern(q, k, v, extents=extents, **inputs, **options)

    def published(self, size: Size) -> Run:
        """The published form."""
        return self.form(size, *self.given(size, self._values(size)).values())

    def _values(self, size: Size) -> dict[str, Any]:
        return self.small if size == self.tiny and self.small else self.values


# ------------------------------------------------------------------------ inputs


def _keep(size: Size) -> dict[str, Tensor]:
    """From one token to all, in each element."""
    lengths = torch.randint(
        1, size.tokens + 1, (size.batch,), generator=torch.Generator().manual_seed(0)
    )
    return {"keep": torch.arange(size.tokens) < lengths[:, None]}


def _equal(size: Size) -> tuple[int, ...]:
    return (size.tokens // 16,) * 16


def _unequal(size: Size) -> tuple[int, ...]:
    """Sixteen documents, the last one fifteen times as long as the first."""
    step = size.tokens // 128
    return (*(step * n for n in range(1, 16)), size.tokens - 120 * step)


def _ids(lengths: Callable[[Size], tuple[int, ...]]) -> Callable[[Size], dict[str, Tensor]]:
    return lambda size: {
        "doc": torch.arange(16).repeat_interleave(torch.tensor(lengths(size)))[None]
    }


def _live_blocks(size: Size, values: dict[str, Any]) -> dict[str, Any]:
    """Live blocks, read from the pattern's mask: the pattern draws the random ones."""
    mask = attndsl.compile("bigbird", **values).mask(size.tokens, heads=size.heads)[0]
    return {"b": values["b"], "live": mask[:, :: values["b"], :: values["b"]]}


# ------------------------------------------------------------------------ the rows

IMAGES = (
    Size((28, 28), 8, 6, 32),
    Size((56, 56), 8, 3, 32),
)  # the second and the first stage of Swin-T
ODD = (Size((45, 50), 4, 3, 32), Size((25, 33), 8, 6, 32))
VIDEOS = (Size((8, 28, 28), 1, 4), Size((4, 14, 14), 4, 4))
LONG = (Size((2048,), heads=4), Size((8192,), heads=2))
TINY = Size((32,), 2, 2, 8)
TINY_IMAGE = Size((8, 12), 2, 2, 8)
TINY_VIDEO = Size((4, 6, 8), 1, 2, 8)

NATIVES = (
    Native(
        "full",
        "full",
        forms.dense,
        (Size((512,)), Size((2048,)), Size((8192,), heads=1), Size((197,), 16, 12)),
        TINY,
    ),
    Native(
        "causal",
        "causal",
        lambda size: forms.dense(size, causal=True),
        (Size((512,)), Size((2048,)), Size((8192,), heads=1)),
        TINY,
    ),
    Native(
        "cross",
        "full",
        forms.dense,
        (Size((4096,), keys=77), Size((256,), 8, keys=1024)),
        Size((16,), keys=5),
    ),
    Native(
        "decoding, grouped queries",
        "causal",
        forms.dense,
        (Size((1,), 1, 32, 128, 8192, 4), Size((1,), 8, 32, 128, 2048, 8)),
        Size((1,), 2, 4, 8, 16, 2),
        backward=False,
    ),
    Native("prefix", "prefix", forms.prefix, LONG, TINY, {"n": 512}, {"n": 9}),
    Native(
        "padded batch",
        "padding",
        forms.padded,
        (Size((64,), 256, 4, 32), Size((512,), 8)),
        TINY,
        inputs=_keep,
        given=lambda size, values: _keep(size),
    ),
    Native(
        "equal documents",
        "documents_causal",
        forms.documents,
        (Size((8192,), heads=4), Size((2048,))),
        TINY,
        inputs=_ids(_equal),
        given=lambda size, values: {"lengths": _equal(size)},
    ),
    Native(
        "unequal documents",
        "documents_causal",
        forms.documents,
        (Size((8192,), heads=4), Size((2048,))),
        Size((128,), 1, 2, 8),
        inputs=_ids(_unequal),
        given=lambda size, values: {"lengths": _unequal(size)},
    ),
    Native(
        "blocks", "block", lambda size, b: forms.boxes(size, (b,)), LONG, TINY, {"b": 256}, {"b": 8}
    ),
    Native(
        "causal chunks",
        "pattern p(b: int) = causal and block(b)",
        lambda size, b: forms.boxes(size, (b,), causal=True),
        LONG,
        TINY,
        {"b": 1024},
        {"b": 8},
    ),
    Native("block-causal", "block_causal", forms.growing, LONG, TINY, {"b": 256}, {"b": 8}),
    Native("causal window", "causal_window", forms.causal_window, LONG, TINY, {"w": 512}, {"w": 8}),
    Native(
        "Longformer",
        "longformer",
        forms.longformer,
        LONG,
        TINY,
        {"w": 256, "g": 4},
        {"w": 8, "g": 3},
    ),
    Native(
        "StreamingLLM",
        "streaming",
        forms.streaming,
        LONG,
        TINY,
        {"w": 512, "n": 4},
        {"w": 8, "n": 3},
    ),
    Native(
        "causal look-back",
        "pattern p(b: int) = causal and lookback(b)",
        forms.lookback,
        LONG,
        TINY,
        {"b": 128},
        {"b": 8},
    ),
    Native(
        "BigBird",
        "bigbird",
        forms.bigbird,
        LONG,
        Size((64,), 2, 2, 8),
        {"b": 64},
        {"b": 8},
        given=_live_blocks,
    ),
    Native(
        "residue classes",
        "residues",
        lambda size, d: forms.boxes(size, (size.tokens // d,), spread=True),
        LONG,
        TINY,
        {"d": 8},
        {"d": 4},
    ),
    Native(
        "dilated window",
        "dilated",
        forms.dilated,
        LONG,
        TINY,
        {"left": 64, "d": 4},
        {"left": 4, "d": 2},
    ),
    Native("strided", "strided_by_head", forms.strided_by_head, LONG, TINY, {"s": 64}, {"s": 8}),
    Native(
        "fixed",
        "fixed_by_head",
        forms.fixed_by_head,
        LONG,
        TINY,
        {"s": 128, "c": 8},
        {"s": 8, "c": 2},
    ),
    Native("LongLoRA", "longlora", forms.longlora, LONG, TINY, {"group": 512}, {"group": 8}),
    Native("Swin", "swin", forms.swin, IMAGES, Size((8, 12), 2, 2, 8), {"m": 7}, {"m": 4}),
    Native(
        "Swin, shifted", "swin", forms.swin, IMAGES, TINY_IMAGE, {"m": 7, "s": 3}, {"m": 4, "s": 2}
    ),
    Native(
        "Swin, shifted, odd extents",
        "swin",
        forms.swin,
        ODD,
        Size((7, 9), 2, 2, 8),
        {"m": 7, "s": 3},
        {"m": 4, "s": 2},
    ),
    Native(
        "Swin on a ring",
        "wrapped_swin",
        lambda size, m, s: forms.swin(size, m, s, wrapped=True),
        IMAGES,
        TINY_IMAGE,
        {"m": 7, "s": 3},
        {"m": 4, "s": 2},
    ),
    Native(
        "DaViT, odd extents",
        "davit",
        forms.swin,
        ODD,
        Size((7, 9), 2, 2, 8),
        {"window": 7},
        {"window": 4},
    ),
    Native(
        "MaxViT, blocks",
        "maxvit",
        lambda size, block: forms.boxes(size, (block, block)),
        (Size((56, 56), 4, 2), Size((28, 28), 8, 4)),
        TINY_IMAGE,
        {"block": 7},
        {"block": 4},
    ),
    Native(
        "MaxViT, grid",
        "maxvit",
        lambda size, grid_size: forms.boxes(size, (grid_size, grid_size), spread=True),
        (Size((56, 56), 4, 2), Size((28, 28), 8, 4)),
        TINY_IMAGE,
        {"grid_size": 7},
        {"grid_size": 4},
        layer=1,
    ),
    Native(
        "axial, columns",
        "axial2d",
        lambda size, axis: forms.boxes(size, (0, 1)),
        (Size((64, 64), 1, 8), Size((32, 128), 2, 4)),
        TINY_IMAGE,
        {"axis": 0},
    ),
    Native(
        "axial, rows",
        "axial2d",
        lambda size, axis: forms.boxes(size, (1, 0)),
        (Size((64, 64), 1, 8), Size((32, 128), 2, 4)),
        TINY_IMAGE,
        {"axis": 1},
    ),
    Native(
        "CSWin stripes",
        "sviptr",
        lambda size, stripe: forms.by_head(
            forms.boxes(size, (0, stripe)), forms.boxes(size, (stripe, 0))
        ),
        (Size((28, 28), 8, 4, 32), Size((56, 56), 4, 2, 32)),
        TINY_IMAGE,
        {"stripe": 2},
        {"stripe": 2},
    ),
    Native(
        "HaloNet",
        "halonet",
        forms.halo,
        (Size((64, 64), 1, 4, 32), Size((32, 32), 4, 4, 32)),
        TINY_IMAGE,
        {"block": 8, "halo": 3},
        {"block": 4, "halo": 1},
    ),
    Native(
        "HAT, overlapping windows",
        "hat_overlap",
        forms.halo,
        (Size((64, 64), 1, 6, 32), Size((32, 32), 4, 6, 32)),
        TINY_IMAGE,
        {"window": 16, "overlap": 4},
        {"window": 4, "overlap": 1},
    ),
    Native(
        "neighbourhood",
        "neighborhood2d",
        lambda size, sy: forms.neighbourhood(size, sy, gathered=False),
        (Size((28, 28), 4, 4, 32), Size((56, 56), 1, 2, 32)),
        TINY_IMAGE,
        {"sy": 7},
        {"sy": 3},
    ),
    Native(
        "DiNAT",
        "dinat",
        forms.neighbourhood,
        (Size((28, 28), 4, 4, 32), Size((56, 56), 1, 2, 32)),
        TINY_IMAGE,
        {"window": 7, "dilation": 4},
        {"window": 3, "dilation": 2},
        layer=1,
    ),
    Native(
        "video windows",
        "dformer",
        lambda size, group_t, group_y, group_x: forms.boxes(size, (group_t, group_y, group_x)),
        VIDEOS,
        TINY_VIDEO,
        {"group_t": 2, "group_y": 7, "group_x": 7},
        {"group_t": 2, "group_y": 3, "group_x": 4},
    ),
    Native(
        "video tiles",
        "ultragen",
        lambda size, even: forms.boxes(size, (0, size.axes[1] // even, size.axes[2] // even)),
        (Size((8, 28, 28), 1, 4), Size((4, 16, 16), 4, 4)),
        TINY_VIDEO,
        {"even": 4},
        {"even": 2},
    ),
    Native(
        "frames, causal",
        "frame_causal",
        lambda size: forms.growing(size, size.axes[1] * size.axes[2]),
        (Size((8, 16, 16), 1, 4), Size((16, 8, 8), 2, 4)),
        TINY_VIDEO,
    ),
)
