"""The Python form reaches the very nodes of the text, and says where in Python it went wrong."""

# ruff: noqa: SIM300  (the spelling under test)

import inspect

import pytest

import attndsl.frontend as fe
from attndsl import ir, patterns
from attndsl import syntax as syn
from attndsl.frontend import head, heads, k, length, q, to_mask
from attndsl.source import AttnDslError

IMAGE = fe.grid("image", "y", ("x", 14))
JOINT = fe.space("joint", ("text", 7), IMAGE)
INPUTS = "input t: int[batch, pos]\ninput flag: bool[q]\ninput nbr: list[q, 8]\ninput u: int[n]\n"
GRIDS = "grid image(y, x=14)\nspace joint = text(7) ++ image\n"
t = fe.table("t", "int", "batch", "pos")
flag = fe.table("flag", "bool", "q")
nbr = fe.table("nbr", "list", "q", 8)
u = fe.table("u", "int", "n")

FLAT = {
    "0 <= q - k and q - k < 3": lambda: (0 <= q - k) & (q - k < 3),
    "(k - q) // 2 * 3 % 5 > head - 1": lambda: (k - q) // 2 * 3 % 5 > head - 1,
    "7 // (k + 1) == 5 % (q + 1)": lambda: 7 // (k + 1) == 5 % (q + 1),
    "not (q < 3) or true != (k < 4)": lambda: ~(q < 3) | (True ^ (k < 4)),
    "(q < 3) == (k < 3)": lambda: (q < 3) == (k < 3),
    "(q < 3) != (k < 3)": lambda: (q < 3) != (k < 3),
    "q != k": lambda: q != k,
    "abs(1 - q) >= -k": lambda: abs(1 - q) >= -k,
    "min(q, k, 3) + max(q, 1) == clamp(k, 0, q)":
        lambda: fe.minimum(q, k, 3) + fe.maximum(q, 1) == fe.clamp(k, 0, q),
    "pow2(ilog2(q)) == 2 * k + heads": lambda: fe.pow2(fe.ilog2(q)) == 2 * k + heads,
    "(if q < k then q else 3 - k) <= 2": lambda: fe.where(q < k, q, 3 - k) <= 2,
    "if q < k then q < 3 else false": lambda: fe.where(q < k, q < 3, False),
    "any j in 0..16: q - k == pow2(j)": lambda: fe.any_(0, 16, lambda j: q - k == fe.pow2(j)),
    "k < (count j in 0..q: j % 3 == 1)": lambda: k < fe.count_(0, q, lambda j: j % 3 == 1),
    "(sum j in k..q: j * head) % 2 == 0":
        lambda: fe.sum_(k, q, lambda j: j * head) % 2 == 0,
    "all j in 0..head: (any i in 0..j: i + j != k)":
        lambda: fe.all_(0, head, lambda j: fe.any_(0, j, lambda i: i + j != k)),
    "k in [1, 2, 9] or q in 2..5": lambda: k.isin([1, 2, 9]) | q.isin(range(2, 5)),
    "len(q) < len(k) - layer - batch": lambda: length("q") < length("k") - fe.layer - fe.batch,
    "t[q] == t[k + 1]": lambda: t[q] == t[k + 1],
    "flag[q] and k in nbr[q - 1]": lambda: flag[q] & k.isin(nbr[q - 1]),
    "q - 1 in nbr[q] and true": lambda: True & (q - 1).isin(nbr[q]),
    "k == u[u[q]] or segments(u)": lambda: (k == u[u[q]]) | patterns.segments(ends=u),
    "window(3) or documents": lambda: patterns.window(3) | patterns.documents(),
    "window(head + 1, 2)": lambda: patterns.window(head + 1, right=2),
    "listed and chosen_blocks(4)": lambda: patterns.listed() & patterns.chosen_blocks(4),
}  # fmt: skip

OVER = {
    "q.y == k.x": lambda: q.y == k.x,
    "q.image.y < len(y) and k.x < len(image.x)":
        lambda: (q.image.y < length("y")) & (k.x < length("image.x")),
    "q in image and len(image) > k": lambda: q.inside("image") & (length("image") > k),
    "box2d(3) or k in text": lambda: patterns.box2d(3) | k.inside("text"),
    "neighborhood2d(3, py=true)": lambda: patterns.neighborhood2d(3, py=True),
    "not swin(4, 2)": lambda: ~patterns.swin(4, 2),
}  # fmt: skip


