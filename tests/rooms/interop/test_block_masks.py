"""BlockMasks are those of torch, block by block, and patterns are mask_mods."""

import inspect

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention

import attndsl
from tests.support.block_masks import same
from tests.support.mask_mods import MaskMods

DOC = torch.tensor([0] * 20 + [1] * 50 + [2] * 13 + [3] * 90)
KEEP = torch.arange(173) % 7 != 3


def causal(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


MODS = {
    "causal": causal,
    "window": lambda b, h, q, k: (q - k).abs() < 17,
    "documents": lambda b, h, q, k: (DOC[q] == DOC[k]) & (q >= k),
    "padding": lambda b, h, q, k: KEEP[k],
    "by head": lambda b, h, q, k: (q - k < 8 + 30 * h) & (q >= k),
    "by batch": lambda b, h, q, k: (k < 60 + 50 * b) & (q // 32 >= k // 32),
    "dilated": lambda b, h, q, k: (q - k) % 16 == 3,
    "everything": lambda b, h, q, k: q >= 0,
    "nothing": lambda b, h, q, k: q < 0,
}


@pytest.mark.parametrize("name", MODS)
@pytest.mark.parametrize(
    ("sizes", "block"),
    [((2, 2, 128, 160), 32), ((2, 2, 100, 173), (32, 16)), ((None, None, 173, 173), 128)],
    ids=["divide", "ragged", "alone"],
)
def test_blocks_are_those_of_torch(name, sizes, block):
    mod = MODS[name]
    ours = attndsl.flex.create_block_mask(mod, *sizes, device="cpu", BLOCK_SIZE=block)
    same(ours, create_block_mask(mod, *sizes, device="cpu", BLOCK_SIZE=block))


def test_blocks_of_random_functions_are_those_of_torch():
    for seed in range(12):
        made = MaskMods(seed, 70, 90).truth(1)

        def mod(b, h, q, k, made=made):
            return made(b, h, q, k)

        def plain(b, h, q, k, mod=mod):
            return mod(b, h, q, k)

        sizes = (2, 2, 70, 90, "cpu", 16)
        same(attndsl.flex.create_block_mask(plain, *sizes), create_block_mask(plain, *sizes))


@pytest.mark.skipif(
    "separate_full_blocks" not in inspect.signature(create_block_mask).parameters,
    reason="torch 2.9 keeps full blocks apart always",
)
def test_all_blocks_are_partial_where_full_ones_are_not_kept_apart():
    sizes, options = (1, 1, 100, 100, "cpu", 16), {"separate_full_blocks": False}
    ours = attndsl.flex.create_block_mask(causal, *sizes, **options)
    same(ours, create_block_mask(causal, *sizes, **options))
    assert ours.full_kv_indices is None


def test_tensors_of_more_elements_and_tokens_than_a_call_has_are_read_as_torch_reads_them():
    table = torch.arange(4 * 2 * 200).reshape(4, 2, 200) // 31 % 3

    def mod(b, h, q_idx, kv_idx):
        return table[b, h, q_idx] == table[b, h, kv_idx]

    sizes = (2, 1, 100, 120, "cpu", 32)
    same(attndsl.flex.create_block_mask(mod, *sizes), create_block_mask(mod, *sizes))


PATTERNS = {
    "longformer": ("longformer", {"w": 5, "g": 3}, {}),
    "grid": ("grid image(y, x)\npattern p over image = abs(q.y - k.y) <= 2 and abs(q.x - k.x) <= 1", {},
             {"extents": {"y": 6, "x": 7}}),
    "documents": ("documents_causal", {}, {"doc": DOC[:42].expand(2, -1), "batch": 2}),
    "one entry": ("input keep: bool[batch, head, k]\npattern p = keep[k]", {},
                  {"keep": (torch.arange(42) % 3 > 0)[None, None], "batch": 2}),
    "a loop": ("input t: list[k, slots]\npattern p = k in t[q]", {}, {"t": torch.tensor([[0, -1], [1, 3]] * 21)}),
    "by head": ("if head < 1 then window(3) else k % 5 == 0", {}, {}),
    "constant": ("k == k", {}, {}),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_is_a_mask_mod_and_a_block_mask(name):
    text, values, given = PATTERNS[name]
    p = attndsl.compile(text, values=values)
    q_len = 42 if "batch" not in given and name == "grid" else 30
    batch, wanted = given.get("batch", 1), p.mask(q_len, 42, 2, **given)
    mod = p.mask_mod(q_len, 42, 2, **given)
    assert torch.equal(create_mask(mod, batch, 2, q_len, 42, "cpu"), wanted)
    ours = p.to_block_mask(q_len, 42, 2, block_size=16, **given)
    theirs = create_block_mask(ours.mask_mod, batch, 2, q_len, 42, "cpu", 16)
    same(ours, theirs)
    q, k, v = (torch.randn(batch, 2, n, 16) for n in (q_len, 42, 42))
    out = flex_attention(q, k, v, block_mask=ours)
    torch.testing.assert_close(
        out, p(q, k, v, backend="reference", **{k: x for k, x in given.items() if k != "batch"})
    )


def test_what_is_no_mask_mod_is_refused():
    p = attndsl.compile("pattern p = causal zeros 1")
    with pytest.raises(attndsl.AttnDslError) as caught:
        p.to_block_mask(8)
    assert caught.value.code == "A520"
    with pytest.raises(attndsl.AttnDslError) as caught:
        attndsl.compile("causal").to_block_mask(8, block_size=0)
    assert caught.value.code == "A402"
