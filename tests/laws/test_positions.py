"""Wherever the tokens of a call stand, it gives what the call on the tokens alone gives, laid out in order.

Random programs over all kinds of spaces and inputs; each batch element has its own lengths, rows and garbage between.
"""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attndsl
from attndsl import ir
from attndsl.testing import programs
from tests.support import expressions as ex

NO_TOKEN = float("nan")


def without_tables(expression: ex.Expression) -> ir.Node:
    """The root without tables, batch, and the number of queries, which are not those of a whole sequence."""

    def rule(node: ir.Node) -> ir.Node:
        match node:
            case ir.Load(index=(index,)):
                return ir.mod(index, ir.Const(5))
            case ir.Var() | ir.Size(name="q"):
                return ir.Const(1)
            case _:
                return node

    return ir.transform(expression.root, rule)


@dataclass
class Side:
    """Storage of one side: the rows of the tokens in order, for each batch element, and what the call is told."""

    count: int
    rows: list[np.ndarray]
    told: dict = field(default_factory=dict)


def lengths_of(draw, program, where: str) -> tuple[int, int]:
    """Lengths that such a program can have, with the same extents of all axes that cannot be inferred."""
    sizes, some = program.sizes, draw(st.integers(1, 3))
    match where:
        case "pair":
            return sizes["left.g"] * some, sizes["right.g"] * draw(st.integers(1, 3))
        case "memory":
            return some, some + sizes["meta.m"]
        case "flat":
            k_len = draw(st.integers(1, 6))
        case "grid":
            k_len = sizes["image.x"] * some
        case "joint":
            k_len = sizes["image.x"] * some + 2
        case _:
            k_len = sizes["image.x"] * some + sizes["text.i"] + sizes["tail.j"]
    return draw(st.integers(min(1, k_len), k_len)), k_len


def side(
    draw, lengths: list[int], firsts: list[int], names: tuple[str, str, str], mode: str
) -> Side:
    """Rows for so many tokens from a first position on: in one run with others around, or anywhere."""
    start, length, outright = names
    if mode == "run":
        before = [0 if first else draw(st.integers(0, 2)) for first in firsts]
        stops = [lead + n for lead, n in zip(before, lengths, strict=True)]
        count = max(stops) + draw(st.integers(0, 2))
        rows = [np.arange(lead, stop) for lead, stop in zip(before, stops, strict=True)]
        starts = [first - lead for first, lead in zip(firsts, before, strict=True)]
        told = {start: starts, length: stops}
        if len(set(starts)) == len(set(stops)) == 1 and draw(st.booleans()):
            told = {start: starts[0], length: stops[0]}
        return Side(count, rows, told)
    count = max(lengths) + draw(st.integers(0, 2))
    at = np.full((len(lengths), count), -1)
    rows = []
    for element, (n, first) in enumerate(zip(lengths, firsts, strict=True)):
        rows.append(np.array(draw(st.permutations(range(count)))[:n], dtype=int))
        at[element, rows[-1]] = np.arange(first, first + n)
    return Side(count, rows, {outright: at})


@dataclass
class Case:
    program: object
    q: Side
    k: Side
    lengths: list[tuple[int, int]]
    extents: dict
    tables: dict

    @property
    def told(self) -> dict:
        return {**self.q.told, **self.k.told}

    def tables_of(self, b: int) -> dict:
        """The inputs of the call on the tokens of one batch element."""
        found = dict(self.tables)
        rows_q, rows_k = self.q.rows[b], self.k.rows[b]
        found["own"], found["nbr"] = found["own"][rows_q], found["nbr"][:, rows_q]
        found["flag"], found["ids"] = (
            found["flag"][:, rows_k],
            found["ids"][:, : self.lengths[b][1]],
        )
        return found


