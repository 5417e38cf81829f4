"""An attention as a program of the language: ``show_attention``."""

from __future__ import annotations

from collections.abc import Iterable

from attndsl.ir import nodes as n
from attndsl.ir import reals
from attndsl.ir.arithmetic import add, sub
from attndsl.ir.attention import Attention, Form, Scored, Term
from attndsl.ir.interning import Node, Sort
from attndsl.ir.loops import transform
from attndsl.ir.mask import NO_ZEROS, Align, Mask, Segment, Space, Table
from attndsl.ir.printing import show


def show_attention(attention: Attention) -> str:
    """Writes an attention as a program; it reads back as an equal one where all masks are shown in full.

    The pairs that an attention of several masks was declared over are written in each branch.
    """
    mask = attention.masks[0]
    declared = {table.name: table for each in attention.masks for table in each.tables}
    declared |= {table.name: table for table in attention.tables}
    writer = _Writer(mask, declared)
    lines = [_input(declared[name]) for name in sorted(declared)]
    lines += _spaces(mask)
    name = attention.name or "given"
    patterns, terms = writer.terms(attention.terms)
    over = f" over {mask.queries.name}" if mask.queries.name else ""
    over += f" -> {mask.keys.name}" if mask.is_rectangular else ""
    align = (
        "" if mask.align is (Align.START if mask.is_rectangular else Align.END) else " align start"
    )
    body = "\n    + ".join(terms)
    return "\n".join((*lines, *patterns, f"attention {name}{over}{align} =\n    {body}"))


class _Writer:
    """Branches as text, with the inputs that are indexed by the rows of a call."""

    def __init__(self, mask: Mask, declared: dict[str, Table]) -> None:
        self.mask = mask
        self.declared = declared

    def terms(self, terms: Iterable[Term]) -> tuple[list[str], list[str]]:
        """Patterns that count zero keys, declared in front, and the terms of the sum."""
        patterns: list[str] = []
        made = [self._term(term, patterns) for term in terms]
        return patterns, made

    def _term(self, term: Term, patterns: list[str]) -> str:
        branches = [
            self._branch(part, term.log_mass if place == 0 else None, patterns)
            for place, part in enumerate(term.parts)
        ]
        text = branches[0] if len(branches) == 1 else f"({' ++ '.join(branches)})"
        if term.coefficient is reals.UNITY:
            return text
        factor = self._real(term.coefficient)
        plain = isinstance(term.coefficient, n.Load | reals.Number | reals.Apply)
        return f"{factor if plain else f'({factor})'} * {text}"

    def _branch(self, part: Scored, log_mass: Node | None, patterns: list[str]) -> str:
        pairs = show(self._at_positions(part.mask.root))
        if part.mask.zeros is not NO_ZEROS:
            pattern = f"pairs_{len(patterns)}"
            space = f" over {self.mask.queries.name}" if self.mask.queries.name else ""
            zeros = show(self._at_positions(part.mask.zeros))
            patterns.append(f"pattern {pattern}{space} = {pairs}\n    zeros {zeros}")
            pairs = pattern
        before = [f"over {pairs}"]
        before += [f"by pair {part.member[0]}"] if part.member is not None else []
        before += [f"by {part.keys}"] if part.keys else []
        text = f"score {self._real(part.score)}"
        if part.form is not Form.SOFTMAX:
            weight = "" if part.weight is None else f" {self._real(part.weight)}"
            text += f" weights {part.form.value}{weight}"
        text += "" if part.factor is None else f" factor {self._real(part.factor)}"
        if log_mass is not None:
            text += f" mass {self._real(_mass(log_mass))}"
        return f"({' '.join(before)}: {text})"

    def _real(self, node: Node) -> str:
        return show(self._at_positions(node))

    def _at_positions(self, root: Node) -> Node:
        """The expression as it is written: an input over `q` is read at positions, not at rows."""
        shift = n.Size("k"), n.Size("q")

        def rule(node: Node) -> Node:
            if self.mask.align is Align.START or not isinstance(node, n.Load | reals.Row):
                return node
            dims = self.declared[node.table].indexed_dims
            index = tuple(
                _plus(at, *shift) if dim == "q" else at
                for dim, at in zip(dims, node.index, strict=False)
            )
            if isinstance(node, reals.Row):
                return reals.Row(node.table, index, node.ambient)
            return n.Load(node.table, node.kind, index, node.ambient)

        return transform(root, rule)


def _plus(at: Node, keys: Node, queries: Node) -> Node:
    return add(at, sub(keys, queries))


def _mass(log_mass: Node) -> Node:
    if isinstance(log_mass, reals.Apply) and log_mass.function == "log":
        return log_mass.item
    return reals.Apply("exp", log_mass)


def _input(table: Table) -> str:
    kind = "list" if table.is_list else Sort(table.kind).value
    return f"input {table.name}: {kind}[{', '.join(map(str, table.dims))}]"


def _spaces(mask: Mask) -> list[str]:
    spaces = dict.fromkeys(space for space in (mask.queries, mask.keys) if space.segments)
    return [_space(space) for space in spaces]


def _space(space: Space) -> str:
    if [segment.name for segment in space.segments] == [space.name]:
        return f"grid {_segment(space.segments[0])}"
    return f"space {space.name} = {' ++ '.join(map(_segment, space.segments))}"


def _segment(segment: Segment) -> str:
    if len(segment.axes) == 1 and segment.axes[0].name == segment.name and segment.axes[0].extent:
        return f"{segment.name}({segment.axes[0].extent})"
    axes = (a.name if a.extent is None else f"{a.name}={a.extent}" for a in segment.axes)
    return f"{segment.name}({', '.join(axes)})"
