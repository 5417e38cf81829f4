"""Exact schedules: the tiles to compute, and the order of tokens they are taken in, by refinement."""

from attndsl.schedule.block_lists import live_blocks
from attndsl.schedule.building import (
    BoundMask,
    TiledMask,
    arranged,
    check_numbers,
    plan,
    specialise,
    tiled,
)
from attndsl.schedule.calls import Call
from attndsl.schedule.conditions import check_conditions, held
from attndsl.schedule.estimates import TileCosts
from attndsl.schedule.key_rule import KeyRule
from attndsl.schedule.key_runs import Keys, key_positions, key_union
from attndsl.schedule.key_sets import KeySets, key_sets
from attndsl.schedule.layouts import NATURAL, Layout, read_layout, read_layouts, stable_order
from attndsl.schedule.lists import ALL, BLOCK, Bits, KeyBlocks, KeyValues, Lists, lists
from attndsl.schedule.model import MaskTable, Plan, Runs, Schedule, Tiles, TokenOrder, compress
from attndsl.schedule.open_masks import (
    Candidates,
    OpenHeadMask,
    OpenMask,
    open_candidates,
    open_mask,
)
from attndsl.schedule.open_ranges import OpenLists, Ranges, open_lists
from attndsl.schedule.open_tiles import (
    EMPTY,
    FULL,
    PARTIAL,
    Classifier,
    OpenValues,
    conditions_hold,
    open_env,
    open_zero_keys,
)
from attndsl.schedule.reordering import Decision, Decisions, optimise
from attndsl.schedule.whole import Blocks, Whole, whole

__all__ = [
    "ALL",
    "BLOCK",
    "Bits",
    "EMPTY",
    "FULL",
    "NATURAL",
    "PARTIAL",
    "Blocks",
    "BoundMask",
    "Call",
    "Candidates",
    "Classifier",
    "Decision",
    "Decisions",
    "KeyBlocks",
    "KeyRule",
    "KeySets",
    "KeyValues",
    "Keys",
    "Layout",
    "Lists",
    "MaskTable",
    "OpenLists",
    "OpenMask",
    "OpenHeadMask",
    "OpenValues",
    "Ranges",
    "TokenOrder",
    "Plan",
    "TileCosts",
    "Runs",
    "Schedule",
    "TiledMask",
    "Tiles",
    "Whole",
    "arranged",
    "live_blocks",
    "check_conditions",
    "conditions_hold",
    "check_numbers",
    "compress",
    "held",
    "key_positions",
    "key_sets",
    "key_union",
    "lists",
    "open_candidates",
    "open_env",
    "open_lists",
    "open_zero_keys",
    "open_mask",
    "optimise",
    "plan",
    "read_layout",
    "read_layouts",
    "stable_order",
    "specialise",
    "tiled",
    "whole",
]
