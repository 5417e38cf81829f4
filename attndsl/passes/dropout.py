"""Dropout of weights as a factor of an attention: which pair is dropped is a number of its place and a seed.

    weights w of a pair    -->    w / (1 - p) where number(seed, batch, head, q, k) >= p * P, else 0

Law: the expectation over seeds is the attention itself; equal seeds drop equal pairs, whatever the back end, layout or
tiles. Numbers are exact integers below the prime P, mixed by x -> x**3 + c mod P, which permutes them, as 3 does not
divide P - 1: no state, no order, nothing that a back end could round.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from attndsl import ir

reals = ir.reals

PRIME: Final = (1 << 30) - 35  # products of two numbers below it fit into 60 bits
SEED: Final = ir.Table("<seed>", ir.Sort.INT, (1,))  # a name that no program can spell
_STEP: Final = 715_827_883  # any number without a pattern in its bits
_ROUNDS: Final = 2  # for the key, which changes fastest; a polynomial of degree 9 in it


def drop_weights(attention: ir.Attention, p: float) -> ir.Attention:
    """The attention whose weights are dropped with probability ``p``, below 1; a call gives `SEED` as an input."""
    kept = ir.le(ir.Const(round(p * PRIME)), _number())
    gain = reals.choose(kept, reals.Number(1.0 / (1.0 - p)), reals.NOUGHT)

    def dropped(part: ir.Scored) -> ir.Scored:
        factor = gain if part.factor is None else reals.times(part.factor, gain)
        return replace(part, factor=factor)

    terms = tuple(replace(term, parts=tuple(map(dropped, term.parts))) for term in attention.terms)
    return replace(attention, terms=terms, tables=(*attention.tables, SEED))


def _number() -> ir.Node:
    """The number of a pair, 0 to P - 1."""
    found = _below(ir.Load(SEED.name, SEED.kind, (ir.Const(0),), SEED.ambient))
    for item in (ir.Var("batch"), ir.Var("head"), ir.Pos(ir.Side.QUERY)):
        found = _mixed(_mixed(_below(ir.add(found, item))))
    found = _below(ir.add(found, ir.Pos(ir.Side.KEY)))
    for _ in range(_ROUNDS):
        found = _mixed(found)
    return found


def _mixed(x: ir.Node) -> ir.Node:
    return _below(ir.add(ir.mul(_below(ir.mul(x, x)), x), ir.Const(_STEP)))


def _below(x: ir.Node) -> ir.Node:
    return ir.mod(x, ir.Const(PRIME))
