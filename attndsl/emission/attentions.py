"""One stand-alone file for one attention: its patterns, the functions of its scores, and how forms are made of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from attndsl import ir, passes
from attndsl.emission.attention_signature import RESERVED, Signature, attention_text
from attndsl.emission.bundle import SCORED_FILES, constants, defined, whole_file
from attndsl.emission.names import Names, calling
from attndsl.emission.scored import ScoredPattern
from attndsl.source import AttnDslError, Diagnostic

reals = ir.reals


def emit_attention(
    attention: ir.Attention, layer: int = 0, *, definition: str = "", dropout_p: float = 0.0
) -> str:
    """A Python file that computes an attention: forward, log-sum-exp, and gradients of q, k, v and real inputs.

    It imports torch and triton, and nothing of this package. Equal attentions give equal bytes.

    Args:
        attention: The attention.
        layer: The value of ``layer`` in it.
        definition: How the user wrote it, to be quoted.
        dropout_p: The probability with which a weight is dropped; calls of the file name a seed then.

    Returns:
        The text, as the formatter would leave it.

    Raises:
        AttnDslError: A403 numbers that do not fit 64 bits, A520 forms or scores without a kernel.
    """
    if dropout_p:
        attention = passes.drop_weights(attention, dropout_p)
    writer = _Writer(attention, layer)
    body = writer.body()
    made = {each: each.written() for each in writer.patterns.values()}
    names = Names(*RESERVED, *(name for each in made.values() for name in each.relation.sizes))
    parts = [constants([x.bounds for x in made.values()], has_inputs=writer.reads_ints())]
    signatures = []
    for each, found in made.items():
        signature = Signature.of(each, found, names)
        signatures.append(signature)
        relation = found.relation
        parts += [relation.in_pattern, relation.zero_keys, relation.conditions]
        parts += [*found.texts, signature.pattern(), signature.part(drops=writer.drops)]
    asked, sample = attention_text(writer.terms, signatures, names, body, drops=writer.drops)
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
        self.drops = passes.SEED in attention.tables
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
        known.add(passes.SEED.name)
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
        if form is ir.Form.SOFTMAX:
            return self._softmax(term, parts)
        return self._composed(term, parts[0][0], parts[0][1])

    def _softmax(self, term: ir.Term, parts: Sequence[tuple[str, ir.Scored]]) -> list[str]:
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
            lines.append(f"out, lse = with_mass(out, lse, {self._mass(term, name, part)})")
        if any(part.factor is not None for _, part in parts):
            weights = (self._weight(part, passes.softmax_weight(part)) for _, part in parts)
            each = [f"({name}, {weight})" for (name, _), weight in zip(parts, weights, strict=True)]
            lines += calling("out = weighed", [f"[{', '.join(each)}]", "lse"])
        return lines

    def _composed(self, term: ir.Term, name: str, part: ir.Scored) -> list[str]:
        """A form that takes several passes over its one part."""
        over, weight = self.patterns[part.mask], part.weight
        match part.form:
            case ir.Form.POINTWISE if weight is not None:
                return [
                    f"out, lse = {name}.run({self._weight(part, passes.with_factor(part, weight))})"
                ]
            case ir.Form.L1 if weight is not None:
                factored = passes.with_factor(part, weight)
                given = [self._weight(part, weight)]
                given.append("None" if part.factor is None else self._weight(part, factored))
                given.append("None" if term.log_mass is None else self._mass(term, name, part))
            case ir.Form.ENTMAX:
                rest = passes.entmax_rest(part.mask)
                square = reals.times(rest, rest)
                given = [
                    over.score(reals.times(reals.HALF, part.score)),
                    self._weight(part, reals.UNITY),
                ]
                roots = (rest, square, passes.with_factor(part, square))
                given += [self._weight(part, root) for root in roots]
            case ir.Form.COLUMNS:
                column = passes.column_weight()
                given = [over.score(part.score)]
                roots = (reals.UNITY, column, passes.with_factor(part, column))
                given += [self._weight(part, root) for root in roots]
            case form:
                raise _refused(f"the weights `{form.value}`")
        return calling(f"out, lse = {part.form.value}", [name, *given])

    def _mass(self, term: ir.Term, name: str, part: ir.Scored) -> str:
        """The text of the logarithm of the mass of a term."""
        assert term.log_mass is not None, "there is a mass"
        return f"{name}.of_queries({self.patterns[part.mask].value(term.log_mass)})"

    def _weight(self, part: ir.Scored, weight: ir.Node) -> str:
        """The functions of a weight of the pairs of a part."""
        root = ir.substitute(weight, {reals.SCORE: part.score})
        return self.patterns[part.mask].score(root, weighs=True)


def _refused(form: str) -> AttnDslError:
    title = f"{form}: files of it are not written yet"
    return AttnDslError(Diagnostic("A520", title, helps=("`emit` takes all other weights",)))
