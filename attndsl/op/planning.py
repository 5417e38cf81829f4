"""How a call is run: found once for all calls that differ in numbers alone."""

from __future__ import annotations

import functools
import hashlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch

from attndsl import ir
from attndsl.backends import (
    BoundScore,
    Composed,
    Executable,
    PackedComposed,
    Request,
    ScoredExecutable,
    edition,
    is_scheduled_on,
)
from attndsl.cache import Memo
from attndsl.compiler import Program, asks_for_batch, read_saved, saved
from attndsl.lowering import lower, lower_scores, packed_sides, walked, zero_key_counts
from attndsl.op.contents import Contents, stamp_of
from attndsl.open_lowering import OpenExecutable, lower_open
from attndsl.open_packed import OpenPacked, lower_packed
from attndsl.packed import PackedCall, read_call
from attndsl.positions import BOUNDS, NAMES, hidden, split
from attndsl.schedule import Call
from attndsl.scored import ScoredProgram
from attndsl.source import AttnDslError, Diagnostic

T = TypeVar("T")

# Calls and executables of a program; programs that came as text and belong to no pattern.
_REMEMBERED = 64
_PLACES: Final = frozenset(map(hidden, NAMES))
_TYPES: Final = {
    getattr(torch, name): np.dtype(name)
    for name in ("bool", "int8", "uint8", "int16", "int32", "int64")
}
REWRITTEN: Final = "a run-time input was written to between the forward and the backward"


class Options(NamedTuple):
    """Options of a call beside its tensors. All of them cross torch's dispatcher, in this order."""

    names: tuple[str, ...]  # of the tables
    axes: tuple[str, ...]
    extents: tuple[int, ...]  # of the axes
    layout: str  # "": the default
    backend: str
    scale: float


class ProgramName(NamedTuple):
    """All of a program that crosses torch's dispatcher: its text, or "" and the digest of a program of this process."""

    text: str
    digest: int = 0


