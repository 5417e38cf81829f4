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
from .explaining import DEVICES, Arrangement, Device, Explanation, arrangement
from .images import encode_png, encode_svg
from .pictures import Ink, Picture, Ruler, picture_mask, picture_tiles, picture_view

__all__ = [
    "DEVICES",
    "Arrangement",
    "Charset",
    "Cost",
    "Device",
    "Explanation",
    "Ink",
    "Picture",
    "Ruler",
    "Traffic",
    "arrangement",
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