@pytest.mark.parametrize("text", FLAT)
@pytest.mark.parametrize("align", ["end", "start"])
def test_flat_expressions_are_those_of_the_text(text: str, align: str):
    written = fe.elaborate(syn.parse(f"{INPUTS}pattern p align {align} = {text}"))
    assert to_mask(FLAT[text](), align=align) == written


@pytest.mark.parametrize("text", OVER)
def test_expressions_over_a_space_are_those_of_the_text(text: str):
    written = fe.elaborate(syn.parse(f"{GRIDS}pattern p over joint = {text}"))
    assert to_mask(OVER[text](), queries=JOINT) == written


def test_a_pattern_brings_its_own_space_unless_told_another():
    assert to_mask(patterns.box2d(3)).keys.name == "image"
    mask = to_mask(patterns.box2d(3) & (q.y <= k.y), queries=fe.grid("frame", "y", "x"))
    assert ir.Coord(ir.Side.QUERY, "frame.y") in set(ir.postorder(mask.root))
    with pytest.raises(AttnDslError, match="different spaces: `image` and `volume`"):
        to_mask(patterns.box2d(3) & patterns.frame_causal())


def test_rectangular_spaces_start_together():
    latent, data = fe.grid("latent", "g", "m"), fe.grid("data", "g", "n")
    mask = to_mask(q.g == k.g, queries=latent, keys=data)
    assert mask == to_mask(patterns.latent_read())
    assert mask.align is ir.Align.START
    for bad in (
        lambda: to_mask(q < k, latent, data, align="end"),
        lambda: to_mask(t[q] < 1, latent, data),
    ):
        with pytest.raises(AttnDslError, match="different spaces"):
            bad()


def test_a_decorated_function_is_a_pattern_with_name_parameters_and_documentation():
    @fe.pattern
    def local(w: int = 4):
        """The last w keys."""
        return (0 <= q - k) & (q - k < w)

    @fe.pattern(over=IMAGE, align="start")
    def rows():
        return q.y == k.y

    assert to_mask(local) == to_mask((0 <= q - k) & (q - k < 4))
    assert (to_mask(local).name, to_mask(local).doc) == ("local", "The last w keys.")
    assert to_mask(local(w=7)) == to_mask((0 <= q - k) & (q - k < 7))
    assert str(inspect.signature(local)) == "(w: int = 4)"
    assert (to_mask(rows).keys, to_mask(rows).align) == (IMAGE, ir.Align.START)
    assert repr(patterns.window) == "window(left: int, right: int = left)"


def test_zero_keys_are_counted_beside_a_pattern_in_python_too():
    written = fe.elaborate(syn.parse(f"{INPUTS}pattern p = k <= q zeros t[q] + 2"))
    assert to_mask((k <= q).zeros(t[q] + 2)) == written
    assert to_mask(patterns.padded_box2d(3)) == fe.elaborate(
        syn.parse(""), "padded_box2d", {"sy": 3}
    )
    assert to_mask(patterns.padded_window(2).zeros(0) & (k <= q)).zeros is ir.ZERO

    @fe.pattern
    def quiet(n: int = 1):
        return (k <= q).zeros(n)

    assert to_mask(quiet).zeros is ir.ONE
    assert (to_mask(quiet(3)).zeros, to_mask(quiet(3)).name) == (ir.Const(3), "quiet")


@pytest.mark.parametrize(
    "misuse",
    [
        lambda: bool(q < k), lambda: (q < 3) and (k < 3), lambda: 0 <= q - k < 3, lambda: not q < k,
        lambda: k in [1, 2], lambda: k in nbr[q],
    ],
    ids=["bool", "and", "chain", "not", "in list", "in row"],
)  # fmt: skip
def test_what_python_cannot_express_is_refused(misuse):
    with pytest.raises(TypeError, match="isin"):
        misuse()


