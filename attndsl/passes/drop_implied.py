"""Drop conditions that others make true or false, and choices that they make.

    x <= a and x + y <= b                     -->  x <= a             where they give x + y <= b
    a or (b and c)                            -->  a or c             where not a gives b
    a or b                                    -->  a                  where b gives a
    a and b                                   -->  false              where a gives not b
    c and p(if c then x else y)               -->  c and p(x)
    x // 8 == y // 8 and abs(x - y) <= 7      -->  x // 8 == y // 8

A part of a conjunction is read where its other parts hold, a part of a disjunction where the others that
are plain comparisons fail, each branch of a choice where its condition does or does not hold. Around it
all stands what is true of every call: ``0 <= k < len(k)``, ``q < len(k)`` where ends are aligned,
``head < heads``, sizes that are not negative.

Law: whatever replaces a condition agrees with it wherever it is looked at, for all lengths, heads and
inputs, so the whole is the same relation. A condition that the few laws of ``knowledge`` cannot decide stays.
"""

from __future__ import annotations

from attndsl import ir
from attndsl.passes.knowledge import Budget, Known
from attndsl.passes.lower_coordinates import segment_size

_Q, _K = ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY)
_MOST_ALTERNATIVES = 12  # compared with each other: their number squared
_DEEPEST = 48  # junctions and choices within each other
_MOST_ROUNDS = 3  # what became simple may decide what was read before it


def drop_implied(mask: ir.Mask) -> ir.Mask:
    """The same mask without conditions, alternatives and choices that the rest of it decides."""
    around, root = of_every_call(mask), mask.root
    reader = _Reader(around.effort)
    for _ in range(_MOST_ROUNDS):
        before, root = root, reader.read(root, around)
        if root is before:
            break
    return mask.with_root(root)


def of_every_call(mask: ir.Mask, *, present: bool = True) -> Known:
    """Conditions that hold for every pair, whatever the call; of queries that are tokens, or of all."""
    known, ends = Known(Budget()), mask.align is ir.Align.END
    facts = [ir.ge(_K, ir.ZERO), ir.lt(_K, ir.Size("k"))]
    facts.append(ir.lt(_Q, ir.Size("k" if ends else "q")))
    if ends:  # query i is at i + len(k) - len(q): below 0 where there are more queries than keys
        facts.append(ir.ge(ir.add(_Q, ir.Size("q")), ir.Size("k")))
    if present or mask.keys.segments or not ends:
        facts.append(ir.ge(_Q, ir.ZERO))
    for position, space in ((_Q, mask.queries), (_K, mask.keys)):
        if space.segments:
            facts.append(ir.lt(position, ir.add(*map(segment_size, space.segments))))
    facts.append(ir.lt(ir.Var("head"), ir.Var("heads")))
    for fact in facts:
        known.learn(fact)
    return known


class _Reader:
    """Rewrites expressions where they stand."""

    def __init__(self, effort: Budget) -> None:
        self._effort = effort

    def read(self, node: ir.Node, known: Known, depth: int = 0) -> ir.Node:
        """``node`` where that is known: itself, or what is simpler and agrees with it."""
        if depth > _DEEPEST or not _has_conditions(node) or not self._effort.spend():
            return node
        if isinstance(node, ir.And | ir.Or) and len(node.items) > self._effort.left:
            return node  # to learn what each says would cost more than is left
        match node:
            case ir.And():
                return self._conjunction(node, known, depth)
            case ir.Or():
                return self._disjunction(node, known, depth)
            case ir.Select():
                return self._choice(node, known, depth)
            case _:
                pass
        if node.sort is ir.Sort.BOOL:
            verdict = known.decide(node)
            # what a bound variable may be at one position is wanted, implied by others or not
            if verdict is not None and not (verdict and ir.holds(node, ir.Index)):
                return ir.BoolConst(verdict)
        parts = node.parts
        fresh = tuple(self.read(part, known, depth + 1) for part in parts)
        return node if fresh == parts else ir.rebuild(node, fresh)

    def _conjunction(self, node: ir.And, known: Known, depth: int) -> ir.Node:
        level, items = known.inside(), dict(enumerate(node.items))
        for number, item in items.items():
            level.learn(item, number)
        for number, item in list(items.items()):
            fresh = self.read(item, level.without(number), depth + 1)
            if fresh is ir.FALSE:
                return fresh
            if fresh is not item:
                items[number] = fresh
                level.forget(number)
                level.learn(fresh, number)
        return ir.conj(*items.values())

    def _disjunction(self, node: ir.Or, known: Known, depth: int) -> ir.Node:
        level, items = known.inside(), dict(enumerate(node.items))
        for number, item in items.items():
            if not isinstance(item, ir.And):
                level.learn(ir.negate(item), number)
        for number, item in list(items.items()):
            fresh = self.read(item, level.without(number), depth + 1)
            if fresh is ir.TRUE:
                return fresh
            if fresh is not item:
                items[number] = fresh
                level.forget(number)
                if not isinstance(fresh, ir.And):
                    level.learn(ir.negate(fresh), number)
        return ir.disj(*_strongest(list(items.values()), known))

    def _choice(self, node: ir.Select, known: Known, depth: int) -> ir.Node:
        cond = self.read(node.cond, known, depth + 1)
        if isinstance(cond, ir.BoolConst):
            return self.read(node.yes if cond.value else node.no, known, depth + 1)
        branches = []
        for held, branch in ((cond, node.yes), (ir.negate(cond), node.no)):
            level = known.inside()
            level.learn(held)
            branches.append(self.read(branch, level, depth + 1))
        return ir.select(cond, *branches)


def _has_conditions(root: ir.Node) -> bool:
    """Whether anything in it can be true or false."""
    loads = ir.postorder(root, ir.Load)
    return ir.holds(root, *ir.TRUTHS) or any(node.sort is ir.Sort.BOOL for node in loads)


def _strongest(items: list[ir.Node], known: Known) -> list[ir.Node]:
    """Alternatives without those that give another one."""
    if len(items) > _MOST_ALTERNATIVES:
        return items
    kept = list(items)
    for item in items:
        level = known.inside()
        level.learn(item)
        if any(other is not item and level.decide(other) for other in kept):
            kept.remove(item)
    return kept
