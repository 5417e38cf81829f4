"""`attndsl bench`: the CPU backend against dense-mask SDPA and FlexAttention, in turns, as ratios."""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from . import arguments as args
from .commands import Command, mistake
from .subjects import LARGE, Setting, Subject, setting, spelled, subject
from .terminal import BOLD, Terminal

if TYPE_CHECKING:  # torch takes a second to load: no other command should wait for it
    from torch import Tensor

    from attndsl import Pattern

Attend: TypeAlias = "Callable[[Tensor, Tensor, Tensor], Tensor]"

DTYPES = ("float32", "bfloat16", "float16")
DIRECTIONS = ("forward", "backward")
MOST_NUMBERS = 1 << 28  # of one tensor: a gigabyte in float32, of which a dozen are alive
MOST_PAIRS = 1 << 28  # of a dense mask: beyond it there is nobody to race with
MOST_SCORES = 1 << 27  # that eager FlexAttention writes out, all heads together


def configure(parser: argparse.ArgumentParser) -> None:
    args.add_pattern(parser)
    args.add_call(parser)
    group = parser.add_argument_group("the measurement")
    count = args.whole(1, 1 << 16)
    group.add_argument("--head-dim", type=count, default=64, metavar="D", help="default 64")
    args.add_layout(group, "auto")
    group.add_argument("--dtype", choices=DTYPES, default="float32", help="default float32")
    group.add_argument("--rounds", type=count, default=5, metavar="N", help="default 5")
    group.add_argument("--threads", type=count, metavar="N", help="of torch; default all cores")
    group.add_argument("--no-flex", action="store_true", help="leave FlexAttention out")
    group.add_argument("--no-backward", action="store_true", help="forward only")
    group.add_argument("--json", action="store_true", help="the figures for tools")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    import torch

    options.heads = options.heads or 8
    about = subject(options)
    if about.attention is not None:
        raise mistake("A602", f"`{about.signature.name}` is an attention: patterns are timed")
    call = setting(about.mask, options, LARGE)
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads or before)
    try:
        with terminal.progress(about.mask.name) as progress:
            racers = list(_racers(about, call, options, progress))
            for number in range(options.rounds):
                progress(f"round {number + 1} of {options.rounds}")
                for racer in racers:
                    racer.round()
        figures = _figures(about, call, racers, options)
    finally:
        torch.set_num_threads(before)
    if options.json:
        terminal.say(json.dumps(figures, indent=2))
    else:
        _tell(figures, call, terminal)
    return 0


# ---------------------------------------------------------------------------- who races


@dataclass
class Racer:
    """One implementation: what it is timed at, or why it stays out."""

    name: str
    calls: dict[str, Callable[[], Any]] = field(default_factory=dict)
    first: float = 0.0  # seconds of the first call: compilation, schedule and all
    remark: str = ""
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def round(self) -> None:
        """Forward and backward once."""
        for direction, call in self.calls.items():
            began = time.perf_counter()
            call()
            self.seconds.setdefault(direction, []).append(time.perf_counter() - began)

    def median(self, direction: str) -> float | None:
        """Seconds of a typical round."""
        rounds = self.seconds.get(direction)
        return statistics.median(rounds) if rounds else None


def _racers(
    about: Subject, call: Setting, options: argparse.Namespace, progress: Callable[[str], None]
) -> Iterator[Racer]:
    import torch

    from attndsl import Pattern

    torch.manual_seed(options.seed)
    dtype = getattr(torch, options.dtype)
    lengths = (call.q_len, call.k_len, call.k_len)
    if call.batch * call.heads * max(lengths) * options.head_dim > MOST_NUMBERS:
        title = (
            f"tensors of {call.heads} x {max(lengths):,} x {options.head_dim} are too large to race"
        )
        raise mistake("A602", title, helps=("choose fewer tokens or heads",))
    tensors = [
        torch.randn(call.batch, call.heads, n, options.head_dim, dtype=dtype) for n in lengths
    ]
    pattern = Pattern(about.mask, options.layer, options.without)
    for name, make in _implementations(pattern, call, options):
        progress(f"{name}, first call")
        began = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch, about itself
                attend = make()
                attend(*tensors)
        except (RuntimeError, LookupError, OSError, AssertionError) as error:
            yield Racer(name, remark=f"cannot run: {str(error).splitlines()[0][:80]}")
            continue
        yield _racer(name, attend, tensors, time.perf_counter() - began, options)


