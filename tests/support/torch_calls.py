"""Operators of torch that an action runs, as torch's own profiler tells them."""

from __future__ import annotations

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile

FLASH = "aten::_scaled_dot_product_flash_attention_for_cpu"


def flash_calls(action: Callable[[], object]) -> list[tuple[str, int]]:
    """Calls of torch's attention kernel for CPUs, ("forward" or "backward", number of keys), in order."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        action()
    found = [event for event in profiler.events() if event.name.startswith(FLASH)]
    found.sort(key=lambda event: event.time_range.start)
    return [
        ("backward", event.input_shapes[2][2])
        if event.name.endswith("backward")
        else ("forward", event.input_shapes[1][2])
        for event in found
    ]
