"""Compiles a file whose kernel is called ``integers``: `python -m tests.rooms.emission.integers FILE...`."""

import json
import sys
from pathlib import Path

import triton
from triton.compiler import ASTSource

from tests.rooms.emission.outside import loaded
from tests.support.crosscompile import TARGETS

BITS = {"i32": 5, "i64": 6}


def assembly(path: Path, kind: str) -> str:
    """The kernel for numbers of that kind."""
    types = {"Out": f"*{kind}", "a": kind, "b": kind, "BITS": "constexpr"}
    source = ASTSource(loaded(path).integers, types, {(3,): BITS[kind]}, {})
    return triton.compile(source, target=TARGETS["cuda:90"], options={"num_warps": 1}).asm["ptx"]


if __name__ == "__main__":
    print(
        json.dumps([{kind: assembly(Path(file), kind) for kind in BITS} for file in sys.argv[1:]])
    )
