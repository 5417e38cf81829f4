"""Every pattern of the prelude, and some scores, compiled for GPUs that need not be here: what do the binaries say?

    python benchmarks/crosscheck.py [--json FILE] [--targets cuda:90,hip:gfx942] [--patterns causal,swin]

For head dims 64 and 128, forward and backward: no spills, shared memory within the model and the limit,
matrix instructions of the target, no division in a loop over FULL tiles. Exit status 1 if any of it fails.

The numbers of a pattern are no part of its kernel: kernels that are equal are compiled once. With --json
the file is written as results come and read at the start, so that a run goes on where one before it stopped.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import runpy
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import attndsl  # noqa: E402
from attndsl import patterns  # noqa: E402
from tests.support.crosscompile import (  # noqa: E402
    ATTENTIONS,
    LISTS,
    TARGETS,
    Job,
    choice_jobs,
    jobs,
    list_jobs,
    scored_jobs,
)

INSTRUCTIONS = {
    "cuda:80": "mma.sync",
    "cuda:90": "wgmma.mma_async",
    "cuda:100": "tcgen05.mma",
    "hip:gfx942": "v_mfma",
}
HEAD_DIMS = (64, 128)
CHOICES = (8, 32, 64)  # units that are taken
SAID = ("target", "head_dim", "kernel", "num_warps", "num_stages", "registers", "spills", "shared")
# Variants that no call of a pattern by itself shows: masks in place of a predicate, grouped heads, split rows.
OTHERS = ({"pattern": "causal", "predicate": False, "group": 3, "longest": 1},)


def calls(names: list[str]) -> Iterator[dict[str, Any]]:
    """One call of each pattern, small: kernels do not depend on lengths."""
    pages = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    for name in (signature.name for signature in patterns.catalogue()):
        if names and name not in names:
            continue
        sample = pages["SAMPLES"].get(name, pages["Sample"]())
        yield {
            "pattern": name,
            "values": sample.values,
            "length": sample.q_len,
            "k_length": sample.k_len,
            "extents": sample.extents,
            "inputs": for_two_heads(name, sample.values, sample.inputs),
        }
    yield from (call for call in OTHERS if not names or call["pattern"] in names)


def for_two_heads(
    name: str, values: Mapping[str, Any], inputs: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    """The inputs of a sample, repeated along each dim that counts heads."""
    made = {key: np.asarray(value) for key, value in inputs.items()}
    for table in attndsl.compile(name, **values).ir.tables:
        for axis, dim in enumerate(table.dims):
            if dim == "head":
                made[table.name] = made[table.name].repeat(2, axis)
    return made


def faults(item: dict[str, Any]) -> list[str]:
    """Faults of a binary."""
    found = [f"{item['spills']} bytes of spills"] if item["spills"] else []
    if item["shared"] > item.get("limit", item["shared"]):
        found.append(f"shared memory {item['shared']}, and {item['limit']} there is")
    elif "modelled" in item and not item["shared"] <= item["modelled"]:
        found.append(f"shared memory {item['shared']}, modelled {item['modelled']}")
    wanted = INSTRUCTIONS[item["target"]]
    if item["kernel"] == "choose_units":  # in float64, of which not all have matrix instructions
        wanted = "mma.sync" if item["target"] in ("cuda:80", "cuda:90") else None
    elif item["kernel"] in ("lists_merge", "lists_sum_queries", "lists_sum_keys"):
        wanted = None
    elif item["kernel"] == "backward_pairs" and item["matrix"]:
        wanted = None  # small square blocks, for which Triton takes mma.sync at most sizes
    if wanted is not None and wanted not in item["instructions"]:
        found.append("no matrix instructions of the target")
    if item.get("divisions") and min(item["divisions"]) > 0:
        found.append("a division in the loop over FULL tiles")
    return found


def distinct(targets: list[str], names: list[str]) -> dict[str, tuple[Job, list[str]]]:
    """By key, each kernel that differs from the others, with the patterns and attentions that use it."""
    found: dict[str, tuple[Job, list[str]]] = {}
    given = list(calls(names))
    for target in targets:
        for head_dim in HEAD_DIMS:
            for call in given:
                for job in jobs(target, head_dim=head_dim, **call):
                    users = found.setdefault(job.key(), (job, []))[1]
                    if call["pattern"] not in users:
                        users.append(call["pattern"])
            for name in names or ATTENTIONS:
                if name in ATTENTIONS:
                    for job in scored_jobs(target, name, head_dim):
                        found.setdefault(job.key(), (job, []))[1].append(name)
            if not names:
                for job, user in of_lists(target, head_dim):
                    found.setdefault(job.key(), (job, []))[1].append(user)
    return found


def of_lists(target: str, head_dim: int) -> Iterator[tuple[Job, str]]:
    """The kernels over lists, and those that choose what is listed."""
    for name in LISTS:
        yield from ((job, f"lists of {name}") for job in list_jobs(target, name, head_dim))
    for count in CHOICES:
        yield from ((job, f"{count} units") for job in choice_jobs(target, count, head_dim))


_JOBS: dict[str, tuple[Job, list[str]]] = {}  # read by forked workers: a kernel cannot be sent


def judged(key: str) -> dict[str, Any]:
    """The line of the table that a kernel gets."""
    job, users = _JOBS[key]
    item = job.report()
    line = {"key": key, **{name: item[name] for name in SAID}}
    return line | {"patterns": users, "faults": faults(item)}


def known(file: Path | None) -> dict[str, dict[str, Any]]:
    """The lines that a run before this one left, if the same compiler made them."""
    if file is None or not file.exists():
        return {}
    before = json.loads(file.read_text(encoding="utf-8"))
    same = before["triton"] == triton.__version__
    return {line["key"]: line for line in before["kernels"]} if same else {}


def save(file: Path, lines: Mapping[str, dict[str, Any]]) -> None:
    """All lines that are asked for, those with faults counted; one kernel a line of the file."""
    kept = [lines[key] | {"patterns": users} for key, (_, users) in _JOBS.items() if key in lines]
    bad = sum(bool(line["faults"]) for line in kept)
    head = {"triton": triton.__version__, "asked": len(_JOBS), "done": len(kept), "bad": bad}
    body = ",\n".join(json.dumps(line) for line in kept)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(head)[:-1] + f', "kernels": [\n{body}\n]}}\n', encoding="utf-8")
    part.replace(file)


def main() -> int:
    """Print a line a kernel; 1 if any has a fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--patterns", default="")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    names = [name for name in given.patterns.split(",") if name]
    _JOBS.update(distinct(given.targets.split(","), names))
    lines = known(given.json)
    left = [key for key in _JOBS if key not in lines]
    left.sort(key=lambda key: -_JOBS[key][0].weight)  # what may spill is seen early
    print(f"{len(_JOBS)} kernels, {len(_JOBS) - len(left)} of them known")
    with multiprocessing.get_context("fork").Pool(given.workers) as pool:
        for line in pool.imap_unordered(judged, left):
            lines[line["key"]] = line
            if given.json:
                save(given.json, lines)
            show(line)
    bad = [lines[key] for key in _JOBS if lines[key]["faults"]]
    print(f"{len(bad)} kernels with faults")
    for line in bad:
        show(line)
    return 1 if bad else 0


def show(line: dict[str, Any]) -> None:
    """One kernel: where, what it takes, what is wrong."""
    place = f"{line['target']:10} {line['head_dim']:4} {line['kernel']:17}"
    used = f"{line['registers']:4} registers {line['shared'] >> 10:4} KiB"
    wrong = "; ".join(line["faults"]) or "ok"
    print(f"{place} {used} {wrong}: {', '.join(line['patterns'])}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
