"""How far from the truth a result may be: derived, not tuned.

The truth is the oracle in float64 on the very same (rounded) inputs. A result in a lower precision
may err twice as much as the oracle does in that precision, plus the rounding of a sum: a unit in the
last place of its largest summand, times the root of how many there are, twice.
"""

import torch


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
    """``actual`` against float64 ``exact``, allowed what ``reference`` allows it.

    ``dtype`` is that of the inputs and of all that is rounded: a log-sum-exp is finer than its terms.
    """
    assert actual.shape == exact.shape, what
    strange = ~torch.isfinite(exact)
    same = (actual.double() == exact) | (actual.isnan() & exact.isnan())
    assert same[strange].all(), f"{what}: not finite elsewhere"
    if strange.all():
        return
    error = (actual.double() - exact)[~strange].abs().max().item()
    theirs = (reference.double() - exact)[~strange].abs().max().item()
    unit = torch.finfo(dtype).eps * summand * max(1, terms) ** 0.5
    assert error <= 2 * theirs + 2 * unit, f"{what}: error {error:.2e}, the oracle's {theirs:.2e}"


def largest_summands(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dout: torch.Tensor,
    dlse: torch.Tensor | None,
    scale: float,
) -> dict[str, float]:
    """The size of what is summed up in each result of attention, from |x y| <= |x| |y|.

    A unit in the last place of a logit changes its weight by that much relatively: all that is
    weighted is as uncertain as the largest logit is large.
    """
    longest = {
        name: float(x.double().norm(dim=-1).max()) for name, x in (("q", q), ("k", k), ("v", v))
    }
    size = {name: float(x.double().abs().max()) for name, x in (("q", q), ("k", k), ("v", v))}
    arriving = float(dout.double().norm(dim=-1).max()) * longest["v"]
    arriving += 0.0 if dlse is None else float(dlse.abs().max())
    logit = max(1.0, scale * longest["q"] * longest["k"])
    return {
        "out": logit * size["v"],
        "lse": logit,
        "dq": logit * scale * arriving * size["k"],
        "dk": logit * scale * arriving * size["q"],
        "dv": logit * float(dout.abs().max()),
    }
