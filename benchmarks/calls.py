"""Python above the kernels: what a call takes that is like one before it, its kernels replaced by nothing.

    python benchmarks/calls.py [--json benchmarks/results/calls.json]

Microseconds by the clock on one thread, of batch 8, 8 heads of 64, 2,048 tokens: the least and the median of many
calls. A call of one query stands for decoding. Also the memory of 10,000 decoded tokens: bytes that the process holds
more at the end than after the first 1,000.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from machine import circumstances
from torch import Tensor

import attndsl
from attndsl.backends.executable import Executable
from attndsl.backends.few_queries import FewQueriesKernels

BATCH, HEADS, TOKENS, WIDTH, CALLS, STEPS = 8, 8, 2048, 64, 2000, 10_000
WINDOW = "pattern p = causal_window(256) or k < 4"


def timed(call: Callable[[], Any]) -> dict[str, float]:
    """The least and the median time."""
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    times.sort()
    return {"least": 1e6 * times[0], "median": 1e6 * times[CALLS // 2]}


def warm_calls() -> list[dict[str, Any]]:
    """Plain calls and bound ones."""
    q, k, v = torch.randn(3, BATCH, HEADS, TOKENS, WIDTH)
    one = q[:, :, :1].contiguous()
    doc = (torch.arange(TOKENS) // 300).expand(BATCH, -1).contiguous()
    window, documents = attndsl.compile(WINDOW), attndsl.compile("documents_causal")
    shape = {"batch": BATCH, "heads": HEADS}
    calls: dict[str, tuple[str, Callable[[], Any]]] = {}
    for queries, x in ((TOKENS, q), (1, one)):
        for name, p, given in (("window", window, {}), ("documents", documents, {"doc": doc})):
            bound = p.bind(queries, TOKENS, **shape, **given)
            told: dict[str, Any] = {"kv_len": TOKENS - 40}
            filled = p.bind(queries, TOKENS, **shape, **given, **told)
            about = f"{name}, {queries} queries"
            calls |= {
                f"{about}, plain": ("plain", lambda p=p, x=x, given=given: p(x, k, v, **given)),
                f"{about}, bound": ("bound", lambda bound=bound, x=x: bound(x, k, v)),
                f"{about}, plain, kv_len": (
                    "plain",
                    lambda p=p, x=x, g=given, t=told: p(x, k, v, **g, **t),
                ),
                f"{about}, bound, kv_len": ("bound", lambda bound=filled, x=x: bound(x, k, v)),
            }

    levels = {n: torch.zeros(BATCH, HEADS, n) for n in (1, TOKENS - 40, TOKENS)}

    def nothing(self: Any, q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Any:
        del self, k, v, scale
        return q, levels[q.shape[2]]

    for _, call in calls.values():
        call()
    with (
        mock.patch.object(Executable, "forward", nothing),
        mock.patch.object(FewQueriesKernels, "forward", nothing),
    ):
        return [{"call": n, "kind": kind} | timed(call) for n, (kind, call) in calls.items()]


def held() -> int:
    """Bytes of the process in memory."""
    gc.collect()
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096


def growth(text: str) -> int:
    """Bytes that 9,000 steps add, of decoding with a new length each."""
    p = attndsl.compile(text)
    q = torch.randn(1, 2, 1, 8)
    k, v = torch.randn(2, 1, 2, STEPS + 1, 8)
    doc = (torch.arange(STEPS + 1) // 500)[None]
    given = {"doc": doc} if p.ir.tables else {}
    before = 0
    for n in range(1, STEPS + 1):
        p(q, k[:, :, :n], v[:, :, :n], **{name: x[:, :n] for name, x in given.items()})
        if n == STEPS // 10:
            before = held()
    return held() - before


def main() -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path)
    path = parser.parse_args().json
    torch.set_num_threads(1)
    rows = sorted(warm_calls(), key=lambda row: -row["median"])
    for row in rows:
        print(f"{row['call']:40} least {row['least']:7.1f}  median {row['median']:7.1f}")
    memory = {
        name: growth(text) for name, text in (("window", WINDOW), ("documents", "documents_causal"))
    }
    print("bytes more after 10,000 steps:", memory)
    if path:
        path.write_text(
            json.dumps(circumstances() | {"rows": rows, "memory": memory}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
