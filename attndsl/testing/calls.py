"""Strategies of calls: lengths, extents, heads, run-time inputs and tensors that a pattern allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

from attndsl import ir
from attndsl.compiled import Pattern, compile_pattern
from attndsl.sources import Source
from attndsl.verification import Case, Tensors, draw_case, draw_inputs

T = TypeVar("T")


class _Drawn:
    """Dice whose throws hypothesis chooses, and makes small when a test fails."""

    def __init__(self, draw: Callable[..., Any]) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return int(self._draw(st.integers(low, high)))

    def pick(self, options: Sequence[T]) -> T:
        return self._draw(st.sampled_from(list(options)))  # type: ignore[no-any-return]


@st.composite
def cases(
    draw: Callable[..., Any], /, p: Pattern | Source, largest: int = 150, **fixed: Any
) -> Case:
    """A strategy of calls of the pattern: shapes, dtype, extents, inputs, memory layout.

    Args:
        draw: hypothesis gives it; callers leave it out.
        p: The pattern.
        largest: About how many tokens a call has at most; fixed extents may be longer.
        **fixed: Fields of ``Case`` that every call shall have, such as ``head_dim=64``, ``heads=4``,
            ``kv_heads=1`` or ``dtype=torch.float32``.

    Returns:
        ``Case``: its ``tensors()`` are q, k, v and gradients, its ``inputs`` the run-time inputs.
    """
    return draw_case(compile_pattern(p).ir, _Drawn(draw), largest, **fixed)


@st.composite
def inputs(
    draw: Callable[..., Any],
    /,
    p: Pattern | Source,
    q_len: int,
    k_len: int | None = None,
    *,
    batch: int = 1,
    heads: int = 1,
    extents: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """A strategy of run-time inputs of the pattern at these lengths, NumPy arrays by name."""
    mask = compile_pattern(p).ir
    sizes = ir.resolve_sizes(mask, q_len, q_len if k_len is None else k_len, extents)
    return draw_inputs(mask, sizes, batch, heads, _Drawn(draw))


@st.composite
def tensors(
    draw: Callable[..., Any], /, p: Pattern | Source, **options: Any
) -> tuple[Case, Tensors]:
    """A strategy of calls with their tensors; options as for ``cases``."""
    case: Case = draw(cases(p, **options))
    return case, case.tensors()
