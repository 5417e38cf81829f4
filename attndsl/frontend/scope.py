"""The names of each file: its own, those it imports, and the prelude's behind them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TypeAlias

from attndsl import ir
from attndsl import syntax as syn
from attndsl.source import Diagnostic, Span

from .errors import make_error
from .spaces import FLAT_PAIR, Pair, Place

FIXED = frozenset({"q", "k", "head", "heads", "batch", "layer"})
# name -> fewest and most arguments
BUILTINS: dict[str, tuple[int, int | None]] = {
    "min": (1, None), "max": (1, None), "abs": (1, 1), "clamp": (3, 3),
    "ilog2": (1, 1), "pow2": (1, 1), "len": (1, 1),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Need:
    """An axis or a whole segment that a pattern speaks of: of one side's space, or of either."""

    side: ir.Side | None
    what: Place | ir.Segment
    span: Span

    @property
    def name(self) -> str:
        """The word for it in messages."""
        return self.what.axis if isinstance(self.what, Place) else self.what.name


@dataclass(slots=True)
class Facts:
    """Results of checking a definition, found once for all its uses."""

    kind: syn.Kind | None = None
    needs: dict[tuple[ir.Side | None, Place | ir.Segment], Need] = field(default_factory=dict)
    tables: dict[str, ir.Table] = field(default_factory=dict)
    padded: Definition | None = None  # itself or what it uses, where that counts zero keys


@dataclass(slots=True, eq=False)
class Definition:
    """A `def`, `pattern`, `attention` or `select`, with the file in which its names are looked up."""

    declaration: syn.Def | syn.Pattern | syn.Attention | syn.Choosing
    unit: Unit
    pair: Pair = FLAT_PAIR
    facts: Facts | None = None  # filled in by the check

    @property
    def name(self) -> str:
        return self.declaration.name

    @property
    def parameters(self) -> tuple[syn.Parameter, ...]:
        return self.declaration.parameters

    @property
    def constraints(self) -> tuple[syn.Expression, ...]:
        return () if isinstance(self.declaration, syn.Def) else self.declaration.where

    @property
    def zeros(self) -> syn.Expression | None:
        """How many zero keys a query sees, where the pattern says so itself."""
        return self.declaration.zeros if isinstance(self.declaration, syn.Pattern) else None

    @property
    def is_pattern(self) -> bool:
        return isinstance(self.declaration, syn.Pattern)

    @property
    def is_attention(self) -> bool:
        return isinstance(self.declaration, syn.Attention)

    @property
    def is_selection(self) -> bool:
        return isinstance(self.declaration, syn.Choosing)

    @property
    def written_align(self) -> str | None:
        """The alignment that it says itself."""
        return getattr(self.declaration, "align", None)

    @property
    def align(self) -> ir.Align:
        """Settings that a pattern has as the main one of its file."""
        if self.written_align is not None:
            return ir.Align(self.written_align)
        return ir.Align.START if self.pair.is_rectangular else ir.Align.END


@dataclass(frozen=True, slots=True)
class SpaceItem:
    """A `grid` or `space`."""

    space: ir.Space
    declaration: syn.Grid | syn.Space


@dataclass(frozen=True, slots=True)
class TableItem:
    """An `input`."""

    table: ir.Table
    declaration: syn.Input


@dataclass(frozen=True, slots=True)
class UnitsItem:
    """A `units`, with the file in which the grid of tiles is looked up."""

    declaration: syn.Units
    unit: Unit


Item: TypeAlias = Definition | SpaceItem | TableItem | UnitsItem


class Unit:
    """One file: what each name in it means."""

    def __init__(self, module: syn.Module, prelude: Unit | None) -> None:
        """Start with no names but the prelude's."""
        self.module = module
        self.name = module.span.source.name
        self.own: dict[str, Item] = {}
        self.imported: dict[str, Item] = {}
        self.prelude = prelude

    def find(self, name: str) -> Item | None:
        """Finds the meaning of a name here: its own declaration, an imported one, or the prelude's."""
        found = self.own.get(name) or self.imported.get(name)
        return found or (self.prelude.find(name) if self.prelude else None)

    def declared(self, *words: str) -> list[str]:
        """All visible names that are declared by one of these words: "grid", "pattern", ..."""
        items = (self.own | self.imported).items()
        seen = [n for n, item in items if type(item.declaration).__name__.lower() in words]
        return seen + (self.prelude.declared(*words) if self.prelude else [])

    def definitions(self) -> Iterator[Definition]:
        """Its own definitions, in order."""
        return (item for item in self.own.values() if isinstance(item, Definition))


def inputs_never_named(unit: Unit) -> tuple[str, ...]:
    """The inputs of a file that its definitions, selections and assertions, now checked, nowhere name."""
    found = {name for name, item in unit.own.items() if isinstance(item, TableItem)}
    for definition in unit.definitions():
        found -= definition.facts.tables.keys() if definition.facts else set()
    if found:  # seldom, so that trees are seldom walked
        others = (each for each in unit.module.declarations if not isinstance(each, syn.Input))
        found -= _words_in(others)
    return tuple(sorted(found))


def _words_in(nodes: Iterable[object]) -> set[str]:
    """All strings of syntax trees: names, and some that are none."""
    words, pending = set[str](), [*nodes]
    while pending:
        match pending.pop():
            case str(word):
                words.add(word)
            case tuple(items):
                pending += items
            case node if is_dataclass(node) and not isinstance(node, Span):
                pending += (getattr(node, each.name) for each in fields(node))
            case _:
                pass
    return words


def spaces_said(definition: Definition) -> syn.Over | None:
    """The spaces that stand behind `over`, where it names some."""
    match definition.declaration:
        case syn.Pattern(over=over):
            return over
        case syn.Attention(over=syn.Name(name=name, span=span), keys=keys) as attention:
            is_space = isinstance(definition.unit.find(name), SpaceItem)
            if keys is None and not is_space:
                return None
            return syn.Over(name, keys, span, attention.keys_span, span)
        case _:
            return None


def reserved_fault(name: str, span: Span) -> Diagnostic | None:
    """A complaint if the name already has a meaning that cannot change."""
    if name not in FIXED and name not in BUILTINS:
        return None
    what = "a built-in function" if name in BUILTINS else "a name with a fixed meaning"
    return make_error("A204", f"`{name}` cannot be declared", span, f"this is {what}")
