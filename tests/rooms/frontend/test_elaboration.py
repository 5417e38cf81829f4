"""Decisions of the front end: lengths, axes, tables, alignment, shadowing, limits."""

import inspect
import sys

import numpy as np
import pytest

from attndsl import frontend, ir
from attndsl import syntax as syn
from attndsl.source import AttnDslError
from tests.support.work import A_SECOND, within

Q, K = ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY)
JOINT = "grid image(y, x=14)\nspace joint = text(77) ++ image ++ extra(n)\n"


def root(text: str, **values: object) -> ir.Node:
    return frontend.elaborate(syn.parse(text, "test.attn"), values=values).root


def test_lengths_of_positions_axes_segments_spaces_and_lists():
    def same(text: str, node: ir.Node) -> None:
        found = root(f"{JOINT}pattern p(l: list = [4, 5]) over joint = k == {text}")
        assert found is ir.eq(K, node)

    y, n = ir.Size("image.y"), ir.Size("extra.n")
    same("len(q)", ir.Size("q"))
    same("len(k)", ir.Size("k"))
    same("len(y)", y)
    same("len(image.x)", ir.Const(14))
    same("len(image)", ir.scale(y, 14))
    same("len(text)", ir.Const(77))
    same("len(text.text)", ir.Const(77))
    same("len(extra)", n)
    same("len(joint)", ir.add(ir.Const(77), ir.scale(y, 14), n))
    same("len(l)", ir.Const(2))
    same("len([1, 2, 3])", ir.Const(3))


def test_coordinates_and_membership():
    found = root(f"{JOINT}pattern p over joint = q.y == k.image.x and q in text and k not in extra")
    parts = [
        ir.eq(ir.Coord(ir.Side.QUERY, "image.y"), ir.Coord(ir.Side.KEY, "image.x")),
        ir.Inside(ir.Side.QUERY, "text"),
        ir.negate(ir.Inside(ir.Side.KEY, "extra")),
    ]
    assert found is ir.conj(*parts)
    assert root("grid g(x)\npattern p over g = q in g") is ir.TRUE


def test_a_pattern_used_over_another_space_means_the_same_named_axes():
    text = """
        grid image(y, x)
        pattern box over image = q in image and q.y == k.y and k.x < len(x)
        space joint = text(7) ++ image(x, y)
        pattern p over joint = box
        space other = text(7) ++ picture(x, y=5)
        pattern r over other = box
    """
    module = syn.parse(text)
    for entry, segment in [("p", "image"), ("r", "picture")]:
        y = [ir.Coord(side, f"{segment}.y") for side in ir.Side]
        x = ir.lt(ir.Coord(ir.Side.KEY, f"{segment}.x"), ir.Size(f"{segment}.x"))
        expected = ir.conj(ir.Inside(ir.Side.QUERY, segment), ir.eq(*y), x)
        assert frontend.elaborate(module, entry).root is expected


def test_an_axis_goes_through_every_space_on_the_way():
    text = """
        grid a(y)
        pattern inner over a = q.y < len(y)
        space b = text(2) ++ a
        pattern middle over b = inner
        space c = text(2) ++ a ++ text2(y)
        pattern outer over c = middle
    """
    y = ir.Coord(ir.Side.QUERY, "a.y")
    assert root(text) is ir.lt(y, ir.Size("a.y"))


def test_tables_over_queries_hold_the_entries_of_the_call():
    table = "input t: int[batch, q, 3]\n"
    late = ir.sub(Q, ir.sub(ir.Size("k"), ir.Size("q")))

    def load(at: ir.Node) -> ir.Node:
        return ir.Load("t", ir.Sort.INT, (at, ir.ZERO), ir.Deps.BATCH)

    assert root(table + "pattern p = t[q, 0] == k") is ir.eq(load(late), K)
    assert root(table + "pattern p align start = t[q, 0] == k") is ir.eq(load(Q), K)


def test_a_row_is_searched_slot_by_slot_and_holds_no_negative_number():
    text = "input t: list[batch, k, slots]\npattern p = q in t[k]"

    def holds(j: ir.Node) -> ir.Node:
        return ir.eq(ir.Load("t", ir.Sort.INT, (K, j), ir.Deps.BATCH), Q)

    some = ir.exists(ir.ZERO, ir.Size("t:slots"), holds)
    assert root(text) is ir.conj(ir.le(ir.ZERO, Q), some)