FAULTS = {
    "A202": [
        lambda: q & (k < 3), lambda: (q < 3) + 1, lambda: q % 1.5, lambda: fe.where(q, 1, 2),
        lambda: fe.where(q < 1, 1, k < 2), lambda: to_mask(q + k), lambda: q + True, lambda: (q < 1) < 2,
    ],
    "A205": [patterns.window, lambda: patterns.window(1, wide=2), lambda: t[q, k], fe.minimum],
    "A206": [
        lambda: to_mask(q.y == 1), lambda: to_mask(q.z == 1, IMAGE), lambda: to_mask(q.foo.y == 1, IMAGE),
        lambda: to_mask(q.inside("tex"), JOINT), lambda: to_mask(length("z") == q, IMAGE),
    ],
    "A209": [
        lambda: fe.table("t", "float", "pos"), lambda: fe.table("t", "int", "pos", "batch"),
        lambda: (t[q] == 1) & (fe.table("t", "int", "k")[k] == 2),
    ],
    "A211": [lambda: patterns.window("wide"), lambda: patterns.window(q < k)],
    "A212": [lambda: to_mask(q < k, align="middle")],
    "A214": [lambda: to_mask((q < k).zeros(k))],
    "A215": [lambda: (q < k).zeros(1) | (q < 3), lambda: ~patterns.padded_window(2)],
    "A216": [lambda: k < 0.5 * q, lambda: q / 2 == k],
    "A301": [lambda: patterns.window(-1)],
    "A302": [lambda: q // 0, lambda: q % -3],
    "A303": [lambda: fe.any_(0, 5000, lambda j: j * j == q)],
    "A305": [lambda: q * 2**62, lambda: (q * 2**40) * 2**40],
}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "place"), [(code, i) for code, each in FAULTS.items() for i in range(len(each))]
)
def test_faults_have_a_code_and_the_callers_line(code: str, place: int):
    with pytest.raises(AttnDslError) as caught:
        FAULTS[code][place]()
    first = caught.value.diagnostics[0]
    assert first.code == code
    assert first.span is not None
    assert first.span.source.name == __file__


def test_a_fault_points_at_the_expression():
    with pytest.raises(AttnDslError) as caught:
        _ = (k < 3) | (q // 0 == 2)
    assert caught.value.diagnostics[0].span.text == "q // 0"


def test_code_without_a_text_still_names_its_place():
    names: dict[str, object] = {"q": q}
    with pytest.raises(AttnDslError, match=r"<string>:1"):
        exec("q // 0", names)


def test_expressions_cannot_be_keys_and_show_themselves():
    with pytest.raises(TypeError, match="unhashable"):
        hash(q)
    assert repr(q - k < 3) == f"Expr({ir.show((q - k < 3)._node)})"


def test_a_long_chain_is_the_text_that_it_stands_for():
    text = "k <= q and (q < 4 or " + " or ".join(f"k == {3 * i}" for i in range(300)) + ")"
    chain = q < 4
    for i in range(300):
        chain = (k == 3 * i) | chain if i % 2 else chain | (k == 3 * i)
    assert to_mask((k <= q) & chain).root is fe.elaborate(syn.parse(f"pattern p = {text}")).root


def test_each_link_of_a_chain_can_be_used_by_itself():
    first = (q < 4) & (k < 9)
    second = first & (q != k)
    third = (first | (k == 0)) & ~second
    assert repr(second) == "Expr(k != q and k <= 8 and q <= 3)"
    text = "(q < 4 and k < 9 or k == 0) and not (q < 4 and k < 9 and q != k)"
    assert to_mask(third).root is fe.elaborate(syn.parse(f"pattern p = {text}")).root


def test_long_sums_and_extrema_are_the_text_that_they_stand_for():
    parts = [(f"q * k % {i + 2}", q * k % (i + 2)) for i in range(200)]
    total, least, most = parts[0][1], parts[0][1], 0
    for i, (_, part) in enumerate(parts[1:], 1):
        total = total + part if i % 3 else part - total if i % 2 else total - part
        least, most = fe.minimum(least, part), fe.maximum(part, most, i)
    text = parts[0][0]
    for i, (spelled, _) in enumerate(parts[1:], 1):
        text = (
            f"{text} + {spelled}"
            if i % 3
            else f"{spelled} - ({text})"
            if i % 2
            else f"({text}) - {spelled}"
        )

    def same(made, spelled):
        assert to_mask(made).root is fe.elaborate(syn.parse(f"pattern p = {spelled}")).root

    same(total <= k, f"{text} <= k")
    same(least <= k, f"min({', '.join(spelled for spelled, _ in parts)}) <= k")
    same(most <= k, f"max({', '.join(spelled for spelled, _ in parts[1:])}, 199) <= k")


def test_a_constant_that_is_too_large_is_refused_where_it_stands():
    assert to_mask(q < ir.LARGEST - 1).root.bound == ir.LARGEST - 2
    for number in (ir.LARGEST, -ir.LARGEST, 10**30, -(10**20_000)):
        for use in (q.__lt__, k.__add__, lambda x: fe.minimum(q, x)):
            with pytest.raises(AttnDslError, match="A305"):
                use(number)


def test_a_constant_that_grows_too_large_within_a_sum_is_refused():
    total = q
    for _ in range(5):
        total = total + (1 << 61)
    with pytest.raises(AttnDslError, match="A305"):
        to_mask(total <= k)
