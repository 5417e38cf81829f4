"""Random syntax trees: every form of the language, in every place it can stand."""

from hypothesis import strategies as st

from attndsl import syntax as syn

RESERVED = set(
    "import from as grid space input def pattern where assert over align if then else let any "  # noqa: SIM905
    "all in and or not true false attention".split()
)
NAMES = st.one_of(
    st.sampled_from(
        [
            "q",
            "k",
            "a",
            "b1",
            "_",
            "batch",
            "head",
            "iff",
            "in_",
            "int",
            "sum",
            "count",
            "weights",
            "factor",
            "mass",
            "pair",
        ]
    ),
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True),
).filter(lambda name: name not in RESERVED)
SIZES = st.one_of(st.integers(0, 9), st.integers(0, 2**31 - 1))


def some(strategy: st.SearchStrategy, least: int = 0, most: int = 3) -> st.SearchStrategy:
    return st.lists(strategy, min_size=least, max_size=most).map(tuple)


def chains(node: type, operands: st.SearchStrategy, operators: str) -> st.SearchStrategy:
    pair = st.tuples(st.sampled_from(operators.split()), operands)
    return st.builds(
        lambda first, rest: node((first, *(o for _, o in rest)), tuple(w for w, _ in rest)),
        operands,
        st.lists(pair, min_size=1, max_size=3),
    )


def larger(inner: st.SearchStrategy) -> st.SearchStrategy:
    ranges = st.builds(syn.Range, inner, inner)
    arguments = st.builds(syn.Argument, inner, st.none() | NAMES)
    bindings = st.builds(syn.Binding, NAMES, inner)
    return st.one_of(
        st.builds(syn.ListOf, some(inner)),
        st.builds(syn.Access, inner, NAMES),
        st.builds(syn.Index, inner, some(inner, 1)),
        st.builds(syn.Call, NAMES, some(arguments)),
        st.builds(syn.Neg, inner),
        chains(syn.Product, inner, "* / // %"),
        chains(syn.Sum, inner, "+ -"),
        st.builds(syn.Member, inner, inner | ranges, st.booleans()),
        chains(syn.Compare, inner, "< <= > >= == !="),
        st.builds(syn.Not, inner),
        st.builds(syn.And, some(inner, 2)),
        st.builds(syn.Or, some(inner, 2)),
        st.builds(syn.If, inner, inner, inner),
        st.builds(syn.Let, some(bindings, 1), inner),
        st.builds(syn.Any, NAMES, ranges, inner),
        st.builds(syn.All, NAMES, ranges, inner),
        st.builds(syn.Count, NAMES, ranges, inner),
        st.builds(syn.Total, NAMES, ranges, inner),
    )


def with_scores(inner: st.SearchStrategy) -> st.SearchStrategy:
    """Expressions with what stands in attentions only."""
    weights = st.builds(syn.Weights, NAMES, st.none() | inner)
    pairs = st.builds(syn.By, st.just("pair"), SIZES)
    keys = st.builds(syn.By, NAMES.filter(lambda name: name != "pair"))
    optional = st.none() | inner
    scored = st.builds(
        syn.Scored,
        inner,
        st.none() | weights,
        optional,
        optional,
        optional,
        st.just(()) | st.tuples(pairs) | st.tuples(keys) | st.tuples(pairs, keys),
    )
    return larger(inner) | scored | st.builds(syn.Join, some(inner, 2))


FRACTIONS = st.builds(
    lambda whole, rest, power: syn.Fraction(f"{whole}.{rest.rstrip('0') or '0'}{power}"),
    st.integers(0, 10**9 - 1),
    st.from_regex(r"[0-9]{1,9}", fullmatch=True),
    st.sampled_from(["", "", "e-6", "e30"]),
)
LEAVES = st.one_of(st.builds(syn.Name, NAMES), st.builds(syn.Int, SIZES), FRACTIONS)
EXPRESSIONS = st.recursive(LEAVES | st.builds(syn.Bool, st.booleans()), larger, max_leaves=12)
SCORES = st.recursive(LEAVES, with_scores, max_leaves=8)

