"""Random well-typed programs, as text, with small tensors to run them on.

A failing test shows a program one can paste into a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st

_HELPERS = """\
def twice(a: int, b: int = a) = a + b
def near(a: int, b: int, r: int = 2) = abs(a - b) <= r
def below(xs: list, x: int) = count i in 0..len(xs): xs[i] <= x
def some_of(xs: list, x: int) = if x in xs then len(xs) else xs[x]
def held(n: int, m: int, x: int) = any i in n..m: x == 2 * i
def tally(n: int, x: int) = (count i in 0..n: i % 3 < x) + (sum i in x..n: i)
pattern inner(w: int, on: bool = true) = on and 0 <= q - k < w
pattern odd(a: int = 1) = all i in a..q: (i + k) % 2 == 1
"""
_INPUTS = """\
input ids: int[batch, pos]
input flag: bool[head, k]
input own: int[q]
input reach: int[head]
input table: int[3, width]
input nbr: list[batch, q, 2]
input some: list[slots]
input marks: int[batch, entries]
"""
_LONG_LIST = str(
    [n * n % 7 - 1 for n in range(18)]
)  # longer than lists of which an entry is chosen
_SPACES = {
    "flat": "",
    "grid": "grid image(y, x)\npattern box over image = abs(q.y - k.y) <= 1 and q.x == k.x\n",
    "joint": "space joint = text(2) ++ image(y, x)\n",
    "open": "space wide = text(i) ++ image(y, x) ++ tail(j)\n",
    "pair": "grid left(g, m)\ngrid right(g, n)\n",
    "memory": "grid tokens(n)\nspace kept = meta(m) ++ tokens\n",
}
_OVER = {
    "flat": "", "grid": " over image", "joint": " over joint", "open": " over wide",
    "pair": " over left -> right", "memory": " over tokens -> kept",
}  # fmt: skip
_RECTANGULAR = ("pair", "memory")
_COORDINATES = {
    "flat": (),
    "grid": ("q.y", "q.x", "k.y", "k.x", "len(y)", "len(image.x)", "len(image)"),
    "joint": ("q.y", "q.image.x", "k.y", "k.x", "q.text", "k.text", "len(y)", "len(text)"),
    "open": ("q.i", "k.i", "q.y", "k.x", "q.tail.j", "k.j", "len(i)", "len(image)", "len(tail)"),
    "pair": ("q.g", "q.m", "k.g", "k.n", "len(left.g)", "len(n)", "len(right)"),
    "memory": ("q.n", "k.n", "k.n", "k.m", "len(m)", "len(tokens)"),
}
_TRUTHS = {
    "flat": (),
    "grid": ("box", "q in image"),
    "joint": ("q in text", "k in image", "k not in text"),
    "open": ("q in text", "k in image", "k not in tail"),
    "pair": ("k in right",),
    "memory": ("k in meta", "k in tokens"),
}


@dataclass(frozen=True)
class Program:
    """A module whose last pattern, ``main``, may be run on these lengths and tables.

    ``sizes`` holds every length the program may speak of, ``tables`` int64 and bool arrays with all
    dims their declarations name. Any length may be 0, and an input of free size shorter than the positions
    at which the program reads it, which a call refuses.
    """

    text: str
    q_len: int
    k_len: int
    heads: int
    batch: int
    layer: int
    sizes: dict[str, int]
    tables: dict[str, Any] = field(repr=False)


_ENTRIES = st.lists(st.integers(0, 6), max_size=4)

Draw: TypeAlias = Callable[..., Any]


@st.composite
def programs(draw: Draw, depth: int = 4) -> Program:
    """A strategy of programs whose expressions nest up to ``depth`` operators deep."""
    where = draw(st.sampled_from(list(_SPACES)))
    spelled = _Spelling(draw, where)
    body = spelled.body(depth)
    aligns = [""] if where in _RECTANGULAR else ["", " align start", " align end"]
    align = draw(st.sampled_from(aligns))
    head = (
        _INPUTS
        + _HELPERS
        + (_SPACES["grid"] if where in ("joint", "open") else "")
        + _SPACES[where]
    )
    parameters = f"n: int = {draw(st.integers(0, 4))}, xs: list = {draw(_ENTRIES)}"
    text = f"{head}pattern main({parameters}){_OVER[where]}{align} =\n    {body}{spelled.zeros()}\n"
    return _with_tensors(draw, text, where)


def _with_tensors(draw: Draw, text: str, where: str) -> Program:
    sizes, q_len, k_len = _lengths(draw, where)
    random = np.random.default_rng(draw(st.integers(0, 99)))
    batch, heads = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    width, slots, entries = (draw(st.sampled_from([4, 7, 3, 0])) for _ in range(3))
    tables = {
        "ids": random.integers(-1, 4, (batch, k_len)),
        "flag": random.random((heads, k_len)) < 0.5,
        "own": random.integers(-2, 6, (q_len,)),
        "reach": random.integers(-2, 9, (heads,)),
        "table": random.integers(-2, 6, (3, width)),
        "nbr": random.integers(-2, max(k_len, 1), (batch, q_len, 2)),
        "some": random.integers(-2, 6, (slots,)),
        "marks": random.integers(-1, 5, (batch, entries)),
    }
    sizes |= {"q": q_len, "k": k_len}
    sizes |= {"table:width": width, "some:slots": slots, "marks:entries": entries}
    layer = draw(st.integers(0, 2))
    return Program(text, q_len, k_len, heads, batch, layer, sizes, tables)


def _lengths(draw: Draw, where: str) -> tuple[dict[str, int], int, int]:
    if where == "flat":
        q_len, k_len = (draw(st.sampled_from([*range(1, 7), *range(1, 7), 0])) for _ in range(2))
        return {}, q_len, k_len
    a, b, c = (draw(st.sampled_from([1, 2, 3, 1, 2, 3, 0])) for _ in range(3))
    if where == "pair":
        return {"left.g": a, "left.m": b, "right.g": a, "right.n": c}, a * b, a * c
    if where == "memory":
        return {"tokens.n": a, "meta.m": b}, a, a + b
    sizes = {"image.y": a, "image.x": b}
    if where == "open":
        sizes |= {"text.i": c, "tail.j": draw(st.integers(0, 2))}
    if where == "joint":
        sizes |= {"text.text": 2}
    k_len = a * b + sum(size for name, size in sizes.items() if not name.startswith("image"))
    return sizes, draw(st.integers(min(1, k_len), k_len)), k_len


class _Spelling:
    """Expressions of a kind as text; ``names`` are the int variables in scope."""

    def __init__(self, draw: Draw, where: str) -> None:
        self.draw = draw
        self.where = where
        self.fresh = 0

    def pick(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def name(self) -> str:
        self.fresh += 1
        return f"v{self.fresh}"

    # ------------------------------------------------------------------ ints

    def number(self, depth: int, names: tuple[str, ...]) -> str:
        if depth <= 0:
            return self.pick(self.atom, self.linear)(names)  # type: ignore[no-any-return]
        how = self.pick(
            self.sum, self.sum, self.product, self.divided, self.divided, self.extremum,
            self.function, self.choice, self.let, self.load, self.item, self.counted,
        )  # fmt: skip
        made: str = how(depth - 1, names)
        return made

    def atom(self, names: tuple[str, ...]) -> str:
        options = ["q", "k", "q", "k", "head", "heads", "layer", "batch", "len(q)", "len(k)", "n"]
        options += [*_COORDINATES[self.where], *names, *names]
        if self.draw(st.integers(0, 2)) == 0:
            return str(self.draw(st.integers(0, 12)))
        return str(self.draw(st.sampled_from(options)))

    def linear(self, names: tuple[str, ...]) -> str:
        """A sum with coefficients: what most rules of simplification look at."""
        parts = [str(self.draw(st.integers(-9, 9)))]
        for _ in range(self.pick(1, 2, 2)):
            factor, atom = self.draw(st.integers(-6, 6)), self.pick("q", "k", *names, "head")
            modulus = self.pick("", "", "", " % 3", " // 2", " % 4")
            parts.append(f"{factor} * ({atom}{modulus})")
        return f"({' + '.join(parts)})"

    def sum(self, depth: int, names: tuple[str, ...]) -> str:
        parts = [self.number(depth, names) for _ in range(self.pick(2, 2, 3))]
        text = f"({parts[0]})"
        for part in parts[1:]:
            text += f" {self.pick('+', '-')} ({part})"
        return text

    def product(self, depth: int, names: tuple[str, ...]) -> str:
        if self.pick(True, False):
            return f"{self.pick(2, 3, 6)} * ({self.number(depth, names)})"
        return f"({self.number(depth, names)}) * ({self.atom(names)})"

    def divided(self, depth: int, names: tuple[str, ...]) -> str:
        known = str(self.draw(st.integers(1, 7)))
        # a name alone may stand for a number that is not positive, which no divisor may be known to be
        named = (f"max({name}, k)" for name in names)
        divisor = self.pick(known, known, known, "k", "head", "(q - 1)", *named)
        dividend = self.pick(self.number(depth, names), self.linear(names))
        return f"({dividend}) {self.pick('//', '%')} {divisor}"

    def extremum(self, depth: int, names: tuple[str, ...]) -> str:
        one, two = self.number(depth, names), self.number(depth, names)
        if self.pick(True, False):
            return f"{self.pick('min', 'max')}({one}, {two})"
        return f"clamp({one}, {two}, {self.atom(names)})"

    def function(self, depth: int, names: tuple[str, ...]) -> str:
        inner = self.number(depth, names)
        return str(self.pick(
            f"abs({inner})", f"abs({self.linear(names)})", f"-({inner})", f"ilog2({inner})", f"pow2(({inner}) % 7 - 1)",
            f"twice({inner})", f"twice(b={self.atom(names)}, a={inner})", f"tally({self.atom(names)}, {inner})",
        ))  # fmt: skip

    def choice(self, depth: int, names: tuple[str, ...]) -> str:
        yes, no = self.number(depth, names), self.number(depth, names)
        return f"(if {self.pick('', 'not ')}({self.truth(depth, names)}) then {yes} else {no})"

    def let(self, depth: int, names: tuple[str, ...]) -> str:
        name = self.name()
        value = self.number(depth, names)
        return f"(let {name} = {value}: {self.number(depth, (*names, name))})"

    def load(self, depth: int, names: tuple[str, ...]) -> str:
        at = self.number(depth, names)
        options = [f"own[{at}]", "own[q]", f"table[{at}, {self.atom(names)}]", "reach"]
        if self.where not in _RECTANGULAR:
            options += ["ids[q]", "ids[k]", f"ids[{at}]"]
        return str(self.draw(st.sampled_from(options)))

    def item(self, depth: int, names: tuple[str, ...]) -> str:
        items = self.pick(self.items(names), "xs", _LONG_LIST, "marks")
        at = self.pick(self.number(depth, names), "-1", "len(k)")
        return str(self.pick(f"{items}[{at}]", f"below({items}, {at})", f"some_of({items}, {at})"))

    def items(self, names: tuple[str, ...]) -> str:
        count = self.draw(st.integers(0, 5))
        return f"[{', '.join(self.atom(names) for _ in range(count))}]"

    # ------------------------------------------------------------------ truth values

    def body(self, depth: int) -> str:
        """A truth value that is no lone atom, and depends on the pair more often than not."""
        how = self.pick(self.junction, self.truth_let, self.truth_choice, self.quantified)
        part = f"({how(depth - 1, ())})"
        distance = self.pick("q - k", "abs(q - k)", "q // 2 - k // 2", "q - 2 * k")
        near = f"{self.draw(st.integers(-2, 1))} <= {distance} <= {self.draw(st.integers(0, 3))}"
        return str(self.pick(part, f"{near} or {part}", f"({near}) != {part}"))

    def zeros(self) -> str:
        """A clause that counts zero keys, or none: what stands in it speaks of no key."""
        count = self.pick(
            "", "", "2", "max(0, 3 - q)", "abs(own[q] + head) % 3", "if reach < 4 then batch else abs(q % 4)",
            "min(len(k), twice(layer))", "if any j in 0..3: own[q - j] == 1 then 1 else 0",
        )  # fmt: skip
        return f"\n    zeros {count}" if count else ""

    def truth(self, depth: int, names: tuple[str, ...]) -> str:
        if depth <= 0:
            return self.comparison(0, names)
        how = self.pick(
            self.comparison, self.comparison, self.comparison, self.junction, self.junction,
            self.negation, self.quantified, self.member, self.truth_choice, self.truth_let,
            self.truth_equality, self.truth_atom,
        )  # fmt: skip
        made: str = how(depth - 1, names)
        return made

    def comparison(self, depth: int, names: tuple[str, ...]) -> str:
        count = self.pick(2, 2, 2, 3)
        text = f"({self.number(depth, names)})"
        for _ in range(count - 1):
            operator = self.pick("<", "<=", ">", ">=", "==", "==", "!=")
            text += f" {operator} ({self.number(depth, names)})"
        return text

    def junction(self, depth: int, names: tuple[str, ...]) -> str:
        operator = self.pick(" and ", " or ")
        return str(operator).join(
            f"({self.truth(depth, names)})" for _ in range(self.draw(st.integers(2, 4)))
        )

    def negation(self, depth: int, names: tuple[str, ...]) -> str:
        return f"not ({self.truth(depth, names)})"

    def quantified(self, depth: int, names: tuple[str, ...]) -> str:
        body, name, limits = self.looped(self.truth, depth, names)
        return f"({self.pick('any', 'all')} {name} in {limits}: {body})"

    def counted(self, depth: int, names: tuple[str, ...]) -> str:
        word, kind = self.pick(("count", self.truth), ("sum", self.number))
        body, name, limits = self.looped(kind, depth, names)
        return f"({word} {name} in {limits}: {body})"

    def looped(
        self, kind: Callable[[int, tuple[str, ...]], str], depth: int, names: tuple[str, ...]
    ) -> tuple[str, str, str]:
        """The body of a loop, its variable and its limits, which may be anything."""
        name = self.name()
        low, high = self.pick(
            "0..3", "-1..2", "0..1", "q..k", "q - 1..q + 2", "0..head", "0..min(q, 3)", "0..own[q]",
            "k % 3..len(k)", "ids[q]..ids[k] + 1", "reach..4", "n..3", "0..n", "-n..len(xs)", "q..n + k",
            "xs[0]..len(some.slots)", *(f"{v}..q" for v in names),
        ).split("..")  # fmt: skip
        if "ids" in low and self.where in _RECTANGULAR:
            low, high = "own[q]", "own[q] + 2"
        # loops multiply the cost of what they hold
        return kind(min(depth, 2), (*names, name)), name, f"{low}..{high}"

    def member(self, depth: int, names: tuple[str, ...]) -> str:
        item, word = self.number(depth, names), self.pick("in", "not in")
        containers = [
            self.items(names),
            "some",
            "xs",
            "marks",
            _LONG_LIST,
            "nbr[q]",
            f"nbr[{self.atom(names)}]",
        ]
        containers.append(f"{self.atom(names)}..{self.atom(names)}")
        return f"({item}) {word} {self.draw(st.sampled_from(containers))}"

    def truth_choice(self, depth: int, names: tuple[str, ...]) -> str:
        parts = [self.truth(depth, names) for _ in range(3)]
        return f"(if {parts[0]} then {parts[1]} else {parts[2]})"

    def truth_let(self, depth: int, names: tuple[str, ...]) -> str:
        name = self.name()
        value = self.number(depth, names)
        return f"(let {name} = {value}: {self.truth(depth, (*names, name))})"

    def truth_equality(self, depth: int, names: tuple[str, ...]) -> str:
        left, right = self.truth(depth, names), self.truth(depth, names)
        return f"({left}) {self.pick('==', '!=')} ({right})"

    def truth_atom(self, depth: int, names: tuple[str, ...]) -> str:
        options = ["true", "false", "flag[k]", "causal", "inner(3)", "inner(n)", "odd(n)", "odd"]
        options += _TRUTHS[self.where]
        options.append(f"held({self.atom(names)}, {self.number(depth, names)}, {self.atom(names)})")
        options.append(f"inner({self.atom(names)}, on={self.comparison(0, names)})")
        options.append(f"near({self.number(depth, names)}, {self.atom(names)})")
        return str(self.draw(st.sampled_from(options)))
