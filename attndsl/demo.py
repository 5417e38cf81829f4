"""Floor 9: from a pattern file to a trained model, in a few minutes on two cores.

Writes a pattern into a file, compiles, explains, draws and verifies it. Then two byte-level language models
learn to read Python from its own standard library: twins, born of one seed, fed the same batches. One
attends within the pattern, the other to every byte before, through PyTorch's own attention. They take turns,
and each has the same time on the clock. `attndsl demo` and `make demo` run this.
"""

from __future__ import annotations

import json
import math
import platform
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attndsl
from attndsl.files import write_file

PATTERN = """\
## What a reader of code looks at: the last `w` bytes up to the query's own, and the first `sinks`
## bytes of the text, where attention rests when nothing near matters. Never the future.
pattern reader(w: int = 256, sinks: int = 4) where w >= 1, sinks >= 0 =
    k <= q and (q - k < w or k < sinks)
    assert causal
    assert every query sees itself
"""

CHOOSING = """\
## The query's own block of `b` bytes up to itself, and the `n - 1` blocks before it whose mean keys fit the query best.
select past(b: int, n: int) over blocks(b) = dot(q, mean(k)) where block < q // b take top n - 1
pattern chooser(b: int = 64, n: int = 8) where b >= 1, n >= 1 =
    k <= q and (k // b == q // b or k in past(b, n)[q])
    assert causal
    assert every query sees itself
"""

CONTEXT = 4096  # bytes a model reads at once
WIDTH, HEADS, LAYERS = 128, 4, 3
RATE, WARM_UP = 3e-3, 20  # of AdamW; steps until the rate is reached
TEXT = 6 << 20  # bytes of the library that are read
HELD_OUT = 8  # contexts at the end of it, which training never sees
REPORTS = 6  # lines while the twins train

Attend: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


# ---------------------------------------------------------------------------- the model


