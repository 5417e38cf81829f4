"""The loops of our forward kernel beside those of others, from binaries for GPUs that need not be here: table and JSON.

    python benchmarks/kernel_peers.py [--json benchmarks/results/kernel_peers.json]

For each target, pattern and width: our kernel, FlexAttention's template of the installed torch, and a plain causal
flash kernel, all of the same tile, warps and stages, bfloat16. Instructions are those of one warp for a tile of keys.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import triton
from machine import circumstances

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.kernel_peers import PATTERNS, compared

TARGETS = ("cuda:80", "cuda:90", "cuda:100")
WIDTHS = (64, 128)


def main() -> None:
    """Compile, print, save after each call."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for target in TARGETS:
        for width in WIDTHS:
            for pattern in PATTERNS:
                for name, found in compared(target, pattern, width).items():
                    row = {"target": target, "width": width, "pattern": pattern, "kernel": name}
                    rows.append(row | found)
                    loops = (found[which]["instructions"] for which in ("unmasked", "masked"))
                    print(*row.values(), *loops, flush=True)
        if given.json:
            report = circumstances() | {"triton": triton.__version__, "rows": rows}
            given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
