"""Results of the benchmarks without a GPU, as the first half of docs/performance.md: each file a section."""

from __future__ import annotations

import inspect
import json
import statistics
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

Found: TypeAlias = dict[str, Any]

RESULTS = Path(__file__).parent / "results"


def sections(folder: Path = RESULTS) -> Iterator[str]:
    """A section for each script that left results: name.json, and name-machine.json of machines before."""
    for name, (title, tables) in SECTIONS.items():
        paths = [folder / f"{name}.json", *sorted(folder.glob(f"{name}-*.json"))]
        lines = [f"### {title}", "", str(inspect.getdoc(tables)), ""]
        for path in filter(Path.exists, paths):
            found = json.loads(path.read_text(encoding="utf-8"))
            lines += [f"By `benchmarks/{name}.py`; {_where(found)}.", "", *tables(found)]
        if paths[0].exists():
            yield "\n".join(lines)


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    """Lines of Markdown; numbers stand right."""
    body = [[_written(cell) for cell in row] for row in rows]
    head = list(head)
    if not body:
        return []
    right = [
        all(cell[:1].isdigit() or not cell for cell in column) for column in zip(*body, strict=True)
    ]
    rule = "".join("---:|" if is_right else "---|" for is_right in right)
    lines = (f"| {' | '.join(cells)} |" for cells in [head, *body])
    first, *rest = lines
    return [first, f"|{rule}", *rest, ""]


def _written(cell: object) -> str:
    match cell:
        case None:
            return ""
        case float():
            return (
                f"{cell:,.2f}" if cell < 10 else f"{cell:,.1f}" if cell < 1000 else f"{cell:,.0f}"
            )
        case int():
            return f"{cell:,}"
    return str(cell).replace("|", "\\|")


def _where(found: Found) -> str:
    threads = found["threads"]
    with_threads = f"{threads} thread{'s' * (threads > 1)}"
    processor = f"{found['processor']} with {found['instructions']}"
    return f"{processor}, {with_threads}, torch {found['torch']}, {found['date'][:10]}"


# ---------------------------------------------------------------------- a section each; its docstring is its text


def _schedules(found: Found) -> list[str]:
    """From the relation to the exact list of tiles: causal, a window of 512 keys and 4 global keys.

    *Cold* is the first call at a length, *warm* one with the same pattern later, nothing kept but the
    compiled pattern. `create_block_mask` makes the blocks of the same mask for flex_attention.
    """
    names = ("tokens", "live tiles", "index bytes", "cold ms", "warm ms")
    lines = table(names, ([row[name] for name in names] for row in found["rows"]))
    peers = found.get("flex_attention", [])
    head = ("tokens", "`create_block_mask`", "ms", "ms / ours, warm")
    rows = (
        [each["tokens"], each["create_block_mask"], each["ms"], each["ratio to ours, warm"]]
        for each in peers
    )
    return lines + table(head, rows)


def _exactness(found: Found) -> list[str]:
    """Every pattern of the prelude at several lengths: each tile and each pair against the dense mask."""
    faults = ("empty visited", "full masked", "live missed", "pairs wrong")
    rows = found["rows"]
    sums = [sum(row[name] for row in rows) for name in ("schedules", "live", *faults)]
    return table(("patterns", "schedules", "live tiles", *faults), [[len(rows), *sums]])


def _cpu(found: Found) -> list[str]:
    """8,192 tokens, 8 heads of 64, a causal window of 512; Longformer adds 8 global tokens.

    Medians of contestants that take turns in one process. SDPA is given the dense mask; flex is compiled
    flex_attention, which has no backward on CPUs. In float32 torch's own flash kernels, called on strips of
    64 queries, take all but some 5 ms of the window's time: they set the limit, which by the processor's
    instructions lies above or below 1.5 x flex.

    Other ways to the float32 forward were tried and not kept, with AVX-512, on one thread of a busy machine. The
    products of these strips alone run at 117 to 146 GFLOP/s, the flash kernel at 75 to 88: it takes 32 queries at a
    time where a call has less than 192, and strips of so many would compute a third more pairs. Two batched
    products with an exponential between them, over four strips whose scores stay in the cache, need scores that the
    largest norms bound beforehand, so that no maximum is taken off. A bare loop over this window took 0.86 of the
    backend's time; within the backend it was 0.9 to 0.96, and for other patterns 0.9 to 1.4: windows of 256 keys
    1.03 to 1.1, Longformer 1.01 to 1.03, BigBird 1.05 to 1.1, images 1.4. With the maximum as one more channel of
    the products, whose rows are then not aligned, it was 1.1. Strips of 32, 96 or 128 queries and of 448 to 640
    keys leave the flash kernel between 67 and 88 GFLOP/s. Inductor's C++ template is what `flex` runs.
    """

    def cells(row: Found) -> Iterator[Any]:
        times, ratios = row["median ms"], row["ratios"]
        yield from (row["dtype"], row["direction"])
        yield from (times.get(name) for name in ("window", "longformer", "flex", "sdpa"))
        yield from (ratios.get(f"{name} / window") for name in ("flex", "sdpa", "longformer"))

    times = ("window ms", "Longformer ms", "flex ms", "SDPA ms")
    ratios = ("flex / window", "SDPA / window", "Longformer / window")
    return table(("dtype", "pass", *times, *ratios), map(cells, found["rows"]))


