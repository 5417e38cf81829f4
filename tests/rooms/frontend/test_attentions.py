"""Attentions as text: what they are of, and that what is written is what is meant."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings

from attndsl import frontend, ir, sources
from attndsl import frontend as fe
from attndsl import syntax as syn
from attndsl.source import AttnDslError
from attndsl.testing import AttentionProgram, attentions

reals = ir.reals
INPUTS = """
input slope: real[head]
input sink: real[head]
input bias: real[head, q, k]
input rel: real[head, n, d]
input gate: real[batch, head, q, 2]
input marks: int[pos]
"""


def read(text: str, name: str | None = None, **values: object) -> ir.Attention:
    return frontend.elaborate_attention(syn.parse(INPUTS + text), name, values)


def only(text: str, **values: object) -> ir.Scored:
    ((term,),) = [read(text, **values).terms]
    (part,) = term.parts
    return part


def worth(node: ir.Node, known: Mapping[str, float]) -> float:  # noqa: C901
    """The value of an expression of q, k and s, by this file's own arithmetic."""
    if isinstance(node, ir.Le):
        return worth(node.item, known) <= node.bound
    items = [worth(part, known) for part in node.parts]
    match node:
        case ir.Const(value=value) | reals.Number(value=value):
            return value
        case ir.Pos(side=side):
            return known[side.value]
        case reals.Score():
            return known["s"]
        case ir.Var(name=name):
            return known[name]
        case reals.FromInt():
            return items[0]
        case ir.Sum(terms=terms, constant=constant):
            return constant + sum(factor * worth(term, known) for term, factor in terms)
        case reals.Plus():
            return math.fsum(items)
        case reals.Times():
            return items[0] * items[1]
        case reals.Over():
            return items[0] / items[1]
        case ir.FloorDiv():
            return items[0] // items[1]
        case ir.Mul():
            return items[0] * items[1]
        case reals.Least():
            return min(items)
        case reals.Greatest():
            return max(items)
        case reals.Choose():
            return items[1] if items[0] else items[2]
        case reals.Apply(function=function):
            return {
                "exp": math.exp,
                "exp2": lambda x: 2**x,
                "log": math.log,
                "tanh": math.tanh,
                "sqrt": math.sqrt,
                "abs": abs,
                "relu": lambda x: x if x > 0 else 0.0,
                "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
                "softplus": lambda x: math.log(1 + math.exp(x)),
            }[function](items[0])
    raise AssertionError(node)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("s - 0.5 * (q - k)", 3.0 - 0.5 * 5),
        ("50.0 * tanh(s / 50.0)", 50 * math.tanh(3 / 50)),
        ("(q + 1) / (k + 2)", 8 / 4),
        ("q // 2 + 1 / 2", 3.5),
        ("-s * 2 - -1.5", -4.5),
        ("1e-3 * s + 2.5E2", 250.003),
        ("min(s, 2, 2.5) + max(q, 1.5) + abs(k - 9.5)", 2 + 7 + 7.5),
        ("clamp(s, 0, 1.25)", 1.25),
        ("if q < 3 then 1 else 2.5", 2.5),
        ("let x = s * s, n = 3: x - n", 6.0),
        ("exp(1) + exp2(3) + log(2.0) + sqrt(q + 2)", math.e + 8 + math.log(2) + 3),
        ("sigmoid(s) + softplus(-s) + relu(s - 9)", 0.9525741268224331 + 0.04858735157374206),
        ("capped(s, 2)", 2 * math.tanh(1.5)),
        ("s / 4 * 3 / 2", 3 / 4 * 3 / 2),
        ("s - 1 + 2 * q - k", 3 - 1 + 14 - 2),
    ],
)
def test_real_arithmetic_is_that_of_the_text(text: str, value: float):
    head = "def capped(x: real, c: real) = c * tanh(x / c)\n"
    part = only(f"{head}attention a over causal = score {text}")
    assert worth(part.score, {"s": 3.0, "q": 7, "k": 2}) == pytest.approx(value, rel=1e-15)


