"""Loaded patterns obey the language, field by field; whatever loads can be used, and emits no one's words as code."""

import ast
import contextlib
import copy
import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import attndsl
from attndsl import emission, ir
from attndsl.claims import judge
from attndsl.compiled import _restored
from attndsl.ir.storage import _CLASSES
from attndsl.source import NOWHERE, AttnDslError

PWNED = 'y"""; print("PWNED"); """'

# Between them: all classes of nodes, two kinds of spaces, tables of each kind, zero keys.
GRID = """
space s = text(n=3) ++ image(y=2, x)
input ids: int[batch, head, x]
pattern p over s = k in text or ids[q.x] == k.y * q.x + len(x) or layer + heads + batch < head
"""
FLAT = """
input near: list[q, slots]
input keep: bool[pos]
pattern p = k in near[q] or not keep[k] and any s in 0..4: abs(q - 3 * k) // (s + 1) % 5 <= min(q, k)
    zeros max(0, if q < 3 then ilog2(q + 1) else pow2(q))
"""
RECTANGLE = """
grid rows(y, x=2)
grid columns(y)
pattern p over rows -> columns = true
"""
SOURCES = {"grid": GRID, "flat": FLAT, "rectangle": RECTANGLE}
LENGTHS = {"grid": (7, 7), "flat": (5, 6), "rectangle": (6, 3)}
INPUTS = {
    "grid": {"ids": np.zeros((1, 1, 2), int)},
    "flat": {"near": np.ones((5, 2), int), "keep": np.ones(6, bool)},
    "rectangle": {},
}


def saved(name: str, folder: Path) -> Any:
    attndsl.compile(SOURCES[name]).save(folder / "p.json")
    return json.loads((folder / "p.json").read_text(encoding="utf-8"))


def load(document: object) -> attndsl.Pattern:
    return _restored(json.dumps(document))


def refusal(document: object) -> str:
    with pytest.raises(AttnDslError) as found:
        load(document)
    (fault,) = found.value.diagnostics
    assert (fault.code, fault.title) == ("A405", "not a saved pattern")
    return fault.notes[0]


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in a document, the document itself first."""
    yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield from places(item, (*path, key))


MISSING = object()
HOSTILE = [PWNED, "q", -1, 10**25, True, None, [], MISSING]


def variations(document: Any) -> Iterator[Any]:
    """Every field left out, and replaced by text, numbers, lists and all else."""
    for path in list(places(document))[1:]:
        for value in HOSTILE:
            made = copy.deepcopy(document)
            owner = made
            for step in path[:-1]:
                owner = owner[step]
            if value is MISSING:
                del owner[path[-1]]
            else:
                owner[path[-1]] = value
            yield made


def use(pattern: attndsl.Pattern, name: str) -> None:
    """The first steps of a user work, or are refused in our words."""
    repr(pattern)
    with contextlib.suppress(AttnDslError):
        pattern.mask(*LENGTHS[name], **INPUTS[name])


@pytest.mark.parametrize("name", SOURCES)
def test_every_field_is_checked_before_anything_is_built(name: str, tmp_path: Path):
    document = saved(name, tmp_path)
    assert load(document) == attndsl.compile(SOURCES[name])
    loaded, codes = 0, []
    for made in variations(document):
        try:
            pattern = load(made)
        except AttnDslError as error:
            codes.append(error.diagnostics[0].code)
        else:
            use(pattern, name)
            loaded += 1
    assert set(codes) == {"A405"}
    assert len(codes) > 4 * loaded > 0


CLAIMING = {
    "flat": """
input n: int[batch]
pattern p(w: int = 3) = 0 <= q - k < w and (k < n or k == q)
    assert causal
    assert every query sees itself
    assert keys per query <= w where q >= w
    assert queries per key <= w
    assert q - k < n or k <= q where n > 2
    assert reaches everything within 4 layers where len(k) <= 9
""",
    "grid": """
grid g(y, x)
pattern p over g = q.y == k.y
    assert symmetric
    assert density(y=4, x=2) == 0.25
    assert keys per query == len(x)
    assert disjoint(q.y < k.y, q.y > k.y)
