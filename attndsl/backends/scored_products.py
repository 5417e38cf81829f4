"""Scores of any kind, and gradients of biases, by products of pieces that stay in the cache."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set

import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends.merging import merged
from attndsl.backends.real_evaluation import Values, give_leaf
from attndsl.backends.scored_program import Program
from attndsl.backends.scored_strips import Pairs
from attndsl.backends.scored_work import Chunk, Work, of_heads, own_vectors, pieces_of

reals = ir.reals

_LOG2_E = math.log2(math.e)
# The least powers of two among weights: their products with others are normal numbers, which begin at -126 and -1022.
_LEAST = {torch.float32: -90.0, torch.float64: -900.0}


def product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a [items, heads, n, d] @ b [items, heads, d, m], either of one item or of one head."""
    if len(a) == 1:
        return torch.bmm(a[0], b[0], out=None if out is None else out[0])[None]
    return torch.bmm(a[:, 0], b[:, 0], out=None if out is None else out[:, 0])[:, None]


def _grouped(x: Tensor, key_heads: int) -> Tensor:
    """x [items, heads, n, ...] with the queries of all heads of a key head one after the other."""
    if x.shape[1] == key_heads:
        return x
    return x.reshape(len(x), key_heads, -1, *x.shape[3:])


def forward_by_products(work: Work, scale: float) -> None:
    """Adds what a strip gives to (out, lse) of its queries."""
    step = _softmax_of_piece if work.program.is_softmax else _weighted_piece
    for free, pieces in pieces_of(work):
        for piece in pieces:
            step(work, free, piece, scale)


def _softmax_of_piece(work: Work, free: Values, piece: Chunk, scale: float) -> None:
    (q, out, lse), (k, v) = work.of_queries, work.of_keys
    part, pairs = work.strip.batch.cut(piece.low, piece.high), work.pairs_of(piece.low, piece.high)
    queries, totals, levels = part.queries, out[piece.mine], lse[piece.mine]
    rows, columns = queries.read(q[piece.mine]), part.keys.read(k[piece.theirs])
    program = work.program
    values, full = _with_score(work, free, piece, rows, columns, scale, program.once)
    scores, is_ours = _of_pairs(values, program.inner, full)
    weights, mass, level = _softmax(scores, is_ours, program, pairs)
    if program.factor is not None:
        weights = _with_factor(values, program.factor, weights, pairs)
    o = _weighed(weights, part.keys.read(v[piece.theirs])) / mass[..., None]
    if not part.first_writer:
        o, level = merged(queries.read(totals), queries.read(levels), o, level)
    queries.write(totals, o)
    queries.write(levels, level)


def _weighted_piece(work: Work, free: Values, piece: Chunk, scale: float) -> None:
    (q, out, lse), (k, v) = work.of_queries, work.of_keys
    part, pairs = work.strip.batch.cut(piece.low, piece.high), work.pairs_of(piece.low, piece.high)
    queries, levels = part.queries, lse[piece.mine]
    rows, columns = queries.read(q[piece.mine]), part.keys.read(k[piece.theirs])
    program = work.program
    values, full = _with_score(work, free, piece, rows, columns, scale, program.once)
    weights, is_ours = _of_pairs(values, program.root, full)
    if pairs is not None:
        weights = pairs.hide(weights if is_ours else weights.clone())
    queries.add(out[piece.mine], _weighed(weights, part.keys.read(v[piece.theirs])))
    level = levels.new_zeros(weights.shape[:3])
    if pairs is not None and pairs.dead is not None:
        level = level.masked_fill(pairs.dead, -math.inf)
    queries.write(levels, torch.maximum(level, queries.read(levels)))


def _with_factor(values: Values, factor: ir.Node, weights: Tensor, pairs: Pairs | None) -> Tensor:
    """The weights of a softmax, or gains of such, times the factor: 0 for dead pairs, whatever it is of those."""
    found = weights * values(factor)
    return found if pairs is None else pairs.hide(found)


def _weighed(weights: Tensor, v: Tensor) -> Tensor:
    """Values times weights [items, heads, n, m], [items, heads, n, width]."""
    found = product(_grouped(weights, v.shape[1]), v)
    return found.reshape(*weights.shape[:3], v.shape[3])


