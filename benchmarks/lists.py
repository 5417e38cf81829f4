"""Sets that differ from query to query, over their lists, beside dense causal attention. Prints a table and JSON.

    python benchmarks/lists.py [--json lists.json] [--tokens 8192 32768]

Times are processor seconds on one thread, the shortest of some rounds that take turns: 4 heads of 64, float32. A query
(or block of 64 queries) of each head lists 8 blocks of 64 keys, its own and 7 drawn from those before; or 512 single
keys, those of all heads. "new" gives other entries to each call, whose lists are made in it; "known" the same. The
memory is that of the lists and batches a call holds, by token, up to 131,072 of them.

Systems that rank their tokens, and attend to what lies near in that order: "choosing" makes the ranks, "new" attends
over ranks that no call had before.
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
from attndsl.backends import Request
from attndsl.lowering import lower

HEADS, WIDTH, BLOCK, SLOTS, KEYS, ROUNDS = 4, 64, 64, 8, 512, 3
BACKWARD = 8192  # tokens, up to which the backward is measured, and in several rounds
LONGEST = (32_768, 131_072)  # tokens, of which memory is looked at
PROGRAMS = {
    "of each token": f"input idx: list[head, q, n]\npattern p = k <= q and k // {BLOCK} in idx[q]",
    "of each query block": "input idx: list[head, blocks, n]\n"
    f"pattern p = k <= q and k // {BLOCK} in idx[q // {BLOCK}]",
    "single keys": "input idx: list[q, n]\npattern p = k <= q and k in idx[q]",
}
RANKED = {  # inputs of systems that rank their tokens, by shape
    "select_reformer": lambda tokens: {"rotations": (tokens // BLOCK // 2, WIDTH)},
    "select_hyper": lambda tokens: {"planes": (7, WIDTH)},
}
Run: TypeAlias = Callable[[], Any]


def drawn(name: str, tokens: int) -> Tensor:
    """The entries of the lists of a program."""
    make = torch.Generator().manual_seed(tokens)
    if name == "single keys":
        return (
            torch.rand(tokens, KEYS, generator=make) * torch.arange(1, tokens + 1)[:, None]
        ).long()
    count = tokens if name == "of each token" else tokens // BLOCK
    own = torch.arange(count)[:, None] * tokens // count // BLOCK
    before = (torch.rand(HEADS, count, SLOTS - 1, generator=make) * own).long()
    return torch.cat([own.expand(HEADS, -1, 1), before], -1)


def race(runs: dict[str, Run], rounds: int = ROUNDS) -> dict[str, float]:
    """The shortest processor time of each, in seconds; they take turns."""
    found = dict.fromkeys(runs, float("inf"))
    for name, run in [*runs.items()] * rounds:
        begin = time.process_time()
        run()
        found[name] = min(found[name], time.process_time() - begin)
    return found


def measured(tokens: int, backward: bool) -> list[dict[str, Any]]:
    """Times of each program, as shares of those of dense causal attention."""
    *leaves, dout = (torch.randn(1, HEADS, tokens, WIDTH) for _ in range(4))
    tracked = [x.clone().requires_grad_() for x in leaves]
    dense = F.scaled_dot_product_attention(*tracked, is_causal=True) if backward else None
    rows = []
    for name, program in PROGRAMS.items():
        if name == "single keys" and not backward:
            continue
        p, idx = attndsl.compile(program), drawn(name, tokens)

        def known(p: Any = p, idx: Tensor = idx) -> Any:
            return p(*leaves, idx=idx)

        def new(run: Run = known, idx: Tensor = idx) -> Any:
            idx[..., -1, 1].sub_(1).remainder_(int(idx.max()))  # of the last queries, which see all
            return run()

        def theirs() -> Any:
            return F.scaled_dot_product_attention(*leaves, is_causal=True)

        known()  # the lists are made
        ways = race({"dense": theirs, "known": known, "new": new}, ROUNDS if backward else 1)
        row: dict[str, Any] = {"lists": name, "tokens": tokens}
        row["dense, ms"] = round(1000 * ways["dense"])
        row |= {f"{way} / dense": round(ways[way] / ways["dense"], 3) for way in ("known", "new")}
        if dense is not None:
            ours = p(*tracked, idx=idx)
            both = {"dense": dense, "ours": ours}
            runs: dict[str, Run] = {
                way: lambda out=out: torch.autograd.grad(out, tracked, dout, retain_graph=True)
                for way, out in both.items()
            }
            back = race(runs, 2)
            row["backward / dense"] = round(back["ours"] / back["dense"], 3)
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        rows.append(row)
    return rows


def ranked(tokens: int) -> list[dict[str, Any]]:
    """Times of systems that rank their tokens, as shares of those of dense causal attention."""
    q, k, v = (torch.randn(1, HEADS, tokens, WIDTH) for _ in range(3))
    dense = race({"": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)}, 1)[""]
    rows = []
    for name, shapes in RANKED.items():
        p, makes = attndsl.compile(name), list[Any]()
        inputs = {each: torch.randn(shape) for each, shape in shapes(tokens).items()}
        p(*(x[:, :, :BLOCK] for x in (q, k, v)), **inputs)  # what is made once for all lengths

        def choosing(p: Any = p, inputs: Any = inputs, makes: list[Any] = makes) -> Any:
            makes.append(p.select(q, k, **inputs))

        def attending(p: Any = p, inputs: Any = inputs, makes: list[Any] = makes) -> Any:
            return p(q, k, v, **inputs, selection=makes[-1])

        row = {"system": name, "tokens": tokens, "dense, ms": round(1000 * dense)}
        for way, run in (("choosing", choosing), ("new", attending), ("known", attending)):
            row[f"{way} / dense"] = round(race({way: run}, 1)[way] / dense, 3)
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        rows.append(row)
    return rows


def memory() -> list[dict[str, Any]]:
    """Bytes by token of what a call of one head holds."""
    rows = []
    for tokens in LONGEST:
        for name in ("of each token", "of each query block"):
            p, idx = attndsl.compile(PROGRAMS[name]), drawn(name, tokens)[:1]
            q = torch.zeros(1, 1, tokens, 1)
            request = Request.of(q, q, q, gradient=False)
            call = p._program.call(tokens, tokens, 1, 1, None, {"idx": idx})
            made = lower(p._program, call, request)
            row = {
                "lists": name,
                "tokens": tokens,
                "bytes by token": round(made.nbytes / tokens, 1),
            }
            print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
            rows.append(row)
    return rows


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    reader = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    reader.add_argument("--json", type=Path)
    reader.add_argument("--tokens", type=int, nargs="*", default=[8192, 32_768])
    reader.add_argument("--ranked", action="store_true", help="systems that rank alone")
    asked = reader.parse_args()
    torch.set_num_threads(1)
    ranks = [row for tokens in asked.tokens for row in ranked(tokens)]
    if asked.ranked:
        return
    rows = [row for tokens in asked.tokens for row in measured(tokens, tokens <= BACKWARD)]
    found = {**circumstances(), "heads": HEADS, "width": WIDTH, "rows": rows}
    found |= {"ranked": ranks, "memory": memory()}
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
