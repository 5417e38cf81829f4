"""A call on packed sequences gives, sequence by sequence, what the call on that sequence alone gives."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attndsl
from attndsl.testing import programs
from tests.laws.test_positions import GIVEN, OVER, lengths_of


@dataclass
class Case:
    program: object
    lengths: list[tuple[int, int]]
    extents: dict
    tables: dict  # as the call is given them
    alone: list[dict]  # of each sequence

    @property
    def bounds(self) -> list[list[int]]:
        return [[0, *np.cumsum(side).tolist()] for side in zip(*self.lengths, strict=True)]


def ragged(draw, arrays, axis: int, longest: int, room: int):
    """Arrays of sequences, one behind the other, or each padded."""
    if draw(st.booleans()):
        return np.concatenate(arrays, axis)
    padded = []
    for array in arrays:
        widths = [(0, 0)] * array.ndim
        widths[axis] = (0, longest + room - array.shape[axis])
        padded.append(np.pad(array, widths, constant_values=3))
    return np.stack(padded)


@st.composite
def cases(draw, depth: int = 3) -> Case:
    program = draw(programs(depth=depth))
    where = next(
        w for w, over in OVER.items() if f"){over} " in program.text.partition("pattern main(")[2]
    )
    kinds = [lengths_of(draw, program, where) for _ in range(draw(st.integers(1, 3)))]
    if where == "flat":
        kinds += [(0, draw(st.integers(0, 3))), (draw(st.integers(0, 3)), 0)][
            : draw(st.integers(0, 2))
        ]
    lengths = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=5))
    longest, longest_k = (max(side) for side in zip(*lengths, strict=True))
    random, room = np.random.default_rng(draw(st.integers(0, 99))), draw(st.integers(0, 2))
    slots = program.tables["marks"].shape[1]
    ids = [random.integers(-1, 4, k) for _, k in lengths]
    nbr = [random.integers(-2, 6, (q, 2)) for q, _ in lengths]
    marks = random.integers(-1, 5, (len(lengths), slots))
    flag, own = random.random((program.heads, longest_k)) < 0.5, random.integers(-2, 6, longest)
    shared = {name: program.tables[name] for name in ("reach", "table", "some")}
    tables = shared | {"flag": flag, "own": own, "marks": marks}
    tables["ids"] = ragged(draw, ids, 0, longest_k, room)
    tables["nbr"] = ragged(draw, nbr, 0, longest, room)
    each = [
        shared | {"flag": flag[:, :k], "own": own[:q]}
        | {"marks": marks[s : s + 1], "ids": ids[s][None], "nbr": nbr[s][None]}
        for s, (q, k) in enumerate(lengths)
    ]  # fmt: skip
    return Case(
        program, lengths, {name: program.sizes[name] for name in GIVEN[where]}, tables, each
    )


def results(call, q, k, v, dout, dlse) -> list[torch.Tensor]:
    """out, lse, dq, dk, dv."""
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    out, lse = call(*leaves)
    dlse = dlse.masked_fill(lse.isinf(), 0.0)
    asked = [(x, dx) for x, dx in ((out, dout), (lse, dlse)) if x.requires_grad]  # not: of nothing
    grads = [torch.zeros_like(x) for x in leaves]
    if asked:
        ends, upstream = zip(*asked, strict=True)
        grads = torch.autograd.grad(ends, leaves, upstream, materialize_grads=True)
    return [out.detach(), lse.detach(), *grads]


def split(x: torch.Tensor, bounds: list[int], s: int) -> torch.Tensor:
    return x[bounds[s] : bounds[s + 1]]


@settings(max_examples=40)
@given(cases(), st.integers(0, 99), st.sampled_from(["blocked", "blocked", "reference"]))
def test_packed_sequences_give_what_each_gives_alone(case, seed, backend):
    p = attndsl.compile(case.program.text, layer=case.program.layer)
    names = [table.name for table in p.ir.tables]
    make, heads = torch.Generator().manual_seed(seed), case.program.heads
    of_q, of_k = case.bounds
    q, k, v = (
        torch.randn(n, heads, 4, generator=make, dtype=torch.float64)
        for n in (of_q[-1], of_k[-1], of_k[-1])
    )
    dout, dlse = torch.randn_like(q), torch.randn(of_q[-1], heads, dtype=torch.float64)
    options = {"extents": case.extents, "return_lse": True}

    def packed(*qkv):
        inputs = {name: case.tables[name] for name in names}
        return attndsl.varlen(p)(*qkv, of_q, of_k, inputs=inputs, backend=backend, **options)

    def alone(s):
        def call(*qkv):
            # one of as many batch elements, as the pattern may ask which one it is
            qkv = [x.transpose(0, 1).expand(len(case.lengths), -1, -1, -1) for x in qkv]
            inputs = {name: case.alone[s][name] for name in names}
            made = p(*qkv, inputs=inputs, backend="reference", **options)
            return [x[s].transpose(0, 1) for x in made]

        ends = (q, of_q), (k, of_k), (v, of_k), (dout, of_q), (dlse, of_q)
        return results(call, *(split(x, bounds, s) for x, bounds in ends))

    try:
        wanted = [alone(s) for s in range(len(case.lengths))]
    except attndsl.AttnDslError as error:
        with pytest.raises(attndsl.AttnDslError, match=error.diagnostics[0].code):
            packed(q, k, v)
        return
    ours = results(packed, q, k, v, dout, dlse)
    sides = of_q, of_q, of_q, of_k, of_k
    for s, want in enumerate(wanted):
        for name, x, one, bounds in zip(
            ("out", "lse", "dq", "dk", "dv"), ours, want, sides, strict=True
        ):
            torch.testing.assert_close(
                split(x, bounds, s), one, rtol=1e-9, atol=1e-10, msg=lambda m, n=name, s=s: f"{n} of {s}: {m}"
            )  # fmt: skip
