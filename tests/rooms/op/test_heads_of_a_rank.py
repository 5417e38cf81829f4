"""Some of the heads of a model, as a rank of a parallel one holds them."""

import pytest
import torch

import attndsl

HEADS, LENGTH = 4, 20
BACK = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)
NEAR, CAUSAL = (BACK >= 0) & (BACK < 3), BACK >= 0
WHOLE = torch.stack([NEAR, NEAR, CAUSAL, CAUSAL])  # of the pattern below, for four heads
MIXED = "pattern mixed = causal and (head >= heads // 2 or q - k < 3)"
HELD = [(0, 2), (2, 2), (1, 2), (3, 1), (0, 4)]


@pytest.mark.parametrize(("start", "count"), HELD)
def test_heads_see_what_they_see_in_the_whole_model(start: int, count: int):
    p, held = attndsl.compile(MIXED), slice(start, start + count)
    given = {"head_start": start, "head_count": count}
    want = WHOLE[held][None]
    assert torch.equal(p.mask(LENGTH, heads=HEADS, **given), want)
    found = p.schedule(LENGTH, heads=HEADS, tile=(1, 1), **given)
    assert found.density == want.float().mean()
    assert p.facts(LENGTH, heads=HEADS, **given)["same_for_all_heads"] == (
        "proved" if (want == want[:, :1]).all() else "false"
    )
    assert p.explanation(LENGTH, heads=HEADS, **given).natural.cost.pairs == want.sum()
    last = {"head": count - 1} | given
    assert p.draw(LENGTH, heads=HEADS, **last) == p.draw(
        LENGTH, heads=HEADS, head=start + count - 1
    )


def test_without_a_count_all_heads_from_there_on_are_held():
    p = attndsl.compile(f"{MIXED} zeros head")
    assert torch.equal(p.mask(LENGTH, heads=HEADS, head_start=2)[0], WHOLE[2:])
    counts = p.zero_keys(LENGTH, heads=HEADS, head_start=2)
    assert counts[0, :, 0].tolist() == [2, 3]
    assert p.predict(LENGTH, heads=HEADS, head_start=2).forward > 0


@pytest.mark.parametrize("entries", [2, 4, 1])
def test_inputs_of_heads_are_those_held_or_those_of_all(entries: int):
    p = attndsl.compile("input reach: int[head]\npattern p = 0 <= q - k <= reach + head")
    reach = torch.tensor([5, 0, 3, 1])
    given = {4: reach, 2: reach[2:], 1: reach[:1]}[entries]
    back = {1: reach[:1].expand(4)}.get(entries, reach) + torch.arange(4)
    want = (BACK >= 0) & (BACK - back[2:, None, None] <= 0)
    assert torch.equal(p.mask(LENGTH, heads=4, head_start=2, reach=given)[0], want)
    with pytest.raises(attndsl.AttnDslError, match="3 entries along head, expected 2"):
        p.mask(LENGTH, heads=4, head_start=2, reach=reach[:3])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"head_start": 2}, "say how many, by `heads`"),
        ({"head_count": 2}, "say how many, by `heads`"),
        ({"heads": 4, "head_start": 3, "head_count": 2}, "2 heads from head 3 on"),
        ({"heads": 4, "head_start": 5}, "0 heads from head 5 on"),
        ({"heads": 4, "head_start": -1}, "head_start is an integer from 0"),
        ({"heads": 4, "head_start": 1.0}, "head_start is an integer from 0"),
    ],
)
def test_heads_that_the_model_has_not_are_refused(given: dict[str, object], said: str):
    with pytest.raises(attndsl.AttnDslError, match=said) as caught:
        attndsl.compile(MIXED).mask(4, **given)
    assert "A402" in str(caught.value)


def test_asserts_speak_of_the_whole_model():
    p = attndsl.compile("pattern p = causal and head < heads assert causal")
    assert p.claims(8, heads=4)[0].ok
    with pytest.raises(attndsl.AttnDslError, match="of the whole model"):
        p.claims(8, heads=4, head_start=2)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("entries", [2, 4])
def test_a_rank_computes_its_heads_of_the_whole_model(backend: str, entries: int):
    text = f"input reach: int[head]\n{MIXED} and q - k <= reach"
    p, reach = attndsl.compile(text), torch.tensor([9, 2, 7, 4])
    q, k, v = (torch.randn(1, HEADS, LENGTH, 8, requires_grad=True) for _ in range(3))
    allowed = WHOLE & (BACK <= reach[:, None, None])  # noqa: SIM300
    want = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    torch.testing.assert_close(p(q, k, v, reach=reach, backend=backend), want)
    for start in (0, 2):
        mine = slice(start, start + 2)
        given = reach[mine] if entries == 2 else reach
        out = p(
            *(x[:, mine] for x in (q, k, v)),
            heads=4,
            head_start=start,
            reach=given,
            backend=backend,
        )
        torch.testing.assert_close(out, want[:, mine])
        for one, two in zip(
            *(
                torch.autograd.grad(x.square().sum(), (q, k, v), retain_graph=True)
                for x in (out, want[:, mine])
            ),
            strict=True,
        ):
            torch.testing.assert_close(one, two)


def test_a_call_of_heads_that_the_model_has_not_is_refused():
    p, q = attndsl.compile(MIXED), torch.randn(1, 2, 6, 4)
    for given in ({"head_start": 2}, {"heads": 3, "head_start": 2}, {"heads": 1}):
        with pytest.raises(attndsl.AttnDslError, match="A402"):
            p(q, q, q, **given)


def test_heads_of_a_rank_are_compiled():
    p = attndsl.compile(f"{MIXED} zeros head")
    x = torch.randn(1, HEADS, LENGTH, 8)
    want = p(x, x, x)
    for start in (0, 2):
        torch._dynamo.reset()
        mine = x[:, start : start + 2]
        compiled = torch.compile(
            lambda x, start=start: p(x, x, x, heads=HEADS, head_start=start),
            fullgraph=True,
            backend="eager",
        )
        torch.testing.assert_close(compiled(mine), want[:, start : start + 2])
