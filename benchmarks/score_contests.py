"""The attentions with scores of their own that `make gpu` measures, beside flex_attention with the same score_mod."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import attndsl

TABLE = 512  # entries of a relative table, the last for all that is farther


@dataclass(frozen=True)
class ScoreContest:
    """A score over `causal`; ``mod(x)`` is the same for flex, of the real input x; None: it has no such form."""

    name: str
    score: str
    shape: tuple[str, ...] = ()  # dims of its real input `x`; none if it has none
    mod: Callable[[Any], Callable[..., Any]] | None = None

    def ours(self) -> attndsl.Attention:
        """The compiled attention."""
        declared = f"input x: real[{', '.join(self.shape)}]\n" if self.shape else ""
        made = attndsl.compile(f"{declared}attention a over causal = score {self.score}")
        assert isinstance(made, attndsl.Attention)
        return made

    def inputs(self, heads: int, device: str) -> dict[str, torch.Tensor]:
        """Its real input, which requires a gradient."""
        if not self.shape:
            return {}
        sizes = {"head": heads, "n": TABLE}
        make = torch.Generator(device).manual_seed(1)
        x = torch.rand(*(sizes[dim] for dim in self.shape), device=device, generator=make)
        return {"x": x.requires_grad_()}


CONTESTS = {
    contest.name: contest
    for contest in (
        ScoreContest(
            "ALiBi",
            "s - x[head] * (q - k)",
            ("head",),
            lambda x: lambda s, b, h, q, k: s - x[h] * (q - k),
        ),
        ScoreContest(
            "relative table",
            "s + x[min(q - k, len(x.n) - 1)]",
            ("head", "n"),
            lambda x: lambda s, b, h, q, k: s + x[h, (q - k).clamp(0, TABLE - 1)],
        ),
        ScoreContest(
            "soft cap",
            "50.0 * tanh(s / 50.0)",
            (),
            lambda x: lambda s, b, h, q, k: 50.0 * torch.tanh(s / 50.0),
        ),
        ScoreContest("sink", "s mass exp(x[head])", ("head",)),
    )
}
