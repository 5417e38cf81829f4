"""Turn comparisons of mixed terms into comparisons of a per-query with a per-key value.

    |q - k| <= w               -->  q - k <= w and k - q <= w
    (q - k) // m <= b          -->  q - k <= b*m + m - 1
    (q - k) % m == r           -->  q % m == (k + r) % m
    max(a, b) <= c             -->  a <= c and b <= c
    (if c then x else y) <= b  -->  c and x <= b  or  not c and y <= b

The work that remains for each pair is then a few comparisons of values that were computed once per query and
once per key: the analysis summarises those per tile, kernels hoist them out of the pair loop. A comparison
that cannot be separated stays as it is; nothing behind this pass relies on success.

Law: every rule holds for all integers (flooring division, positive constant divisors).
"""

from __future__ import annotations

import functools

from attndsl import ir

_MOST = 2_000  # comparisons opened; extrema multiply them: past so many the original is kept
_MOST_TERMS = 40_000  # of the comparisons opened, all together: a long one is copied for each term
_DEEPEST = 48  # comparisons opened within what others became
_MOST_CHOICES = 3  # in one sum, as of a count that is written out: each doubles what comes of it


def separate(mask: ir.Mask) -> ir.Mask:
    """The same mask with its comparisons separated where a law applies."""
    return mask.with_root(separate_root(mask.root))


def separate_root(root: ir.Node) -> ir.Node:
    """``separate`` on a bare expression."""
    opener = _Opener()
    result = opener.read(root)
    return root if opener.is_spent else result


class _Opener:
    """Opens comparisons, and those that come of it, each once."""

    def __init__(self) -> None:
        self.opened: dict[ir.Node, ir.Node] = {}
        self._terms = 0

    @property
    def is_spent(self) -> bool:
        """Whether no comparison more is opened."""
        return len(self.opened) >= _MOST or self._terms >= _MOST_TERMS

    def read(self, root: ir.Node, depth: int = 0) -> ir.Node:
        """``root`` with its comparisons opened, as deep and as many as are allowed."""
        return ir.transform(root, lambda node: self._rule(node, depth), ir.Le, ir.Eq)

    def _rule(self, node: ir.Node, depth: int) -> ir.Node:
        if not node.is_pair or not isinstance(node, ir.Le | ir.Eq):
            return node
        if node not in self.opened:
            if depth > _DEEPEST or self.is_spent or _alternatives(node) > _MOST:
                return node
            self._terms += len(node.item.parts)
            opened = _once(node)
            self.opened[node] = node if opened is None else self.read(opened, depth + 1)
        return self.opened[node]


def _alternatives(node: ir.Le | ir.Eq) -> int:
    """How many comparisons become of one whose extrema are all opened."""
    found = 1
    for term in node.item.parts if isinstance(node.item, ir.Sum) else (node.item,):
        if term.is_pair and isinstance(term, ir.Abs | ir.Max | ir.Min) and found <= _MOST:
            found *= max(2, len(term.parts))
    return found


def _once(node: ir.Le | ir.Eq) -> ir.Node | None:
    """The comparison without the first of its terms that a law opens."""
    terms = ir.linear(node.item)[0]
    choices = sum(isinstance(term, ir.Select) and term.is_pair for term in terms)
    for term, factor in terms.items():
        if term.is_pair and not (isinstance(term, ir.Select) and choices > _MOST_CHOICES):
            rest = ir.sub(node.item, ir.scale(term, factor))
            opened = _open(node, term, factor, rest)
            if opened is not None:
                return opened
    return None


def _compare(node: ir.Le | ir.Eq, item: ir.Node) -> ir.Node:
    make = ir.le if isinstance(node, ir.Le) else ir.eq
    return make(item, ir.Const(node.bound))