def _racer(
    name: str, attend: Attend, tensors: list[Tensor], first: float, options: argparse.Namespace
) -> Racer:
    import torch

    made = Racer(name, {"forward": lambda: attend(*tensors)}, first)
    if name.startswith("FlexAttention"):
        made.remark = "has no backward on CPU" if not options.no_backward else ""
    elif not options.no_backward:
        leaves = [each.detach().requires_grad_() for each in tensors]
        out = attend(*leaves)
        gradient = torch.randn_like(out)
        made.calls["backward"] = lambda: torch.autograd.grad(
            out, leaves, gradient, retain_graph=True
        )
    return made


def _implementations(
    pattern: Pattern, call: Setting, options: argparse.Namespace
) -> Iterator[tuple[str, Callable[[], Attend]]]:
    """Names, and what makes the callable: its time belongs to the first call."""
    from torch.nn import functional as F

    given: dict[str, Any] = {"extents": call.extents, "inputs": call.inputs}
    yield "attndsl", lambda: lambda q, k, v: pattern(q, k, v, layout=options.layout, **given)
    if call.q_len * call.k_len > MOST_PAIRS:
        return
    mask = pattern.mask(call.q_len, call.k_len, call.heads, batch=call.batch, **given)
    if all(bool((mask[:, :1] == mask[:, head]).all()) for head in range(1, call.heads)):
        mask = mask[:, :1].clone()
    yield (
        "SDPA, dense mask",
        lambda: lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask),
    )
    if not options.no_flex:
        yield "FlexAttention, compiled", lambda: _flex(mask, compiled=True)
        if call.heads * call.q_len * call.k_len <= MOST_SCORES:
            yield "FlexAttention, eager", lambda: _flex(mask, compiled=False)


def _flex(mask: Tensor, *, compiled: bool) -> Attend:
    """FlexAttention with the same mask, looked up."""
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    per_head = mask.shape[1] > 1

    def mask_mod(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return mask[0, h if per_head else 0, q, k]

    heads = mask.shape[1] if per_head else None
    blocks = create_block_mask(mask_mod, None, heads, mask.shape[2], mask.shape[3], device="cpu")
    attend: Any = torch.compile(flex_attention) if compiled else flex_attention
    return lambda q, k, v: attend(q, k, v, block_mask=blocks)


# ---------------------------------------------------------------------------- what came out


def _figures(
    about: Subject, call: Setting, racers: list[Racer], options: argparse.Namespace
) -> dict[str, Any]:
    import torch

    ours = racers[0]
    results = []
    for racer in racers:
        result: dict[str, Any] = {"name": racer.name, "first_call_seconds": racer.first}
        for direction in DIRECTIONS:
            seconds, mine = racer.median(direction), ours.median(direction)
            result[direction] = seconds
            result[f"{direction}_ratio"] = seconds / mine if seconds and mine else None
        results.append(result | {"remark": racer.remark})
    return {
        "pattern": f"{about.mask.name}{spelled(about.values)}",
        "q_len": call.q_len,
        "k_len": call.k_len,
        "heads": call.heads,
        "head_dim": options.head_dim,
        "dtype": options.dtype,
        "layout": options.layout,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rounds": options.rounds,
        "results": results,
    }


def _tell(figures: dict[str, Any], call: Setting, terminal: Terminal) -> None:
    sizes = f"{call.q_len:,} queries, {call.k_len:,} keys, {call.heads} heads of"
    terminal.say(
        f"{terminal.paint(BOLD, figures['pattern'])}: {sizes} {figures['head_dim']},"
        f" {figures['dtype']}, {figures['threads']} threads, median of {figures['rounds']} rounds"
    )
    for name, words in call.made_up.items():
        terminal.say(f"{name} was made up: {words}")
    columns = "".join(f"{title:>20}" for title in ("first call", *DIRECTIONS))
    terminal.say(f"\n{'':26}{columns}")
    for each in figures["results"]:
        cells = [_cell(each["first_call_seconds"] or None, None)]
        cells += [_cell(each[d], each[f"{d}_ratio"]) for d in DIRECTIONS]
        line = f"{each['name']:26}" + "".join(f"{cell:>20}" for cell in cells)
        terminal.say(f"{line}  {each['remark']}".rstrip())
    terminal.say("\nA ratio says how many times as long as attndsl.")


def _cell(seconds: float | None, ratio: float | None) -> str:
    if seconds is None:
        return "-"
    spent = f"{1e3 * seconds:,.1f} ms"
    return spent if ratio is None else f"{spent} {ratio:7.2f}x"


COMMAND = Command(
    (
        "attndsl bench streaming -p w=512",
        "attndsl bench longformer --q-len 4096 --heads 4 --dtype bfloat16 --no-flex",
        "attndsl bench swin --extents y=56,x=56 --heads 3 --head-dim 32 --json",
    ),
    configure,
    run,
)
