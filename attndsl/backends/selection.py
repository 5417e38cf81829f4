"""Selection of the back end that runs a call. Back ends load on first use, so triton need not be installed."""

from __future__ import annotations

import functools
import importlib
from typing import Any, Final

import torch

from attndsl.backends.protocol import Backend, Request, is_scheduled_on
from attndsl.source import AttnDslError, Diagnostic, suggest

# In the order to try them: name, module, class. Triton's interpreter takes CPU tensors too, slowly.
_BACKENDS = {
    "blocked": ("attndsl.backends.blocked", "Blocked"),
    "triton": ("attndsl.backends.triton", "Triton"),
}

# Kernels that are given whole calls of plain attention, and need no tiles of ours: the oracle, and those of others.
OTHERS: Final = ("flex", "sdpa", "varlen", "flash_attn", "natten")
WHOLE: Final = ("reference", *OTHERS)


def names() -> tuple[str, ...]:
    """The backends that run schedules, best first. The oracle, ``reference``, runs dense masks."""
    return tuple(_BACKENDS)


def choose(request: Request, name: str = "auto") -> Backend:
    """The first backend that can run the request, or the named one.

    Raises:
        AttnDslError: A520, with the reason of each backend that declined; A521, there is none of that name.
    """
    if name in OTHERS:
        notes = (f"{name}: it runs attention over a pattern, with no scores of one's own",)
        raise AttnDslError(Diagnostic("A520", "no backend can run these tensors", notes=notes))
    if name != "auto" and name not in _BACKENDS:
        known = ["auto", *_BACKENDS, *WHOLE]
        near = suggest(name, known)
        raise AttnDslError(
            Diagnostic(
                "A521",
                f"there is no backend called {name!r}",
                notes=(f"backends: {', '.join(known)}",),
                helps=(f"did you mean {near!r}?",) if near else (),
            )
        )
    reasons = []
    for candidate in _BACKENDS if name == "auto" else [name]:
        backend = _load(candidate)
        reason = backend if isinstance(backend, str) else backend.supports(request)
        if reason is None and not isinstance(backend, str):
            return backend
        reasons.append(f"{candidate}: {reason}")
    raise AttnDslError(Diagnostic("A520", "no backend can run these tensors", notes=tuple(reasons)))


@functools.cache
def _load(name: str) -> Backend | str:
    """The backend, or why it cannot be loaded."""
    module, cls = _BACKENDS[name]
    try:
        backend: Any = getattr(importlib.import_module(module), cls)()
    except ImportError as error:
        return f"it is not installed ({error.name or error})"
    return backend  # type: ignore[no-any-return]


def unit_chooser(device: torch.device) -> Any:
    """The function of such a device that scores and chooses units at once, ``chosen_units``; None on others."""
    if not is_scheduled_on(device) or isinstance(_load("triton"), str):
        return None
    return importlib.import_module("attndsl.backends.triton_choice").chosen_units
