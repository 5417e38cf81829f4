"""Attention with scores of its own by the kernels of the GPU back end.

Columns and products are computed by torch (``column_values``), which differentiates them, too. So a gradient of a real
input is: sums over the keys of a query, or the queries of a key, in the passes that walk them; or blocks of tiles that
``backward_pairs`` adds up, then sums along their diagonals, or entry by entry. All are in a fixed order.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends.arguments import Prepared, ScoreCall
from attndsl.backends.column_values import ColumnValues, Rows
from attndsl.backends.configs import Pass
from attndsl.backends.dtypes import EIGHT_BITS
from attndsl.backends.generated import SCORES, load
from attndsl.backends.pass_launches import Gained
from attndsl.backends.protocol import Request
from attndsl.backends.score_blocks import PairPass
from attndsl.backends.score_tables import Layout, in_a_row, narrowed, numbers_of
from attndsl.backends.scores import BoundScore
from attndsl.backends.standalone import precision
from attndsl.backends.triton_kernels import TritonKernels
from attndsl.codegen import (
    EXACT,
    PER_SCALE,
    Column,
    NoKernel,
    Product,
    ScoreFunctions,
    score_functions,
)
from attndsl.schedule import Schedule
from attndsl.source import AttnDslError, Diagnostic

reals = ir.reals


@dataclass(frozen=True, slots=True, eq=False)
class ScoreKernel:
    """The functions of the scores of a call, and what they read."""

    functions: ScoreFunctions
    bound: BoundScore
    request: Request
    rows: Mapping[str, Rows]
    loaded: Mapping[str, Any]
    kept: dict[Any, Tensor] = field(default_factory=dict)  # what no tensor of a call changes

    @staticmethod
    def of(bound: BoundScore, request: Request) -> ScoreKernel:
        """The functions of these scores.

        Raises:
            AttnDslError: A520, some part of them has no kernel.
        """
        root = bound.score
        if bound.weight is not None:
            root = ir.substitute(bound.weight, {reals.SCORE: root})
        try:
            if request.dtype in EIGHT_BITS:
                raise NoKernel(f"it is not computed for {request.dtype}")
            functions = score_functions(root, ir.Const(bound.first))
        except NoKernel as reason:
            raise refused(str(reason)) from None
        made = functools.partial(Rows.of, bound, request.batch, request.heads)
        q_len, k_len = request.q_len, request.k_len
        first = np.arange(q_len, dtype=np.int64) + bound.first
        distances = np.arange(q_len + k_len - 1, dtype=np.int64) + bound.first - (k_len - 1)
        rows = {
            "query": made(first, 0),
            "key": made(np.zeros((), np.int64), np.arange(k_len, dtype=np.int64)),
            "distance": made(distances, 0),
        }
        kernel = ScoreKernel(functions, bound, request, rows, load(functions.text, SCORES))
        kernel._check()
        return kernel

    @property
    def weighs(self) -> bool:
        """Whether the scores are the weights themselves."""
        return self.bound.weight is not None

    @property
    def loads(self) -> tuple[int, int]:
        """How many numbers are read for each pair: by its distance, and in another way."""
        return len(self.functions.of_distance), len(self.functions.reads)

    def of_pass(self, which: Pass) -> dict[str, Any]:
        """Arguments of a pass about scores."""
        shared = {name: self.loaded[name] for name in ("NUMBERS", "OF_QUERY", "OF_KEY")}
        shared |= {"WEIGHS": self.weighs}
        if which == "forward":
            return shared | {"SCORE": self.loaded["SCORE"]}
        of_query, of_key, _ = self.functions.gains
        gains = of_query if which == "backward_queries" else of_key
        shared |= {"GAINS": gains, "WIDE": 1 << max(0, gains - 1).bit_length()}
        shared |= {"DERIVATIVES": self.loaded["DERIVATIVES"]}
        return shared if which == "backward_queries" else shared | {"BEFORE": of_query}

    def _columns(self) -> dict[str, tuple[Column, ...]]:
        found = self.functions
        return {"query": found.of_query, "key": found.of_key, "distance": found.of_distance}

    def _check(self) -> None:
        """Finds whole numbers that kernels read and that are no float32 numbers.

        Raises:
            AttnDslError: A520, there are some.
        """
        for side, columns in self._columns().items():
            for column in columns:
                if column.is_exact:
                    node = (
                        column.node.item if isinstance(column.node, reals.FromInt) else column.node
                    )
                    values = np.asarray(ir.evaluate(node, self.rows[side].env))
                    if values.size and int(np.abs(values.astype(np.int64)).max()) >= EXACT:
                        raise refused(f"`{ir.show(node)}` reaches {EXACT:,}")

    def read(self, q: Tensor, k: Tensor, tables: Sequence[Tensor], scale: float) -> Read:
        """Computes what kernels read in a call; gradients flow to what is given."""
        named = {table.name: x for table, x in zip(self.bound.reals, tables, strict=True)}
        named[PER_SCALE] = q.new_tensor(1 / scale if scale else math.inf, dtype=torch.float32)
        group = q.shape[1] // max(1, k.shape[1])
        own = {
            "query": {ir.Side.QUERY: q},
            "key": {ir.Side.KEY: k.repeat_interleave(group, 1) if group > 1 else k},
            "distance": {},
        }
        values = {
            side: ColumnValues(self.rows[side], named, own[side], q.dtype, q.device)
            for side in self.rows
        }
        carried, stacked = [], []
        for side, columns in self._columns().items():
            found = [self._column(values[side], side, column) for column in columns]
            carried.append([x for x, column in zip(found, columns, strict=True) if column.carries])
            is_kept = all(column.is_kept for column in columns)
            stacked.append(self._stacked(side, found, is_kept))
        named |= {each.name: self._product(each, values) for each in self.functions.products}
        reads = [_narrowed(named[read.table], read.ambient) for read in self.functions.reads]
        layouts, flat = in_a_row(reads)
        sizes = len(self.rows["distance"].env.q), self.request.k_len - 1
        heads = self.request.heads, self.request.batch * self.request.heads
        numbers = numbers_of((*sizes, *heads), layouts)
        key = tuple(numbers)
        if key not in self.kept:
            self.kept[key] = torch.tensor(numbers, device=q.device)
        of_query, of_key, of_distance = stacked
        call = ScoreCall(of_query, of_key, of_distance, flat, self.kept[key])
        return Read(call, carried[0], carried[1], carried[2], reads, layouts)

    def _column(self, values: ColumnValues, side: str, column: Column) -> Tensor:
        key = side, column
        if key in self.kept:
            return self.kept[key]
        node = column.node
        if node.sort is ir.Sort.BOOL:
            node = reals.choose(node, reals.UNITY, reals.NOUGHT)
        length = self.rows[side].env.k if side == "key" else self.rows[side].env.q
        shape = self.request.batch, self.request.heads, len(length)
        found = values.value(reals.as_real(node)).expand(shape)
        if column.is_kept:
            self.kept[key] = found
        return found

    def _stacked(self, side: str, found: Sequence[Tensor], is_kept: bool) -> Tensor | None:
        if not found:
            return None
        if is_kept:
            if side not in self.kept:
                self.kept[side] = torch.stack(list(found))
            return self.kept[side]
        return torch.stack([x.detach() for x in found])

    def _product(self, product: Product, values: Mapping[str, ColumnValues]) -> Tensor:
        """The inner products of all rows, [B, H, rows of left, rows of right]."""
        left, right = (self._vectors(each, values) for each in (product.left, product.right))
        flat = left.flatten(2, -2) @ right.flatten(2, -2).mT
        shape = self.request.batch, self.request.heads, *left.shape[2:-1], *right.shape[2:-1]
        return flat.expand(*shape[:2], *flat.shape[2:]).reshape(shape)

    def _vectors(self, node: ir.Node, values: Mapping[str, ColumnValues]) -> Tensor:
        """All rows of a vector, [B or 1, H or 1, ..., width]."""
        side = {ir.Deps.QUERY: "query", ir.Deps.KEY: "key"}.get(node.deps & ir.Deps.PAIR)
        if side is not None:
            found = values[side].vector(node)
            length = self.request.q_len if side == "query" else self.request.k_len
            return found.expand(self.request.batch, self.request.heads, length, found.shape[-1])
        assert isinstance(node, reals.Row), "a vector of neither side is a row of a table"
        table = values["query"].tables[node.table]
        for axis, flag in enumerate((ir.Deps.BATCH, ir.Deps.HEAD)):
            table = table if node.ambient & flag else table.unsqueeze(axis)
        return table if node.index else table.unsqueeze(2)


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """Inputs of the kernels in a call, and where gradients go: columns [B, H, length], the table of each read."""

    call: ScoreCall
    of_query: Sequence[Tensor]
    of_key: Sequence[Tensor]
    of_distance: Sequence[Tensor]
    reads: Sequence[Tensor]
    layouts: Sequence[Layout]

    def targets(self) -> list[Tensor]:
        """Lists what gradients go to, in the order of the derivatives."""
        return [*self.of_query, *self.of_key, *self.of_distance, *self.reads]


def _narrowed(table: Tensor, ambient: ir.Deps) -> Tensor:
    by_batch, by_head = bool(ambient & ir.Deps.BATCH), bool(ambient & ir.Deps.HEAD)
    return narrowed(table, by_batch=by_batch, by_head=by_head)


@dataclass(frozen=True, slots=True, eq=False)
class TritonScores:
    """Attention with scores of its own over one tiled mask; ``side``: of the tiles of what is read at pairs."""

    passes: TritonKernels
    kernel: ScoreKernel
    pairs: PairPass | None = None  # None: no gradient is asked for

    @staticmethod
    def of(
        passes: TritonKernels, kernel: ScoreKernel, schedule: Schedule, options: Mapping[str, int]
    ) -> TritonScores:
        """Prepares the passes; ``schedule``, in square tiles, and ``options`` are those of reads at pairs."""
        functions, of_pass = kernel.functions, kernel.of_pass("backward_queries")
        names = ("NUMBERS", "OF_QUERY", "OF_KEY", "DERIVATIVES", "WEIGHS")
        given = {name: of_pass[name] for name in names}
        before, distances = sum(functions.gains[:2]), functions.gains[2]
        env, first = kernel.rows["query"].env, kernel.bound.first
        pairs = PairPass(schedule, options, given, before, distances, functions.reads, env, first)
        return TritonScores(passes, kernel, pairs)

    @property
    def nbytes(self) -> int:
        """Bytes of the passes and of what is kept beside them."""
        kept = sum(x.nbytes for x in self.kernel.kept.values())
        return self.passes.nbytes + kept + (self.pairs.kept.nbytes if self.pairs else 0)

    @torch.no_grad()
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, tables: Sequence[Tensor], *, scale: float
    ) -> tuple[Tensor, Tensor]:
        """(out [B, H, Q, Dv], lse [B, H, Q])."""
        read = self.kernel.read(q, k, tables, scale)
        return self.passes.forward(q, k, v, scale=scale, read=read.call)

    def backward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        tables: Sequence[Tensor],
        out: Tensor,
        lse: Tensor,
        dout: Tensor,
        dlse: Tensor | None,
        *,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """(dq, dk, dv, those of the tables), each in the dtype of its input.

        Where some of q, k and the tables require a gradient, those of the other tables are left at 0.
        """
        if lse.numel() == 0 or k.numel() == 0:
            dq, dk, dv, *others = (torch.zeros_like(x) for x in (q, k, v, *tables))
            return dq, dk, dv, others
        asked = [x.requires_grad for x in (q, k, *tables)]
        leaves = [
            x.detach().requires_grad_(asks or not any(asked))
            for x, asks in zip((q, k, *tables), asked, strict=True)
        ]
        with torch.enable_grad():
            read = self.kernel.read(leaves[0], leaves[1], leaves[2:], scale)
        with torch.no_grad():
            gained, shares = self._gained(q, read, scale)
            dlse = None if self.kernel.weighs else dlse
            given = q, k, v, out, lse, dout, dlse
            dq, dk, dv = self.passes.backward(*given, scale=scale, read=read.call, gained=gained)
        targets = [
            (target, share)
            for target, share in zip(read.targets(), shares(), strict=True)
            if target.requires_grad
        ]
        more_dq, more_dk, *of_tables = through(targets, leaves)
        dq, dk = (
            x if more is None else (x + more).to(x.dtype)
            for x, more in ((dq, more_dq), (dk, more_dk))
        )
        gains = [
            torch.zeros_like(x) if gain is None else gain
            for gain, x in zip(of_tables, tables, strict=True)
        ]
        return dq, dk, dv, gains

    def _gained(
        self, q: Tensor, read: Read, scale: float
    ) -> tuple[Gained, Callable[[], list[Tensor]]]:
        """Where passes write what is gained, and how it reads once they did: like all targets."""
        batch, heads = q.shape[:2]
        request = self.kernel.request
        of_query, of_key = (
            q.new_zeros((batch, heads, length, len(columns)), dtype=torch.float32)
            if columns
            else None
            for length, columns in ((request.q_len, read.of_query), (request.k_len, read.of_key))
        )
        totals: list[Tensor] = []

        def at_pairs(given: Prepared) -> None:
            assert self.pairs is not None, "a gradient was asked for"
            totals.extend(
                self.pairs.totals(given, read.call, read.layouts, scale, precision(q.dtype))
            )

        at = [*read.of_distance, *read.reads]

        def shares() -> list[Tensor]:
            columns = [x.unbind(-1) for x in (of_query, of_key) if x is not None]
            return [*(x for side in columns for x in side), *(totals or at)]

        asks = any(x.requires_grad for x in at)
        return Gained(of_query, of_key, at_pairs if asks else None), shares


def through(
    targets: Sequence[tuple[Tensor, Tensor]], leaves: Sequence[Tensor]
) -> list[Tensor | None]:
    """Leads gains of targets back to the leaves; None: nothing is asked for, or reached."""
    found: list[Tensor | None] = [None] * len(leaves)
    asked = [place for place, leaf in enumerate(leaves) if leaf.requires_grad]
    if not targets or not asked:
        return found
    outputs, shares = zip(*targets, strict=True)
    grads = torch.autograd.grad(
        outputs, [leaves[place] for place in asked], shares, allow_unused=True
    )
    for place, grad in zip(asked, grads, strict=True):
        found[place] = grad
    return found


def refused(reason: str) -> AttnDslError:
    title = f"the back end triton has no kernel for this score: {reason}"
    return AttnDslError(Diagnostic("A520", title, helps=('backend="reference" has',)))
