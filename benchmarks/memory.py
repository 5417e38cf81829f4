"""Peak memory of the CPU backend at a long length: forward and backward, fp32 by default.

    python benchmarks/memory.py [--tokens 131072] [--dtype float32] [--limit 4.0] [--pattern window] [--json F]

Exits with 1 when the process has ever held more than the limit (GB). q, k, v, out, dout, dq, dk and
dv alone are 8 x 268 MB at the default.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import torch
from cpu import HEADS, PATTERNS, SCALE, WIDTH, lowered
from machine import circumstances


def peak() -> float:
    """The most memory this process has held, GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main() -> None:
    """Run once, report each step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=131_072)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--limit", type=float, default=4.0)
    parser.add_argument("--pattern", choices=sorted(PATTERNS), default="window")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    dtype = getattr(torch, given.dtype)
    print(f"imports          {peak():5.2f} GB")
    q, k, v, dout = (torch.randn(1, HEADS, given.tokens, WIDTH, dtype=dtype) for _ in range(4))
    print(f"inputs           {peak():5.2f} GB")
    start = time.perf_counter()
    kernels = lowered(given.pattern, [q, k, v])
    print(f"schedule         {peak():5.2f} GB  {time.perf_counter() - start:6.2f} s")
    start = time.perf_counter()
    out, lse = kernels.forward(q, k, v, scale=SCALE)
    print(f"forward          {peak():5.2f} GB  {time.perf_counter() - start:6.2f} s")
    start = time.perf_counter()
    gradients = kernels.backward(q, k, v, out, lse, dout, None, scale=SCALE)
    print(f"backward         {peak():5.2f} GB  {time.perf_counter() - start:6.2f} s")
    assert all(gradient.isfinite().all() for gradient in gradients)
    if given.json:
        what = {"pattern": given.pattern, "tokens": given.tokens, "dtype": given.dtype}
        report = (
            circumstances() | what | {"heads": HEADS, "width": WIDTH, "peak GB": round(peak(), 2)}
        )
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    sys.exit(peak() > given.limit)


if __name__ == "__main__":
    main()
