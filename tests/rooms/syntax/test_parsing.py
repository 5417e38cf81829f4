import json
import os
import pickle
import subprocess
import sys
import threading
from dataclasses import fields, is_dataclass
from importlib.resources import files
from pathlib import Path

import lark
import pytest
from hypothesis import given

import attndsl
from attndsl import syntax as syn
from attndsl.source import AttnDslError, Span
from attndsl.syntax import grammar, machine
from tests.rooms.syntax.trees import EXPRESSIONS, MODULES


def body(text: str, opening: str = "pattern p") -> syn.Expression:
    (declaration,) = syn.parse(f"{opening} = {text}").declarations
    assert isinstance(declaration, syn.Pattern | syn.Attention)
    return declaration.body


a, b, c, q, k = (syn.Name(name) for name in "abcqk")
one, two = syn.Int(1), syn.Int(2)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a or b and not c", syn.Or((a, syn.And((b, syn.Not(c)))))),
        ("a and b and c", syn.And((a, b, c))),
        ("(a and b) and c", syn.And((syn.And((a, b)), c))),
        ("a + b - c", syn.Sum((a, b, c), ("+", "-"))),
        ("a - b * c", syn.Sum((a, syn.Product((b, c), ("*",))), ("-",))),
        ("a // b % c", syn.Product((a, b, c), ("//", "%"))),
        ("-a * b", syn.Product((syn.Neg(a), b), ("*",))),
        ("a - -b", syn.Sum((a, syn.Neg(b)), ("-",))),
        ("1 <= a < b", syn.Compare((one, a, b), ("<=", "<"))),
        ("a + 1 == b", syn.Compare((syn.Sum((a, one), ("+",)), b), ("==",))),
        ("k in 1..a + 2", syn.Member(k, syn.Range(one, syn.Sum((a, two), ("+",))))),
        ("k not in a", syn.Member(k, a, negated=True)),
        ("not k in a", syn.Not(syn.Member(k, a))),
        ("q.image.y", syn.Access(syn.Access(q, "image"), "y")),
        ("a[q, 1].y", syn.Access(syn.Index(a, (q, one)), "y")),
        ("[1, 2][k]", syn.Index(syn.ListOf((one, two)), (k,))),
        ("[]", syn.ListOf(())),
        ("f()", syn.Call("f")),
        ("f(a, n=1)", syn.Call("f", (syn.Argument(a), syn.Argument(one, "n")))),
        ("true == false", syn.Compare((syn.Bool(True), syn.Bool(False)), ("==",))),
        ("1_000", syn.Int(1000)),
        ("2147483647", syn.Int(2**31 - 1)),
        ("00000000000000000001", one),
        # The loosest operator reaches as far right as it can.
        ("if a then b else c or k", syn.If(a, b, syn.Or((c, k)))),
        ("a or if b then c else k", syn.Or((a, syn.If(b, c, k)))),
        ("not any j in 1..2: a or b", syn.Not(syn.Any("j", syn.Range(one, two), syn.Or((a, b))))),
        (
            "let x = a, y = any j in 1..2: b: c",
            syn.Let(
                (syn.Binding("x", a), syn.Binding("y", syn.Any("j", syn.Range(one, two), b))), c
            ),
        ),
        ("count j in 1..2: a", syn.Count("j", syn.Range(one, two), a)),
        ("(sum j in 1..2: a) + b", syn.Sum((syn.Total("j", syn.Range(one, two), a), b), ("+",))),
        ("count + sum", syn.Sum((syn.Name("count"), syn.Name("sum")), ("+",))),
        ("sum not in 1..2", syn.Member(syn.Name("sum"), syn.Range(one, two), True)),
        ("sum in 1..2", syn.Member(syn.Name("sum"), syn.Range(one, two))),
        ("all j in 1..2: a and b", syn.All("j", syn.Range(one, two), syn.And((a, b)))),
    ],
)
def test_an_expression_reads_as_its_tree(text: str, tree: syn.Expression):
    assert body(text) == tree


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ('import "a#b.attn"', syn.Import("a#b.attn")),
        (
            'import a, b as c from "x"',
            syn.Import("x", (syn.ImportName("a"), syn.ImportName("b", "c"))),
        ),
        ("grid g(y=56, x)", syn.Grid("g", (syn.Axis("y", 56), syn.Axis("x")))),
        (
            "space s = t(77) ++ g ++ r(x, y=2)",
            syn.Space(
                "s",
                (
                    syn.Segment("t", length=77),
                    syn.Segment("g"),
                    syn.Segment("r", (syn.Axis("x"), syn.Axis("y", 2))),
                ),
            ),
        ),
        ("input n: list[q, 8]", syn.Input("n", "list", (syn.Dim("q"), syn.Dim(8)))),
        ("def f() = 1", syn.Def("f", (), one)),
        (
            "def f(x: int, y: bool = a) = 1",
            syn.Def("f", (syn.Parameter("x", "int"), syn.Parameter("y", "bool", a)), one),
        ),
        ("pattern p() = a", syn.Pattern("p", (), a)),
        (
            "pattern p(x: list = [1]) over s where a, b align start = c",
            syn.Pattern(
                "p",
                (syn.Parameter("x", "list", syn.ListOf((one,))),),
                c,
                syn.Over("s"),
                "start",
                (a, b),
            ),
        ),
        ("pattern p over s -> t align end = c", syn.Pattern("p", (), c, syn.Over("s", "t"), "end")),
    ],
)
def test_a_declaration_reads_as_its_tree(text: str, tree: syn.Declaration):
    assert syn.parse(text).declarations == (tree,)