def test_the_mask_is_that_of_the_pattern_alone():
    part = only("attention a(w: int = 3) over causal_window(w) = score s", w=5)
    assert part.mask == sources.read_mask("causal_window", values={"w": 5})
    assert part.mask.digest == sources.read_mask("causal_window", values={"w": 5}).digest


def test_branches_keep_to_the_pairs_of_the_whole():
    text = "attention a over causal = (over window(2): score s) + 2.0 * (over k < 4: score s)"
    first, second = read(text).terms
    assert first.parts[0].mask.root is sources.read_mask("causal and window(2)").root
    assert second.parts[0].mask.root is sources.read_mask("causal and k < 4").root
    assert second.coefficient is reals.Number(2.0)


def test_an_attention_lives_where_its_patterns_live():
    grid = "pattern box over image = abs(q.y - k.y) <= 1\n"
    assert only(f"{grid}attention a over box = score s").mask.queries.name == "image"
    inferred = only(f"{grid}attention a over box and k < 9 = score s")
    said = only("attention a over image = (over abs(q.y - k.y) <= 1 and k < 9: score s)")
    assert inferred.mask == said.mask
    assert only("attention a over image = score s").mask.root is ir.TRUE


def test_an_attention_is_aligned_as_its_pattern_says():
    text = "pattern p align start = k <= q\nattention a over p = score s"
    assert only(text).mask.align is ir.Align.START
    assert only("attention a over causal align start = score s").mask.align is ir.Align.START
    with pytest.raises(AttnDslError, match="A212"):
        read("pattern p align start = k <= q\nattention a over causal = (over p: score s)")


def test_zero_keys_of_a_pattern_are_kept():
    part = only("pattern p = causal zeros 2\nattention a over p = score s")
    assert part.mask.zeros is ir.Const(2)
    with pytest.raises(AttnDslError, match="A215"):
        read("pattern p = causal zeros 2\nattention a over p = (over k < 4: score s)")


@pytest.mark.parametrize(
    ("clause", "form", "weight"),
    [
        ("", ir.Form.SOFTMAX, None),
        ("weights softmax", ir.Form.SOFTMAX, None),
        ("weights sigmoid", ir.Form.POINTWISE, 1 / (1 + math.exp(-3))),
        ("weights pointwise relu(s) * s", ir.Form.POINTWISE, 9.0),
        ("weights l1 exp(-s)", ir.Form.L1, math.exp(-3)),
        ("weights entmax", ir.Form.ENTMAX, None),
        ("weights stick", ir.Form.STICK, None),
        ("weights columns", ir.Form.COLUMNS, None),
    ],
)
def test_weights_have_their_form(clause: str, form: ir.Form, weight: float | None):
    part = only(f"attention a over causal = score s + 1 {clause} factor 1 / (q + 1)")
    assert part.form is form
    assert worth(part.factor, {"q": 3}) == 0.25
    found = None if part.weight is None else worth(part.weight, {"s": 3.0})
    assert found == (None if weight is None else pytest.approx(weight))


def test_masses_of_what_is_joined_add_up():
    text = """
    attention near over causal_window(4) = score s mass exp(1.0)
    attention far over k < 4 = score s mass 2.0
    attention both = near ++ far ++ (over k == 9: score s)
    """
    (term,) = read(text).terms
    assert len(term.parts) == 3
    assert worth(term.log_mass, {}) == pytest.approx(math.log(math.e + 2))
    (sink,) = read("attention a over causal = score s mass exp(sink[head])").terms
    assert sink.log_mass is ir.Load("sink", ir.Sort.REAL, (), ir.Deps.HEAD)
    (none,) = read("attention a over causal = score s mass 0.0").terms
    assert none.log_mass is None


