from contextlib import contextmanager
from textwrap import dedent
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from attndsl import syntax as syn
from attndsl.source import AttnDslError
from tests.rooms.syntax.trees import EXPRESSIONS, MODULES


@contextmanager
def lines_of(width: int):
    """Narrow pages, so that small trees need every way of breaking lines."""
    with mock.patch("attndsl.syntax.formatting.WIDTH", width):
        yield


def expression(text: str) -> syn.Expression:
    (declaration,) = syn.parse(f"pattern p = {text}").declarations
    assert isinstance(declaration, syn.Pattern)
    return declaration.body


def canonical(text: str) -> str:
    return syn.format(syn.parse(dedent(text)))


@given(MODULES, st.sampled_from([100, 40, 10]))
@example(syn.Module((), ("# alone",)), 100)
@example(syn.parse("pattern p = k in (q in (head in nbr[q]))"), 10)
def test_what_is_formatted_reads_as_the_same_module(module: syn.Module, width: int):
    with lines_of(width):
        text = syn.format(module)
        again = syn.parse(text)
        assert again == module
        assert syn.format(again) == text


@given(EXPRESSIONS)
def test_an_expression_is_formatted_on_one_line(tree: syn.Expression):
    text = syn.format_expression(tree)
    assert "\n" not in text
    assert expression(text) == tree


@given(EXPRESSIONS)
def test_blanks_and_line_ends_mean_nothing(tree: syn.Expression):
    text = syn.format_expression(tree)
    assert expression(text.replace(" ", "\r\n\t \f # or not\n")) == tree
    assert expression(f"({text})") == tree


@given(EXPRESSIONS)
def test_formatting_needs_every_parenthesis_it_writes(tree: syn.Expression):
    """Dropping a pair changes the tree or breaks it, but around operands that reach far right."""
    text = syn.format_expression(tree)
    for start, char in enumerate(text):
        if char != "(" or (start and (text[start - 1].isalnum() or text[start - 1] == "_")):
            continue
        depth, stop = 0, start
        while True:
            depth += {"(": 1, ")": -1}.get(text[stop], 0)
            if depth == 0:
                break
            stop += 1
        inner = text[start + 1 : stop]
        if inner.startswith(("if ", "let ", "any ", "all ", "count ", "sum ")):
            continue
        bare = f"{text[:start]} {inner} {text[stop + 1 :]}"
        try:
            assert expression(bare) != tree, (text, bare)
        except AttnDslError:
            continue


def test_the_canonical_layout_of_a_file():
    text = """
        # A header.

        import "z.attn"
        import   near,far  as distant from "other.attn" # beside


        grid image ( y,x=1_4 )
        grid latent(g)
        ## Documented.
        grid data(g, n)
        space joint=text(77)++image(y,x) ++ image
        input doc:int[batch,pos]
        def near(a:int,b:int)=abs(a-b)<=3
        pattern causal()=(k<=q)
        pattern window(left:int,right:int=left)
        align end where left>=0,right>=0,left+right<64 over image=-left<=k-q<=right
        # at the end
    """
    assert canonical(text) == dedent(
        """\
        # A header.

        import "z.attn"

        import near, far as distant from "other.attn"  # beside

        grid image(y, x=14)
        grid latent(g)

        ## Documented.
        grid data(g, n)

        space joint = text(77) ++ image(y, x) ++ image

        input doc: int[batch, pos]

        def near(a: int, b: int) = abs(a - b) <= 3

        pattern causal = k <= q

        pattern window(left: int, right: int = left)
            over image
            align end
            where left >= 0, right >= 0, left + right < 64
            = -left <= k - q <= right

        # at the end
        """
    )


def test_comments_within_a_declaration_move_above_it():
    text = """
        ## Doc.
        pattern p =  # why
            k <= q   ## because
            # and also
            and k < 3  # last
        # next
        pattern r = k
    """
    assert canonical(text) == dedent(
        """\
        # why
        # because
        # and also
        ## Doc.
        pattern p = k <= q and k < 3  # last

        # next
        pattern r = k
        """
    )


