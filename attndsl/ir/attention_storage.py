"""Attentions as JSON: masks as `storage` writes them, and the nodes of their real expressions.

Reading one never runs anything; each field is checked, and named if it is wrong.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any, Final

from attndsl.ir import logic, storage
from attndsl.ir.attention import Attention, Form, Scored, Term, tables_read
from attndsl.ir.documents import Field, not_saved, parsed
from attndsl.ir.interning import Deps, Node
from attndsl.ir.mask import Mask, Table
from attndsl.ir.real_storage import RealReader
from attndsl.ir.rules import is_name, mask_fault
from attndsl.ir.selection import Chosen
from attndsl.ir.selection_storage import (
    making,
    read_selections,
    with_selections,
    written_selections,
)
from attndsl.ir.storage import FORMAT
from attndsl.ir.walks import postorder

_FIELDS: Final = (
    "format",
    "name",
    "doc",
    "tables",
    "masks",
    "nodes",
    "terms",
    "selections",
    "unread",
)


def dump_attention(attention: Attention) -> str:
    """The attention as JSON text. ``load_attention(dump_attention(a)) == a``."""
    roots = [each for term in attention.terms for each in term.expressions()]
    order = list(dict.fromkeys(itertools.chain.from_iterable(map(postorder, roots))))
    place = {node: index for index, node in enumerate(order)}
    masks = list(dict.fromkeys(map(storage.dump, attention.masks)))

    def at(node: Node | None) -> int | None:
        return None if node is None else place[node]

    def part(scored: Scored) -> list[Any]:
        nodes = at(scored.score), at(scored.weight), at(scored.factor)
        member = None if scored.member is None else list(scored.member)
        return [
            masks.index(storage.dump(scored.mask)),
            scored.form.value,
            *nodes,
            scored.keys,
            member,
        ]

    document = {
        "format": FORMAT,
        "name": attention.name,
        "doc": attention.doc,
        "tables": storage.written_tables(attention.tables),
        "masks": [json.loads(mask) for mask in masks],
        "nodes": storage.written_nodes(order, place),
        "terms": [
            [at(term.coefficient), at(term.log_mass), [part(each) for each in term.parts]]
            for term in attention.terms
        ],
    }
    if attention.unread:
        document["unread"] = list(attention.unread)
    selections = {each.name: each for mask in attention.masks for each in mask.selections}
    selections |= {each.name: each for each in attention.selections}
    if selections:
        document["selections"] = written_selections(selections.values())
    return json.dumps(document)


def load_attention(text: str) -> Attention:
    """The attention that ``dump_attention`` wrote.

    Raises:
        AttnDslError: A405, the text is not one; the note names the field.
    """
    try:
        return _attention(Field(parsed(text), ""))
    except (ValueError, RecursionError) as error:
        raise not_saved(str(error)) from error


def _attention(document: Field) -> Attention:
    if (version := document.part("format").number()) != FORMAT:
        raise ValueError(f"format: {version}, this version reads {FORMAT}")
    if strange := sorted(set(document.value) - set(_FIELDS)):
        raise ValueError(f"there is no field {strange[0]!r:.60}")
    name, doc = document.part("name").text(), document.part("doc").text()
    if name and not is_name(name):
        raise document.part("name").wrong("a name")
    tables = tuple(storage.read_table(each) for each in document.part("tables").items())
    masks = [storage.load(json.dumps(each.value)) for each in document.part("masks").items(1)]
    selections: tuple[Chosen, ...] = ()
    if "selections" in document.value:
        selections = read_selections(document.part("selections"))
        masks = [with_selections(mask, selections) for mask in masks]
    frame = _frame(masks, tables)
    reader = RealReader(frame, list(document.part("nodes").items(1)))
    terms = tuple(_term(each, reader, masks) for each in document.part("terms").items(1))
    read = tables_read(*(each for term in terms for each in term.expressions()))
    if read != {table.name for table in tables}:
        raise document.part("tables").wrong("the inputs that its expressions read")
    names = document.part("unread").items() if "unread" in document.value else ()
    unread = tuple(each.name() for each in names)
    return Attention(terms, tables, name, doc, making(selections, tables), unread)


def _frame(masks: list[Mask], tables: tuple[Table, ...]) -> Mask:
    """The spaces and inputs of all expressions."""
    first = masks[0]
    if any((m.queries, m.keys, m.align) != (first.queries, first.keys, first.align) for m in masks):
        raise ValueError("masks: they live in different spaces")
    declared = {table.name: table for table in tables}
    for table in itertools.chain.from_iterable(mask.tables for mask in masks):
        if declared.get(table.name, table) != table:
            raise ValueError(f"masks: the input {table.name!r} is declared in two ways")
    frame = Mask(logic.TRUE, first.queries, first.keys, tables, first.align)
    if (fault := mask_fault(frame)) is not None:
        raise ValueError(fault)
    return frame


def _term(item: Field, reader: RealReader, masks: list[Mask]) -> Term:
    coefficient, log_mass, parts = item.row("coefficient", "log_mass", "parts")
    factor, mass = reader.real(coefficient), reader.real_or_none(log_mass)
    for field, node in ((coefficient, factor), (log_mass, mass)):
        if node is not None and (node.deps & Deps.KEY):
            raise field.wrong("a real that does not depend on the key")
    return Term(tuple(_part(each, reader, masks) for each in parts.items(1)), factor, mass)


def _part(item: Field, reader: RealReader, masks: list[Mask]) -> Scored:
    mask, form, score, weight, factor, keys, member = item.row(
        "mask", "form", "score", "weight", "factor", "keys", "member"
    )
    made = Scored(
        masks[mask.number(0, len(masks) - 1)],
        reader.real(score),
        form.one_of(Form),
        reader.real_or_none(weight),
        reader.real_or_none(factor),
        keys.name() if keys.value != "" else "",
    )
    if (made.weight is not None) != (made.form in (Form.POINTWISE, Form.L1)):
        raise weight.wrong("a function of the score, for pointwise and l1 alone")
    if member.value is None:
        return made
    place, count = member.row("place", "count")
    of = count.number(1, 2**20)
    return replace(made, member=(place.number(0, of - 1), of))
