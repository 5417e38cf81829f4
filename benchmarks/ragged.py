"""Times of ragged batches, new lengths each step, beside SDPA with a mask and a loop over the sequences.

    python benchmarks/ragged.py [--threads 1] [--json benchmarks/results/ragged.json]

Median processor time of a step in milliseconds, forward and backward together, with the scheduling of lengths that were
not met before. "padded": [batch, heads, longest, dim], by `q_len` and `kv_len`, or by a padding mask. "packed":
[tokens, heads, dim], by `attndsl.varlen`. SDPA is given the padded tensors and a mask, which are made outside of the
time; the loop calls it on each sequence alone. Contestants run in turns.

"new ids": forwards of causal documents, other ids at each step. "scheduling" is all that is done about ids that were
not met before; "forward" is a further call with the same ids; of both the wall time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from machine import circumstances
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

import attndsl
from attndsl.op.planning import Planner

STEPS = 4  # of which the first is not counted
BATCHES = {  # lengths, and the shape of a token: heads, dim
    "256 x 1 to 64": (lambda: torch.randint(1, 65, (256,)), (4, 32)),
    "64 x 65 to 256": (lambda: torch.randint(65, 257, (64,)), (8, 64)),
    "4096 and 64 x 1 to 64": (
        lambda: torch.cat([torch.tensor([4096]), torch.randint(1, 65, (64,))]),
        (8, 64),
    ),
}
MEANS = (64, 256, 1024)  # tokens of a document
PADDED_AT_MOST = 4  # times the tokens; beyond, padding is not measured
Step = Callable[..., Tensor]


def padded(lengths: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> dict[str, Any]:
    """Contestants over one padded batch, and its tensors."""
    heads, width = shape
    longest = int(lengths.max())
    keep = torch.arange(longest) < lengths[:, None]
    full, by_mask = attndsl.compile("full"), attndsl.compile("padding")
    both = keep[:, None, :, None] & keep[:, None, None, :]
    steps: dict[str, Step] = {
        "lengths": lambda q, k, v: full(q, k, v, q_len=lengths, kv_len=lengths),
        "mask": lambda q, k, v: by_mask(q, k, v, keep=keep),
        "sdpa": lambda q, k, v: sdpa(q, k, v, attn_mask=keep[:, None, None]),
    }
    qkv = torch.randn(3, len(lengths), heads, longest, width).to(dtype)
    return {"steps": steps, "qkv": qkv, "live": both.any(3, keepdim=True)}


def packed(lengths: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> dict[str, Any]:
    """Contestants over packed causal sequences, and their tensors."""
    heads, width = shape
    bounds = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    call, longest = attndsl.varlen("causal"), int(lengths.max())
    places = torch.arange(longest)
    keep = places < lengths[:, None]
    rows = (bounds[:-1, None] + places).masked_fill(~keep, 0)
    mask = (keep[:, None] & (places[:, None] >= places))[:, None]

    def by_padding(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        wide = (x[rows].transpose(1, 2) for x in (q, k, v))
        return sdpa(*wide, attn_mask=mask).transpose(1, 2)[keep]

    def loop(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = zip(
            *(x.transpose(0, 1)[None].split(lengths.tolist(), 2) for x in (q, k, v)), strict=True
        )
        return torch.cat([sdpa(*part, is_causal=True)[0].transpose(0, 1) for part in parts])

    steps: dict[str, Step] = {
        "varlen": lambda q, k, v: call(q, k, v, bounds),
        "loop": loop,
    }
    if longest * len(lengths) <= PADDED_AT_MOST * int(bounds[-1]):
        steps["sdpa"] = by_padding
    qkv = torch.randn(3, int(bounds[-1]), heads, width).to(dtype)
    return {"steps": steps, "qkv": qkv, "live": torch.tensor(True)}


def milliseconds(make: Callable[[], dict[str, Any]]) -> dict[str, float]:
    """The median step of each contestant, in turns, at other lengths each time; all agree."""
    found: dict[str, list[float]] = {}
    for _ in range(STEPS):
        made = make()
        results = {}
        for name, run in made["steps"].items():
            leaves = [x.clone().requires_grad_() for x in made["qkv"]]
            started = time.process_time()
            out = run(*leaves)
            out.backward(torch.ones_like(out))
            found.setdefault(name, []).append(1e3 * (time.process_time() - started))
            results[name] = torch.where(made["live"], out.detach(), 0.0)
        first, *rest = results.values()
        for other in rest:
            torch.testing.assert_close(first, other, rtol=0.02, atol=0.02)
    return {name: statistics.median(times[1:]) for name, times in found.items()}


def new_ids(mean: int, dtype: torch.dtype) -> dict[str, float]:
    """Median milliseconds of scheduling ids of documents of that mean length, and of a forward over them."""
    batch, heads, tokens, width = 8, 8, 2048, 64
    p, times = attndsl.compile("documents_causal"), dict[str, list[float]]()
    q, k, v = torch.randn(3, batch, heads, tokens, width).to(dtype)
    find = Planner.executable

    def scheduled(*given: Any) -> Any:
        started = time.perf_counter()
        found = find(*given)
        times.setdefault("scheduling", []).append(1e3 * (time.perf_counter() - started))
        return found

    for _ in range(2 * STEPS):
        ids = (torch.rand(batch, tokens) < 1 / mean).cumsum(1)
        with mock.patch.object(Planner, "executable", scheduled):
            p(q, k, v, doc=ids)
        started = time.perf_counter()
        p(q, k, v, doc=ids)
        times.setdefault("forward", []).append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def main() -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        for name, (lengths, shape) in BATCHES.items():
            for kind in (padded, packed):
                if kind is padded and name != "256 x 1 to 64":
                    continue
                times = milliseconds(lambda d=lengths, s=shape, k=kind, t=dtype: k(d(), s, t))
                other = times.get("sdpa", times.get("loop", 0.0))
                ours = [n for n in times if n not in ("sdpa", "loop")]
                ratios = {n: times[n] / other for n in ours}
                about = {"batch": name, "kind": kind.__name__, "dtype": str(dtype)[6:]}
                rows.append(about | {"milliseconds": times, "ours over": ratios})
                shown = "  ".join(f"{n} {t:8.1f}" for n, t in times.items())
                share = "  ".join(f"x{ratio:.2f}" for ratio in ratios.values())
                print(f"{name:24}{about['kind']:8}{about['dtype']:10}{shown}  {share}")
        for mean in MEANS:
            times = new_ids(mean, dtype)
            ratio = times["scheduling"] / times["forward"]
            about = {"batch": f"8 x 2048, documents of {mean}", "kind": "new ids"}
            about |= {"dtype": str(dtype)[6:]}
            rows.append(about | {"milliseconds": times, "scheduling over forward": ratio})
            shown = "  ".join(f"{n} {t:8.1f}" for n, t in times.items())
            print(f"{about['batch']:32}{about['dtype']:10}{shown}  x{ratio:.2f}")
    if given.json:
        text = json.dumps(circumstances() | {"threads": given.threads, "rows": rows}, indent=1)
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