def _natives(found: Found) -> list[str]:
    """Ratios of what people write instead, in plain torch: reshapes, rolls, gathers, and SDPA.

    Times of the published form over ours: below 1 we lose. Medians of contestants that take turns, values and gradients
    held against each other before; processor time on one thread, elapsed time on two. Losses stand first.
    """
    head = ("pass", "rows", "geometric mean", "least", "below 0.95")
    lines = table(head, ([which, *each.values()] for which, each in found["summary"].items()))
    rows = [row for row in found["rows"] if "fault" not in row]
    columns = list(dict.fromkeys(map(_native_column, rows)))
    by_call: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        ratios = by_call.setdefault((row["native"], row["size"]), {})
        ratios[_native_column(row)] = row["published / ours"]
    ordered = sorted(by_call.items(), key=lambda each: min(each[1].values()))
    cells = ([*call, *map(ratios.get, columns)] for call, ratios in ordered)
    lines += table(("pattern", "call", *columns), cells)
    refused = [row for row in found["rows"] if "fault" in row]
    names = ("native", "size", "dtype", "pass", "fault")
    return lines + table(
        ("refused", *names[1:]), ([row[name] for name in names] for row in refused)
    )


def _native_column(row: Found) -> str:
    direction = {"forward": "fwd", "forward + backward": "fwd + bwd"}[row["pass"]]
    dtype = {"float32": "f32", "bfloat16": "bf16"}[row["dtype"]]
    return f"{direction}, {dtype}, {row['threads']}T"


def _kernel_peers(found: Found) -> list[str]:
    """Loops of the forward kernel beside those of others, read from binaries: no GPU ran them.

    "flex" is FlexAttention's own template of the installed torch, "flash" a plain causal kernel that knows its keys
    without reading which: all of the same tile, warps and stages, bfloat16, lengths that tiles divide. Instructions are
    those of a warp for one tile of keys, and in brackets those beside each matrix instruction. Ours carries over flash
    the reading of the list of tiles and 64-bit places of keys that need not be neighbours, some 25 instructions; in the
    masked loop also what a query without a key needs, numbers of the pattern that are no part of the kernel, and on
    sm_90 and sm_100 truths that the assembler finds while the product runs, and keeps as bits: 1.26 of flash at most.
    Occupancy: the share of a multiprocessor's warps that registers and shared memory leave room for.
    """

    def loop(each: Found) -> str:
        return f"{each['instructions']} ({each['others for each']})"

    def cells(row: Found) -> list[Any]:
        target = row["target"].replace("cuda:", "sm_")
        used = (row["registers"], row["spills"], row["shared"] >> 10, row["num_stages"])
        loops = loop(row["unmasked"]), loop(row["masked"])
        return [
            target,
            row["width"],
            row["pattern"],
            row["kernel"],
            *loops,
            *used,
            row["occupancy"],
        ]

    head = ("target", "width", "pattern", "kernel", "unmasked loop", "masked loop", "registers")
    return table((*head, "spilled", "KiB", "stages", "occupancy"), map(cells, found["rows"]))


def _cold(found: Found) -> list[str]:
    """A new process, its imports done: the pattern compiled, scheduled and run; then the same call again.

    Where it was measured, the same from flex_attention, its blocks and its kernel compiled, in turns with these.
    """
    names = list(dict.fromkeys(name for row in found["rows"] for name in row))
    return table(names, ([row.get(name) for name in names] for row in found["rows"]))


