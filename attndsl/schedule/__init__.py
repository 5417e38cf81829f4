"""Which tiles to compute, in which order of tokens: exact schedules by refinement."""

from attndsl.schedule.building import (
    BoundMask,
    Call,
    TiledMask,
    arranged,
    check_numbers,
    plan,
    specialise,
    tiled,
)
from attndsl.schedule.choosing import Decision, Decisions, optimise
from attndsl.schedule.estimates import Price
from attndsl.schedule.layouts import NATURAL, Layout, read_layout, read_layouts
from attndsl.schedule.model import MaskBank, Order, Plan, Schedule, Tiles, compress

__all__ = [
    "NATURAL",
    "BoundMask",
    "Call",
    "Decision",
    "Decisions",
    "Layout",
    "MaskBank",
    "Order",
    "Plan",
    "Price",
    "Schedule",
    "TiledMask",
    "Tiles",
    "arranged",
    "check_numbers",
    "compress",
    "optimise",
    "plan",
    "read_layout",
    "read_layouts",
    "specialise",
    "tiled",
]