def _with_score(
    work: Work,
    free: Values,
    piece: Chunk,
    rows: Tensor,
    columns: Tensor,
    scale: float,
    spent: Set[ir.Node],
) -> tuple[Values, tuple[int, ...]]:
    """The values of a piece, the products of its queries and keys among them; and the shape of its pairs."""
    values = work.strip.cut(free, piece.low, piece.high, own_vectors(work, rows, columns), spent)
    (node, factor), full = work.program.scaled, (*rows.shape[:3], columns.shape[2])
    grouped = _grouped(rows, columns.shape[1]) * (scale * factor)
    space = work.space("scores", (*grouped.shape[:3], full[3]), work.dtype)
    values.memo[node] = product(grouped, columns.mT, space).view(full)
    return values, full


def _of_pairs(values: Values, node: ir.Node, full: tuple[int, ...]) -> tuple[Tensor, bool]:
    """The value of a node at all pairs, and whether it may be overwritten."""
    found = values(node)
    is_ours = node in values.spent and node not in values.free | values.constants
    return found.expand(full), is_ours and found.shape == full


def _softmax(
    scores: Tensor, is_ours: bool, program: Program, pairs: Pairs | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights up to their sum [..., n, m], the sum, 1 where it is 0, and the log-sum-exp [..., n].

    ``scores`` lack the factor ``program.outer``; ``is_ours``: they may be overwritten.
    """
    outer = program.outer
    if pairs is not None:
        if not program.is_tame:
            scores, is_ours = pairs.hide(scores if is_ours else scores.clone()), True
        into = scores if is_ours else None
        scores, outer, is_ours = torch.add(pairs.levels, scores, alpha=outer, out=into), 1.0, True
    elif outer < 0:
        scores, outer, is_ours = scores * outer, 1.0, True
    top = scores.amax(-1, keepdim=True) * outer
    empty = top == -math.inf
    if pairs is not None and pairs.dead is not None:  # whatever such a query holds
        empty = empty | pairs.dead[..., None]
    weights = _exp(scores, outer, top.masked_fill(empty, 0.0), scores if is_ours else None)
    mass = weights.sum(-1)
    level = mass.log() + top[..., 0]
    if empty.any():
        weights.masked_fill_(empty, 0.0)
        mass.masked_fill_(empty[..., 0], 1.0)
        level.masked_fill_(empty[..., 0], -math.inf)
    return weights, mass, level


def _exp(scores: Tensor, outer: float, level: Tensor, into: Tensor | None) -> Tensor:
    """Computes exp(outer * scores - level) in the given memory: 0 where products with it could be subnormal numbers.

    Such numbers take processors a hundred times as long as others.
    By powers of two, whose function takes as long for what is small as for all others.
    """
    # taken from each other before they are scaled: large ones, rounded apart, would differ by more than they do
    powers = torch.add(-level, scores, alpha=outer, out=into).mul_(_LOG2_E)
    kept: Tensor = torch.threshold_(powers, _LEAST[powers.dtype], -math.inf)
    return kept.exp2_()


def backward_by_products(work: Work, scale: float) -> None:
    program = work.program
    leaves = {leaf: gain for leaf, gain in program.gains.items() if leaf is not reals.SCORE}
    later = {leaf: g for leaf, g in leaves.items() if {leaf, g} <= work.strip.free}
    sooner = {leaf: g for leaf, g in leaves.items() if leaf not in later}
    for free, pieces in pieces_of(work):
        summed: Tensor | None = (
            None  # of dt over the items, for leaves that are the same for all of them
        )
        totals = of_heads(work.totals, pieces[0].mine)
        for piece in pieces:
            gain = _backward_of_piece(work, free, piece, sooner, totals, scale)
            if later:
                each = gain.sum(0, keepdim=True) if len(gain) > 1 else gain
                summed = each.clone() if summed is None else summed.add_(each)
        if summed is not None:
            nothing = summed == 0  # dead pairs among them, whose derivatives may be no numbers
            for leaf, node in later.items():
                give_leaf(free, leaf, _times(summed, free(node), node, nothing), totals, {})


def _times(gain: Tensor, slope: Tensor, node: ir.Node, nothing: Tensor | None) -> Tensor:
    if isinstance(node, reals.Number):
        return gain if node.value == 1.0 else gain * node.value
    found = gain * slope
    return found if nothing is None else found.masked_fill_(nothing, 0.0)


def _backward_of_piece(
    work: Work,
    free: Values,
    piece: Chunk,
    leaves: Mapping[ir.Node, ir.Node],
    totals: Mapping[str, Tensor],
    scale: float,
) -> Tensor:
    """Adds what queries, keys, values and such leaves gain; the gain of the scores [items, heads, n, m]."""
    (q, dout, lse, offset, dq), (k, v, dk, dv) = work.of_queries, work.of_keys
    program = work.program
    part, pairs = work.strip.batch.cut(piece.low, piece.high), work.pairs_of(piece.low, piece.high)
    queries, keys = part.queries, part.keys
    rows, ours = queries.read(q[piece.mine]), queries.read(dout[piece.mine])
    columns, theirs = keys.read(k[piece.theirs]), keys.read(v[piece.theirs])
    level = queries.read(lse[piece.mine])
    if pairs is not None and pairs.dead is not None:
        rows, ours = (x.masked_fill(pairs.dead[..., None], 0.0) for x in (rows, ours))
    values, full = _with_score(work, free, piece, rows, columns, scale, program.once_in_all)
    key_heads = columns.shape[1]
    used = program.inner if program.is_softmax else program.root
    weights, is_ours = _of_pairs(values, used, full)
    if program.is_softmax:
        into = weights if is_ours else work.space("weights", full, work.dtype)
        weights, is_ours = _exp(weights, program.outer, level[..., None], into), True
    if pairs is not None:
        weights = pairs.hide(weights if is_ours else weights.clone())
    grouped, factor = _grouped(ours, key_heads), program.factor
    of_values = weights if factor is None else _with_factor(values, factor, weights, pairs)
    keys.add(dv[piece.theirs], product(_grouped(of_values, key_heads).mT, grouped))
    space = work.space("gain", (*grouped.shape[:3], full[3]), work.dtype)
    gain = product(grouped, theirs.mT, space).view(full)
    if factor is not None:
        gain = _with_factor(values, factor, gain, pairs)
    if program.is_softmax:
        gain = gain.sub_(queries.read(offset[piece.mine])[..., None]).mul_(weights)
    elif pairs is not None:
        gain = pairs.hide(gain)

    own = {side: torch.zeros_like(x) for side, x in values.own.items()}
    for leaf, node in leaves.items():
        of_leaf = _live(_times(gain, values(node), node, None), node, pairs)
        if leaf in work.strip.free:  # one value serves all items
            give_leaf(free, leaf, of_leaf.sum(0, keepdim=True), totals, {})
        else:
            give_leaf(values, leaf, of_leaf, totals, own)
    slope_node = program.gains.get(reals.SCORE)
    if slope_node is not None:
        slope = _live(_times(gain, values(slope_node), slope_node, None), slope_node, pairs)
        slope = _grouped(slope, key_heads)
        share = product(slope, columns).mul_(scale)
        queries.add(dq[piece.mine], share.view(*full[:3], share.shape[-1]))
        keys.add(dk[piece.theirs], product(slope.mT, _grouped(rows, key_heads)).mul_(scale))
    if own:
        queries.add(dq[piece.mine], own[ir.Side.QUERY])
        keys.add(dk[piece.theirs], _shared(own[ir.Side.KEY], work.group))
    return gain


def _shared(x: Tensor, group: int) -> Tensor:
    """The sum over the query heads of each key head, of x [items, heads, ...]."""
    return x.reshape(len(x), -1, group, *x.shape[2:]).sum(2)


def _live(gain: Tensor, node: ir.Node, pairs: Pairs | None) -> Tensor:
    """The gain with 0 for dead pairs, where a derivative may be no number."""
    if pairs is None or isinstance(node, reals.Number):
        return gain
    return pairs.hide(gain)
