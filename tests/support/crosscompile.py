"""Compile the kernels of a call for a GPU that is not there, and read what the binaries say.

Run as a program, not under TRITON_INTERPRET: reads a list of calls as JSON, writes a report of each.

    python -m tests.support.crosscompile '[{"target": "cuda:90", "head_dim": 128}]'
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import attndsl
from attndsl import ir
from attndsl.backends import (
    Pages,
    Request,
    configs,
    kernels,
    triton_choice,
    triton_lists,
    triton_stick,
)
from attndsl.backends import triton as backend
from attndsl.passes import COLUMN, LEVEL, column_weight, softmax_weight
from attndsl.passes.dropout import drop_weights
from attndsl.schedule import open_lists
from attndsl.scored import ScoredProgram

TYPES = {
    torch.float64: "*fp64",
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.uint8: "*u8",
    torch.float8_e4m3fn: "*fp8e4nv",
    torch.float8_e5m2: "*fp8e5",
    torch.int8: "*i8",
}
PASSES = ("forward", "backward_queries", "backward_keys")
# Attentions with scores of their own: terms hoisted by dependence, a look-up by distance, and one for each pair.
ATTENTIONS = {
    "alibi": "input slope: real[head]\nattention a over causal = score s - slope[head] * (q - k)",
    "capped": """
        input table: real[head, n]
        attention a over causal = score 50.0 * tanh(s / 50.0) + table[min(q - k, len(table.n) - 1)]""",
    "sunk": """
        input w: real[batch, k]
        input sink: real[head]
        attention a over causal = score s + w[k] mass exp(sink[head])""",
    "paired": """
        input table: real[head, n]
        attention a over causal = score s + table[(q // 7 - k // 5) % len(table.n)]""",
    "weighed": "attention a over causal = score s weights sigmoid",
    "dropped": "attention a over causal = score s",
    "columns": "attention a over causal = score s weights columns",
}
STICKS = {
    "plain": "attention a over causal = score s weights stick",
    "biased": "input b: real[head] input w: real[k]\nattention a over causal = score b[head] * s + w[k] weights stick",
}
DROPPED = {"dropped": 0.1}  # probabilities of those whose weights are dropped
# Lists whose bits are all there is to judge, and some that leave a comparison for each pair.
LISTS = {
    "blocks": "input idx: list[head, q, n]\npattern p = k <= q and k // 64 in idx[q]",
    "documents": """
        input idx: list[head, q, n]
        input doc: int[batch, pos]
        pattern p = k <= q and k // 64 in idx[q] and doc[q] == doc[k]""",
}
TARGETS = {
    "cuda:80": GPUTarget("cuda", 80, 32),
    "cuda:90": GPUTarget("cuda", 90, 32),
    "cuda:100": GPUTarget("cuda", 100, 32),
    "hip:gfx942": GPUTarget("hip", "gfx942", 64),
}
ARCHITECTURES = {"cuda:80": "sm80", "cuda:90": "sm90", "cuda:100": "sm100", "hip:gfx942": "gfx942"}


class Recorder:
    """Stands for a kernel and notes what it is launched with."""

    def __init__(self, kernel: Any, launches: list[tuple[Any, tuple[Any, ...], dict[str, Any]]]):
        self.kernel, self.launches = kernel, launches
        self.arg_names = kernel.arg_names

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *args, **options: self.launches.append((self.kernel, args, options))


def launches(run: Callable[[], Any]) -> list[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    """Every launch that ``run`` makes, none of which takes place."""
    found: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
    originals = {name: getattr(kernels, name) for name in kernels.__all__}
    for name, kernel in originals.items():
        setattr(kernels, name, Recorder(kernel, found))
    try:
        run()
    finally:
        for name, kernel in originals.items():
            setattr(kernels, name, kernel)
    return found


def source(kernel: Any, args: tuple[Any, ...]) -> ASTSource:
    """The specialisation the launcher would compile for these arguments: types, constants, known divisors."""
    signature: dict[str, str] = {}
    constants: dict[Any, Any] = {}
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    for place, (parameter, value) in enumerate(zip(kernel.params, args, strict=True)):
        plain = parameter.do_not_specialize
        if (
            parameter.is_constexpr
            or value is None
            or (isinstance(value, int) and value == 1 and not plain)
        ):
            signature[parameter.name] = "constexpr"
            constants[(place,)] = value
            continue
        if isinstance(value, torch.Tensor):
            signature[parameter.name] = TYPES[value.dtype]
            divides = True
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
            divides = False
        else:
            signature[parameter.name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            divides = value % 16 == 0
        if divides and not plain:
            attributes[(place,)] = [["tt.divisibility", 16]]
    return ASTSource(kernel, signature, constants, attributes)


@dataclass(frozen=True)
class Job:
    """One kernel to compile: what it is launched with, and what its report says besides."""

    kernel: Any
    args: tuple[Any, ...]
    options: dict[str, Any]
    target: str
    given: dict[str, Any]

    def key(self) -> str:
        """A digest of all that the binary depends on, but for the version of the compiler."""
        asked = source(self.kernel, self.args)
        constants = [(at, getattr(x, "cache_key", x)) for at, x in asked.constants.items()]
        parts = (self.kernel.cache_key, constants, asked.signature, asked.attrs, self.options)
        return hashlib.sha256(repr((*parts, self.target)).encode()).hexdigest()[:16]

    @property
    def weight(self) -> int:
        """The length of the functions that the kernel is given: the dearer a predicate, the longer."""
        return sum(len(getattr(x, "src", "")) for x in self.args)

    def report(self) -> dict[str, Any]:
        """Name, shared memory, registers, bytes of spills, matrix instructions, and integer divisions in
        each basic block that multiplies matrices.
        """
        asked = source(self.kernel, self.args)
        made = triton.compile(asked, target=TARGETS[self.target], options=self.options)
        name = self.kernel.__name__
        found = {"kernel": name, "target": self.target, "shared": made.metadata.shared}
        found |= {name: getattr(made.metadata, name) for name in ("num_warps", "num_stages")}
        found |= self.options | self.given
        if self.target.startswith("hip"):
            text = made.asm["amdgcn"]
            found["registers"] = int(re.search(r"\.vgpr_count:\s+(\d+)", text)[1])
            found["spills"] = int(re.search(r"\.vgpr_spill_count:\s+(\d+)", text)[1])
            found["matrix"] = len(re.findall(r"v_mfma", text))
            found["instructions"] = ["v_mfma"] if found["matrix"] else []
            return found
        found |= resources(made.asm["cubin"])
        ptx = made.asm["ptx"]
        matrix = r"wgmma\.mma_async|tcgen05\.mma|mma\.sync"
        found["matrix"] = len(re.findall(matrix, ptx))
        found["instructions"] = sorted(set(re.findall(matrix, ptx)))
        blocks = re.split(r"^\$L__BB\w+:", ptx, flags=re.MULTILINE)
        found["divisions"] = [
            len(re.findall(r"\b(?:div|rem)\.[su]\d", block))
            for block in blocks
            if re.search(matrix, block)
        ]
        return found


def resources(cubin: bytes) -> dict[str, int]:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        asked = [str(tool), "--dump-resource-usage", file.name]
        text = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    numbers = dict(re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text))
    return {
        "registers": int(numbers["REG"]),
        "spills": int(numbers["STACK"]) + int(numbers["LOCAL"]),
    }


def jobs(
    target: str,
    pattern: str = "causal",
    head_dim: int = 128,
    dtype: str = "bfloat16",
    length: int = 512,
    group: int = 1,
    passes: tuple[str, ...] = PASSES,
    values: dict[str, Any] | None = None,
    config: dict[str, int] | None = None,
    longest: int | None = None,
    extents: dict[str, int] | None = None,
    predicate: bool = True,
    k_length: int | None = None,
    inputs: dict[str, Any] | None = None,
    gradient: bool = True,
    page: int = 0,
) -> list[Job]:
    """The kernels that a forward and backward of this call launch on that target; keys may lie in pages."""
    p = attndsl.compile(pattern, **(values or {}))
    q = torch.empty(1, 2 * group, length, head_dim, dtype=getattr(torch, dtype))
    k = v = torch.empty(1, 2, k_length or length, head_dim, dtype=q.dtype)
    call = p._program.call(length, k.shape[2], 1, 2 * group, extents, inputs or {})
    arch = ARCHITECTURES[target]

    def chosen(which: Any, request: Request) -> configs.Config:
        if config:
            return configs.Config(**config)
        widths = request.head_dim, request.value_dim
        found = configs.fitting(which, arch, request.dtype.itemsize, *widths)
        assert found is not None, "the call fits"
        return found

    request = Request.of(q, k, v, gradient=gradient)
    backend.architecture = lambda _: arch  # as if the tensors were there
    runner = backend.Triton(chosen, longest)
    (part,) = p._program.tiled(call, "natural", *runner.tiles(request))
    if not predicate:
        part = replace(part, bound=replace(part.bound, pieces=()))
    lowered = runner.lower(part, request)

    pages = None
    if page:
        pool = torch.empty(9, 2, page, head_dim, dtype=q.dtype)
        pages = Pages(torch.zeros(1, -(-k.shape[2] // page), dtype=torch.int64), pool, pool)

    def both() -> None:
        out, lse = lowered.forward(q, k, v, scale=0.1, pages=pages)
        if set(passes) != {"forward"}:
            lowered.backward(q, k, v, out, lse, torch.empty_like(out), None, scale=0.1)

    sizes = q.element_size(), head_dim, head_dim
    found = []
    for kernel, args, options in launches(both):
        if (name := kernel.__name__) not in passes:
            continue
        given = {"head_dim": head_dim, "dtype": dtype, "pattern": pattern, "predicate": predicate}
        given |= {"page": page, "queries": length}
        if name in PASSES:
            used = lowered.configs[name]
            given["modelled"] = configs.shared_memory(name, arch, used, *sizes)
            given["limit"] = configs.SHARED_MEMORY[arch]
            options = configs.options(arch, used)
        found.append(Job(kernel, args, options, target, given))
    return found


def scored_program(attention: str) -> ScoredProgram:
    """The one part of one of ``ATTENTIONS``."""
    made = attndsl.compile(ATTENTIONS[attention])._attention
    if attention in DROPPED:
        made = drop_weights(made, DROPPED[attention])
    (term,) = made.terms
    return ScoredProgram.of(term.parts[0], made.tables)


def weight_of(scored: ScoredProgram) -> tuple[ir.Node | None, tuple[ir.Table, ...]]:
    """The weight in the primitive that kernels run last, and what it reads beside the inputs."""
    if scored.part.form is ir.Form.COLUMNS:
        return column_weight(), (COLUMN,)
    if scored.part.factor is not None:
        return softmax_weight(scored.part), (LEVEL,)
    return scored.part.weight, ()


def scored_jobs(
    target: str,
    attention: str,
    head_dim: int = 128,
    length: int = 512,
    passes: tuple[str, ...] = (*PASSES, "backward_pairs"),
) -> list[Job]:
    """The kernels of a forward and backward of one of ``ATTENTIONS``, two heads of bfloat16."""
    scored = scored_program(attention)
    arch, program = ARCHITECTURES[target], scored.program
    q = torch.empty(1, 2, length, head_dim, dtype=torch.bfloat16)
    sizes = {"head": 2, "n": 33, "q": length, "k": length, "batch": 1}
    weight, own = weight_of(scored)
    declared = (*scored.reals, *own)
    tables = [torch.empty([sizes[str(dim)] for dim in table.dims]) for table in declared]
    shapes = {
        table.name: tuple(sizes[str(dim)] for dim in table.indexed_dims) for table in scored.reals
    }

    def chosen(which: Any, request: Request) -> configs.Config:
        found = configs.fitting(which, arch, request.dtype.itemsize, head_dim, head_dim)
        assert found is not None, "the call fits"
        return found

    request = Request.of(q, q, q, gradient=True)
    backend.architecture = lambda _: arch  # as if the tensors were there
    runner = backend.Triton(chosen)
    ints = {table.name: np.zeros(1, np.int64) for table in program.mask.tables}
    call = program.call(length, length, 1, 2, None, ints)
    (part,) = program.tiled(call, "natural", *runner.tiles(request))
    bound = scored.bound(call, scored.sizes(call, shapes), scored.part.score, weight, declared)
    lowered = runner.lower_scored(part, bound, request)

    def both() -> None:
        out, lse = lowered.forward(q, q, q, tables, scale=0.1)
        given = out, lse, torch.empty_like(out), None
        lowered.backward(q, q, q, tables, *given, scale=0.1)

    found = []
    for kernel, args, options in launches(both):
        if (name := kernel.__name__) not in passes:
            continue
        given = {
            "head_dim": head_dim,
            "dtype": "bfloat16",
            "attention": attention,
            "queries": length,
        }
        if name in PASSES:
            used = lowered.passes.configs[name]
            taken = configs.shared_memory(name, arch, used, 2, head_dim, head_dim)
            ahead = sum(lowered.kernel.loads) * used.bq * used.bk * 4 * (used.stages - 1)
            given |= {"modelled": taken + ahead, "limit": configs.SHARED_MEMORY[arch]}
            options = configs.options(arch, used)
        found.append(Job(kernel, args, options, target, given))
    return found


def list_jobs(
    target: str,
    lists: str,
    head_dim: int = 128,
    dtype: str = "bfloat16",
    length: int = 512,
    config: dict[str, int] | None = None,
) -> list[Job]:
    """The kernels of a forward and backward over one of ``LISTS``, of two query heads and one key head."""
    program, arch = attndsl.compile(LISTS[lists])._program, ARCHITECTURES[target]
    q = torch.empty(1, 2, length, head_dim, dtype=getattr(torch, dtype))
    k = q[:, :1]
    sizes = {"head": 2, "batch": 1, "n": 4, "pos": length}
    tables = {
        table.name: torch.zeros(
            [sizes.get(str(dim), length) for dim in table.dims], dtype=torch.int64
        )
        for table in program.mask.tables
    }
    like = {name: x.numpy() for name, x in tables.items()}
    call = program.call(length, length, 1, 2, None, like, is_open=True)
    mask = program.open(call, {name: x.dtype for name, x in like.items()}, listed=True)
    request = Request.of(q, k, k, gradient=True)
    triton_lists.architecture = lambda _: arch  # as if the tensors were there
    plan = triton_lists.ListPlan.of(open_lists(mask), request)
    if config:
        plan = replace(plan, configs=dict.fromkeys(plan.configs, configs.Config(**config)))
    made = plan.kernels(tables)

    def both() -> None:
        out, lse = made.forward(q, k, k, scale=0.1)
        made.backward(q, k, k, out, lse, torch.empty_like(out), None, scale=0.1)

    given = {
        "head_dim": head_dim,
        "dtype": dtype,
        "lists": lists,
        "queries": length,
        "limit": configs.SHARED_MEMORY[arch],
    }
    found = []
    for kernel, args, options in launches(both):
        if kernel.__name__ != "prepare_backward":
            found.append(Job(kernel, args, options, target, given))
    return found


def stick_jobs(target: str, stick: str, head_dim: int = 128, length: int = 512) -> list[Job]:
    """The kernels of stick-breaking over one of ``STICKS``, four query heads of bfloat16 on two key heads."""
    made = attndsl.compile(STICKS[stick])._attention
    scored = ScoredProgram.of(made.terms[0].parts[0], made.tables)
    arch, program = ARCHITECTURES[target], scored.program
    q = torch.empty(1, 4, length, head_dim, dtype=torch.bfloat16)
    k = q[:, :2].contiguous()
    triton_stick.architecture = lambda _: arch  # as if the tensors were there
    call = program.call(length, length, 1, 4, None, {})
    (part,) = program.tiled(call, "natural", triton_stick.CONFIG.tile)
    sizes = {"head": 4, "k": length}
    tables = [torch.empty([sizes[str(dim)] for dim in table.dims]) for table in scored.reals]
    shapes = {
        table.name: tuple(sizes[str(x)] for x in table.indexed_dims) for table in scored.reals
    }
    bound = scored.bound(call, scored.sizes(call, shapes), scored.part.score)
    lowered = triton_stick.TritonStick.of(part, bound, Request.of(q, k, k, gradient=True))

    def both() -> None:
        out, lse = lowered.forward(q, k, k, tables, scale=0.1)
        lowered.backward(q, k, k, tables, out, lse, torch.empty_like(out), None, scale=0.1)

    given = {"head_dim": head_dim, "stick": stick, "queries": length}
    given["limit"] = configs.SHARED_MEMORY[arch]
    found = []
    for kernel, _, told in launches(both):
        args = tuple(told.pop(name) for name in kernel.arg_names)
        found.append(Job(kernel, args, told, target, given))
    return found


def choice_jobs(target: str, choice: int, head_dim: int = 128, length: int = 512) -> list[Job]:
    """The kernel that takes so many units of 64 keys for each query, the first among them, of those before its own."""
    q, k = ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY)
    where, keeping = ir.lt(k, ir.floordiv(q, ir.Const(64))), ir.lt(k, ir.Const(1))
    x = torch.empty(1, 2, length, head_dim, dtype=torch.float64)
    arch = ARCHITECTURES[target]
    triton_choice.architecture = lambda _: arch  # as if the tensors were there

    def run() -> None:
        triton_choice.chosen_units(x, x[:, :1, :40], 0.1, where, keeping, range(length), choice)

    given = {"head_dim": head_dim, "choice": choice, "limit": configs.SHARED_MEMORY[arch]}
    given["queries"] = length
    return [Job(*launch, target, given) for launch in launches(run)]


def compiled(target: str, **call: Any) -> list[dict[str, Any]]:
    """Reports of the kernels of a call; arguments as of ``jobs``, or of the functions that others name."""
    others = {"attention": scored_jobs, "lists": list_jobs, "choice": choice_jobs}
    others["stick"] = stick_jobs
    made = next((others[name] for name in others if name in call), jobs)
    return [job.report() for job in made(target, **call)]


if __name__ == "__main__":
    print(json.dumps([item for call in json.loads(sys.argv[1]) for item in compiled(**call)]))
