"""On a GPU: are the kernels right, and how fast are they? One command, ten minutes at most.

    python benchmarks/gpu.py [--minutes 9.5] [--fresh]

First every kernel against attention in float64; then, in one run and by turns, attndsl, compiled
flex_attention on the same pattern, and the fastest dense causal SDPA, whose time times the share of live
tiles is the least that any kernel of that quality could take. Each finished row is kept in
benchmarks/results/<gpu>.json, so that the next call goes on where this one stopped; docs/performance.md
is written from that file. Exit status: 0 all done (or no GPU here), 1 a kernel is wrong, 2 time is up.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from machine import circumstances
from torch.nn import functional as F

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import attndsl  # noqa: E402
from attndsl.backends import attend  # noqa: E402
from tests.support.tolerances import assert_close, largest_summands  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HEADS = 16
LENGTHS = (8_192, 32_768, 131_072)
Run = Callable[[], Any]


@dataclass(frozen=True)
class Contest:
    """A pattern, and the same as a mask_mod of flex_attention."""

    name: str
    pattern: str
    values: dict[str, Any] = field(default_factory=dict)
    mod: Callable[[int], Callable[..., Any]] = lambda n: lambda b, h, q, k: q >= k
    extents: Callable[[int], dict[str, int] | None] = lambda n: None
    inputs: Callable[[int], dict[str, torch.Tensor]] = lambda n: {}

    def ours(self) -> attndsl.Pattern:
        """The compiled pattern."""
        return attndsl.compile(self.pattern, **self.values)


def _window(w: int) -> Callable[[int], Callable[..., Any]]:
    return lambda n: lambda b, h, q, k: (q >= k) & (q - k < w)


def _ids(n: int) -> torch.Tensor:
    """Documents of 200 to 6,000 tokens, the same ones each time."""
    lengths = torch.randint(200, 6_000, (n // 200 + 1,), generator=torch.Generator().manual_seed(0))
    return torch.repeat_interleave(torch.arange(len(lengths)), lengths)[:n]


def _documents(n: int) -> Callable[..., Any]:
    ids = _ids(n).to(DEVICE)
    return lambda b, h, q, k: (q >= k) & (ids[q] == ids[k])


def _longformer(n: int) -> Callable[..., Any]:
    return lambda b, h, q, k: ((q - k).abs() <= 256) | (q < 4) | (k < 4)


def _dilated(n: int) -> Callable[..., Any]:
    return lambda b, h, q, k: ((q - k).abs() <= 512) & ((q - k) % 8 == 0)


def _strided(n: int) -> Callable[..., Any]:
    return lambda b, h, q, k: (q >= k) & ((q - k < 128) | ((q - k) % 128 == 0))


def _bigbird(n: int) -> Callable[..., Any]:
    """Random blocks are what the pattern says they are: read from its tiles, which are its blocks."""
    schedule = attndsl.compile("bigbird").schedule(n, heads=HEADS, tile=(64, 64))
    live = torch.zeros(HEADS, n // 64, n // 64, dtype=torch.bool)
    for head in range(HEADS):
        row, column = torch.from_numpy(schedule.plan(0, head).full.pairs()).long().T
        live[head, row, column] = True
    live = live.to(DEVICE)
    return lambda b, h, q, k: live[h, q // 64, k // 64]


def _near(i: Any, j: Any, length: int, size: int) -> Any:
    half = size // 2
    return (i.clamp(half, length - 1 - half) - j).abs() <= half


def _image(n: int) -> Callable[..., Any]:
    width = 128
    rows = n // width
    return lambda b, h, q, k: (
        _near(q // width, k // width, rows, 13) & _near(q % width, k % width, width, 13)
    )


def _video(n: int) -> Callable[..., Any]:
    y, x = 32, 32
    frames = n // (y * x)
    return lambda b, h, q, k: (
        _near(q // (y * x), k // (y * x), frames, 5)
        & _near(q // x % y, k // x % y, y, 7)
        & _near(q % x, k % x, x, 7)
    )


CONTESTS = [
    Contest("causal", "causal"),
    Contest("window 512", "causal_window", {"w": 512}, _window(512)),
    Contest("window 4096", "causal_window", {"w": 4096}, _window(4096)),
    Contest(
        "documents",
        "input doc: int[pos]\npattern p = doc[q] == doc[k] and causal",
        mod=_documents,
        inputs=lambda n: {"doc": _ids(n)},
    ),
    Contest("longformer", "pattern p = window(256) or q < 4 or k < 4", mod=_longformer),
    Contest("bigbird", "bigbird", mod=_bigbird),
    Contest("dilated 8", "pattern p = abs(q - k) <= 512 and (q - k) % 8 == 0", mod=_dilated),
    Contest("strided 128", "strided", {"s": 128}, _strided),
    Contest(
        "image 13x13", "neighborhood2d", {"sy": 13}, _image, lambda n: {"y": n // 128, "x": 128}
    ),
    Contest(
        "video 5x7x7",
        "neighborhood3d",
        {"st": 5, "sy": 7, "sx": 7},
        _video,
        lambda n: {"t": n // 1024, "y": 32, "x": 32},
    ),
]


# ---------------------------------------------------------------------------- correctness


def wrong(contest: Contest, dtype: torch.dtype, head_dim: int, group: int) -> str:
    """What the kernels get wrong at 2,048 tokens; empty if nothing. Judged as the tests judge."""
    n = 2_048
    make = torch.Generator("cuda").manual_seed(0)
    shapes = [(1, 2 * group, n, head_dim), (1, 2, n, head_dim), (1, 2, n, head_dim)]
    q, k, v = (
        torch.randn(*shape, device="cuda", generator=make).to(dtype).requires_grad_()
        for shape in shapes
    )
    dout = torch.randn(q.shape, device="cuda", generator=make).to(dtype)
    p, extents, inputs = contest.ours(), contest.extents(n), contest.inputs(n)
    out = p(q, k, v, extents=extents, **inputs)
    results = [out, *torch.autograd.grad(out, (q, k, v), dout)]
    again = [p(q, k, v, extents=extents, **inputs)]
    again += torch.autograd.grad(again[0], (q, k, v), dout)
    if not all(torch.equal(a, b) for a, b in zip(results, again, strict=True)):
        return "a second run gives other bits"
    mask = p.mask(n, extents=extents, heads=2 * group, **inputs).to("cuda")
    exact, reference = [], []
    for kind, kept in ((torch.float64, exact), (dtype, reference)):
        leaves = [x.detach().to(kind).requires_grad_() for x in (q, k, v)]
        theirs, _ = attend(mask, *leaves, head_dim**-0.5)
        kept += [theirs, *torch.autograd.grad(theirs, leaves, dout.to(kind))]
    sizes = largest_summands(q, k, v, dout, None, head_dim**-0.5)
    for name, *each in zip(("out", "dq", "dk", "dv"), results, exact, reference, strict=True):
        try:
            assert_close(*each, summand=sizes[name], terms=n * group, dtype=dtype, what=name)
        except AssertionError as error:
            return str(error)
    return ""


def checks() -> Iterator[tuple[str, Callable[[], str]]]:
    """Each kernel by name: a fault, or nothing."""
    for contest in CONTESTS:
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            for head_dim, group in ((64, 1), (128, 4), (72, 2)):
                label = f"{contest.name}, {str(dtype)[6:]}, head_dim {head_dim}, group {group}"
                yield label, lambda c=contest, d=dtype, w=head_dim, g=group: wrong(c, d, w, g)


# ---------------------------------------------------------------------------- speed


def milliseconds(runs: dict[str, Run], rounds: int = 7) -> dict[str, float]:
    """Medians, the contestants taking turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            stop.record()
            torch.cuda.synchronize()
            times[name].append(start.elapsed_time(stop))
    return {name: statistics.median(found) for name, found in times.items()}


