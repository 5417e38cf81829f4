"""docs/performance.md from the files of results: tables, and on GPUs what was asked for beside what was found."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from report_cpu import sections as without_gpu

RESULTS = Path(__file__).parent / "results"
BOTH = ("forward", "forward and backward")
NEAR_THE_BOUND = ("window 512", "window 4096", "documents", "longformer")
HEADER = """\
# Performance

Written by `make docs` and `make gpu` from the files in `benchmarks/results`: what was measured, on what, by which
script. Each table is one run; where contestants are compared they took turns in one process.

## Without a GPU
"""
ON_GPUS = """\
## On GPUs

Written by `make gpu`; [CONTRIBUTING.md](../CONTRIBUTING.md#to-measure-on-a-gpu)
says how to run it. bfloat16, batch 1, 16 heads; milliseconds on the device, medians of contestants that take turns
in one process, the cache cold. *Bound*: the time of the fastest dense causal SDPA times the share of tiles that are
live, the least that any kernel of that quality could take. `flex` is compiled flex_attention on the same pattern.
"""


def results_in(folder: Path = RESULTS) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The files of GPUs, by name."""
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and "gpu" in found:
            yield path, found


def page(results: Iterable[dict[str, Any]]) -> str:
    """The whole page."""
    sections = [_section(found) for found in sorted(results, key=lambda found: found["gpu"])]
    none = ["No GPU has been measured yet.\n"]
    return "\n".join([HEADER, *without_gpu(), ON_GPUS, *(sections or none)])


def goals(results: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """(goal, asked, found, reached) of each goal that something was measured for."""
    made = []
    rows = [found for found in results["rows"].values() if "fault" not in found]
    against = [_over_flex(found[which]) for found in rows for which in BOTH]
    if against:
        mean, least = statistics.geometric_mean(against), min(against)
        made.append(("flex / attndsl, geometric mean", "≥ 1.3", f"{mean:.2f}", mean >= 1.3))
        made.append(("flex / attndsl, least", "≥ 1.0", f"{least:.2f}", least >= 1.0))
    near = [
        _of_bound(found, which)
        for label, found in results["rows"].items()
        if "fault" not in found and label.split(", ")[0] in NEAR_THE_BOUND
        for which in BOTH
    ]
    if near:
        label = "bound / attndsl, least of windows, documents, longformer"
        made.append((label, "≥ 0.85", f"{min(near):.2f}", min(near) >= 0.85))
    if results["repeats"]:
        bad = sum("fault" in found for found in results["repeats"].values())
        label = "patterns whose gradients differ between runs"
        made.append((label, "0", str(bad), bad == 0))
    waits = [
        found["attndsl"] / found["sdpa"]
        for found in results["latency"].values()
        if "fault" not in found
    ]
    if waits:
        label = "causal, 512 tokens: call to end, attndsl / SDPA, most"
        made.append((label, "≤ 1.3", f"{max(waits):.2f}", max(waits) <= 1.3))
    return made


def _over_flex(times: dict[str, float]) -> float:
    return times["flex"] / times["attndsl"]


def _of_bound(found: dict[str, Any], which: str) -> float:
    times = found[which]
    return times["sdpa causal"] * found["live"] / found["live of causal"] / times["attndsl"]


def _section(results: dict[str, Any]) -> str:
    """Results of one GPU."""
    where = results["circumstances"]
    checks = {**results["checks"], **results["repeats"], **results.get("score_checks", {})}
    faults = [f"- {label}: {found['fault']}" for label, found in checks.items() if "fault" in found]
    lines = [
        f"### {results['gpu']}",
        "",
        f"torch {where['torch']}, triton {where['triton']}, {where['date'][:10]}.",
        f"{len(checks)} checks against float64 and of equal bits, {len(faults)} failed.",
        *faults,
        "",
    ]
    asked = [
        (*goal, "reached" if reached else "**not reached**") for *goal, reached in goals(results)
    ]
    lines += _table(("goal", "asked", "found", ""), asked)
    times = ("attndsl", "flex", "sdpa causal")
    ratios = ("flex / attndsl", "bound / attndsl")
    head = ("pattern", "tokens", "head_dim", "live tiles", "pass", *times, *ratios)
    lines += _table(head, (row for item in results["rows"].items() for row in _rows(*item)))
    scores = [row for item in results.get("score_rows", {}).items() for row in _score_rows(*item)]
    lines += _table(("score over causal", "pass", "attndsl", "plain pattern", "flex"), scores)
    waits = [
        (label, f"{found['attndsl']:.4f}", f"{found['sdpa']:.4f}")
        for label, found in results["latency"].items()
        if "fault" not in found
    ]
    return "\n".join(lines + _table(("call to end", "attndsl", "sdpa"), waits))


def _rows(label: str, found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    name = label.split(", ")
    if "fault" in found:
        yield (*name, "", found["fault"].replace("|", "\\|"), *[""] * 5)
        return
    for which in BOTH:
        times = [f"{found[which][x]:.3f}" for x in ("attndsl", "flex", "sdpa causal")]
        ratios = f"{_over_flex(found[which]):.2f}", f"{_of_bound(found, which):.2f}"
        yield (*name, f"{found['live']:.2%}", which, *times, *ratios)


def _score_rows(label: str, found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    if "fault" in found:
        yield label, found["fault"].replace("|", "\\|"), "", "", ""
        return
    for which in BOTH:
        times = (found[which].get(name) for name in ("attndsl", "plain", "flex"))
        yield label, which, *("" if each is None else f"{each:.3f}" for each in times)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    body = [f"| {' | '.join(row)} |" for row in rows]
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *body, ""] if body else []
