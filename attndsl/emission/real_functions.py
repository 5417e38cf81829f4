"""Real expressions at rows of a call as Python text on tensors: what scores read, and what queries alone decide.

    query_columns(q, batch, head, *, slope, **_) -> numbers of each query, that broadcast to [batch, head, query]

Each function takes the inputs, lengths and vectors that it reads by name. Numbers are float32, ints are exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from attndsl import ir, passes
from attndsl.codegen import PER_SCALE, Column, Magnitudes, Product
from attndsl.emission.functions import Body, FunctionWriter
from attndsl.emission.names import calling
from attndsl.emission.pieces import ATOM, LINE, PRODUCT, SUM, UNARY, Piece, at_least, uses

reals = ir.reals

_FUNCTIONS: Final[Mapping[str, str]] = {
    "softplus": "-logsigmoid(-{})",
    "step": "({} > 0).float()",
    **{name: f"torch.{name}({{}})" for name in ("exp", "exp2", "log", "tanh", "sigmoid", "relu")},
    **{name: f"torch.{name}({{}})" for name in ("sqrt", "abs", "sign")},
}
_SIGNS: Final = frozenset(("softplus", "step"))  # those that are written with an operator
_OWN: Final = {ir.Side.QUERY: "own_q", ir.Side.KEY: "own_k"}
_GIVEN: Final = (
    *_OWN.values(),
    "per_scale",
    "rows",
    "vectors",
    "logsigmoid",
    "product",
    "narrowed",
    "exact",
    "least",
    "greatest",
)


class RealFunctionWriter(FunctionWriter):
    """Writes functions of the scores over one mask; ``magnitudes`` bound the ints in them."""

    def __init__(self, mask: ir.Mask, magnitudes: Mapping[ir.Node, Magnitudes]) -> None:
        own = (passes.LEVEL, passes.COLUMN, passes.SEED)
        super().__init__(replace(mask, tables=(*mask.tables, *own)), _GIVEN)
        for table in own:  # first: they have these names, whatever the user calls an input
            self._names.of(("table", table.name), table.name.strip("<>"))
        self._bounds = magnitudes  # of all ints in what is written
        self._asked: dict[str, None] = {}  # what the function at hand takes by name

    def columns(self, name: str, sides: str, said: str, columns: Sequence[Column]) -> str:
        """The function of the numbers of some columns."""
        results = []
        for column in columns:
            node = column.node
            if node.sort is ir.Sort.BOOL:
                node = reals.choose(node, reals.UNITY, reals.NOUGHT)
            results.append(reals.as_real(node))
        self._begin(*results)
        body = Body()
        texts = [self._value(each, body)[0] for each in results]
        texts = [
            f"exact({text})" if column.is_exact else text
            for text, column in zip(texts, columns, strict=True)
        ]
        return self._function(name, sides, said, body, texts)

    def value(self, name: str, root: ir.Node) -> str:
        """The function of one number of each query."""
        self._begin(root)
        body = Body()
        found = self._tensor(root, body)[0]
        return self._function(name, "q", "A number of each query.", body, [found], alone=True)

    def read_tables(self, name: str, reads: Sequence[ir.Load], products: Sequence[Product]) -> str:
        """The function of the tables that are read at pairs, [batch or 1, heads or 1, ...]."""
        made = {each.name: each for each in products}
        self._begin(*(x for each in products for x in (each.left, each.right)))
        body, texts = Body(), []
        for read in reads:
            if read.table in made:
                both = made[read.table].left, made[read.table].right
                sides = ", ".join(self._all_rows(each, body) for each in both)
                texts.append(f"product({sides})")
            else:
                texts.append(self._narrowed(read.table, read.ambient))
        return self._function(name, "q, k", "Tables that are read at pairs.", body, texts)

    def read_places(self, name: str, reads: Sequence[ir.Load]) -> str:
        """The function of the indices of those reads at pairs."""
        self._begin(*(item for read in reads for item in read.index))
        body, texts = Body(), []
        for read in reads:
            found = [self._value(item, body)[0] for item in read.index]
            texts.append(f"({', '.join(found)}{',' * (len(found) == 1)})")
        return self._function(name, "q, k", "Where they are read.", body, texts)

    def _begin(self, *roots: ir.Node) -> None:
        """The state of a new function."""
        self._uses = Counter(roots)
        for root in roots:
            self._uses.update(uses(root))
        self._asked, self._lists, self._device = {}, {}, "batch.device"

    def _function(
        self,
        name: str,
        sides: str,
        said: str,
        body: Body,
        results: Sequence[str],
        *,
        alone: bool = False,
    ) -> str:
        asked = [*(["*", *self._asked] if self._asked else []), "**_"]
        head = calling(f"def {name}", [*sides.split(", "), "batch", "head", *asked], ":", 100)
        lines = [f'"""{said}"""', *self._list_lines(), *body.lines]
        if alone:
            lines.append(f"return {results[0]}")
        else:
            together = f"return ({', '.join(results)}{',' * (len(results) == 1)})"
            if len(together) <= 96:
                lines.append(together)
            else:
                lines += ["return (", *(f"    {each}," for each in results), ")"]
        return "\n".join([*head, *(f"    {line}" for line in lines)])

    # ------------------------------------------------------------------------ real numbers

    def _written(self, node: ir.Node, body: Body) -> Piece:
        if node.sort is ir.Sort.REAL:
            return self._real(node, body)
        if isinstance(node, reals.Own):
            return f"vectors({self._asking(_OWN[node.side])}, head)", ATOM
        if isinstance(node, reals.Row):
            return self._at_rows(node, body), ATOM
        return super()._written(node, body)

    def _real(self, node: ir.Node, body: Body) -> Piece:  # noqa: C901 - an arm a class
        def at(child: ir.Node, room: int = LINE) -> Piece:
            return self._short(body.known[child], body, room)

        def tensor(child: ir.Node) -> str:
            return self._tensor(child, body)[0]

        match node:
            case reals.Number(value=value):
                return repr(value), ATOM if value >= 0 else UNARY
            case reals.FromInt(item=item):
                return f"{at_least(at(item, 60), ATOM)}.float()", ATOM
            case reals.Plus(items=items):
                return self._added(items, body), SUM
            case reals.Times(left=reals.Number(value=-1.0), right=right):
                return f"-{at_least(at(right), UNARY)}", UNARY
            case reals.Times(left=left, right=right):
                return (
                    f"{at_least(at(left, 48), PRODUCT)} * {at_least(at(right, 48), UNARY)}",
                    PRODUCT,
                )
            case reals.Over(left=left, right=right):
                upper = (
                    self._tensor(left, body) if isinstance(right, reals.Number) else at(left, 48)
                )
                return f"{at_least(upper, PRODUCT)} / {at_least(at(right, 48), UNARY)}", PRODUCT
            case reals.Apply(function=function, item=item):
                written = self._tensor(item, body)
                text = at_least(written, UNARY) if function in _SIGNS else written[0]
                return _FUNCTIONS[function].format(text), UNARY if function == "softplus" else ATOM
            case reals.Least(left=left, right=right):
                return f"least({tensor(left)}, {tensor(right)})", ATOM
            case reals.Greatest(left=left, right=right):
                return f"greatest({tensor(left)}, {tensor(right)})", ATOM
            case reals.Choose(cond=cond, yes=yes, no=no):
                parts = [at(part, 24)[0] for part in (cond, yes, no)]
                return f"torch.where({', '.join(parts)})", ATOM
            case reals.Dot(left=left, right=right):
                return f"({at(left)[0]} * {at(right)[0]}).sum(-1)", ATOM
            case ir.Load(table=table) if table == PER_SCALE:
                return self._asking("per_scale"), ATOM
            case ir.Load():
                return self._load(node, body)
            case _:
                raise AssertionError(f"no value of a row: {node}")

    def _tensor(self, node: ir.Node, body: Body) -> Piece:
        """The text of a value that is a tensor even where it is a number."""
        if isinstance(node, reals.Number):
            return f"torch.tensor({node.value!r}, device={self._device})", ATOM
        return self._value(node, body)

    def _added(self, items: Sequence[ir.Node], body: Body) -> str:
        first, *others = items
        text = at_least(self._short(body.known[first], body, 40), PRODUCT)
        for item in others:
            written = at_least(self._short(body.known[item], body, 40), PRODUCT)
            text += f" - {written[1:]}" if written.startswith("-") else f" + {written}"
        return text

    # ------------------------------------------------------------------------ inputs

    def _asking(self, name: str) -> str:
        self._asked[name] = None
        return name

    def _size(self, name: str) -> str:
        return self._asking(super()._size(name))

    def _load(self, node: ir.Load, body: Body) -> Piece:
        self._parameter(node.table)
        return super()._load(node, body)

    def _parameter(self, table: str) -> str:
        """The name that a table goes by."""
        parameter = self._names.of(("table", table), table)
        self.tables[parameter] = table
        return self._asking(parameter)

    def _at_rows(self, node: reals.Row, body: Body) -> str:
        """The last dim of a table at each row, [..., rows, width]."""
        places = [self._short(body.known[item], body, 24)[0] for item in node.index]
        return f"rows({', '.join([self._parameter(node.table), *_ambient(node.ambient), *places])})"

    def _all_rows(self, node: ir.Node, body: Body) -> str:
        """All rows of a vector, [batch or 1, heads or 1, ..., width]."""
        if not isinstance(node, reals.Row) or node.deps & ir.Deps.PAIR in _OF_ONE_SIDE:
            return self._short(self._value(node, body), body, 40)[0]
        text = self._narrowed(node.table, node.ambient)
        return text if node.index else f"{text}.unsqueeze(2)"

    def _narrowed(self, table: str, ambient: ir.Deps) -> str:
        flags = f"by_batch={bool(ambient & ir.Deps.BATCH)}, by_head={bool(ambient & ir.Deps.HEAD)}"
        return f"narrowed({self._parameter(table)}, {flags})"

    def _division(
        self,
        plain: str,
        guarded: str,
        dividend: ir.Node,
        left: Piece,
        divisor: ir.Node,
        right: Piece,
    ) -> Piece:
        if divisor in self._bounds:
            self._magnitudes = self._bounds[divisor]
        return super()._division(plain, guarded, dividend, left, divisor, right)


_OF_ONE_SIDE: Final = (ir.Deps.QUERY, ir.Deps.KEY)


def _ambient(deps: ir.Deps) -> list[str]:
    flags = (("batch", ir.Deps.BATCH), ("head", ir.Deps.HEAD))
    return [name for name, flag in flags if deps & flag]