def test_a_long_body_is_broken_at_its_loosest_operators():
    part = "abs(q.y - k.y) <= the_radius"
    inner = f"({part} or {part} and ({part} or {part}))"
    text = f"pattern p(the_radius: int) = {part} and {part} and {inner}"
    assert canonical(text) == dedent(
        """\
        pattern p(the_radius: int) =
            abs(q.y - k.y) <= the_radius
            and abs(q.y - k.y) <= the_radius
            and (
                abs(q.y - k.y) <= the_radius
                or abs(q.y - k.y) <= the_radius
                    and (abs(q.y - k.y) <= the_radius or abs(q.y - k.y) <= the_radius)
            )
        """
    )


def test_a_long_choice_stands_in_cases():
    long = "some_function_with_a_long_name(argument, another)"
    text = f"def f(x: int) = if x < 1 then {long} else if x < 2 then {long} else let y = x: {long}"
    assert canonical(text) == dedent(
        f"""\
        def f(x: int) =
            if x < 1
            then {long}
            else if x < 2
            then {long}
            else let y = x: {long}
        """
    )


def test_a_long_head_gets_a_line_for_each_clause():
    text = (
        "pattern p(a_parameter_of_note: int = 1, another_parameter_of_note: list = [1, 2])"
        " over queries -> keys align start where a_parameter_of_note >= 0 = k <= q"
    )
    assert canonical(text) == dedent(
        """\
        pattern p(a_parameter_of_note: int = 1, another_parameter_of_note: list = [1, 2])
            over queries -> keys
            align start
            where a_parameter_of_note >= 0
            = k <= q
        """
    )


def test_a_long_list_is_filled():
    text = syn.format(syn.parse(f"pattern p = k in {list(range(100))}"))
    assert max(map(len, text.splitlines())) <= 100
    assert len(text.splitlines()) == 8  # of 100 numbers


def test_a_wide_chain_formats_fast_and_a_deep_tree_without_exhausting_the_stack():
    wide = syn.parse("pattern p = k == " + " + ".join(["q"] * 10_000))
    assert len(syn.format(wide).splitlines()) > 1_000
    assert syn.parse(syn.format(wide)) == wide
    deep = syn.parse("pattern p = " + "not (k and " * 99 + "q" + ")" * 99)
    assert syn.parse(syn.format(deep)) == deep


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("((a + b)) + c", "(a + b) + c"),  # grouping is kept: it is what was written
        ("a + (b * c)", "a + b * c"),
        ("a - (b - c)", "a - (b - c)"),
        ("- (- a)", "--a"),
        ("-(a * b)", "-(a * b)"),
        ("not (a) and (not b)", "not a and not b"),
        ("not (a and b)", "not (a and b)"),
        ("(a < b) == (c < d)", "(a < b) == (c < d)"),
        ("a and any j in 0..4: b or c", "a and (any j in 0..4: b or c)"),
        ("not if a then b else c", "not (if a then b else c)"),
        ("if a then b else c or d", "if a then b else c or d"),
        ("(if a then b else c) or d", "(if a then b else c) or d"),
        ("k in (0)..(n - 1)", "k in 0..n - 1"),
        ("k not in nbr[q]", "k not in nbr[q]"),
        ("not k in nbr[q]", "not k in nbr[q]"),
        ("[1,2,4][head%3]", "[1, 2, 4][head % 3]"),
        ("q.image.y", "q.image.y"),
        ("(a + b).y", "(a + b).y"),
        ("f(x,n=3)", "f(x, n=3)"),
        ("1_000", "1000"),
        ("007", "7"),
        ("let x=1,y=x:x<y", "let x = 1, y = x: x < y"),
    ],
)
def test_an_expression_has_one_form(text: str, expected: str):
    assert syn.format_expression(expression(text)) == expected
