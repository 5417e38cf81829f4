"""One stand-alone file for one attention: its patterns, the functions of its scores, and how forms are made of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from attndsl import ir, passes
from attndsl.emission.bundle import SCORED_FILES, constants, defined, traits, whole_file
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
from attndsl.source import AttnDslError, Diagnostic

reals = ir.reals

_RESERVED: Final = (
    *GIVEN, "real", "scaled", "fits", "joined", "with_mass", "Part", "Schedule", "part_of", "given", "dict", "lses",
    "outs",
)  # fmt: skip


def emit_attention(attention: ir.Attention, layer: int = 0, *, definition: str = "") -> str:
    """A Python file that computes an attention: forward, log-sum-exp, and gradients of q, k, v and real inputs.

    It imports torch and triton, and nothing of this package. Equal attentions give equal bytes.

    Args:
        attention: The attention.
        layer: The value of ``layer`` in it.
        definition: How the user wrote it, to be quoted.

    Returns:
        The text, as the formatter would leave it.

    Raises:
        AttnDslError: A403 numbers that do not fit 64 bits, A520 forms or scores without a kernel.
    """
    writer = _Writer(attention, layer)
    body = writer.body()
    made = {each: each.written() for each in writer.patterns.values()}
    names = Names(*_RESERVED, *(name for each in made.values() for name in each.relation.sizes))
    parts = [constants([x.bounds for x in made.values()], has_inputs=writer.reads_ints())]
    signatures = []
    for each, found in made.items():
        signature = _Signature.of(each, found, names)
        signatures.append(signature)
        relation = found.relation
        parts += [relation.in_pattern, relation.zero_keys, relation.conditions]
        parts += [*found.texts, signature.pattern(), signature.part()]
    asked, sample = _attention(writer, signatures, names, body)
    about = f"Attention {attention.name}." if attention.name else "An attention without a name."
    said = [about, *([f"\n{attention.doc}"] if attention.doc else []), *defined(definition)]
    said += ["\nIts meaning:\n", *(f"    {x}" for x in ir.show_attention(attention).splitlines())]
    bundles = "\n".join(x for found in made.values() for x in found.bundles)
    end = f"# {'-' * 76} the scores\n\n{bundles}"
    return whole_file(said, sample, [parts[0], asked, *parts[1:]], SCORED_FILES, end)


class _Writer:
    """The patterns of an attention, the scores over each, and the statements that compute its terms."""

    def __init__(self, attention: ir.Attention, layer: int) -> None:
        self.attention = attention
        self.terms = tuple(passes.with_zero_keys(term) for term in attention.terms)
        masks = dict.fromkeys(part.mask for term in self.terms for part in term.parts)
        numbers: Iterator[int] = itertools.count(1)
        self.patterns = {
            mask: ScoredPattern(
                mask,
                self._tables(mask),
                layer,
                f"_{place}" if len(masks) > 1 else "",
                lambda: next(numbers),
            )
            for place, mask in enumerate(masks, 1)
        }

    def reads_ints(self) -> bool:
        """Whether some input holds ints or truths."""
        return any(
            x.kind is not ir.Sort.REAL for each in self.patterns.values() for x in each.whole.tables
        )

    def _tables(self, mask: ir.Mask) -> list[ir.Table]:
        """The inputs that the expressions over a mask read, beside its own; a first part has those of its term."""
        roots = list[ir.Node]()
        for term in self.terms:
            for place, part in enumerate(term.parts):
                if part.mask == mask:
                    mass = [] if term.log_mass is None else [term.log_mass]
                    roots += [*part.expressions(), *([] if place else [term.coefficient, *mass])]
        read, known = ir.tables_read(*roots), {table.name for table in mask.tables}
        return [x for x in self.attention.tables if x.name in read and x.name not in known]

    def body(self) -> list[str]:
        """The statements behind those that make ``part_1``, ``part_2``, ..."""
        lines, outs = list[str](), list[str]()
        places = itertools.count(1)
        for number, term in enumerate(self.terms, 1):
            parts = [(f"part_{next(places)}", part) for part in term.parts]
            lines += self._term(term, parts)
            out = "out"
            if term.coefficient is not reals.UNITY:
                first = self.patterns[term.parts[0].mask]
                factor = f"{parts[0][0]}.of_queries({first.value(term.coefficient)})"
                lines.append(f"out = out * {factor}[..., None]")
            if len(self.terms) > 1:
                out = f"out_{number}"
                lines.append(f"{out} = out")
            outs.append(out)
        return [
            *lines,
            f"out = ({' + '.join(outs)}).to(v.dtype)" if len(outs) > 1 else "out = out.to(v.dtype)",
        ]

    def _term(self, term: ir.Term, parts: Sequence[tuple[str, ir.Scored]]) -> list[str]:
        form = parts[0][1].form
        if form is ir.Form.POINTWISE:
            ((name, part),) = parts
            assert part.weight is not None, "the front end demands it"
            return [
                f"out, lse = {self._weighed(name, part, passes.with_factor(part, part.weight))}"
            ]
        if form is ir.Form.SOFTMAX:
            return self._softmax(term, parts)
        raise _refused(f"the weights `{form.value}`")

    def _softmax(self, term: ir.Term, parts: Sequence[tuple[str, ir.Scored]]) -> list[str]:
        if any(part.factor is not None for _, part in parts):
            raise _refused("a factor after the softmax")
        runs = [f"{name}.run({self.patterns[part.mask].score(part.score)})" for name, part in parts]
        if len(runs) == 1:
            lines = [f"out, lse = {runs[0]}"]
        else:
            lines = [
                *calling("outs, lses = zip", [*runs, "strict=True"]),
                "out, lse = joined(outs, lses)",
            ]
        if term.log_mass is not None:
            name, part = parts[0]
            mass = f"{name}.of_queries({self.patterns[part.mask].value(term.log_mass)})"
            lines.append(f"out, lse = with_mass(out, lse, {mass})")
        return lines

    def _weighed(self, name: str, part: ir.Scored, weight: ir.Node, *given: str) -> str:
        """The text of a pass whose scores are weights."""
        root = ir.substitute(weight, {reals.SCORE: part.score})
        score = self.patterns[part.mask].score(root, weighs=True)
        return f"{name}.run({', '.join([score, *given])})"


def _refused(form: str) -> AttnDslError:
    title = f"{form}: files of it are not written yet"
    helps = (
        "`emit` takes softmaxes, with mass, soft caps and `++`, and weights without a normaliser",
    )
    return AttnDslError(Diagnostic("A520", title, helps=helps))


@dataclass(frozen=True, slots=True)
class _Signature:
    """A pattern of an attention and its inputs, by the names of the file."""

    scored: ScoredPattern
    written: Written
    keywords: Keywords
    given: ScoredInputs

    @staticmethod
    def of(scored: ScoredPattern, found: Written, names: Names) -> _Signature:
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
        return _Signature(scored, found, keywords, given)

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

    def part(self) -> str:
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
        lines += calling(
            "return Part", ["schedule", "q", "k", "v", "scale", f"{{{', '.join(of_reals)}}}"]
        )
        head = calling(f"def part_of{suffix}", ["q", "k", "v", "scale", *self.inputs], ":", 100)
        doc = (
            '    """A part of the attention with the tensors of a call; its inputs are checked."""'
        )
        return "\n".join([*head, doc, *(f"    {line}" for line in lines)])


def _attention(
    writer: _Writer, signatures: Sequence[_Signature], names: Names, body: Sequence[str]
) -> tuple[str, str]:
    """The text of ``attention``; and how a call of it looks."""
    of_mask = {each.scored.mask: each for each in signatures}
    terms = writer.terms
    has_lse = len(terms) == 1 and terms[0].coefficient is reals.UNITY
    foreign = {name: names.of(("keys", name), name) for name in writer.attention.key_inputs}
    inputs, extents = dict[str, ir.Table](), dict[str, None]()
    for each in signatures:
        inputs |= {each.keywords.inputs[table.name]: table for table in each.scored.whole.tables}
        extents |= dict.fromkeys(each.keywords.extents)
    asked = [*inputs, *foreign.values(), *(f"{name}=None" for name in extents), "scale=None"]
    head = calling(
        "def attention",
        ["q", "k", "v", "*", *asked, *(["return_lse=False"] if has_lse else [])],
        ":",
        100,
    )
    lines = ['"""The attention of q over k and v; a query without a key has out 0.', "", "Args:"]
    lines += [
        "    q: Queries [B, H, Q, D], bfloat16, float16 or float32, of any strides.",
        "    k: Keys [B, Hkv, K, D]; Hkv divides H.",
        "    v: Values [B, Hkv, K, Dv].",
        *(f"    {name}: {told_of_input(table)}" for name, table in inputs.items()),
        *(
            f"    {name}: Keys and values in the place of k and v, (k, v)."
            for name in foreign.values()
        ),
    ]
    for each in signatures:
        lines += [f"    {name}: {text}" for name, text in told_of_extents(each.keywords)]
    lines.append("    scale: Of the scores, a number or a tensor [H]; 1 / sqrt(D) by default.")
    if has_lse:
        lines.append("    return_lse: Whether to return the log-sum-exp too.")
    more = " and, if asked for, its log-sum-exp [B, H, Q], float32" if has_lse else ""
    lines += [
        "",
        "Returns:",
        f"    out [B, H, Q, Dv]{more}. Gradients reach q, k, v and every real input.",
        '"""',
    ]
    lines.append("q, scale = scaled(q, scale)")
    number = 0
    for term in terms:
        for part in term.parts:
            number += 1
            signature = of_mask[part.mask]
            given = [*_tensors(part, foreign), "scale", *signature.inputs]
            lines += calling(f"part_{number} = part_of{signature.scored.suffix}", given)
    lines += [*body, "return (out, lse) if return_lse else out" if has_lse else "return out"]
    text = "\n".join([*head, *(f"    {line}".rstrip() for line in lines)])
    shown = [f"{name}={name}" for name in (*inputs, *foreign.values())]
    return text, ", ".join(["q", "k", "v", *shown, *(f"{name}=..." for name in list(extents)[1:])])


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
