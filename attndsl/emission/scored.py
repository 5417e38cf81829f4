"""The parts of an attention as text: over each pattern, functions of the pattern and of the scores of its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from attndsl import ir, passes
from attndsl.codegen import Magnitudes, NoKernel, ScoreFunctions, score_functions
from attndsl.emission.bounds import Limits, limits
from attndsl.emission.names import calling, commented
from attndsl.emission.real_functions import RealFunctionWriter
from attndsl.emission.relations import Relation, prepared, written
from attndsl.source import AttnDslError, Diagnostic

reals = ir.reals

_OWN: Final = (passes.LEVEL, passes.COLUMN, passes.SEED)  # tables that are no inputs of the file
_SIDES: Final = (
    ("query", "q", "query"),
    ("key", "k", "key"),
    ("distance", "q, k", "distance"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """The functions of one score over a pattern: what becomes of it, and by what name."""

    root: ir.Node  # coordinates are positions in it
    functions: ScoreFunctions
    weighs: bool
    suffix: str

    def host_roots(self) -> list[ir.Node]:
        """Expressions that are computed on tensors."""
        found = self.functions
        columns = (*found.of_query, *found.of_key, *found.of_distance)
        vectors = [x for each in found.products for x in (each.left, each.right)]
        return [
            *(x.node for x in columns),
            *vectors,
            *(x for each in found.reads for x in each.index),
        ]


class ScoredPattern:
    """A pattern, the scores over it, and numbers of its queries: they are asked for, then all are written."""

    def __init__(
        self,
        mask: ir.Mask,
        tables: Sequence[ir.Table],
        layer: int,
        suffix: str,
        number: Callable[[], int],
    ) -> None:
        self.mask, self.reals = mask, tuple(x for x in tables if x.kind is ir.Sort.REAL)
        self.whole = replace(mask, tables=(*mask.tables, *tables))
        self._layer, self._number, self.suffix = layer, number, suffix
        self._scores: dict[tuple[ir.Node, bool], Score] = {}
        self._values: dict[ir.Node, str] = {}
        self.reads: dict[ir.Read, None] = {}

    def score(self, root: ir.Node, *, weighs: bool = False) -> str:
        """The name of the functions of a score, or of the weight of a pair.

        Raises:
            AttnDslError: A520, some part of it has no kernel.
        """
        key = self._lowered(root), weighs
        if key not in self._scores:
            first = ir.first_query(self.mask.align)
            suffix = f"_{self._number()}"
            try:
                found = score_functions(key[0], first, suffix)
            except NoKernel as reason:
                title = f"GPUs have no kernel for this score: {reason}"
                raise AttnDslError(Diagnostic("A520", title)) from None
            self._scores[key] = Score(key[0], found, weighs, suffix)
        return f"SCORES{self._scores[key].suffix}"

    def value(self, root: ir.Node) -> str:
        """The name of the function of a number of each query."""
        lowered = self._lowered(root)
        if lowered not in self._values:
            self._values[lowered] = f"of_queries_{self._number()}"
        return self._values[lowered]

    def _lowered(self, root: ir.Node) -> ir.Node:
        known = (*self.whole.tables, *_OWN)
        asks = replace(self.whole, tables=known, root=root, zeros=ir.ZERO, conditions=())
        self.reads |= dict.fromkeys(ir.reads(asks))
        layered = ir.substitute(root, {ir.Var("layer"): ir.Const(self._layer)})
        return passes.lower_root(layered, self.mask)

    def written(self) -> Written:
        """All of it as text.

        Raises:
            AttnDslError: A403, numbers do not fit 64 bits however short sequences are.
        """
        of_pattern = prepared(self.mask, self._layer)
        roots = [root for each in self._scores.values() for root in each.host_roots()]
        ints = _whole_parts([*roots, *self._values])
        bounds = limits(self.whole, [*of_pattern, *ints])
        relation = written(
            self.mask, self._layer, bounds.magnitudes[: len(of_pattern)], self.suffix
        )
        known = dict[ir.Node, Magnitudes]()
        for root, magnitudes in zip(ints, bounds.magnitudes[len(of_pattern) :], strict=True):
            known |= dict.fromkeys(ir.postorder(root), magnitudes)
        writer = RealFunctionWriter(self.whole, known)
        texts, bundles = list[str](), list[str]()
        for each in self._scores.values():
            *functions, bundle = _texts(writer, each)
            texts += functions
            bundles.append(bundle)
        texts += [writer.value(name, root) for root, name in self._values.items()]
        kinds = {table.name: table.kind for table in self.whole.tables}
        read = {name: table for name, table in writer.tables.items() if table in kinds}
        ints_read = {x: table for x, table in read.items() if kinds[table] is not ir.Sort.REAL}
        reals_read = {table: x for x, table in read.items() if kinds[table] is ir.Sort.REAL}
        return Written(relation, bounds, texts, bundles, ints_read, reals_read, dict(writer.sizes))


@dataclass(frozen=True, slots=True)
class Written:
    """The text of a pattern and of the scores over it; its inputs and lengths by the names of parameters."""

    relation: Relation
    bounds: Limits
    texts: list[str]
    bundles: list[str]  # of functions, by the names of scores
    ints: dict[str, str]  # parameter -> input
    reals: dict[str, str]  # input -> parameter
    sizes: dict[str, str]  # parameter -> length


def _whole_parts(roots: Sequence[ir.Node]) -> list[ir.Node]:
    """The ints and truths that real numbers are made of, each once."""
    found = dict[ir.Node, None]()
    for root in roots:
        if root.sort in (ir.Sort.INT, ir.Sort.BOOL):
            found[root] = None
            continue
        for node in ir.postorder(root):
            if node.sort not in (ir.Sort.INT, ir.Sort.BOOL):
                parts = (x for x in node.parts if x.sort in (ir.Sort.INT, ir.Sort.BOOL))
                found |= dict.fromkeys(parts)
    return list(found)


def _texts(writer: RealFunctionWriter, score: Score) -> list[str]:
    """The functions of a score: those of the device, those on tensors, and their bundle."""
    found, suffix = score.functions, score.suffix
    shown = commented(" ".join(ir.show(score.root).split()))
    head = f"# {'The weight' if score.weighs else 'The score'} of a pair:\n{shown}"
    own, *others = found.text.strip("\n").split("\n\n\n")
    texts = [f"{head}\n# fmt: off\n{own}", *others]
    texts[-1] += "\n# fmt: on"
    groups = {"columns": list[str](), "known": list[str]()}
    sides = (found.of_query, found.of_key, found.of_distance)
    for (side, given, said), columns in zip(_SIDES, sides, strict=True):
        read = ir.tables_read(*(column.node for column in columns))
        is_lasting = passes.SEED.name not in read  # else a call decides all columns of the side
        for kind, kept in (("columns", False), ("known", True)):
            mine = [column for column in columns if (is_lasting and column.is_kept) is kept]
            name = f"{side}_{kind}{suffix}" if mine else "nothing"
            groups[kind].append(name)
            if mine:
                texts.append(writer.columns(name, given, f"Numbers of each {said}.", mine))
    names = ("numbers", "of_query", "of_key", "score", "derivatives")
    told = [f"device=({', '.join(name + suffix for name in names)})"]
    told += [f"gains={found.gains}", f"counts={(len(found.of_distance), len(found.reads))}"]
    told.append(f"weighs={score.weighs}")
    told += [
        f"{kind}=({', '.join(each)})" for kind, each in groups.items() if {*each} != {"nothing"}
    ]
    if found.reads:
        told += [f"tables=tables{suffix}", f"places=places{suffix}"]
        texts.append(writer.read_tables(f"tables{suffix}", found.reads, found.products))
        texts.append(writer.read_places(f"places{suffix}", found.reads))
    return [*texts, "\n".join(calling(f"SCORES{suffix} = Functions", told))]
