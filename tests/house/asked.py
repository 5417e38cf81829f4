"""Examples of the pages, scheduled and called as well as evaluated: equal pairs, equal numbers on both back ends."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

import attndsl
from attndsl import Pattern
from attndsl import syntax as syn
from attndsl.verification import Random, draw_case

LARGEST = 1 << 18  # pairs of a call of a page that is called once more
FEW = 24  # tokens of a call that is drawn, where the pattern leaves that free
SEEDS = 2  # calls drawn for each pattern
SMALL = {"int": 3, "bool": True, "list": [2, 5]}

Asked = tuple[Pattern, tuple[Any, ...], dict[str, Any]]


@dataclass
class Listener:
    """Patterns that a page compiles, and the calls whose masks it asks for."""

    patterns: dict[Pattern, None] = field(default_factory=dict)
    masks: list[Asked] = field(default_factory=list)


def _is_page(page: str) -> bool:
    file = sys._getframe(2).f_code.co_filename
    return file == page or file.startswith("<doctest")


@contextlib.contextmanager
def listening(page: str) -> Iterator[Listener]:
    """Hears what blocks of that page ask for, and nothing that the package asks itself."""
    heard, real_compile, real_mask = Listener(), attndsl.compile, Pattern.mask

    def compile_and_tell(*args: Any, **options: Any) -> Any:
        made = real_compile(*args, **options)
        if _is_page(page) and isinstance(made, Pattern):
            heard.patterns[made] = None
        return made

    def mask_and_tell(p: Pattern, *args: Any, **options: Any) -> torch.Tensor:
        made = real_mask(p, *args, **options)
        if _is_page(page):
            heard.masks.append((p, args, options))
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attndsl, "compile", compile_and_tell)
        patch.setattr(Pattern, "mask", mask_and_tell)
        yield heard


def patterns_of(program: str) -> Iterator[Pattern]:
    """Every pattern of a program, not only the last; a parameter without a default takes a small value."""
    for item in syn.parse(program).declarations:
        if isinstance(item, syn.Pattern):
            open_ones = {p.name: SMALL[p.kind] for p in item.parameters if p.default is None}
            yield attndsl.compile(program, entry=item.name, values=open_ones)


def check_asked(heard: Listener) -> int:
    """How many calls were scheduled and computed: those of the page, and some of each pattern of it.

    Raises:
        AssertionError: with the pattern and the call.
    """
    count = 0
    for p, args, options in heard.masks:
        if p.mask(*args, **options).numel() <= LARGEST:
            check_call(p, *args, **options)
            count += 1
    for p in heard.patterns:
        count += sum(check_drawn(p, seed) for seed in range(SEEDS))
    return count


def check_drawn(p: Pattern, seed: int) -> bool:
    """Whether a call could be drawn that the pattern allows and that is small enough."""
    case = draw_case(p.ir, Random(seed), FEW)
    if case.pairs > LARGEST:
        return False
    given = {"extents": case.extents, "inputs": case.inputs, "batch": case.batch}
    try:
        p.mask(case.q_len, case.k_len, case.heads, **given)
    except attndsl.AttnDslError as error:
        if error.code != "A507":  # a condition of the pattern that these lengths break
            raise
        return False
    check_call(p, case.q_len, case.k_len, case.heads, **given)
    return True


def check_call(
    p: Pattern, q_len: int, k_len: int | None = None, heads: int | None = None, **given: Any
) -> None:
    said = f"{p.name} {p.ir.root}: {q_len}, {k_len}, {heads}, {given}"
    mask = p.mask(q_len, k_len, heads, **given)
    schedule = p.schedule(q_len, k_len, heads, tile=(4, 8), **given)
    for b, h in np.ndindex(*mask.shape[:2]):
        assert np.array_equal(schedule.cover(b, h), mask[b, h].numpy()), said
    given.pop("batch", None)
    blocked, reference = (_results(p, mask.shape, name, given) for name in ("blocked", "reference"))
    for one, other in zip(blocked, reference, strict=True):
        # float64: two orders of a sum of at most some hundred numbers of size 1 differ by less
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11, msg=lambda m: f"{said}: {m}")


def _results(
    p: Pattern, shape: torch.Size, backend: str, given: Mapping[str, Any]
) -> list[torch.Tensor]:
    """out, lse, dq, dk, dv in float64."""
    batch, heads, q_len, k_len = shape
    make = torch.Generator().manual_seed(0)
    q, k, v, dout = (
        torch.randn(batch, heads, length, 4, generator=make, dtype=torch.float64)
        for length in (q_len, k_len, k_len, q_len)
    )
    leaves = [x.requires_grad_() for x in (q, k, v)]
    out, lse = p(*leaves, return_lse=True, backend=backend, **given)
    into = torch.where(lse.isinf(), 0.0, lse.detach().sin())
    return [out.detach(), lse.detach(), *torch.autograd.grad((out, lse), leaves, (dout, into))]
