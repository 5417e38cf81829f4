"""Formats of other kernels say the pairs of a pattern, or are refused: each is read back by its own definition."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask

import attndsl
from attndsl.cli import main

GOLDEN = Path(__file__).parents[2] / "golden" / "errors" / "A4"
N = 70
DOC = torch.tensor([0] * 9 + [1] * 30 + [2] * 1 + [3] * 30)[None]
TEXTS = {
    "causal": "causal", "window": "window(5, 0)", "both sides": "window(4, 9)", "everything": "k == k",
    "documents": "input doc: int[batch, pos]\npattern p = doc[q] == doc[k]",
    "causal documents": "documents_causal", "nothing": "k < 0", "prefix": "k <= q or k < 20",
    "sinks": "causal and (k < 3 or q - k < 9)", "longformer": "longformer(w=4, g=2)", "dilated": "(q - k) % 3 == 0",
}  # fmt: skip


def read_bsr(found, shape):
    n, m = (-(-size // 16) for size in shape)
    pairs = np.zeros((n, 16, m, 16), dtype=bool)
    for row in range(n):
        for entry in range(*found["indptr"][row : row + 2]):
            block = True if found["mask"] is None else found["mask"][entry]
            pairs[row, :, found["indices"][entry]] = block
    return pairs.reshape(n * 16, m * 16)[: shape[0], : shape[1]]


def read_cu_seqlens(found, shape):
    pairs = np.zeros(shape, dtype=bool)
    for start, stop in zip(found["cu_seqlens"], found["cu_seqlens"][1:], strict=False):
        pairs[start:stop, start:stop] = np.tri(stop - start) if found["causal"] else True
        assert stop - start <= found["max_seqlen"]
    return pairs


def read_flashmask(found, shape):
    bounds, causal = found["startend_row_indices"][0, 0], found["causal"]
    pairs = np.zeros(shape, dtype=bool)
    for j in range(shape[1]):
        own, i = bounds[j], np.arange(shape[0])
        lts, lte, uts, ute = own[0], shape[0], 0, j if causal else 0
        if causal and len(own) == 2:
            lte = own[1]
        elif len(own) == 2:
            ute = own[1]
        elif len(own) == 4:
            _, lte, uts, ute = own
        pairs[:, j] = ~((lts <= i) & (i < lte)) & ~((uts <= i) & (i < ute))
    return pairs


def read_magi(found, shape):
    pairs = np.zeros(shape, dtype=int)
    for (a, b), (c, d), kind in zip(
        *(found[n] for n in ("q_ranges", "k_ranges", "attn_type_map")), strict=True
    ):
        for i in range(a, b):
            low = c + (i - a if kind & 2 else 0)
            high = d - (b - 1 - i if kind & 1 else 0)
            pairs[i, low:high] += 1
    assert pairs.max(initial=0) <= 1
    return pairs.astype(bool)


def read_bias(found, shape):
    return np.isfinite(np.exp(found["bias"][0, 0])) & (found["bias"][0, 0] == 0)


READERS = {"bsr": read_bsr, "cu_seqlens": read_cu_seqlens, "flashmask": read_flashmask, "magi": read_magi,
           "bias": read_bias}  # fmt: skip
CAN = {
    "bsr": set(TEXTS), "bias": set(TEXTS), "cu_seqlens": {"causal", "everything", "documents", "causal documents"},
    "flashmask": set(TEXTS) - {"dilated"},
    "magi": set(TEXTS) - {"sinks", "longformer", "dilated"},
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("format_", READERS)
def test_a_format_says_the_pairs_or_is_refused(format_, name):
    p = attndsl.compile(TEXTS[name])
    given = {"doc": DOC} if p.ir.tables else {}
    wanted = p.mask(N, **given)[0, 0].numpy()
    if name not in CAN[format_]:
        with pytest.raises(attndsl.AttnDslError) as caught:
            p.export(format_, N, block_size=16, **given)
        assert caught.value.code == "A414"
        return
    found = p.export(format_, N, block_size=16, **given)
    assert np.array_equal(READERS[format_](found, (N, N)), wanted)


def test_queries_and_keys_of_other_lengths_are_said_too():
    p = attndsl.compile("causal")
    wanted = p.mask(20, 50)[0, 0].numpy()
    for format_ in ("bsr", "magi"):
        assert np.array_equal(
            READERS[format_](p.export(format_, 20, 50, block_size=16), (20, 50)), wanted
        )


@pytest.mark.parametrize("mistake", ["heads", "format", "zeros", "neighbours"])
def test_refusals_say_what_does(mistake, golden):
    text, format_ = {
        "heads": ("if head < 1 then causal else window(3)", "bsr"), "format": ("causal", "bsx"),
        "zeros": ("pattern p = causal zeros 1", "bias"), "neighbours": ("(q - k) % 3 == 0", "cu_seqlens"),
    }[mistake]  # fmt: skip
    with pytest.raises(attndsl.AttnDslError) as caught:
        attndsl.compile(text).export(format_, 10, heads=2)
    golden(GOLDEN / "exports" / f"{mistake}.err", f"{caught.value}\n")


def test_the_command_writes_the_arrays(tmp_path, capsys):
    path = tmp_path / "longformer.npz"
    assert main(["export", "longformer", "--q-len", "300", "--format", "bsr", "-o", str(path)]) == 0
    assert "indptr int32[4]" in capsys.readouterr().out
    assert (
        np.load(path)["indptr"].tolist()
        == attndsl.compile("longformer").export("bsr", 300)["indptr"].tolist()
    )


# ---------------------------------------------------------------------------- the other way


def test_dense_masks_and_intervals_are_patterns():
    mask = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0)) < 0.5
    p = attndsl.from_mask(mask)
    assert torch.equal(p.mask(20, 30, 3, batch=2), mask)
    mask[0, 0] = True
    assert torch.equal(p.mask(20, 30, 3, batch=2), mask)
    assert torch.equal(attndsl.from_mask(mask[1, 1]).mask(20, 30)[0, 0], mask[1, 1])
    spans = torch.tensor([[[0, 3], [5, 6]], [[2, 2], [4, 9]], [[0, 0], [0, 0]]])
    keys = [{0, 1, 2, 5}, {4, 5, 6, 7, 8}, set()]
    found = attndsl.from_intervals(spans).mask(3, 9)[0, 0]
    assert [set(row.nonzero()[:, 0].tolist()) for row in found] == keys
    for wrong in (torch.zeros(3, 3), torch.zeros(3, dtype=torch.bool)):
        with pytest.raises(attndsl.AttnDslError):
            attndsl.from_mask(wrong)


def test_a_block_mask_is_a_pattern_where_its_blocks_are_those_of_its_function():
    def near(b, h, q_idx, kv_idx):
        return (q_idx - kv_idx).abs() < 9

    blocks = create_block_mask(near, 1, 1, 100, 100, "cpu", 16)
    p = attndsl.from_block_mask(blocks)
    assert torch.equal(p.to_block_mask(100, block_size=16).to_dense(), blocks.to_dense())
    blocks.kv_num_blocks[0, 0, 3] -= 1
    with pytest.raises(attndsl.AttnDslError) as caught:
        attndsl.from_block_mask(blocks)
    assert caught.value.code == "A414"
