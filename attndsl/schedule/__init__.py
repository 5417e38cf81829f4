"""Exact schedules: the tiles to compute, and the order of tokens they are taken in, by refinement."""

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
from attndsl.schedule.conditions import check_conditions
from attndsl.schedule.estimates import TileCosts
from attndsl.schedule.key_rule import KeyRule
from attndsl.schedule.key_sets import Keys, KeySets, key_positions, key_sets, key_union
from attndsl.schedule.layouts import NATURAL, Layout, read_layout, read_layouts
from attndsl.schedule.model import MaskTable, Plan, Runs, Schedule, Tiles, TokenOrder, compress
from attndsl.schedule.reordering import Decision, Decisions, optimise

__all__ = [
    "NATURAL",
    "BoundMask",
    "Call",
    "Decision",
    "Decisions",
    "KeyRule",
    "KeySets",
    "Keys",
    "Layout",
    "MaskTable",
    "TokenOrder",
    "Plan",
    "TileCosts",
    "Runs",
    "Schedule",
    "TiledMask",
    "Tiles",
    "arranged",
    "check_conditions",
    "check_numbers",
    "compress",
    "key_positions",
    "key_sets",
    "key_union",
    "optimise",
    "plan",
    "read_layout",
    "read_layouts",
    "specialise",
    "tiled",
]
