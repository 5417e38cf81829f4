"""Our forward beside those of others, compiled for GPUs that need not be here, and what the loops of the binaries hold.

Run as a program, not under TRITON_INTERPRET: reads a list of calls as JSON, writes a report of each.

    python -m tests.support.kernel_peers '[{"target": "cuda:90", "pattern": "causal", "width": 128}]'

The peers are the template of torch's flex_attention, rendered by hand for a pattern, a width and a tile, and the plain
flash kernel of ``flash_kernel``. Both are given what is best for them: static shapes, lengths that tiles divide.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import torch
import triton
from torch._inductor.kernel.flex.common import load_flex_template
from triton.compiler import ASTSource

from tests.support import flash_kernel
from tests.support.crosscompile import TARGETS, jobs, resources, source

HEADS = 8
# A pattern of ours, and the mask of a pair as Inductor writes it.
PATTERNS = {
    "causal": "(m) >= (n)",
    "pattern p = 0 <= q - k < 512": "((m) >= (n)) & (((m) - (n)) < 512)",
}
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
MATRIX = re.compile(r"\b(?:HMMA|HGMMA|UTC\w*MMA)")
KINDS = {  # of SASS instructions, by how they begin; the first that fits
    "matrix": r"HMMA|HGMMA|UTC\w*MMA",
    "exponential": r"MUFU\.EX2",
    "arithmetic": r"F(?!2|LO)|MUFU|HADD2|HMUL2|HFMA2",
    "conversion": r"F2|I2F",
    "shuffle": r"SHFL|REDUX",
    "integer": r"I|LEA|LOP|SHF|PRMT|SEL|VI|R2UR|MOV|UMOV|U(?:I|LEA|LOP|SHF|SEL|PRMT)|P2R|R2P|PLOP|UP",
    "memory": r"LD|ST|UTMA|UBLKCP|ATOM|RED|UTCCP|LDT|STT",
    "control": r"",
}


@dataclass(frozen=True)
class Loop:
    """A loop of a binary that multiplies matrices: its instructions, one a turn."""

    instructions: tuple[str, ...]

    @property
    def matrix(self) -> int:
        """Matrix instructions of a turn."""
        return sum(bool(MATRIX.match(each)) for each in self.instructions)

    @property
    def others(self) -> float:
        """Other instructions for each of them."""
        return (len(self.instructions) - self.matrix) / self.matrix

    def kinds(self) -> dict[str, int]:
        """How many there are of each kind."""
        found = Counter(
            next(kind for kind, start in KINDS.items() if re.match(start, each))
            for each in self.instructions
        )
        return {kind: found[kind] for kind in KINDS if found[kind]}


def loops(sass: str) -> list[Loop]:
    """Innermost loops with matrix instructions, in their order: from a label to the last jump back to it."""
    places: list[str] = []
    labels: dict[str, int] = {}
    jumps: list[tuple[int, int]] = []
    for line in sass.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(places)
        elif found := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][^;]*)", line):
            places.append(found[1].strip())
            back = re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", found[1])
            if back and back[1] in labels:
                jumps.append((labels[back[1]], len(places)))
    spans = {start: max(end for begin, end in jumps if begin == start) for start, _ in jumps}
    made = []
    for start, end in sorted(spans.items()):
        inner = any(start <= a and b <= end and (a, b) != (start, end) for a, b in spans.items())
        loop = Loop(tuple(each for each in places[start:end] if not each.startswith("NOP")))
        if loop.matrix and not inner:
            made.append(loop)
    return made


# ------------------------------------------------------------------------ the peers


class Hooks:
    """Stands for Inductor while the template is rendered: static shapes, contiguous [1, H, N, D], a given mask."""

    def __init__(self, mask: str, defines: dict[str, Any], width: int, length: int):
        self.mask = mask
        self.defines = "".join(
            f"{name} : tl.constexpr = {value}\n" for name, value in defines.items()
        )
        self.names: tuple[str, ...] = ()
        blocks = length // defines["SPARSE_Q_BLOCK_SIZE"]
        self.shapes = dict.fromkeys("QKV", (1, HEADS, length, width)) | {
            "KV_NUM_BLKS": (1, 1, blocks),
            "KV_IDX": (1, 1, blocks, length // defines["SPARSE_KV_BLOCK_SIZE"]),
        }

    def def_kernel(self, *names: str) -> str:
        """Head of the kernel: inner functions have parameters of the bare names."""
        self.names = (*(f"arg_{name}" for name in names), "OUT")
        renamed = [f"{name} = arg_{name}" for name in names]
        body = "".join(f"    {line}\n" for line in (*self.defines.splitlines(), *renamed))
        return f"@triton.jit\ndef kernel({', '.join(self.names)}):\n{body}"

    def gen_argdefs(self) -> str:
        """Names of the arguments, which inner functions are given."""
        return ", ".join(self.names)

    def gen_defines(self) -> str:
        """The constants."""
        return self.defines

    def size(self, name: str, dim: int) -> str:
        """An extent."""
        return str(self.shapes[name.removeprefix("FULL_")][dim])

    def stride(self, name: str, dim: int | None = None) -> str:
        """A stride, or all."""
        strides = torch.empty(self.shapes[name.removeprefix("FULL_")], device="meta").stride()
        return ", ".join(map(str, strides)) if dim is None else str(strides[dim])

    def modification(
        self, subgraph_number: int, output_name: str, out: str = "", **given: Any
    ) -> str:
        """Scores as they are; the mask of a pair."""
        return f"{output_name} = {self.mask if subgraph_number else out}"

    def store_output(self, indices: tuple[str, ...], value: str, mask: str, **given: Any) -> str:
        """The output, contiguous."""
        strides = torch.empty(self.shapes["Q"], device="meta").stride()
        place = " + ".join(f"{at} * {stride}" for at, stride in zip(indices, strides, strict=True))
        return f"tl.store(OUT + {place}, {value}.to(OUT.dtype.element_ty), {mask})"


def flex_source(mask: str, width: int, tile: tuple[int, int], length: int = 8192) -> str:
    """The forward template of the installed torch as Triton source."""
    defines = {
        "BLOCK_M": tile[0],
        "BLOCK_N": tile[1],
        "SPARSE_Q_BLOCK_SIZE": 128,
        "SPARSE_KV_BLOCK_SIZE": 128,
        "QK_HEAD_DIM": width,
        "QK_HEAD_DIM_ROUNDED": width,
        "V_HEAD_DIM": width,
        "V_HEAD_DIM_ROUNDED": width,
        "SAFE_HEAD_DIM": True,
        "IS_DIVISIBLE": True,
        "GQA_SHARED_HEADS": 1,
        "HAS_FULL_BLOCKS": True,
        "SM_SCALE": width**-0.5,
        "PRESCALE_QK": False,
        "ROWS_GUARANTEED_SAFE": False,
        "BLOCKS_ARE_CONTIGUOUS": False,
        "OUTPUT_LOGSUMEXP": True,
        "OUTPUT_MAX": False,
        "FLOAT32_PRECISION": "'ieee'",
        "INDEX_DTYPE": "tl.int32",
    }
    hooks = Hooks(mask, defines, width, length)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    environment.filters["indent_except_first"] = lambda text, depth: text.replace(
        "\n", "\n" + 4 * depth * " "
    )
    parts = ("flex_attention", "utilities", "common")
    text = "".join(load_flex_template(part) for part in parts)
    names = (name for name in dir(hooks) if not name.startswith("_"))
    rendered = environment.from_string(text).render(
        {name: getattr(hooks, name) for name in names}, USE_TMA=False, HAS_FULL_BLOCKS=True
    )
    return "import triton\nimport triton.language as tl\n\n\n" + rendered


def flex_kernel(folder: Path, *given: Any) -> Any:
    """The rendered template as a kernel, from a file in that folder: Triton reads the files of kernels."""
    path = folder / "rendered.py"
    path.write_text(flex_source(*given), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("rendered", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.kernel


# ------------------------------------------------------------------------ the binaries


def peers(mask: str, width: int, tile: tuple[int, int]) -> Iterator[tuple[str, ASTSource]]:
    """Kernels of others, by name: the template, and the flash kernel, which is causal."""
    numbers = dict.fromkeys(("arg_Q", "arg_K", "arg_V", "OUT"), "*bf16")
    numbers |= dict.fromkeys(("arg_LSE", "arg_MAX"), "*fp32")
    with tempfile.TemporaryDirectory() as folder:
        kernel = flex_kernel(Path(folder), mask, width, tile)
        types = {name: numbers.get(name, "*i32") for name in kernel.arg_names}
        yield "flex", ASTSource(kernel, types, {}, _aligned(kernel, types))
    if mask == PATTERNS["causal"]:
        kernel = flash_kernel.flash
        types = {**dict.fromkeys(("Q", "K", "V", "Out"), "*bf16"), "Lse": "*fp32", "scale": "fp32"}
        constants = {"D": width, "BQ": tile[0], "BK": tile[1]}
        types = {
            name: "constexpr" if name in constants else types.get(name, "i32")
            for name in kernel.arg_names
        }
        yield "flash", ASTSource(kernel, types, constants, _aligned(kernel, types))


def _aligned(kernel: Any, types: dict[str, str]) -> dict[tuple[int, ...], list[list[Any]]]:
    """Pointers and strides are multiples of 16."""
    return {
        (at,): [["tt.divisibility", 16]]
        for at, name in enumerate(kernel.arg_names)
        if types[name].startswith(("*", "i"))
    }


def compared(target: str, pattern: str, width: int, **config: int) -> dict[str, dict[str, Any]]:
    """Reports of our forward and of its peers, of equal tiles, warps and stages."""
    (ours,) = jobs(target, pattern, width, passes=("forward",), length=8192, config=config or None)
    tile = (
        ours.args[ours.kernel.arg_names.index("BQ")],
        ours.args[ours.kernel.arg_names.index("BK")],
    )
    found = {"ours": report(source(ours.kernel, ours.args), target, ours.options)}
    for name, asked in peers(PATTERNS[pattern], width, tile):
        found[name] = report(asked, target, ours.options)
    return found


# Bytes of shared memory of a multiprocessor, of which each program takes 1,024 more than it asks for.
SHARED = {"cuda:80": 164 << 10, "cuda:90": 228 << 10, "cuda:100": 228 << 10}
WARPS, REGISTERS = 64, 64 << 10


def report(asked: ASTSource, target: str, options: dict[str, Any]) -> dict[str, Any]:
    """Registers and shared memory of a binary, its two loops, unmasked and masked, and the share of warps that fit."""
    made = triton.compile(asked, target=TARGETS[target], options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        tool = [str(TOOLS / "nvdisasm"), "-c", file.name]
        sass = subprocess.run(tool, check=True, capture_output=True, text=True).stdout
    found = resources(made.asm["cubin"])
    programs = min(
        REGISTERS // (32 * options["num_warps"] * -(-found["registers"] // 8) * 8),
        SHARED[target] // (made.metadata.shared + 1024),
        WARPS // options["num_warps"],
    )
    loop, masked = sorted(loops(sass), key=lambda each: len(each.instructions))
    return {
        **options,
        **found,
        "shared": made.metadata.shared,
        "occupancy": programs * options["num_warps"] / WARPS,
        "unmasked": about(loop),
        "masked": about(masked),
    }


def about(loop: Loop) -> dict[str, Any]:
    """Numbers of a loop."""
    counts = {"instructions": len(loop.instructions), "matrix": loop.matrix}
    return {**counts, "others for each": round(loop.others, 2), "kinds": loop.kinds()}


if __name__ == "__main__":
    print(json.dumps([compared(**call) for call in json.loads(sys.argv[1])]))
