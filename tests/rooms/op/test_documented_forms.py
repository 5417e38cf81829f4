"""Every form of docs/scores.md, the line as it stands there: dtypes, gradients, grouped heads, and ways to call it."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import attndsl

PAGE = Path(__file__).parents[3] / "docs" / "scores.md"
SECTION = (
    PAGE.read_text(encoding="utf-8").partition("## A line for each form")[2].partition("\n## ")[0]
)
FORMS = dict(re.findall(r"^\| ([^|]+) \| `([^`]+)` \|$", SECTION, re.MULTILINE))
BATCH, HEADS, KV_HEADS, WIDTH = 2, 4, 2, 8
GRIDS = {"image": {"y": 3, "x": 4}, "video": {"t": 2, "y": 3, "x": 2}}


class Given(NamedTuple):
    """A call: q, k, v, inputs and keys from elsewhere, in float64."""

    qkv: list[Tensor]
    inputs: dict[str, Tensor]
    keys: dict[str, tuple[Tensor, Tensor]]
    extents: dict[str, int] | None

    @property
    def leaves(self) -> list[Tensor]:
        return [*self.qkv, *self.inputs.values(), *(x for pair in self.keys.values() for x in pair)]

    def to(self, dtype: torch.dtype) -> "Given":
        """The same numbers, rounded; real inputs are never narrower than float32."""
        wide = torch.promote_types(dtype, torch.float32)
        return Given(
            [x.to(dtype).requires_grad_() for x in self.qkv],
            {name: x.to(wide).requires_grad_() for name, x in self.inputs.items()},
            {
                n: (k.to(dtype).requires_grad_(), v.to(dtype).requires_grad_())
                for n, (k, v) in self.keys.items()
            },
            self.extents,
        )


def given(name: str, q_len: int, k_len: int) -> tuple[attndsl.Attention, Given]:
    text = FORMS[name]
    a = attndsl.compile(text)
    draw = torch.Generator().manual_seed(len(text))

    def normal(
        *shape: int,
    ) -> Tensor:  # numbers that bfloat16 holds: rounding them is no error of a call
        return torch.randn(*shape, generator=draw).bfloat16().double()

    extents = next((sizes for grid, sizes in GRIDS.items() if f"grid {grid}(" in text), None)
    if extents is not None:
        q_len = k_len = torch.Size(extents.values()).numel()
    halves = 2 if "by pair" in text else 1
    sizes = {
        "batch": BATCH,
        "head": HEADS // halves,
        "q": q_len,
        "k": k_len,
        "pos": k_len,
        "d": WIDTH,
    }
    sizes |= {"n": 5, "buckets": 32, **(extents or {})}
    qkv = [
        normal(BATCH, HEADS, q_len, WIDTH),
        normal(BATCH, KV_HEADS, k_len, WIDTH),
        normal(BATCH, KV_HEADS // halves, k_len, 6),
    ]
    inputs = {
        each.name: normal(*(sizes.get(dim, dim) for dim in each.dims))
        for each in a.inputs  # type: ignore[call-overload]
    }
    keys = {
        n: (normal(BATCH, KV_HEADS, 7, WIDTH), normal(BATCH, KV_HEADS, 7, 6))
        for n in a.ir.key_inputs
    }
    return a, Given(qkv, inputs, keys, extents)


def results(a: attndsl.Attention, call: Given, backend: str) -> list[Tensor]:
    """The output and all gradients."""
    out = a(*call.qkv, inputs=call.inputs, extents=call.extents, backend=backend, **call.keys)
    gain = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    grads = torch.autograd.grad((out * gain).sum(), call.leaves, allow_unused=True)
    return [out, *(torch.zeros(()) if x is None else x for x in grads)]


def test_there_is_a_line_for_each_form():
    assert len(FORMS) == 27
    words = {w for text in FORMS.values() for w in re.findall(r"weights (\w+)", text)}
    assert words == {"sigmoid", "pointwise", "l1", "entmax", "stick", "columns"}


@pytest.mark.parametrize("name", FORMS)
def test_a_line_computes_what_the_oracle_does_in_each_dtype(name: str):
    a, call = given(name, 14, 11)  # of the queries, three see nothing
    truth = results(a, call.to(torch.float64), "reference")
    for mine, right in zip(results(a, call.to(torch.float64), "auto"), truth, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-8, atol=1e-9)
    narrow = call.to(torch.bfloat16)
    pairs = zip(truth, results(a, narrow, "reference"), results(a, narrow, "auto"), strict=True)
    for right, oracle, mine in pairs:
        far, near = ((x.double() - right).abs().max().item() for x in (mine, oracle))
        assert far <= 2 * near + 2**-14 * right.abs().max().item()


@pytest.mark.parametrize(
    "name", [n for n in FORMS if "grid " not in FORMS[n] and "memory" not in FORMS[n]]
)
def test_a_line_may_be_bound_placed_and_packed(name: str):
    a, call = given(name, 10, 10)
    (q, k, v), inputs = call.qkv, call.inputs
    wanted = a(q, k, v, inputs=inputs)
    bound = a.bind(10, 10, heads=HEADS, batch=BATCH)
    torch.testing.assert_close(bound(q, k, v, **inputs), wanted)
    lengths = (10, 6)
    shorter = [cut(a, call, b, n) for b, n in enumerate(lengths)]
    parts = [a(*qkv, inputs=rest) for qkv, rest in shorter]
    placed = a(q, k, v, inputs=inputs, q_len=torch.tensor(lengths), kv_len=torch.tensor(lengths))
    torch.testing.assert_close(placed[0], wanted[0])
    torch.testing.assert_close(placed[1, :, :6], parts[1][0])
    if (
        all("batch" in t.dims or not {"q", "k", "pos"} & set(t.dims) for t in a.inputs)
        and "bias" not in inputs
    ):
        one_behind_the_other = [
            torch.cat([qkv[i][0] for qkv, _ in shorter], 1).transpose(0, 1) for i in range(3)
        ]
        packed = {t.name: joined(t.dims, [rest[t.name] for _, rest in shorter]) for t in a.inputs}
        found = attndsl.varlen(a)(*one_behind_the_other, [0, 10, 16], **packed)
        torch.testing.assert_close(found, torch.cat([out[0] for out in parts], 1).transpose(0, 1))


def cut(
    a: attndsl.Attention, call: Given, b: int, n: int
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The first tokens of one batch element."""
    rest: dict[str, Any] = {}
    for table in a.inputs:
        x = call.inputs[table.name]
        x = x[b : b + 1] if "batch" in table.dims else x
        for axis, dim in enumerate(table.dims):
            x = x.narrow(axis, 0, n) if dim in ("q", "k", "pos") else x
        rest[table.name] = x
    return [x[b : b + 1, :, :n] for x in call.qkv], rest


def joined(dims: tuple[str | int, ...], parts: list[Tensor]) -> Tensor:
    """An input of packed sequences: tokens one behind the other, or an entry for each sequence."""
    axis = next((i for i, dim in enumerate(dims) if dim in ("q", "k", "pos")), None)
    if axis is None:
        return torch.cat(parts) if "batch" in dims else parts[0]
    return torch.cat([x[0] for x in parts], axis - 1)