class Planner:
    """A program and how its last calls run.

    ``text`` names the program anywhere. ``marker`` names it in this process, by a number that a compiled graph does not
    hold fixed, so that one graph serves many patterns: dynamo keeps the sizes of a tensor open, an int or text never.
    """

    def __init__(self, program: Program, text: str) -> None:
        self.program, self.text = program, text
        self.digest = digest_of(text)
        with no_dispatch():
            marker = torch.empty(self.digest, 0, device="cpu")  # takes no memory
        marker._dynamo_weak_dynamic_indices = {0}  # type: ignore[attr-defined]
        self.marker: Tensor | None = marker
        self.memo = Memo(_REMEMBERED)
        self._ready = Memo(_REMEMBERED)
        # how calls of few queries run, by their kind: without the lock of a memo, which each decoded token would feel
        self.steps: dict[Any, Any] = {}
        self._contents = Contents()

    def executable(
        self,
        request: Request,
        tables: Sequence[Tensor],
        options: Options,
        stamp: bytes | None = None,
    ) -> Executable:
        """How such a call runs, one for equal calls. Equal means equal contents of the tables.

        Without a stamp, tables on a GPU are scheduled there, each time anew and without a look at what they hold,
        where the pattern can be.

        ``stamp``: that of an earlier pass over the same tables, or of tables that are known not to change. They are
        then read only if what was found for it is forgotten.

        Raises:
            AttnDslError: A4xx lengths, extents and layouts; A5xx tables and back ends; A505, the tables are not those
                of the stamp.
        """
        if tables and stamp is None:
            opened = self._opened(request, tables, options)
            if opened is not None:
                return opened.executable(dict(zip(options.names, tables, strict=True)))

        def make(call: Call | PackedCall, stamp: bytes) -> Executable:
            made = lower(self.program, call, request, options.backend, options.layout)
            return replace(made, stamp=stamp)

        return self._remembered((request, edition()), request, tables, options, stamp, make)

    def stamp(self, names: Sequence[str], tables: Sequence[Tensor]) -> bytes:
        """A digest of what tables on the host hold."""
        return self._contents.stamp(names, tables)[0]

    def ready(self, kind: object) -> tuple[Executable, Options] | None:
        """How an earlier call of this kind ran; None where that is forgotten."""
        known: tuple[weakref.ref[Executable], Options] | None = self._ready.get(kind)
        found = None if known is None else known[0]()
        return None if known is None or found is None else (found, known[1])

    def keep_ready(self, kind: object, found: Executable, options: Options) -> None:
        """How calls of this kind run, as long as that is remembered."""
        self._ready.replace(kind, (weakref.ref(found), options))

    def is_open(self, request: Request, tables: Sequence[Tensor], options: Options) -> bool:
        """Whether a call without a stamp reads nothing of its tables to the host."""
        return bool(tables) and self._opened(request, tables, options) is not None

    def _opened(
        self, request: Request, tables: Sequence[Tensor], options: Options
    ) -> OpenExecutable | OpenPacked | None:
        """The call but for what its tables hold; None where they are read on the host."""
        if not is_scheduled_on(request.device) or any(x.device != request.device for x in tables):
            return None
        kinds = tuple((x.dtype, x.shape) for x in tables)
        key = "open", request, edition(), options[:-1], kinds
        found: OpenExecutable | OpenPacked | ir.NotOpen | None = self.memo.get(key)
        if found is None:
            found = self.memo.keep(key, self._prepared(request, tables, options))
        return None if isinstance(found, ir.NotOpen) else found

    def _prepared(
        self, request: Request, tables: Sequence[Tensor], options: Options
    ) -> OpenExecutable | OpenPacked | ir.NotOpen:
        """The call but for what its tables hold, or why it needs to be known."""
        if hidden(BOUNDS[0]) in options.names:
            return self._packed(request, tables, options)
        if any(name.startswith("<") and name not in _PLACES for name in options.names):
            return ir.NotOpen("the number of a sequence is read on the host")
        if any(x.dtype not in _TYPES for x in tables):
            return ir.NotOpen("a type of numbers is checked on the host")
        kinds = {name: _TYPES[x.dtype] for name, x in zip(options.names, tables, strict=True)}
        shapes = {name: x.shape for name, x in zip(options.names, tables, strict=True)}
        like = {n: np.broadcast_to(np.zeros((), kind), shapes[n]) for n, kind in kinds.items()}
        extents = dict(zip(options.axes, options.extents, strict=True))
        lengths = request.q_len, request.k_len, request.batch, request.heads
        placed = not _PLACES.isdisjoint(options.names)
        try:
            call = self.program.call(*lengths, extents, like, is_open=True)
            given = self.program, call, kinds, request, options.backend, options.layout
            return lower_open(*given, split(extents)[0])
        except AttnDslError:
            if not placed:
                raise
            return ir.NotOpen("an input has fewer or more entries than there are rows")
        except ir.NotOpen as reason:
            return reason

    def _packed(
        self, request: Request, tables: Sequence[Tensor], options: Options
    ) -> OpenPacked | ir.NotOpen:
        """The same of sequences that lie one behind the other."""
        given = dict(zip(options.names, tables, strict=True))
        shapes = {name: tuple(x.shape) for name, x in given.items()}
        try:
            if options.axes:
                raise ir.NotOpen("extents of packed sequences are read on the host")
            if any(x.dtype not in _TYPES for x in tables):
                raise ir.NotOpen("a type of numbers is checked on the host")
            kinds = {name: _TYPES[x.dtype] for name, x in given.items()}
            rest = shapes, kinds, options.backend, options.layout
            return lower_packed(self.program, request, *rest)
        except ir.NotOpen as reason:
            return reason

    def composed(
        self,
        request: Request,
        tables: Sequence[Tensor],
        options: Options,
        stamp: bytes | None,
        level: Tensor,
    ) -> Composed | PackedComposed:
        """The same call composed of torch's operations, around the log-sum-exp ``level`` of a forward.

        Raises:
            AttnDslError: as ``executable``.
        """

        def alone(program: Program, call: Call) -> Composed:
            schedules = walked(program, call, request.head_dim, options.layout)
            return Composed(schedules, zero_key_counts(program, call, request.device))

        def make(call: Call | PackedCall, stamp: bytes) -> Composed | PackedComposed:
            if not isinstance(call, PackedCall):
                return alone(self.program, call)
            calls = tuple(alone(call.program, group.call) for group in call.groups)
            return PackedComposed(*packed_sides(call, request.device), calls)

        key = request, "composed"
        found = self._remembered(key, request, tables, options, stamp, make)
        return found.around(level, options.scale)

    def scored(
        self,
        scored: ScoredProgram,
        request: Request,
        tables: Sequence[Tensor],
        options: Options,
        shapes: Mapping[str, tuple[int, ...]],
        expressions: tuple[ir.Node, ir.Node | None, ir.Node | None],
        reals: tuple[ir.Table, ...],
    ) -> ScoredExecutable:
        """How a part of an attention runs; score, weight, factor and ``reals`` as of `ScoredProgram.bound`.

        Raises:
            AttnDslError: as ``executable``; A501, a real input has another size than its dims say.
        """

        def make(call: Call, stamp: bytes) -> ScoredExecutable:
            sizes = scored.sizes(call, shapes)
            root, weight, factor = expressions
            score = scored.bound(call, sizes, root, weight, reals, factor)
            return lower_scores(
                self.program, call, request, score, options.backend, options.layout or None
            )

        form = scored.part.form, *expressions
        key = request, edition(), form, reals, tuple(sorted(shapes.items()))
        return self._remembered(key, request, tables, options, None, make)

    def scored_bound(
        self,
        scored: ScoredProgram,
        request: Request,
        tables: Sequence[Tensor],
        options: Options,
        shapes: Mapping[str, tuple[int, ...]],
        root: ir.Node,
    ) -> BoundScore:
        """Binds an expression over the queries of such a call.

        Raises:
            AttnDslError: as ``scored``.
        """

        def make(call: Call, stamp: bytes) -> BoundScore:
            return scored.bound(call, scored.sizes(call, shapes, root), root)

        key = request, "bound", root, tuple(sorted(shapes.items()))
        return self._remembered(key, request, tables, options, None, make)

    def _remembered(
        self,
        key: tuple[object, ...],
        request: Request,
        tables: Sequence[Tensor],
        options: Options,
        stamp: bytes | None,
        make: Callable[[Any, bytes], T],
    ) -> T:
        """The result of ``make`` for the checked call and the stamp of its tables; one for equal calls."""
        arrays: dict[str, Any] = {}
        if tables and stamp is None:
            stamp, arrays = self._contents.stamp(options.names, tables)
        key = *key, options[:-1], stamp
        found: T | None = self.memo.get(key)
        if found is not None:
            return found
        lengths = request.q_len, request.k_len, request.batch, request.heads
        of_call = lengths, options.names, options.axes, options.extents, stamp
        call: Call | PackedCall | None = self.memo.get(of_call)  # with the tables as they were
        if call is None:
            if tables and not arrays:
                now, arrays = stamp_of(options.names, tables)
                if now != stamp:
                    raise rewritten(self.program.mask.name, options.names)
            extents = dict(zip(options.axes, options.extents, strict=True))
            call = self.memo.keep(of_call, read_call(self.program, lengths, extents, arrays))
        return self.memo.keep(key, make(call, stamp or b""))

    def alone(self, most: int | None = None) -> Planner:
        """A planner of the same program that remembers calls of its own, ``most`` at most, by default as many."""
        made = Planner(self.program, self.text)
        made.memo = made.memo if most is None else Memo(most)
        return made

    @property
    def name(self) -> ProgramName:
        """The name of the program: its digest where dynamo traces, and only what this process runs."""
        marker, compiler = self.marker, torch.compiler
        # dynamo of torch 2.9 takes is_exporting() to be always true; the flag itself it reads
        exports = getattr(compiler, "_is_exporting_flag", True)
        if marker is None or not compiler.is_dynamo_compiling() or exports:
            return ProgramName(self.text)
        return ProgramName("", marker.shape[0])

    def batched(self, names: Sequence[str], differ: Sequence[bool]) -> list[bool] | None:
        """True for each table that begins with the batch dim; None where several calls cannot be folded into one.

        ``differ``: which tables differ from one of these calls to the next.
        """
        mask = self.program.mask
        if asks_for_batch(mask) or hidden(BOUNDS[0]) in names:
            return None
        dims = {table.name: table.dims for table in mask.tables}
        # names of no table are positions, which begin with the batch dim
        found = [dims.get(name, ("batch",))[:1] == ("batch",) for name in names]
        alike = all(begins or not differs for begins, differs in zip(found, differ, strict=True))
        return found if alike else None


