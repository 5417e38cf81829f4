"""Something to look at: pictures as text, PNG and SVG, and what a schedule costs."""

from .costs import Cost, Traffic, cost, report
from .drawing import (
    Charset,
    charset_for,
    draw_mask,
    draw_picture,
    draw_query,
    draw_tiles,
    draw_view,
)
from .images import encode_png, encode_svg
from .pictures import Ink, Picture, Ruler, picture_mask, picture_tiles, picture_view

__all__ = [
    "Charset",
    "Cost",
    "Ink",
    "Picture",
    "Ruler",
    "Traffic",
    "charset_for",
    "cost",
    "draw_mask",
    "draw_picture",
    "draw_query",
    "draw_tiles",
    "draw_view",
    "encode_png",
    "encode_svg",
    "picture_mask",
    "picture_tiles",
    "picture_view",
    "report",
]