@pytest.mark.parametrize("text", ["", " \t\n", "# nothing\n", "\ufeff"])
def test_an_empty_file_is_an_empty_module(text: str):
    assert syn.parse(text).declarations == ()


def test_documentation_is_what_stands_between_double_signs_and_declaration():
    module = syn.parse("## One.\n##\n##   Two. \n\n# no\ngrid g(x) ## beside\n### ruled\ngrid h(x)")
    first, second = module.declarations
    assert (first.doc, second.doc) == ("One.\n\n  Two.", "")
    assert first.remarks == syn.Remarks(("# no",), "# beside")
    assert second.remarks == syn.Remarks(("### ruled",))


def spans_within(node: object) -> list[tuple[object, str, Span]]:
    """Every span field below a node, with the node and the field's name."""
    found: list[tuple[object, str, Span]] = []
    pending = [node]
    while pending:
        node = pending.pop()
        if isinstance(node, tuple):
            pending += node
        elif is_dataclass(node) and not isinstance(node, Span):
            values = {field.name: getattr(node, field.name) for field in fields(node)}
            found += [(node, name, v) for name, v in values.items() if isinstance(v, Span)]
            pending += values.values()
    return found


@given(MODULES)
def test_every_node_knows_where_it_stands(module: syn.Module):
    """The text of a span, read alone, gives the node again; that of a name span is the name."""
    text = syn.format(module)
    for node, name, span in spans_within(syn.parse(text)):
        if name == "name_span":
            assert span.text == node.name
        elif (
            name == "span" and isinstance(node, syn.Expression) and not isinstance(node, syn.Range)
        ):
            # branches are words of attentions alone
            is_branch = any(isinstance(each, syn.Scored) for each, *_ in spans_within(node))
            opening = "attention a over p" if is_branch else "pattern p"
            assert body(span.text, opening) == node
        elif name == "span" and isinstance(node, syn.Declaration):
            (alone,) = syn.parse(span.text).declarations
            assert syn.format(syn.Module((alone,))).rstrip("\n") in text
        elif span.source.name != "<nowhere>":
            assert span.text.strip() == span.text or isinstance(node, syn.Module)


def test_parentheses_widen_a_span():
    tree = body("(a + b) * c")
    assert isinstance(tree, syn.Product)
    assert tree.span.text == "(a + b) * c"
    assert tree.operands[0].span.text == "(a + b)"
    assert tree.operands[1].span.column == 23


@given(EXPRESSIONS)
def test_children_are_all_the_expressions_directly_inside(tree: syn.Expression):
    listed = list(syn.children(tree))
    found: list[object] = []
    pending = [getattr(tree, field.name) for field in fields(tree)]
    while pending:
        value = pending.pop(0)
        if isinstance(value, tuple):
            pending = [*value, *pending]
        elif isinstance(value, syn.Argument | syn.Binding):
            found.append(value.value)
        elif isinstance(value, syn.Expression):
            found.append(value)
    assert listed == found


def test_line_ends_of_all_systems_are_one():
    text = "# a\npattern p =\n  k <= q\n"
    for end in ("\r\n", "\r"):
        module = syn.parse(text.replace("\n", end))
        assert module == syn.parse(text)
        assert module.declarations[0].span.line == 2


def test_a_tree_survives_another_process():
    module = syn.parse("## d\npattern p(a: int = 1) = k <= q + a # c", "p.attn")
    again = pickle.loads(pickle.dumps(module))
    assert again == module
    assert str(again.declarations[0].span) == "p.attn:2:1"


