"""Sequences that lie one behind the other, as calls of their own: those of about one length are called together.

Law: a packed call gives, sequence by sequence, what the call on that sequence alone gives.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
import torch

from attndsl import ir
from attndsl import schedule as scheduling
from attndsl.compiler import Program, asks_for_batch
from attndsl.inputs import gathered, read
from attndsl.positions import BOUNDS, KEYS, QUERIES, hidden, refuse
from attndsl.source import AttnDslError

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

SHORT: Final = 128  # tokens; sequences up to so many are called with others of about as many
STEP: Final = 16  # tokens; by so many they differ at most
_NUMBER: Final = "<sequence>"  # a table by a name that no program can spell


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Sequences that are called together, at the greatest of their lengths.

    Args:
        queries: The row of the packed q that each query is, int64 [sequences, queries]; -1 for none.
        keys: Likewise of k.
        call: The call, whose batch elements are the sequences.
    """

    queries: IntArray
    keys: IntArray
    call: scheduling.Call


@dataclass(frozen=True, slots=True, eq=False)
class PackedCall:
    """A call on packed sequences, each of which is in one group; ``program`` is that of the groups."""

    program: Program
    groups: tuple[Group, ...]
    q_len: int
    k_len: int
    heads: int

    @property
    def nbytes(self) -> int:
        """Bytes of the tables and the numbers of rows."""
        held = (
            group.queries.nbytes + group.keys.nbytes + group.call.nbytes for group in self.groups
        )
        return sum(held)


def read_call(
    program: Program,
    lengths: tuple[int, int, int, int],
    extents: Mapping[str, Any] | None,
    inputs: Mapping[str, Any],
) -> scheduling.Call | PackedCall:
    """The call of these queries, keys, batch elements and heads; packed where the inputs hold bounds of sequences.

    Raises:
        AttnDslError: A413 for bounds; else as ``Program.call``, with a note on the sequence.
    """
    names = [hidden(name) for name in BOUNDS]
    if names[0] not in inputs:
        return program.call(*lengths, extents, inputs)
    q_len, k_len, _, heads = lengths
    rest = {name: value for name, value in inputs.items() if name not in names}
    bounds = read_bounds(q_len, k_len, *(inputs[name] for name in names))
    mask = program.mask
    arrays = {name: read(name, value) for name, value in gathered(mask, rest).items()}
    if asks_for_batch(mask):
        program = _numbered(program)
        mask, arrays[_NUMBER] = program.mask, np.arange(len(bounds[0]) - 1)
    groups = []
    for each in companies(mask, arrays, *bounds):
        rows = each.queries, each.keys
        told = {hidden(name): x for name, x in each.positions.items()}
        shape = rows[0].shape[1], rows[1].shape[1], len(rows[0]), heads
        try:
            groups.append(Group(*rows, program.call(*shape, extents, {**each.inputs, **told})))
        except AttnDslError as error:
            raise each.located(error) from error
    return PackedCall(program, tuple(groups), q_len, k_len, heads)


@dataclass(frozen=True, slots=True, eq=False)
class Company:
    """Sequences that are called together, at the greatest of their lengths: batch elements of one call.

    ``queries`` and ``keys`` as of `Group`; ``positions`` by the names of arguments, where lengths differ.
    """

    members: IntArray
    queries: IntArray
    keys: IntArray
    inputs: Mapping[str, Any]
    positions: Mapping[str, IntArray]

    def located(self, error: AttnDslError) -> AttnDslError:
        """The error of their call, with a note on which sequences they are."""
        return _located(error, self.members)


def companies(
    mask: ir.Mask, arrays: Mapping[str, Any], of_q: IntArray, of_k: IntArray
) -> Iterator[Company]:
    """The sequences between these bounds, with the inputs of each company: arrays, or tensors that stay differentiable.

    Raises:
        AttnDslError: A501, an input has another shape than its dims and the sequences say.
    """
    spans = _Spans.of(of_q), _Spans.of(of_k)
    of_sequences = _Inputs(mask, arrays, *spans)
    for members in _grouped(mask, *(x.lengths for x in spans)):
        rows = spans[0].rows(members), spans[1].rows(members)
        told = _told(*(x.lengths[members] for x in spans))
        yield Company(members, *rows, of_sequences.of(members, *rows), told)


def read_bounds(q_len: int, k_len: int, of_q: Any, of_k: Any) -> tuple[IntArray, IntArray]:
    """Where each sequence begins in q and in k, and where the last one ends.

    Raises:
        AttnDslError: A413, they descend, do not go from 0 to the number of tokens, or are not as many.
    """
    first, second = (
        _checked(name, value, length, rows)
        for name, value, length, rows in zip(
            BOUNDS, (of_q, of_k), (q_len, k_len), "qk", strict=True
        )
    )
    if len(first) != len(second):
        counts = f"{len(first) - 1} and {len(second) - 1}"
        refuse(f"{BOUNDS[0]} and {BOUNDS[1]} are of {counts} sequences", "q and k have as many")
    return first, second


