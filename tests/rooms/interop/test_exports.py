"""Formats of other kernels say the pairs of a pattern, or are refused: each is read back by its own definition."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask

import attndsl
from attndsl.cli import main
from attndsl.cli.export import FORMATS

GOLDEN = Path(__file__).parents[2] / "golden" / "errors" / "A4"
N = 70
DOC = torch.tensor([0] * 9 + [1] * 30 + [2] * 1 + [3] * 30)[None]
TEXTS = {
    "causal": "causal", "window": "window(5, 0)", "both sides": "window(4, 9)", "everything": "k == k",
    "documents": "input doc: int[batch, pos]\npattern p = doc[q] == doc[k]",
    "causal documents": "documents_causal", "nothing": "k < 0", "prefix": "k <= q or k < 20",
    "sinks": "causal and (k < 3 or q - k < 9)", "longformer": "longformer(w=4, g=2)", "dilated": "(q - k) % 3 == 0",
    "windowed documents": "documents_causal and q - k < 6", "neighbourhood": "neighborhood1d(5, 3, 2)",
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


def read_csr(found, shape):
    pairs = np.zeros(shape, dtype=bool)
    for row, (start, stop) in enumerate(zip(found["indptr"], found["indptr"][1:], strict=False)):
        assert (np.diff(found["indices"][start:stop]) > 0).all()
        pairs[row, found["indices"][start:stop]] = True
    return pairs


def read_varlen(found, shape):
    left, right = (max(shape) if n < 0 else n for n in found["window_size"])
    pairs = np.zeros(shape, dtype=bool)
    q_ends, k_ends = found["cu_seqlens_q"], found["cu_seqlens_k"]
    for n in range(len(q_ends) - 1):
        queries, keys = range(*q_ends[n : n + 2]), range(*k_ends[n : n + 2])
        assert len(queries) <= found["max_seqlen_q"]
        assert len(keys) <= found["max_seqlen_k"]
        for i in range(len(queries)):
            at = i + len(keys) - len(queries)
            for j in range(max(0, at - left), min(len(keys), at + right + 1)):
                pairs[queries[i], keys[j]] = True
    return pairs


def read_natten(found, shape):
    """The published meaning: along each axis the residue class, and a window that is moved inwards at its ends."""
    seen = np.ones((1, 1), dtype=bool)
    names = ("shape", "kernel_size", "stride", "dilation", "is_causal")
    for n, size, stride, dilation, causal in zip(*(found[name] for name in names), strict=True):
        axis = np.zeros((n, n), dtype=bool)
        for i in range(n):
            own = [j for j in range(n) if j % dilation == i % dilation]
            place = own.index(i)
            if causal:
                leader = min(place // stride * stride + stride - 1, len(own) - 1)
                some = own[max(0, leader - size + 1) : place + 1]
            else:
                leader = min(place // stride * stride + stride // 2, len(own) - 1)
                first = min(max(leader - size // 2, 0), len(own) - size)
                some = own[first : first + size]
            axis[i, some] = True
        seen = np.kron(seen, axis)
    assert seen.shape == shape
    return seen


READERS = {"csr": read_csr, "varlen": read_varlen, "natten": read_natten,
           "bsr": read_bsr, "cu_seqlens": read_cu_seqlens, "flashmask": read_flashmask, "magi": read_magi,
           "bias": read_bias}  # fmt: skip
CAN = {
    "bsr": set(TEXTS), "csr": set(TEXTS), "bias": set(TEXTS),
    "varlen": {"causal", "window", "both sides", "everything", "documents", "causal documents", "windowed documents"},
    "natten": {"causal", "window", "everything", "neighbourhood"},
    "cu_seqlens": {"causal", "everything", "documents", "causal documents"},
    "flashmask": set(TEXTS) - {"dilated", "neighbourhood"},
    "magi": set(TEXTS) - {"sinks", "longformer", "dilated", "neighbourhood"},
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
    for format_ in ("bsr", "csr", "varlen", "magi"):
        assert np.array_equal(
            READERS[format_](p.export(format_, 20, 50, block_size=16), (20, 50)), wanted
        )


IMAGES = [
    ("neighborhood2d", {"sy": 3, "sx": 4, "dx": 2, "ty": 2}, {"y": 9, "x": 14}),
    ("neighborhood2d", {"sy": 3, "ty": 3, "tx": 1, "py": True}, {"y": 8, "x": 5}),
    ("neighborhood3d", {"st": 2, "sy": 3, "sx": 3, "tt": 2, "px": True}, {"t": 3, "y": 5, "x": 6}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "values", "extents"), IMAGES)
def test_neighbourhoods_of_grids_are_told_by_their_arguments(name, values, extents):
    p, count = attndsl.compile(name, **values), int(np.prod(list(extents.values())))
    found = p.export("natten", count, extents=extents)
    assert found["shape"] == tuple(extents.values())
    wanted = p.mask(count, extents=extents)[0, 0].numpy()
    assert np.array_equal(read_natten(found, (count, count)), wanted)


@pytest.mark.parametrize("text", ["box2d(5)", "neighborhood2d(5) and q.y <= k.y", "neighborhood2d(3) or k < 1",
                                  "swin(4, 2)", "neighborhood2d(5) and not (q == 37 and k == 37)"])  # fmt: skip
def test_sets_near_a_neighbourhood_are_refused(text):
    p = attndsl.compile(f"pattern p over image = {text}")
    with pytest.raises(attndsl.AttnDslError) as caught:
        p.export("natten", 100, extents={"y": 10, "x": 10})
    assert caught.value.code == "A414"


def read_block_sparse(found, shape):
    blocks = found["base_blockmask"][0]
    assert (found["head_mask_type"] == 1).all()
    pairs = blocks.repeat(128, axis=1).repeat(128, axis=2)[:, : shape[0], : shape[1]]
    return pairs & np.tri(*shape, dtype=bool) if found["is_causal"] else pairs


@pytest.mark.parametrize(("text", "length"), [
    ("causal", 300), ("causal", 257), ("k == k", 300), ("k // 128 <= q // 128", 400),
    ("(k // 128 + q // 128) % 2 == 0", 400),
    ("causal and (k // 128 + q // 128) % 2 == 0", 500), ("if head < 1 then k // 128 < 1 else k // 128 >= 1", 300),
    ("if head < 1 then causal else causal and k < 128", 300),
])  # fmt: skip
def test_blocks_of_block_sparse_attention_are_the_pairs(text, length):
    p, heads = attndsl.compile(text), 2 if "head" in text else 1
    found = p.export("block_sparse", length, heads=heads)
    assert np.array_equal(
        read_block_sparse(found, (length, length)), p.mask(length, heads=heads)[0].numpy()
    )


@pytest.mark.parametrize("text", ["window(9)", "causal or k >= 256", "if head < 1 then causal else k == k",
                                  "causal and q >= 1", "k // 128 == q // 128 and (k <= q or q < 128)"])  # fmt: skip
def test_blocks_that_are_cut_otherwise_are_refused(text):
    with pytest.raises(attndsl.AttnDslError) as caught:
        attndsl.compile(text).export("block_sparse", 300, heads=2)
    assert caught.value.code == "A414"


def test_arrays_are_tensors_where_they_are_asked_for():
    found = attndsl.compile("causal").export("csr", 5, device="cpu")
    assert found["indptr"].tolist() == [0, 1, 3, 6, 10, 15]
    assert found["indices"].split([1, 2, 3, 4, 5])[-1].tolist() == [0, 1, 2, 3, 4]


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
    for name in FORMATS:
        attndsl.compile("causal").export(name, 5)
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
