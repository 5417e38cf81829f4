"""Attention over the lists of an open mask on GPUs: made, inverted and walked where the inputs lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, get_args

import torch
import triton
from torch import Tensor

from attndsl import ir
from attndsl.backends import kernels
from attndsl.backends.arguments import PrepareBackwardCall, strides
from attndsl.backends.configs import Config, ListPass, architecture, of_lists, options, padded
from attndsl.backends.dtypes import EIGHT_BITS, out_dtype
from attndsl.backends.generated import load
from attndsl.backends.launching import Launch
from attndsl.backends.list_arguments import (
    ListsBackwardArgs,
    ListsBackwardCall,
    ListsForwardArgs,
    ListsForwardCall,
    ListsMergeArgs,
    ListsMergeCall,
    ListsSumKeysArgs,
    ListsSumKeysCall,
    ListsSumQueriesArgs,
    ListsSumQueriesCall,
)
from attndsl.backends.list_entries import ByBlock, Entries, EntryMaker, by_block
from attndsl.backends.open_schedule import OpenPlan
from attndsl.backends.pages import Pages
from attndsl.backends.pass_launches import few, preparation
from attndsl.backends.protocol import Request
from attndsl.backends.standalone import on_device, precision, reachable
from attndsl.schedule import BLOCK, OpenLists

LONGEST: Final = 512  # entries of an item: K and V are read once for all of them
MERGED: Final = 16  # queries of a program that merges: rows lie apart, and each is long
BUDGET: Final = 1 << 26  # numbers of shares at once: 256 MiB


@dataclass(frozen=True, slots=True, eq=False)
class ListPlan:
    """All of such a call that follows from shapes."""

    lists: OpenLists
    maker: EntryMaker
    judge: OpenPlan | None  # of what is left for each pair
    configs: Mapping[ListPass, Config]
    plan_of: Tensor  # int32 [1 or batch, 1 or heads]
    clears: bool

    @staticmethod
    def of(lists: OpenLists, request: Request) -> ListPlan:
        """Prepares the lists of calls.

        Raises:
            NotOpen: kernels cannot judge what is left for each pair, or take no such tensors.
        """
        if request.dtype in EIGHT_BITS:
            raise ir.NotOpen("kernels over lists take no 8-bit numbers")
        arch, widths = architecture(request.device), (request.head_dim, request.value_dim)
        passes: tuple[ListPass, ...] = get_args(ListPass)
        found = {which: of_lists(which, arch, request.dtype.itemsize, *widths) for which in passes}
        configs = {which: config for which, config in found.items() if config is not None}
        if len(configs) < len(passes):
            raise ir.NotOpen(
                f"lists of heads of width {max(widths)} do not fit the shared memory of {arch}"
            )
        judge = None
        if any(rest is not ir.TRUE for rest in lists.rests):
            pieces = zip(lists.mask.pieces, lists.rests, strict=True)
            left = replace(lists.mask, pieces=tuple(replace(x, root=rest) for x, rest in pieces))
            judge = OpenPlan.of(left, (), request.device)
        plan_of = torch.from_numpy(lists.mask.plan_of).to(request.device)
        made = EntryMaker.of(lists, request.device)
        return ListPlan(lists, made, judge, configs, plan_of, few(request) is not None)

    @property
    def nbytes(self) -> int:
        """Bytes of what is prepared."""
        return self.maker.nbytes

    def kernels(self, tables: Mapping[str, Tensor]) -> ListKernels:
        """The passes for these inputs; nothing of them is read later."""
        entries = self.maker.entries(tables)
        blocks = -(-len(self.lists.mask.keys) // BLOCK)
        pairs: dict[str, Any] = {}
        if self.judge is not None:
            made = self.judge.schedule(tables)
            constants = made.constants
            pairs = {"constants": constants, "n_constants": constants.shape[1]}
            pairs |= {"tables": made.terms, **load(self.judge.predicate.text)}
        found = by_block(entries, blocks, LONGEST)
        return ListKernels(
            self.lists, entries, found, self.plan_of, self.configs, self.clears, pairs
        )


class _Section(NamedTuple):
    """Some batch elements and heads of a call."""

    batch: slice
    heads: slice
    kv_heads: slice

    def of_queries(self, *tensors: Tensor) -> list[Tensor]:
        """Takes the query heads of each tensor [B, H, ...]."""
        return [x[self.batch, self.heads] for x in tensors]

    def of_keys(self, *tensors: Tensor) -> list[Tensor]:
        """Takes the key heads of each tensor [B, Hkv, ...]."""
        return [x[self.batch, self.kv_heads] for x in tensors]


@dataclass(frozen=True, slots=True, eq=False)
class ListKernels:
    """The passes over lists that are known; forward and backward, without atomics."""

    lists: OpenLists
    entries: Entries
    found: ByBlock
    plan_of: Tensor  # int32 [1 or batch, 1 or heads]
    configs: Mapping[ListPass, Config]
    clears: bool  # whether keys that no query sees may hold anything
    pairs: Mapping[str, Any] = field(default_factory=dict)  # arguments about what judges pairs

    @property
    def nbytes(self) -> int:
        """Bytes of the lists."""
        return sum(x.nbytes for x in (*self.entries, *self.found))

    @property
    def blocks(self) -> int:
        """How many blocks of keys there are."""
        return self.found.first_items.shape[1] - 1

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, pages: Pages | None = None
    ) -> tuple[Tensor, Tensor]:
        """(out [B, H, Q, Dv], lse [B, H, Q])."""
        if pages is not None:
            return self._paged(q, k, pages, scale)
        q, k, v = map(reachable, (q, k, v))
        out = q.new_empty((*q.shape[:3], v.shape[3]), dtype=out_dtype(q.dtype))
        lse = q.new_empty(q.shape[:3], dtype=torch.float32)
        n = self.entries.blocks.shape[1]
        with on_device(q):
            for some in _sections(q, k, n * v.shape[3]):
                mine, whole, level = some.of_queries(q, out, lse)
                keys, values = some.of_keys(k, v)
                plan_of = self._plans(q, some)
                part_lse = q.new_empty((*mine.shape[:2], n), dtype=torch.float32)
                part = q.new_empty((*mine.shape[:2], n, v.shape[3]), dtype=torch.float32)
                args = self._items("forward", (mine, keys, values), plan_of)
                args["CLEARS"] = self.clears
                launch = self._launch(kernels.lists_forward, ListsForwardCall, args)
                launch(ListsForwardCall(mine, keys, values, part, part_lse, float(scale)))
                rows = ListsMergeArgs(**self._of_queries(q, plan_of) | _widths(v, "DV"))
                merge = _by_query(kernels.lists_merge, ListsMergeCall, rows)
                merge(ListsMergeCall(part, part_lse, whole, level))
        return out, lse

    def backward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        dout: Tensor,
        dlse: Tensor | None,
        *,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv), each in the dtype of its input."""
        q, k, v, dout = map(reachable, (q, k, v, dout))
        dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
        if lse.numel() == 0 or k.numel() == 0:
            return dq.zero_(), dk.zero_(), dv.zero_()
        n, items = self.entries.blocks.shape[1], self.found.items.shape[1]
        numbers = n * q.shape[3] + items * BLOCK * (q.shape[3] + v.shape[3])
        with on_device(q):
            level, delta = torch.empty_like(lse), torch.empty_like(lse)
            prepare = preparation(out, dout, dlse)
            prepare(PrepareBackwardCall(out, dout, lse.contiguous(), dlse, level, delta))
            for some in _sections(q, k, numbers):
                mine = some.of_queries(q, dout, level, delta, dq)
                theirs = some.of_keys(k, v, dk, dv)
                self._differentiate(mine, theirs, self._plans(q, some), float(scale))
        return dq, dk, dv

    def _differentiate(
        self, mine: list[Tensor], theirs: list[Tensor], plan_of: Tensor, scale: float
    ) -> None:
        """Writes the gradients of a section: ``mine`` are q, dout, level, delta and dq, ``theirs`` k, v, dk and dv."""
        (q, dout, level, delta, dq), (k, v, dk, dv) = mine, theirs
        n, items = self.entries.blocks.shape[1], self.found.items.shape[1]
        part_q = q.new_empty((*q.shape[:2], n, q.shape[3]), dtype=torch.float32)
        part_k, part_v = (
            q.new_empty((*q.shape[:2], items, BLOCK, x.shape[3]), dtype=torch.float32)
            for x in (k, v)
        )
        args = self._items("backward", (q, k, v), plan_of)
        args |= {**strides(g=dout), "q_len": q.shape[2]}
        launch = self._launch(kernels.lists_backward, ListsBackwardCall, args)
        launch(ListsBackwardCall(q, k, v, dout, level, delta, part_q, part_k, part_v, scale))
        rows = ListsSumQueriesArgs(**self._of_queries(q, plan_of) | _widths(q, "D"))
        add = _by_query(kernels.lists_sum_queries, ListsSumQueriesCall, rows)
        add(ListsSumQueriesCall(part_q, dq, scale))
        for part, grad, factor in ((part_k, dk, scale), (part_v, dv, 1.0)):
            of_keys = ListsSumKeysArgs(
                plan_of=plan_of,
                first_items=self.found.first_items,
                k_len=k.shape[2],
                kv_heads=k.shape[1],
                capacity=items,
                blocks=self.blocks,
                GROUP=q.shape[1] // k.shape[1],
                **_widths(grad, "D"),
            )
            grid = self.blocks, len(plan_of) // of_keys.GROUP
            total = Launch(kernels.lists_sum_keys, grid, ListsSumKeysCall, of_keys)
            total(ListsSumKeysCall(part, grad, factor))

    def _paged(self, q: Tensor, k: Tensor, pages: Pages, scale: float) -> tuple[Tensor, Tensor]:
        """A forward over keys and values in pages; a page that is not there has no key."""
        there = (pages.table >= 0) & (pages.table < len(pages.k))
        rows = replace(pages, table=torch.where(there, pages.table, 0)).rows(k.shape[2])
        there = there.repeat_interleave(pages.page, 1)[:, : k.shape[2]]
        keys, values = (x.masked_fill(~there[:, None, :, None], 0.0) for x in rows)
        lacking = self.blocks * BLOCK - k.shape[2]
        bits = torch.nn.functional.pad(there, (0, lacking)).view(len(there), self.blocks, 2, 32)
        powers = 1 << torch.arange(32, device=q.device)
        held = torch.nn.functional.pad((bits * powers).sum(-1), (0, 0, 0, 1))  # none of no block
        heads = self.plan_of.shape[1]
        plans = self.plan_of.expand(len(q), heads).flatten()
        blocks = self.entries.blocks[plans]
        of_batch = held.repeat_interleave(heads, 0)
        seen = of_batch.gather(1, blocks.long()[..., None].expand(-1, -1, 2))
        words = (self.entries.words[plans] & seen).to(torch.int32)
        numbers = torch.arange(len(plans), device=q.device, dtype=torch.int32)
        made = ListKernels(
            self.lists,
            Entries(blocks, words),
            ByBlock(*(x[plans] for x in self.found)),
            numbers.view(len(q), heads),
            self.configs,
            True,
            self.pairs,
        )
        return made.forward(q, keys, values, scale=scale)

    def _plans(self, q: Tensor, some: _Section) -> Tensor:
        """The plan of each head of a section, int32 [batch * heads]."""
        return self.plan_of.expand(q.shape[:2])[some.batch, some.heads].flatten().contiguous()

    def _items(self, which: ListPass, tensors: Sequence[Tensor], plan_of: Tensor) -> dict[str, Any]:
        """The arguments of a pass over items."""
        q, k, v = tensors
        return {
            **self.pairs,
            **strides(q=q, k=k, v=v),
            "items": self.found.items,
            "plan_of": plan_of,
            "order": self.found.order,
            "words": self.entries.words,
            "k_len": k.shape[2],
            "heads": q.shape[1],
            "n": self.entries.blocks.shape[1],
            "ENTRIES": self.lists.entries,
            "capacity": self.found.items.shape[1],
            "GROUP": q.shape[1] // k.shape[1],
            **_widths(q, "D"),
            **_widths(v, "DV"),
            "ROWS": self.configs[which].bq,
            "PRECISION": precision(q.dtype),
        }

    def _launch(self, kernel: Any, call: Any, args: dict[str, Any]) -> Launch[Any]:
        """The launch of a pass over items."""
        which: ListPass = "forward" if call is ListsForwardCall else "backward"
        given = (ListsForwardArgs if which == "forward" else ListsBackwardArgs)(**args)
        grid = self.found.items.shape[1], len(given.plan_of)
        compiled = options(architecture(given.plan_of.device), self.configs[which])
        return Launch(kernel, grid, call, given, **compiled)

    def _of_queries(self, q: Tensor, plan_of: Tensor) -> dict[str, Any]:
        """The arguments of a kernel that looks at the entries of each query."""
        return {
            "blocks": self.entries.blocks,
            "plan_of": plan_of,
            "q_len": q.shape[2],
            "n": self.entries.blocks.shape[1],
            "ENTRIES": self.lists.entries,
            "none": self.blocks,
            "BQ": MERGED,
        }


def _by_query(kernel: Any, call: Any, given: Any) -> Launch[Any]:
    return Launch(kernel, (triton.cdiv(given.q_len, MERGED), len(given.plan_of)), call, given)


def _widths(x: Tensor, name: str) -> dict[str, int]:
    """The last size of a tensor, and of a block that is as wide."""
    return {name: x.shape[3], f"B{name}": padded(x.shape[3])}


def _sections(q: Tensor, k: Tensor, numbers: int) -> Iterator[_Section]:
    """Batch elements and heads whose shares, so many ``numbers`` of each head, fit in the budget together."""
    (batch, heads), kv_heads = q.shape[:2], k.shape[1]
    if not batch * heads * q.shape[2]:
        return
    group, most = heads // kv_heads, max(1, BUDGET // max(1, numbers))
    if batch * heads <= most:
        yield _Section(slice(0, batch), slice(0, heads), slice(0, kv_heads))
        return
    step = max(1, most // group)
    for b in range(batch):
        for first in range(0, kv_heads, step):
            last = min(first + step, kv_heads)
            own = slice(first * group, last * group)
            yield _Section(slice(b, b + 1), own, slice(first, last))
