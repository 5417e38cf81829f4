"""One step of `make gpu` after another, as gpu.py asks for them on standard input, a line each.

The answer to a step is a line of JSON: what was measured, or the fault. A process whose GPU context may
be broken says so and ends; gpu.py starts another.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention import flex_attention as flex

sys.path.insert(0, str(Path(__file__).parents[1]))

from contests import CONTESTS, HEADS, Contest
from score_contests import CONTESTS as SCORES

import attndsl
from attndsl.backends import attend
from tests.support.tolerances import assert_close, largest_summands

Run = Callable[[], Any]
BOTH = ("forward", "forward and backward")
DENSE = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION)
SECONDS = 2.0  # of one measurement; after that three rounds are enough


@dataclass(frozen=True)
class Scale:
    """How large everything is: on a GPU, and where the whole is rehearsed under Triton's interpreter."""

    device: str
    variants: tuple[tuple[str, int, int], ...]  # of each check: dtype, head_dim, group
    checked: int  # tokens
    repeated: int  # tokens
    repeats: int
    dtype: str  # of what is timed, as the rest
    heads: int
    widths: tuple[int, ...]
    lengths: tuple[int, ...]
    rounds: int
    short: int  # tokens of a call whose latency counts
    warm: int  # calls before it is measured
    calls: int  # that are


_VARIANTS = tuple(
    (dtype, width, group)
    for dtype in ("bfloat16", "float16", "float32")
    for width, group in ((64, 1), (128, 4), (72, 2))
)
ON_GPU = Scale(
    *("cuda", _VARIANTS, 2_048, 8_192, 10, "bfloat16", HEADS),
    *((128, 64), (8_192, 32_768, 131_072), 7, 512, 5, 200),
)
REHEARSAL = Scale(
    *("cpu", (("float16", 24, 2),), 320, 320, 2, "float16", 2, (16,), (320,), 1, 128, 1, 1),
)


@dataclass(frozen=True)
class Step:
    """A thing to do: ``kind`` says which, the rest on what. A "prepare" only compiles for its row."""

    kind: str  # "checks", "repeats", "prepare", "rows", "latency", "score_checks", "score_rows"
    contest: str
    tokens: int
    dtype: str
    width: int
    group: int = 1

    @property
    def label(self) -> str:
        """Its name in the file of results."""
        if self.kind == "checks":
            return f"{self.contest}, {self.dtype}, head_dim {self.width}, group {self.group}"
        return f"{self.contest}, {self.tokens}, {self.width}"


def steps(scale: Scale) -> list[Step]:
    """All of them, in order."""
    found, (width, *_) = [], scale.widths
    for name in CONTESTS:
        found += [Step("checks", name, scale.checked, *variant) for variant in scale.variants]
        found.append(Step("repeats", name, scale.repeated, scale.dtype, width))
    for tokens in scale.lengths:
        for kind in ("prepare", "rows"):
            for name in CONTESTS:
                found += [Step(kind, name, tokens, scale.dtype, width) for width in scale.widths]
    for name in SCORES:
        found.append(Step("score_checks", name, min(512, scale.checked), scale.dtype, width, 2))
    for name in SCORES:
        found.append(Step("score_rows", name, scale.lengths[0], scale.dtype, width))
    return found + [
        Step("latency", "causal", scale.short, scale.dtype, width) for width in scale.widths
    ]


