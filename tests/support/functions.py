"""Python functions that a call passes through: each takes as long as a small operation of torch."""

import sys
from collections.abc import Callable


def functions_of(call: Callable[[], object]) -> list[str]:
    """The names of the functions that are called, in order, the given one first."""
    called: list[str] = []
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, _: event == "call" and called.append(frame.f_code.co_name))
    try:
        call()
    finally:
        sys.setprofile(before)
    return called
