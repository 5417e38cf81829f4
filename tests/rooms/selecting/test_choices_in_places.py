"""Choices of calls that say where their tokens stand: those of the call on the tokens in order, and refusals."""

import pytest
import torch

import attndsl
from attndsl.source import AttnDslError

MOBA = """
select past over blocks(8) = dot(q, mean(k)) where block < q // 8 take top 2
pattern p = k <= q and (k // 8 == q // 8 or k in past[q])
"""
COLUMNS = """
select wide over blocks(4) = dot(q, mean(k)) take top 3 by column
select fine = dot(q, k) take top 2 by column
pattern p = k in wide[q] or k in fine[q]
"""
LABELS = """
input mu: real[c, d]
label a = argmax c in 0..3: dot(k, mu[c])
rank r = by a[k], k
label b = argmax c in 0..3: dot(q, mu[c])
pattern p = r[k] // 4 == r[q] // 4 or a[k] == b[q]
"""
INDEXER = """
input iq: real[batch, q, d]
input ik: real[batch, pos, d]
input w: real[batch, k]
select lit per heads = dot(iq[q], ik[k]) + w[k] where k <= q take top 3
pattern p = k in lit[q]
"""
HEAVY = """
input seen: real[batch, head, k]
select heavy = seen[k] where k <= q take top 5
pattern p = k <= q and (q - k < 3 or k in heavy[q])
"""
N = 24


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def call(text):
    """The pattern, q, k, v, and its inputs."""
    q, k, v = drawn(3, 2, 2, N, 6)
    inputs = {"mu": drawn(3, 6)} if text is LABELS else {}
    if text is INDEXER:
        inputs = {"iq": drawn(2, N, 4), "ik": drawn(2, N, 5)[..., :4], "w": drawn(2, N)}
    return attndsl.compile(text), q, k, v, inputs


@pytest.mark.parametrize("text", [MOBA, COLUMNS, LABELS, INDEXER])
def test_keys_beyond_the_length_of_each_element_do_not_exist(text):
    p, q, k, v, inputs = call(text)
    steps, lengths = 3, [15, 21]
    placed = {name: x[:, -steps:] if name == "iq" else x for name, x in inputs.items()}
    for x in (k, v):
        x[0, :, 15:] = torch.nan
    found = p(q[:, :, -steps:], k, v, kv_len=torch.tensor(lengths), **placed)
    for b, length in enumerate(lengths):
        some = slice(b, b + 1)
        own = {
            name: x if name == "mu" else x[some, -steps:] if name == "iq" else x[some, :length]
            for name, x in inputs.items()
        }
        rows = q[some, :, -steps:], k[some, :, :length], v[some, :, :length]
        torch.testing.assert_close(found[some], p(*rows, **own))
        made = p.select(q[:, :, -steps:], k, kv_len=torch.tensor(lengths), **placed)
        for name, table in p.select(*rows[:2], **own).items():
            mine = made[name][some]
            for dim, size in enumerate(table.shape):
                mine = mine.narrow(dim, 0, size)
            assert torch.equal(mine, table), name


@pytest.mark.parametrize("text", [MOBA, COLUMNS, LABELS, INDEXER])
def test_rows_in_any_order_choose_what_they_do_in_order(text):
    p, q, k, v, inputs = call(text)
    at = drawn(2, N).argsort(1)
    rows = [torch.stack([x[b][:, at[b]] for b in range(2)]) for x in (q, k, v)]
    of_rows = {
        name: x if name in ("mu", "ik") else torch.stack([x[b][at[b]] for b in range(2)])
        for name, x in inputs.items()
    }
    found = p(*rows, q_pos=at, k_pos=at, **of_rows)
    back = torch.stack([found[b][:, at[b].argsort()] for b in range(2)])
    torch.testing.assert_close(back, p(q, k, v, **inputs))