def test_coefficients_are_multiplied_through_uses():
    text = """
    attention near over causal_window(4) = score s
    attention pair over causal = 3.0 * near - (score s) / 4
    attention all_of = -2.0 * (pair + near) / 2
    """
    terms = read(text).terms
    assert [worth(term.coefficient, {}) for term in terms] == [-3.0, 0.25, -1.0]


def test_let_names_coefficients_of_a_sum():
    text = (
        "attention a over causal = let g = q / 8: g * (score s) + (1 - g) * (over k < 4: score s)"
    )
    first, second = read(text).terms
    assert [worth(term.coefficient, {"q": 2}) for term in (first, second)] == [0.25, 0.75]


def test_a_pair_is_two_members_and_keys_have_names():
    text = "attention a over causal = (by pair 0: score s) - slope * (by pair 1: score s by memory)"
    first, second = read(text).terms
    assert (first.parts[0].member, second.parts[0].member) == ((0, 2), (1, 2))
    assert (first.parts[0].keys, second.parts[0].keys) == ("", "memory")
    assert read(text).key_inputs == ("memory",)


def test_inputs_are_read_with_their_own_head_and_at_their_rows():
    part = only("attention a over causal = score s + bias[q, k] + slope + slope[head]")
    loads = reals.real_reads(part.score)
    assert {load.table for load in loads} == {"bias", "slope"}
    (read_bias,) = (load for load in loads if load.table == "bias")
    assert read_bias.index[0] is ir.sub(ir.Pos(ir.Side.QUERY), ir.sub(ir.Size("k"), ir.Size("q")))
    assert read_bias.index[1] is ir.Pos(ir.Side.KEY)
    tables = read("attention a over causal = score s + bias[q, k] mass exp(sink)").tables
    assert [table.name for table in tables] == ["bias", "sink"]
    assert all(table.kind is ir.Sort.REAL for table in tables)


def test_vectors_are_own_ones_and_rows():
    part = only("attention a over causal = score dot(q, k) + dot(rel[head, 3], q)")
    own = {side: reals.Own(side) for side in ir.Side}
    row = reals.Row("rel", (ir.Const(3),), ir.Deps.HEAD)
    wanted = reals.plus(reals.dot(*own.values()), reals.dot(own[ir.Side.QUERY], row))
    assert part.score is wanted


def test_a_real_parameter_takes_ints_and_floats():
    text = "attention a(c: real = 50) over causal = score c * tanh(s / c)"
    assert read(text) == read(text, c=50.0) == read(text, c=50)
    assert read(text) != read(text, c=30.0)
    for wrong in (True, "4", float("nan"), [1.0]):
        with pytest.raises(AttnDslError, match="A211"):
            read(text, c=wrong)
    with pytest.raises(AttnDslError, match="A302"):
        read(text, c=0.0)


def test_constraints_hold_for_attentions():
    text = "attention a(w: int = 4) over causal_window(w) where w >= 2 = score s"
    read(text)
    with pytest.raises(AttnDslError, match="A301"):
        read(text, w=1)
    asked = "attention a over causal where marks[0] == 1 = (score s) + (over k < 4: score s)"
    first, second = read(asked).masks
    assert [each.text for each in first.conditions] == ["marks[0] == 1"]
    assert [table.name for table in first.tables] == ["marks"]
    assert not second.tables


def test_the_words_of_an_attention_are_names_elsewhere():
    text = """
    input weights: int[pos]
    pattern p(score: int = 1, mass: int = 2, by: int = 3, factor: int = 4) =
        (score + by) * mass - factor == weights[q] - k
    attention a(factor: real = 2.0, mass: real = 1.0) over p = score factor * s mass mass factor 1.0
    """
    assert only(text).score is reals.times(reals.Number(2.0), reals.SCORE)


def test_doubling_attentions_are_refused_at_once():
    names = [f"attention a{i} = a{i - 1} + a{i - 1}" for i in range(1, 60)]
    with pytest.raises(AttnDslError, match="A304"):
        read("\n".join(["attention a0 over causal = score s", *names]))