@st.composite
def cases(draw, depth: int = 3) -> Case:
    program = draw(programs(depth=depth))
    where = next(
        w for w, over in OVER.items() if f"){over} " in program.text.partition("pattern main(")[2]
    )
    batch = draw(st.integers(1, 2))
    lengths = [lengths_of(draw, program, where) for _ in range(batch)]
    if draw(st.booleans()):
        lengths = [lengths[0]] * batch
    extents = {name: program.sizes[name] for name in GIVEN[where]}
    is_end = where not in ("pair", "memory") and "align start" not in program.text
    firsts = [k - q if is_end else 0 for q, k in lengths]
    modes = st.sampled_from(["run", "anywhere"])
    k = side(
        draw, [k for _, k in lengths], [0] * batch, ("k_start", "kv_len", "k_pos"), draw(modes)
    )
    q = side(draw, [q for q, _ in lengths], firsts, ("q_start", "q_len", "q_pos"), draw(modes))
    if (
        list(q.told) == ["q_start", "q_len"]
        and all(rows.tolist() == list(range(len(rows))) for rows in q.rows)
        and np.all(np.equal(q.told["q_len"], [len(rows) for rows in q.rows]))
        and draw(st.booleans())
    ):
        del q.told["q_start"]  # the last tokens by themselves, or the first
    random = np.random.default_rng(draw(st.integers(0, 99)))
    tables = program.tables | {
        "ids": random.integers(
            -1, 4, (batch, max(k for _, k in lengths) + draw(st.integers(0, 2)))
        ),
        "flag": random.random((program.heads, k.count)) < 0.5,
        "own": random.integers(-2, 6, (q.count,)),
        "nbr": random.integers(-2, 6, (batch, q.count, 2)),
        "marks": random.integers(-1, 5, (batch, program.tables["marks"].shape[1])),
    }
    return Case(program, q, k, lengths, extents, tables)


OVER = {
    "grid": " over image", "joint": " over joint", "open": " over wide", "pair": " over left -> right",
    "memory": " over tokens -> kept", "flat": "",
}  # fmt: skip
GIVEN = {  # extents that are alike in all batch elements; one axis of each space is inferred
    "flat": (), "grid": ("image.x",), "joint": ("image.x",), "open": ("image.x", "text.i", "tail.j"),
    "pair": ("left.g", "right.g"), "memory": ("meta.m",),
}  # fmt: skip


def compiled(case: Case) -> attndsl.Pattern:
    return attndsl.compile(case.program.text, layer=case.program.layer)


def given_to(p: attndsl.Pattern, tables: dict) -> dict:
    return {table.name: tables[table.name] for table in p.ir.tables}


def alone(p: attndsl.Pattern, case: Case, b: int, method: str) -> torch.Tensor:
    """The result of one batch element, in a call that has its tokens alone."""
    inputs = given_to(p, case.tables_of(b))
    counts = {"heads": case.program.heads, "batch": len(case.lengths)}
    return getattr(p, method)(*case.lengths[b], **counts, extents=case.extents, inputs=inputs)[b]


def at_positions(p: attndsl.Pattern, case: Case, method: str, **options):
    told = {"q_used" if name == "q_len" else name: value for name, value in case.told.items()}
    counts = {"heads": case.program.heads, "batch": len(case.lengths)}
    return getattr(p, method)(
        case.q.count, case.k.count, **counts, extents=case.extents, inputs=given_to(p, case.tables), **told, **options
    )  # fmt: skip


def expected(p: attndsl.Pattern, case: Case) -> np.ndarray:
    heads = case.program.heads
    want = np.zeros((len(case.lengths), heads, case.q.count, case.k.count), dtype=bool)
    for b, (rows, columns) in enumerate(zip(case.q.rows, case.k.rows, strict=True)):
        want[b][:, rows[:, None], columns] = alone(p, case, b, "mask").numpy()
    return want


def refused(p: attndsl.Pattern, case: Case) -> bool:
    """Whether one of the calls on tokens alone is an error; then the whole is one, too."""
    try:
        for b in range(len(case.lengths)):
            alone(p, case, b, "mask")
    except attndsl.AttnDslError as error:
        with pytest.raises(attndsl.AttnDslError, match=error.diagnostics[0].code):
            at_positions(p, case, "mask")
        return True
    return False


@settings(max_examples=40)
@given(cases())
def test_rows_see_what_their_tokens_see(case):
    p = compiled(case)
    if refused(p, case):
        return
    want = expected(p, case)
    assert np.array_equal(at_positions(p, case, "mask").numpy(), want)
    schedule = at_positions(p, case, "schedule", tile=(4, 4))
    for b, h in np.ndindex(want.shape[:2]):
        assert np.array_equal(schedule.cover(b, h), want[b, h])