def test_only_tables_that_are_read_are_inputs_of_the_mask():
    text = "input t: int[pos]\ninput u: int[pos]\npattern p(on: bool) = on and t[q] == u[k] or k < u[q]"
    module = syn.parse(text)
    assert [t.name for t in frontend.elaborate(module, values={"on": False}).tables] == ["u"]
    assert [t.name for t in frontend.elaborate(module, values={"on": True}).tables] == ["t", "u"]


def test_lists_are_indexed_by_halving_and_joined_into_intervals():
    ranges = [ir.conj(ir.le(ir.Const(3), K), ir.le(K, ir.Const(5))), ir.eq(K, ir.Const(9))]
    assert root("pattern p = k in [5, 3, 9, 4, 3]") is ir.disj(*ranges)
    assert root("pattern p(l: list) = l[1] == k and l[7] == 0", l=[4, 6]) is ir.eq(K, ir.Const(6))
    deep = root("pattern p(l: list) = l[q] == k", l=list(range(0, 8000, 2)))
    assert depth(deep) < 40


def depth(node: ir.Node) -> int:
    known: dict[ir.Node, int] = {}
    for each in ir.postorder(node):
        known[each] = 1 + max((known[child] for child in each.parts), default=0)
    return known[node]


def test_names_nearer_by_hide_those_further_away():
    assert root("pattern causal = q < k\npattern p = causal") is ir.lt(Q, K)
    assert root("pattern p(block: int) = block(block)", block=1) is ir.eq(Q, K)
    assert root("pattern p(j: int) = any j in 5..6: let j = j + 1: k == j", j=0) is ir.eq(
        K, ir.Const(6)
    )
    plain = "pattern p = streaming(1, 2)"
    assert root("pattern causal = q < k\n" + plain) is root(plain)


def test_what_is_decided_is_not_looked_into():
    text = "pattern p(m: int) = if m > 0 then q % m == 0 else m == 0 or k // m == 1"
    assert root(text, m=0) is ir.TRUE
    assert root("pattern p(m: int) = m > 0 and q % m == 0", m=0) is ir.FALSE
    assert root("pattern p(n: int) = any j in 0..n: q // n == j", n=0) is ir.FALSE
    assert root("pattern p(n: int) = all j in 0..n: q // n == j", n=0) is ir.TRUE


def test_constraints_that_wait_for_lengths_are_taken_on_trust():
    text = "grid image(y, x)\npattern p over image = swin(len(y) // 2)"
    assert isinstance(root(text), ir.And)


def test_alignment():
    def align(text: str) -> ir.Align:
        return frontend.elaborate(syn.parse(text)).align

    assert align("pattern p = k <= q") is ir.Align.END
    assert align("grid g(x)\npattern p over g = k <= q") is ir.Align.END
    assert align("grid g(x)\npattern p over g -> g align start = k <= q") is ir.Align.START
    assert align("grid g(x)\ngrid h(x)\npattern p over g -> h = k <= q") is ir.Align.START
    assert align("pattern a align start = k <= q\npattern p align start = a") is ir.Align.START


def test_defaults_see_earlier_parameters():
    text = "def f(a: int, b: int = a + 1, c: int = a * b) = a + 10 * b + 100 * c\npattern p = k == f(2)"
    assert root(text) is ir.eq(K, ir.Const(632))
    assert root(text.replace("f(2)", "f(2, c=1)")) is ir.eq(K, ir.Const(132))


def test_the_mask_carries_name_and_documentation():
    module = syn.parse("## What it\n## does.\npattern first = true\npattern last = false")
    mask = frontend.elaborate(module, "first")
    assert (mask.name, mask.doc) == ("first", "What it\ndoes.")
    assert frontend.elaborate(module).name == "last"
    assert frontend.elaborate(module, "causal").root is ir.le(K, Q)


