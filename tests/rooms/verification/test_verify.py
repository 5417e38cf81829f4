"""``verify`` passes what is right, finds what is wrong, and shows it small."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch

import attndsl
from attndsl import ir, patterns
from attndsl import schedule as scheduling
from attndsl.analysis import Far, Reach
from attndsl.backends import Executable, scored_products, scored_stick
from attndsl.compiler import Program
from attndsl.ir import sizing
from attndsl.op.planning import Planner
from attndsl.source import AttnDslError, Diagnostic
from attndsl.verification import JUDGES, Random, Report, dense, draw_case
from tests.rooms.patterns.oracles import FLAT, GRIDS

PRELUDE = {
    **{name: {} for name in patterns.names()},
    **{case.name: case.values for case in (*FLAT, *GRIDS)},
    "chosen_blocks": {"b": 3},
    "captioned_box": {"s": 3},
    "varlen": {"left": 3},
    "flashmask": {"causal": True},
    **{key: {"bq": 5, "bk": 3} for key in ("block_lists", "block_bitmap", "block_rows")},
}


@pytest.mark.parametrize("name", PRELUDE)
def test_every_pattern_of_the_prelude_is_right(name: str):
    report = attndsl.verify(attndsl.compile(name, **PRELUDE[name]), seconds=0.05)
    assert report.ok, str(report)
    assert report.cases >= 4
    assert not report.skipped


@pytest.mark.parametrize(
    "text",
    [
        "space s = text(5) ++ image(y=3, x)\npattern p over s = k in text or abs(q.y - k.y) <= 1",
        "space s = a(n) ++ b(m)\npattern p over s = q in a and k in b or q == k",
        "grid g(y=6, x=7)\npattern p over g = q.y == k.y",
        "grid g(y, x)\npattern p over g align start = k <= q",
        "input own: int[q]\ninput near: list[head, q, 3]\npattern p = own[q] > k or k in near[q]",
        "input flag: bool[x]\ngrid g(y, x)\npattern p over g = flag[k.x]",
        "input gate: int[2, n]\npattern p = gate[head % 2, q - k] > 0",
        "pattern p align start = if layer == 0 then k <= q else k < 3",
        "pattern p = any j in 0..len(k): q - k == j * j",
    ],
)
def test_spaces_inputs_and_lengths_are_drawn_as_declared(text: str):
    report = attndsl.verify(attndsl.compile(text), seconds=0.2, seed=3)
    assert report.ok, str(report)
    assert not report.skipped


@pytest.mark.parametrize("name", patterns.named_attentions())
def test_every_published_attention_is_right(name: str):
    report = attndsl.verify(name, seconds=0, seed=1)
    assert report.ok, str(report)
    assert report.checked == {"backend blocked on cpu": report.cases}


@pytest.mark.parametrize("score", ["s + b[q - k]", "s + 9.0"])
def test_stick_breaking_is_right_in_many_strips_and_where_nothing_is_left(
    score: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scored_stick, "PIECE", 256)
    text = f"input b: real[head, n] attention a over causal_window(90) or k < 3 = score {score} weights stick"
    report = attndsl.verify(text, seconds=0.4, seed=2)
    assert report.ok, str(report)


def test_a_wrong_gradient_of_a_real_input_is_found_and_made_small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scored_products, "give_leaf", lambda *_: None)
    report = attndsl.verify("alibi", seconds=0)
    assert not report
    assert report.failure is not None
    assert (report.failure.fault.what, report.failure.case.q_len) == ("dslope", 1)
    assert "score s - (slope * (q - k))" in str(report)
    assert "got     0" in str(report)


def test_back_ends_that_run_no_scores_are_said_to_be_unchecked(monkeypatch: pytest.MonkeyPatch):
    def refused(*_: object, **__: object) -> None:
        raise AttnDslError(Diagnostic("A520", "no kernels"))

    monkeypatch.setattr(Planner, "scored", refused)
    report = attndsl.verify("alibi", seconds=0)
    assert (report.ok, report.cases, report.checked) == (False, 0, {})
    assert "backend blocked on cpu: no kernels" in report.skipped


def test_a_report_says_what_was_checked_and_depends_on_the_seed_alone():
    p = attndsl.compile("causal_window", w=5)
    text = str(attndsl.verify(p, seconds=0))
    assert text.startswith("causal_window: 4 calls of up to ")
    assert "backend blocked on cpu" in text
    calls = [[str(draw_case(p.ir, Random(7, i), 300)) for i in range(9)] for _ in range(2)]
    assert calls[0] == calls[1]
    assert len(set(calls[0])) > 5


def test_calls_are_drawn_of_a_pattern_that_few_lengths_suit():
    mask = attndsl.compile("input t: int[1]\npattern p over image = t[q.y] == t[k.x]").ir
    drawn = [draw_case(mask, Random(seed), 2) for seed in range(30)]
    assert {(case.q_len, case.k_len) for case in drawn} == {(1, 1)}


def test_calls_whose_inputs_no_lengths_make_long_enough_are_told_as_not_checked():
    between = attndsl.compile(
        "input own: int[q]\ngrid tokens(n)\ngrid meta(m)\nspace s = meta ++ tokens\n"
        "pattern p over tokens -> s = own[k] <= 0 and q.n >= 0"  # more keys than entries of own
    )
    found = attndsl.verify(between, seconds=0.2)
    assert found
    assert "not checked" in str(found)
    assert "too few for" in str(found)


def test_progress_is_told_up_to_the_whole():
    seen = []
    attndsl.verify(attndsl.compile("causal"), seconds=0.01, progress=lambda *at: seen.append(at))
    assert [cases for cases, _ in seen] == list(range(1, len(seen) + 1))
    assert seen[-1][1] == 1.0


def test_a_backend_that_does_not_exist_is_an_error():
    with pytest.raises(AttnDslError) as caught:
        attndsl.verify(attndsl.compile("causal"), seconds=0, backends=["blokced"])
    assert caught.value.code == "A521"


def test_what_is_too_large_is_not_called_right():
    p = attndsl.compile("grid g(y=3000, x=3000)\npattern p over g align start = q.y == k.y")
    report = attndsl.verify(p, seconds=0)
    assert not report
    assert "nothing could be checked" in str(report)
    assert "too many for a dense mask" in str(report)


# ---------------------------------------------------------------------------- planted faults

SCHEDULE = Program.schedule
WINDOW = "pattern w = causal and q - k < 20"


def verified_with(target: object, name: str, wrong: object, text: str = WINDOW) -> Report:
    with mock.patch.object(target, name, wrong):
        return attndsl.verify(attndsl.compile(text), seconds=2, seed=1)


def with_plans(change):
    """Schedules whose plans are changed behind the scheduler's back."""

    def wrong(self, call, tile, *rest):
        made = SCHEDULE(self, call, tile, *rest)
        return replace(made, plans=tuple(change(each) for each in made.plans))

    return wrong


