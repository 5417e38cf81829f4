"""A `where` that speaks of inputs is judged at each call, wherever the pattern was written or comes from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import attndsl
from attndsl import ir, patterns
from attndsl.compiler import Program
from attndsl.source import AttnDslError
from tests.support.work import within

GOLDEN = Path(__file__).parents[2] / "golden" / "errors" / "A5"

SHORT = """
input limit: int[batch, head]
pattern short(most: int) where limit <= most = q - k in 0..limit
"""


def refused(pattern: attndsl.Pattern, **inputs: object) -> str:
    with pytest.raises(AttnDslError) as caught:
        pattern.mask(9, inputs=inputs)
    assert [each.code for each in caught.value.diagnostics] == ["A507"]
    return str(caught.value)


CUTS = {"cu_seqlens_q": [0, 4, 6, 9], "cu_seqlens_k": [0, 4, 6, 9]}
RANGES = {"q_ranges": [[0, 3], [3, 9]], "k_ranges": [[0, 3], [3, 9]], "attn_type_map": [0, 1]}
LISTS = {"kv_num_blocks": [[[1, 2]]], "kv_indices": [[[[0, 1], [1, 0]]]]}
SEGMENTS = "input ends: int[n]\npattern p = causal and segments(ends)"
WRONG = [
    (SEGMENTS, {"ends": [2, 2, 7]}, "ends", [2, 7, 4], "ascends(ends)"),
    ("varlen", CUTS, "cu_seqlens_q", [0, 6, 4, 9], "partitions(cu_seqlens_q, len(q))"),  # descends
    ("varlen", CUTS, "cu_seqlens_k", [1, 4, 6, 9], "partitions(cu_seqlens_k, len(k))"),  # a gap
    ("varlen", CUTS, "cu_seqlens_q", [0, 4, 6, 8], "partitions(cu_seqlens_q, len(q))"),  # too short
    ("varlen", CUTS, "cu_seqlens_q", [0, 4, 6, 10], "partitions(cu_seqlens_q, len(q))"),
    ("varlen_causal", CUTS, "cu_seqlens_q", [0, 9], "len(cu_seqlens_q.ends)"),
    ("used", {"seqused_k": [3, 9]}, "seqused_k", [3, 10], "0 <= seqused_k <= len(k)"),
    ("used", {"seqused_k": [3, 9]}, "seqused_k", [-1, 9], "0 <= seqused_k <= len(k)"),
    ("flashmask", {"startend_row_indices": np.tile([9, 0], (1, 1, 9, 1))},
     "startend_row_indices", np.zeros((1, 1, 9, 3), int), "len(startend_row_indices.bounds)"),
    ("slices", RANGES, "q_ranges", [[0, 3], [3, 10]], "all s in"),
    ("slices", RANGES, "k_ranges", [[0, 3], [9, 3]], "all s in"),
    ("slices", RANGES, "attn_type_map", [0, 4], "<= 3"),
    ("slices", RANGES, "attn_type_map", [0, 1, 1], "len(q_ranges.slices)"),
    ("block_lists", LISTS, "kv_num_blocks", [[[3, 0]]], "kv_num_blocks[i]"),
    ("block_rows", {"indptr": [0, 1, 2], "indices": [0, 1]}, "indptr", [0, 2], "len(indptr.rows)"),
    ("block_rows", {"indptr": [0, 1, 2], "indices": [0, 1]}, "indptr", [0, 1, 3], "partitions(indptr"),
    ("tree", {"order": [[0, 1]], "end": [[2, 2]]}, "end", [[2]], "len(order.nodes)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "right", "wrong", "value", "said"), WRONG)
def test_inputs_that_mean_nothing_are_refused_where_it_is_said(
    name: str, right: dict[str, object], wrong: str, value: object, said: str
):
    values = {"bq": 5} if name.startswith("block") else {}
    pattern = attndsl.compile(name, values=values)
    assert pattern.mask(9, inputs=right).any()
    text = refused(pattern, **right | {wrong: value})
    assert said in text
    assert "--> prelude.attn:" in text
    with pytest.raises(AttnDslError, match="A507"):
        pattern.schedule(9, inputs=right | {wrong: value})


def test_calls_refuse_them_too_and_name_the_batch_element_and_head():
    pattern = attndsl.compile(SHORT, most=3)
    q = torch.randn(2, 2, 5, 8)
    assert pattern(q, q, q, limit=torch.tensor([[1, 2], [3, 3]])).isfinite().all()
    for backend in ("reference", "blocked"):
        with pytest.raises(AttnDslError, match="first for batch element 1, head 0") as caught:
            pattern(q, q, q, limit=torch.tensor([[1, 2], [4, 3]]), backend=backend)
        assert caught.value.code == "A507"
    assert "limit <= most" in str(caught.value)


def test_golden_condition_that_fails(golden: Callable[[Path, str], None]):
    pattern = attndsl.compile(SHORT, most=3)
    with pytest.raises(AttnDslError) as caught:
        pattern.mask(5, limit=[[1, 2], [4, 3]])
    golden(GOLDEN / "inputs_not_allowed.err", str(caught.value) + "\n")


def test_a_condition_holds_wherever_the_pattern_is_used_or_kept():
    used = attndsl.compile("pattern p align start = window(3) and varlen_causal")
    built = attndsl.compile(patterns.window(3) & patterns.varlen_causal())
    for pattern in (used, built, attndsl.Pattern(*_again(used)), attndsl.compile(used.ir)):
        assert pattern.mask(9, inputs=CUTS).sum() == 19
        refused(pattern, **CUTS | {"cu_seqlens_q": [0, 6, 4, 9]})
    one_way = attndsl.compile("pattern p(b: bool = false) align start = b and varlen or k == q")
    assert one_way.mask(9).sum() == 9  # what is folded away asks for nothing
    assert attndsl.compile("varlen") == attndsl.compile("pattern p align start = varlen")


def _again(pattern: attndsl.Pattern) -> tuple[object, ...]:
    return (ir.load(ir.dump(pattern.ir)),)


def test_python_functions_keep_the_alignment_of_their_definition():
    parts = {"cu_seqlens_q": [0, 1, 3], "cu_seqlens_k": [0, 4, 5]}
    built, written = attndsl.compile(patterns.varlen(right=0)), attndsl.compile("varlen", right=0)
    assert built.ir == written.ir
    assert torch.equal(built.mask(3, 5, **parts), written.mask(3, 5, **parts))
    both = attndsl.compile(patterns.varlen() & patterns.causal())
    assert both.ir.align == "start"
    with pytest.raises(AttnDslError, match="A212"):
        attndsl.compile(patterns.varlen() & patterns.causal(), align="end")


def test_long_inputs_are_judged_at_once():
    n = 65536
    pattern = attndsl.compile("varlen_causal")
    ends = np.arange(n + 1)
    pattern.schedule(128, cu_seqlens_q=[0, 128], cu_seqlens_k=[0, 128])
    ends[n // 2] += 5

    def judge() -> None:
        with pytest.raises(AttnDslError, match="A507"):
            pattern.schedule(n, cu_seqlens_q=ends, cu_seqlens_k=ends)

    within(50_000, judge)


def test_positions_are_not_known_in_a_condition():
    with pytest.raises(AttnDslError, match="varies from pair to pair"):
        attndsl.compile("input t: int[pos]\npattern p where t[q] > 0 = k <= q")


def test_lengths_of_each_batch_element_are_those_that_exist():
    pattern = attndsl.compile("used")
    q = torch.randn(2, 1, 4, 8)
    k = torch.randn(2, 1, 9, 8)
    assert pattern(q, k, k, seqused_k=[5, 9], kv_len=torch.tensor([6, 9])).isfinite().all()
    with pytest.raises(AttnDslError, match="first for batch element 0"):
        pattern(q, k, k, seqused_k=[7, 9], kv_len=torch.tensor([6, 9]))
    with pytest.raises(AttnDslError, match="batch element 1"):
        pattern(q, k, k, seqused_k=[5, 9], kv_len=torch.tensor([6, 8]))
    assert pattern.mask(4, 9, seqused_k=[5, 7], kv_len=[6, 8]).any()
    with pytest.raises(AttnDslError, match="first for batch element 1"):
        pattern.mask(4, 9, seqused_k=[5, 9], kv_len=[6, 8])


LENGTHS = "pattern near(w: int = 4) where w <= len(k) = 0 <= q - k < w\n"
ASKING = [
    (LENGTHS, "w <= len\\(k\\)"),
    (LENGTHS + "pattern p = near and k != 1", "w <= len\\(k\\)"),
    ("pattern p = window(len(k) - 4)", "left >= 0"),
    ("grid line(x)\npattern p over line where len(x) >= 4 = k.x <= q.x", "here len\\(line.x\\) = 3"),
    (LENGTHS + "attention a over near = score s", "here len\\(k\\) = 3"),
    ("attention a(w: int = 4) over causal where w <= len(k) = score s weights sigmoid", "len\\(k\\)"),
    ("select best(n: int = 4) where n <= len(k) = dot(q, k) take top n\npattern p = k in best[q]", "len\\(k\\)"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), ASKING)
def test_lengths_that_a_pattern_does_not_allow_are_refused(text: str, said: str):
    pattern = attndsl.compile(text)
    short, long = (torch.randn(1, 2, n, 8) for n in (3, 5))
    for _ in range(2):  # what ran before judges nothing for another length
        assert pattern(long, long, long).isfinite().all()
        with pytest.raises(AttnDslError, match=rf"(?s)A507.*{said}"):
            pattern(short, short, short)
    with pytest.raises(AttnDslError, match="A507"):
        pattern(short[:, :, :1], short, short)


def test_each_length_of_a_batch_and_of_packed_sequences_is_judged():
    pattern = attndsl.compile(LENGTHS)
    q, k = torch.randn(2, 1, 1, 8), torch.randn(2, 1, 6, 8)
    assert pattern(q, k, k, kv_len=torch.tensor([4, 6])).isfinite().all()
    with pytest.raises(AttnDslError, match=r"(?s)A507.*here len.k. = 3"):
        pattern(q, k, k, kv_len=torch.tensor([6, 3]))
    rows = torch.randn(9, 1, 8)
    ends = torch.tensor([0, 6, 9], dtype=torch.int32)
    with pytest.raises(AttnDslError, match=r"(?s)A507.*here len.k. = 3.*in sequence 1"):
        attndsl.varlen(pattern)(rows, rows, rows, ends, ends)


def test_heads_are_those_of_the_model():
    pattern = attndsl.compile("pattern p where heads == 4 = window(2 - head)")
    x = torch.randn(1, 2, 5, 8)
    assert pattern(x, x, x, head_start=0, heads=4).isfinite().all()
    with pytest.raises(AttnDslError, match=r"(?s)A507.: p is not.*left >= 0.*first for head 3"):
        pattern(x, x, x, head_start=2, heads=4)
    with pytest.raises(AttnDslError, match=r"(?s)A507.*here heads = 2"):
        pattern(x, x, x)


def test_an_attention_asks_of_its_own_keys_not_of_those_from_elsewhere():
    a = attndsl.compile(
        "attention a(w: int = 4) over 0 <= k where w <= len(k) = (by memory: score s) ++ (score s)"
    )
    short, long = (torch.randn(1, 2, n, 8) for n in (3, 5))
    assert a(long, long, long, memory=(short, short)).isfinite().all()
    with pytest.raises(AttnDslError, match="A507"):
        a(long, short, short, memory=(long, long))


def test_claims_speak_of_no_call_that_is_refused():
    text = "pattern p(w: int = 4) where w <= len(k) = k < w\n    assert keys per query == w"
    (found,) = attndsl.compile(text).claims()
    assert found.ok
    (found,) = attndsl.compile(text.replace("where w <= len(k)", "")).claims()
    assert not found.ok


def test_what_holds_at_any_length_keeps_the_shortest_ways():
    always, sometimes = (
        Program(attndsl.compile(f"window({width})").ir) for width in ("len(k) // 2", "len(k) - 4")
    )
    heads = "window(head + 1) and window(if head < heads // 2 then 16 else 64)"
    assert not Program(attndsl.compile(heads).ir).mask.conditions
    assert always.key_rule() is not None
    assert sometimes.key_rule() is None