def _decode(found: Found) -> list[str]:
    """A decoded token at a new length each step: the median processor time of a step in microseconds.

    By hand: slices or a gather of the keys that are seen, whose places are known for nothing, then SDPA. A dense mask
    has those pairs, made anew each step. Each is timed with the caches of the processor emptied. "static" is a buffer
    longer than the tokens, "ragged" a fill for each element.
    """
    times = ("ours", "by hand", "dense mask")

    def cells(row: Found) -> list[Any]:
        batch, heads, kv_heads, width = row["shape"]
        call = f"{batch} x {heads}:{kv_heads} x {width}"
        figures = [round(row["microseconds"][name]) for name in times]
        return [
            row["pattern"],
            call,
            row["cached"],
            row["kind"],
            row["dtype"],
            row["threads"],
            *figures,
            row["ours over"]["by hand"],
        ]

    head = (
        *("pattern", "batch x heads x width", "cached", "cache", "dtype", "threads"),
        *(*times, "ours / by hand"),
    )
    return table(head, map(cells, found["rows"]))


def _ragged(found: Found) -> list[str]:
    """Ragged batches at new lengths each step, forward and backward: processor time in milliseconds.

    "lengths" and "mask" are padded calls, by `q_len` and `kv_len` or by a padding mask; "varlen" is causal over packed
    sequences. SDPA has the padded tensors and a mask, where padding is at most four times the tokens; the loop calls
    SDPA on each sequence, by `is_causal`. The last column is ours over SDPA, or over the loop where there is none.
    Below: what it takes to schedule new document ids, as a share of the forward that follows; 8 heads of 64.
    """
    fresh = [row for row in found["rows"] if row["kind"] == "new ids"]

    def rows() -> Iterator[list[Any]]:
        for row in found["rows"]:
            if row in fresh:
                continue
            times, name = row["milliseconds"], f"{row['batch']}, {row['kind']}"
            others = [f"{times[n]:.0f}" if n in times else "" for n in ("sdpa", "loop")]
            for ours, ratio in row["ours over"].items():
                yield [name, row["dtype"], ours, f"{times[ours]:.0f}", *others, f"{ratio:.2f}"]

    head = ("sequences and tokens", "dtype", "call", "ours", "SDPA", "loop", "ours / other")
    share = "scheduling over forward"
    ids = ([row["batch"], row["dtype"], f"{row[share]:.2f}"] for row in fresh)
    return [*table(head, rows()), "", *table(("new document ids", "dtype", share), ids)]


def _calls(found: Found) -> list[str]:
    """Python above the kernels of a call like one before it, in microseconds: its kernels do nothing.

    Batch 8, 8 heads of 64, 2,048 tokens; `kv_len` leaves 40 of them out. A call of one query stands for decoding.
    """
    names = ("call", "least", "median")
    lines = table(names, ([row[name] for name in names] for row in found["rows"]))
    kept = ", ".join(f"{name} {size:,}" for name, size in found["memory"].items())
    return [*lines, "", f"Bytes that 10,000 decoded tokens add, after the first 1,000: {kept}."]


def _memory(found: Found) -> list[str]:
    """Forward and backward: the most that the whole process held, q, k, v, output and gradients included."""
    names = ("pattern", "tokens", "heads", "width", "dtype", "peak GB")
    return table(names, [[found[name] for name in names]])


def _layouts(found: Found) -> list[str]:
    """Live tiles of 128 × 128 in natural order and under layout="auto", and what they are worth.

    Times: the CPU backend, 4 heads of 64, float32, processor time on one thread.
    """
    times = {(row["pattern"], row["tokens"]): row for row in found["times"]}

    def cells(row: Found) -> Iterator[Any]:
        yield from (row[name] for name in ("pattern", "tokens", "natural tiles", "auto tiles"))
        timed = times.get((row["pattern"], row["tokens"]), {})
        for way in ("forward", "backward"):
            yield timed.get(f"{way}, natural / auto")
        yield row["search, processor ms"]

    speed = ("forward, natural / auto", "backward, natural / auto")
    head = ("pattern", "tokens", "tiles, natural", "tiles, auto", *speed, "search ms")
    lines = table(head, map(cells, found["tiles"]))
    peers = [row for row in found["times"] if "forward, flex / auto" in row]
    which = ("forward, natural / auto", "backward, natural / auto", "forward, flex / auto")
    rows = ([row["pattern"], row["tokens"], *(row[name] for name in which)] for row in peers)
    return lines + table(("beside flex", "tokens", *which), rows)


