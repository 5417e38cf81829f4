"""`and` binds tighter than `or`: where a pattern that hides later keys shows some of them behind an `or`."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace

from attndsl import ir
from attndsl import syntax as syn
from attndsl.source import AttnDslError

from .entry import Given, elaborate
from .linking import Resolve

_KEY, _QUERY = ir.Pos(ir.Side.KEY), ir.Pos(ir.Side.QUERY)
_HIDES_LATER_KEYS = (ir.le(_KEY, _QUERY), ir.lt(_KEY, _QUERY))
_MOST_TRIED = 16  # conditions of one body, each of which is read as a pattern of its own


def precedence_hint(
    module: syn.Module,
    entry: str | None = None,
    values: Mapping[str, Given] | None = None,
    resolve: Resolve | None = None,
) -> str | None:
    """A sentence about a body `causal and a or b`, which is `(causal and a) or b`; None where there is none.

    The caller knows that the pattern is not causal. Parentheses around `causal and a`, or `b` in front, say that it
    is meant so.
    """
    found = [each for each in module.declarations if isinstance(each, syn.Pattern)]
    written = next((each for each in reversed(found) if entry in (None, each.name)), None)
    if written is None or not isinstance(written.body, syn.Or):
        return None

    def hides(condition: syn.Expression) -> bool:
        alone = replace(written, body=condition, assertions=(), zeros=None)
        others = (alone if each is written else each for each in module.declarations)
        with contextlib.suppress(AttnDslError):
            mask = elaborate(replace(module, declarations=(*others,)), alone.name, values, resolve)
            return mask.root in _HIDES_LATER_KEYS
        return False

    for part, condition in itertools.islice(_guards(written.body), _MOST_TRIED):
        if hides(condition):
            return _sentence(written.body, part, condition)
    return None


def _guards(body: syn.Or) -> Iterator[tuple[syn.And, syn.Expression]]:
    """Conditions that a reader may take to stand before all that follows: `x` of `x and a or b`."""
    for part in body.operands[:-1]:
        if isinstance(part, syn.And) and part.span.start == part.operands[0].span.start:
            for condition in part.operands[:-1]:
                yield part, condition


def _sentence(body: syn.Or, part: syn.And, condition: syn.Expression) -> str:
    kept = tuple(each for each in part.operands if each is not condition)
    rest = syn.And(kept) if len(kept) > 1 else kept[0]
    inner = syn.Or(tuple(rest if each is part else each for each in body.operands))
    at = body.operands.index(part)
    outside = syn.Or((*body.operands[at + 1 :], *body.operands[: at + 1]))
    guard, meant = (
        syn.format_expression(each) for each in (condition, syn.And((condition, inner)))
    )
    return (
        f"`and` binds tighter than `or`: what follows the `or` is not bound by `{guard}` and shows later keys; "
        f"`{meant}` shows none; where they are meant, `{syn.format_expression(outside)}` says so"
    )
