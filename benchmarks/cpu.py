"""The CPU backend against compiled flex_attention and dense SDPA: one table, and JSON.

    python benchmarks/cpu.py [--tokens 8192] [--rounds 9] [--json cpu.json] [--no-flex]

The contestants take turns; a cell is the median of its rounds, a ratio that of two such medians.
On a machine that others use as well, the ratios of the shortest rounds say more: they stand below.
Only what all can do is compared: a causal window of 512 keys, 8 heads of 64; and for the backend
alone, what 8 global tokens (rows and columns) add to it. Compilation and schedules are not timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import circumstances
from torch.nn import functional as F

from attndsl.backends import Blocked, Kernels, Request
from attndsl.frontend import k, q, to_mask
from attndsl.passes import normalise
from attndsl.schedule import Call, arranged, tiled

HEADS, WIDTH, WINDOW, GLOBALS = 8, 64, 512, 8
SCALE = WIDTH**-0.5
WINDOWED = (q - k >= 0) & (q - k < WINDOW)
PATTERNS = {"window": WINDOWED, "longformer": WINDOWED | (q < GLOBALS) | (k < GLOBALS)}
BACKEND = Blocked()

Run = Callable[[], Any]


def lowered(name: str, tensors: list[torch.Tensor]) -> Kernels:
    """The kernels of the pattern over such tensors."""
    request, tokens = Request.of(*tensors[:3], gradient=True), tensors[0].shape[2]
    bound = arranged(normalise(to_mask(PATTERNS[name])), Call(tokens, tokens))
    return BACKEND.lower(tiled(bound, *BACKEND.tiles(request)), request)


def ours(name: str, tensors: list[torch.Tensor]) -> dict[str, Run]:
    """Forward and backward of the backend."""
    query, key, value, dout = tensors
    kernels = lowered(name, tensors)
    out, lse = kernels.forward(query, key, value, scale=SCALE)
    return {
        "forward": lambda: kernels.forward(query, key, value, scale=SCALE),
        "backward": lambda: kernels.backward(query, key, value, out, lse, dout, None, scale=SCALE),
    }


def dense(tensors: list[torch.Tensor]) -> dict[str, Run]:
    """SDPA with a dense bool mask."""
    *leaves, dout = tensors
    position = torch.arange(dout.shape[2])
    apart = position[:, None] - position
    mask = (apart >= 0) & (apart < WINDOW)
    tracked = [x.clone().requires_grad_() for x in leaves]
    out = F.scaled_dot_product_attention(*tracked, attn_mask=mask)
    return {
        "forward": lambda: F.scaled_dot_product_attention(*leaves, attn_mask=mask),
        "backward": lambda: torch.autograd.grad(out, tracked, dout, retain_graph=True),
    }


def flex(tensors: list[torch.Tensor]) -> dict[str, Run]:
    """Compiled flex_attention; its CPU form has no backward."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    *leaves, dout = tensors
    length = dout.shape[2]
    blocks = create_block_mask(
        lambda b, h, i, j: (i - j >= 0) & (i - j < WINDOW), None, None, length, length, device="cpu"
    )
    run = torch.compile(flex_attention, dynamic=False)
    return {"forward": torch.no_grad()(lambda: run(*leaves, block_mask=blocks))}


def race(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each round of each, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn:  # the first one warms up
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def measure(tokens: int, rounds: int, with_flex: bool) -> list[dict[str, Any]]:
    """One row for each dtype and direction."""
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        tensors = [torch.randn(1, HEADS, tokens, WIDTH, dtype=dtype) for _ in range(4)]
        contestants = {name: ours(name, tensors) for name in PATTERNS} | {"sdpa": dense(tensors)}
        if with_flex:
            contestants["flex"] = flex(tensors)
        for direction in ("forward", "backward"):
            runs = {
                name: each[direction] for name, each in contestants.items() if direction in each
            }
            slow = {"sdpa": runs.pop("sdpa")}
            found = race(runs, rounds) | race(slow | {"window again": runs["window"]}, 4)
            rows.append(row(dtype, direction, found))
    return rows


def row(dtype: torch.dtype, direction: str, found: dict[str, list[float]]) -> dict[str, Any]:
    """Medians and shortest rounds, and the ratios of either."""
    medians = {name: statistics.median(times) for name, times in found.items()}
    shortest = {name: min(times) for name, times in found.items()}
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "direction": direction,
        "median ms": {name: round(value, 1) for name, value in medians.items()},
        "ratios": ratios(medians),
        "shortest ms": {name: round(value, 1) for name, value in shortest.items()},
        "ratios of the shortest": ratios(shortest),
    }


def ratios(found: dict[str, float]) -> dict[str, float]:
    """The ratios that matter: above 1 the backend is faster; longformer's should be near 1."""
    result = {
        "sdpa / window": found["sdpa"] / found["window again"],
        "longformer / window": found["longformer"] / found["window"],
    }
    if "flex" in found:
        result["flex / window"] = found["flex"] / found["window"]
    return {name: round(value, 2) for name, value in result.items()}


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no-flex", action="store_true", help="it needs a C++ compiler")
    given = parser.parse_args()
    report = circumstances() | {
        "pattern": f"causal window of {WINDOW} keys, {HEADS} heads of {WIDTH}",
        "tokens": given.tokens,
        "rows": measure(given.tokens, given.rounds, not given.no_flex),
    }
    for each in report["rows"]:
        print(f"{each['dtype']} {each['direction']}")
        for part in list(each)[2:]:
            print(f"    {part}: " + ", ".join(f"{name} {x}" for name, x in each[part].items()))
    if given.json:
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