def both(run: Run, leaves: tuple[torch.Tensor, ...], dout: torch.Tensor) -> Run:
    """Forward and backward."""
    return lambda: torch.autograd.grad(run(), leaves, dout)


def row(contest: Contest, tokens: int, head_dim: int) -> dict[str, Any]:
    """Times of all contestants, and the least time that the live tiles allow."""
    from torch.nn.attention import flex_attention as flex

    make = torch.Generator("cuda").manual_seed(0)
    shape = (1, HEADS, tokens, head_dim)
    q, k, v, dout = (
        torch.randn(*shape, device="cuda", dtype=torch.bfloat16, generator=make) for _ in range(4)
    )
    leaves = tuple(x.requires_grad_() for x in (q, k, v))
    p, extents, inputs = contest.ours(), contest.extents(tokens), contest.inputs(tokens)
    live = p.schedule(tokens, heads=HEADS, extents=extents, **inputs).density
    causal = attndsl.compile("causal").schedule(tokens).density
    heads = HEADS if contest.name == "bigbird" else None  # the others are alike
    blocks = flex.create_block_mask(
        contest.mod(tokens), None, heads, tokens, tokens, "cuda", _compile=True
    )
    compiled = torch.compile(flex.flex_attention, dynamic=False)
    forward = {
        "attndsl": lambda: p(q, k, v, layout="auto", extents=extents, **inputs),
        "flex": lambda: compiled(q, k, v, block_mask=blocks),
        "sdpa causal": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    }
    found: dict[str, Any] = {"live": live, "live of causal": causal}
    found["forward"] = milliseconds(forward)
    found["forward and backward"] = milliseconds(
        {name: both(run, leaves, dout) for name, run in forward.items()}
    )
    return found


