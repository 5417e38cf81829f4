"""Demands of a pattern on the inputs of a call, by its `where`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from attndsl import ir
from attndsl.schedule.building import classes_of
from attndsl.schedule.calls import Call
from attndsl.schedule.model import BoolArray
from attndsl.source import AttnDslError, Diagnostic, Label


def check_conditions(mask: ir.Mask, call: Call) -> None:
    """Refuses a call whose inputs do not satisfy what the pattern asks of them.

    Raises:
        AttnDslError: A507, a condition fails, for whichever batch element or head; A403, A404, one cannot be judged.
    """
    lengths = (call.sizes,) if call.positions is None else call.positions.sizes
    for condition in mask.conditions:
        judged = {
            sizes: _judged(mask, condition, call, dict(sizes)) for sizes in map(_items, lengths)
        }
        for batch, sizes in enumerate(map(_items, lengths)):
            holds = judged[sizes]
            mine = holds[batch : batch + 1] if min(len(lengths), len(holds)) > 1 else holds
            if not mine.all():
                element, head = np.argwhere(~mine)[0]
                raise _violated(mask, condition, (batch + int(element), int(head)))


def _items(sizes: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(sizes.items()))


def _judged(
    mask: ir.Mask, condition: ir.Condition, call: Call, sizes: Mapping[str, int]
) -> BoolArray:
    """Whether it holds at these lengths, [1 or batch, 1 or heads]."""
    call = replace(call, sizes=sizes)
    nodes, kind, tables = classes_of(replace(mask, root=ir.TRUE), call, (condition.node,))
    env = ir.Env(q=0, k=0, sizes=sizes, tables=tables, fits=True)
    return np.array([bool(ir.evaluate(node, env)) for _, node in nodes])[kind]


def _violated(mask: ir.Mask, condition: ir.Condition, place: tuple[int, int]) -> AttnDslError:
    named = [
        f"{word} {index}"
        for word, index, flag in zip(
            ("batch element", "head"), place, (ir.Deps.BATCH, ir.Deps.HEAD), strict=True
        )
        if condition.node.deps & flag
    ]
    title = f"the inputs of {mask.name or 'the pattern'} are not what it asks for: {condition.text}"
    notes = (f"first for {', '.join(named)}",) if named else ()
    span = condition.span
    labels = (Label(span, "required here"),) if span.source.text else ()
    return AttnDslError(Diagnostic("A507", title, labels=labels, notes=notes))