""",
}


def spoken(pattern: attndsl.Pattern) -> list[ir.Claim]:
    return [replace(claim, span=NOWHERE) for claim in pattern.ir.claims]


@pytest.mark.parametrize("name", CLAIMING)
def test_what_a_pattern_claims_is_saved_with_it(name: str, tmp_path: Path):
    p = attndsl.compile(CLAIMING[name])
    p.save(tmp_path / "p.json")
    again = attndsl.Pattern.load(tmp_path / "p.json")
    assert spoken(again) == spoken(p)
    assert [str(each) for each in again.claims()] == [str(each) for each in p.claims()]
    assert spoken(pickle.loads(pickle.dumps(again))) == spoken(p)


@pytest.mark.parametrize("name", CLAIMING)
def test_every_field_of_a_claim_is_checked(name: str):
    mask = attndsl.compile(CLAIMING[name]).ir
    refused, read = 0, []
    for made in variations(json.loads(json.dumps(ir.written_claims(mask.claims)))):
        try:
            read.append(ir.read_claims(ir.Field(made, "asserts"), mask))
        except ValueError:
            refused += 1
    assert refused > 4 * len(read) > 0
    for some in read[::20]:
        with contextlib.suppress(AttnDslError):
            judge(replace(mask, claims=some))


def test_between_them_they_have_all_classes_of_nodes(tmp_path: Path):
    found = {node[0] for name in SOURCES for node in saved(name, tmp_path)["nodes"]}
    assert found | {"Total", "Entry"} == {*_CLASSES}


def test_entries_of_long_lists_are_read():
    place = ir.floordiv(ir.Pos(ir.Side.QUERY), ir.Const(9))
    mask = ir.Mask(ir.le(ir.entry(tuple(range(3, 3_000, 7)), place), ir.Pos(ir.Side.KEY)))
    text = ir.dump(mask)
    assert ir.load(text) == mask
    for spoiled in ("3.5", "true", '"3"', str(1 << 80), "{}"):
        with pytest.raises(AttnDslError, match="A405"):
            ir.load(text.replace('"Entry", [3,', f'"Entry", [{spoiled},', 1))


def test_sums_over_a_variable_are_read():
    q = ir.Pos(ir.Side.QUERY)
    count = ir.total(ir.ZERO, ir.Size("q"), lambda j: ir.select(ir.le(j, q), ir.ONE, ir.ZERO))
    mask = ir.Mask(ir.le(count, ir.Pos(ir.Side.KEY)))
    assert ir.load(ir.dump(mask)) == mask


FINE = ["And", [{"n": 1}, {"n": 3}]]
NODES: list[Any] = [
    ["Pos", "q"],
    ["AtMost", {"n": 0}, 3],
    ["Index", 0],
    ["Equals", {"n": 0}, 1],
    FINE,
]


def document(**fields: Any) -> dict[str, Any]:
    """A document that is right, but for the fields given."""
    plain: dict[str, Any] = {
        "format": 1, "name": "p", "doc": "", "align": "end", "spaces": [["", []], ["", []]],
        "tables": [], "unread": [], "nodes": [*NODES, ["Const", 0]], "root": 4, "zeros": 5,
    }  # fmt: skip
    return plain | fields


def nodes(*made: Any) -> dict[str, Any]:
    """The same with other nodes; the last one is the root, the first the number 0."""
    return document(nodes=[["Const", 0], ["Pos", "q"], *made], root=len(made) + 1, zeros=0)


DEEP = ["Index", 0], *(["Exists", 0, {"n": 0}, {"n": 1}, {"n": i}] for i in range(3, 5))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ([], "the document: expected an object with the field 'format', not a list of 0"),
        (document(format=2), "format: 2, this version reads 1"),
        (document(more=1), "there is no field 'more'"),
        (document(doc="\ud800"), 'doc: expected whole characters, not "\\ud800"'),
        (document(name="a b"), 'name: expected a name, not "a b"'),
        (document(align="up"), "align: expected 'end' or 'start', not \"up\""),
        (document(spaces=[]), "spaces: expected a list of queries, keys, not a list of 0"),
        (document(spaces=[["s", []], ["s", []]]), "spaces.queries: the space 's' has no segments"),
        (document(spaces=[["s", [["a", []]]]] * 2), "spaces.queries: the segment 'a' has no axes"),
        (document(spaces=[["s", [["a", [["y", 0]]]]]] * 2),
         "spaces.queries.segments[0].axes[0].extent: expected an integer from 1 to 4611686018427387903, not 0"),
        (document(spaces=[["s", [["a", [["y", 2**40], ["x", 2]]]]]] * 2),
         "spaces.queries: a space has at most 2**40 positions"),
        (document(spaces=[["s", [["a", [["y", 2], ["y", 2]]]]]] * 2),
         "spaces.queries: the axis 'y' is declared twice"),
        (document(spaces=[["s", [["a", [["pos", 2]]]]]] * 2),
         "spaces.queries: an axis cannot be named 'pos', which names a dim of inputs"),
        (document(spaces=[["s", [["a", [[PWNED, 2]]]]]] * 2), f"spaces.queries: {PWNED!r} is not a name"),
        (document(spaces=[["s", [["a", [["y", 2]]]]], ["", []]]),
         "positions in different spaces cannot be aligned at their ends"),
        (document(tables=[["t", "int", ["k"], False]] * 2), "the input 't' is declared twice"),
        (document(tables=[["t", "int", ["k", "batch"], False]]),
         "tables[0]: an input has dims; batch, then head, come before all others, each at most once"),
        (document(tables=[["t", "bool", ["k", 4], True]]), "tables[0]: a list holds integers"),
        (document(tables=[["t", "int", ["k"], True]]), "tables[0]: the last dim of a list holds its slots"),
        (document(tables=[["t", "int", [10**25], False]]),
         "tables[0].dims[0]: expected an integer from 1 to 4611686018427387903, not a number of 84 bits"),
        (document(nodes=[]), "nodes: expected a list of 1 or more, not a list of 0"),
        (document(root=6), "root: expected an integer from 0 to 5, not 6"),
        (document(root=0), "root: expected a whole expression of sort bool, not 0"),
        (document(zeros=4), "zeros: expected a whole expression of sort int, not 4"),
        (document(nodes=[["Pos", "k"], *NODES[1:]], zeros=0),
         "zeros: expected a count that does not depend on the key, not 0"),
        (nodes(["Not", {"n": 2}]), "nodes[2].item.n: expected an integer from 0 to 1, not 2"),  # itself
        (nodes(["Not", {"n": 3}], ["Not", {"n": 2}]), "nodes[2].item.n: expected an integer from 0 to 1, not 3"),
        (nodes(["Not", {"n": 1}]), "nodes[2].item: expected a node of sort bool"),
        (nodes(["Mul", {"n": 1}]), "nodes[2]: expected a list of class, left, right, not a list of 2"),
        (nodes(["Var", "os"]), "nodes[2].name: expected 'head' or 'heads' or 'batch' or 'layer', not \"os\""),
        (nodes(["Size", "y"]), "nodes[2].name: expected one that is declared, not \"y\""),
        (nodes(["Load", "t", "int", [], 0]), "nodes[2].table: expected one that is declared, not \"t\""),
        (nodes(["Coord", "q", "y"]), "nodes[2].axis: expected one that is declared, not \"y\""),
        (nodes(["Sum", [], 1]), "nodes[2].terms: expected a list of 1 or more, not a list of 0"),
        (nodes(["Sum", [[{"n": 1}, 2**61]], 0], ["Sum", [[{"n": 2}, 2]], 0]),
         "nodes[3]: expected numbers below 2**62, not a list of 3"),
        (nodes(["Index", 0], ["Equals", {"n": 2}, 0]), "root: expected a whole expression of sort bool, not 3"),
        (nodes(["Index", 0], ["Equals", {"n": 2}, 0], ["Exists", 1, {"n": 0}, {"n": 1}, {"n": 3}]),
         "nodes[4]: expected the level above those inside, and a body that reads it, not a list of 5"),
        (nodes(["Index", 0], ["Equals", {"n": 2}, 0], ["Exists", 0, {"n": 0}, {"n": 1}, {"n": 3}],
               ["Exists", 0, {"n": 0}, {"n": 1}, {"n": 4}]),
         "nodes[5]: expected the level above those inside, and a body that reads it, not a list of 5"),
        (nodes(["Index", 101]), "nodes[2].level: expected an integer from 0 to 100, not 101"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_the_way_to_its_field(made: Any, said: str):
    assert refusal(made) == said


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"format": 1, "format": 1}', f'{{"format": {"9" * 5000}}}', '{"format": NaN}', "\ufeff{}"],
    ids=["deep", "twice", "digits", "nan", "mark"],
)  # fmt: skip
def test_text_that_is_no_plain_json_is_refused(text: str, tmp_path: Path):
    path = tmp_path / "p.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(AttnDslError, match="A405"):
        attndsl.Pattern.load(path)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(AttnDslError, match="can't decode"):
        attndsl.Pattern.load(path)


def test_layer_and_without_are_checked(tmp_path: Path):
    for layer in (-1, 10**25, True, "1", None, 1.0):
        assert refusal(document(layer=layer)).startswith("layer: expected an integer")
        with pytest.raises(AttnDslError, match="A402"):
            attndsl.compile("causal", layer=layer)
    for without in ("separate", [1], ["lower_coordinates"], None):
        assert refusal(document(without=without)).startswith("without")
    assert load(document(layer=3, without=["separate"])).layer == 3


def test_long_chains_of_nodes_are_read():
    made = [["Pos", "q"], ["Pos", "k"]]
    made += [["Mul", {"n": index}, {"n": 0}] for index in range(1, 3000)]
    made += [["AtMost", {"n": len(made) - 1}, 7], ["Const", 0]]
    chain = document(nodes=made, root=len(made) - 2, zeros=len(made) - 1)
    assert ir.dump(ir.load(json.dumps(chain))).count("Mul") == 2999


# ---------------------------------------------------------------------------- emitted files


def renamed(mask: ir.Mask, name: Any) -> ir.Mask:
    """The mask with other names for everything that a user names."""

    def space(old: ir.Space) -> ir.Space:
        segments = (
            ir.Segment(name(s.name), tuple(ir.Axis(name(a.name), a.extent) for a in s.axes))
            for s in old.segments
        )
        return ir.Space(name(old.name) if old.name else "", tuple(segments))

    def rule(node: ir.Node) -> ir.Node:
        match node:
            case ir.Coord(side=side, axis=axis):
                return ir.Coord(side, ".".join(map(name, axis.split("."))))
            case ir.Inside(side=side, segment=segment):
                return ir.Inside(side, name(segment))
            case ir.Size(name=size) if "." in size:
                return ir.Size(".".join(map(name, size.split("."))))
            case ir.Size(name=size) if ":" in size:
                return ir.Size(":".join(map(name, size.split(":"))))
            case ir.Load(table=table, kind=kind, index=index, ambient=ambient):
                return ir.Load(name(table), kind, index, ambient)
            case _:
                return node

    tables = tuple(
        replace(t, name=name(t.name), dims=tuple(
            name(d) if isinstance(d, str) and d not in ir.DIM_WORDS else d for d in t.dims))
        for t in mask.tables
    )  # fmt: skip
    root, zeros = ir.transform(mask.root, rule), ir.transform(mask.zeros, rule)
    made = replace(mask, root=root, zeros=zeros, queries=space(mask.queries), keys=space(mask.keys))
    return replace(made, tables=tables, name=name("p"), doc=name("d"))


def does(text: str) -> set[str]:
    """Names that a file imports, calls and asks of values."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(func=ast.Name(id=name)) | ast.Attribute(attr=name) | ast.alias(name=name):
                found.add(name)
            case _:
                found.add(type(node).__name__)
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_no_name_becomes_code_in_an_emitted_file(name: str):
    words = PWNED + "\n'; print(1) \\ # x\u2028print(1)\r{q}\té\0"
    mask = attndsl.compile(SOURCES[name]).ir
    hostile = renamed(mask, lambda old: old + words)
    text = emission.emit(hostile, definition=words)
    assert "PWNED" in text
    assert "print" not in does(text)
    assert does(text) == does(emission.emit(mask, definition="words"))
