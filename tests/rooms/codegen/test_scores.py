"""Scores as device functions: what is left to do for each pair, and what is read before."""

import pytest

from attndsl import ir
from attndsl.codegen import NoKernel, score_functions
from tests.rooms.backends.scored_cases import FORMS, S, r


def body(name: str, function: str = "score") -> str:
    """The lines of a function of a form, without the comment."""
    text = score_functions(FORMS[name].score, ir.ZERO).text
    lines = text.partition(f"def {function}(")[2].partition("@triton.jit")[0].splitlines()[2:]
    return "\n".join(line.strip() for line in lines).strip()


def test_alibi_is_a_subtraction_and_a_multiply_add_a_pair():
    assert body("slope") == "return (s + (x[2] - y[1]) * x[1])"


def test_a_relative_table_is_one_look_up_by_the_distance():
    assert body("relative").splitlines() == [
        "t1 = tl.load(v + both * n[0] + n[1] + (x[0] - y[0]))",
        "return (s + t1)",
    ]


def test_a_soft_cap_is_one_tanh_also_with_its_derivative():
    assert body("soft cap", "derivatives").count("tanh(") == 1


@pytest.mark.parametrize("name", ["keys and queries", "temperature"])
def test_what_depends_on_one_side_is_read_before(name: str):
    assert "tl.load" not in body(name)


def test_derivatives_are_those_of_the_columns_that_carry_a_gradient():
    found = score_functions(FORMS["slope"].score, ir.ZERO)
    assert found.gains == (1, 0, 0)
    assert [ir.show(column.node) for column in found.of_query] == ["-1.0 * slope", "q"]
    assert body("slope", "derivatives").splitlines()[-1].endswith("1.0, t1,)")


@pytest.mark.parametrize(
    ("root", "gains"),
    [
        (r.least(S, r.Number(5.0)), "tl.where(s > 5.0, 0.0, 1.0)"),
        (r.greatest(S, r.Number(-5.0)), "tl.where((-5.0) > s, 0.0, 1.0)"),
        (r.greatest(r.times(r.Number(2.0), S), r.times(S, S)), "t4 + t4"),
    ],
)
def test_the_derivative_of_an_extremum_is_a_comparison_of_its_sides(root: ir.Node, gains: str):
    text = score_functions(root, ir.ZERO).text.partition("def derivatives(")[2]
    assert gains in text


def test_what_has_no_kernel_says_why():
    with pytest.raises(NoKernel, match="one more vector of the query"):
        score_functions(FORMS["two vectors"].score, ir.ZERO)
    table = ir.Load(
        "ids", ir.Sort.INT, (ir.add(ir.mul(*map(ir.Pos, ir.Side)), ir.Const(1)),), ir.Deps.NONE
    )
    with pytest.raises(NoKernel, match=r"`ids\[.*\]` is computed for each pair"):
        score_functions(r.plus(S, r.as_real(table)), ir.ZERO)
