"""``assert_close``: within what rounding explains, where no dense mask gives each entry a bound of its own.

The truth is the oracle in float64 on the very same (rounded) inputs. A result in a lower precision
may err twice as much as the oracle does in that precision, plus the rounding of a sum: a unit in the
last place of its largest summand, times the root of how many there are, twice.
"""

import torch
from torch import Tensor


def assert_close(
    actual: torch.Tensor,
    exact: torch.Tensor,
    reference: torch.Tensor,
    *,
    summand: float,
    terms: int,
    dtype: torch.dtype,
    what: str = "",
) -> None:
    """``actual`` against float64 ``exact``, allowed what ``reference`` allows it."""
    assert actual.shape == exact.shape, what
    strange = ~torch.isfinite(exact)
    same = (actual.double() == exact) | (actual.isnan() & exact.isnan())
    assert same[strange].all(), f"{what}: not finite elsewhere"
    if strange.all():
        return
    error = (actual.double() - exact)[~strange].abs().max().item()
    allowed = allowance(exact, reference, summand=summand, terms=terms, dtype=dtype)
    assert error <= allowed, f"{what}: error {error:.2e}, allowed {allowed:.2e}"


def allowance(
    exact: Tensor, reference: Tensor, *, summand: float, terms: int, dtype: torch.dtype
) -> float:
    """The largest error that rounding explains.

    Args:
        exact: The truth, float64.
        reference: The oracle's result computed in ``dtype``.
        summand: The largest thing that is summed up, see ``largest_summands``.
        terms: How many are summed up.
        dtype: That of the inputs and of all that is rounded: a log-sum-exp is finer than its terms.
    """
    finite = torch.isfinite(exact)
    theirs = (reference.double() - exact)[finite].abs()
    worst = theirs.max().item() if theirs.numel() else 0.0
    unit = torch.finfo(dtype).eps * summand * max(1, terms) ** 0.5
    return float(2 * worst + 2 * unit)


def largest_summands(
    q: Tensor, k: Tensor, v: Tensor, dout: Tensor, dlse: Tensor | None, scale: float
) -> dict[str, float]:
    """The size of what is summed up in each result of attention, from |x y| <= |x| |y|.

    A unit in the last place of a logit changes its weight by that much relatively: all that is
    weighted is as uncertain as the largest logit is large.
    """
    longest = {
        name: _largest(x.double().norm(dim=-1)) for name, x in (("q", q), ("k", k), ("v", v))
    }
    size = {name: _largest(x.double().abs()) for name, x in (("q", q), ("k", k), ("v", v))}
    arriving = _largest(dout.double().norm(dim=-1)) * longest["v"]
    arriving += 0.0 if dlse is None else _largest(dlse.abs())
    logit = max(1.0, scale * longest["q"] * longest["k"])
    return {
        "out": logit * size["v"],
        "lse": logit,
        "dq": logit * scale * arriving * size["k"],
        "dk": logit * scale * arriving * size["q"],
        "dv": logit * _largest(dout.abs()),
    }


def _largest(x: Tensor) -> float:
    return float(x.max()) if x.numel() else 0.0