# Comments as parsing leaves them: no blanks at the end, none that are documentation.
WORDS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\x00"), max_size=20
).map(str.rstrip)
DOCS = st.lists(WORDS, max_size=3).map("\n".join).map(lambda text: text.strip("\n"))
REMARKS = st.one_of(
    WORDS.filter(lambda text: not text.startswith("#")).map("#{}".format),
    st.sampled_from(["# ---", "#### ruled ####", "#", '# "not a string', "# a ## b"]),
)


def spaced(lines: st.SearchStrategy, *, blank_at_end: bool) -> st.SearchStrategy:
    """Lines, each perhaps followed by one blank line."""
    groups = st.lists(st.tuples(lines, st.booleans()), max_size=3)

    def joined(found: list[tuple[str, bool]]) -> tuple[str, ...]:
        flat = [text for line, blank in found for text in ([line, ""] if blank else [line])]
        return tuple(flat[:-1] if flat and not flat[-1] and not blank_at_end else flat)

    return groups.map(joined)


ABOUT = {
    "doc": st.just("") | DOCS,
    "remarks": st.builds(
        syn.Remarks, st.just(()) | spaced(REMARKS, blank_at_end=True), st.just("") | REMARKS
    ),
}
AXES = st.builds(syn.Axis, NAMES, st.none() | SIZES)
SEGMENTS = st.one_of(
    st.builds(syn.Segment, NAMES),
    st.builds(syn.Segment, NAMES, st.just(()), SIZES),
    st.builds(syn.Segment, NAMES, some(AXES, 1)),
)
KINDS = st.sampled_from(["int", "bool", "list", "real"])
PARAMETERS = st.builds(syn.Parameter, NAMES, KINDS, st.none() | EXPRESSIONS)
PATHS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters='"\n\r\x00'), max_size=12
)
COMPARISONS = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
TWO_WORDS = st.tuples(NAMES, NAMES)
PHRASES = st.builds(
    lambda words, more, bound: syn.Phrase((*words, *more), *bound),
    TWO_WORDS,
    some(NAMES | SIZES),
    st.just((None, None)) | st.tuples(COMPARISONS, EXPRESSIONS | FRACTIONS),
)
MEASURES = st.builds(syn.Measure, EXPRESSIONS, COMPARISONS, FRACTIONS)
ASSERTIONS = st.builds(syn.Assertion, EXPRESSIONS | PHRASES | MEASURES, some(EXPRESSIONS))
DECLARATIONS = st.one_of(
    st.builds(
        syn.Import, PATHS, some(st.builds(syn.ImportName, NAMES, st.none() | NAMES)), **ABOUT
    ),
    st.builds(syn.Grid, NAMES, some(AXES, 1), **ABOUT),
    st.builds(syn.Space, NAMES, some(SEGMENTS, 1), **ABOUT),
    st.builds(syn.Input, NAMES, KINDS, some(st.builds(syn.Dim, NAMES | SIZES), 1), **ABOUT),
    st.builds(syn.Def, NAMES, some(PARAMETERS), EXPRESSIONS, **ABOUT),
    st.builds(
        syn.Pattern,
        NAMES,
        some(PARAMETERS),
        EXPRESSIONS,
        st.none() | st.builds(syn.Over, NAMES, st.none() | NAMES),
        st.sampled_from([None, "start", "end"]),
        some(EXPRESSIONS),
        assertions=st.just(()) | some(ASSERTIONS),
        **ABOUT,
    ),
    st.builds(
        syn.Attention,
        NAMES,
        some(PARAMETERS),
        SCORES,
        st.none() | EXPRESSIONS,
        align=st.sampled_from([None, "start", "end"]),
        where=some(EXPRESSIONS),
        **ABOUT,
    ),
    st.builds(syn.Attention, NAMES, st.just(()), SCORES, st.builds(syn.Name, NAMES), NAMES),
)
MODULES = st.builds(
    syn.Module, some(DECLARATIONS), spaced(REMARKS | WORDS.map("##{}".format), blank_at_end=False)
)
