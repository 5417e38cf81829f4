"""Laws of one call of a program: its schedule in tiles of any shape, its attention under the transforms of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, func

from attndsl import Pattern
from attndsl.source import AttnDslError
from attndsl.testing import Program

Attention: TypeAlias = Callable[..., tuple[Tensor, Tensor]]

TILES = ((1, 1), (1, 4), (4, 1), (3, 5), (16, 16))
WIDTH = 3  # of queries, keys and values
# Reasons for which one call may be refused: sizes that contradict each other, an input that is too short, numbers
# and ranges that are too large, a negative count of zero keys.
REFUSED = ("A401", "A402", "A403", "A404", "A408", "A501")


def arguments(p: Pattern, program: Program) -> dict[str, Any]:
    """Extents and inputs of the program's own call."""
    extents = {name: size for name, size in program.sizes.items() if "." in name}
    tables = {table.name: program.tables[table.name] for table in p.ir.tables}
    return {"extents": extents, "inputs": tables}


def check_call(
    p: Pattern, program: Program, pairs: np.ndarray, zeros: np.ndarray, seed: int
) -> None:
    """The program's own call is refused by all that takes it, or means what the text says for all of them.

    Raises:
        AssertionError: with what went wrong.
    """
    lengths, given = (program.q_len, program.k_len, program.heads), arguments(p, program)
    given["batch"] = program.batch
    tile = TILES[seed % len(TILES)]
    if code := _refusal(lambda: p.schedule(*lengths, tile=tile, **given)):
        known = [
            _refusal(lambda: p.mask(*lengths, **given)),
            _refusal(lambda: p.zero_keys(*lengths, **given)),
        ]
        assert code in known or code in ("A403", "A404"), (
            f"{code} of a schedule, {known} of the mask"
        )
        return
    assert np.array_equal(p.mask(*lengths, **given).numpy(), pairs), "the mask of the call"
    for layout in ("natural", "auto"):
        schedule = p.schedule(*lengths, tile=tile, layout=layout, **given)
        for b, h in np.ndindex(pairs.shape[:2]):
            assert np.array_equal(schedule.cover(b, h), pairs[b, h]), f"{layout} in tiles of {tile}"
    if _refusal(lambda: p.zero_keys(*lengths, **given)):
        return
    assert np.array_equal(p.zero_keys(*lengths, **given).numpy(), zeros), "zero keys of the call"
    del given["batch"]
    names = list(TRANSFORMS)
    for backend in ("blocked", "reference"):
        check_transform(
            p, given, pairs, zeros, names[seed // len(TILES) % len(names)], backend, seed
        )


def check_conflicts(p: Pattern, program: Program, seed: int) -> None:
    """Extents that do not make the numbers of tokens are refused; so is an input that lacks an entry."""
    given = {"batch": program.batch, **arguments(p, program)}
    lengths = [program.q_len, program.k_len]
    if p.ir.keys.segments:
        longer = [lengths[0], lengths[1] + 1]
        assert _refusal(lambda: p.mask(*longer, program.heads, **given)), "a key too many"
        assert _refusal(lambda: p.schedule(*longer, program.heads, **given)), "a key too many"
    for name, dim, length in (("ids", "pos", lengths[1]), ("own", "q", lengths[0])):
        table = given["inputs"].get(name)
        if table is not None and length > 1:  # one entry serves all
            cut = given | {"inputs": given["inputs"] | {name: table[..., :-1]}}
            for asked in (p.mask, p.schedule):
                code = _refusal(partial(asked, *lengths, program.heads, **cut))
                assert code == "A501" or length == 2, f"{name} lacks an entry of {dim}: {code}"


def _refusal(asked: Callable[[], Any]) -> str | None:
    try:
        asked()
    except AttnDslError as error:
        if error.code not in REFUSED:
            raise
        return error.code
    return None


# ---------------------------------------------------------------------------- transforms of torch


def dense(pairs: Tensor, zeros: Tensor) -> Attention:
    """Attention by its definition, over all pairs."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        alive = (pairs.any(-1) | (zeros > 0))[..., None]
        scores = (q @ k.transpose(-1, -2) * WIDTH**-0.5).masked_fill(~pairs, -torch.inf)
        padded = zeros.double().log()[..., None].expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, padded], -1).masked_fill(~alive, 0.0)
        lse = scores.logsumexp(-1, keepdim=True)
        weights = (scores - lse).exp().masked_fill(~alive, 0.0)[..., :-1].masked_fill(~pairs, 0.0)
        return weights @ v, lse.masked_fill(~alive, -torch.inf)[..., 0]

    return attend


def loss(attend: Attention) -> Callable[..., Tensor]:
    def of(*tensors: Tensor) -> Tensor:
        out, lse = attend(*tensors)
        return (out * out.cos()).sum() + torch.where(lse.isfinite(), lse, 0.0).sin().sum()

    return of


def _stacked(x: Tensor) -> Tensor:
    return torch.stack([x, 2 * x, x - 1])


TRANSFORMS: dict[str, Callable[[Attention, Any, Any], Any]] = {
    "none": lambda f, x, t: f(*x),
    "grad": lambda f, x, t: func.grad(loss(f), (0, 1, 2))(*x),
    "jvp": func.jvp,
    "vmap": lambda f, x, t: func.vmap(f)(*map(_stacked, x)),
    "vmap of queries": lambda f, x, t: func.vmap(f, (0, None, None))(_stacked(x[0]), *x[1:]),
    "vmap of grad": lambda f, x, t: func.vmap(func.grad(loss(f), (0, 1, 2)))(*map(_stacked, x)),
    "jvp of grad": lambda f, x, t: func.jvp(func.grad(loss(f), (0, 1, 2)), x, t),
    "grad of grad": lambda f, x, t: func.grad(
        lambda *y: sum(g.square().sum() for g in func.grad(loss(f), (0, 1, 2))(*y)), (0, 1, 2)
    )(*x),
}


def check_transform(
    p: Pattern,
    given: dict[str, Any],
    pairs: np.ndarray,
    zeros: np.ndarray,
    name: str,
    backend: str,
    seed: int,
) -> None:
    """One transform of torch gives what it gives of the definition, in float64."""
    batch, heads, q_len, k_len = pairs.shape
    make = torch.Generator().manual_seed(seed)
    shapes = [(batch, heads, n, WIDTH) for n in (q_len, k_len, k_len)]
    x, t = (tuple(_normals(shapes, make)) for _ in range(2))
    expected = TRANSFORMS[name](dense(torch.from_numpy(pairs), torch.from_numpy(zeros)), x, t)
    found = TRANSFORMS[name](lambda *y: p(*y, return_lse=True, backend=backend, **given), x, t)
    said = f"{name} on {backend}"
    ours, theirs = map(torch.utils._pytree.tree_leaves, (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        # the tangent of a log-sum-exp of -inf means nothing
        torch.testing.assert_close(
            torch.where(other.isfinite(), one, other), other, rtol=1e-8, atol=1e-9, equal_nan=True,
            msg=lambda m: f"{said}: {m}",
        )  # fmt: skip


def _normals(shapes: list[tuple[int, ...]], make: torch.Generator) -> Iterator[Tensor]:
    for shape in shapes:
        yield torch.randn(shape, generator=make, dtype=torch.float64)
