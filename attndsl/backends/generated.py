"""Generated device functions, loaded: one module of Triton functions for each text."""

from __future__ import annotations

import functools
import hashlib
import linecache
from collections.abc import Mapping
from typing import Any

import triton
import triton.language as tl

NAMES = ("CONSTANTS", "QUERY_TERMS", "KEY_TERMS", "KEEP")
SCORES = ("NUMBERS", "OF_QUERY", "OF_KEY", "SCORE", "DERIVATIVES")


@functools.cache
def load(text: str, names: tuple[str, ...] = NAMES) -> Mapping[str, Any]:
    """The functions of a text that ``codegen`` wrote, by the names of the kernels' parameters.

    Triton reads the source of a function from the file it was defined in. The text is no file; it is
    handed to linecache, where ``inspect`` looks first.
    """
    name = f"<attndsl {hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    space: dict[str, Any] = {"triton": triton, "tl": tl, "__name__": "attndsl.generated"}
    exec(compile(text, name, "exec"), space)  # emitted from the IR alone
    return {name: space[name.lower()] for name in names}
