"""Each form of weights with each thing that may stand beside it: bits of each run, second derivatives of the oracle."""

import itertools

import pytest
import torch
from torch import Tensor

import attndsl
from attndsl import ir
from attndsl.backends.triton import INTERPRETED

SCORES = {
    "a cap and a table": "3.0 * tanh(s / 3.0) + table[min(q - k, len(table.n) - 1)]",
    "a column and a slope": "s * b[head] + w[k] - 0.1 * b[head] * (q - k)",
}
FORMS = {
    ir.Form.SOFTMAX: "",
    ir.Form.POINTWISE: " weights sigmoid",
    ir.Form.L1: " weights l1 softplus(s)",
    ir.Form.ENTMAX: " weights entmax",
    ir.Form.STICK: " weights stick",
    ir.Form.COLUMNS: " weights columns",
}
FACTOR, MASS = " factor b[head] * (q - k + 1)", " mass exp(b[head])"
INPUTS = "input b: real[head] input table: real[n] input w: real[batch, head, k] "


def texts() -> dict[str, str]:
    """Attentions of the heads' numbers ``b``, the table and the column ``w``, by what they are."""
    found = {}
    for (score, said), (form, weights) in itertools.product(SCORES.items(), FORMS.items()):
        takes_mass = form in (ir.Form.SOFTMAX, ir.Form.L1)
        for factor, mass in itertools.product(("", FACTOR), ("", MASS) if takes_mass else ("",)):
            name = f"{form}, {score}{', a factor' * bool(factor)}{', mass' * bool(mass)}"
            found[name] = f"attention a over k <= q = score {said}{weights}{factor}{mass}"
    one, other = (f"score {said}" for said in SCORES.values())
    found["two sets in one softmax"] = (
        f"attention near over k <= q and q - k < 3 = {one} "
        f"attention far over k <= q - 3 = {other} attention a = near ++ far"
    )
    found["a sum of branches"] = (
        f"attention a over k <= q = b[head] * (over window(2): {one}) + (over k <= q: {other})"
    )
    return {name: INPUTS + text for name, text in found.items()}


TEXTS = texts()
FIRST = next(iter(SCORES))
# Each form with a factor under one of the scores and without under the other; all of them where there is time.
QUICK = [
    name
    for name in TEXTS
    if ("a factor, mass" not in name and (FIRST in name) != ("a factor" in name)) or "," not in name
]
EACH = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in TEXTS]


def leaves(length: int, width: int, dtype: torch.dtype) -> list[Tensor]:
    make = torch.Generator().manual_seed(4)
    shapes = [(1, 2, length, width)] * 3 + [(2,), (3,), (1, 2, length)]
    return [torch.randn(*shape, generator=make, dtype=dtype).requires_grad_() for shape in shapes]


def run(name: str, xs: list[Tensor], backend: str) -> Tensor:
    q, k, v, *rest = xs
    a = attndsl.compile(TEXTS[name], entry="a")
    named = dict(zip(("b", "table", "w"), rest, strict=True))
    inputs = {key: x for key, x in named.items() if f"{key}[" in TEXTS[name].removeprefix(INPUTS)}
    return a(q, k, v, inputs=inputs, backend=backend)


def results(name: str, xs: list[Tensor], backend: str) -> list[Tensor]:
    """The output and the gradients of whatever has one."""
    out = run(name, xs, backend)
    grads = torch.autograd.grad(out.sin().sum(), xs, allow_unused=True)
    return [out, *(x for x in grads if x is not None)]


@pytest.mark.parametrize("backwards", [False, True])
def test_forms_over_one_pattern_are_told_apart_one_after_the_other(backwards: bool):
    q, k, v, *_ = leaves(10, 8, torch.float64)
    for weights in sorted(FORMS.values(), reverse=backwards):
        a = attndsl.compile(f"attention a over k <= q = score 0.5 * s{weights}")
        torch.testing.assert_close(a(q, k, v), a(q, k, v, backend="reference"))


def test_each_form_is_among_them():
    assert set(FORMS) == set(ir.Form)


def assert_equal_bits(name: str, backend: str, length: int) -> None:
    at_pairs = backend == "triton" and "table[" in TEXTS[name]
    if "stick" in name and (at_pairs or "a factor" in name):
        pytest.skip("there are no kernels for it")
    xs = leaves(length, 8, torch.float32)
    first = results(name, xs, backend)
    results(name, [x.detach().cos().requires_grad_() for x in xs], backend)  # another call between
    for one, other in zip(first, results(name, xs, backend), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", EACH)
def test_outputs_and_gradients_have_the_same_bits_in_each_run(name: str):
    assert_equal_bits(name, "blocked", 70)


@pytest.mark.slow
@pytest.mark.skipif(not INTERPRETED, reason="these run in Triton's interpreter")
@pytest.mark.parametrize("name", TEXTS)
def test_kernels_give_outputs_and_gradients_of_the_same_bits_in_each_run(name: str):
    assert_equal_bits(name, "triton", 70)


@pytest.mark.parametrize("name", EACH)
def test_second_derivatives_of_the_oracle_are_right(name: str):
    xs = leaves(3, 2, torch.float64)
    used = [x for x, grad in zip(xs, grads_of(name, xs), strict=True) if grad is not None]

    def out(*given: Tensor) -> Tensor:
        mine = iter(given)
        return run(name, [next(mine) if any(x is y for y in used) else x for x in xs], "reference")

    assert torch.autograd.gradgradcheck(out, used, fast_mode=True)


def grads_of(name: str, xs: list[Tensor]) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(run(name, xs, "reference").sum(), xs, allow_unused=True)