def first_dropped(tiles: scheduling.Tiles) -> scheduling.Tiles:
    if not tiles.nnz:
        return tiles
    row = int(tiles.rows[0])
    indptr = tiles.indptr - (np.arange(len(tiles.indptr)) > row)
    return scheduling.Tiles(indptr, tiles.indices[1:])


def test_a_tile_that_the_schedule_lacks_is_found():
    def change(plan):
        return replace(
            plan,
            partial=first_dropped(plan.partial),
            mask_ids=plan.mask_ids[plan.partial.nnz > 0 :],
        )

    report = verified_with(Program, "schedule", with_plans(change))
    assert not report.ok
    assert report.failure.where == "schedule"
    assert "batch 0, head 0, query " in str(report)
    assert "got     not in the pattern" in str(report)
    assert report.failure.case.k_len <= 2


def test_a_full_tile_with_a_mask_is_found():
    def wrong(self, call, tile, *rest):  # the same pairs, but a FULL tile is called PARTIAL
        made = SCHEDULE(self, call, tile, *rest)
        if any(each.partial.nnz or not each.full.nnz for each in made.plans):
            return made
        bits = np.zeros(tile, bool)
        bits[: call.q_len, : call.k_len] = True
        if made.grid != (1, 1):
            return made
        bank = scheduling.MaskTable(np.packbits(bits)[None], tile)
        only = made.plans[0]
        ids = np.zeros(1, np.int32)
        changed = replace(only, full=only.partial, partial=only.full, mask_ids=ids)
        return replace(made, plans=(changed,), masks=bank)

    report = verified_with(Program, "schedule", wrong, "pattern p = true")
    assert not report.ok
    assert "a partial tile of" in str(report)


