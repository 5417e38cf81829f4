"""``assert_close``: within what rounding explains, see ``attndsl.verification``."""

import torch

from attndsl.verification import allowance, largest_summands

__all__ = ["assert_close", "largest_summands"]


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