class Steps:
    """Steps that a process can take at one scale."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale

    def perform(self, step: Step) -> dict[str, Any]:
        """Measured values; none for a check that passed."""
        does: Callable[[Step], dict[str, Any]] = getattr(self, step.kind)
        return does(step)

    # ------------------------------------------------------------------ correctness

    def _tensors(
        self, step: Step, heads: int, kv_heads: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """q, k, v with gradients, and a gradient of the output."""
        make = torch.Generator(self.scale.device).manual_seed(0)
        dtype = getattr(torch, step.dtype)

        def drawn(count: int) -> torch.Tensor:
            shape = (1, count, step.tokens, step.width)
            return torch.randn(*shape, device=self.scale.device, generator=make).to(dtype)

        q, k, v = (drawn(count).requires_grad_() for count in (heads, kv_heads, kv_heads))
        return q, k, v, drawn(heads)

    def checks(self, step: Step) -> dict[str, Any]:
        """Errors of the kernels, by the tolerances of the tests."""
        contest = CONTESTS[step.contest]
        q, k, v, dout = self._tensors(step, 2 * step.group, 2)
        out = _ours(contest, q, k, v, "natural")
        results = [out, *torch.autograd.grad(out, (q, k, v), dout)]
        mask = _mask(step.contest, step.tokens, 2 * step.group)
        scale, mask = step.width**-0.5, mask.to(self.scale.device)
        exact, reference = [], []
        for kind, kept in ((torch.float64, exact), (q.dtype, reference)):
            leaves = [x.detach().to(kind).requires_grad_() for x in (q, k, v)]
            theirs, _ = attend(mask, *leaves, scale)
            kept += [theirs, *torch.autograd.grad(theirs, leaves, dout.to(kind))]
        given = (x.detach() for x in (q, k, v))
        sizes, terms = largest_summands(*given, dout, None, scale), step.tokens * step.group
        for name, *each in zip(("out", "dq", "dk", "dv"), results, exact, reference, strict=True):
            assert_close(*each, summand=sizes[name], terms=terms, dtype=q.dtype, what=name)
        return {}

    def repeats(self, step: Step) -> dict[str, Any]:
        """Whether several runs give the same bits."""
        q, k, v, dout = self._tensors(step, 4, 2)

        def once() -> list[torch.Tensor]:
            out = _ours(CONTESTS[step.contest], q, k, v, "auto")
            return [out, *torch.autograd.grad(out, (q, k, v), dout)]

        first = once()
        for _ in range(self.scale.repeats - 1):
            for name, a, b in zip(("out", "dq", "dk", "dv"), first, once(), strict=True):
                assert torch.equal(a, b), f"{name}: another run gives other bits"
        return {"runs": self.scale.repeats}

    def score_checks(self, step: Step) -> dict[str, Any]:
        """Whether kernels of a score are as exact as the oracle in their dtype, and repeat their bits."""
        contest = SCORES[step.contest]
        made, reals = contest.ours(), contest.inputs(2 * step.group, self.scale.device)
        q, k, v, dout = self._tensors(step, 2 * step.group, 2)

        def once(dtype: torch.dtype, backend: str) -> list[torch.Tensor]:
            device = self.scale.device if backend == "triton" else "cpu"
            wide = torch.promote_types(dtype, torch.float32)
            leaves = [x.detach().to(device, dtype).requires_grad_() for x in (q, k, v)]
            inputs = {n: x.detach().to(device, wide).requires_grad_() for n, x in reals.items()}
            out = made(*leaves, backend=backend, **inputs)
            given = [*leaves, *inputs.values()]
            return [out, *torch.autograd.grad(out, given, dout.to(device, dtype))]

        first, again = once(q.dtype, "triton"), once(q.dtype, "triton")
        exact, theirs = once(torch.float64, "reference"), once(q.dtype, "reference")
        rounding = torch.finfo(q.dtype).eps
        for name, *each in zip(
            ("out", "dq", "dk", "dv", "dx"), first, again, exact, theirs, strict=False
        ):
            mine, other, truth, reference = (x.cpu() for x in each)
            assert torch.equal(mine, other), f"{name}: another run gives other bits"
            size = 1 + truth.abs().max().item()
            error, allowed = (
                (x.double() - truth).abs().max().item() / size for x in (mine, reference)
            )
            assert error <= max(2 * allowed, 8 * rounding), f"{name}: error {error:.1e}"
        return {}

    # ------------------------------------------------------------------ speed

    def score_rows(self, step: Step) -> dict[str, Any]:
        """Times of a score, of the plain pattern, and of flex_attention with the same score_mod."""
        contest = SCORES[step.contest]
        q, k, v, dout = self._tensors(step, self.scale.heads, self.scale.heads)
        made, inputs = contest.ours(), contest.inputs(self.scale.heads, self.scale.device)
        plain, leaves = attndsl.compile("causal"), (q, k, v, *inputs.values())
        ours: Run = lambda: made(q, k, v, backend="triton", **inputs)
        alone: Run = lambda: plain(q, k, v, backend="triton")
        forward = {"attndsl": ours, "plain": alone}
        both = {
            "attndsl": _and_backward(ours, leaves, dout),
            "plain": _and_backward(alone, (q, k, v), dout),
        }
        if contest.mod is not None and self.scale.device == "cuda":
            blocks = flex.create_block_mask(
                CONTESTS["causal"].mod(step.tokens, "cuda"), None, None, step.tokens, step.tokens
            )
            mod = contest.mod(inputs.get("x"))
            compiled = torch.compile(flex.flex_attention, dynamic=False)
            theirs: Run = lambda: compiled(q, k, v, score_mod=mod, block_mask=blocks)
            forward["flex"], both["flex"] = theirs, _and_backward(theirs, leaves, dout)
        for run in both.values():
            run()
        return {name: self._milliseconds(runs) for name, runs in zip(BOTH, (forward, both))}  # noqa: B905

    def prepare(self, step: Step) -> dict[str, Any]:
        """Compile what the row of the same name runs."""
        self._contestants(step)
        return {}

    def rows(self, step: Step) -> dict[str, Any]:
        """Times of all contestants, and the share of the square that is computed."""
        contest = CONTESTS[step.contest]
        runs, leaves, dout = self._contestants(step)
        extents, inputs = contest.extents(step.tokens), contest.inputs(step.tokens)
        parts = contest.ours().parts(step.tokens, heads=self.scale.heads, extents=extents, **inputs)
        found: dict[str, Any] = {
            "live": sum(part.density for part in parts),
            "live of causal": attndsl.compile("causal").schedule(step.tokens).density,
        }
        found["forward"] = self._milliseconds(runs)
        found["forward and backward"] = self._milliseconds(
            {name: _and_backward(run, leaves, dout) for name, run in runs.items()}
        )
        return found

    def _contestants(
        self, step: Step
    ) -> tuple[dict[str, Run], tuple[torch.Tensor, ...], torch.Tensor]:
        contest = CONTESTS[step.contest]
        q, k, v, dout = self._tensors(step, self.scale.heads, self.scale.heads)
        theirs = self._flex(step.contest, step.tokens)
        runs: dict[str, Run] = {
            "attndsl": lambda: _ours(contest, q, k, v, "auto"),
            "flex": lambda: theirs(q, k, v),
        }
        for run in runs.values():
            _and_backward(run, (q, k, v), dout)()
        dense = [run for run in (_dense(backend, q, k, v) for backend in DENSE) if _works(run)]
        runs["sdpa causal"] = min(
            dense, key=lambda run: self._once(_and_backward(run, (q, k, v), dout))
        )
        return runs, (q, k, v), dout

    @functools.cache  # noqa: B019 - one object, which lives as long as the process
    def _flex(self, name: str, tokens: int) -> Callable[..., Any]:
        """flex_attention over the pattern, compiled. On the CPU, where it has no backward: dense attention."""
        contest, device = CONTESTS[name], self.scale.device
        heads = self.scale.heads if contest.heads_differ else None
        mod = contest.mod(tokens, device)
        if device == "cpu":
            made = flex.create_block_mask(mod, None, heads, tokens, tokens, device)
            assert made.shape[2:] == (tokens, tokens)
            mask = flex.create_mask(mod, 1, self.scale.heads, tokens, tokens, device)
            return lambda q, k, v: attend(mask, q, k, v, q.shape[3] ** -0.5)[0]
        blocks = torch.compile(flex.create_block_mask)(mod, None, heads, tokens, tokens, device)
        compiled = torch.compile(flex.flex_attention, dynamic=False)
        return lambda q, k, v: compiled(q, k, v, block_mask=blocks)

    def _milliseconds(self, runs: dict[str, Run]) -> dict[str, float]:
        """Medians, the contestants taking turns, the cache cold, the queue never empty."""
        times: dict[str, list[float]] = {name: [] for name in runs}
        end = time.monotonic() + SECONDS
        for turn in range(self.scale.rounds):
            if turn >= 3 and time.monotonic() > end:
                break
            for name, run in runs.items():
                times[name].append(self._once(run))
        return {name: round(statistics.median(found), 5) for name, found in times.items()}

    def _once(self, run: Run) -> float:
        """Milliseconds on the device between the start of the first kernel and the end of the last."""
        if self.scale.device == "cpu":
            started = time.perf_counter()
            run()
            return 1e3 * (time.perf_counter() - started)
        torch.empty(256 << 20, dtype=torch.uint8, device="cuda").zero_()
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(8_000_000)  # some 4 ms: what is launched meanwhile runs back to back
        start.record()
        run()
        stop.record()
        torch.cuda.synchronize()
        return start.elapsed_time(stop)

    def latency(self, step: Step) -> dict[str, Any]:
        """From the call to the end of the work, in milliseconds, against SDPA on the same tensors."""
        q, k, v, _ = self._tensors(step, self.scale.heads, self.scale.heads)
        runs: dict[str, Run] = {
            "attndsl": lambda: _ours(CONTESTS[step.contest], q, k, v, "natural"),
            "sdpa": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        }
        wait = torch.cuda.synchronize if self.scale.device == "cuda" else lambda: None
        times: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(self.scale.warm + self.scale.calls):
            for name, run in runs.items():
                wait()
                started = time.perf_counter()
                run()
                wait()
                if turn >= self.scale.warm:
                    times[name].append(1e3 * (time.perf_counter() - started))
        return {name: round(statistics.median(found), 5) for name, found in times.items()}


def _ours(contest: Contest, q: Any, k: Any, v: Any, layout: str) -> torch.Tensor:
    p, tokens = _pattern(contest.name), q.shape[2]
    extents, inputs = contest.extents(tokens), _inputs(contest.name, tokens)
    backend = "triton"  # on the CPU, "auto" would take another
    return p(q, k, v, layout=layout, backend=backend, extents=extents, **inputs)


@functools.cache
def _pattern(name: str) -> attndsl.Pattern:
    return CONTESTS[name].ours()


@functools.cache
def _inputs(name: str, tokens: int) -> dict[str, torch.Tensor]:
    return CONTESTS[name].inputs(tokens)


@functools.cache
def _mask(name: str, tokens: int, heads: int) -> torch.Tensor:
    extents, inputs = CONTESTS[name].extents(tokens), _inputs(name, tokens)
    return _pattern(name).mask(tokens, heads=heads, extents=extents, **inputs)


def _dense(backend: SDPBackend, q: Any, k: Any, v: Any) -> Run:
    def run() -> torch.Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    return run


def _works(run: Run) -> bool:
    """Whether this build and device have that backend."""
    try:
        run()
    except RuntimeError:
        return False
    return True


def _and_backward(run: Run, leaves: tuple[torch.Tensor, ...], dout: torch.Tensor) -> Run:
    return lambda: torch.autograd.grad(run(), leaves, dout)


# ---------------------------------------------------------------------------- the process


def fault_of(error: BaseException) -> str:
    """The error in one line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200] if text else ''}"


def main() -> int:
    """Answer each line of standard input by a line."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    for name in ("recompile_limit", "cache_size_limit"):  # a row each, of one function
        if hasattr(torch._dynamo.config, name):
            setattr(torch._dynamo.config, name, 256)
    work = Steps(REHEARSAL if "--rehearse" in sys.argv else ON_GPU)
    for line in sys.stdin:
        last = False
        try:
            found = work.perform(Step(**json.loads(line)))
        except Exception as error:  # noqa: BLE001 - the fault is the answer
            found = {"fault": fault_of(error)}
            last = "CUDA error" in str(error)  # every later call would fail with the same
        print(json.dumps({"found": found, "last": last}), file=answers, flush=True)
        if last:
            return 1
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return 0


def line_of(step: Step) -> str:
    """The step in the form the process reads."""
    return json.dumps(asdict(step)) + "\n"


if __name__ == "__main__":
    sys.exit(main())
