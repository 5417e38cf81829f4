"""Relations that hold nowhere: interval analysis over all positions, by cases.

A and not A'        intervals lose that a comparison is the same one in both; so suppose it true,
then suppose it false: it is a constant in either case
q // 8, q % 6       intervals lose how quotients and residues hang together; so write q as 24 q' + r
for each r: quotients become linear, residues constants
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

from attndsl import ir
from attndsl.analysis import FAR, impossible, variable

_MOST_CASES = 64
_MOST_RESIDUES = 2500  # cases of residues, over all variables

_Q, _K = ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY)
_DISTANCE = variable(0)


def holds_nowhere(root: ir.Node, deadline: float) -> bool:
    """Whether no positions >= 0, lengths, heads and inputs make ``root`` hold. False says nothing.

    Args:
        root: A truth value in positions, or in coordinates, each of which may be anything.
        deadline: Of ``time.monotonic``.
    """
    key = ir.add(_Q, _DISTANCE)
    by_distance = ir.conj(ir.substitute(root, {_K: key}), ir.ge(key, ir.ZERO))
    ways = (
        _Way(root, {_Q: (0, FAR), _K: (0, FAR)}, deadline),
        _Way(by_distance, {_Q: (0, FAR), _DISTANCE: (-FAR, FAR)}, deadline),
    )
    return any(way.by_cases(way.root) for way in ways) or any(way.by_residues() for way in ways)


@dataclass(frozen=True, slots=True)
class _Way:
    """A relation in some variables: query and key, query and distance, coordinates."""

    root: ir.Node
    ends: dict[ir.Node, tuple[int, int]]
    deadline: float

    def by_cases(self, root: ir.Node) -> bool:
        """Whether ``root`` is impossible in every case of its comparisons."""
        cases, open_cases = 1, [root]
        while open_cases:
            case = _solved(open_cases.pop())
            if impossible(case, self.ends):
                continue
            atom = _repeated(case)
            if atom is None or cases >= _MOST_CASES or time.monotonic() > self.deadline:
                return False
            cases += 1
            opposite = ir.negate(atom)
            for supposed, truth in ((atom, ir.TRUE), (opposite, ir.FALSE)):
                known = {atom: truth, opposite: ir.negate(truth)}
                open_cases.append(ir.conj(supposed, ir.substitute(case, known)))
        return True

    def by_residues(self) -> bool:
        """Whether the relation is impossible for all residues of the variables."""
        modulus = math.lcm(*_divisors(self.root))
        variables = [node for node in ir.postorder(self.root) if self._is_variable(node)]
        if modulus == 1 or modulus ** len(variables) > _MOST_RESIDUES:
            return False
        return all(
            time.monotonic() < self.deadline
            and self.by_cases(_at(self.root, modulus, dict(zip(variables, residues, strict=True))))
            for residues in itertools.product(range(modulus), repeat=len(variables))
        )

    def _is_variable(self, node: ir.Node) -> bool:
        return node in self.ends or isinstance(node, ir.Coord)


def _at(root: ir.Node, modulus: int, residues: dict[ir.Node, int]) -> ir.Node:
    """The relation with each variable ``v`` written as modulus * v + residue."""
    values = {v: ir.add(ir.scale(v, modulus), ir.Const(r)) for v, r in residues.items()}
    return ir.substitute(root, values)


def _divisors(root: ir.Node) -> Iterator[int]:
    for node in ir.postorder(root):
        match node:
            case ir.FloorDiv(right=ir.Const(value=m)) | ir.Mod(right=ir.Const(value=m)):
                yield m
            case _:
                pass


def _solved(root: ir.Node) -> ir.Node:
    """``root`` with variables replaced by what equations of its say they are: impossible just if it was."""
    while isinstance(root, ir.And):
        found = next(filter(None, map(_solution, root.items)), None)
        if found is None:
            break
        variable, value, equation = found
        rest = ir.conj(*(part for part in root.items if part is not equation))
        least = ir.Const(0 if isinstance(variable, ir.Pos) else -1)
        root = ir.conj(ir.substitute(rest, {variable: value}), ir.ge(value, least))
    return root


def _solution(part: ir.Node) -> tuple[ir.Node, ir.Node, ir.Node] | None:
    """(v, value, the equation) where the part says v == value for a position or coordinate v."""
    if not isinstance(part, ir.Eq):
        return None
    terms, constant = ir.linear(part.item)
    for term, factor in terms.items():
        if isinstance(term, ir.Pos | ir.Coord) and abs(factor) == 1:
            rest = {other: -factor * c for other, c in terms.items() if other is not term}
            value = ir.combine(rest, factor * (part.bound - constant))
            if term not in ir.postorder(value):
                return term, value, part
    return None


def _repeated(root: ir.Node) -> ir.Node | None:
    """A comparison that the relation mentions in several places, or as itself and its opposite."""
    counts: dict[ir.Node, int] = {}
    for node in ir.postorder(root):
        for part in node.parts if isinstance(node, ir.And | ir.Or) else ():
            plain = part.item if isinstance(part, ir.Not) else part
            if isinstance(plain, ir.And | ir.Or) or _has_bound_variable(plain):
                continue
            name = min(plain, ir.negate(plain), key=lambda item: item.digest)
            counts[name] = counts.get(name, 0) + 1
    best = max(counts, key=lambda node: (counts[node], node.digest), default=None)
    return best if best is not None and counts[best] > 1 else None


def _has_bound_variable(node: ir.Node) -> bool:
    return any(isinstance(part, ir.Index) and part is not _DISTANCE for part in ir.postorder(node))