def test_threads_do_not_share_their_sources():
    """Spans carry the source of the thread that parses, though the parser is one."""
    failures: list[str] = []

    def work(name: str) -> None:
        for _ in range(20):
            module = syn.parse(f"pattern {name} = k <= q and q < 3", name)
            if module.declarations[0].body.span.source.name != name:
                failures.append(name)

    threads = [threading.Thread(target=work, args=(f"p{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# ------------------------------------------------------------------------------- files


def test_a_file_is_read_with_its_path_as_name(tmp_path: Path):
    path = tmp_path / "a.attn"
    path.write_bytes(b"\xef\xbb\xbfpattern p = k\r\n# \xe2\x89\xa4\r\n")
    source = syn.read(path)
    assert (source.name, source.text) == (str(path), "pattern p = k\n# ≤\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"pattern p = k\n\xff", "a.attn is not UTF-8 text\n --> a.attn:2:1\n"),
        (b"pattern p\0 = k", "a.attn is not UTF-8 text\n --> a.attn:1:10\n"),
        (b" " * (2**20 + 1), "a.attn is too large\n"),
    ],
)
def test_a_file_that_is_no_program_is_refused(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("a.attn").write_bytes(content)
    with pytest.raises(AttnDslError) as caught:
        syn.read("a.attn")
    assert str(caught.value).startswith(f"error[A102]: {message}")


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path):
    for path, reason in (
        (tmp_path / "none.attn", "No such file"),
        (tmp_path, "Is a directory"),
        ("a\0b", "null byte"),
    ):
        with pytest.raises(AttnDslError, match=rf"(?s)A102.*cannot read.*{reason}"):
            syn.read(path)


def test_the_name_of_a_file_that_is_not_there_meets_one_that_is_near(tmp_path: Path):
    (tmp_path / "local.attn").write_text("pattern p = k <= q")
    with pytest.raises(AttnDslError) as caught:
        syn.read(tmp_path / "locla.attn")
    assert str(caught.value).endswith(f"help: did you mean `{tmp_path / 'local.attn'}`?")
    with pytest.raises(AttnDslError) as caught:
        syn.read(tmp_path / "absent" / "local.attn")
    assert "did you mean" not in str(caught.value)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path):
    path = tmp_path / "huge.attn"
    with path.open("wb") as file:
        file.truncate(100 << 30)  # sparse: reading it whole would not end well
    with pytest.raises(AttnDslError, match=r"huge\.attn is too large"):
        syn.read(path)


# ------------------------------------------------------------------- the parser's tables

PROGRAMS = sorted((Path(attndsl.__file__).parent / "patterns").rglob("*.attn"))


def walk_tables_of(made: lark.Lark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "parser", lambda: made)
    other = machine.machine.__wrapped__()
    monkeypatch.setattr("attndsl.syntax.parsing.machine", lambda: other)


def test_the_stored_tables_are_those_of_the_grammar():
    stored = files("attndsl.syntax").joinpath(grammar.TABLES).read_text(encoding="utf-8")
    assert json.loads(stored)["grammar"] == grammar._digest(), "`make grammar` writes them"


def test_stored_tables_read_what_made_ones_read(monkeypatch: pytest.MonkeyPatch):
    stored = [syn.parse(path.read_text(encoding="utf-8")) for path in PROGRAMS]
    monkeypatch.setattr(grammar, "_READABLE", ())
    made = grammar.parser.__wrapped__()
    assert isinstance(made, lark.Lark)
    walk_tables_of(made, monkeypatch)
    assert [syn.parse(path.read_text(encoding="utf-8")) for path in PROGRAMS] == stored


SIGNS = (
    "a..b=c<=d<e//f/g--1->h++i+2.5*3..4_0 sum j in x count\nq sum 1e3==0.5!=[(any)]:,%s.t # rest\n"
)


@pytest.mark.parametrize("text", [SIGNS, *(path.read_text(encoding="utf-8") for path in PROGRAMS)])
def test_words_are_those_that_lark_reads(text: str):
    ours = [(word.kind, str(word), word.start, word.stop) for word in machine.machine().words(text)]
    theirs = [(t.type, str(t), t.start_pos, t.end_pos) for t in grammar.parser().lex(text)]
    assert ours == theirs


def test_a_grammar_that_was_edited_is_read_anew(monkeypatch: pytest.MonkeyPatch):
    other = grammar._text().replace('"pattern"', '"relation"')
    monkeypatch.setattr(grammar, "_text", lambda: other)
    made = grammar.parser.__wrapped__()
    walk_tables_of(made, monkeypatch)
    assert len(syn.parse("relation p = k <= q").declarations) == 1


def test_parsing_asks_nothing_of_the_cache(tmp_path: Path):
    script = (
        "from attndsl import syntax as syn; print(len(syn.parse('pattern p = k').declarations))"
    )
    found = {**os.environ, "ATTNDSL_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", script]
    ran = subprocess.run(command, env=found, text=True, capture_output=True, timeout=60, check=True)
    assert (ran.stdout, ran.stderr) == ("1\n", "")
    assert list(tmp_path.iterdir()) == []
