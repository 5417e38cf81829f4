"""Nested quantifiers are built in time polynomial in their depth."""

from attndsl import ir
from tests.support.work import A_SECOND, within


def nested(depth: int, names: tuple[ir.Node, ...] = ()) -> ir.Node:
    if depth == 0:
        return ir.eq(ir.mod(ir.add(*names), ir.Const(5)), ir.Pos(ir.Side.QUERY))
    return ir.exists(ir.ZERO, ir.Const(3), lambda j: nested(depth - 1, (*names, j)))


def test_deep_quantifiers_are_built_quickly_and_numbered_from_the_inside():
    node = within(A_SECOND, lambda: nested(24))
    assert isinstance(node, ir.Exists)
    assert node.level == 23
    assert sum(isinstance(part, ir.Exists) for part in ir.postorder(node)) == 24


def test_a_rebuilt_quantifier_whose_inner_one_vanished_is_renumbered():
    two = ir.Const(2)
    q, k, flag = ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY), ir.Var("layer")

    def body(outer: ir.Node) -> ir.Node:
        inner = ir.exists(ir.ZERO, two, lambda j: ir.eq(ir.mul(q, j), ir.ZERO))
        return ir.conj(ir.eq(ir.mul(outer, outer), k), inner)

    made = ir.exists(ir.ZERO, flag, body)
    assert isinstance(made, ir.Exists)
    assert made.level == 1
    gone = ir.substitute(made, {q: ir.ZERO, k: ir.ZERO})
    assert gone is ir.exists(ir.ZERO, flag, lambda j: ir.eq(ir.mul(j, j), ir.ZERO))
