"""Symbolic derivatives of real expressions, found from the root inwards.

    c * tanh(s / c)          -->  {s: 1 - tanh(s / c) ** 2, c: tanh(s / c) - s / c * (1 - tanh(s / c) ** 2)}

Law: for each leaf x, (root at x + dx) - (root at x) = derivative * dx to first order. The derivative by a `Dot` is that
by the product itself: its vectors gain as much of each other.
"""

from __future__ import annotations

from attndsl import ir

reals = ir.reals


def differentiate(root: ir.Node) -> dict[ir.Node, ir.Node]:
    """Gives the derivative by each leaf that carries one: the score, reads of real tables, inner products.

    Leaves that change nothing are left out.
    """
    order = [node for node in ir.postorder(root) if node.sort is ir.Sort.REAL]
    shares: dict[ir.Node, list[ir.Node]] = {node: [] for node in order}
    shares[root].append(reals.UNITY)
    found: dict[ir.Node, ir.Node] = {}
    for node in reversed(order):
        total = reals.plus(*shares[node]) if shares[node] else reals.NOUGHT
        if total is reals.NOUGHT:
            continue
        if isinstance(node, ir.Load | reals.Score | reals.Dot):
            found[node] = total
        for part, share in _shares(node, total):
            shares[part].append(share)
    return dict(reversed(found.items()))


def _shares(node: ir.Node, gain: ir.Node) -> list[tuple[ir.Node, ir.Node]]:
    """The operands of a node and what a gain of the node gives to each."""
    match node:
        case reals.Plus(items=items):
            return [(item, gain) for item in items]
        case reals.Times(left=left, right=right):
            return [(left, reals.times(gain, right)), (right, reals.times(gain, left))]
        case reals.Over(left=left, right=right):
            quotient = reals.over(gain, right)
            return [(left, quotient), (right, reals.times(reals.Number(-1.0), quotient, node))]
        case reals.Apply(item=item):
            return [(item, reals.times(gain, _slope(node)))]
        case reals.Least(left=left, right=right):
            return _of_two(left, right, reals.minus(left, right), gain)
        case reals.Greatest(left=left, right=right):
            return _of_two(left, right, reals.minus(right, left), gain)
        case reals.Choose(cond=cond, yes=yes, no=no):
            nought = reals.NOUGHT
            return [(yes, reals.choose(cond, gain, nought)), (no, reals.choose(cond, nought, gain))]
        case _:
            return []


def _of_two(
    left: ir.Node, right: ir.Node, lag: ir.Node, gain: ir.Node
) -> list[tuple[ir.Node, ir.Node]]:
    """All to the right where ``lag`` is above 0, else all to the left."""
    behind = reals.apply("step", lag)
    return [
        (left, reals.times(gain, reals.minus(reals.UNITY, behind))),
        (right, reals.times(gain, behind)),
    ]


def _slope(node: reals.Apply) -> ir.Node:
    """The derivative of a function at its operand."""
    item, one = node.item, reals.UNITY
    match node.function:
        case "exp":
            return node
        case "exp2":
            return reals.times(reals.LN2, node)
        case "log":
            return reals.over(one, item)
        case "tanh":
            return reals.minus(one, reals.times(node, node))
        case "sigmoid":
            return reals.times(node, reals.minus(one, node))
        case "softplus":
            return reals.apply("sigmoid", item)
        case "relu":
            return reals.apply("step", item)
        case "sqrt":
            return reals.over(reals.HALF, node)
        case "abs":
            return reals.apply("sign", item)
        case _:  # steps and signs are flat
            return reals.NOUGHT
