"""The way from a pattern, however it was written, to its tiles; ``lowering`` goes on to what runs.

    a pattern   text, path, Python -> Mask (read_mask) -> normal Mask (Program)                        once
    a call      -> Call (Program.call) -> BoundMask* (reorder) -> TiledMask* (tile)                    once a call key
                -> Executable (lowering.lower)
    a run       Executable.forward(q, k, v), .backward(...)                                            every call

Each step takes a value and returns one. A pattern is several bound masks where the search splits a union; a back end
names its tiles before any is made.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from attndsl import analysis, ir, passes
from attndsl import schedule as scheduling
from attndsl.cache import Memo
from attndsl.inputs import counted, cut, digest_of, fitted, gathered, read
from attndsl.positions import counted_by, read_positions, split, split_heads
from attndsl.program_arguments import (
    MOST,
    PLACES,
    SIMPLIFICATIONS,
    check_count,
    check_held,
    check_tile,
)

BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


_CACHED_RESULTS = 128  # of a pattern


def saved(mask: ir.Mask, layer: int, without: Collection[str]) -> str:
    """A compiled pattern as JSON."""
    more: dict[str, Any] = {"layer": layer, "without": list(without)}
    if mask.claims:
        more["asserts"] = ir.written_claims(mask.claims)
    if mask.selections:
        more["selections"] = ir.written_selections(mask.selections)
    return f"{ir.dump(mask)[:-1]}, {json.dumps(more)[1:]}"


def read_saved(text: str | bytes) -> tuple[ir.Mask, int, tuple[str, ...]]:
    """The mask, layer and switches that `saved` wrote.

    Raises:
        AttnDslError: A405, it did not; the note names the field.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        mask = ir.load(text, also=("layer", "without", "asserts", "selections"))
        document = ir.Field(json.loads(text), "")
        if "asserts" in document.value:
            mask = replace(mask, claims=ir.read_claims(document.part("asserts"), mask))
        if "selections" in document.value:
            mask = ir.with_selections(mask, ir.read_selections(document.part("selections")))
        layer = ir.Field(document.value.get("layer", 0), "layer").number(0, MOST)
        without = ir.Field(document.value.get("without", []), "without").items()
        return mask, layer, tuple(each.word(*SIMPLIFICATIONS) for each in without)
    except ValueError as error:
        raise ir.not_saved(str(error)) from error


def _is_sure(condition: ir.Node) -> bool:
    """Whether it holds at all lengths and heads, whatever inputs are."""
    return not ir.reads_inputs(condition) and analysis.holds_always(condition)


