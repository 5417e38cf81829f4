"""Demands of a pattern on a call, its inputs, lengths and heads, by its `where`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from attndsl import ir
from attndsl.passes import head_shifted
from attndsl.schedule.building import classes_of
from attndsl.schedule.calls import Call
from attndsl.schedule.model import BoolArray
from attndsl.source import AttnDslError, Diagnostic, Label


def check_conditions(mask: ir.Mask, call: Call) -> None:
    """Refuses a call that does not satisfy what the pattern asks of its inputs, lengths and heads.

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
                place = batch + int(element), int(head) + call.head_start
                raise _violated(mask, condition, call, dict(sizes), place)


def _items(sizes: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(sizes.items()))


def _judged(
    mask: ir.Mask, condition: ir.Condition, call: Call, sizes: Mapping[str, int]
) -> BoolArray:
    """Whether it holds at these lengths, [1 or batch, 1 or heads]."""
    call = replace(call, sizes=sizes)
    asked = held(condition.node, call)
    nodes, kind, tables = classes_of(replace(mask, root=ir.TRUE), call, (asked,))
    env = ir.Env(q=0, k=0, sizes=sizes, tables=tables, fits=True)
    return np.array([bool(ir.evaluate(node, env)) for _, node in nodes])[kind]


def held(condition: ir.Node, call: Call) -> ir.Node:
    """The condition, of the heads of the call where those are some of the model's."""
    if call.model_heads is None:
        return condition
    return head_shifted(condition, call.head_start, call.model_heads)


def _violated(
    mask: ir.Mask,
    condition: ir.Condition,
    call: Call,
    sizes: Mapping[str, int],
    place: tuple[int, int],
) -> AttnDslError:
    named = [
        f"{word} {index}"
        for word, index, flag in zip(
            ("batch element", "head"), place, (ir.Deps.BATCH, ir.Deps.HEAD), strict=True
        )
        if condition.node.deps & flag
    ]
    name, notes = mask.name or "the pattern", [f"first for {', '.join(named)}"] * bool(named)
    if ir.reads_inputs(condition.node):
        title = f"the inputs of {name} are not what it asks for: {condition.text}"
    else:
        title = f"{name} is not for such a call: {condition.text}"
        notes = [*_numbers(condition.node, call, sizes), *notes]
    span = condition.span
    labels = (Label(span, "required here"),) if span.source.text else ()
    return AttnDslError(Diagnostic("A507", title, labels=labels, notes=tuple(notes)))


def _numbers(condition: ir.Node, call: Call, sizes: Mapping[str, int]) -> list[str]:
    """A note of the lengths and the number of heads that a condition names; none where it names none."""
    heads = call.heads if call.model_heads is None else call.model_heads
    found = {}
    for node in ir.postorder(condition, ir.Size, ir.Var):
        if isinstance(node, ir.Size):
            found[f"len({node.name})"] = sizes[node.name]
        elif node is ir.Var("heads"):
            found["heads"] = heads
    said = ", ".join(f"{name} = {number}" for name, number in sorted(found.items()))
    return [f"here {said}"] if said else []