def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every byte before: [B, H, S, D] each."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class Block(nn.Module):
    """A pre-norm transformer block. ``attend`` is all in which the twins differ."""

    def __init__(self, attend: Attend) -> None:
        super().__init__()
        self.attend = attend
        self.before_attention, self.before_feed = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.project_in = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.project_out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.feed = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        """x [B, S, width] -> the same shape."""
        parts = self.project_in(self.before_attention(x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        mixed = self.attend(turn(q, angles), turn(k, angles), v)
        x = x + self.project_out(mixed.transpose(1, 2).flatten(2))
        out: Tensor = x + self.feed(self.before_feed(x))
        return out


def turn(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021, arXiv:2104.09864): x [B, H, S, D], angles [S, D / 2]."""
    a, b = x.chunk(2, dim=-1)
    sine, cosine = angles.sin(), angles.cos()
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], dim=-1)


class Reader(nn.Module):
    """Bytes in, logits of the next byte out: [B, S] -> [B, S, 256]."""

    def __init__(self, attend: Attend) -> None:
        super().__init__()
        self.bytes = nn.Embedding(256, WIDTH)
        self.blocks = nn.ModuleList(Block(attend) for _ in range(LAYERS))
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256))

    def forward(self, text: Tensor) -> Tensor:
        """text int64 [B, S]."""
        half = WIDTH // HEADS // 2
        speeds = 10_000 ** -(torch.arange(half) / half)
        angles = torch.arange(text.shape[1])[:, None] * speeds
        x = self.bytes(text)
        for block in self.blocks:
            x = block(x, angles)
        logits: Tensor = self.head(x)
        return logits


def loss_of(model: Reader, rows: Tensor) -> Tensor:
    """Mean nats a byte: rows [B, S + 1]."""
    return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


# ---------------------------------------------------------------------------- the text


def library_text(limit: int = TEXT) -> Tensor:
    """Sources of the standard library, file after file, as int64 bytes."""
    text = bytearray()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text += path.read_bytes()
        if len(text) >= limit:
            break
    return torch.frombuffer(text[:limit], dtype=torch.uint8).long()


def batches(text: Tensor, context: int, seed: int) -> Iterator[Tensor]:
    """[1, context + 1], drawn by nothing but the seed: both twins read the same."""
    draws = torch.Generator().manual_seed(seed)
    while True:
        start = int(torch.randint(len(text) - context, (), generator=draws))
        yield text[None, start : start + context + 1]


# ---------------------------------------------------------------------------- training


@dataclass
class Twin:
    """A model in training, its own stream of batches and its own clock."""

    name: str
    model: Reader
    stream: Iterator[Tensor]
    context: int
    losses: list[float] = field(default_factory=list)
    clock: list[float] = field(default_factory=lambda: [0.0])  # seconds of training, by step
    held_out: float = math.nan

    def __post_init__(self) -> None:
        self._optimizer = torch.optim.AdamW(self.model.parameters(), RATE, betas=(0.9, 0.98))

    def step(self) -> None:
        """One batch forward, backward, and into the weights."""
        began = time.perf_counter()
        for group in self._optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (len(self.losses) + 1) / WARM_UP)
        loss = loss_of(self.model, next(self.stream))
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        self.losses.append(loss.item())
        self.clock.append(self.clock[-1] + time.perf_counter() - began)

    def __str__(self) -> str:
        read = self.context * len(self.losses)
        return f"{self.name}: loss {smooth(self.losses)[-1]:.3f} after {read:>9,} bytes"

    @property
    def speed(self) -> float:
        """Bytes a second."""
        return self.context * len(self.losses) / self.clock[-1]

    def examine(self, rows: Tensor) -> None:
        """The loss on text that was never trained on: rows [B, S + 1]."""
        with torch.no_grad():
            self.held_out = float(
                torch.stack([loss_of(self.model, row[None]) for row in rows]).mean()
            )


def twins(pattern: attndsl.Pattern, text: Tensor, context: int, seed: int) -> tuple[Twin, Twin]:
    """The sparse one and the dense one: equal weights, equal batches."""

    def made(name: str, attend: Attend) -> Twin:
        torch.manual_seed(seed)
        return Twin(
            name, Reader(attend), batches(text[: -HELD_OUT * context], context, seed), context
        )

    return made(pattern.name, pattern), made("dense", dense)


def train(pair: tuple[Twin, Twin], seconds: float) -> Iterator[float]:
    """Turn by turn, so that whatever else the machine does meets both, until each had its seconds.

    Yields the seconds that both had so far, after each step.
    """
    while not all(each.losses for each in pair) or pair_clock(pair) < seconds:
        min(pair, key=lambda each: each.clock[-1]).step()
        yield pair_clock(pair)


def pair_clock(pair: tuple[Twin, Twin]) -> float:
    """Seconds of training that each twin had."""
    return min(each.clock[-1] for each in pair)


def smooth(losses: list[float], memory: float = 0.95) -> list[float]:
    """A running mean, in which early steps do not linger (Kingma and Ba 2015's correction)."""
    total, weight, found = 0.0, 0.0, []
    for loss in losses:
        total = memory * total + (1 - memory) * loss
        weight = memory * weight + (1 - memory)
        found.append(total / weight)
    return found


# ---------------------------------------------------------------------------- the result


def figures(pair: tuple[Twin, Twin]) -> dict[str, Any]:
    """Results of the demo, for people and for tools."""
    steps = min(len(each.losses) for each in pair)
    return {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "context": pair[0].context,
        "bytes_at_equal_data": steps * pair[0].context,
        "models": {
            each.name: {
                "steps": len(each.losses),
                "bytes_per_second": round(each.speed),
                "seconds": round(each.clock[-1], 2),
                "loss_at_equal_data": round(smooth(each.losses)[steps - 1], 4),
                "loss_at_equal_time": round(smooth(each.losses)[-1], 4),
                "held_out_loss_at_equal_time": round(each.held_out, 4),
                "losses": [round(loss, 4) for loss in each.losses],
            }
            for each in pair
        },
    }


def table(pair: tuple[Twin, Twin]) -> str:
    """The figures side by side. Losses are nats a byte."""
    found = figures(pair)
    sparse, full = found["models"].values()
    rows = {
        "bytes (tokens) a second": ("bytes_per_second", "{:,}"),
        "bytes read": ("steps", "{:,}"),
        f"loss after the same {found['bytes_at_equal_data']:,} bytes": (
            "loss_at_equal_data",
            "{:.3f}",
        ),
        "loss after the same time": ("loss_at_equal_time", "{:.3f}"),
        "loss on held-out text then": ("held_out_loss_at_equal_time", "{:.3f}"),
    }
    lines = [f"{'':40}{pair[0].name:>12}{pair[1].name:>12}"]
    for words, (key, form) in rows.items():
        unit = found["context"] if key == "steps" else 1
        lines.append(
            f"{words:40}{form.format(sparse[key] * unit):>12}{form.format(full[key] * unit):>12}"
        )
    ratio = pair[0].speed / pair[1].speed
    return "\n".join([*lines, f"{pair[0].name} reads {ratio:.2f} times as fast as its dense twin"])


def plot(pair: tuple[Twin, Twin], path: Path) -> None:
    """Loss over bytes read, and over time, as PNG. Needs matplotlib (the extra ``plot``)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    by_data, by_time = figure.subplots(1, 2, sharey=True)
    for twin, colour in zip(pair, ("#0072b2", "#d55e00"), strict=True):
        read = [(i + 1) * twin.context / 1e6 for i in range(len(twin.losses))]
        by_data.plot(read, smooth(twin.losses), color=colour, label=twin.name)
        by_time.plot(twin.clock[1:], smooth(twin.losses), color=colour, label=twin.name)
    by_data.set(xlabel="million bytes read", ylabel="loss, nats a byte", title="The same data")
    by_time.set(xlabel="seconds of training", title="The same time")
    by_time.legend()
    figure.savefig(path, dpi=120)


def drawn_small(source: Path, choose: bool, seed: int) -> str:
    """The pattern with small values of its parameters; a choice is that of random vectors."""
    if not choose:
        return f"the same with w=6, sinks=2:\n\n{attndsl.compile(source, w=6, sinks=2).draw(24)}\n"
    small = attndsl.compile(source, b=4, n=2)
    picture = small.draw(24, inputs=random_choice(small, 24, seed))
    return f"the same with b=4, n=2, chosen from random vectors:\n\n{picture}\n"


def random_choice(pattern: attndsl.Pattern, length: int, seed: int) -> dict[str, Tensor]:
    """The tables of a pattern that chooses, from random vectors."""
    draws = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, 1, HEADS, length, WIDTH // HEADS, generator=draws)
    return dict(pattern.select(q, k))


def run(
    folder: Path,
    *,
    seconds: float = 90.0,
    verify_seconds: float = 10.0,
    context: int = CONTEXT,
    seed: int = 0,
    choose: bool = False,
    say: Callable[[str], None] = print,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """The whole demo.

    Args:
        folder: Where the pattern, the figures and the plot go; made if need be.
        seconds: How long each twin trains.
        verify_seconds: How long the pattern is verified.
        context: Bytes a model reads at once.
        seed: Of weights, batches and verification.
        choose: Whether the pattern is one that chooses blocks from q and k, and no window.
        say: Takes what people read.
        progress: Takes how far the work is, often.

    Returns:
        The figures, as in ``figures.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = CHOOSING if choose else PATTERN
    source = folder / ("chooser.attn" if choose else "reader.attn")
    write_file(source, program.encode())
    say(f"the pattern, {source}:\n\n{program}")

    pattern = attndsl.compile(source)
    chosen = random_choice(pattern, context, seed) if choose else {}
    say(f"{pattern.explain(context, heads=HEADS, head_dim=WIDTH // HEADS, inputs=chosen)}\n")
    say("asserted in the file:\n" + "\n".join(f"  {claim}" for claim in pattern.claims()) + "\n")
    say(drawn_small(source, choose, seed))

    report = attndsl.verify(
        pattern, seconds=verify_seconds, seed=seed,
        progress=lambda cases, _: progress(f"verifying, {cases} cases"),
    )  # fmt: skip
    say(f"{report}\n")

    if not report.ok:
        return {"verified": False}

    text = library_text()
    pair = twins(pattern, text, context, seed)
    size = sum(weight.numel() for weight in pair[0].model.parameters())
    say(f"two models of {size:,} weights read {len(text):,} bytes of Python, {context:,} at once:")
    due = 0.0
    for spent in train(pair, seconds):
        progress(f"training, {spent:.0f} of {seconds:.0f} s each")
        if spent >= due and all(each.losses for each in pair):
            say(f"{spent:6.1f} s each  " + "  ".join(map(str, pair)))
            due += seconds / REPORTS
    for twin in pair:
        twin.examine(text[-HELD_OUT * context - 1 :].unfold(0, context + 1, context))
    say(f"\n{table(pair)}\n")

    found = figures(pair) | {"verified": report.ok, "cases": report.cases}
    write_file(folder / "figures.json", f"{json.dumps(found, indent=1)}\n".encode())
    try:
        plot(pair, folder / "loss.png")
    except ImportError:
        say("no plot: matplotlib is missing, `pip install 'attndsl[plot]'` brings it")
    say(f"what was written is in {folder}: {', '.join(sorted(p.name for p in folder.iterdir()))}")
    return found
