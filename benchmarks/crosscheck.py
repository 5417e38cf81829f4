"""Every pattern of the prelude, compiled for GPUs that need not be here: what do the binaries say?

    python benchmarks/crosscheck.py [--targets cuda:90,hip:gfx942] [--patterns causal,swin]

For head dims 64 and 128, forward and backward: no spills, shared memory within the model and the limit,
matrix instructions of the target, no division in a loop over FULL tiles. Exit status 1 if any of it fails.
Patterns whose kernels are equal compile once: the numbers of a pattern are no part of its kernel.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.crosscompile import TARGETS, compiled  # noqa: E402

INSTRUCTIONS = {"cuda:80": "mma.sync", "cuda:90": "wgmma.mma_async", "cuda:100": "tcgen05.mma"}


def calls(names: list[str]) -> list[dict[str, Any]]:
    """One call of each pattern, small: kernels do not depend on lengths."""
    samples = runpy.run_path(str(ROOT / "docs" / "generate.py"))["SAMPLES"]
    return [
        {
            "pattern": name,
            "values": sample.values,
            "length": sample.q_len,
            "k_length": sample.k_len,
            "extents": sample.extents,
            "inputs": sample.inputs,
        }
        for name, sample in {"causal": samples["prefix"].__class__(), **samples}.items()
        if not names or name in names
    ]


def faults(item: dict[str, Any]) -> list[str]:
    """What is wrong with a binary."""
    wanted = INSTRUCTIONS.get(item["target"])
    found = [f"{item['spills']} bytes of spills"] if item["spills"] else []
    if not item["shared"] <= item["modelled"] <= item["limit"]:
        found.append(f"shared memory {item['shared']}, modelled {item['modelled']}")
    if not item["matrix"] or (wanted and wanted not in item["instructions"]):
        found.append("no matrix instructions of the target")
    if item.get("divisions") and min(item["divisions"]) > 0:
        found.append("a division in the loop over FULL tiles")
    return found


def main() -> int:
    """Print a line a kernel; 1 if any has a fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--patterns", default="")
    given = parser.parse_args()
    bad = 0
    for target in given.targets.split(","):
        for call in calls([name for name in given.patterns.split(",") if name]):
            for head_dim in (64, 128):
                for item in compiled(target, head_dim=head_dim, **call):
                    wrong = faults(item)
                    bad += bool(wrong)
                    place = f"{target:10} {head_dim:4} {item['pattern']:20} {item['kernel']:17}"
                    used = f"{item['registers']:4} registers {item['shared'] >> 10:4} KiB"
                    print(place, used, "; ".join(wrong) or "ok", flush=True)
    print(f"{bad} kernels with faults")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
