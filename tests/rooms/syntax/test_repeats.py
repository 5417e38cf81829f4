"""Terms that repeat the one before them are made like it: the tree is the one that a parse of each gives."""

from dataclasses import fields, is_dataclass, replace

import pytest

import attndsl
from attndsl import syntax as syn
from attndsl.source import AttnDslError, Span
from tests.support.work import calls_of

COUNT = 40
HEAD = "pattern p = "


def told(value: object) -> object:
    """A tree with its places, which equality leaves out; what other terms it resembles is left out here."""
    if isinstance(value, Span):
        return value.start, value.stop
    if isinstance(value, tuple):
        return tuple(map(told, value))
    if is_dataclass(value):
        kept = [each.name for each in fields(value) if each.name != "shapes"]
        return type(value), *(told(getattr(value, name)) for name in kept)
    return value


def alone(term: str, start: int) -> object:
    """One term where it stands, parsed without the others."""
    (declaration,) = syn.parse(" " * (start - len(HEAD)) + HEAD + term).declarations
    return told(declaration.body)


TERMS = {
    "an inequality": "k != {0}",
    "a difference": "k == q - {0}",
    "parentheses": "(k <= q - {0} and (q) % ({1}) == 1)",
    "a range": "q in {0}..{1}",
    "blanks and lines": "  not  k\n  < -{0}",
    "a call": "k <= min(q, {0}, n={1})",
    "names that end in digits": "x{2}y[{0}, q.y1] == v1 * {1}",
    "a loop": "(any j in {0}..{1}: k == j)",
    "numbers of other digits": "k == {0} * 1.50",
    "no number": "k == q",
}


@pytest.mark.parametrize("sign", [" and ", " or", ", "])
@pytest.mark.parametrize("name", TERMS)
def test_each_term_of_a_long_chain_is_what_it_is_alone(name: str, sign: str):
    terms = [TERMS[name].format(7 * i + 2, 10**9 + i, 1) for i in range(COUNT)]
    terms[25] = "k + 5 == 3"
    around = ("f(", ")") if sign == ", " else ("", "")
    text, expected = f"{HEAD}{around[0]}", []
    for place, term in enumerate(terms):
        blank = " " if sign == " or" else ""
        text += blank
        expected.append((term, len(text)))
        text += term + (sign if place + 1 < COUNT else around[1])
    (declaration,) = syn.parse(text).declarations
    parts = syn.children(declaration.body)
    assert len(parts) == COUNT
    for part, (term, start) in zip(parts, expected, strict=True):
        assert told(part) == alone(term, start)


def test_chains_within_terms_of_a_chain_are_read_each_for_itself():
    inner = " or ".join(f"k == {i}" for i in range(COUNT))
    text = " and ".join(f"({inner} or q == {i})" for i in range(20))
    (declaration,) = syn.parse(HEAD + text).declarations
    assert [len(syn.children(part)) for part in syn.children(declaration.body)] == [COUNT + 1] * 20
    assert syn.format(syn.parse(syn.format(syn.parse(HEAD + text)))) == syn.format(
        syn.parse(HEAD + text)
    )


def fault(text: str) -> AttnDslError:
    with pytest.raises(AttnDslError) as caught:
        attndsl.compile(text)
    return caught.value


@pytest.mark.parametrize("last", ["k != 2147483648", "k != q2", "k != )", "k < ", "k &", "k !="])
def test_faults_behind_repeated_terms_are_those_of_the_term_alone(last: str):
    text = HEAD + " and ".join([*(f"k != {i}" for i in range(COUNT)), ""])
    found = fault(text + last).diagnostics
    single = fault(" " * (len(text) - len(HEAD)) + HEAD + last).diagnostics
    assert [(each.code, each.span) for each in found] == [
        (each.code, replace(each.span, source=found[0].span.source)) for each in single
    ]


def test_a_chain_that_ends_in_its_sign_is_refused_at_the_sign():
    error = fault(HEAD + (text := " and ".join(["k != 7"] * COUNT)) + " and")
    assert (error.code, error.diagnostics[0].span.stop) == ("A101", len(HEAD + text + " and"))


@pytest.mark.parametrize("number", ["2147483648", "9999999999", "99999999999999999999"])
def test_a_number_in_the_midst_that_is_too_large_is_refused_where_it_stands(number: str):
    terms = [f"k != {i}" for i in range(COUNT)]
    terms[30] = f"k != {number}"
    error = fault(HEAD + " and ".join(terms))
    assert error.code == "A105"
    assert error.diagnostics[0].span.text == number


def test_digits_may_be_grouped_in_some_terms():
    terms = ["k != 1_0"] * 12 + [f"k != {i}" for i in range(COUNT)] + ["k != 2_0"] * 12
    (declaration,) = syn.parse(HEAD + " and ".join(terms)).declarations
    found = [part.operands[1].value for part in syn.children(declaration.body)]
    assert found == [10] * 12 + list(range(COUNT)) + [20] * 12


def test_a_fault_of_kind_is_told_once_for_all_terms_of_one_shape():
    error = fault(HEAD + " or ".join(f"k == (q < {i})" for i in range(COUNT)))
    assert error.code == "A202"


# Functions that a further term calls, at most: parsed and checked for itself, the first calls 380.
TERM_COSTS = {"k != {0}": 220, "k == q - {0}": 360, "(k <= q - {0} and q % {1} == 1)": 650}


@pytest.mark.parametrize("term", TERM_COSTS)
def test_generated_conditions_cost_so_much_each(term: str):
    def cost(count: int) -> int:
        sign = " and " if "!" in term else " or "
        text = sign.join(term.format(i + 3, i + 2) for i in range(count))
        return calls_of(lambda: attndsl.compile(HEAD + text))

    cost(30)
    assert cost(900) - cost(600) < 300 * TERM_COSTS[term]