def _scores(found: Found) -> list[str]:
    """Scores that change, beside the plain pattern: a causal window of 512 keys at 8,192 tokens, 8 heads of 64.

    The CPU backend, float32, processor time on one thread; the backward gives the gradients of all real inputs.
    """
    which = ("forward / plain", "backward / plain", "forward, flex / ours")
    rows = ([row["scores"], *(row.get(name) for name in which)] for row in found["rows"])
    lines = table(("scores", *which), rows)
    if "dense" in found:
        factor = found["dense"]["backward, dense bias / ours"]
        lines += [
            f"The backward with a dense bias that requires a gradient takes {factor} times as long.",
            "",
        ]
    return lines


def _lists(found: Found) -> list[str]:
    """Sets that differ from query to query, over their lists, as shares of dense causal attention: 4 heads of 64.

    A query, or a block of 64, lists its own and 7 earlier blocks of 64 keys; or 512 single keys, those of all heads.
    "new": other entries in each call, whose lists are made in it. Float32, processor time on one thread.
    Systems that rank tokens choose first; "choosing" comes on top of either.
    """
    which = ("known / dense", "new / dense", "backward / dense")
    head = ("lists", "tokens", "dense, ms", *which)
    lines = table(head, ([row.get(name) for name in head] for row in found["rows"]))
    ways = ("system", "tokens", "dense, ms", "choosing / dense", "new / dense", "known / dense")
    ranked = table(ways, ([row[name] for name in ways] for row in found["ranked"]))
    held = [(row["lists"], row["tokens"], row["bytes by token"]) for row in found["memory"]]
    kept = table(("what a call keeps, of a head", "tokens", "bytes by token"), held)
    return [*lines, "", *ranked, "", *kept]


def _searches(found: Found) -> list[str]:
    """Compiling, with the search for an order of tokens and the schedule: every pattern of the prelude.

    Text to tiles of 128 × 128 under layout="auto", processor time, nothing kept from before; the dearest five.
    """
    lines = []
    for tokens in sorted({row["keys"] for row in found["rows"]}):
        rows = [row for row in found["rows"] if row["keys"] == tokens]
        if len(rows) > 5:
            dear = sorted(rows, key=lambda row: -row["all ms"])[:5]
            middle = statistics.median(row["all ms"] for row in rows)
            lines += [
                f"{tokens:,} tokens, {len(rows)} patterns, {middle:.0f} ms in the middle:",
                "",
            ]
            lines += table(("pattern", "ms"), ([row["pattern"], row["all ms"]] for row in dear))
    return lines


def _prediction(found: Found) -> list[str]:
    """Predicted against measured time of the CPU backend: patterns, each in several orders of tokens.

    The rank correlation is Spearman's. Factors: measured on this machine, or those of the reference core.
    """
    head = (
        "factors, pass",
        "rank correlation, all runs",
        "in natural order",
        "median error",
        "largest",
    )
    rows = ([name, *map(str, figures.values())] for name, figures in found["ranking"].items())
    far = found["not so"]
    near = f"{found['patterns'] - len(far)} of {found['patterns']}"
    lines = [f'`layout="auto"` is within a tenth of the best order tried for {near} patterns.', ""]
    names = ("pattern", "best", "auto / best")
    return table(head, rows) + lines + table(names, ([row[name] for name in names] for row in far))


SECTIONS: dict[str, tuple[str, Callable[[Found], list[str]]]] = {
    "schedules": ("Schedules", _schedules),
    "exactness": ("Exactness", _exactness),
    "cpu": ("Attention on a CPU", _cpu),
    "natives": ("Beside what people write by hand", _natives),
    "cold": ("The first call", _cold),
    "decode": ("Decoding", _decode),
    "ragged": ("Ragged batches", _ragged),
    "calls": ("Python above the kernels", _calls),
    "memory": ("Memory", _memory),
    "layouts": ("Layouts", _layouts),
    "scores": ("Scores", _scores),
    "lists": ("Lists", _lists),
    "searches": ("Searches", _searches),
    "prediction": ("Predicted times", _prediction),
    "kernel_peers": ("Kernels for GPUs, by their binaries", _kernel_peers),
}
