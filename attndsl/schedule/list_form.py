"""Relations whose keys lie in ranges that each query names: lists of tokens, of blocks, of ranges.

    k <= q and any j in 0..n: picked[q, j] == k // 64
        -->  for j in 0..n:  picked[q, j] == k // 64  and  k <= q
    k <= q and (k // 64 in past[q // 64] or k // 64 == q // 64)
        -->  for j in 0..n:  past[q // 64, j] == k // 64  and  k <= q
             or              q // 64 == k // 64           and  k <= q

Law: a pair is in the relation just if, for one of the alternatives, all of its items hold for some number of its loop.
Nothing is recognised by name: any relation that is such a disjunction, and reads an entry of its query in it, is one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from attndsl import ir
from attndsl.passes import split_sides


@dataclass(frozen=True, slots=True)
class Alternative:
    """A conjunction under at most one loop; items may read the variable of the loop."""

    items: tuple[ir.Node, ...]
    loop: ir.Exists | None = None


def list_form(root: ir.Node) -> tuple[Alternative, ...] | None:
    """The alternatives of a relation; None where no equation with an entry of the query is among them."""
    found = _alternatives(root)
    if found is None or not any(_names_keys(each) for each in found):
        return None
    return found


def _alternatives(node: ir.Node) -> tuple[Alternative, ...] | None:
    match node:
        case ir.Or(items=items):
            parts = [_alternatives(item) for item in items]
            return None if None in parts else tuple(x for part in parts if part for x in part)
        case ir.And(items=items):
            chosen = max(items, key=_choice)
            if not _choice(chosen):
                return (Alternative(items),)
            others = tuple(item for item in items if item is not chosen)
            inner = _alternatives(chosen)
            if inner is None:
                return None
            return tuple(replace(each, items=(*each.items, *others)) for each in inner)
        case ir.Exists(start=start, stop=stop, body=body):
            inner = _alternatives(body)
            if inner is None or any(each.loop for each in inner):
                return None
            if (start.deps | stop.deps) & ir.Deps.KEY:
                return None
            return tuple(replace(each, loop=node) for each in inner)
        case _:
            return (Alternative((node,)),)


def _choice(node: ir.Node) -> int:
    """How well an item of a conjunction is opened: one is, and a loop over entries sooner than a disjunction."""
    if not node.is_pair or not isinstance(node, ir.Exists | ir.Or):
        return 0
    return 1 + any(map(_reads_query, ir.postorder(node)))


def _names_keys(alternative: Alternative) -> bool:
    """Whether an equation, or a comparison in a loop, says which keys by an entry of the query."""
    kinds = ir.Eq if alternative.loop is None else (ir.Eq, ir.Le)
    return any(isinstance(item, kinds) and _compares_key(item) for item in alternative.items)


def _compares_key(item: ir.Eq | ir.Le) -> bool:
    """Whether a term of the key, which no input changes, is compared with an entry of the query."""
    sides = split_sides(item.item) if item.is_pair else None
    if sides is None or ir.holds(sides[1], ir.Load):
        return False
    return any(map(_reads_query, ir.postorder(sides[0])))


def _reads_query(node: ir.Node) -> bool:
    return isinstance(node, ir.Load) and node.deps & ir.Deps.PAIR == ir.Deps.QUERY
