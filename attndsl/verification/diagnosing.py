"""Guesses at the kind of mistake behind a wrong result: which pairs the kernel sees, which factor is off.

Nothing here decides whether a result is right; it only puts a known name to a wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from attndsl.verification.cases import Case, Tensors
from attndsl.verification.references import Kernel, ReferenceResult, oracle, wrong_entries

_MOST_PROBES = 64  # calls of the kernel to find out what it sees


def seen_pairs(kernel: Kernel, tensors: Tensors) -> Tensor | None:
    """The pairs that a kernel computes, bool [B, H, Q, K]; None where it takes too many calls to tell.

    With q = 0 all live keys weigh the same, 1 / n where n counts zero keys too; values that are 1 at one
    key only show its weight.
    """
    q = torch.zeros_like(tensors.q)
    length, width = tensors.v.shape[2:]
    if length == 0 or width == 0 or -(-length // width) > _MOST_PROBES:
        return None
    most = length + (0 if tensors.zeros is None else int(tensors.zeros.max()))
    columns = []
    for start in range(0, length, width):
        v = torch.zeros_like(tensors.v)
        some = torch.arange(start, min(start + width, length), device=v.device)
        v[:, :, some, some - start] = 1.0
        with torch.no_grad():
            out = kernel(q, tensors.k, v)
        weights = out if isinstance(out, Tensor) else out[0]
        columns.append(weights[..., : len(some)] > 0.25 / most)
    return torch.cat(columns, dim=-1)


def about_pairs(seen: Tensor, mask: Tensor) -> Iterator[str]:
    """Remarks on pairs that a kernel sees and should not, or should see and does not; often none."""
    mask = mask.expand(seen.shape)
    wrong = seen ^ mask
    if not wrong.any():
        return
    batch, head, query, key = (int(index) for index in wrong.nonzero()[0])
    extra, missing = int((seen & ~mask).sum()), int((mask & ~seen).sum())
    verb = "sees" if seen[batch, head, query, key] else "does not see"
    yield (
        f"batch {batch}, head {head}, query {query}, key {key}: the kernel {verb} this pair,"
        f" the pattern says otherwise"
    )
    yield f"{extra} pairs too many, {missing} too few"
    if seen.shape[2] == seen.shape[3] and torch.equal(seen, mask.mT):
        yield "queries and keys are swapped"
        return
    yield from _about_distance(wrong)
    yield from _about_tile(seen, mask)


def _about_distance(wrong: Tensor) -> Iterator[str]:
    place = wrong.nonzero()
    distances = set((place[:, 3] - place[:, 2]).tolist())
    if len(place) > 1 and len(distances) == 1:
        yield f"all of them at key - query = {distances.pop()}: an edge that is off by one"


def _about_tile(seen: Tensor, mask: Tensor) -> Iterator[str]:
    """A box of queries and keys in which all that should be there is missing, or nothing is masked."""
    wrong = (seen ^ mask).any(0).any(0)
    rows, columns = wrong.any(1).nonzero()[:, 0], wrong.any(0).nonzero()[:, 0]
    box = (
        ...,
        slice(int(rows[0]), int(rows[-1]) + 1),
        slice(int(columns[0]), int(columns[-1]) + 1),
    )
    if min(len(rows), len(columns)) < 2:
        return
    where = f"queries {int(rows[0])}..{int(rows[-1])}, keys {int(columns[0])}..{int(columns[-1])}"
    if not seen[box].any():
        yield f"nothing is computed for {where}: a tile that was left out"
    elif seen[box].all():
        yield f"{where} are computed without a mask"


def about_numbers(
    mask: Tensor,
    case: Case,
    tensors: Tensors,
    results: Mapping[str, Tensor],
    known: ReferenceResult,
    what: str,
) -> Iterator[str]:
    """Remarks on the wrong result ``what`` of a kernel that sees the right pairs."""
    got, want = results[what].double(), known.exact[what]
    allowed = 4 * known.allowed[what]
    yield from _about_empty_rows(got, want, mask, what, known.allowed[what])
    for text, other in _alternatives(mask, case, tensors, what):
        if not wrong_entries(got, other, allowed).any():
            yield text
            return
    yield from _about_factor(got, want, allowed, case)


def _about_empty_rows(
    got: Tensor, want: Tensor, mask: Tensor, what: str, allowed: Tensor
) -> Iterator[str]:
    if what not in ("out", "lse", "dq"):
        return
    wrong = wrong_entries(got, want, allowed)
    rows = wrong if what == "lse" else wrong.any(-1)
    empty = ~mask.any(-1).expand(rows.shape)
    if not (rows & ~empty).any():
        yield "only queries without a key are wrong: they have out 0, lse -inf and no gradient"


def _alternatives(
    mask: Tensor, case: Case, tensors: Tensors, what: str
) -> Iterator[tuple[str, Tensor]]:
    """Results of well-known mistakes, with what they are."""
    exact = tensors.to(torch.float64)

    def result(given: Tensors, scale: float) -> Tensor:
        return oracle(mask, given, scale)[what]

    if tensors.dlse.any() and what in ("dq", "dk"):
        silent = replace(exact, dlse=torch.zeros_like(exact.dlse))
        yield (
            "this is the gradient as if none arrived through the log-sum-exp",
            result(silent, case.factor),
        )
    if tensors.zeros is not None:
        text = "this is attention without the zero keys of the pattern"
        yield text, result(replace(exact, zeros=None), case.factor)
    for text, scale in (
        ("without a scale", 1.0),
        ("with the scale squared", case.factor**2),
        ("with the default scale 1 / sqrt(head_dim)", max(1, case.head_dim) ** -0.5),
    ):
        if not math.isclose(scale, case.factor):
            yield f"this is attention {text}", result(exact, scale)
    if 1 < case.kv_heads < case.heads and what in ("out", "lse", "dq"):
        group = case.heads // case.kv_heads
        order = torch.arange(case.heads, device=mask.device) % case.kv_heads
        k, v = exact.k[:, order], exact.v[:, order]
        yield (
            f"query head h reads key head h % {case.kv_heads}, not h // {group}",
            result(replace(exact, k=k, v=v), case.factor),
        )


def _about_factor(got: Tensor, want: Tensor, allowed: Tensor, case: Case) -> Iterator[str]:
    """Whether the result is a multiple of what it should be."""
    finite = torch.isfinite(want) & torch.isfinite(got)
    size = float((want[finite] ** 2).sum())
    if size == 0.0:
        return
    factor = float((got * want)[finite].sum()) / size
    if wrong_entries(got, factor * want, allowed * max(1.0, abs(factor))).any():
        return
    names = {
        "the logarithm has base 2": 1 / math.log(2),
        "the scale is missing": 1 / case.factor,
        "the scale is applied twice": case.factor,
        "nothing arrives": 0.0,
        "the sign": -1.0,
        "the heads that share a key": case.kv_heads / case.heads,
    }
    fits = [
        n
        for n, value in names.items()
        if value != 1.0 and abs(factor - value) < 0.01 * max(abs(value), 0.01)
    ]
    yield f"all of it is {factor:.4g} times what it should be" + "".join(
        f" ({n})" for n in fits[:1]
    )