def test_signatures():
    text = (
        "grid image(y, x)\ninput t: int[pos]\ninput u: int[pos]\n## Doc.\n"
        "pattern p(a: int, l: list = [1, 2], on: bool = a > 1) over image where a > 0 = t[q] == a\n"
        "pattern r over image = p(1)"
    )
    shown = frontend.signature(syn.parse(text), "p")
    assert str(shown) == "p(a: int, l: list = [1, 2], on: bool = a > 1) over image where a > 0"
    assert shown.doc == "Doc."
    assert shown.span.line == 5
    assert [p.default for p in shown.parameters] == [None, "[1, 2]", "a > 1"]
    assert [t.name for t in frontend.signature(syn.parse(text)).inputs] == ["t"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"w": True, "l": []}, "must be an int, not True"),
        ({"w": 1.5, "l": []}, "must be an int, not 1.5"),
        ({"w": 2**62, "l": []}, r"must be smaller than 2\*\*62"),
        ({"w": 1, "l": 3}, "must be a list of ints, not 3"),
        ({"w": 1, "l": "12"}, "must be a list of ints, not '12'"),
        ({"w": 1, "l": [1, False]}, "must hold ints only, not False"),
        ({"w": 1, "l": [0] * 5000}, "holds at most 4096"),
        ({"w": 1, "l": [], "on": 1}, "must be true or false, not 1"),
        ({"w": 1, "l": [], "onn": True}, "did you mean `on`"),
        ({"l": []}, "needs a value for `w`"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_values_from_outside_are_judged(values: dict[str, object], words: str):
    module = syn.parse("pattern p(w: int, l: list, on: bool = true) = on and k < w or k in l")
    with pytest.raises(AttnDslError, match=words) as caught:
        frontend.elaborate(module, values=values)
    assert caught.value.code == "A211"


def test_an_unknown_entry_is_told_what_there_is():
    module = syn.parse("pattern near = true\ndef far(a: int) = a")
    with pytest.raises(AttnDslError, match="did you mean `near`"):
        frontend.elaborate(module, "neat")
    with pytest.raises(AttnDslError, match="`far` is no pattern"):
        frontend.elaborate(module, "far")


def test_at_most_ten_faults_are_reported():
    body = " and ".join(f"unknown{i}" for i in range(30))
    with pytest.raises(AttnDslError) as caught:
        root(f"pattern p = {body}")
    assert len(caught.value.diagnostics) == 10


HOSTILE = {
    "exponential": "def f0(n: int) = q // (n + 3)\n" + "".join(
        f"def f{i}(n: int) = f{i - 1}(2 * n) * f{i - 1}(2 * n + 1)\n" for i in range(1, 40)
    ) + "pattern p = f39(1) > k",
    "long chain": "pattern p0 = k < q\n" + "".join(
        f"pattern p{i} = p{i - 1} and q % {i + 1} == 0\n" for i in range(1, 3000)
    ),
    "wide sums": "pattern p = (let x0 = q // 2" + "".join(
        f", x{i} = x{i - 1} + q // {i + 2}" for i in range(1, 6000)
    ) + ": x5999 == k)",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_are_refused_quickly(name: str):
    module = syn.parse(HOSTILE[name])
    with pytest.raises(AttnDslError) as caught:
        frontend.elaborate(module)
    assert caught.value.code == "A304"


def test_repetition_without_growth_is_cheap():
    steps = "".join(f"pattern p{i} = p{i - 1} and (p{i - 1} or q < {i})\n" for i in range(1, 60))
    assert within(A_SECOND, lambda: root(f"pattern p0 = k < q\n{steps}")) is not None
    xor = "".join(f"pattern p{i} = p{i - 1} != (q % {i + 2} == 1)\n" for i in range(1, 40))
    assert within(A_SECOND, lambda: root(f"pattern p0 = k < q\n{xor}")) is not None


def test_the_deepest_expressions_are_read():
    for opening, closing in [("(", ")"), ("min(q, ", ")"), ("(if k < 3 then q else ", ")")]:
        text = opening * 90 + "k" + closing * 90
        assert root(f"pattern p = q < {text}") is not None
    assert root("pattern p = " + "not " * 150 + "q < k") is not None
    nested = "".join(f"any j{i} in 0..2: " for i in range(60))
    assert root(f"pattern p = {nested}{' + '.join(f'j{i}' for i in range(60))} == k") is not None


def test_a_caller_deep_in_recursion_gets_an_error_not_a_crash():
    module = syn.parse("pattern p = " + "not " * 150 + "q < k")

    def dive(levels: int) -> None:
        if levels:
            dive(levels - 1)
        else:
            frontend.elaborate(module)

    used = len(inspect.stack())
    with pytest.raises(AttnDslError, match="stack"):
        dive(sys.getrecursionlimit() - used - 120)


def test_files_import_files(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "main.attn").write_text(
        'import "sub/near.attn"\nimport far as distant from "sub/far.attn"\n'
        "pattern p = near(q, k) or distant(q, k)"
    )
    (tmp_path / "sub" / "near.attn").write_text("def near(a: int, b: int) = abs(a - b) <= 2")
    (tmp_path / "sub" / "far.attn").write_text(
        'import "near.attn"\ndef far(a: int, b: int) = not near(a, b)'
    )
    source = syn.read(tmp_path / "main.attn")
    module = syn.parse(source.text, source.name)
    assert frontend.elaborate(module, resolve=frontend.files(tmp_path)).root is ir.TRUE
    with pytest.raises(AttnDslError, match="this program is no file"):
        frontend.elaborate(module)


def test_links_do_not_lead_out_of_the_folder(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.attn").write_text("def secret(a: int) = a")
    (tmp_path / "inside" / "link.attn").symlink_to(tmp_path / "secret.attn")
    main = tmp_path / "inside" / "main.attn"
    main.write_text('import "link.attn"\npattern p = true')
    with pytest.raises(AttnDslError, match="out of the folder of the main file"):
        frontend.elaborate(
            syn.parse(main.read_text(), str(main)), resolve=frontend.files(tmp_path / "inside")
        )


def test_len_of_a_dim_of_an_input_is_known_at_the_call():
    text = (
        "input members: list[clusters, slots]\ninput flag: bool[clusters]\n"
        "pattern p = any c in 0..len(members.clusters): q in members[c] and k in members[c]\n"
        "pattern r = k < len(flag.clusters)\n"
    )
    members = np.array([[0, 2], [1, -1], [2, 3]])
    sizes = {"q": 4, "k": 4, "members:clusters": 3, "members:slots": 2}
    mask = frontend.elaborate(syn.parse(text), "p")
    found = ir.meaning(mask, 4, 4, sizes, {"members": members})[0, 0]
    expected = [
        [any({i, j} <= set(row) for row in members.tolist()) for j in range(4)] for i in range(4)
    ]
    assert found.tolist() == expected
    only_length = frontend.elaborate(
        syn.parse(text), "r"
    )  # the input counts, though none of it is read
    assert [table.name for table in only_length.tables] == ["flag"]
    sizes = ir.resolve_sizes(only_length, 4, 4, None, {"flag": (3,)})
    assert ir.meaning(only_length, 4, 4, sizes, {"flag": np.zeros(3, bool)})[0, 0, 0].tolist() == [
        True, True, True, False,
    ]  # fmt: skip


def zeros(text: str, **values: object) -> ir.Node:
    return frontend.elaborate(syn.parse(text, "test.attn"), values=values).zeros


def test_a_count_of_zero_keys_is_that_of_the_pattern_or_of_the_one_it_is_a_plain_use_of():
    padded = "pattern padded(w: int = 3) = window(w) zeros 2 * w - min(q, w)\n"
    assert zeros("pattern p = causal") is ir.ZERO
    assert zeros(f"{padded}") is ir.sub(ir.Const(6), ir.minimum(Q, ir.Const(3)))
    assert zeros(f"{padded}pattern p = padded") is zeros(padded)
    assert zeros(f"{padded}pattern p(v: int = 5) = padded(w=v)", v=2) is zeros(padded, w=2)
    assert zeros(f"{padded}def other(w: int) = padded(w)\npattern p = other(4)") is zeros(
        padded, w=4
    )
    assert zeros(f"{padded}pattern p = padded zeros 0") is ir.ZERO
    assert zeros(f"{padded}pattern p = padded(2) and causal zeros 7") is ir.Const(7)
    own = "input n: int[batch, q]\npattern p = causal zeros n[q]"
    assert [table.name for table in frontend.elaborate(syn.parse(own)).tables] == ["n"]


def test_a_count_of_zero_keys_means_the_axes_of_the_space_around():
    text = """
        grid image(y, x)
        pattern padded over image = q.y == k.y zeros q.y + len(x)
        space joint = text(7) ++ image(x, y)
        pattern p over joint = padded
    """
    assert zeros(text) is ir.add(ir.Coord(ir.Side.QUERY, "image.y"), ir.Size("image.x"))


def test_slots_are_keys_and_zero_keys():
    text = "pattern p = window(2) zeros min(q, 3) assert slots per query == 5"
    (claim,) = frontend.elaborate(syn.parse(text)).claims
    assert claim.what.bound is ir.sub(ir.Const(5), ir.minimum(Q, ir.Const(3)))
    assert claim.text == "slots per query == 5"


def test_an_input_is_a_list_where_its_last_index_is_left_out():
    text = (
        "input ends: int[batch, n]\ninput rows: int[2, n]\n"
        "def behind(xs: list, i: int) = let ys = xs: if i in ys then len(ys) else ys[i]\n"
        "pattern p = k == behind(ends, q) or behind([0, 9], k) == rows[1][q]\n"
    )
    tables = {"ends": np.array([[2, 1, 7], [0, 0, 5]]), "rows": np.array([[1, 1, 1], [9, 2, 4]])}
    sizes = {"q": 4, "k": 4, "ends:n": 3, "rows:n": 3}
    found = ir.meaning(frontend.elaborate(syn.parse(text)), 4, 4, sizes, tables, batch=2)

    def behind(items: list[int], i: int) -> int:
        return len(items) if i in items else items[i] if 0 <= i < len(items) else 0

    for batch in range(2):
        row, ends = tables["rows"][1].tolist(), tables["ends"][batch].tolist()
        for i in range(4):
            read = row[i] if i < 3 else 0
            seen = [j for j in range(4) if j == behind(ends, i) or behind([0, 9], j) == read]
            assert np.flatnonzero(found[batch, 0, i]).tolist() == seen


@pytest.mark.parametrize(
    "declared",
    ["ends: int[q]", "ends: int[n, m]", "ends: bool[n]", "ends: list[n]", "ends: int[head]"],
)
def test_what_is_no_list_is_told(declared: str):
    with pytest.raises(AttnDslError, match=r"A202.*a list is needed here"):
        frontend.elaborate(syn.parse(f"input {declared}\npattern p = segments(ends)"))


def test_an_entry_of_a_long_list_is_looked_up_not_chosen():
    squares = [n * n % 40 for n in range(50)]
    mask = frontend.elaborate(
        syn.parse("pattern p(xs: list) = k == xs[q - 1]"), values={"xs": squares}
    )
    assert any(isinstance(node, ir.Entry) for node in ir.postorder(mask.root))
    found = ir.meaning(mask, 60, 60, {"q": 60, "k": 60})[0, 0]
    for i in range(60):
        assert np.flatnonzero(found[i]).tolist() == [squares[i - 1] if 1 <= i <= 50 else 0]


def test_the_length_of_an_input_of_one_dim_is_told_by_its_name():
    inputs = "input e: int[s]\ninput b: int[batch, 8]\ninput two: int[s, c]\ninput l: list[slots]\n"
    text = f"{inputs}def early(x: int) = x < len(e)\npattern p = early(k) or q == len(b)"
    size = ir.Size("e:s")
    assert root(text) is ir.disj(ir.lt(K, size), ir.eq(Q, ir.Const(8)))
    assert root(f"{inputs}pattern p = k == (let r = e: len(r))") is ir.eq(K, size)
    for name in ("two", "l"):
        with pytest.raises(AttnDslError, match="A206"):
            root(f"{inputs}pattern p = k < len({name})")
    axis = "input y: int[s]\ngrid g(y, x)\npattern p over g = k.x < len(y)"
    assert root(axis) is ir.lt(ir.Coord(ir.Side.KEY, "g.x"), ir.Size("g.y"))