# ---------------------------------------------------------------------------- keeping


def render(results: dict[str, Any]) -> str:
    """The page of results."""
    lines = [
        f"# Performance on {results['gpu']}",
        "",
        "Written by `make gpu`. Times in milliseconds:",
    ]
    lines += [
        f"bfloat16, {HEADS} heads. *Bound*: SDPA's causal time times the share of live tiles.",
        "",
    ]
    head = (
        "pattern",
        "tokens",
        "head_dim",
        "pass",
        "attndsl",
        "flex",
        "flex / attndsl",
        "bound / attndsl",
    )
    lines += [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for label, found in results["rows"].items():
        if "error" in found:
            lines.append(f"| {label} | {found['error']} |")
            continue
        for which in ("forward", "forward and backward"):
            times = found[which]
            bound = times["sdpa causal"] * found["live"] / found["live of causal"]
            ratios = times["flex"] / times["attndsl"], bound / times["attndsl"]
            cells = [*label.split(", "), which, *(f"{times[x]:.3f}" for x in ("attndsl", "flex"))]
            lines.append(f"| {' | '.join([*cells, *(f'{x:.2f}' for x in ratios)])} |")
    faults = {name: fault for name, fault in results["checks"].items() if fault}
    lines += ["", f"{len(results['checks'])} checks against float64, {len(faults)} failed."]
    return "\n".join([*lines, *(f"- {name}: {fault}" for name, fault in faults.items()), ""])


def attempt(step: Callable[[], Any]) -> Any:
    """The result, or what went wrong, in one line."""
    try:
        return step()
    except Exception as error:  # noqa: BLE001 - one row that fails must not take the others with it
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}


def main() -> int:
    """Run what is left to do, and keep each result as it comes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("there is no GPU here; nothing was measured")
        return 0
    gpu = torch.cuda.get_device_name()
    path = ROOT / "benchmarks" / "results" / f"{re.sub(r'[^a-z0-9]+', '-', gpu.lower())}.json"
    results: dict[str, Any] = {"gpu": gpu, "checks": {}, "rows": {}}
    if path.exists() and not given.fresh:
        results = json.loads(path.read_text(encoding="utf-8"))
    results["circumstances"] = circumstances()
    steps: list[tuple[str, str, Callable[[], Any]]] = [("checks", *item) for item in checks()]
    for tokens in LENGTHS:
        for contest in CONTESTS:
            for width in (128, 64):
                label = f"{contest.name}, {tokens}, {width}"
                steps.append(("rows", label, lambda c=contest, n=tokens, w=width: row(c, n, w)))
    end = time.monotonic() + 60 * given.minutes
    for kind, label, step in steps:
        if label in results[kind]:
            continue
        if time.monotonic() > end:
            print("time is up; call again to go on")
            return 2
        results[kind][label] = found = attempt(step)
        print(f"{label}: {found or 'right'}", flush=True)
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (ROOT / "docs" / "performance.md").write_text(render(results), encoding="utf-8")
    return 1 if any(results["checks"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
