"""The selections of a call: their tables are made before it attends, or taken from another call."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from attndsl import ir, op, selecting
from attndsl.choice_making import Making
from attndsl.chosen_tables import Selected, Shape, for_each_head, known_slots, spread, table_shape
from attndsl.op import eager_only
from attndsl.placed_choices import Places, choose_in_places
from attndsl.positions import BLOCK_TABLE, NAMES
from attndsl.source import AttnDslError, Diagnostic

KeySummaries = selecting.KeySummaries
Inputs: TypeAlias = Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Selector:
    """The selections that a pattern or an attention asks, and the layer they are made for."""

    selections: tuple[ir.Chosen, ...]
    layer: int = 0
    read: frozenset[str] = frozenset()  # inputs that the pattern or attention itself reads
    by_head: Mapping[str, bool] = field(default_factory=dict)  # tables, and whether they have heads
    digests: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()  # inputs that the selections read
    digest: int = 0  # by which graphs name them; 0 where shapes do not tell how large a table is

    @staticmethod
    def of(
        masks: Sequence[ir.Mask],
        layer: int,
        tables: Iterable[ir.Table] = (),
        more: Iterable[ir.Chosen] = (),
    ) -> Selector:
        """The selections of masks, and more, each once; ``tables`` are inputs that are read beside theirs.

        Raises:
            AttnDslError: A219, two that differ have one name.
        """
        asked = [*(each for mask in masks for each in mask.selections), *more]
        found = {each.name: each for each in asked}
        known: dict[str, ir.Chosen] = {}
        for each in ir.with_inner(asked):
            if known.setdefault(each.name, each) != each:
                title = f"two selections that differ are named {each.name!r}"
                raise AttnDslError(Diagnostic("A219", title))
        inputs = (*tables, *(table for mask in masks for table in mask.tables))
        selector = Selector(
            tuple(found.values()),
            layer,
            frozenset(each.name for each in inputs),
            {name: "head" in each.table.dims for name, each in found.items()},
            frozenset(each.digest for each in found.values()),
            frozenset(table.name for table in _inputs(found.values())),
        )
        return selector._kept()

    def _kept(self) -> Selector:
        """The same, that graphs may name, where shapes tell how large its tables are."""
        if not self.selections or not all(map(known_slots, self.selections)):
            return self
        own = hashlib.blake2b(repr((sorted(self.digests), self.layer)).encode(), digest_size=7)
        kept = replace(self, digest=int.from_bytes(own.digest(), "big") + 1)

        def make(q: Tensor, k: Tensor, given: Mapping[str, Tensor], scale: float) -> list[Tensor]:
            tables = self.select(q, k, scale, given)
            return [tables[name].clone() for name in self.by_head]

        def shapes(q: Tensor, k: Tensor) -> list[tuple[int, ...]]:
            return [table_shape(each, q, k) for each in self.selections]

        op.keep_maker(kept.digest, op.TableMaker(make, shapes))
        return kept

    @staticmethod
    def of_attention(attention: ir.Attention, layer: int) -> Selector:
        """The selections of an attention.

        Raises:
            AttnDslError: A219, two that differ have one name, or one is asked of keys or heads that it is not made of.
        """
        for part in (part for term in attention.terms for part in term.parts):
            if part.mask.selections and (part.keys or part.member):
                name = part.mask.selections[0].name
                whose = f"of {part.keys!r}" if part.keys else "of half of the heads"
                title = f"the selection {name!r} is made from q and k, and is asked {whose}"
                raise AttnDslError(Diagnostic("A219", title))
        return Selector.of(attention.masks, layer, attention.tables, attention.selections)

    def select(
        self,
        q: Tensor,
        k: Tensor,
        scale: float | Tensor | None,
        given: Mapping[str, Any],
        summaries: selecting.KeySummaries | None = None,
        extents: Mapping[str, int] | None = None,
        at: Mapping[str, Any] | None = None,
    ) -> Selected:
        """Makes the tables of all selections; ``at`` says where the tokens stand, by the names of arguments.

        Raises:
            AttnDslError: A401 extents, A501 inputs, A502, A503 q and k, A509 what cannot be chosen.
        """
        if at:
            return self._select_in_places(q, k, scale, given, summaries, at)
        making = self._making(q, k, scale, given, summaries, extents)
        for each in self.selections:
            making.produce(each)
        tables = {name: making.made[name] for name in self.by_head}
        return Selected(tables, making.shape, self.digests)

    def _select_in_places(
        self,
        q: Tensor,
        k: Tensor,
        scale: float | Tensor | None,
        given: Mapping[str, Any],
        summaries: selecting.KeySummaries | None,
        at: Mapping[str, Any],
    ) -> Selected:
        """The tables of a call that says where its tokens stand."""
        shape, places = self._placed_shape(q, k, at)
        self._check_names(given)
        if summaries is not None and len(places.elements) > 1:
            title = "summaries are those of one cache, and batch elements differ in where keys lie"
            raise AttnDslError(Diagnostic("A509", title))

        def select(q: Tensor, k: Tensor, given: Mapping[str, Any]) -> Selected:
            return self.select(q, k, scale, given, summaries)

        inputs = _inputs(self.selections)
        tables = choose_in_places(self.selections, inputs, q, k, given, places, select)
        return Selected(tables, shape, self.digests)

    def _placed_shape(self, q: Tensor, k: Tensor, at: Mapping[str, Any]) -> tuple[Shape, Places]:
        shape, places = Shape.of(q, k), Places.of(q, k, self.selections, at)
        return replace(shape, positions=places.key), places

    def scores(
        self,
        q: Tensor,
        k: Tensor,
        scale: float | Tensor | None,
        given: Mapping[str, Any],
        selection: object,
        extents: Mapping[str, int] | None = None,
    ) -> dict[str, Tensor]:
        """The scores of what was chosen, by the names of the tables; ranks have none.

        Raises:
            AttnDslError: as `select`; A509, the selection was made for another call.
        """
        making = self._making(q, k, scale, given, None, extents)
        checked = self._checked(selection, making.shape)
        found = {}
        for each in self.selections:
            if isinstance(each, ir.Selection):
                for inner in each.within:
                    making.produce(inner)
                table = checked[each.name]
                found[each.name] = selecting.scores(each, making.activations(each), table)
        return found

    def _making(
        self,
        q: Tensor,
        k: Tensor,
        scale: float | Tensor | None,
        given: Mapping[str, Any],
        summaries: selecting.KeySummaries | None,
        extents: Mapping[str, int] | None,
    ) -> Making:
        if not self.selections:
            raise AttnDslError(Diagnostic("A509", "there is no selection in this pattern"))
        shape = self._shape(q, k, extents)
        self._check_names(given)
        if isinstance(scale, Tensor):
            title = "a selection takes one number for `scale`"
            raise AttnDslError(Diagnostic("A509", title))
        factor = q.shape[3] ** -0.5 if scale is None else float(scale)
        return Making(q, k, factor, given, shape, self.layer, summaries)

    def _shape(self, q: Tensor, k: Tensor, extents: Mapping[str, int] | None) -> Shape:
        return Shape.of(q, k, ir.with_inner(self.selections), extents)

    def _check_names(self, given: Mapping[str, Any]) -> None:
        if strange := sorted(given.keys() - self.asked):
            title = f"no selection reads an input named {strange[0]!r}"
            raise AttnDslError(Diagnostic("A501", title))

    @property
    def inputs(self) -> tuple[ir.Table, ...]:
        """The inputs that the selections read."""
        return _inputs(self.selections)

    # it reads the program of the selection, which a tracer of torch need not follow
    _select = eager_only(select)
    _shape_in_places = eager_only(_placed_shape)

    def completed(
        self,
        q: Tensor,
        k: Tensor,
        scale: float | Tensor | None,
        inputs: Inputs,
        named: dict[str, Any],
        at: Mapping[str, Any],
        is_part: bool,
        extents: Mapping[str, int] | None = None,
    ) -> tuple[Inputs, dict[str, Any]]:
        """The inputs of a call, in a mapping and by name, with the tables among them.

        ``selection`` among those named is a `Selected`; without it the tables are made, unless all are given.
        ``at`` says where its tokens stand, ``is_part`` whether it has some heads of a model.

        Raises:
            AttnDslError: as `select`; A509, the selection was made for another call.
        """
        if not self.selections:
            return inputs, named
        given = {**(inputs or {}), **named}
        selection = given.pop("selection", None)
        tables = self.by_head.keys() & given.keys()
        if selection is None and len(tables) == len(self.by_head):
            return given, {}
        if tables:
            _refuse_some(sorted(tables), sorted(self.by_head), selection is not None)
        if is_part:
            title = "a call with some heads of a model does not choose"
            helps = ("give it the tables by their names, units counted from position 0",)
            raise AttnDslError(Diagnostic("A509", title, helps=helps))
        wanted = self.asked.intersection(given)
        left = set(given) - (wanted - self.read)
        if selection is None and self.digest and not at and _is_traced():
            made = self._in_graph(q, k, scale, {name: given[name] for name in sorted(wanted)})
            return {name: given[name] for name in left} | made, {}
        if selection is None:
            asked = {name: given[name] for name in wanted}
            chosen = self._select(q, k, scale, asked, None, extents, at)
        else:
            shape = self._shape_in_places(q, k, at)[0] if at else self._shape(q, k, extents)
            chosen = self._checked(selection, shape)
        made = {
            name: for_each_head(chosen[name], chosen.shape) if has_heads else chosen[name]
            for name, has_heads in self.by_head.items()
        }
        return {name: given[name] for name in left} | made, {}

    def _in_graph(
        self, q: Tensor, k: Tensor, scale: float | Tensor | None, given: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """The tables of all selections, with an entry for each query head, made by an operator."""
        if isinstance(scale, Tensor) or not all(isinstance(x, Tensor) for x in given.values()):
            title = "within a graph a selection takes a number for `scale`, and tensors as inputs"
            raise AttnDslError(Diagnostic("A509", title))
        factor = q.shape[3] ** -0.5 if scale is None else float(scale)
        named = list(given.values()), ",".join(given), self.digest, factor
        made = torch.ops.attndsl.choose(q.detach(), k.detach(), *named)
        tables = zip(self.by_head.items(), made, strict=True)
        return {
            name: spread(table, q.shape[1]) if has_heads else table
            for (name, has_heads), table in tables
        }

    def _checked(self, selection: object, shape: Shape) -> Selected:
        if not isinstance(selection, Selected):
            title = f"`selection` is what `select` returned, not a {type(selection).__name__}"
            raise AttnDslError(Diagnostic("A509", title))
        if selection.digests != self.digests:
            title = "the selection was made by another pattern"
            raise AttnDslError(Diagnostic("A509", title))
        if (fault := selection.shape.fault(shape)) is not None:
            title = "the selection was made for another call"
            raise AttnDslError(Diagnostic("A509", title, notes=(f"it was for {fault}",)))
        return selection


def _refuse_some(tables: list[str], known: list[str], is_selected: bool) -> None:
    """Refuses tables by name where a selection is given, too, or where others lack.

    Raises:
        AttnDslError: A509.
    """
    title = f"the table {tables[0]!r} is given beside `selection=`"
    if not is_selected:
        title = f"the table {tables[0]!r} is given, and {', '.join(sorted({*known} - {*tables}))} is not"
    helps = (f"give all tables by name, {', '.join(known)}, or none",)
    raise AttnDslError(Diagnostic("A509", title, helps=helps))


def _inputs(selections: Iterable[ir.Chosen]) -> tuple[ir.Table, ...]:
    """The inputs that selections read, those within them too; tables that others make left out."""
    waiting = ir.with_inner(selections)
    made = {each.name for each in waiting}
    found = {table.name: table for each in waiting for table in each.tables}
    return tuple(table for name, table in found.items() if name not in made)


class Selecting:
    """The part of a pattern, or of an attention, that chooses."""

    _selector: Selector

    def select(
        self,
        q: Tensor,
        k: Tensor,
        *,
        scale: float | None = None,
        summaries: selecting.KeySummaries | None = None,
        extents: Mapping[str, int] | None = None,
        **inputs: Any,
    ) -> Selected:
        """Chooses as its selections say; a call with ``selection=`` attends to the result.

        ``scale`` is that of the call. ``inputs`` are those that the selections read. No gradient reaches q and k.
        ``summaries`` keeps those of the keys, so that a step of decoding reads the new keys alone. ``extents``
        are those of the call, where it chooses tiles of a grid, and among ``inputs`` what says where its tokens stand.

        Raises:
            AttnDslError: A501 inputs, A502, A503 q and k, A509 what cannot be chosen.
        """
        at = {name: inputs.pop(name) for name in (*NAMES, BLOCK_TABLE) if name in inputs}
        return self._selector.select(q, k, scale, inputs, summaries, extents, at)

    def scores(
        self,
        q: Tensor,
        k: Tensor,
        selection: Selected,
        *,
        scale: float | None = None,
        extents: Mapping[str, int] | None = None,
        **inputs: Any,
    ) -> dict[str, Tensor]:
        """The scores of what ``select`` chose, with gradients to q, k and real inputs: a scorer is trained by them.

        By name float32 of the shape of the table, -inf in its empty slots. Arguments are those of ``select``.

        Raises:
            AttnDslError: as ``select``; A509, the selection was made for another call.
        """
        return self._selector.scores(q, k, scale, inputs, selection, extents)


def _is_traced() -> bool:
    """Whether a tracer follows: dynamo, or a mode such as that of make_fx."""
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0
