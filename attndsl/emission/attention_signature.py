"""The functions of an emitted attention that take its inputs: ``attention`` itself, and those that make its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from attndsl import ir
from attndsl.emission.bundle import traits
from attndsl.emission.names import Names, calling, quoted
from attndsl.emission.scored import ScoredPattern, Written
from attndsl.emission.signature import (
    GIVEN,
    Keywords,
    ScoredInputs,
    keywords_of,
    pattern_of,
    told_of_extents,
    told_of_input,
)

reals = ir.reals

RESERVED: Final = (
    *GIVEN, "real", "scaled", "fits", "joined", "with_mass", "Part", "part_of", "given", "dict", "lses", "outs",
    "weighed", "l1", "entmax", "columns", "seed_of", "dropout_seed", "make",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Signature:
    """A pattern of an attention and its inputs, by the names of the file."""

    scored: ScoredPattern
    written: Written
    keywords: Keywords
    given: ScoredInputs

    @staticmethod
    def of(scored: ScoredPattern, found: Written, names: Names) -> Signature:
        """The names of the inputs and lengths of a pattern and its scores."""
        keywords = keywords_of(scored.whole, found.relation.sizes, names)
        sizes = {
            size: names.of(("size", size), name)
            for name, size in found.sizes.items()
            if size not in keywords.sizes and ":" in size
        }
        keywords = Keywords(
            keywords.inputs, keywords.axes, keywords.extents, {**sizes, **keywords.sizes}
        )
        ours = {table.name: keywords.inputs[table.name] for table in scored.reals}
        given = ScoredInputs(
            scored.suffix, scored.reals, found.ints, found.sizes, tuple(scored.reads), ours
        )
        return Signature(scored, found, keywords, given)

    def pattern(self) -> str:
        """The function that makes the pattern."""
        ints = [x for x in self.scored.whole.tables if x.kind is not ir.Sort.REAL]
        mask = replace(self.scored.mask, tables=tuple(ints))
        return pattern_of(
            mask, self.written.relation, traits(self.scored.mask), self.keywords, self.given
        )

    @property
    def inputs(self) -> list[str]:
        """All inputs and extents as keywords."""
        return [*self.keywords.inputs.values(), *self.keywords.extents]

    def part(self, *, drops: bool) -> str:
        """The function that makes a part of the attention: tensors and their schedule."""
        suffix, inputs = self.scored.suffix, self.keywords.inputs
        of_tables = {table.name: table for table in self.scored.whole.tables}
        lines = ["check(q, k, v, LONGEST, HEADS)"]
        for table in self.scored.reals:
            name = inputs[table.name]
            dims = [quoted(dim) if isinstance(dim, str) else str(dim) for dim in table.dims]
            spelled = f"({', '.join(dims)}{',' * (len(dims) == 1)})"
            lines += calling(
                f"{name} = real", [quoted(table.name), name, spelled, "q", "k.shape[2]"]
            )
        ints = [inputs[x] for x, table in of_tables.items() if table.kind is not ir.Sort.REAL]
        asked = [f"{name}={name}" for name in ints]
        asked += [f"{name}_shape={name}.shape" for name in self.given.reals.values()]
        asked += [f"{name}={name}" for name in self.keywords.extents]
        sizes = ["q.shape[2]", "k.shape[2]", "*q.shape[:2]", "q.device"]
        lines += [f"sizes = ({', '.join(sizes)})"]
        lines += calling("make = functools.partial", [f"pattern_of{suffix}", "*sizes", *asked])
        known = [
            quoted(f"pattern_of{suffix}"),
            "*sizes",
            *(f"{x}.shape" for x in self.given.reals.values()),
            *self.keywords.extents,
        ]
        together = f"({', '.join(ints)}{',' * (len(ints) == 1)})"
        lines += calling(
            "schedule = recalled", [f"({', '.join(known)})", together, "lambda: Schedule(make())"]
        )
        of_reals = [
            f"{quoted(self.written.reals[x])}: {inputs[x]}"
            for x in inputs
            if x in self.written.reals
        ]
        made = ["schedule", "q", "k", "v", "scale", f"{{{', '.join(of_reals)}}}"]
        taken = ["q", "k", "v", "scale", *self.inputs]
        if drops:
            taken.append("dropout_seed")
            made.append('{"seed": seed_of(dropout_seed, q)}')
        lines += calling("return Part", made)
        head = calling(f"def part_of{suffix}", taken, ":", 100)
        doc = (
            '    """A part of the attention with the tensors of a call; its inputs are checked."""'
        )
        return "\n".join([*head, doc, *(f"    {line}" for line in lines)])


def attention_text(
    terms: Sequence[ir.Term],
    signatures: Sequence[Signature],
    names: Names,
    body: Sequence[str],
    *,
    drops: bool,
) -> tuple[str, str]:
    """The text of ``attention``, which ends with ``body``; and how a call of it looks."""
    of_mask = {each.scored.mask: each for each in signatures}
    has_lse = len(terms) == 1 and terms[0].coefficient is reals.UNITY
    named = dict.fromkeys(part.keys for term in terms for part in term.parts if part.keys)
    foreign = {name: names.of(("keys", name), name) for name in named}
    inputs, extents = dict[str, ir.Table](), dict[str, str]()
    for each in signatures:
        inputs |= {each.keywords.inputs[table.name]: table for table in each.scored.whole.tables}
        extents |= dict(told_of_extents(each.keywords))
    told = {name: told_of_input(table) for name, table in inputs.items()}
    told |= dict.fromkeys(foreign.values(), "Keys and values in the place of k and v, (k, v).")
    told |= {"dropout_seed": "An int that says which weights are dropped."} if drops else {}
    asked = [*told, *(f"{name}=None" for name in extents), "scale=None"]
    asked += ["return_lse=False"] if has_lse else []
    head = calling("def attention", ["q", "k", "v", "*", *asked], ":", 100)
    lines = _documented({**told, **extents}, has_lse=has_lse)
    lines.append("q, scale = scaled(q, scale)")
    number = 0
    for term in terms:
        for part in term.parts:
            number += 1
            signature = of_mask[part.mask]
            given = [*_tensors(part, foreign), "scale", *signature.inputs]
            given += ["dropout_seed"] if drops else []
            lines += calling(f"part_{number} = part_of{signature.scored.suffix}", given)
    lines += [*body, "return (out, lse) if return_lse else out" if has_lse else "return out"]
    text = "\n".join([*head, *(f"    {line}".rstrip() for line in lines)])
    shown = [f"{name}={name}" for name in told]
    return text, ", ".join(["q", "k", "v", *shown, *(f"{name}=..." for name in list(extents)[1:])])


def _documented(told: Mapping[str, str], *, has_lse: bool) -> list[str]:
    """The docstring of ``attention``."""
    more = " and, if asked for, its log-sum-exp [B, H, Q], float32" if has_lse else ""
    lines = [
        "q: Queries [B, H, Q, D], bfloat16, float16 or float32, of any strides.",
        "k: Keys [B, Hkv, K, D]; Hkv divides H.",
        "v: Values [B, Hkv, K, Dv].",
        *(f"{name}: {text}" for name, text in told.items()),
        "scale: Of the scores, a number or a tensor [H]; 1 / sqrt(D) by default.",
        *(["return_lse: Whether to return the log-sum-exp too."] if has_lse else []),
    ]
    return [
        '"""The attention of q over k and v; a query without a key has out 0.',
        "",
        "Args:",
        *(f"    {line}" for line in lines),
        "",
        "Returns:",
        f"    out [B, H, Q, Dv]{more}. Gradients reach q, k, v and every real input.",
        '"""',
    ]


def _tensors(part: ir.Scored, foreign: dict[str, str]) -> list[str]:
    """q, k and v of a part."""
    found = ["q", "k", "v"]
    if part.keys:
        found[1:] = [f"*{foreign[part.keys]}"]
    if part.member is not None:
        place, count = part.member
        found[0] = f"q[:, {place}::{count}]"
        if part.keys:
            name = foreign[part.keys]
            found[1:] = [f"{name}[0][:, {place}::{count}]", f"{name}[1]"]
        else:
            found[1] = f"k[:, {place}::{count}]"
    return found