@dataclass(frozen=True, eq=False)
class Program:
    """A pattern ready to be scheduled at any lengths.

    ``key`` names it across processes: equal keys, equal meaning. A field, because torch.compile can read a string
    but not hash an expression. ``captured`` are inputs that calls read where they are given no others, by reference.
    """

    mask: ir.Mask
    layer: int = 0
    without: tuple[str, ...] = ()
    captured: Mapping[str, Any] = field(repr=False, default_factory=dict)
    key: str = field(init=False)
    normal: ir.Mask = field(init=False, repr=False)
    _memo: Memo = field(init=False, repr=False, default_factory=lambda: Memo(_CACHED_RESULTS))
    _decisions: scheduling.Decisions = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        asked = self.mask.conditions
        undecided = tuple(each for each in asked if not _is_sure(each.node))
        if len(undecided) < len(asked):  # calls are not to be judged by what always holds
            object.__setattr__(self, "mask", replace(self.mask, conditions=undecided))
        object.__setattr__(self, "normal", passes.normalise(self.mask, self.without))
        key = "/".join((self.mask.digest, str(self.layer), *self.without))
        object.__setattr__(self, "key", key)

    def call(
        self,
        q_len: int,
        k_len: int,
        batch: int | None,
        heads: int | None,
        extents: Mapping[str, int] | None,
        inputs: Mapping[str, Any] | None,
        head_start: int = 0,
        model_heads: int | None = None,
        is_open: bool = False,
    ) -> scheduling.Call:
        """Everything a schedule or a dense mask depends on, checked.

        ``batch`` and ``heads`` are those of the inputs where None is given. With ``model_heads`` the heads are
        those from ``head_start`` on of so many; inputs have an entry for each of them, or for each of all. Among
        extents and inputs may stand all of this and the positions of the tokens, as `positions.hidden` names them.
        With ``is_open`` the inputs have a shape and a type, and what they hold is not looked at.

        Raises:
            AttnDslError: A401, A402 for lengths, extents and heads, A413 for positions, A501 and A507 for inputs.
        """
        (told, inputs), (numbers, extents) = split(inputs), split(extents)
        among, extents = split_heads(extents)
        head_start, model_heads = among or (head_start, model_heads)
        told |= numbers
        arrays = {name: read(name, value) for name, value in gathered(self.mask, inputs).items()}
        declared = self.mask.tables
        if batch is None:
            batch = max(counted("batch", declared, arrays), *counted_by(told), 1)
        heads = counted("head", declared, arrays) if heads is None else heads
        check_count("batch", batch)
        check_count("heads", heads)
        if model_heads is not None:
            check_held(heads, head_start, model_heads)
            held = slice(head_start, head_start + heads)
            arrays |= {t.name: cut(t, arrays[t.name], model_heads, held) for t in declared}
        counts = {"batch": batch, "head": heads, "q": q_len, "k": k_len}
        tables = {t.name: fitted(t, arrays[t.name], counts) for t in declared}
        shapes = ir.shapes_of(self.mask, tables)
        at = None
        if told:
            rows = q_len, k_len
            known = shapes if tables else {}
            unknown = [name for name in told if name not in numbers] if is_open else ()
            at = read_positions(self.mask, rows, batch, told, extents, known, unknown)
        sizes = (
            ir.resolve_sizes(self.mask, q_len, k_len, extents, shapes)
            if at is None
            else at.sizes[0]
        )
        merges = "merge_heads" not in self.without
        where = merges, head_start, model_heads, at
        call = scheduling.Call(q_len, k_len, batch, heads, self.layer, sizes, tables, *where)
        if not is_open:
            scheduling.check_conditions(self.mask, call)
        return call

    def open(
        self,
        call: scheduling.Call,
        types: Mapping[str, np.dtype[Any]],
        listed: bool = False,
    ) -> scheduling.OpenMask:
        """The pattern bound to a call whose inputs have a shape and a type, and whose contents are not known.

        ``listed``: whether inputs may name keys, for `open_lists`.

        Raises:
            NotOpen: it is scheduled by contents alone.
            AttnDslError: A403, A404 for lengths.
        """
        is_open = call.positions is not None and call.positions.is_open
        if is_open and (self.mask.keys.segments or self.mask.queries.segments):
            raise ir.NotOpen("positions in a space of axes are read on the host")
        asked = [c for c in self.mask.conditions if c.node.deps or ir.reads_inputs(c.node)]
        if call.positions is not None and self.mask.conditions:
            raise ir.NotOpen(
                "what the pattern asks of inputs and lengths at positions is judged on the host"
            )
        alone = tuple(c for c in self.mask.conditions if c not in asked)
        scheduling.check_conditions(replace(self.mask, conditions=alone), call)
        normal, rows = self.rows(call)
        limits = dict.fromkeys(rows.tables.keys() - call.tables.keys(), PLACES)
        asked_of = [scheduling.held(c.node, call) for c in asked]
        return scheduling.open_mask(normal, rows, types, limits, asked_of, listed)

    def _held(self, mask: ir.Mask, call: scheduling.Call) -> ir.Mask:
        """The mask, of the heads of the call."""
        if call.model_heads is None or mask.root.deps | mask.zeros.deps == ir.Deps.NONE:
            return mask
        key = "heads", mask is self.mask, call.head_start, call.model_heads
        total = call.model_heads
        return self._memo(key, lambda: passes.shift_heads(mask, call.head_start, total))

    def rows(self, call: scheduling.Call) -> tuple[ir.Mask, scheduling.Call]:
        """The normal mask of the heads and the rows of the call, and the call with all that it reads."""
        normal, at = self._held(self.normal, call), call.positions
        if at is None:
            return normal, call
        shapes = ir.shapes_of(normal, call.tables) if normal.tables else {}
        held = call.head_start, call.model_heads
        key = "rows", held, tuple(sorted(shapes.items())), at.key()
        placed = self._memo(key, lambda: passes.set_positions(normal, at, shapes))
        tables = {**call.tables, **placed.tables}
        return placed.mask, replace(call, tables=tables, first=placed.first, positions=None)

    def schedule(
        self, call: scheduling.Call, tile: tuple[int, int], layout: str = "natural"
    ) -> scheduling.Schedule:
        """The exact schedule of the whole pattern, one object for equal calls.

        Raises:
            AttnDslError: A402 for the tile; A403, A404 for lengths; A410, A411 for the layout.
        """
        (whole,) = self.tiled(call, layout, tile, split=False)
        return whole.schedules[tile]

    def tiled(
        self,
        call: scheduling.Call,
        layout: str,
        *tiles: tuple[int, int],
        counted: tuple[int, int] | None = None,
        tile_costs: scheduling.TileCosts | None = None,
        split: bool = True,
    ) -> tuple[scheduling.TiledMask, ...]:
        """Disjoint parts of the pattern, each scheduled in tiles of each size: one, unless "auto" splits it.

        Arguments and errors are those of ``reorder`` and ``tile``; "auto" counts in the first of the tiles by default.
        """
        parts = self.reorder(call, layout, counted or tiles[0], tile_costs, split)
        return tuple(self.tile(part, *tiles) for part in parts)

    def reorder(
        self,
        call: scheduling.Call,
        layout: str,
        counted: tuple[int, int],
        tile_costs: scheduling.TileCosts | None = None,
        split: bool = True,
    ) -> tuple[scheduling.BoundMask, ...]:
        """Disjoint parts of the pattern, bound to a call and each in an order of tokens.

        "auto" counts in tiles of the size ``counted``, and by ``tile_costs``. Equal calls share one result; equal means
        equal contents of the inputs.

        Raises:
            AttnDslError: A402 for the tile; A404 for lengths; A410, A411 for the layout.
        """
        check_tile(counted)
        search = (counted, tile_costs, split) if layout == "auto" else None
        normal, rows = self.rows(call)

        def make() -> tuple[scheduling.BoundMask, ...]:
            if search is None:
                return (scheduling.arranged(normal, rows, scheduling.read_layouts(layout)),)
            return scheduling.optimise(normal, rows, *search, self._decisions)

        return self._memo(("bound", layout, search, _call_key(call, normal.root.deps)), make)

    def tile(self, part: scheduling.BoundMask, *tiles: tuple[int, int]) -> scheduling.TiledMask:
        """One of the parts that ``reorder`` gave, scheduled in tiles of each size; the same part, the same result.

        Raises:
            AttnDslError: A402 for a tile; A403, A407 for lengths.
        """
        for size in tiles:
            check_tile(size)
        merges = "merge_heads" not in self.without
        return self._memo(
            ("tiled", part, tiles), lambda: scheduling.tiled(part, *tiles, merges=merges)
        )

    def key_rule(self) -> scheduling.KeyRule | None:
        """The keys of few queries at any lengths; None where each call is looked at by itself."""
        return self._memo("key rule", lambda: scheduling.KeyRule.of(self.normal, self.layer))

    def key_sets(self, call: scheduling.Call) -> scheduling.KeySets:
        """The keys that each query of a call sees, for calls of few queries."""
        return scheduling.key_sets(*self.rows(call))

    def lists(self, call: scheduling.Call) -> scheduling.Lists | None:
        """Lists the keys that each query sees, by block; None where the pattern names keys by no list.

        Raises:
            AttnDslError: A403, a number in the pattern passes 2**62.
        """
        return scheduling.lists(*self.rows(call))

    def whole(self, call: scheduling.Call) -> scheduling.Whole | None:
        """The blocks of queries that see the same keys; None where the pairs are no few blocks. Remembered.

        Raises:
            AttnDslError: A403, a number in the pattern passes 2**62; A404, A407 for lengths.
        """
        if "whole" in self.without:
            return None
        key = "whole", _call_key(call, self.normal.root.deps)
        return self._memo(key, lambda: scheduling.whole(*self.rows(call)))

    def pairs(self, call: scheduling.Call) -> BoolArray | None:
        """The pairs of each batch element, bool [batch, heads or 1, q_len or 1, k_len], one by one: for short calls.

        None where all elements and heads see the same.
        """
        normal, rows = self.rows(call)
        deps = normal.root.deps
        by_batch, by_head = bool(deps & ir.Deps.BATCH), bool(deps & ir.Deps.HEAD)
        if not (by_batch and call.batch > 1) and not (by_head and call.heads > 1):
            return None
        if rows.first:
            at = ir.Pos(ir.Side.QUERY)
            normal = normal.with_root(
                ir.substitute(normal.root, {at: ir.add(at, ir.Const(rows.first))})
            )
        # a pattern may speak of `heads` and not of `head`
        counts = call.batch, call.heads, call.layer
        alike = not deps & ir.Deps.QUERY and not normal.absent(call.q_len, call.k_len)
        sizes = 1 if alike else call.q_len, call.k_len, call.sizes, rows.tables
        found = ir.meaning(normal, *sizes, *counts)
        return found if by_head else found[:, :1]

    def dense(self, call: scheduling.Call) -> BoolArray:
        """The meaning: bool [batch, heads, q_len, k_len].

        Raises:
            AttnDslError: A403, A404, A407 for lengths, as schedules are refused.
        """
        ir.check_pairs(call.batch * call.heads * call.q_len * call.k_len)
        key = _call_key(call, self.normal.root.deps)
        normal, rows = self.rows(call)
        self._memo(("numbers", key), lambda: scheduling.check_numbers(normal, normal.root, rows))
        mask = self._held(self.mask, call)
        if call.positions is not None:
            counts = call.batch, call.heads, call.layer
            return ir.meaning_at(mask, call.positions, call.tables, *counts)
        return ir.meaning(
            mask,
            call.q_len,
            call.k_len,
            call.sizes,
            call.tables,
            call.batch,
            call.heads,
            call.layer,
        )

    def zero_keys(self, call: scheduling.Call) -> IntArray | None:
        """How many zero keys each query sees, [batch or 1, heads or 1, q_len]; None where none has any.

        Remembered for equal calls.

        Raises:
            AttnDslError: A403, A404 for lengths; A408, a count is negative.
        """
        if self.mask.zeros is ir.ZERO:
            return None
        key = _call_key(call, self.mask.zeros.deps)

        def count() -> IntArray:
            mask, (normal, rows) = self._held(self.mask, call), self.rows(call)
            zeros = normal.zeros if rows is not call else passes.lower_root(mask.zeros, mask)
            scheduling.check_numbers(normal, zeros, rows)
            if call.positions is not None:
                counts = call.batch, call.heads, call.layer
                return ir.zero_keys_at(mask, call.positions, call.tables, *counts)
            return ir.zero_keys(
                mask,
                call.q_len,
                call.k_len,
                call.sizes,
                call.tables,
                call.batch,
                call.heads,
                call.layer,
            )

        return self._memo(("zeros", key), count)


def asks_for_batch(mask: ir.Mask) -> bool:
    """Whether the pattern reads the number of a batch element."""
    nodes = *ir.postorder(mask.root), *ir.postorder(mask.zeros)
    return any(isinstance(node, ir.Var) and node.name == "batch" for node in nodes)


def _call_key(call: scheduling.Call, deps: ir.Deps) -> tuple[Any, ...]:
    # their shapes are lengths, counts and sizes, all of which are in the key
    contents = [(name, digest_of(array)) for name, array in sorted(call.tables.items())]
    at = None if call.positions is None else call.positions.key()
    batch = call.batch if deps & ir.Deps.BATCH or at else 1
    sizes = tuple(sorted(call.sizes.items()))
    heads = call.heads, call.head_start, call.model_heads
    return (call.q_len, call.k_len, batch, heads, sizes, tuple(contents), at)
