"""Run the integer arithmetic of a compiled kernel by hand: its first thread, in NVIDIA's assembly language.

What the interpreter of Triton computes with NumPy's integers says nothing of the device's: quotients
truncate there. Any instruction that is not listed here is an error.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

INSTRUCTION = re.compile(r"(?:@(!?)(%p\d+)\s+)?([a-z]\w*)((?:\.\w+)*)\s*(.*);")
BINARY: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "min": min,
    "max": max,
    "div": lambda a, b: abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1),
    "rem": lambda a, b: abs(a) % abs(b) * (-1 if a < 0 else 1),
    "shl": lambda a, b: a << min(b, 64),
    "shr": lambda a, b: a >> min(b, 64),
}
COMPARED = {name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")}


def run(text: str, *parameters: int) -> dict[int, int]:
    """What the first thread of a kernel stores: signed numbers, by address."""
    lines = [line.partition("//")[0].strip() for line in text.splitlines()]
    labels = {line[:-1]: at for at, line in enumerate(lines) if re.fullmatch(r"\$\w+:", line)}
    registers: dict[str, int] = {"%tid.x": 0}
    stored: dict[int, int] = {}
    at = 0
    while True:
        found = INSTRUCTION.fullmatch(lines[at])
        at += 1
        if found is None:
            continue
        negated, guard, name, kinds, rest = found.groups()
        if guard and bool(registers[guard]) == bool(negated):
            continue
        if name == "ret":
            return stored
        if name == "bra":
            at = labels[rest]
        else:
            _step(
                name,
                kinds[1:].split("."),
                re.findall(r"[%\w.-]+", rest),
                registers,
                stored,
                parameters,
            )


def _step(
    name: str,
    kinds: list[str],
    given: list[str],
    registers: dict[str, int],
    stored: dict[int, int],
    parameters: tuple[int, ...],
) -> None:  # fmt: skip
    kind = kinds[-1]

    def value(place: str, kind: str = kind) -> int:
        return _typed(registers[place] if place[0] == "%" else int(place), kind)

    match name:
        case "st":
            address, offset, what = given
            stored[value(address, "b64") + int(offset)] = value(what, f"s{kind[1:]}")
            return
        case "ld" if kinds[0] == "param":
            made = parameters[int(given[1].rpartition("_")[2])]
        case "mov" | "cvt":
            made = value(given[1])
        case "selp":
            made = value(given[1] if registers[given[3]] else given[2])
        case "setp":
            made = int(COMPARED[kinds[0]](value(given[1]), value(given[2])))
        case "shl" | "shr":
            made = BINARY[name](value(given[1]), value(given[2], "u32"))
        case _:
            made = BINARY[name](value(given[1]), value(given[2]))
    registers[given[0]] = made


def _typed(number: int, kind: str) -> int:
    """The low bits of a number, read as that kind."""
    if kind == "pred":
        return number
    bits = int(kind[1:])
    low = number & ((1 << bits) - 1)
    return low - (1 << bits) if kind[0] == "s" and low >> (bits - 1) else low