def test_an_empty_tile_that_is_visited_is_found():
    def wrong(self, call, tile, *rest):
        made = SCHEDULE(self, call, tile, *rest)
        bank = scheduling.MaskTable(np.zeros((1, tile[0] * tile[1] // 8), np.uint8), tile)
        zero = np.zeros(1, np.int32)
        tiles = scheduling.Tiles(np.minimum(np.arange(made.grid[0] + 1), 1), zero)
        changed = replace(made.plans[0], partial=tiles, mask_ids=zero)
        return replace(made, plans=(changed,), masks=bank)

    report = verified_with(Program, "schedule", wrong, "pattern p = false")
    assert not report.ok
    assert "none: 0 of its" in str(report)


def test_a_transpose_that_differs_is_found():
    wrong = property(lambda plan: replace(plan, full=first_dropped(plan.full)))
    report = verified_with(scheduling.Plan, "transpose", wrong, "pattern p = true")
    assert not report.ok
    assert "other tiles in the transpose" in str(report)


def test_a_pair_that_two_parts_have_is_found():
    parts = attndsl.Pattern.parts
    with mock.patch.object(
        attndsl.Pattern, "parts", lambda self, *at, **given: parts(self, *at, **given) * 2
    ):
        report = attndsl.verify(attndsl.compile(WINDOW), seconds=5)
    assert report.failure.where == "parts"
    assert "in 2 of 2 parts" in str(report)


def test_a_fact_that_is_not_true_is_found():
    def claims(self):
        return {"causal": "proved", "symmetric": "not decided"}

    report = verified_with(attndsl.Pattern, "facts", claims, "pattern p = window(2)")
    assert report.failure.where == "facts"
    assert "`causal: proved`" in str(report)
    assert report.failure.case.q_len == 2


@pytest.mark.parametrize(
    ("reach", "distance"), [(Reach(2, 1), 2), (Reach(1, 2), -2), (Reach(Far.NOWHERE, 3), None)]
)
def test_a_reach_that_is_too_short_is_found(reach: Reach, distance: int | None):
    report = verified_with(
        attndsl.Pattern, "facts", lambda self: {"reach": reach}, "pattern p = window(2)"
    )
    if distance is not None:
        case, at = report.failure.case, report.failure.fault.place
        assert abs(at["query"] + case.k_len - case.q_len - at["key"]) == 2
    assert f"`reach: {reach}`" in str(report)


def test_a_row_that_is_empty_after_all_is_found():
    report = verified_with(
        attndsl.Pattern,
        "facts",
        lambda self: {"every_row_non_empty": "proved"},
        "pattern p = k < q",
    )
    assert report.failure.case.k_len == 1


FORWARD, BACKWARD = Executable.forward, Executable.backward


def wrong_scale_in_dk(self, q, k, v, out, lse, dout, dlse, *, scale):
    dq, dk, dv = BACKWARD(self, q, k, v, out, lse, dout, dlse, scale=scale)
    return dq, dk / scale, dv


def no_gradient_through_lse(self, q, k, v, out, lse, dout, dlse, *, scale):
    return BACKWARD(self, q, k, v, out, lse, dout, None, scale=scale)


def base_two(self, q, k, v, *, scale):
    out, lse = FORWARD(self, q, k, v, scale=scale)
    return out, lse / torch.tensor(2.0, dtype=lse.dtype).log()


def no_scale(self, q, k, v, *, scale):
    return FORWARD(self, q, k, v, scale=1.0)


def crashes(self, q, k, v, *, scale):
    if q.shape[2] > 6:
        raise RuntimeError("no such block")
    return FORWARD(self, q, k, v, scale=scale)


@pytest.mark.parametrize(
    ("method", "wrong", "what", "said"),
    [
        ("backward", wrong_scale_in_dk, "dk", "the scale is missing"),
        ("backward", no_gradient_through_lse, "dq", "as if none arrived through the log-sum-exp"),
        ("forward", base_two, "lse", "the logarithm has base 2"),
        ("forward", no_scale, "lse", "attention without a scale"),
        ("forward", crashes, "backend blocked on cpu", "RuntimeError: no such block"),
    ],
)
def test_a_wrong_backend_is_found_and_its_mistake_named(method, wrong, what, said):
    report = verified_with(Executable, method, wrong)
    assert report.failure.where == "backend blocked on cpu"
    assert report.failure.fault.what == what
    assert said in str(report)
    assert report.failure.case.k_len <= 8
    assert report.failure.case.heads == report.failure.case.batch == 1


def test_a_row_without_keys_that_is_not_zero_is_found():
    def wrong(self, q, k, v, *, scale):
        out, lse = FORWARD(self, q, k, v, scale=scale)
        return torch.where(lse.isinf()[..., None], torch.nan, out), lse

    report = verified_with(Executable, "forward", wrong, "pattern p = k < q")
    assert report.failure.fault.want.startswith("0,")
    assert (report.failure.case.q_len, report.failure.case.k_len) == (1, 1)
    assert "only queries without a key are wrong" in str(report)


def test_inputs_are_made_small_with_the_lengths():
    text = "input doc: int[batch, pos]\npattern p = doc[q] == doc[k] and q != k"

    def wrong(self, q, k, v, *, scale):
        out, lse = FORWARD(self, q, k, v, scale=scale)
        return out * (1 + (q.shape[2] > 2)), lse

    report = verified_with(Executable, "forward", wrong, text)
    case = report.failure.case
    assert case.inputs["doc"].shape == (1, case.k_len)
    assert "doc = [[" in str(report)
    assert dense(attndsl.compile(text), case).any()
    assert case.q_len == 3


def test_every_fact_can_be_held_to_the_dense_mask():
    judged = {*JUDGES, "reach"}
    # `block_diagonal` does not say which classes are meant; the tests of `claims` look at those.
    assert set(attndsl.compile("causal").facts()) == {*judged, "block_diagonal"}


@pytest.mark.parametrize("edge", [4096, 50_000])
def test_a_fault_at_the_edge_of_a_window_too_long_for_a_square_is_found(edge):
    """The window of the back end is one key too narrow: only pairs at just that distance show it."""
    narrow = attndsl.compile("causal_window", w=edge - 1)
    honest = Executable.forward

    def faulty(self, q, k, v, *, scale):
        if k.shape[2] < edge:
            return honest(self, q, k, v, scale=scale)
        return narrow(q, k, v, scale=scale, return_lse=True, backend="reference")

    p = attndsl.compile("causal_window", w=edge)
    with mock.patch.object(Executable, "forward", faulty):
        report = attndsl.verify(p, seconds=90)
    assert report.failure.where == "backend blocked on cpu"
    assert report.failure.case.k_len >= edge
    assert report.failure.case.q_len <= 64


def test_a_fault_past_the_edge_of_a_long_window_is_found():
    honest = Executable.forward

    def faulty(self, *tensors, **options):  # type: ignore[no-untyped-def]
        out, lse = honest(self, *tensors, **options)
        return (out + 1 if out.shape[2] > 512 else out), lse

    as_found = mock.patch("attndsl.verification.running.shrink", lambda _, case, __: case)
    with mock.patch.object(Executable, "forward", faulty), as_found:
        near = attndsl.verify(attndsl.compile("causal_window", w=100), seconds=0.3)
        far = attndsl.verify(attndsl.compile("causal_window", w=512), seconds=60)
    assert near.ok
    assert near.longest <= 300
    assert not far.ok


def test_what_a_program_asserts_is_held_to_every_call():
    p = attndsl.compile("pattern p = window(90)\n    assert keys per query <= 180")
    (judgement,) = p.claims()
    assert judgement.ok, "no call that is tried is long enough"
    report = attndsl.verify(p, seconds=20)
    assert report.failure.where == "asserts"
    assert "keys per query <= 180" in str(report)
    assert report.failure.case.k_len == 181
    (there,) = p.claims(181)
    assert str(there).startswith("false: keys per query <= 180\n")
    (there,) = p.claims(180)
    assert str(there) == "proved: keys per query <= 180"
    (there,) = p.claims(20, 10)
    assert str(there) == "not decided: keys per query <= 180 (it does not speak of this call)"


FAR = Far.UNBOUNDED


def _along(*axes: tuple[str, object, object]) -> Reach:
    return Reach(Far.UNDECIDED, Far.UNDECIDED, axes)


@pytest.mark.parametrize(
    ("text", "claimed"),
    [
        ("q // 4 == k // 4", {"block_diagonal": "proved"}),
        ("abs(q.y - k.y) <= 2", {"reach": _along(("y", 2, 1), ("x", FAR, FAR))}),
        ("q.y == k.y", {"reach": _along(("y", 0, 0), ("x", Far.NOWHERE, 3))}),
    ],
)
def test_a_frame_that_is_too_narrow_is_found(text: str, claimed: dict[str, object]):
    separated = frozenset((ir.floordiv(ir.Pos(ir.Side.QUERY), ir.Const(3)),))
    with (
        mock.patch.object(attndsl.Pattern, "facts", return_value=claimed),
        mock.patch("attndsl.verification.claims.separators", return_value=separated),
    ):
        p = attndsl.compile(f"grid g(y, x)\npattern p over g = {text}")
        report = attndsl.verify(p, seconds=5, backends=[])
    assert report.failure.where == "facts"
    assert "what `" in str(report)


def test_extents_that_do_not_make_the_lengths_are_found(monkeypatch: pytest.MonkeyPatch):
    text = "grid tokens(n)\nspace s = meta(m) ++ tokens\npattern p over tokens -> s = k in meta"
    monkeypatch.setattr(sizing._Count, "check", lambda count, known: None)
    report = attndsl.verify(attndsl.compile(text), seconds=5, backends=[])
    assert report.failure.where == "extents"


def test_zero_keys_that_a_backend_forgets_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Program, "zero_keys", lambda self, call: None)
    p = attndsl.compile("padded_window", left=2)
    monkeypatch.setattr(
        "attndsl.verification.running.zero_keys",
        lambda p, case: torch.full((case.batch, case.heads, case.q_len), 2),
    )
    report = attndsl.verify(p, seconds=0, backends=["blocked"])
    assert not report
    assert "zeros" in str(report)
    assert "this is attention without the zero keys of the pattern" in str(report)