def digest_of(text: str) -> int:
    """The same in every process; below 2^61, as it will be the size of a tensor."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 3


# By text and by digest: the planners of the patterns that are alive, so that equal patterns share one.
_ALIVE: weakref.WeakValueDictionary[str | int, Planner] = weakref.WeakValueDictionary()


def planner_of(program: Program) -> Planner:
    """The planner of a program, made before any call: a traced call cannot do so itself."""
    text = saved(replace(program.mask, doc="", claims=()), program.layer, program.without)
    made = _ALIVE.setdefault(text, Planner(program, text))
    if _ALIVE.setdefault(made.digest, made) is not made:
        made.marker = None  # another program has this digest
    return made


def planner_from(name: ProgramName) -> Planner:
    """The planner of that program; its text may come from another process.

    Raises:
        AttnDslError: A405, the text is no program, or no program of this process has the digest.
    """
    if name.text:
        return _ALIVE.get(name.text) or _restored(name.text)
    return _held(int(name.digest))


@functools.lru_cache(_REMEMBERED)
def _restored(text: str) -> Planner:
    return Planner(Program(*read_saved(text)), text)


@functools.lru_cache(_REMEMBERED)
def _held(digest: int) -> Planner:
    """Kept alive, for a backward that outlives its pattern."""
    found = _ALIVE.get(digest)
    if found is None:
        title = "a compiled graph names a pattern that this process does not hold"
        helps = ("compile the pattern first, or export the module by torch.export",)
        raise AttnDslError(Diagnostic("A405", title, helps=helps))
    return found


def rewritten(name: str, names: Sequence[str]) -> AttnDslError:
    """The error of a backward whose inputs are no longer those of its forward."""
    called = f"in the call of pattern {name!r}" if name else "in the call of a pattern"
    notes = (called, f"inputs: {', '.join(names)}")
    return AttnDslError(
        Diagnostic("A505", REWRITTEN, notes=notes, helps=("pass a copy, `x.clone()`",))
    )