@functools.lru_cache(16)
def _numbered(program: Program) -> Program:
    """The program in which ``batch`` is the number of a sequence, as it is read from an input."""
    mask = program.mask
    table = ir.Table(_NUMBER, ir.Sort.INT, ("batch",))
    known: dict[ir.Node, ir.Node] = {
        node: ir.Load(_NUMBER, ir.Sort.INT, (), table.ambient)
        for root in (mask.root, mask.zeros)
        for node in ir.postorder(root)
        if isinstance(node, ir.Var) and node.name == "batch"
    }
    made = replace(mask, tables=(*mask.tables, table), zeros=ir.substitute(mask.zeros, known))
    made = made.with_root(ir.substitute(mask.root, known))
    return Program(made, program.layer, program.without)


def dense(call: PackedCall) -> BoolArray:
    """The meaning: bool [1, heads, q_len, k_len], each sequence a block of it.

    Raises:
        AttnDslError: as ``Program.dense``.
    """
    ir.check_pairs(call.heads * call.q_len * call.k_len)
    result = np.zeros((1, call.heads, call.q_len, call.k_len), dtype=bool)
    for group in call.groups:
        for seen, rows, columns in zip(
            call.program.dense(group.call), group.queries, group.keys, strict=True
        ):
            live = seen[:, rows >= 0][:, :, columns >= 0]
            result[0][:, rows[rows >= 0][:, None], columns[columns >= 0]] = live
    return result


def zero_keys(call: PackedCall) -> IntArray | None:
    """How many zero keys each query sees, [1, heads, q_len]; None where none has any.

    Raises:
        AttnDslError: as ``Program.zero_keys``.
    """
    result = np.zeros((1, call.heads, call.q_len), dtype=np.int64)
    for group in call.groups:
        counts = call.program.zero_keys(group.call)
        if counts is None:
            return None
        shape = len(group.queries), call.heads, group.queries.shape[1]
        for count, rows in zip(np.broadcast_to(counts, shape), group.queries, strict=True):
            result[0][:, rows[rows >= 0]] = count[:, rows >= 0]
    return result if call.groups else None


# ---------------------------------------------------------------------------- bounds


@dataclass(frozen=True, slots=True, eq=False)
class _Spans:
    """The rows of each sequence: so many from a first one on."""

    starts: IntArray
    lengths: IntArray

    @staticmethod
    def of(bounds: IntArray) -> _Spans:
        return _Spans(bounds[:-1], np.diff(bounds))

    def rows(self, members: IntArray) -> IntArray:
        """The rows of some sequences, [sequences, longest]; -1 behind the end of one."""
        lengths = self.lengths[members]
        places = np.arange(lengths.max(initial=0))
        rows = self.starts[members][:, None] + places
        return np.where(places < lengths[:, None], rows, -1)


def _checked(name: str, value: Any, tokens: int, rows: str) -> IntArray:
    """Where each sequence begins and the last one ends, int64 [sequences + 1]."""
    array = read(name, value)
    array = array[0] if array.ndim == 2 and len(array) == 1 else array
    if array.ndim != 1 or array.dtype.kind not in "iu" or not len(array):
        shown = f"{array.dtype} of shape {list(array.shape)}"
        refuse(f"{name} needs an integer for each sequence and one more, got {shown}")
    bounds: IntArray = array.astype(np.int64)
    if bounds[0]:
        refuse(f"{name} begins with {bounds[0]}, not with 0")
    falls = np.flatnonzero(np.diff(bounds) < 0)
    if len(falls):
        at = int(falls[0])
        title = f"{name} falls from {bounds[at]} to {bounds[at + 1]}"
        refuse(title, f"sequence {at} would have fewer than 0 tokens")
    if bounds[-1] != tokens:
        title = f"{name} ends at {bounds[-1]}, but {rows} has {tokens} tokens"
        refuse(title, "each token belongs to one sequence")
    return bounds


