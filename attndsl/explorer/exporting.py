"""Exports: the picture as PNG and SVG, the call in Python, the BlockMask of flex_attention in Python."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

from attndsl import views
from attndsl.settings import literal

from .questions import Question
from .scenes import Scene


def export(data: Any) -> dict[str, Any]:
    """The exports of a question: {"png": base64, "svg": text, "python": text, "block_mask": text}."""
    scene = Scene(Question.read(data))
    sheet = views.Sheet((_picture(scene),))
    return {
        "png": base64.b64encode(sheet.png()).decode(),
        "svg": sheet.svg(),
        "python": _call(scene),
        "block_mask": _block_mask(scene),
    }


def _picture(scene: Scene) -> views.Picture:
    """The window with its rulers, title and note."""
    shown, window = views.picture_pairs(scene.schedule(), scene.rows, scene.columns, *scene.place)
    rulers = (
        views.Ruler("q", len(window.rows), window.step, window.rows.start),
        views.Ruler("k", len(window.columns), window.step, window.columns.start),
    )
    note = f"{scene.call.q_len:,} queries × {scene.call.k_len:,} keys"
    note += f"; a cell is {window.step} × {window.step} pairs" if window.step > 1 else ""
    title = scene.about.mask.name + _values(scene)
    return replace(shown, rows=rulers[0], columns=rulers[1], note=note, title=title)


def _values(scene: Scene) -> str:
    given = scene.of.values
    return f"({', '.join(f'{name}={literal(x)}' for name, x in given.items())})" if given else ""


def _compiled(scene: Scene) -> str:
    """Statements that make ``pattern``. The text is a Python literal: nothing of it becomes code."""
    text, values = scene.of.text, scene.about.values
    given = ", ".join(f"{name!r}: {value!r}" for name, value in values.items())
    more = f", entry={scene.about.signature.name!r}" + (f", values={{{given}}}" if given else "")
    lines = "\n".join(f"    {line!r}" for line in text.splitlines(keepends=True))
    return f"pattern = attndsl.compile(\n{lines},\n    {more[2:]},\n)\n"


def _told(scene: Scene) -> str:
    """Arguments of a call beside its lengths: extents that are open, and inputs by name."""
    told = scene.told()
    extents = {axis: told["extents"][axis] for axis in told["axes"] if axis in told["extents"]}
    parts = [f"extents={extents!r}"] if extents else []
    parts += [f"{table.name}={table.name}" for table in scene.about.inputs]
    return "".join(f", {part}" for part in parts)


def _given_inputs(scene: Scene) -> str:
    tables = scene.about.inputs
    return "".join(
        f"# {t.name}: your tensor of dims {', '.join(map(str, t.dims))}\n" for t in tables
    )


def _call(scene: Scene) -> str:
    call, width = scene.call, scene.of.head_dim
    shape = f"{call.batch}, {call.heads}, "
    return (
        "import attndsl\nimport torch\n\n"
        f"{_compiled(scene)}"
        f"q = torch.randn({shape}{call.q_len}, {width})\n"
        f"k, v = (torch.randn({shape}{call.k_len}, {width}) for _ in range(2))\n"
        f"{_given_inputs(scene)}out = pattern(q, k, v{_told(scene)})\n"
    )


def _block_mask(scene: Scene) -> str:
    call = scene.call
    if scene.about.attention is not None:
        return "# a BlockMask is of a pattern: choose that of the attention\n"
    lengths = f"{call.batch}, {call.heads}, {call.q_len}, {call.k_len}"
    return (
        "import attndsl\nimport attndsl.flex\n\n"
        f"{_compiled(scene)}"
        f"{_given_inputs(scene)}"
        f"block_mask = attndsl.flex.create_block_mask(pattern, {lengths}{_told(scene)})\n"
    )
