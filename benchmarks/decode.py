"""Times of a decoded token, a new length each step, beside slices written by hand and a dense mask.

    python benchmarks/decode.py [--json benchmarks/results/decode.json]

Median processor time of a step in microseconds, of all threads together: other work on the machine counts by the caches
alone. Each step is timed right after a product with 64 MiB of weights, as in a model, which empties the caches of the
processor for all three alike: without it, whoever came behind another would find its code warm. "growing": k and v end
at the last token; all three are handed the same views of the cache. "static": a buffer of twice the length, filled so
far (`kv_len`). "ragged": the same with another fill in each batch element, by hand one by one. By hand: slices or a
gather of the keys that are seen, then SDPA. Their places are known for nothing, but for the start of a document, which
both find in the ids: by hand by binary search in each batch element, ours without knowing that they ascend. The
greatest losses are printed first. bfloat16 and two threads are measured at one length.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import circumstances
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

import attndsl

STEPS, DOCUMENT = 21, 500
SHAPES = [(1, 8, 8, 64), (8, 8, 8, 64), (1, 32, 4, 128)]  # batch, heads, key heads, head dim
CACHED = [2048, 8192, 32768]
VARIANTS = [
    ("float32", 1, CACHED),
    ("bfloat16", 1, [8192]),
    ("float32", 2, [8192]),
]  # dtype, threads
PATTERNS = {
    "window 256 + 4": "pattern p = causal_window(256) or k < 4",
    "causal": "causal",
    "documents": "documents_causal",
    "strided": "pattern p = causal and (q - k < 128 or k % 128 == 127)",
}

Step = Callable[[int], Any]


def seen(pattern: str, tokens: int, doc: Tensor) -> list[slice] | Tensor:
    """The keys that the last of so many tokens sees; ``doc`` [batch, room], the same keys for each of the batch."""
    match pattern:
        case "window 256 + 4":
            return [slice(0, 4), slice(tokens - 256, tokens)]
        case "causal":
            return [slice(0, tokens)]
        case "documents":
            starts = {int(torch.searchsorted(ids[:tokens], ids[tokens - 1])) for ids in doc}
            (start,) = starts  # where they differ, one would have to go by elements
            return [slice(start, tokens)]
        case _:
            near = torch.arange(tokens - 128, tokens)
            return torch.cat([torch.arange(127, tokens - 128, 128), near])


def by_hand(q: Tensor, k: Tensor, v: Tensor, doc: Tensor, pattern: str, tokens: int) -> Tensor:
    """Attention of the last of so many tokens, as one would write it."""
    keys = seen(pattern, tokens, doc)
    if isinstance(keys, Tensor):
        k, v = k.index_select(2, keys), v.index_select(2, keys)
    elif len(keys) == 1:
        k, v = k[:, :, keys[0]], v[:, :, keys[0]]
    else:
        k, v = (torch.cat([x[:, :, part] for part in keys], 2) for x in (k, v))
    return sdpa(q, k, v, enable_gqa=q.shape[1] != k.shape[1])


def steps(
    pattern: str, shape: tuple[int, ...], cached: int, kind: str, dtype: str = "float32"
) -> dict[str, Step]:
    """A step of each contestant; all see the same tokens."""
    batch, heads, kv_heads, width = shape
    room = 2 * cached if kind != "growing" else cached + STEPS
    q = torch.randn(batch, heads, 1, width).to(getattr(torch, dtype))
    k, v = torch.randn(2, batch, kv_heads, room, width).to(q.dtype)
    doc = (torch.arange(room) // DOCUMENT).expand(batch, -1).contiguous()
    p = attndsl.compile(PATTERNS[pattern])
    given = {"doc": doc} if pattern == "documents" else {}
    ends = range(cached, cached + STEPS) if kind == "growing" else [room]
    caches = {n: (k[:, :, :n], v[:, :, :n], doc[:, :n]) for n in ends}

    def fill(step: int) -> list[int]:
        return [cached + step - (37 * b if kind == "ragged" else 0) for b in range(batch)]

    def ours(step: int) -> Tensor:
        tokens = fill(step)
        if kind == "growing":
            k, v, doc = caches[tokens[0]]
            return p(q, k, v, doc=doc) if given else p(q, k, v)
        k, v, _ = caches[room]
        length = torch.tensor(tokens) if kind == "ragged" else tokens[0]
        return p(q, k, v, kv_len=length, **given)

    def hand(step: int) -> Tensor:
        tokens = fill(step)
        if kind != "ragged":
            return by_hand(q, *caches.get(tokens[0], (k, v, doc)), pattern, tokens[0])
        parts = (x.split(1) for x in (q, k, v, doc))
        each = (by_hand(*x, pattern, n) for *x, n in zip(*parts, tokens, strict=True))
        return torch.cat(list(each))

    def dense(step: int) -> Tensor:
        tokens = fill(step)
        mask = torch.zeros(batch, 1, 1, max(tokens), dtype=torch.bool)
        for b, n in enumerate(tokens):
            keys = seen(pattern, n, doc[b : b + 1])
            for part in [keys] if isinstance(keys, Tensor) else keys:
                mask[b, :, :, part] = True
        held = (x[:, :, : max(tokens)] for x in (k, v))
        return sdpa(q, *held, attn_mask=mask, enable_gqa=heads != kv_heads)

    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == "float32" else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(ours(1), hand(1), **close)
    torch.testing.assert_close(dense(1), hand(1), **close)
    return {"ours": ours, "by hand": hand, "dense mask": dense}


def microseconds(contestants: dict[str, Step]) -> dict[str, float]:
    """The median step of each, in turns, and each right after a product with many weights."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    weights, x = torch.ones(4096, 4096), torch.ones(4096)
    for step in range(STEPS):
        for name, run in contestants.items():
            weights @ x
            started = time.process_time()
            run(step)
            found[name].append(time.process_time() - started)
    return {name: 1e6 * statistics.median(times) for name, times in found.items()}


def main() -> None:
    """Measure, print the losses first, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path)
    path = parser.parse_args().json
    rows = []
    kinds = ("growing", "static", "ragged")
    for dtype, threads, lengths in VARIANTS:
        torch.set_num_threads(threads)
        for shape, cached, kind, pattern in itertools.product(SHAPES, lengths, kinds, PATTERNS):
            if (kind == "ragged") == (shape[0] == 1) or shape[0] * cached > 32768:
                continue  # one element has one fill; a batch is measured with several, in bounded memory
            found = microseconds(steps(pattern, shape, cached, kind, dtype))
            ratios = {name: found["ours"] / found[name] for name in ("by hand", "dense mask")}
            about = {"pattern": pattern, "shape": shape, "cached": cached, "kind": kind}
            about |= {"dtype": dtype, "threads": threads}
            rows.append(about | {"microseconds": found, "ours over": ratios})
    torch.set_num_threads(1)
    rows.sort(key=lambda row: -row["ours over"]["by hand"])
    for row in rows:
        batch, heads, kv_heads, width = row["shape"]
        call = f"{batch} x {heads}:{kv_heads} x {width}, {row['cached']} {row['kind']}"
        call += f", {row['dtype']}, {row['threads']} threads"
        times = "  ".join(f"{name} {value:9.0f}" for name, value in row["microseconds"].items())
        print(f"{row['pattern']:16}{call:56}{times}  x{row['ours over']['by hand']:.2f}")
    if path:
        path.write_text(json.dumps(circumstances() | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
