"""Common mistakes, and the messages they get."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from attndsl import syntax as syn
from attndsl.source import AttnDslError, Diagnostic
from attndsl.syntax.foreign_syntax import HABITS
from tests.rooms.syntax.trees import MODULES


def faults(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(AttnDslError) as caught:
        syn.parse(text)
    return caught.value.diagnostics


# Program, with the place that gets the caret between « and »; code; what the help says.
CASES = [
    ("pattern p = k <= q «&&» q < 3", "A104", "write `and`"),
    ("grid g(x)\n«assert» causal", "A101", "an `assert` stands behind the body"),
    ("pattern p «zeros» 2 = k <= q", "A101", "`zeros` stands behind the body"),
    ("pattern p = k <= q zeros 1 assert causal «zeros 2»", "A109", None),
    ("pattern p = k <= q «&» q < 3", "A104", "write `and`"),
    ("pattern p = k <= q «||» q < 3", "A104", "write `or`"),
    ("pattern p = k <= q «|» q < 3", "A104", "write `or`"),
    ("pattern p = «!»k", "A104", "write `not`"),
    ("pattern p = «~»k", "A104", "write `not`"),
    ("pattern p = q «^» 2 < k", "A104", "pow2(n)"),
    ("pattern p = q «**» 2 < k", "A101", "x * x"),
    ("pattern p = k «<<» 2 < q", "A101", "x * pow2(n)"),
    ("pattern p = k «>>» 2 < q", "A101", "x // pow2(n)"),
    ("pattern p = k «=» q", "A101", "write `==` to compare"),
    ("pattern p = k «===» q", "A101", "write `==`"),
    ("pattern p = k «!==» q", "A101", "write `!=`"),
    ("pattern p = k «<>» q", "A101", "write `!=`"),
    ("pattern p = k «=>» q", "A101", "write `>=`"),
    ("pattern p «=>» k", "A101", "write `>=`"),
    ("pattern p = k «=<» q", "A101", "write `<=`"),
    ("pattern p = k «is» q", "A101", "write `==` or `!=`"),
    ("attention a over causal = s «weights» softmax", "A101", "score s weights softmax"),
    ("attention a over causal = score s mass 1.0 «mass 2.0»", "A109", None),
    ("attention a over «k < q» -> data = score s", "A101", "queries -> keys"),
    ("pattern p = «+»k < q", "A101", "no unary plus"),
    ("pattern p = k == «not» q", "A101", "parentheses"),
    ("pattern p = 1 + «if» a then b else c", "A101", "parentheses"),
    ("pattern p = k <= q and «and» q < 3", "A101", "what stands between"),
    ("pattern p = k <= «*» q", "A101", "what stands between"),
    ("pattern p = 2 «k» < q", "A101", "write the operator: `2 * k`"),
    ("pattern p = q < k «in» 0..3", "A101", "does not chain"),
    ("pattern p = k in 0..3 «<» q", "A101", "does not chain"),
    ("pattern p = k not «nbr»", "A101", "`x not in S`"),
    # numbers
    ("input d: int[«0.5»]", "A105", "whole"),
    ("pattern p = «.5» * k < q", "A105", "`0.5`"),
    ("pattern p = «1.5e999» * q < k", "A105", None),
    ("pattern p = «1e5000» < q", "A105", None),
    ("pattern p = «0x10» < q", "A105", "decimal"),
    ("pattern p = «2147483648» < q", "A105", None),
    # ranges
    ("pattern p = k in 0..«»", "A101", "both ends"),
    ("pattern p = k in 0.. «and» q < 3", "A101", "both ends"),
    ("pattern p = k in «..»3", "A101", "both ends"),
    ("pattern p = k in 0«...»3", "A101", "half-open"),
    ("pattern p = k == 0«..»3", "A101", "right of `in` only"),
    ("pattern p = any j in range(16)«:» k == j", "A101", "`0..16`"),
    ("pattern p = any j in [1, 2]«:» k == j", "A101", "run over a range"),
    ("pattern p = any«(»k == j for j in 0..3)", "A101", "any j in 0..16"),
    ("pattern p = any j «0»..3: k == j", "A101", "any j in 0..16"),
    ("pattern p = any j in 0..3 «k» == j", "A101", "any j in 0..16"),
    ("pattern p = k < (count «j 0»..3: k == j)", "A101", "count j in 0..16"),
    ("pattern p = 3 == «sum j in» 0..3: j", "A101", "parentheses"),
    # if, let, lambda
    ("pattern p = if q < 3«:» k", "A101", "if c then a else b"),
    ("pattern p = if a «else» b", "A101", "needs `then` and `else`"),
    ("pattern p = if q < 3 then k«»", "A101", "without one, write `c and a`"),
    ("pattern p = (if q < 3 then k«)»", "A101", "without one, write `c and a`"),
    ("pattern p = if a then b «elif» c then d else e", "A101", "else if"),
    ("pattern p = a «if» b else c", "A101", "if c then a else b"),
    ("pattern p = a «?» b : c", "A104", "if c then a else b"),
    ("pattern p = let x = 3 in x «<» k", "A101", "let x = e: body"),
    ("pattern p = let x «:=» 3: k", "A101", "let x = e: body"),
    ("pattern p = let x = 3 «k» < x", "A101", "let x = e: body"),
    ("pattern p = lambda «x»: x", "A101", "write a `def`"),
    ("def f(x: int) = return «x»", "A101", "no `return`"),
    # declarations
    ("def f(a«,» b) = a", "A101", "type of each parameter"),
    ("pattern p(a«)» = a", "A101", "type of each parameter"),
    ("pattern p(a «=» 3) = a", "A101", "type of each parameter"),
    ("def f «=» 3", "A101", "perhaps none"),
    ("def f(a: int) «->» int = a", "A101", "inferred"),
    ("def f(a: int)«:» a", "A101", "follows `=`"),
    ("pattern p «image» = k", "A101", "`over`"),
    ("pattern p(m: int) «image» where m > 1 = k", "A101", "`over`"),
    ("pattern p over a «<->» b = k", "A101", "one direction"),
    ("pattern p «->» b = k", "A101", "over queries -> keys"),
    ("pattern p «k» <= q", "A101", "the body follows `=`"),
    ("pattern p = k «where» q < 3", "A101", "before the `=`"),
    ("grid g«[»y]", "A101", "in parentheses"),
    ("grid g(y, «56»)", "A101", "name the axis"),
    ("space s = a «+» b", "A101", "joins segments"),
    ("space s = a«,» b", "A101", "joins segments"),
    ("space s«(»a)", "A101", "space joint = "),
    ("input d«[»batch]", "A101", "input doc: int"),
    ("input d: int«(»batch)", "A101", "input doc: int"),
    ("import other«.»attn", "A101", "in quotes"),
    ("import «'»other'", "A104", "double quotes"),
    ('import a «b» from "x"', "A101", "in quotes"),
    ('«from» "x" import a', "A101", "import a from"),
    ('import «"»other', "A107", None),
    ("«patern» p = k", "A101", "did you mean `pattern`"),
    ("pattern p = k\n«patern» r = k", "A101", "did you mean `pattern`"),
    ("«function» f(x: int) = x", "A101", "did you mean `def`"),
    ("«x» = 3", "A101", "a declaration opens with"),
    ("«k» <= q", "A101", "pattern name = k <= q"),
    ("pattern p align «middle» = k", "A101", None),
    ("pattern p align «strat» = k", "A101", "did you mean `start`"),
    ("pattern p align «=» k", "A101", "write `align start` or"),
    ("pattern p «algn» start = k", "A101", "did you mean `align`"),
    ("input d: «float»[q]", "A108", "`real`"),
    ("input d: «integer»[q]", "A108", "`int`"),
    ("def f(x: «boll») = x", "A108", "`bool`"),
    ("pattern p over a «over b» = k", "A109", None),
    ("pattern p where a «where b» = k", "A109", "commas"),
    ("pattern p align start «align start» = k", "A109", None),
    # names
    ("pattern «over» = k", "A106", "over_"),
    ("pattern p = k < «space»", "A106", "space_"),
    ("pattern p = let «all» = 3: k", "A106", "all_"),
    ("grid g(«in»)", "A106", "in_"),
    # punctuation
    ("pattern p = f(q, k,«)»", "A101", "no comma"),
    ("pattern p = t[0«:»3] == k", "A101", "no slices"),
    ("pattern p = k in «{»1, 2}", "A104", "[1, 2]"),
    ("pattern p = k«;»", "A104", "leave it out"),
    ("pattern p = k «\\»\n  and q", "A104", "leave it out"),
    ("pattern p = k«)»", "A101", "leave the `)` out"),
    ("pattern p = [1, 2«)»", "A101", "`[` is closed by `]`"),
    ("pattern p = «(»k <= q\npattern r = k", "A107", None),
    ("«//» a comment", "A101", "open with `#`"),
    ("«/*» a comment */", "A101", "open with `#`"),
    ("pattern p = k «≤» q", "A104", "`<=`"),
    ("pattern «α» = k", "A104", "letters a to z"),
    ("pattern p = k«\u00a0»<= q", "A104", "ordinary blank"),
    ("pattern p = k «@» q", "A104", None),
]


@pytest.mark.parametrize(
    ("marked", "code", "advice"), CASES, ids=[f"{i}" for i in range(len(CASES))]
)
def test_a_mistake_is_placed_named_and_helped(marked: str, code: str, advice: str | None):
    start, stop = marked.index("«"), marked.index("»") - 1
    fault = faults(marked.replace("«", "").replace("»", ""))[0]
    assert fault.code == code
    span = fault.span
    assert (span.start, span.stop) == (start, stop), fault
    assert (advice or "") in " ".join(fault.helps)
    assert (advice is None) == (not fault.helps), fault.helps


def test_every_habit_is_met_by_a_case():
    said = {
        text
        for marked, *_ in CASES
        for fault in faults(marked.replace("«", "").replace("»", ""))
        for text in fault.helps
    }
    assert sorted({habit.help for habit in HABITS} - said) == []


def test_several_declarations_are_reported_together():
    text = "pattern a = &\npattern b = k\npattern c = k <=\npattern d = (k\n  = 3\ninput x: int[]\n"
    found = faults(text)
    assert [(fault.code, fault.span.line) for fault in found] == [
        ("A104", 1),
        ("A101", 3),
        ("A101", 5),
        ("A101", 6),
    ]


def test_no_more_than_ten_are_reported():
    assert len(faults("pattern p = &\n" * 30)) == 10


def test_an_indented_word_does_not_start_afresh():
    assert len(faults("pattern p = &\n  grid &\n")) == 1


def test_an_unfinished_declaration_is_shown_at_its_end_not_in_the_next():
    (fault,) = faults("pattern p =  # soon\n\n# later\npattern r = k\n")
    assert fault.span.source.locate(fault.span.start) == (1, 12)
    assert [label.span.line for label in fault.labels] == [1, 4]


LARK = re.compile(r"\$END|__|\b(?!A\d|U\+|LESS|GREEK|[A-Z]{2,}-)[A-Z]{3,}\b|[Tt]oken|[Tt]erminal")
SPLINTERS = (
    '( ) [ ] = == <= and or not if then else let any in .. . , : -> ++ // # " pattern def over '
    "grid where 1 x & ` ; lambda for import from 0.5 ≤ \x1b \u202e"
)
PIECES = st.sampled_from([*SPLINTERS.split(" "), "\n", "\n\n", " "])


@given(MODULES, st.data())
@example(syn.Module(), None)
def test_any_damage_is_told_in_the_users_words(module: syn.Module, data: st.DataObject | None):
    text = syn.format(module)
    if data is not None:
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(PIECES) + text[data.draw(st.integers(at, len(text))) :]
    for fault in faults_if_any(text):
        assert fault.code.startswith("A1")
        assert fault.span is not None
        own = [fault.title.split("`")[0], *(label.text for label in fault.labels), *fault.helps]
        assert not LARK.search(" ".join(own)), own
        assert "nothing more" not in " ".join(own)


def faults_if_any(text: str) -> tuple[Diagnostic, ...]:
    try:
        syn.parse(text)
    except AttnDslError as error:
        return error.diagnostics if str(error) else ()
    return ()
