"""Pictures that belong together, as a terminal, a notebook, a page and a slide want them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

import numpy as np

from attndsl.schedule import Plan, Schedule

from .drawing import Charset, draw_pictures
from .images import encode_png, encode_svg
from .pictures import Ink, Picture, picture_tiles
from .plotting import plot_png

_MOST_PLANS: Final = 4  # pictures of a schedule side by side


@dataclass(frozen=True, slots=True)
class Sheet:
    """Pictures side by side. ``str`` draws them in characters; a notebook shows the SVG."""

    pictures: tuple[Picture, ...]

    @property
    def inks(self) -> tuple[Ink, ...]:
        """The inks of all the pictures."""
        return tuple(dict.fromkeys(ink for each in self.pictures for ink in each.inks))

    def svg(self) -> str:
        """A self-contained SVG, with rulers and a legend, legible on light and dark pages."""
        return encode_svg(*self.pictures)

    def png(self) -> bytes:
        """A PNG with axes, titles and a legend; without matplotlib, which draws them, the cells alone."""
        return plot_png(*self.pictures) or encode_png(*self.pictures)

    def text(self, width: int = 100, charset: Charset | str = Charset.UNICODE) -> str:
        """In characters, side by side where they fit into the width."""
        return draw_pictures(self.pictures, width=width, charset=charset)

    def __str__(self) -> str:
        return self.text()

    def _repr_svg_(self) -> str:
        return self.svg()


def sheet_of_tiles(
    natural: Schedule,
    parts: Sequence[Schedule],
    head: int = 0,
    element: int = 0,
    *,
    most: int = 512,
    title: str = "",
) -> Sheet:
    """The tiles of a head before and after its tokens are reordered.

    Args:
        natural: The schedule in natural order.
        parts: Those that a call with the layout runs; several where a union is split.
        head: Which head.
        element: Which batch element.
        most: Cells along the longer side of a picture.
        title: Of the natural order's picture.
    """
    plans = [part.plan(element, head) for part in parts]
    before = picture_tiles(natural, element, head, most=most, title=_joined(title, "natural order"))
    after = [
        picture_tiles(part, element, head, most=most, title=_caption(plan, number, len(parts)))
        for number, (part, plan) in enumerate(zip(parts, plans, strict=True), 1)
    ]
    if all(map(_is_natural, plans)) and len(parts) == 1:
        return Sheet((before,))
    return Sheet((before, *after))


def schedule_html(schedule: Schedule) -> str:
    """A schedule as notebooks show it: its summary, and the tiles of up to four of its plans, side by side."""
    first = np.unique(schedule.plan_of, return_index=True)[1][:_MOST_PLANS]
    places = [tuple(map(int, np.unravel_index(at, schedule.plan_of.shape))) for at in first]
    several = len(schedule.plans) > 1
    pictures = [
        picture_tiles(
            schedule, batch, head, title=f"batch {batch}, head {head}" if several else "tiles"
        )
        for batch, head in places
    ]
    return f"<div class='attndsl'><div><code>{escape(repr(schedule))}</code></div>{encode_svg(*pictures)}</div>"


def fitting_tile(length: int) -> int:
    """A side of tiles, a power of two up to 128, that leaves some 32 of them to look at."""
    return min(128, 1 << max(2, (length // 32).bit_length()))


def _joined(title: str, words: str) -> str:
    return ", ".join(filter(None, (title, words)))


def _is_natural(plan: Plan) -> bool:
    return plan.q_order is None and plan.k_order is None


def _caption(plan: Plan, number: int, count: int) -> str:
    """Caption of a part: its number, and how its tokens are ordered."""
    return f"part {number}: {order_of(plan)}" if count > 1 else order_of(plan)


def order_of(plan: Plan) -> str:
    """The order in which a plan takes tokens, in words."""
    names = ["natural" if order is None else order.name for order in (plan.q_order, plan.k_order)]
    return names[0] if names[0] == names[1] else f"queries {names[0]}; keys {names[1]}"