def test_a_name_says_whether_it_is_a_pattern_or_an_attention():
    module = syn.parse("attention a over p = score s\npattern p = causal")
    assert frontend.kind_of(module) == frontend.kind_of(module, "causal") == "pattern"
    assert frontend.kind_of(module, "a") == "attention"
    assert sources.is_attention("attention a over causal = score s")
    assert not sources.is_attention("causal")
    assert sources.read_attention("attention a over causal = score s").name == "a"


def test_digests_tell_attentions_apart_and_names_do_not():
    texts = [
        "score s",
        "score s mass 1.0",
        "score 2.0 * s",
        "score s weights sigmoid",
        "score s factor 2.0",
        "score s by memory",
        "score s by pair 1",
        "2.0 * (score s)",
        "(over k < 4: score s)",
    ]
    found = {read(f"attention a over causal = {text}").digest for text in texts}
    assert len(found) == len(texts)
    one = read("attention a over causal = score s")
    other = read("## Some text.\nattention b over k <= q = (score s)")
    assert one == other
    assert one.digest == other.digest
    assert (other.name, other.doc) == ("b", "Some text.")
    assert dataclasses.replace(one, name="x").digest == one.digest


@given(attentions())
@settings(max_examples=40)
def test_the_canonical_layout_of_an_attention_means_the_same(program: AttentionProgram):
    module = syn.parse(program.text)
    text = syn.format(module)
    assert syn.parse(text) == module
    assert frontend.elaborate_attention(syn.parse(text)) == frontend.elaborate_attention(module)


# ---------------------------------------------------------------------- the Python form


SLOPE = fe.table("slope", "real", "head")
SINK = fe.table("sink", "real", "head")
BIAS = fe.table("bias", "real", "head", "q", "k")
REL = fe.table("rel", "real", "head", "n", "d")
GATE = fe.table("gate", "real", "batch", "head", "q", 2)
CAUSAL = fe.to_mask(fe.k <= fe.q)
FEW = fe.to_mask((fe.k <= fe.q) & (fe.k < 4))
ROW = fe.clamp(fe.q - fe.k, 0, 7)


def added(*attentions: ir.Attention) -> ir.Attention:
    return fe.added(*attentions)


BOTH_FORMS = [
    (
        "score s - slope * (q - k)",
        lambda: fe.scored(CAUSAL, lambda s: s - SLOPE * (fe.q - fe.k)),
    ),
    (
        "score s - slope[head] * (q - k)",
        lambda: fe.scored(CAUSAL, lambda s: s - SLOPE[fe.head] * (fe.q - fe.k)),
    ),
    ("score 50.0 * tanh(s / 50.0)", lambda: fe.scored(CAUSAL, lambda s: 50.0 * fe.tanh(s / 50.0))),
    ("score s + bias[q, k] / 3", lambda: fe.scored(CAUSAL, lambda s: s + BIAS[fe.q, fe.k] / 3)),
    (
        "score s + dot(q, rel[clamp(q - k, 0, 7)])",
        lambda: fe.scored(CAUSAL, lambda s: s + fe.dot(fe.q, REL[ROW])),
    ),
    ("score 0.25 * dot(q, k)", lambda: fe.scored(CAUSAL, lambda s: 0.25 * fe.dot(fe.q, fe.k))),
    (
        "score if q % 2 == 0 then max(s, 1, k) else -abs(s)",
        lambda: fe.scored(
            CAUSAL, lambda s: fe.where(fe.q % 2 == 0, fe.maximum(s, 1, fe.k), -abs(s))
        ),
    ),
    ("score s mass exp(sink)", lambda: fe.scored(CAUSAL, mass=fe.exp(SINK))),
    ("score s weights sigmoid", lambda: fe.scored(CAUSAL, weights="sigmoid")),
    (
        "score s weights l1 exp(s) factor 1 / (q + 1) mass 2",
        lambda: fe.scored(CAUSAL, None, ("l1", fe.exp), 1 / (fe.q + 1), 2),
    ),
    (
        "(by pair 0: score s) - slope * (by pair 1: score s)",
        lambda: added(
            fe.scored(CAUSAL, pair=0), fe.scaled(-1, fe.scaled(SLOPE, fe.scored(CAUSAL, pair=1)))
        ),
    ),
    (
        "gate[q, 0] * (score s) + (over k < 4: score s by memory)",
        lambda: added(fe.scaled(GATE[fe.q, 0], fe.scored(CAUSAL)), fe.scored(FEW, keys="memory")),
    ),
    (
        "(score s mass exp(sink)) ++ (over k < 4: score s mass 2.0)",
        lambda: fe.joined_attention(fe.scored(CAUSAL, mass=fe.exp(SINK)), fe.scored(FEW, mass=2.0)),
    ),
]