def _grouped(mask: ir.Mask, q_len: IntArray, k_len: IntArray) -> list[IntArray]:
    """The sequences of each group, in order.

    Short ones of different lengths go together where nothing but their tokens depends on a length.
    """
    lengths = np.stack([q_len, k_len], axis=1)
    if not (mask.queries.segments or mask.keys.segments or mask.conditions):
        is_short = np.all((lengths <= SHORT) & (lengths > 0), axis=1)
        lengths = np.where(is_short[:, None], -(-lengths // STEP) * STEP, lengths)
    found = defaultdict[tuple[int, ...], list[int]](list)
    for number, pair in enumerate(lengths.tolist()):
        found[tuple(pair)].append(number)
    return [np.array(members, dtype=np.int64) for members in found.values()]


def _told(q_len: IntArray, k_len: IntArray) -> dict[str, IntArray]:
    """Positions of sequences whose lengths differ."""
    if (q_len == q_len[0]).all() and (k_len == k_len[0]).all():
        return {}
    return {QUERIES.length: q_len, KEYS.length: k_len}


def _located(error: AttnDslError, members: IntArray) -> AttnDslError:
    shown = f"in sequence {members[0]}"
    if len(members) > 1:
        some = ", ".join(map(str, members[:4].tolist())) + (", ..." if len(members) > 4 else "")
        shown = f"batch elements are sequences {some}"
    return AttnDslError(replace(d, notes=(*d.notes, shown)) for d in error.diagnostics)


# ---------------------------------------------------------------------------- inputs


@dataclass(frozen=True, slots=True, eq=False)
class _Inputs:
    """The inputs of a packed call, cut to some sequences: given packed, by sequence, or for all alike."""

    mask: ir.Mask
    arrays: Mapping[str, Any]
    queries: _Spans
    keys: _Spans

    def of(self, members: IntArray, q_rows: IntArray, k_rows: IntArray) -> dict[str, Any]:
        """The inputs of these sequences as those of batch elements."""
        made = {}
        for table in self.mask.tables:
            array = self.arrays[table.name]
            rows = {"q": q_rows, "k": k_rows, "pos": k_rows}
            if _is_packed(table, array):
                made[table.name] = self._unpacked(table, array, rows)
            else:
                made[table.name] = self._cut(table, array, members, rows)
        return made

    def _unpacked(self, table: ir.Table, array: Any, rows: Mapping[str, IntArray]) -> Any:
        """The entries of each sequence, of an array with one for each token."""
        batch = table.dims.index("batch")
        rest = [dim for dim in table.dims if dim != "batch"]
        axis = next(i for i, dim in enumerate(rest) if dim in rows)
        wanted = rows[str(rest[axis])]
        side = self.queries if rest[axis] == "q" else self.keys
        tokens = int(side.lengths.sum())
        if array.shape[axis] != tokens:
            title = f"input {table.name!r} has {array.shape[axis]} entries, but there are {tokens} tokens"
            raise ir.misfit(table, title)
        if not tokens:
            shape = (*array.shape[:axis], 1, *array.shape[axis + 1 :])
            is_array = isinstance(array, np.ndarray)
            array = np.zeros(shape, array.dtype) if is_array else array.new_zeros(shape)
        taken = _taken(array, np.maximum(wanted, 0), axis)  # [..., sequences, rows, ...]
        order = [n for n in range(taken.ndim) if n != axis]
        order.insert(batch, axis)
        return taken.transpose(order) if isinstance(taken, np.ndarray) else taken.permute(order)

    def _cut(
        self, table: ir.Table, array: Any, members: IntArray, rows: Mapping[str, IntArray]
    ) -> Any:
        """The entries of each sequence, of an array that has them by sequence, or for all alike."""
        if array.ndim != len(table.dims):
            return array  # refused as any call does
        for axis, dim in enumerate(table.dims):
            size = array.shape[axis]
            if dim == "batch":
                count = len(self.queries.lengths)
                if size not in (1, count):
                    title = f"input {table.name!r} has {size} entries along batch, but there are {count} sequences"
                    raise ir.misfit(table, title)
                array = array if size == 1 else _taken(array, members, axis)
            elif dim in rows and not (size == 1 and dim != "pos"):
                self._check_length(table, str(dim), size)
                array = array[(slice(None),) * axis + (slice(rows[str(dim)].shape[1]),)]
        return array

    def _check_length(self, table: ir.Table, dim: str, size: int) -> None:
        side = self.queries if dim == "q" else self.keys
        longest = int(side.lengths.max(initial=0))
        if size == longest or (size > longest and "batch" in table.dims):
            return
        title = f"input {table.name!r} has {size} entries along {dim}, but the longest sequence has {longest} tokens"
        helps: tuple[str, ...] = ()
        if size == side.lengths.sum() and "batch" not in table.dims:
            declared = f"input {ir.declaration(replace(table, dims=('batch', *table.dims)))}"
            helps = (
                f"for an entry for each token declare that batch elements differ: `{declared}`",
            )
        raise ir.misfit(table, title, helps)


def _taken(array: Any, index: IntArray, axis: int) -> Any:
    """Entries along an axis, of an array or a tensor."""
    found = index if isinstance(array, np.ndarray) else torch.from_numpy(index).to(array.device)
    return array[(slice(None),) * axis + (found,)]


def _is_packed(table: ir.Table, array: Any) -> bool:
    """Whether one dim holds the tokens of all sequences, in place of batch and position."""
    by_token = sum(dim in ("q", "k", "pos") for dim in table.dims)
    return "batch" in table.dims and by_token == 1 and array.ndim == len(table.dims) - 1
