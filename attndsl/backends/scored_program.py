"""The expression of a call with scores: what it is differentiated by, and what is known of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from attndsl import ir, passes
from attndsl.backends.scores import BoundScore

reals = ir.reals

# Functions whose values are finite wherever those of their operand are.
_TAME = frozenset(("tanh", "sigmoid", "softplus", "relu", "abs", "sign", "step"))


@dataclass(frozen=True, slots=True)
class Program:
    """The expression of a call: ``root`` of the scaled product is the score, or the weight itself.

    ``gains``: the derivative of ``root`` by each leaf. ``factor``: of the weights of a softmax. ``bias``: b where the
    score is s + b. ``constants``: what neither tensors nor products of a call change. ``is_alike``: all heads and batch
    elements are alike to it. ``reads_batch``: batch elements
    are not alike. ``is_tame``: it is finite where products are, but for what is NaN for all pairs of a head.
    ``scaled``: the one node through which it reads the product, and its factor of the product; ``outer`` times
    ``inner`` is ``root``. ``once`` and ``once_in_all``: nodes that are used once, in the forward and in both passes.
    """

    root: ir.Node
    is_softmax: bool
    factor: ir.Node | None
    gains: Mapping[ir.Node, ir.Node]
    bias: ir.Node | None
    constants: frozenset[ir.Node]
    is_alike: bool
    reads_batch: bool
    is_tame: bool
    scaled: tuple[ir.Node, float]
    outer: float
    inner: ir.Node
    once: frozenset[ir.Node]
    once_in_all: frozenset[ir.Node]

    @staticmethod
    def of(bound: BoundScore) -> Program:
        """The expression of these scores."""
        root = bound.score
        if bound.weight is not None:
            root = ir.substitute(bound.weight, {reals.SCORE: root})
        gains = {leaf: _without_quotient(g) for leaf, g in passes.differentiate(root).items()}
        beside = [] if bound.factor is None else [bound.factor]
        nodes = [n for each in (root, *gains.values(), *beside) for n in ir.postorder(each)]
        constants: set[ir.Node] = set()
        for node in nodes:
            is_known = not is_given(node) and not isinstance(node, reals.Drawn)
            if is_known and all(part in constants for part in node.parts):
                constants.add(node)
        deps = ir.Deps.NONE
        outer, inner = _peeled(root)
        used = inner if bound.weight is None else root
        for node in nodes:
            if not isinstance(node, reals.Score | reals.Own) and not node.parts:
                deps |= node.deps
            elif isinstance(node, ir.Load | reals.Row):
                deps |= node.ambient
        whole = frozenset(n for n in constants if n.sort is ir.Sort.REAL)
        return Program(
            root,
            bound.weight is None,
            bound.factor,
            gains,
            None if bound.weight is not None or beside else reals.additive(root),
            whole,
            not deps & (ir.Deps.BATCH | ir.Deps.HEAD),
            bool(deps & ir.Deps.BATCH) or any(isinstance(n, reals.Drawn) for n in nodes),
            all(map(_is_tame, ir.postorder(root))),
            _scaled([used, *gains.values()]),
            outer,
            inner,
            _once([used, *beside]),
            _once([used, *gains.values(), *beside]),
        )

    @property
    def reads_own(self) -> bool:
        """Whether vectors of queries or keys are read beside their product."""
        return ir.holds(self.root, reals.Own)


def is_given(node: ir.Node) -> bool:
    """Whether its value comes with the tensors of a call."""
    is_table = isinstance(node, ir.Load) and node.kind is ir.Sort.REAL
    return is_table or isinstance(node, reals.Score | reals.Own | reals.Row)


def _is_tame(node: ir.Node) -> bool:
    match node:
        case reals.Apply(function=function):
            return function in _TAME
        case reals.Over(right=right):
            return isinstance(right, reals.Number) and bool(right.value)
        case ir.Load(kind=ir.Sort.REAL, index=index):
            return not any(item.deps & ir.Deps.PAIR for item in index)
        case reals.Dot():
            return False
        case _:
            return True


def _scaled(roots: list[ir.Node]) -> tuple[ir.Node, float]:
    """The one node that reads the product, where it is a multiple of it, and the factor; else the product itself."""
    if reals.SCORE in roots:
        return reals.SCORE, 1.0
    users = {n for root in roots for n in ir.postorder(root) if reals.SCORE in n.parts}
    match list(users):
        case [reals.Times(left=reals.Number(value=factor)) as user]:
            return user, factor
        case [reals.Over(left=reals.Score(), right=reals.Number(value=divisor)) as user] if divisor:
            return user, 1 / divisor
        case _:
            return reals.SCORE, 1.0


def _peeled(root: ir.Node) -> tuple[float, ir.Node]:
    match root:
        case reals.Times(left=reals.Number(value=factor), right=inner):
            return factor, inner
        case _:
            return 1.0, root


def _without_quotient(gain: ir.Node) -> ir.Node:
    """(a * x) / b as (a / b) * x: a derivative may round once more."""
    match gain:
        case reals.Over(
            left=reals.Times(left=reals.Number(value=factor), right=inner),
            right=reals.Number(value=divisor),
        ) if divisor:
            return reals.times(reals.Number(factor / divisor), inner)
        case _:
            return gain


def _once(roots: list[ir.Node]) -> frozenset[ir.Node]:
    """The nodes that are used once, as a root or as a part."""
    counts = Counter(roots)
    for node in dict.fromkeys(node for root in roots for node in ir.postorder(root)):
        counts.update(node.parts)
    return frozenset(node for node, count in counts.items() if count == 1)