def _open(node: ir.Le | ir.Eq, term: ir.Node, factor: int, rest: ir.Node) -> ir.Node | None:
    """The comparison ``factor * term + rest (<= or ==) bound`` without ``term``, or None."""
    match term:
        case ir.Select(cond=cond, yes=yes, no=no):
            chosen = [_compare(node, ir.add(ir.scale(part, factor), rest)) for part in (yes, no)]
            return ir.select(cond, *chosen)
        case ir.Abs(item=item):
            mirrored = ir.scale(item, -1)
            return _open_extremum(node, (item, mirrored), True, factor, rest)
        case ir.Max(items=items):
            return _open_extremum(node, items, True, factor, rest)
        case ir.Min(items=items):
            return _open_extremum(node, items, False, factor, rest)
        case ir.FloorDiv(left=left, right=ir.Const(value=m)):
            return _open_division(node, left, m, factor, rest)
        case ir.Mod(left=left, right=ir.Const(value=m)):
            return _open_residue(node, left, m, factor, rest)
        case _:
            return None


def _both_ways(node: ir.Eq) -> ir.Node:
    """x == b  <=>  x <= b and -x <= -b."""
    mirrored = ir.scale(node.item, -1)
    bound = ir.Const(node.bound)
    return ir.conj(ir.le(node.item, bound), ir.le(mirrored, ir.scale(bound, -1)))


def _open_extremum(
    node: ir.Le | ir.Eq,
    items: tuple[ir.Node, ...],
    is_max: bool,
    factor: int,
    rest: ir.Node,
) -> ir.Node:
    if isinstance(node, ir.Eq):
        return _both_ways(node)
    parts = [_compare(node, ir.add(ir.scale(item, factor), rest)) for item in items]
    # f*max(x) + r <= b  holds for all x when f > 0, for some x when f < 0; min the other way
    return ir.conj(*parts) if is_max == (factor > 0) else ir.disj(*parts)


def _open_division(
    node: ir.Le | ir.Eq, left: ir.Node, m: int, factor: int, rest: ir.Node
) -> ir.Node | None:
    if abs(factor) != 1:
        return None
    if isinstance(node, ir.Eq):
        return _both_ways(node)
    if factor == 1:  # left // m <= t  <=>  left <= t*m + m - 1
        limit = ir.sub(ir.Const(node.bound), rest)
        return ir.le(left, ir.add(ir.scale(limit, m), ir.Const(m - 1)))
    # left // m >= t  <=>  left >= t*m
    return ir.ge(left, ir.scale(ir.sub(rest, ir.Const(node.bound)), m))


def _open_residue(
    node: ir.Le | ir.Eq, left: ir.Node, m: int, factor: int, rest: ir.Node
) -> ir.Node | None:
    parts = split_sides(left)
    if parts is None:
        return None
    mine, theirs = parts  # left = mine - theirs
    if isinstance(node, ir.Eq) and factor == 1 and isinstance(rest, ir.Const):
        residue = node.bound - rest.value  # 0 <= residue < m, or the equation were FALSE
        return ir.eq(
            ir.mod(mine, ir.Const(m)),
            ir.mod(ir.add(theirs, ir.Const(residue)), ir.Const(m)),
        )
    # (a - b) % m = a%m - b%m, plus m when that is negative
    a, b = ir.mod(mine, ir.Const(m)), ir.mod(theirs, ir.Const(m))
    wrapped = [ir.add(ir.scale(ir.add(ir.sub(a, b), ir.Const(c)), factor), rest) for c in (0, m)]
    return ir.select(ir.ge(a, b), *(_compare(node, item) for item in wrapped))


@functools.lru_cache(maxsize=4096)
def split_sides(item: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    """(a, b) with item = a - b, a free of the key and b of the query; None if a term is mixed."""
    terms, constant = ir.linear(item)
    if any(term.is_pair for term in terms):
        return None
    ours = {t: c for t, c in terms.items() if not t.deps & ir.Deps.KEY}
    theirs = {t: -c for t, c in terms.items() if t.deps & ir.Deps.KEY}
    return ir.combine(ours, constant), ir.combine(theirs)
