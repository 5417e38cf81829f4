"""Which tiles to compute, in which order of tokens: exact schedules by refinement."""

from attndsl.schedule.building import Call, plan, specialise
from attndsl.schedule.layouts import NATURAL, Layout, read_layout, read_layouts
from attndsl.schedule.model import MaskBank, Order, Plan, Schedule, Tiles, compress

__all__ = [
    "NATURAL",
    "Call",
    "Layout",
    "MaskBank",
    "Order",
    "Plan",
    "Schedule",
    "Tiles",
    "compress",
    "plan",
    "read_layout",
    "read_layouts",
    "specialise",
]
