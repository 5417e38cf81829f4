"""Tiles, warps and pipeline stages of each pass on each device, within its shared memory.

The defaults are the largest tiles that compile without spills (``make crosscheck`` looks at the binaries),
but for the keys of sm90 at 256 numbers: 80 to 200 bytes, as smaller tiles are not for its matrix instructions.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import torch

Pass: TypeAlias = Literal["forward", "backward_queries", "backward_keys"]
ListPass: TypeAlias = Literal["forward", "backward"]
Arch: TypeAlias = Literal["sm80", "sm86", "sm90", "sm100", "gfx942", "interpreter"]

# Bytes of shared memory that one program may take.
SHARED_MEMORY: Final[dict[Arch, int]] = {
    "sm80": 163 << 10,
    "sm86": 99 << 10,
    "sm90": 227 << 10,
    "sm100": 227 << 10,
    "gfx942": 64 << 10,
    "interpreter": 1 << 40,
}


@dataclass(frozen=True, slots=True)
class Config:
    """How one pass is run: its tile is also the tile of its schedule."""

    bq: int
    bk: int
    warps: int
    stages: int

    @property
    def tile(self) -> tuple[int, int]:
        """(queries, keys)."""
        return self.bq, self.bk


# By bytes in a padded row: of 64, 128 and 256 numbers of 16 bits.
_DEFAULTS: Final[dict[tuple[Arch, Pass], dict[int, Config]]] = {
    ("sm80", "forward"): {
        128: Config(128, 64, 8, 3),
        256: Config(64, 64, 4, 2),
        512: Config(64, 32, 8, 2),
    },
    ("sm80", "backward_queries"): {
        128: Config(64, 32, 8, 3),
        256: Config(64, 32, 4, 2),
        512: Config(32, 32, 8, 1),
    },
    ("sm80", "backward_keys"): {
        128: Config(32, 64, 8, 2),
        256: Config(32, 64, 8, 2),
        512: Config(32, 32, 8, 1),
    },
    ("sm90", "forward"): {
        128: Config(128, 64, 8, 3),
        256: Config(128, 64, 8, 3),
        512: Config(64, 32, 8, 2),
    },
    ("sm90", "backward_queries"): {
        128: Config(128, 64, 8, 3),
        256: Config(128, 64, 8, 2),
        512: Config(64, 32, 8, 2),
    },
    ("sm90", "backward_keys"): {
        128: Config(64, 128, 8, 3),
        256: Config(32, 128, 8, 3),
        512: Config(32, 64, 8, 2),
    },
    ("sm100", "forward"): {
        128: Config(128, 64, 8, 3),
        256: Config(128, 64, 8, 3),
        512: Config(64, 64, 8, 2),
    },
    ("sm100", "backward_queries"): {
        128: Config(128, 64, 8, 2),
        256: Config(128, 64, 8, 2),
        512: Config(64, 32, 8, 2),
    },
    ("sm100", "backward_keys"): {
        128: Config(64, 128, 8, 2),
        256: Config(32, 128, 8, 2),
        512: Config(32, 64, 8, 2),
    },
    ("gfx942", "forward"): {
        128: Config(128, 64, 4, 1),
        256: Config(128, 64, 4, 1),
        512: Config(64, 32, 4, 1),
    },
    ("gfx942", "backward_queries"): {
        128: Config(64, 64, 4, 1),
        256: Config(64, 32, 4, 1),
        512: Config(32, 32, 4, 1),
    },
    ("gfx942", "backward_keys"): {
        128: Config(32, 64, 4, 1),
        256: Config(32, 64, 4, 1),
        512: Config(16, 32, 4, 1),
    },
}


# Passes with scores of their own that need other tiles not to spill; keys as above.
_SCORED: Final[dict[tuple[Arch, Pass], dict[int, Config]]] = {
    ("sm80", "forward"): {256: Config(64, 32, 4, 2)},
    ("sm90", "backward_queries"): {128: Config(128, 32, 8, 3), 256: Config(128, 32, 8, 2)},
    ("sm90", "backward_keys"): {128: Config(64, 128, 8, 2)},
    ("sm100", "backward_queries"): {256: Config(128, 32, 8, 2)},
    ("gfx942", "forward"): {256: Config(64, 64, 4, 1)},
}


# The same where a table is read at pairs in another way than by their distance, whose places take registers.
_READING: Final[dict[tuple[Arch, Pass], dict[int, Config]]] = {
    ("sm80", "forward"): {128: Config(128, 32, 8, 3)},
    ("sm90", "backward_keys"): {256: Config(32, 64, 8, 3)},
}


def with_scores(
    which: Pass,
    arch: Arch,
    config: Config,
    size: int,
    width: int,
    value_width: int,
    loads: tuple[int, int],
) -> Config | None:
    """Fits a config to a pass of scores that read numbers for each pair; None if none fits.

    ``loads``: how many they read by the distance of the pair, and how many in another way.

    Numbers that a pipeline loads ahead lie in the shared memory, a float32 a pair.
    """
    if arch == "interpreter":
        return config
    row = max(2, size) * max(64, padded(width), padded(value_width))
    kind: Arch = "sm80" if arch == "sm86" else arch
    if config == _DEFAULTS[kind, which].get(min(512, row)):
        for other in (_SCORED, _READING) if loads[1] else (_SCORED,):
            config = other.get((kind, which), {}).get(min(512, row), config)
    found: Config | None = config
    while found is not None:
        ahead = sum(loads) * found.bq * found.bk * 4 * (found.stages - 1)
        taken = shared_memory(which, arch, found, size, width, value_width)
        if taken + ahead <= SHARED_MEMORY[arch]:
            break
        found = _smaller(found)
    return found


def fitting(which: Pass, arch: Arch, size: int, width: int, value_width: int) -> Config | None:
    """The default for numbers of ``size`` bytes, cut down until it fits the shared memory; None if none does."""
    if arch == "interpreter":
        return Config(64, 64, 4, 1)
    row = max(2, size) * max(64, padded(width), padded(value_width))
    config: Config | None = _DEFAULTS["sm80" if arch == "sm86" else arch, which][min(512, row)]
    limit = SHARED_MEMORY[arch]
    while config and shared_memory(which, arch, config, size, width, value_width) > limit:
        config = _smaller(config)
    return config


# Passes over lists, by bytes in a padded row: gathered rows, and the 64 keys of a block.
_LISTS: Final[dict[ListPass, dict[int, Config]]] = {
    "forward": {128: Config(64, 64, 4, 2), 256: Config(64, 64, 4, 2), 512: Config(32, 64, 8, 1)},
    "backward": {128: Config(32, 64, 8, 2), 256: Config(32, 64, 8, 1), 512: Config(16, 64, 8, 1)},
}


def of_lists(which: ListPass, arch: Arch, size: int, width: int, value_width: int) -> Config | None:
    """The config of a pass over lists, ``bq`` gathered rows at once; None if none fits the shared memory."""
    row = max(2, size) * max(64, padded(width), padded(value_width))
    config = _LISTS[which].get(row)
    if arch == "gfx942" and config is not None:
        return replace(config, warps=4, stages=1) if row < 512 else None
    return config


def few_queries(arch: Arch, size: int, q_len: int, width: int, value_width: int) -> Config | None:
    """The forward of so few queries that the heads which share keys fill one tile together; None if none fits.

    Its tile is as tall as the queries of one head, to a power of two.
    """
    config: Config | None = Config(16, 64, 4, 1 if arch == "gfx942" else 3)
    limit = SHARED_MEMORY[arch]
    while config and shared_memory("forward", arch, config, size, width, value_width) > limit:
        config = _smaller(config)
    return config and replace(config, bq=1 << (q_len - 1).bit_length())


def options(arch: Arch, config: Config, *, is_bound: bool = False) -> dict[str, int]:
    """Compiler options of a config.

    For sm100, and for few queries on sm80, the assembler spills to make room in the registers for one more program,
    though it does not know whether the shared memory has room for it. A bound of its own, which others are given by
    ``is_bound``, keeps it from that.
    """
    made = {"num_warps": config.warps, "num_stages": config.stages}
    spills = arch == "sm100" or (arch in ("sm80", "sm86") and config.bq <= 16)
    spills |= is_bound and arch.startswith("sm")
    most = {"maxnreg": min(255, 2048 // config.warps)} if spills else {}
    return made | most


def shared_memory(
    which: Pass, arch: Arch, config: Config, size: int, width: int, value_width: int
) -> int:
    """Bytes of shared memory that the compiled pass takes, at most.

    The tile that stays, ``stages`` of the tiles that pass by, the weights and their gradient on their way
    to a product, and what reductions need. Without pipelining operands follow each other in one place.
    Weights of 16 bits, forward, stay in registers, but on sm100.
    """
    bd, bdv, wide = padded(width), padded(value_width), max(2, size)
    stays, passes = (config.bk, config.bq) if which == "backward_keys" else (config.bq, config.bk)
    weights = 2 * config.bq * config.bk * wide
    if arch == "gfx942":
        return max(stays, passes * config.stages) * max(bd, bdv) * size + weights // 2
    kept = stays * (bd if which == "forward" else bd + bdv) * size
    copies = (
        bd + bdv if arch == "sm100" else max(bd, bdv) if config.stages == 1 else 0
    )  # transposed
    passing = passes * (config.stages * (bd + bdv) + copies) * size
    passing += passes * bdv * 2 * (size == 1)  # values, widened
    if which == "forward" and size == 2 and arch != "sm100":
        weights = 0
    return kept + passing + weights + (4 << 10)


def _smaller(config: Config) -> Config | None:
    """One stage less; without a stage to spare, half of the longer side of the tile, while there is one."""
    if config.stages > 1:
        return replace(config, stages=config.stages - 1)
    if config.bq >= config.bk and config.bq > 16:
        return replace(config, bq=config.bq // 2)
    return replace(config, bk=config.bk // 2) if config.bk > 32 else None


def padded(width: int) -> int:
    """The power of two that a block is as wide as; tensor cores take no less than 16."""
    return max(16, 1 << (width - 1).bit_length())


@functools.cache
def architecture(device: torch.device) -> Arch:
    """The kind of device, as far as kernels differ by it."""
    if device.type != "cuda":
        return "interpreter"
    if torch.version.hip is not None:
        return "gfx942"
    known: dict[tuple[int, int], Arch] = {(8, 0): "sm80", (9, 0): "sm90", (10, 0): "sm100"}
    return known.get(torch.cuda.get_device_capability(device), "sm86")
