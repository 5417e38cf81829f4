"""An attention on a drawn call: every back end against the oracle in float64, forward and all gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from torch import Tensor

from attndsl import ir
from attndsl.attentions import Attention
from attndsl.source import AttnDslError
from attndsl.verification.cases import Case
from attndsl.verification.drawing import MOST_SCORES
from attndsl.verification.references import NAMES, Fault, compared
from attndsl.verification.subjects import Check, Skipped, Target, runs

reals = ir.reals

# Multiples of what the oracle errs by in the dtype of a call: a kernel takes another way, and rounds elsewhere.
_SHARE: Final = 8.0
_UNITS: Final = 256.0  # of the accumulator, in the largest entry of a result: scores of many terms
_FOREIGN: Final = 7  # keys from elsewhere at most
CallKernel: TypeAlias = Callable[[Tensor, Tensor, Tensor, Case], "Tensor | tuple[Tensor, Tensor]"]
_KINKS: Final = frozenset(("relu", "abs", "sign", "step"))


class AttentionSubject:
    """An attention and its back ends."""

    def __init__(self, attention: Attention, targets: Sequence[Target]) -> None:
        self._attention, self._targets = attention, targets
        self.name, self.meaning = attention.name, str(attention)
        self._terms = attention.ir.terms
        self._parts = [part for term in self._terms for part in term.parts]
        self._roots = tuple(root for term in self._terms for root in term.expressions())
        self._members = max((part.member[1] for part in self._parts if part.member), default=1)
        self._vectors = _vectors(self._roots)
        self.frame = self._framed()
        self._has_kinks = any(_is_kinked(part) for part in self._parts)

    def _framed(self) -> ir.Mask:
        own = [part.mask for part in self._parts if not part.keys] or [self._parts[0].mask]
        root = functools.reduce(ir.disj, [mask.root for mask in own])
        conditions = dict.fromkeys(each for mask in own for each in mask.conditions)
        tables = self._attention.ir.inputs
        return replace(own[0], root=root, tables=tables, conditions=tuple(conditions), claims=())

    def fitted(self, case: Case) -> Case:
        """The case, with real inputs as long as the expressions read them, vectors as wide as queries."""
        frame = self.frame
        sizes = ir.resolve_sizes(frame, case.q_len, case.k_len, case.extents)
        tables = [table for table in frame.tables if table.kind is ir.Sort.REAL]
        least: dict[tuple[str, str | int], int] = {}
        for root in self._roots:
            least |= _larger(least, ir.least_sizes(replace(frame, root=root, zeros=ir.ZERO), sizes))
        made = dict(case.inputs)
        for table in tables:
            known = ir.known_shape(frame, table, sizes, case.batch, case.heads)
            value = np.asarray(made[table.name], dtype=np.float64)
            shape = [
                max(n, least.get((table.name, dim), 0)) if size is None else size
                for dim, size, n in zip(table.dims, known, value.shape, strict=True)
            ]
            if table.name in self._vectors and isinstance(table.dims[-1], str):
                shape[-1] = case.head_dim
            made[table.name] = np.resize(value, shape)
        return replace(case, inputs=made)

    def checks(self, case: Case) -> Iterator[tuple[str, Check]]:
        """Each back end against the oracle.

        Raises:
            Skipped: the oracle does not take such a call, or it overflows.
        """
        known = self._known(case)
        for name, device in self._targets:
            if name != "reference" and runs(
                name, device, case.dtype, case.head_dim, case.value_dim
            ):
                check = functools.partial(self._of_backend, case, known, name, device)
                yield f"backend {name} on {device}", check

    def judge(
        self,
        kernel: CallKernel,
        case: Case,
        device: str = "cpu",
        backward: bool = True,
        through_lse: bool = True,
        of_inputs: bool = True,
    ) -> Fault | None:
        """Finds the first wrong result of a kernel, if any; arguments as of `judging.judge`.

        ``kernel`` is told the call, whose ``inputs`` are tensors that want gradients, (k, v) for keys from elsewhere;
        those gradients are judged where ``of_inputs``.

        Raises:
            Skipped: the oracle does not take such a call, or it overflows.
        """
        found = self._run(case, self._tensors(case), kernel, device, backward)
        if not of_inputs:
            found = {name: x for name, x in found.items() if name in NAMES}
        return self._compared(case, self._known(case, through_lse and "lse" in found), found)

    def _known(self, case: Case, through_lse: bool = True) -> _Known:
        if case.pairs > MOST_SCORES:
            raise Skipped(f"{case.q_len} x {case.k_len} pairs are too many for the oracle")
        tensors = self._tensors(case)
        if not through_lse:
            tensors = replace(tensors, dlse=torch.zeros_like(tensors.dlse))
        oracle = functools.partial(self._call, "reference")
        try:
            exact = self._run(case, tensors.to(torch.float64), oracle)
            is_exact = case.dtype == torch.float64
            if not is_exact:
                rough = self._run(case, tensors, oracle)
            else:  # what rounding of the inputs alone does: a derivative that jumps would take it for a jump
                rough = exact if self._has_kinks else self._run(case, tensors.nudged(), oracle)
        except AttnDslError as error:
            if error.code != "A501":
                raise
            raise Skipped(error.diagnostics[0].title) from error
        if not all(bool(x.isfinite().all()) for name, x in exact.items() if name != "lse"):
            raise Skipped("results of these inputs are not finite")
        allowed = {name: _allowed(x, rough[name], case.dtype) for name, x in exact.items()}
        return _Known(tensors, exact, allowed)

    def _of_backend(self, case: Case, known: _Known, backend: str, device: str) -> Fault | None:
        try:
            found = self._run(case, known.tensors, functools.partial(self._call, backend), device)
        except AttnDslError as error:
            if error.code != "A520":
                raise
            raise Skipped(error.diagnostics[0].title) from error
        return self._compared(case, known, found)

    def _compared(self, case: Case, known: _Known, found: Mapping[str, Tensor]) -> Fault | None:
        is_exact = case.dtype == torch.float64
        for name, want in known.exact.items():
            is_judged = name in ("out", "lse") or is_exact or not self._has_kinks
            if name in found and is_judged:
                fault = compared(name, found[name], want, known.allowed[name], self._axes(name))
                if fault is not None:
                    return fault
        return None

    def _axes(self, name: str) -> tuple[str, ...]:
        declared = {f"d{table.name}": table.dims for table in self.frame.tables}
        if name in declared:
            return tuple(map(str, declared[name]))
        row = "query" if name in ("out", "lse", "dq") else "key"
        return ("batch", "head", row, "channel")[: 3 if name == "lse" else 4]

    # ------------------------------------------------------------------ calls

    def _tensors(self, case: Case) -> _Tensors:
        made = case.tensors()
        paired = replace(
            case, heads=case.heads * self._members, kv_heads=case.kv_heads * self._members
        ).tensors()
        leaves = {"q": paired.q, "k": paired.k, "v": made.v}
        others: dict[str, Any] = {}
        for number, name in enumerate(self._attention.ir.key_inputs):
            length, seed = 1 + case.seed % _FOREIGN, case.seed + number + 1
            apart = replace(case, k_len=length, seed=seed).tensors()
            leaves |= {f"{name}.k": apart.k, f"{name}.v": apart.v}
        wide = torch.float64 if case.dtype == torch.float64 else torch.float32
        for table in self.frame.tables:
            value = torch.as_tensor(case.inputs[table.name])
            if table.kind is ir.Sort.REAL:
                leaves[table.name] = value.to(wide)
            else:
                others[table.name] = value
        return _Tensors(leaves, others, made.dout, made.dlse)

    def _call(
        self, backend: str, q: Tensor, k: Tensor, v: Tensor, case: Case
    ) -> Tensor | tuple[Tensor, Tensor]:
        keys = {name: case.inputs[name] for name in self._attention.ir.key_inputs}
        given = {name: x for name, x in case.inputs.items() if name not in keys}
        options: dict[str, Any] = {"scale": case.scale, "backend": backend, "layout": case.layout}
        options |= {"extents": case.extents, "inputs": given, **keys}
        if self._attention.has_lse:
            return self._attention(q, k, v, return_lse=True, **options)
        out: Tensor = self._attention(q, k, v, **options)
        return out

    def _run(
        self,
        case: Case,
        tensors: _Tensors,
        kernel: CallKernel,
        device: str = "cpu",
        backward: bool = True,
    ) -> dict[str, Tensor]:
        """out, lse where there is one, and the gradient of every leaf, on the CPU."""
        leaves = {
            name: x.detach().to(device).requires_grad_(backward)
            for name, x in tensors.leaves.items()
        }
        given: dict[str, Any] = {name: x.to(device) for name, x in tensors.others.items()}
        given |= {t.name: leaves[t.name] for t in self.frame.tables if t.name in leaves}
        keys = self._attention.ir.key_inputs
        given |= {name: (leaves[f"{name}.k"], leaves[f"{name}.v"]) for name in keys}
        made = kernel(leaves["q"], leaves["k"], leaves["v"], replace(case, inputs=given))
        named = (
            {"out": made}
            if isinstance(made, Tensor)
            else dict(zip(("out", "lse"), made, strict=False))
        )
        found = {name: x.detach() for name, x in named.items()}
        if backward:
            arriving = {"out": tensors.dout, "lse": tensors.dlse}
            roots = [name for name, x in named.items() if x.requires_grad]
            gains = [arriving[name].to(device=device, dtype=named[name].dtype) for name in roots]
            of_leaves: Sequence[Tensor | None] = [None] * len(leaves)
            if roots:
                of_leaves = torch.autograd.grad(
                    [named[name] for name in roots], [*leaves.values()], gains, allow_unused=True
                )
            for (name, leaf), grad in zip(leaves.items(), of_leaves, strict=True):
                found[f"d{name}"] = torch.zeros_like(leaf) if grad is None else grad
        return {name: x.cpu() for name, x in found.items()}


@dataclass(frozen=True, eq=False)
class _Known:
    """The tensors of a call, its exact results, and how far from them each entry may be."""

    tensors: _Tensors
    exact: Mapping[str, Tensor]
    allowed: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class _Tensors:
    """Leaves by name, int and bool inputs, and the gradients that arrive."""

    leaves: dict[str, Tensor]
    others: dict[str, Tensor]
    dout: Tensor
    dlse: Tensor

    def to(self, dtype: torch.dtype) -> _Tensors:
        """The same numbers in another dtype."""
        leaves = {name: x.to(dtype) for name, x in self.leaves.items()}
        return _Tensors(leaves, self.others, self.dout.to(dtype), self.dlse)

    def nudged(self) -> _Tensors:
        """Float64 numbers next to these, above and below in turn."""

        def next_to(x: Tensor) -> Tensor:
            signs = 1.0 - 2.0 * (torch.arange(x.numel(), dtype=torch.float64) % 2).view_as(x)
            return x * (1.0 + torch.finfo(torch.float64).eps * signs)

        leaves = {name: next_to(x) for name, x in self.leaves.items()}
        return _Tensors(leaves, self.others, self.dout, self.dlse)


def _vectors(roots: Sequence[ir.Node]) -> frozenset[str]:
    """The tables whose rows are vectors, as wide as queries."""
    nodes = [node for root in roots for node in ir.postorder(root)]
    return frozenset(node.table for node in nodes if isinstance(node, reals.Row))


def _larger(one: Mapping[Any, int], other: Mapping[Any, int]) -> dict[Any, int]:
    return {key: max(n, one.get(key, 0)) for key, n in other.items()}


def _is_kinked(part: ir.Scored) -> bool:
    """Whether a derivative jumps somewhere: rounding may then fall on either side."""
    nodes = [node for root in part.expressions() for node in ir.postorder(root)]
    return part.form is ir.Form.ENTMAX or any(
        isinstance(node, reals.Least | reals.Greatest)
        or (isinstance(node, reals.Apply) and node.function in _KINKS)
        for node in nodes
    )


def _allowed(exact: Tensor, rough: Tensor, dtype: torch.dtype) -> Tensor:
    """The largest error of each entry that counts as rounding."""
    known = exact.nan_to_num(0.0, 0.0, 0.0)
    if not known.numel():
        return known
    own = (rough.double() - exact).nan_to_num(0.0, 0.0, 0.0).abs().amax()
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    unit = torch.finfo(dtype).eps + _UNITS * torch.finfo(wide).eps
    return torch.full_like(known, float(_SHARE * own + unit * known.abs().amax().clamp(min=1.0)))
