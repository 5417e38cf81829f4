"""Pictures as PNG with axes, titles, notes and a legend, where matplotlib is installed."""

from __future__ import annotations

import importlib.util
import io
from typing import Any, Final

from .pictures import Picture, Ruler

_INCH: Final = 4.6  # a side of a panel
_DOTS: Final = 150  # per inch


def plot_png(*pictures: Picture) -> bytes | None:
    """The pictures side by side as a PNG with words; None without matplotlib, which is imported here alone."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(_INCH * len(pictures), _INCH + 0.9), dpi=_DOTS, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(pictures), squeeze=False)[0]
    for axes, picture in zip(panels, pictures, strict=True):
        _draw(axes, picture)
    inks = {ink.label: ink for picture in pictures for ink in picture.legend}
    swatches = [
        Patch(facecolor=ink.colour, edgecolor="#9aa3ad", label=ink.label) for ink in inks.values()
    ]
    figure.legend(
        handles=swatches, loc="outside lower center", ncols=3, frameon=False, fontsize="small"
    )
    made = io.BytesIO()
    canvas.print_png(made, metadata={"Software": None})  # equal pictures, equal bytes
    return made.getvalue()


def _draw(axes: Any, picture: Picture) -> None:
    """One picture in its axes."""
    from matplotlib.colors import ListedColormap

    height, width = picture.cells.shape
    colours = ListedColormap([ink.colour for ink in picture.inks])
    axes.imshow(
        picture.cells, cmap=colours, vmin=-0.5, vmax=len(picture.inks) - 0.5, interpolation="nearest",
        extent=(0, width, height, 0), aspect="equal",
    )  # fmt: skip
    axes.set_title(_plain(picture.title), fontsize="medium")
    _rule(axes.xaxis, picture.columns, _plain(picture.note))
    _rule(axes.yaxis, picture.rows, "")


def _rule(axis: Any, ruler: Ruler | None, note: str) -> None:
    """Ticks and a label along one side."""
    if ruler is None:
        axis.set_ticks([])
        axis.set_label_text(note, fontsize="small")
        return
    ticks = ruler.ticks()
    axis.set_ticks([tick / ruler.step for tick in ticks])
    axis.set_ticklabels([f"{ruler.first + tick:,}" for tick in ticks], fontsize="small")
    axis.set_label_text("\n".join(filter(None, (ruler.label, note))), fontsize="small")


def _plain(text: str) -> str:
    """The text as it stands: a dollar sign would open a formula."""
    return text.replace("$", r"\$")
