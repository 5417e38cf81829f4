"""Properties that hold for every length, proved from the IR alone.

A fact is proved by interval reasoning over all positions (up to 2**40), or left undecided. Nothing here
guesses: undecided means that this analysis found no proof, not that the fact is false.
"""

from __future__ import annotations

from enum import StrEnum

from attndsl import ir
from attndsl.analysis.proving import FAR, attempted, impossible, is_large, simplified, variable


class Fact(StrEnum):
    """How a claim stands."""

    PROVED = "proved"
    REFUTED = "false"
    UNDECIDED = "not decided"


def facts(mask: ir.Mask) -> dict[str, Fact]:
    """Facts of a normal mask, PROVED or UNDECIDED: what holds for all lengths, heads and inputs.

    - ``causal``: no query sees a later key.
    - ``symmetric``: q sees k where k sees q; for as many queries as keys.
    - ``translation_invariant``: whether a pair is in depends on k - q alone.
    - ``sees_itself``: every query sees the key of its own position.
    - ``every_row_non_empty``: every query sees some key; for at least one key, and no more queries.
    - ``block_diagonal``: tokens fall into classes, by a function of the position, and no query sees a
      key of another class.
    - ``same_for_all_heads``, ``same_for_all_batches``.
    """
    root = mask.root
    is_small = not is_large(root)
    claims = {
        "causal": is_small and attempted(lambda: is_causal(root)),
        "symmetric": is_small and attempted(lambda: is_symmetric(root)),
        "translation_invariant": is_small and is_translation_invariant(root),
        "sees_itself": is_small and attempted(lambda: sees_itself(root)),
        "every_row_non_empty": is_small and attempted(lambda: sees_some_key(root)),
        "block_diagonal": bool(separators(root)),
        "same_for_all_heads": not root.deps & ir.Deps.HEAD,
        "same_for_all_batches": not root.deps & ir.Deps.BATCH,
    }
    return {name: Fact.PROVED if true else Fact.UNDECIDED for name, true in claims.items()}


_D, _M = variable(0), variable(1)
_Q: ir.Node = ir.Pos(ir.Side.QUERY)
_K: ir.Node = ir.Pos(ir.Side.KEY)
_N: ir.Node = ir.Size("k")
_SQUARE = {_Q: (0, FAR), _K: (0, FAR)}


def is_causal(root: ir.Node) -> bool:
    """No query sees a later key: the pattern at k = q + d is empty for every d >= 1."""
    return impossible(ir.substitute(root, {_K: ir.add(_Q, _D)}), {_D: (1, FAR)})


def is_symmetric(root: ir.Node) -> bool:
    """The pattern and the pattern with q and k exchanged are one.

    Where (q, k) in the pattern always entails (k, q), both are equal: exchange the names once more.
    """
    other = ir.swapped(root)
    return other is root or holds_always(ir.implies(root, other))


def holds_always(root: ir.Node) -> bool:
    """Whether every pair of positions >= 0 is in the relation, proved in q and k, or in q and k - q by cases."""
    return not is_large(root) and attempted(lambda: _holds_always(root))


def _holds_always(root: ir.Node) -> bool:
    never = simplified(ir.negate(root), _SQUARE)
    if impossible(never, _SQUARE):
        return True
    if not impossible(ir.substitute(never, {_K: _Q}), _SQUARE):
        return False
    key = ir.add(_Q, _D)
    apart = ir.conj(ir.substitute(never, {_K: key}), ir.ge(key, ir.ZERO))
    return all(impossible(apart, {**_SQUARE, _D: ends}) for ends in ((1, FAR), (-FAR, -1)))


def is_translation_invariant(root: ir.Node) -> bool:
    """Whether a pair is in depends on k - q alone: moving both by any amount changes no expression."""
    root = ir.transform(root, _joined)
    return ir.substitute(root, {_Q: ir.add(_Q, _M), _K: ir.add(_K, _M)}) is root


def _joined(node: ir.Node) -> ir.Node:
    """f % m == g % m as (f - g) % m == 0, which sees the difference of both."""
    match node:
        case ir.Eq(
            item=ir.Sum(terms=((ir.Mod(left=f, right=m), a), (ir.Mod(left=g, right=n), b))), bound=0
        ) if m is n and a == -b:
            return ir.eq(ir.mod(ir.sub(f, g), m), ir.ZERO)
        case _:
            return node


def sees_itself(root: ir.Node) -> bool:
    """Every query sees the key of its own position, where there is one."""
    return impossible(ir.negate(ir.substitute(root, {_K: _Q})), {_Q: (0, FAR)})


def sees_some_key(root: ir.Node) -> bool:
    """Every query sees a key: its own, its neighbour, the first or the last, perhaps by turns.

    Positions are 0 <= q < len(k), which is so wherever there are at least as many keys as queries.
    """
    last = ir.sub(_N, ir.ONE)
    misses = [ir.negate(ir.substitute(root, {_K: key})) for key in (_Q, ir.ZERO, last)]
    for step in (-1, 1):
        key = ir.add(_Q, ir.Const(step))
        exists = ir.conj(ir.le(ir.ZERO, key), ir.lt(key, _N))
        misses.append(ir.negate(ir.conj(exists, ir.substitute(root, {_K: key}))))
    attempts = (misses[:1], misses[1:2], misses[2:3], misses[:4], misses)
    row = ir.lt(_Q, _N)
    return any(impossible(ir.conj(row, *some), {_Q: (0, FAR), _N: (1, FAR)}) for some in attempts)


def reaches_all(root: ir.Node, layers: int) -> bool:
    """Within so many layers every token knows every other, or every earlier one of a causal pattern.

    Proved for patterns that see everything, or in which one token (the first, say) sees and is seen by
    all: two layers then do.
    """
    target = ir.ge(_Q, _K) if is_causal(root) else ir.TRUE
    if layers >= 1 and holds_always(ir.implies(target, root)):
        return True
    first = ir.conj(ir.substitute(root, {_K: ir.ZERO}), ir.substitute(root, {_Q: ir.ZERO}))
    return layers >= 2 and holds_always(ir.implies(target, first))


def separators(root: ir.Node) -> frozenset[ir.Node]:
    """Functions f of the query's position with: (q, k) in the pattern entails f(q) == f(k)."""
    found: dict[ir.Node, frozenset[ir.Node]] = {}
    for node in ir.postorder(root):
        match node:
            case ir.Eq():
                found[node] = _separator(node)
            case ir.And(items=items):
                found[node] = frozenset().union(*(found[item] for item in items))
            case ir.Or(items=items):
                first, *others = (found[item] for item in items)
                found[node] = first.intersection(*others)
            case _:
                found[node] = frozenset()
    return found[root]


def _separator(node: ir.Eq) -> frozenset[ir.Node]:
    terms, constant = ir.linear(node.item)
    if any(term.is_pair for term in terms):
        return frozenset()
    ours = {t: c for t, c in terms.items() if t.deps & ir.Deps.QUERY}
    others = {t: -c for t, c in terms.items() if t not in ours}
    mine, theirs = ir.combine(ours), ir.combine(others, node.bound - constant)
    same = ours and ir.substitute(theirs, {_K: _Q}) is mine
    return frozenset((mine,)) if same else frozenset()
