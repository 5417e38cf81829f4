"""``implies`` and ``equivalent`` prove what is so, refute what is not, and never guess."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attndsl
from attndsl import Pattern, equivalent, implies, ir
from attndsl.source import AttnDslError
from attndsl.verification import Status, dense
from tests.support import expressions as ex

GOLDEN = Path(__file__).parents[2] / "golden" / "errors" / "A4" / "not_comparable.err"


def compiled(source: str | tuple[str, dict[str, int]]) -> Pattern:
    name, values = (source, {}) if isinstance(source, str) else source
    return attndsl.compile(
        name if name.isidentifier() or "\n" in name else f"pattern p = {name}", **values
    )


DOC = "input doc: int[batch, pos]\n"
PROVED = [
    ("0 <= q - k < 4", "causal and q - k < 9"),
    ("documents_causal", "documents"),
    (("causal_window", {"w": 8}), ("streaming", {"w": 8})),
    (("dilated", {"left": 3, "d": 2}), ("window", {"left": 6})),
    (("axial2d", {"axis": 0}), "cross2d"),
    (("swin", {"m": 3}), ("box2d", {"sy": 5})),
    (("block", {"b": 4}), ("block", {"b": 8})),
    (("block", {"b": 4}), ("window", {"left": 3})),
    ("if head < 2 then causal and window(3) else window(3)", "window(3)"),
    ("nothing", "causal"),
    ("causal", "full"),
]
EQUIVALENT = [
    ("window(3)", "abs(q - k) <= 3"),
    ("causal and window(3)", "0 <= q - k < 4"),
    ("longformer(4, 0)", "window(4)"),
    (f"{DOC}pattern p = documents and causal", "documents_causal"),
    ("q % 4 == k % 4", "(q - k) % 4 == 0"),
    ("q % 2 == 0 or q % 2 == 1", "full"),
    ("(q * 7 + k) % 5 == 2", "(2 * q + k) % 5 == 2"),
    (
        "if head < heads // 2 then causal else window(3)",
        "if head >= heads // 2 then window(3) else causal",
    ),
    ("q // 4 == k // 4 and causal", "q // 4 * 4 <= k <= q"),
]
REFUTED = [
    ("q - k < 9 and causal", "0 <= q - k < 4", 5),
    ("documents", "documents_causal", 2),
    (("dilated", {"left": 3, "d": 2}), ("window", {"left": 5}), 7),
    (("swin", {"m": 4}), ("box2d", {"sy": 6}), 4),
    ("q < 700", "q < 699 or q > 699", 700),
    (("wrapped_window", {"left": 2}), ("window", {"left": 2}), 4),
    ("if head == 3 then causal else k < q", "k < q", 1),
    ("pattern p align start = k <= q\n", "k <= q and q < 1000", 1001),
]


@pytest.mark.parametrize(("narrow", "wide"), PROVED, ids=str)
def test_what_implies_is_proved(narrow, wide):
    verdict = implies(compiled(narrow), compiled(wide))
    assert verdict, str(verdict)
    assert str(verdict).startswith("proved: ")


@pytest.mark.parametrize(("one", "other"), EQUIVALENT, ids=str)
def test_what_is_equal_is_proved(one, other):
    assert equivalent(compiled(one), compiled(other))
    assert equivalent(compiled(other), compiled(one))


@pytest.mark.parametrize(("one", "other", "length"), REFUTED, ids=str)
def test_what_differs_is_refuted_by_a_call_that_is_as_short_as_can_be(one, other, length):
    p, r = compiled(one), compiled(other)
    verdict = implies(p, r, seconds=10)
    assert verdict.status is Status.REFUTED
    assert not verdict
    found = verdict.counter_example
    place = found.batch, found.head, found.query, found.key
    assert found.is_in_first
    assert dense(p, found.case)[place]
    call = found.case
    others = {name: call.inputs[name] for name in (t.name for t in r.ir.tables)}
    extents = call.extents if r.ir.keys.segments else None
    assert not r.mask(
        call.q_len, call.k_len, call.heads, batch=call.batch, extents=extents, **others
    )[place]
    assert call.k_len == length
    assert f"query {found.query}, key {found.key}" in str(verdict)


def test_what_cannot_be_decided_says_so_and_is_neither_true_nor_false():
    p, r = (
        compiled("(q * q * q + k) % 7 < 3"),
        compiled("(q * q * q + k) % 7 < 3 or q * k == 1000003"),
    )
    verdict = implies(r, p, seconds=1.0)
    assert verdict.status is Status.UNDECIDED
    assert verdict.checked > 3
    assert f"up to {verdict.checked} tokens" in str(verdict)
    with pytest.raises(ValueError, match="not decided"):
        bool(verdict)


def test_patterns_that_no_call_fits_are_not_compared(golden):
    shown = []
    for one, other in (
        ("latent_read", "cross2d"),
        ("documents", "input doc: bool[pos]\npattern flags = doc[k]\n"),
    ):
        with pytest.raises(AttnDslError) as caught:
            equivalent(compiled(one), compiled(other))
        shown.append(f"{caught.value}\n")
    golden(GOLDEN, "\n".join(shown))


def test_layers_are_what_each_was_compiled_for():
    text = "pattern p = if layer % 2 == 0 then causal else window(2)"
    first, second, third = (attndsl.compile(text, layer=layer) for layer in range(3))
    assert equivalent(first, third)
    assert not equivalent(first, second)
    assert equivalent(second, compiled("window(2)"))


def test_zero_keys_tell_patterns_apart():
    padded = attndsl.compile("padded_window", left=2)
    shown = "pattern p = window(2) zeros max(0, 2 - q) + max(0, q + 3 - len(k))"
    assert equivalent(padded, attndsl.compile("pattern p = padded_window(2)"))
    assert equivalent(padded, attndsl.compile(shown), seconds=1).status is Status.UNDECIDED
    assert implies(padded, compiled("window(2)"))
    verdict = equivalent(padded, compiled("window(2)"))
    assert verdict.status is Status.REFUTED
    assert verdict.counter_example.key is None
    assert "1 queries, 1 keys: the first has more zero keys" in str(verdict)
    layered = "pattern p = causal zeros layer % 2"
    first, second, third = (attndsl.compile(layered, layer=layer) for layer in range(3))
    assert equivalent(first, third)
    assert not equivalent(first, second)


CALLS = [(n, n) for n in (1, 2, 5, 11)] + [(3, 9)]


@settings(max_examples=60)
@given(ex.relations(), ex.bools(3), st.sampled_from(["and", "or", "none", "same"]))
def test_verdicts_on_random_relations_are_true(one, other, how):
    first, second = one.root, other.root
    joined = {
        "and": (ir.conj(first, second), first),
        "or": (second, ir.disj(first, second)),
        "none": (first, second),
        "same": (ir.disj(ir.conj(first, second), ir.conj(first, ir.negate(second))), first),
    }[how]
    masks = [ex.mask(root) for root in joined]
    verdict = implies(*(attndsl.compile(mask) for mask in masks), seconds=0.2)
    if verdict.status is Status.PROVED:
        for q_len, k_len in CALLS:
            narrow, wide = (ex.dense(mask, q_len, k_len, heads=3) for mask in masks)
            assert not (narrow & ~wide).any()
    if verdict.status is Status.REFUTED:
        found = verdict.counter_example
        case = found.case
        sizes = {"q": case.q_len, "k": case.k_len}
        given_tables = {name: np.asarray(value) for name, value in case.inputs.items()}
        narrow, wide = (
            ir.meaning(
                m,
                case.q_len,
                case.k_len,
                sizes,
                given_tables,
                case.batch,
                case.heads,
            )
            for m in masks
        )
        assert (narrow & ~wide)[found.batch, found.head, found.query, found.key]
    if how != "none":
        assert verdict.status is not Status.REFUTED
