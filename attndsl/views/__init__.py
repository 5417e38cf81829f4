"""Something to look at: pictures as text, PNG and SVG, and what a schedule costs."""

from .advising import Fit, Suggestion, near, suggest
from .costs import Cost, Traffic, cost, report, total
from .drawing import (
    Charset,
    charset_for,
    draw_mask,
    draw_picture,
    draw_pictures,
    draw_query,
    draw_tiles,
    draw_view,
)
from .explaining import DEVICES, Arrangement, Clock, Device, Explanation, arrangement
from .images import encode_png, encode_svg
from .pictures import (
    BoolArray,
    Ink,
    Picture,
    Ruler,
    picture_mask,
    picture_query,
    picture_tiles,
    picture_view,
    segment_shapes,
)
from .sheets import Sheet, fitting_tile, order_of, schedule_html, sheet_of_tiles
from .windows import Window, keys_seen, picture_kinds, picture_pairs, queries_seeing
from .worded import Worded

__all__ = [
    "DEVICES",
    "Arrangement",
    "BoolArray",
    "Charset",
    "Clock",
    "Cost",
    "Device",
    "Explanation",
    "Fit",
    "Ink",
    "Picture",
    "Ruler",
    "Sheet",
    "Suggestion",
    "Traffic",
    "Window",
    "Worded",
    "arrangement",
    "charset_for",
    "cost",
    "draw_mask",
    "draw_picture",
    "draw_pictures",
    "draw_query",
    "draw_tiles",
    "draw_view",
    "encode_png",
    "encode_svg",
    "fitting_tile",
    "keys_seen",
    "near",
    "order_of",
    "picture_kinds",
    "picture_mask",
    "picture_pairs",
    "picture_query",
    "picture_tiles",
    "picture_view",
    "queries_seeing",
    "report",
    "schedule_html",
    "segment_shapes",
    "sheet_of_tiles",
    "suggest",
    "total",
]