@pytest.mark.parametrize(("text", "made"), BOTH_FORMS, ids=[text for text, _ in BOTH_FORMS])
def test_both_forms_reach_the_same_attention(text: str, made: Callable[[], ir.Attention]):
    wanted, found = read(f"attention a over causal = {text}"), made()
    assert found == wanted
    assert found.digest == wanted.digest


def test_operators_join_attentions():
    class Held(fe.AttentionOperators):
        def __init__(self, held: ir.Attention) -> None:
            self.held = held

        @property
        def ir(self) -> ir.Attention:
            return self.held

        def _of(self, attention: object) -> "Held":
            return Held(attention)

    near, far = Held(fe.scored(CAUSAL)), Held(fe.scored(FEW, mass=2.0))
    made = GATE[fe.q, 0] * near + 2.0 * (near | far) - far / 4 + -near * (fe.q / 2)
    text = """
    attention near over causal = score s
    attention far over causal and k < 4 = score s mass 2.0
    attention a = gate[q, 0] * near + 2.0 * (near ++ far) - far / 4 + -(near * (q / 2))
    """
    assert made.ir == read(text)


FAULTS = [
        ("A202", lambda: fe.scored(CAUSAL, lambda s: fe.q < 3)),
        ("A202", lambda: fe.scored(CAUSAL, lambda s: s % 2)),
        ("A202", lambda: fe.dot(fe.q, 3)),
        ("A209", lambda: fe.scored(CAUSAL, lambda s: s + SLOPE + fe.table("slope", "real", "q")[fe.q])),
        ("A210", lambda: added(fe.scored(CAUSAL), fe.scored(fe.to_mask(fe.k < 2, align="start")))),
        ("A216", lambda: fe.scored(CAUSAL, lambda s: fe.where(s < 0, 0.0, s))),
        ("A217", lambda: fe.scored(CAUSAL, mass=-1.0)),
        ("A217", lambda: fe.scored(CAUSAL, mass=BIAS[fe.q, fe.k])),
        ("A217", lambda: fe.scored(CAUSAL, weights="softmx")),
        ("A217", lambda: fe.scored(CAUSAL, weights="pointwise")),
        ("A217", lambda: fe.scored(CAUSAL, weights="stick", mass=1.0)),
        ("A217", lambda: fe.scored(CAUSAL, pair=2)),
        ("A217", lambda: added(fe.scored(CAUSAL, pair=0), fe.scored(CAUSAL))),
        ("A217", lambda: fe.scaled(fe.k, fe.scored(CAUSAL))),
        ("A217", lambda: fe.joined_attention(fe.scored(CAUSAL, weights="stick"))),
        ("A302", lambda: fe.scored(CAUSAL, lambda s: s / 0)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "make"), FAULTS, ids=[f"{code}-{place}" for place, (code, _) in enumerate(FAULTS)]
)
def test_faults_of_the_python_form_are_told(code: str, make: Callable[[], object]):
    with pytest.raises(AttnDslError, match=code) as caught:
        make()
    assert caught.value.diagnostics[0].labels