def some_positions(length: int, last: bool = False):
    """Different positions in any order, and places without a token; with ``last`` one of them is the last."""
    subsets = st.lists(st.integers(-1, length - 1), max_size=12).map(
        lambda found: [n for i, n in enumerate(found) if n < 0 or n not in found[:i]]
    )
    return subsets.map(lambda found: [n for n in found if n != length - 1] + [length - 1] * last)


@settings(max_examples=40)
@given(ex.bools(4).map(without_tables), st.integers(1, 40), st.booleans(), st.data())
def test_tokens_between_which_others_are_missing_see_what_they_saw_among_all(
    root, length, later, data
):
    p = attndsl.compile(ir.Mask(root))
    whole = p.mask(length)[0, 0].numpy()
    rows = np.array(data.draw(some_positions(length, last=later)), dtype=int)
    columns = np.array(data.draw(some_positions(length, last=not later)), dtype=int)
    want = whole[rows[:, None], columns] & (rows[:, None] >= 0) & (columns >= 0)
    told = {"q_pos": rows[None], "k_pos": columns[None]}
    assert np.array_equal(p.mask(len(rows), len(columns), **told)[0, 0].numpy(), want)
    for layout in ("natural", "residues(3)", "auto"):
        schedule = p.schedule(len(rows), len(columns), tile=(4, 4), layout=layout, **told)
        assert np.array_equal(schedule.cover(), want)


# ---------------------------------------------------------------------------- attention


def tensors(case: Case, seed: int) -> list[torch.Tensor]:
    """Rows of q, k and v, and what comes back for q; no number where there is no token."""
    make = torch.Generator().manual_seed(seed)
    batch, heads = len(case.lengths), case.program.heads
    made = []
    for side in (case.q, case.k, case.k, case.q):
        x = torch.full((batch, heads, side.count, 4), NO_TOKEN, dtype=torch.float64)
        for b, rows in enumerate(side.rows):
            x[b][:, rows] = torch.randn(heads, len(rows), 4, generator=make, dtype=torch.float64)
        made.append(x)
    return made


def results(p: attndsl.Pattern, q, k, v, dout, **options) -> list[torch.Tensor]:
    """out, lse, dq, dk, dv."""
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    out, lse = p(*leaves, return_lse=True, **options)
    dlse = torch.where(lse.isinf() | dout[..., 0].isnan(), 0.0, lse.detach().sin())
    asked = [
        (x, dx) for x, dx in ((out, dout), (lse, dlse)) if x.requires_grad
    ]  # all but what is of nothing
    grads = [torch.zeros_like(x) for x in leaves]
    if asked:
        ends, upstream = zip(*asked, strict=True)
        grads = torch.autograd.grad(ends, leaves, upstream, materialize_grads=True)
    return [out.detach(), lse.detach(), *grads]


@settings(max_examples=25)
@given(cases(), st.integers(0, 99), st.sampled_from(["blocked", "blocked", "reference"]))
def test_attention_and_its_gradients_are_those_of_the_tokens(case, seed, backend):
    p = compiled(case)
    if refused(p, case):
        return
    given_tensors = tensors(case, seed)
    ours = results(
        p, *given_tensors, backend=backend, extents=case.extents, inputs=given_to(p, case.tables),
        **{n: x if isinstance(x, int) else torch.as_tensor(x) for n, x in case.told.items()},
    )  # fmt: skip
    sides = [case.q, case.q, case.q, case.k, case.k]
    for b in range(len(case.lengths)):
        of_q, of_k = case.q.rows[b], case.k.rows[b]
        own = [
            x[b : b + 1, :, rows].expand(len(case.lengths), -1, -1, -1)
            for x, rows in zip(given_tensors, (of_q, of_k, of_k, of_q), strict=True)
        ]
        inputs = given_to(p, case.tables_of(b))
        want = results(p, *own, backend="reference", extents=case.extents, inputs=inputs)
        for name, x, one, side in zip(
            ("out", "lse", "dq", "dk", "dv"), ours, want, sides, strict=True
        ):
            rows, nothing = side.rows[b], -torch.inf if name == "lse" else 0.0
            torch.testing.assert_close(
                x[b][:, rows],
                one[b],
                rtol=1e-9,
                atol=1e-10,
                msg=lambda m, n=name, b=b: f"{n} of {b}: {m}",
            )
            empty = np.setdiff1d(np.arange(side.count), rows)
            assert (x[b][:, empty] == nothing).all(), f"{name} of {b}"
