"""How fast BlockMasks are made, against create_block_mask of torch: a table, and JSON.

    python benchmarks/block_masks.py [--json block_masks.json] [--quick]

From a mask_mod to torch's ``BlockMask`` on the CPU, blocks of 128 x 128: ours traces the function and schedules it
anew in each call. torch's runs once eagerly, and compiled twice, of which the last counts. Milliseconds of the
clock, and of processor time; the median of ours.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import circumstances
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask

import attndsl

ROUNDS = 15  # of ours
DOCUMENTS = 60


def causal(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
    """Keys up to the query's own."""
    return q_idx >= kv_idx


def window(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
    """The last 1,024 keys."""
    return (q_idx >= kv_idx) & (q_idx - kv_idx < 1024)


def documents(tokens: int, seed: int) -> Callable[..., Tensor]:
    """Causal attention in documents of random lengths, of new ids for each seed."""
    draw = np.random.default_rng(seed)
    ends = np.sort(draw.choice(tokens, DOCUMENTS, replace=False))
    doc = torch.from_numpy(np.searchsorted(ends, np.arange(tokens), side="right"))

    def packed(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return (doc[q_idx] == doc[kv_idx]) & (q_idx >= kv_idx)

    return packed


# name -> the function of a number of tokens and a round
FUNCTIONS: dict[str, Callable[[int, int], Callable[..., Tensor]]] = {
    "causal": lambda tokens, n: causal,
    "window": lambda tokens, n: window,
    "documents": documents,
}


def taken(make: Callable[..., Any], mod: Callable[..., Tensor], tokens: int) -> tuple[float, float]:
    """Milliseconds of one BlockMask: of the clock, and of the processor."""
    gc.collect()
    clock, processor = time.perf_counter(), time.process_time()
    make(mod, None, None, tokens, tokens, device="cpu")
    return 1e3 * (time.perf_counter() - clock), 1e3 * (time.process_time() - processor)


def measure(name: str, tokens: int) -> dict[str, Any]:
    """One row of ours, without the first of a process, which imports."""
    mods = [FUNCTIONS[name](tokens, n) for n in range(ROUNDS + 1)]
    runs = [taken(attndsl.flex.create_block_mask, mod, tokens) for mod in mods][1:]
    clock, processor = (statistics.median(times) for times in zip(*runs, strict=True))
    made = attndsl.flex.create_block_mask(mods[0], None, None, tokens, tokens, device="cpu")
    tensors = (getattr(made, each) for each in made._TENSOR_ATTRS)
    return {
        "function": name,
        "tokens": tokens,
        "ms": round(clock, 2),
        "processor ms": round(processor, 2),
        "bytes": sum(x.nbytes for x in tensors if isinstance(x, Tensor)),
    }


def compare(name: str, tokens: int, traced: bool, ours: float) -> dict[str, Any]:
    """create_block_mask of torch, and how many times longer it takes."""
    make = torch.compile(create_block_mask) if traced else create_block_mask
    mod = FUNCTIONS[name](tokens, 0)
    clock, _ = [taken(make, mod, tokens) for _ in range(2 if traced else 1)][-1]
    return {
        "function": name,
        "tokens": tokens,
        "create_block_mask": "compiled" if traced else "eager",
        "ms": round(clock, 1),
        "ratio to ours": round(clock / ours, 1),
    }


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="without torch's")
    given = parser.parse_args()
    lengths = (16_384, 65_536, 131_072)
    rows = [measure(name, tokens) for name in FUNCTIONS for tokens in lengths]
    ours = {(row["function"], row["tokens"]): row["ms"] for row in rows}
    others: list[dict[str, Any]] = []
    if not given.quick:
        asked = [("causal", 16_384, False), ("documents", 16_384, False), ("causal", 65_536, True)]
        others = [compare(n, t, traced, ours[n, t]) for n, t, traced in asked]
    for row in rows + others:
        print(", ".join(f"{name} {value}" for name, value in row.items()))
    if given.json:
        report = circumstances() | {"rows": rows, "create_block_mask": others}
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