@pytest.mark.parametrize("text", [MOBA, COLUMNS, LABELS, INDEXER])
def test_padding_on_the_left_is_no_token(text):
    p, q, k, v, inputs = call(text)
    pads = torch.tensor([0, 5])
    rows = [x.clone() for x in (q, k, v)]
    by_row = {name: x.clone() for name, x in inputs.items() if name in ("iq", "w")}
    for x in rows:
        x[1, :, 5:] = x[1, :, :-5].clone()
        x[1, :, :5] = torch.nan
    for x in by_row.values():
        x[1, 5:] = x[1, :-5].clone()
        x[1, :5] = torch.nan
    given = {**inputs, **by_row}
    made = p.select(*rows[:2], q_start=-pads, k_start=-pads, **given)
    found = p(*rows, q_start=-pads, k_start=-pads, selection=made, **given)
    for b, length in enumerate((N, N - 5)):
        some = slice(b, b + 1)
        own = {name: x if name == "mu" else x[some, :length] for name, x in inputs.items()}
        alone = p(*(x[some, :, :length] for x in (q, k, v)), **own)
        torch.testing.assert_close(found[some, :, N - length :], alone)


@pytest.mark.parametrize("where", [{}, {"kv_len": 17}])
def test_a_step_with_sums_of_keys_is_the_last_row_of_a_prefill_with_them(where):
    p, q, k, v, _ = call(HEAVY)
    seen = drawn(2, 2, N).round(decimals=0)  # with ties
    seen[0, :, 3:9] = -torch.inf
    many = where.get("kv_len", N)
    step = q[:, :, many - 1 : many], *((k, v) if where else (k[:, :, :many], v[:, :, :many]))
    whole = [x[:, :, :many] for x in (q, k, v)]
    chosen = p.select(*step[:2], seen=seen, **where)
    assert torch.equal(
        chosen["heavy"][:, :, 0], p.select(*whole[:2], seen=seen[..., :many])["heavy"][:, :, -1]
    )
    best = (-seen[..., :many]).argsort(dim=-1, stable=True)[..., :5].sort(-1).values
    assert chosen["heavy"][:, :, 0].tolist() == best.tolist()
    torch.testing.assert_close(
        p(*step, seen=seen, **where), p(*whole, seen=seen[..., :many])[:, :, -1:]
    )


def test_queries_before_others_choose_alone_or_not():
    p, q, k, v, _ = call(MOBA)
    assert torch.equal(p(q[:, :, 8:12], k, v, q_start=8), p(q, k, v)[:, :, 8:12])
    p, q, k, v, _ = call(COLUMNS)
    with pytest.raises(AttnDslError, match="those behind these are not here"):
        p(q[:, :, 8:12], k, v, q_start=8)


def test_a_step_in_a_buffer_with_kept_summaries_is_the_last_row_of_a_prefill():
    p, q, k, *_ = call(MOBA)
    kept, whole = attndsl.KeySummaries(), p.select(q, k)["past"]
    for length in (20, 21, 22, 23, 24):
        step = p.select(q[:, :, length - 1 : length], k, kv_len=length, summaries=kept)["past"]
        assert torch.equal(step[:, :, 0], whole[:, :, length - 1])


def test_a_selection_serves_tokens_that_stand_where_they_stood():
    p, q, k, v, _ = call(MOBA)
    made = p.select(q[:, :, -2:], k, kv_len=17)
    again = p(q[:, :, -2:], k, v, kv_len=17, selection=made)
    assert torch.equal(again, p(q[:, :, -2:], k, v, kv_len=17))
    for other in ({"kv_len": 18}, {}):
        with pytest.raises(AttnDslError, match="tokens that stand elsewhere"):
            p(q[:, :, -2:], k, v, selection=made, **other)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"k_pos": torch.arange(N)[None] + 3, "q_start": 26}, "positions 0, 1, 2"),
        ({"q_pos": torch.arange(N)[None] * 2}, "its queries follow each other"),
        ({"heads": 8, "head_start": 2}, "some heads of a model does not choose"),
        ({"block_table": torch.zeros(2, 1, dtype=torch.int32), "kv_len": torch.tensor([4, 4])}, "with pages"),
    ],
)  # fmt: skip
def test_calls_that_lack_tokens_do_not_choose(where, message):
    p, q, k, v, _ = call(MOBA)
    q = q[:, :, :1] if "q_start" in where else q
    with pytest.raises(AttnDslError, match=message):
        p(q, k, v, **where)
