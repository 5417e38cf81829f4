"""Configs that were measured: looked up by every call, found by climbing from the default, kept between processes.

An entry is for one pass of one pattern on one kind of device: its dtype, widths, heads that share keys, and
lengths up to the next power of two.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from attndsl import cache
from attndsl.backends.configs import (
    SHARED_MEMORY,
    Config,
    Pass,
    architecture,
    few_queries,
    fitting,
    padded,
    shared_memory,
)
from attndsl.backends.protocol import Request

Clock: TypeAlias = Callable[[Callable[[], object]], float]
# A pass; the forward of few queries has tiles of its own.
Kind: TypeAlias = Pass | Literal["few_queries"]

MOST = 24  # configs that are tried for a pass
GAIN = 0.98  # what is not faster than the default by this much may be noise
_ACCUMULATED = 256  # float32 numbers that a thread may hold at once; more would spill
_TILES, _WARPS, _STAGES = (16, 256), (1, 16), (1, 5)
_RUNS = 5


def default_config(which: Kind, request: Request) -> Config:
    """The config for such calls on their device, where nothing better was measured."""
    arch, widths = architecture(request.device), (request.head_dim, request.value_dim)
    if which == "few_queries":
        found = few_queries(arch, request.dtype.itemsize, request.q_len, *widths)
    else:
        found = fitting(which, arch, request.dtype.itemsize, *widths)
    assert found is not None, "supports() declines what fits nowhere"
    return found


@dataclass(frozen=True, slots=True)
class Tuned:
    """Result of tuning one pass of one part of a pattern; times in milliseconds."""

    which: Pass
    config: Config
    milliseconds: float
    default: Config
    default_milliseconds: float
    tried: int

    def __str__(self) -> str:
        tile = f"{self.config.bq} × {self.config.bk}"
        how = f"{tile}, {self.config.warps} warps, {self.config.stages} stages"
        times = f"{self.milliseconds:.3f} ms, by default {self.default_milliseconds:.3f} ms"
        return f"{self.which}: {how}: {times} ({self.tried} tried)"


@runtime_checkable
class Tunable(Protocol):
    """Kernels with something to choose."""

    def tune(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> tuple[Tuned, ...]:
        """Measure, remember, and say what was found; of the backward passes if their request wants a gradient."""


_KNOWN: dict[tuple[object, ...], Config] = {}
_REMEMBERED: list[Config] = []  # all, one after the other


def configured(which: Kind, request: Request) -> Config:
    """The config that was measured to be the best for such a call, here or by another process; else the default."""
    place = _place(which, request)
    found = _KNOWN.get(place)
    if found is None:
        kept = cache.recall("configs", _key(which, request)) if request.name else None
        found = _KNOWN[place] = _sound(kept, which, request) or default_config(which, request)
    return found


def remember(which: Kind, request: Request, config: Config) -> None:
    """From now on ``configured`` gives this one, here and where the cache is read."""
    if request.name:
        cache.keep("configs", _key(which, request), asdict(config))
    _KNOWN[_place(which, request)] = config
    _REMEMBERED.append(config)


def edition() -> int:
    """Another number after each ``remember``: what ``configured`` gave under the same one still holds."""
    return len(_REMEMBERED)


def _place(which: Kind, request: Request) -> tuple[object, ...]:
    """A cheap key that distinguishes what `_key` does; each lowering computes it."""
    widths = request.head_dim, request.value_dim
    lengths = (request.q_len - 1).bit_length(), (request.k_len - 1).bit_length()
    return which, request.name, request.device, request.dtype, widths, request.group, lengths


def climb(
    start: Config,
    around: Callable[[Config], Iterator[Config]],
    cost: Callable[[Config], float],
    most: int = MOST,
) -> tuple[Config, dict[Config, float]]:
    """The cheapest config that neighbours lead to from the first, and the costs of all that were tried.

    ``around`` lists what may be tried next to a config; an infinite cost is that of one that cannot run.
    """
    known = {start: cost(start)}
    best = start
    while True:
        first_writer = [config for config in around(best) if config not in known][
            : most - len(known)
        ]
        known |= {config: cost(config) for config in first_writer}
        better = min(known, key=lambda config: known[config])
        if better == best or not first_writer:
            break
        best = better
    return (best if known[best] < GAIN * known[start] else start), known


def neighbours(which: Kind, request: Request) -> Callable[[Config], Iterator[Config]]:
    """One step from a config: a side of the tile, warps or stages doubled or halved, where that fits the device."""

    def around(config: Config) -> Iterator[Config]:
        bq, bk, warps, stages = config.bq, config.bk, config.warps, config.stages
        for made in (
            *(replace(config, stages=stages + 1), replace(config, stages=stages - 1)),
            *(replace(config, warps=warps * 2), replace(config, warps=warps // 2)),
            *(replace(config, bk=bk * 2), replace(config, bk=bk // 2)),
            *(replace(config, bq=bq * 2), replace(config, bq=bq // 2)),
            *(replace(config, bq=bq * 2, warps=warps * 2), replace(config, bq=bq * 2, bk=bk // 2)),
        ):
            if _fits(made, which, request):
                yield made

    return around


def _fits(config: Config, which: Kind, request: Request) -> bool:
    """Whether such a config can be expected to compile for such calls, without spills."""
    if which == "few_queries":
        if config.bq != default_config(which, request).bq:
            return False
        # In one tile, where heads that share keys see the same ones.
        held = request.group * request.q_len
        rows = held if held <= _TILES[1] // 2 else request.q_len
        which, config = "forward", replace(config, bq=max(_TILES[0], padded(rows)))
    sides = min(config.bq, config.bk), max(config.bq, config.bk)
    ranges = ((sides, _TILES), ((config.warps,), _WARPS), ((config.stages,), _STAGES))
    if not all(low <= value <= high for values, (low, high) in ranges for value in values):
        return False
    if config.bk % 32 or any(x & (x - 1) for x in (config.bq, config.bk, config.warps)):
        return False
    arch, dims = architecture(request.device), (request.head_dim, request.value_dim)
    widths = padded(dims[0]), padded(dims[1])
    stays, kept = {
        "forward": (config.bq, widths[1]),
        "backward_queries": (config.bq, widths[0]),
        "backward_keys": (config.bk, sum(widths)),
    }[which]
    numbers = stays * kept + (1 if which == "forward" else 2) * config.bq * config.bk
    lanes = 64 if arch == "gfx942" else 32
    if arch != "interpreter" and numbers > _ACCUMULATED * lanes * config.warps:
        return False
    taken = shared_memory(which, arch, config, request.dtype.itemsize, *dims)
    return taken <= SHARED_MEMORY[arch]


def _sound(kept: Any, which: Kind, request: Request) -> Config | None:
    """Validates a cached config; None if it is none or does not fit."""
    names: Final = ("bq", "bk", "warps", "stages")
    if not isinstance(kept, dict) or sorted(kept) != sorted(names):
        return None
    if not all(type(value) is int for value in kept.values()):
        return None
    config = Config(*(kept[name] for name in names))
    return config if _fits(config, which, request) else None


def _key(which: Kind, request: Request) -> dict[str, str | int]:
    return {
        "pass": which,
        "pattern": request.name,
        "device": _device_name(request.device),
        "dtype": str(request.dtype),
        "head_dim": request.head_dim,
        "value_dim": request.value_dim,
        "group": request.group,
        "queries": (request.q_len - 1).bit_length(),
        "keys": (request.k_len - 1).bit_length(),
        "attndsl": _version("attndsl"),
        "triton": _version("triton"),
    }


@functools.cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from its sources
        return ""


@functools.cache
def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "interpreter"


# ---------------------------------------------------------------------------- measuring


def stopwatch(run: Callable[[], object]) -> float:
    """Milliseconds of a run on the device, the median of some after the first; on the CPU, of the first."""
    if not torch.cuda.is_available():
        started = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - started)
    run()
    spoiler = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")  # no run finds its cache warm
    found: list[float] = []
    for _ in range(_RUNS):
        spoiler.zero_()
        start, stop = _event(), _event()
        start.record()
        run()
        stop.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(stop))
    return float(statistics.median(found))


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def cautious(clock: Clock, run: Callable[[], object]) -> float:
    """The time of a run; infinite if the compiler or the device refuses it."""
    try:
        return clock(run)
    except Exception:  # noqa: BLE001 - each version of triton has errors of its own
        return math.inf
