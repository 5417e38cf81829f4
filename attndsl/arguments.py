"""Arguments of a call beside its tensors and options: run-time inputs, heads of a rank, where the tokens stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

import torch

from attndsl import ir, op
from attndsl import schedule as scheduling
from attndsl.compiler import Program
from attndsl.inputs import gathered, refuse_gradients
from attndsl.positions import BLOCK_TABLE, BOUNDS, NAMES, QUERIES, hidden, refuse, with_heads
from attndsl.program_arguments import read_heads
from attndsl.source import AttnDslError, Diagnostic

Layouts: TypeAlias = str | scheduling.Layout | tuple[str | scheduling.Layout, ...]
# Arguments by name, beside inputs and positions, of methods that are told lengths.
_OF_A_LENGTH: Final = frozenset({"batch", "extents", "inputs", "head_start", "head_count"})
QUERIES_USED = "q_used"  # what calls name q_len, where q_len is how many rows there are
# The arguments that say where tokens stand, and under what name they go on.
_POSITIONS: Final = {
    **{name: name for name in (*NAMES, BLOCK_TABLE)},
    **{hidden(name): name for name in BOUNDS},  # inputs have the plain names, too
}
_POSITIONS_BY_LENGTH: Final = {
    QUERIES_USED if name == QUERIES.length else name: name for name in NAMES
}


def layout_text(layout: Layouts) -> str:
    """The layout as one plain string, which the operator can take."""
    return " / ".join(map(str, layout)) if isinstance(layout, tuple) else str(layout)


def take_positions(named: dict[str, Any], *, by_length: bool = False) -> dict[str, Any]:
    """Takes what says where tokens stand out of the arguments that were given by name; None says nothing.

    ``by_length``: of a method that is told lengths.
    """
    if not named:
        return {}
    spelled = _POSITIONS_BY_LENGTH if by_length else _POSITIONS
    found = {}
    for word in tuple(named):
        if word in spelled and (value := named.pop(word)) is not None:
            found[spelled[word]] = value
    return found


def read_inputs(
    program: Program, inputs: Mapping[str, Any] | None, named: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The inputs of the pattern.

    Raises:
        AttnDslError: A501, A506, as `inputs.gathered`.
    """
    declared = program.mask.tables
    if inputs is None and len(named) == len(declared):
        for table in declared:  # no set: in decoding, each function less is felt
            if table.name not in named:
                break
        else:
            if declared:
                refuse_gradients(declared, named)
            return named
    return gathered(program.mask, inputs, named, program.captured)


def read_call(
    program: Program,
    q_len: int,
    k_len: int | None,
    heads: int | None,
    /,
    *,
    batch: int | None = None,
    extents: Mapping[str, int] | None = None,
    inputs: Mapping[str, Any] | None = None,
    head_start: int = 0,
    head_count: int | None = None,
    **named: Any,
) -> scheduling.Call:
    """The call of a method that is told lengths, checked.

    Raises:
        AttnDslError: A4xx lengths, extents and positions, A501 inputs.
    """
    lengths, held, total = (q_len, q_len if k_len is None else k_len), heads, None
    if head_start or head_count is not None:
        held, total = read_heads(heads, head_start, head_count)
    at = take_positions(named, by_length=True)
    found = {**read_inputs(program, inputs, named)}
    found |= {hidden(name): value for name, value in at.items()}
    return program.call(*lengths, batch, held, extents, found, head_start, total)


def bind(
    program: Program,
    planner: op.Planner,
    lengths: tuple[int, int | None, int | None],
    device: torch.device | str,
    options: Mapping[str, Any],
    given: Mapping[str, Any],
) -> op.BoundCall:
    """A call of these lengths (queries, keys, heads) that is decided once; ``given`` is as of ``read_call``.

    ``block_table`` may be given, too: keys are then the rows of all pages of a batch element.

    Raises:
        AttnDslError: as ``read_call``; A413, a table of pages that cannot be.
    """
    given = dict(given)
    table = given.pop(BLOCK_TABLE, None)
    call = read_call(program, *lengths, **given)
    named = {name: x for name, x in given.items() if name not in _OF_A_LENGTH}
    at = take_positions(named, by_length=True)
    extents = given.get("extents")
    if call.model_heads is not None:
        extents = with_heads(extents, call.head_start, call.model_heads)
    shape = call.batch, call.heads, call.q_len, call.k_len
    inputs = read_inputs(program, given.get("inputs"), named)
    return op.BoundCall.of(planner, shape, device, inputs, at, table, extents=extents, **options)


def bind_scored(
    declared: ir.Mask,
    terms: Sequence[op.TermProgram],
    lengths: tuple[int, int | None, int | None],
    device: torch.device | str,
    call: op.ScoredCall,
    given: Mapping[str, Any],
) -> op.BoundAttention:
    """A call of an attention that is decided once, as `bind` of a pattern; real inputs may be left to each call.

    ``declared`` has the inputs of all parts.

    Raises:
        AttnDslError: as ``bind``.
    """
    q_len, k_len, heads = lengths
    k_len = q_len if k_len is None else k_len
    options = {name: x for name, x in given.items() if name in _OF_A_LENGTH and name != "inputs"}
    named = {name: x for name, x in given.items() if name not in _OF_A_LENGTH}
    table = named.pop(BLOCK_TABLE, None)
    told = {word: named[word] for word in _POSITIONS_BY_LENGTH.keys() & named.keys()}
    at, inputs = take_positions(named, by_length=True), given.get("inputs")
    here = named.keys() | (inputs.keys() if isinstance(inputs, Mapping) else set())
    kept = tuple(t for t in declared.tables if t.kind is not ir.Sort.REAL or t.name in here)
    found = gathered(replace(declared, tables=kept), inputs, named)
    parts = [part for term in terms for part in term.parts]
    among = max((part.part.member[1] for part in parts if part.part.member), default=1)
    if heads is not None and heads % among:
        title = f"heads come in groups of {among} here: {heads} are none"
        raise AttnDslError(Diagnostic("A402", title))
    checked = [
        read_call(
            part.program,
            *(q_len, k_len, None if heads is None else heads // among),
            inputs={t.name: found[t.name] for t in part.program.mask.tables},
            **options,
            **told,
        )
        for part in parts
        if not part.part.keys
    ]
    batch = max((each.batch for each in checked), default=given.get("batch") or 1)
    held = max((each.heads for each in checked), default=heads or 1) * among
    extents = given.get("extents")
    if checked and checked[0].model_heads is not None:
        extents = with_heads(extents, checked[0].head_start, checked[0].model_heads)
    made = replace(call, extents=extents, inputs=found, positions=at)
    return op.BoundAttention.of(terms, (batch, held, q_len, k_len), device, made, table)


def check_plain_order(call: scheduling.Call) -> None:
    """For what is said of the tokens of a sequence, positions are not given.

    Raises:
        AttnDslError: A413, they are.
    """
    if call.positions is not None:
        title = "this is said of whole sequences: positions of tokens are not given here"
        refuse(title)
