"""The oracle that every backend is compared with, in the precision of the inputs."""

import numpy as np
import torch

from attndsl.backends import Backend, Dense, Kernels
from tests.rooms.backends.cases import Case
from tests.support.dense_schedule import DenseWork
from tests.support.tolerances import assert_close, largest_summands

SCALE = 0.3
NAMES = ("out", "lse", "dq", "dk", "dv")


def run(backend: Backend, work: DenseWork, case: Case) -> list[torch.Tensor]:
    """out, lse, dq, dk, dv of a back end."""
    return both(work.lowered(backend, case.q, case.k, case.v), case)


def both(kernels: Kernels, case: Case, dtype: torch.dtype | None = None) -> list[torch.Tensor]:
    """out, lse, dq, dk, dv."""
    q, k, v, dout = (x.to(dtype or x.dtype) for x in (case.q, case.k, case.v, case.dout))
    out, lse = kernels.forward(q, k, v, scale=SCALE)
    dlse = None if case.dlse is None else case.dlse.to(lse.dtype)
    return [out, lse, *kernels.backward(q, k, v, out, lse, dout, dlse, scale=SCALE)]


def assert_agrees(results: list[torch.Tensor], case: Case) -> None:
    exact = both(Dense(case.mask), case, torch.float64)
    reference = both(Dense(case.mask), case)
    terms = case.masks.shape[3] + case.masks.shape[2] * case.q.shape[1]
    summands = largest_summands(case.q, case.k, case.v, case.dout, case.dlse, SCALE)
    for name, actual, truth, theirs in zip(NAMES, results, exact, reference, strict=True):
        assert actual.dtype == theirs.dtype, name
        allowed = {"summand": summands[name], "terms": terms, "dtype": case.q.dtype}
        assert_close(actual, truth, theirs, **allowed, what=name)


def plain_case(mask: np.ndarray, dtype: torch.dtype = torch.float64) -> Case:
    """Two batch elements and two heads under a mask [Q, K] or [H, Q, K]."""
    q_len, k_len = mask.shape[-2:]
    make = torch.Generator().manual_seed(0)
    q, dout = torch.randn(2, 2, 2, q_len, 8, dtype=dtype, generator=make)
    k, v = torch.randn(2, 2, 2, k_len, 8, dtype=dtype, generator=make)
    return Case(mask.reshape(1, -1, q_len, k_len), (16, 16), q, k, v, dout, None)
