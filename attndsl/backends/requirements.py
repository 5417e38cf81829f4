"""The torch that is needed: importing this says so in one sentence where another is installed."""

from __future__ import annotations

import re
from typing import Final

import torch

OLDEST_TORCH: Final = (2, 9)  # as pyproject.toml declares, and as the tests pass with


def check_torch(version: str) -> None:
    """Refuses a torch that is too old: the attention on CPUs of 2.7 and 2.8 corrupts memory in its backward.

    Raises:
        ImportError: the version is below ``OLDEST_TORCH``.
    """
    found = re.match(r"(\d+)\.(\d+)", version)  # of builds such as 2.9.0a0+rocm, too
    if found is not None and (int(found[1]), int(found[2])) < OLDEST_TORCH:
        needed = ".".join(map(str, OLDEST_TORCH))
        raise ImportError(f"attndsl needs torch {needed} or newer, and this is torch {version}")


check_torch(torch.__version__)
