"""Dropout of weights as a factor of an attention: which pair is dropped is a number of its place and a seed.

    weights w of a pair    -->    w / (1 - p) where number(seed, batch, head, q, k) >= p * 2**31, else 0

Law: the expectation over seeds is the attention itself; equal seeds drop equal pairs, whatever the back end, layout or
tiles. A query, of its head, batch element and seed, and a key have exact integers below a prime P each, mixed by
x -> x**3 + c mod P, which permutes them, as 3 does not divide P - 1; the number of a pair is drawn of both
(`ir.reals.Drawn`), in a few operations of 32 bits: no state, no order, nothing that a back end could round.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from attndsl import ir

reals = ir.reals

PRIME: Final = (1 << 30) - 35  # products of two numbers below it fit into 60 bits
SEED: Final = ir.Table("<seed>", ir.Sort.INT, (1,))  # a name that no program can spell
_STEP: Final = 715_827_883  # any number without a pattern in its bits
_ROUNDS: Final = 2  # polynomials of degree 9 in what is mixed


def drop_weights(attention: ir.Attention, p: float) -> ir.Attention:
    """The attention whose weights are dropped with probability ``p``, below 1; a call gives `SEED` as an input."""
    gain = reals.times(reals.Number(1.0 / (1.0 - p)), _kept(p))

    def dropped(part: ir.Scored) -> ir.Scored:
        factor = gain if part.factor is None else reals.times(part.factor, gain)
        return replace(part, factor=factor)

    terms = tuple(replace(term, parts=tuple(map(dropped, term.parts))) for term in attention.terms)
    return replace(attention, terms=terms, tables=(*attention.tables, SEED))


def _kept(p: float) -> ir.Node:
    """1 where a weight is kept, else 0."""
    query = _below(ir.Load(SEED.name, SEED.kind, (ir.Const(0),), SEED.ambient))
    for item in (ir.Var("batch"), ir.Var("head"), ir.Pos(ir.Side.QUERY)):
        query = _mixed(_below(ir.add(query, item)))
    return reals.Drawn(min(round(p * 2**31), 2**31 - 1), query, _mixed(ir.Pos(ir.Side.KEY)))


def _mixed(x: ir.Node) -> ir.Node:
    for _ in range(_ROUNDS):
        x = _below(ir.add(ir.mul(_below(ir.mul(x, x)), x), ir.Const(_STEP)))
    return x


def _below(x: ir.Node) -> ir.Node:
    return ir.mod(x, ir.Const(PRIME))
