"""Cost of scores that change, beside the plain pattern: a window of 512 keys. Prints a table and JSON.

    python benchmarks/scores.py [--json scores.json] [--flex] [--dense]

Times are processor seconds on one thread, the shortest of some rounds that take turns: 8 heads of 64, float32, 8,192
tokens. The backward gives the gradients of queries, keys, values and every real input. With --flex also the compiled
flex_attention with the same score_mod; its CPU form has no backward, and no sinks. With --dense also the backward of
scaled_dot_product_attention with the bias written out, [1, N, N] of one head, which requires a gradient.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from machine import circumstances
from torch import Tensor
from torch.nn import functional as F

import attndsl

HEADS, WIDTH, TOKENS, WINDOW, ROUNDS = 8, 64, 8192, 512, 5
INPUTS = {"slope": (HEADS,), "table": (HEADS, WINDOW), "sink": (HEADS,)}
DECLARED = {
    "slope": "input slope: real[head]\n",
    "table": "input table: real[head, n]\n",
    "sink": "input sink: real[head]\n",
}
# The measured scores: a name, the real inputs, and what follows `score`.
CASES = (
    ("ALiBi", ("slope",), "s - slope[head] * (q - k)"),
    ("relative table", ("table",), "s + table[q - k]"),
    ("soft cap", (), "50.0 * tanh(s / 50.0)"),
    ("sink", ("sink",), "s mass exp(sink[head])"),
)
Run: TypeAlias = Callable[[], Any]


def compiled(inputs: tuple[str, ...], score: str) -> Any:
    """The attention of a case."""
    declared = "".join(DECLARED[name] for name in inputs)
    return attndsl.compile(f"{declared}attention a over 0 <= q - k < {WINDOW} = score {score}")


def race(runs: dict[str, Run]) -> dict[str, float]:
    """The shortest processor time of each, in seconds; they take turns."""
    found = dict.fromkeys(runs, float("inf"))
    for name, run in [*runs.items()] * (1 + ROUNDS):
        begin = time.process_time()
        run()
        found[name] = min(found[name], time.process_time() - begin)
    return found


def given(inputs: tuple[str, ...], heads: int = HEADS) -> dict[str, Tensor]:
    """Real inputs of a call; the slopes are those of the paper."""
    made = {name: torch.randn(heads, *INPUTS[name][1:]) for name in inputs}
    if "slope" in made:
        made["slope"] = 2.0 ** -torch.arange(1.0, heads + 1)
    return {name: x.requires_grad_() for name, x in made.items()}


def measured(with_flex: bool) -> list[dict[str, Any]]:
    """Forward and backward of each case, as multiples of those of the plain pattern."""
    plain = attndsl.compile(f"0 <= q - k < {WINDOW}")
    *leaves, dout = (torch.randn(1, HEADS, TOKENS, WIDTH) for _ in range(4))
    tracked = [x.clone().requires_grad_() for x in leaves]
    rows = []
    for name, inputs, score in CASES:
        attention, reals = compiled(inputs, score), given(inputs)
        known = {key: x.detach() for key, x in reals.items()}
        out, plain_out = attention(*tracked, **reals), plain(*tracked)
        forward: dict[str, Run] = {
            "plain": lambda: plain(*leaves),
            "scores": lambda a=attention, x=known: a(*leaves, **x),
        }
        backward: dict[str, Run] = {
            "plain": lambda o=plain_out: torch.autograd.grad(o, tracked, dout, retain_graph=True),
            "scores": lambda o=out, x=reals: torch.autograd.grad(
                o, [*tracked, *x.values()], dout, retain_graph=True
            ),
        }
        if with_flex and name != "sink":
            forward["flex"] = flex(name, known, leaves)
        ways, back = race(forward), race(backward)
        row: dict[str, Any] = {"scores": name}
        row["forward ms"] = {key: round(1000 * value, 1) for key, value in ways.items()}
        row["backward ms"] = {key: round(1000 * value, 1) for key, value in back.items()}
        row["forward / plain"] = round(ways["scores"] / ways["plain"], 2)
        row["backward / plain"] = round(back["scores"] / back["plain"], 2)
        if "flex" in ways:
            row["forward, flex / ours"] = round(ways["flex"] / ways["scores"], 2)
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        rows.append(row)
    return rows


def flex(name: str, inputs: dict[str, Tensor], leaves: list[Tensor]) -> Run:
    """Compiled flex_attention with the same scores, its blocks found beforehand."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def alibi(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
        return s - inputs["slope"][h] * (i - j)

    def table(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
        return s + inputs["table"][h, (i - j).clamp(0, WINDOW - 1)]

    def cap(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
        return 50.0 * torch.tanh(s / 50.0)

    def window(b: Any, h: Any, i: Any, j: Any) -> Any:
        return (i >= j) & (i - j < WINDOW)

    blocks = create_block_mask(window, None, None, TOKENS, TOKENS, device="cpu")
    mod = {"ALiBi": alibi, "relative table": table, "soft cap": cap}[name]
    run = torch.compile(flex_attention, dynamic=False)
    return torch.no_grad()(lambda: run(*leaves, score_mod=mod, block_mask=blocks))


def dense() -> dict[str, Any]:
    """The backward of one head with a table, beside that of a dense bias which requires a gradient."""
    attention, reals = compiled(("table",), CASES[1][2]), given(("table",), 1)
    *leaves, dout = (torch.randn(1, 1, TOKENS, WIDTH) for _ in range(4))
    leaves = [x.requires_grad_() for x in leaves]
    gap = torch.arange(TOKENS)[:, None] - torch.arange(TOKENS)
    bias = reals["table"].detach()[:, gap.clamp(0, WINDOW - 1)]
    bias = bias.masked_fill((gap < 0) | (gap >= WINDOW), -torch.inf).requires_grad_()
    mine, theirs = attention(*leaves, **reals), F.scaled_dot_product_attention(*leaves, bias)
    ways = race(
        {
            "ours": lambda: torch.autograd.grad(
                mine, [*leaves, *reals.values()], dout, retain_graph=True
            ),
            "dense bias": lambda: torch.autograd.grad(
                theirs, [*leaves, bias], dout, retain_graph=True
            ),
        }
    )
    row: dict[str, Any] = {
        "backward ms, one head": {k: round(1000 * x, 1) for k, x in ways.items()}
    }
    row["backward, dense bias / ours"] = round(ways["dense bias"] / ways["ours"], 1)
    print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return row


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--flex", action="store_true", help="it needs a C++ compiler")
    parser.add_argument("--dense", action="store_true", help="some GB of memory")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    report = circumstances() | {"heads": HEADS, "width": WIDTH, "tokens": TOKENS, "window": WINDOW}
    report["rows"] = measured(asked.flex)
    if asked.dense:
        report["dense"] = dense()
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
