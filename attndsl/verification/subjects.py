"""Subjects of ``verify``, and the back ends that can run them here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeAlias

import torch

from attndsl import backends, ir, op
from attndsl.source import AttnDslError, Diagnostic
from attndsl.verification.cases import Case
from attndsl.verification.references import Fault

Target: TypeAlias = tuple[str, str]  # backend, device
Check: TypeAlias = Callable[[], Fault | None]


class Subject(Protocol):
    """A pattern or an attention, and how a call of it is checked."""

    @property
    def name(self) -> str:
        """The name it was declared under."""
        ...

    @property
    def meaning(self) -> str:
        """The whole of it, as people read it."""
        ...

    @property
    def frame(self) -> ir.Mask:
        """A mask with the spaces and inputs of its calls, from whose numbers lengths are drawn."""
        ...

    def fitted(self, case: Case) -> Case:
        """The case, its inputs as this subject needs them."""
        ...

    def checks(self, case: Case) -> Iterator[tuple[str, Check]]:
        """Everything to hold against the meaning of the case, by name.

        Raises:
            Skipped: the call cannot be checked.
        """
        ...


class Skipped(Exception):
    """The call cannot be checked; the text says why."""


def targets(names: Iterable[str] | None = None) -> list[Target]:
    """The (backend, device) pairs that can run here; of those names, if any are given.

    Raises:
        AttnDslError: A520 or A521 for a name that cannot be had.
    """
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    found = []
    for name in backends.names() if names is None else names:
        here = [(name, device) for device in devices if _runs_any(name, device)]
        if names is None and name == "triton":
            here = [
                (name, device) for _, device in here if device != "cpu"
            ]  # its interpreter is slow
        if not here and name in backends.OTHERS:
            reason = op.why_not(name, devices[-1], torch.float16, 16)
            notes = (f"{name}: {reason}",)
            raise AttnDslError(Diagnostic("A520", "this backend cannot run here", notes=notes))
        if not here and names is not None:
            backends.choose(backends.Request(torch.device("cpu"), torch.float32, 16, 16), name)
        found += here
    return found


def _runs_any(name: str, device: str) -> bool:
    return any(runs(name, device, dtype, 16, 16) for dtype in (torch.float32, torch.float16))


def runs(name: str, device: str, dtype: torch.dtype, head_dim: int, value_dim: int) -> bool:
    """Whether a back end takes such tensors; that of another library may still refuse the pairs of a call."""
    if name in backends.OTHERS:
        return op.why_not(name, device, dtype, max(head_dim, value_dim)) is None
    try:
        backends.choose(backends.Request(torch.device(device), dtype, head_dim, value_dim), name)
    except AttnDslError as error:
        if error.code != "A520":
            raise
        return False
    return True
