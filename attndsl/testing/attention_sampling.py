"""Random attentions, as text, with small tensors to run them on; all numbers in them are of moderate size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from hypothesis import strategies as st

from attndsl.testing.sampling import Draw

FORMS: Final = ("softmax", "sigmoid", "pointwise", "l1", "entmax", "stick", "columns")
_INPUTS: Final = """\
input ids: int[batch, pos]
input slope: real[head]
input sink: real[head]
input gate: real[batch, head, q, 2]
input bias: real[head, q, k]
input temper: real[q]
input key_bias: real[batch, k]
input table: real[head, 9]
input pairs: real[3, 3]
input rel: real[head, 5, d]
input row: real[batch, d]
def capped(x: real, c: real = 2.0) = c * tanh(x / c)
def near(w: int) = abs(q - k) <= w
attention plain over causal = score s
attention sunk(w: int = 3, c: real = 1.5) over 0 <= q - k < w = score capped(s, c) mass exp(sink)
"""
_PAIRS: Final = (
    "causal", "window(2)", "k <= q and near(3)", "causal and q % 2 == k % 2", "ids[q] == ids[k]", "k < 3",
    "if head == 0 then causal else near(1)", "q >= 2 and k < q", "causal_window(3)", "0 <= k",
)  # fmt: skip
_MASSES: Final = (
    "exp(sink[head])", "1.0", "exp(sink - 0.1 * q)", "if q < 2 then 0.5 else exp(sink)",
    "softplus(gate[q, 0])",
)  # fmt: skip
_COEFFICIENTS: Final = (
    "gate[q, 0]", "sigmoid(gate[q, 1])", "slope[head]", "0.5", "(q + 1) / (q + 2)", "-temper[q]",
    "(if head == 0 then 1.5 else slope)",
)  # fmt: skip
_WEIGHTS: Final = ("relu(s) * s", "tanh(s)", "sigmoid(s) * s", "exp(min(s, 2.0))", "s")
_DENOMINATED: Final = ("exp(0.5 * s)", "softplus(s)", "sigmoid(s) + 0.25")
_SMOOTH: Final = ("tanh({})", "sigmoid({})", "softplus({})", "exp(-softplus({}))", "exp2(tanh({}))")
_KINKED: Final = ("abs({})", "relu({})")


@dataclass(frozen=True)
class AttentionProgram:
    """A module whose last attention, ``main``, may be run on these lengths and tables.

    ``tables`` are int64 and float64 arrays with all dims that their declarations name. Queries have ``d`` components;
    ``heads`` are those of q, an even number. With ``is_paired`` branches take every second head of q and k.
    """

    text: str
    q_len: int
    k_len: int
    heads: int
    batch: int
    d: int
    is_paired: bool
    tables: dict[str, Any] = field(repr=False)


@st.composite
def attentions(
    draw: Draw,
    depth: int = 3,
    forms: Sequence[str] = FORMS,
    *,
    is_smooth: bool = False,
    branches: bool = True,
) -> AttentionProgram:
    """A strategy of attentions.

    Args:
        draw: Given by hypothesis.
        depth: How deep operators nest in real expressions.
        forms: The weights to choose from.
        is_smooth: Whether to leave out what has no derivative everywhere, such as `relu` and `min`.
        branches: Whether sums of branches and `++` may stand in them.
    """
    spelled = _Scores(draw, tuple(forms), is_smooth)
    q_len, k_len = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    is_paired = branches and draw(st.integers(0, 7)) == 0
    head, body = spelled.body(depth, branches, is_paired)
    align = draw(st.sampled_from(["", "", " align start"]))
    text = f"{_INPUTS}attention main(c: real = 1.5, n: int = 2){head}{align} =\n    {body}\n"
    batch, heads, d = draw(st.integers(1, 2)), draw(st.sampled_from([2, 4])), 4
    random = np.random.default_rng(draw(st.integers(0, 99)))
    dims = {
        "slope": (heads,), "sink": (heads,), "gate": (batch, heads, q_len, 2),
        "bias": (heads, q_len, k_len), "temper": (q_len,), "key_bias": (batch, k_len),
        "table": (heads, 9), "pairs": (3, 3), "rel": (heads, 5, d), "row": (batch, d),
    }  # fmt: skip
    tables: dict[str, Any] = {name: random.standard_normal(dim) for name, dim in dims.items()}
    tables["ids"] = random.integers(0, 3, (batch, k_len))
    return AttentionProgram(text, q_len, k_len, heads, batch, d, is_paired, tables)


class _Scores:
    """Parts of an attention as text."""

    def __init__(self, draw: Draw, forms: tuple[str, ...], is_smooth: bool) -> None:
        self.draw = draw
        self.forms = forms
        self.is_smooth = is_smooth

    def pick(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def body(self, depth: int, branches: bool, is_paired: bool) -> tuple[str, str]:
        """The clauses behind the name of the attention, and its body."""
        if is_paired:
            parts = [self.branch(depth, f"by pair {place}: ", "") for place in (0, 1)]
            return f" over {self.pick(*_PAIRS)}", f"{parts[0]} - {self.coefficient()} * {parts[1]}"
        if not branches or self.pick(True, False):
            return f" over {self.pick(*_PAIRS)}", self.scored(depth, self.pick(*self.forms))
        head = self.pick("", " over causal")
        terms = [self.term(depth) for _ in range(self.pick(1, 2, 2, 3))]
        return head, f" {self.pick('+', '-')} ".join(terms)

    def term(self, depth: int) -> str:
        is_joined = "softmax" in self.forms and self.pick(False, False, True)
        made = self.joined(depth) if is_joined else self.operand(depth, self.pick(*self.forms))
        return f"{self.coefficient()} * {made}" if self.pick(True, False) else made

    def joined(self, depth: int) -> str:
        parts = [self.operand(depth, "softmax") for _ in range(self.pick(2, 2, 3))]
        return f"({' ++ '.join(parts)})"

    def operand(self, depth: int, form: str) -> str:
        """A branch, or the name of an attention."""
        if form == "softmax" and self.pick(False, False, True):
            return str(self.pick("plain", "sunk", "sunk(2)", "sunk(w=n, c=0.75)"))
        return self.branch(depth, f"over {self.pick(*_PAIRS)}: ", form)

    def branch(self, depth: int, before: str, form: str) -> str:
        return f"({before}{self.scored(depth, form or 'softmax')})"

    def scored(self, depth: int, form: str) -> str:
        text = f"score {self.score(depth)}"
        if form in ("pointwise", "l1"):
            smooth = _WEIGHTS[1:3] if self.is_smooth else _WEIGHTS
            text += f" weights {form} {self.pick(*(_DENOMINATED if form == 'l1' else smooth))}"
        elif form != "softmax" or self.pick(True, False):
            text += f" weights {form}"
        if self.pick(False, False, True):
            text += f" factor {self.pick('1 / (abs(q - k) + 1)', 'exp2(-0.5 * abs(q - k))', 'table[q % 3]')}"
        if form in ("softmax", "l1") and self.pick(False, False, True):
            text += f" mass {self.pick(*_MASSES)}"
        return text

    def score(self, depth: int) -> str:
        inner = self.real(depth)
        return str(
            self.pick(
                "s", f"s + {self.moderate(inner)}", "s - slope[head] * (q - k) / 4", f"s * sigmoid({inner})",
                f"c * tanh(s / c) + {self.moderate(inner)}", self.moderate(inner), "0.25 * dot(q, k)",
                "s + dot(q, rel[clamp(q - k, 0, 4)])", "s + 0.5 * dot(row, k)",
            )
        )  # fmt: skip

    def coefficient(self) -> str:
        return str(self.pick(*_COEFFICIENTS))

    # ------------------------------------------------------------------ reals

    def moderate(self, inner: str) -> str:
        """A number below 3 in magnitude, made of any."""
        return f"capped({inner}, 3.0)"

    def real(self, depth: int) -> str:
        if depth <= 0:
            return self.atom()
        how = self.pick(self.sum, self.sum, self.product, self.quotient, self.function, self.choice)
        return str(how(depth - 1))

    def atom(self) -> str:
        return str(
            self.pick(
                "s", "s", "slope", "slope[head]", "bias[q, k]", "temper[q]", "key_bias[k]", "head",
                "table[clamp(k - q + 4, 0, 8)]", "pairs[q % 3, k % 3]", "0.5", "1e-1", "c", "n", "(q - k) / 4", "q % 3",
                "table[k - q + 2]", "k // 2",
            )
        )  # fmt: skip

    def sum(self, depth: int) -> str:
        return f"({self.real(depth)} {self.pick('+', '-')} {self.real(depth)})"

    def product(self, depth: int) -> str:
        return f"tanh({self.real(depth)}) * ({self.real(depth)})"

    def quotient(self, depth: int) -> str:
        return f"({self.real(depth)}) / {self.pick('(q + 1)', '2', '(1.5 + sigmoid(s))', '4.0')}"

    def function(self, depth: int) -> str:
        inner = self.real(depth)
        if not self.is_smooth and self.pick(True, False):
            if self.pick(True, False):
                return f"{self.pick('min', 'max')}({inner}, {self.atom()})"
            return str(self.pick(*_KINKED).format(inner))
        rooted = f"sqrt(0.5 + sigmoid({inner}))", f"log(1.5 + sigmoid({inner}))"
        return str(self.pick(*(each.format(inner) for each in _SMOOTH), *rooted, f"-({inner})"))

    def choice(self, depth: int) -> str:
        yes, no = self.real(depth), self.real(depth)
        condition = self.pick("k < 2", "q % 2 == 0", "ids[q] == ids[k]", "causal", "head == 0")
        if self.pick(True, False):
            return f"(let x = {yes}: x - 0.5 * x * {self.pick('0.5', 'sigmoid(x)')})"
        return f"(if {condition} then {yes} else {no})"
