"""Every entry of the library against the oracle of its row.

``JOINS`` says which entry, at which layer, states which oracle, and how the names of the one are spelt by the other.
An oracle without an entry, and an entry that no oracle judges, are named with the reason.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch

from attndsl import AttnDslError, Pattern, library, patterns
from tests.library.oracles import ORACLES, Case
from tests.rooms.patterns.oracles import drawn

BY_ID = {oracle.id: oracle for oracle in ORACLES}
Turn = Callable[[Case], Case]


@dataclass(frozen=True)
class Join:
    """An oracle and the entry that states it.

    Attributes:
        oracle: The id of the oracle.
        entry: The entry.
        names: Our name of an extent, parameter or input, and theirs where it differs.
        layer: The layer at which the entry is this oracle; None: the case's own.
        more: Parameters of the entry that the oracle does without.
        turn: Further changes to a case.
    """

    oracle: str
    entry: str
    names: dict[str, str] = field(default_factory=dict)
    layer: int | None = None
    more: dict[str, object] = field(default_factory=dict)
    turn: Turn = lambda case: case


def join(
    oracle: str,
    entry: str,
    names: str = "",
    *,
    layer: int | None = None,
    turn: Turn = lambda case: case,
    **more: object,
) -> Join:
    """``names`` reads "ours=theirs ours=theirs"."""
    spelt = dict(pair.split("=") for pair in names.split())
    return Join(oracle, entry, spelt, layer, more, turn)


def params(case: Case, **made: object) -> Case:
    """The case with other parameters; those made None are left out."""
    merged = case.params | made
    return replace(case, params={name: it for name, it in merged.items() if it is not None})


def per_axis(case: Case, axes: str) -> Case:
    """Tuples of ``window``, ... become one parameter for each axis: sy, sx, dy, dx, ty, tx, py, px."""
    letters = {"window": "s", "dilation": "d", "stride": "t", "causal": "p"}
    made = {
        letters[name] + axis: value
        for name, values in case.params.items()
        for axis, value in zip(axes, values, strict=True)
    }
    return replace(case, params=made)


def folded(case: Case) -> Case:
    """The keys' grid has half the extents."""
    keys = {f"folded.{axis}": case.extents[axis] // 2 for axis in "yx"}
    return replace(case, extents=case.extents | keys)


def phantom_group(case: Case) -> Case:
    """Number of phantom tokens of a group."""
    return replace(case, extents=case.extents | {"phantom.m": case.extents["m"]})


def kinds_are_given(case: Case) -> Case:
    kinds = np.array([case.params["kinds"]])
    return params(replace(case, inputs={"kinds": kinds}), kinds=None)


def frames_in_a_row(case: Case) -> Case:
    """n queries as a video of n pixels."""
    n, m = case.extents["n"], case.extents["m"]
    return replace(case, extents={"t": 1, "y": 1, "x": n, "a": m})


def one_reference(case: Case) -> Case:
    flags = case.inputs["foreground"][:, None]
    return replace(case, extents=case.extents | {"c": 1}, inputs={"foreground": flags})


def ends(case: Case) -> Case:
    return params(case, sides=None, ends=np.cumsum(np.square(case.params["sides"])).tolist())


def percent(case: Case) -> Case:
    return params(case, decay=100 * case.params["decay"])


def without_ratio(case: Case) -> Case:
    """The entry finds the ratio in the two grids."""
    return params(case, ratio=None)


def without_kv_heads(case: Case) -> Case:
    """The entry finds their number in its input."""
    return params(case, kv_heads=None)


def groups(case: Case) -> Case:
    sizes = zip(("group_t", "group_y", "group_x"), case.params["group"], strict=True)
    return params(case, group=None, **dict(sizes))


JOINS = [
    join("001-stvit-association", "stvit", "y=pixels.y x=pixels.x cy=supers.y cx=supers.x"),
    join("001-stvit-update", "stvit_update", "y=pixels.y x=pixels.x cy=supers.y cx=supers.x"),
    join("002-dlgsanet", "dlgsanet"),
    join("003-ttvsr", "ttvsr"),
    join("004-catanet", "catanet"),
    join("005-redundancy", "redundancy", turn=kinds_are_given),
    join("006-rgt", "rgt_local"),
    join("007-rat-region", "rat"),
    join("007-rat-window", "rat_window"),
    join("008-hat-ocab", "hat_overlap"),
    join("008-hat-window", "hat"),
    join("009-ultragen", "ultragen"),
    join("010-simplegvr-interleave", "simplegvr"),
    join("010-simplegvr-sparse_local", "simplegvr_sparse"),
    join("011-lmr", "lmr"),
    join("012-lf_epi-uh", "epit", layer=0),
    join("012-lf_epi-vw", "epit", layer=1),
    join("013-craft", "craft"),
    join("014-evenhancer", "evenhancer"),
    join("015-blockrank", "blockrank", "block=block_of"),
    join("016-duoformer", "duoformer"),
    join("017-short_range", "decomposed"),
    join("018-dinat", "dinat"),
    join("019-sviptr", "sviptr"),
    join("020-mossformer", "mossformer"),
    join("021-maxvit-block", "maxvit", layer=0),
    join("021-maxvit-grid", "maxvit", layer=1),
    join("022-kan_dina", "medvit_v2"),
    join("023-lvit", "l2vit"),
    join("024-maformer", "maformer_local"),
    join("025-video_infinity", "video_infinity"),
    join("026-fit-causal_global", "fit_global", past=True),
    join("026-fit-causal_local", "fit_local", "p=n", past=True),
    join("026-fit-causal_write", "fit_write_past", "p=n m=latent.m", turn=phantom_group),
    join("026-fit-local", "fit_local", "p=n"),
    join("026-fit-read", "fit_read", "p=n"),
    join("026-fit-write", "fit_write", "p=n"),
    join("027-dformer-dilated", "dformer", layer=1, turn=groups),
    join("027-dformer-local", "dformer", layer=0, turn=groups),
    join("028-gps-global", "gps_global"),
    join("028-gps-local", "gps_local", "neighbours=neighbors"),
    join("029-lamamba", "lamamba_diff"),
    join("030-dcal", "dcal"),
    join("031-ems", "ems"),
    join("032-gcvit", "gcvit"),
    join("033-freelong", "freelong"),
    join("034-maniqa", "maniqa"),
    join("035-transnext", "transnext", "y=image.y x=image.x py=pooled.y px=pooled.x"),
    join("036-segman", "segman"),
    join("037-tcpa", "tcpa"),
    join("038-hilo-both", "hilo", "y=image.y x=image.x py=pooled.y px=pooled.x"),
    join("039-longlora", "longlora"),
    join("040-complete_modelling-between", "iagc", layer=1),
    join("040-complete_modelling-local", "iagc", layer=0),
    join("041-magicinfinite", "magicinfinite", turn=frames_in_a_row),
    join("042-hicom", "hicom", "ct=cells.t cy=cells.y cx=cells.x t=volume.t y=volume.y x=volume.x"),
    join("043-davit", "davit"),
    join("044-lizard", "lizard", "s=m"),
    join("045-lola_specvit", "lola_specvit"),
    join("046-block_transformer-block", "block_transformer"),
    join("046-block_transformer-token", "block_transformer_tokens"),
    join("047-anchor_attention", "anchor_attention", "chosen=stripes"),
    join("048-attn_upsample", "window_upsample", "y=image.y x=image.x cy=coarse.y cx=coarse.x"),
    join("049-gna-1d", "gna1d", "causal=past"),
    join("049-gna-2d", "gna", turn=lambda c: per_axis(c, "yx")),
    join("049-gna-3d", "gna3d", turn=lambda c: per_axis(c, "tyx")),
    join("050-fna-1d", "fna1d", "causal=past"),
    join("050-fna-2d", "fna", turn=lambda c: per_axis(c, "yx")),
    join("051-cab-causal_cross", "cab", past=True),
    join("051-cab-causal_self", "cab", past=True),
    join("052-largegt-codebook", "largegt_global", "n=v"),
    join("052-largegt-local", "largegt", "n=v neighbours=neighbors"),
    join("053-cca", "cca"),
    join("054-halonet-downsampled", "halonet_down", "qy=strided_image.y qx=strided_image.x y=image.y x=image.x"),
    join("054-halonet-halo", "halonet"),
    join("055-routing", "routing", "causal=past"),
    join("056-tic", "tic"),
    join("057-scale_dit-large", "scale_dit", "y=high.y x=high.x ly=low.y lx=low.x block=many", turn=without_ratio),
    join("057-scale_dit-small", "scale_dit", "y=high.y x=high.x ly=low.y lx=low.x"),
    join("058-kinetics", "kinetics", "chosen=kv_chosen", turn=without_kv_heads),
    join("059-sgformer", "sgformer", "y=image.y x=image.x py=pooled.y px=pooled.x"),
    join("060-varying_window", "vwformer"),
    join("061-power_attention-blocks", "powerattention"),
    join("061-power_attention-tokens", "powerattention", block=1),
    join("062-sinklora", "sinklora"),
    join("063-crossformer-lda", "crossformer", layer=1),
    join("063-crossformer-sda", "crossformer", layer=0),
    join("064-sparse_frontier-blocks", "frontier_blocks"),
    join("064-sparse_frontier-pages", "frontier_pages", "chosen=pages"),
    join("064-sparse_frontier-vertical_slash", "frontier_lines"),
    join("065-scale_kv", "scalekv", "kept=retained"),
    join("066-radial", "radial", turn=percent),
    join("066-radial-joint", "radial", "words=m", turn=percent),
    join("067-vsa", "vsa"),
    join("068-lsm", "million_scale"),
    join("069-creative_upscale", "c_upscale", "region=region_of"),
    join("070-magicface-rba", "magicface_regions"),
    join("070-magicface-rsa", "magicface"),
    join("071-dreamtuner", "dreamtuner", turn=one_reference),
    join("072-based", "based"),
    join("073-histoformer-bin", "histoformer"),
    join("073-histoformer-frequency", "histoformer_frequency"),
    join("074-dynamic_mask", "dynamic_mask", "chosen=chosen_keys"),
    join("075-mask_bench-causal_blockwise", "bench_causal_blockwise", "block=block_of"),
    join("075-mask_bench-causal_document", "documents_causal", "document=doc"),
    join("075-mask_bench-document", "documents", "document=doc"),
    join("075-mask_bench-global_sliding", "bench_global_sliding"),
    join("075-mask_bench-prefix", "prefix", "prefix=n"),
    join("075-mask_bench-prefix_document", "bench_prefix_document", "prefix=prefix_of"),
    join("075-mask_bench-shared_question", "bench_shared_question"),
    join("075-mask_bench-sliding", "bench_sliding"),
    join("075-mask_bench-sliding_document", "bench_sliding_document"),
    join("075-mask_bench-uniform_blocks", "bench_uniform_blocks"),
    join("075-mask_bench-variable_blocks", "bench_variable_blocks", "block=block_of"),
    join("076-acmil", "acmil"),
    join("077-mvar", "mvar", turn=ends),
    join("078-sequence_parallel", "sequence_parallel"),
    join("079-freecustom", "freecustom"),
    *(join("080-lrgt-grouped", "lrgt", layer=layer) for layer in (5, 7, 9, 11)),
    *(join("080-lrgt-view", "lrgt", layer=layer) for layer in (0, 4, 6, 8, 10)),
    join("081-lra-fixed", "lra_fixed"),
    join("081-lra-local", "lra_local"),
    join("081-lra-longformer", "lra_longformer", "marked=is_global"),
    join("081-lra-reformer", "lra_reformer"),
    join("081-lra-strided", "lra_strided"),
    join("082-iared", "iared", "keep=keep_at"),
    join("083-axformer", "axformer", "chosen=chosen_keys"),
    join("084-not_every_layer-blocks", "masformer"),
    join("084-not_every_layer-window", "masformer_window"),
    join("085-fit2", "fitv2"),
    join("086-drsformer", "drsformer", "k=kept"),
    join("087-deftan-f", "deftan", layer=0),
    join("087-deftan-t", "deftan", layer=1),
    join("088-infllm2", "infllm2", "chosen=kv_blocks", turn=without_kv_heads),
    join("089-spark", "spark", "chosen=chosen_keys"),
    join("090-hyperattention", "hyperattention"),
    join("090-hyperattention-causal", "hyperattention_causal", "q_rank=q_rank_at k_rank=k_rank_at"),
    join("091-efficient_conformer-by_head", "efficient_conformer_by_head"),
    join("091-efficient_conformer-grouped", "efficient_conformer"),
    join("092-selective", "selective"),
    join("093-presto", "presto"),
    join("094-nsa_latent-compressed", "nsa_compressed"),
    join("094-nsa_latent-local", "nsa_window"),
    join("094-nsa_latent-selected", "nsa_selected", "chosen=kv_blocks", turn=without_kv_heads),
    join("095-pointgs", "pointgs", "neighbours=neighbors"),
    join("096-griffin", "griffin"),
    join("097-rope_nope", "rnope"),
    join("098-moba", "moba", "chosen=key_blocks"),
    join("099-mcanet-columns", "mcanet", layer=0),
    join("099-mcanet-rows", "mcanet", layer=1),
    join("100-lean", "lean", "length=filled"),
    join("101-infini", "infini"),
    join("102-npt-aba", "npt", layer=1),
    join("102-npt-abd", "npt", layer=0),
    join("103-eligen", "eligen", "words=l prompt=prompt_of"),
    join("104-smarttrim", "smarttrim", "keep=left"),
    join("105-fastmetro", "fastmetro"),
    join("106-yolo12", "yolov12"),
    join("107-a2mamba", "a2mamba"),
    join("108-hydra", "hydra"),
    join("109-mma", "mma", "image=image_span question=question_span"),
    join("110-srformer", "srformer", "y=image.y x=image.x", turn=folded),
]  # fmt: skip

UNSTATED = {
    "038-hilo-high": "the entry states all heads at once",
    "081-lra-bigbird": "below: the entry draws its blocks by a hash",
}


def inputs_for(pattern, case: Case) -> dict[str, torch.Tensor]:
    """The inputs in the shapes that the entry declares: without batch where all share one, with a
    head axis where heads are alike."""
    made = {}
    for table in pattern.ir.tables:
        array = case.inputs[table.name]
        if "batch" not in table.dims:
            assert case.batch == 1
            array = array[0]
        elif "head" in table.dims and array.ndim < len(table.dims):
            array = np.repeat(array[:, None], case.heads, axis=1)
        made[table.name] = torch.from_numpy(np.ascontiguousarray(array))
    return made


def extents_for(pattern, extents: dict[str, int]) -> dict[str, int]:
    """Extents that name an axis of the entry's spaces; a flat axis has a length only."""
    spaces = (pattern.ir.queries, pattern.ir.keys)
    axes = {
        (segment.name, axis.name)
        for space in spaces
        for segment in space.segments
        for axis in segment.axes
    }
    spelt = {f"{segment}.{axis}" for segment, axis in axes} | {axis for _, axis in axes}
    return {name: size for name, size in extents.items() if name in spelt}


def compiled(joint: Join, case: Case) -> tuple[Pattern, dict[str, Any]]:
    """The entry, and what a call of it needs besides lengths."""

    def spelt(given):
        return {joint.names.get(name, name): it for name, it in given.items()}

    case = joint.turn(case)
    layer = case.layer if joint.layer is None else joint.layer
    pattern = library.load(joint.entry, layer=layer, **spelt(case.params), **joint.more)
    inputs = inputs_for(pattern, replace(case, inputs=spelt(case.inputs)))
    return pattern, {"extents": extents_for(pattern, spelt(case.extents)), **inputs}


each_join = pytest.mark.parametrize(
    "joint", JOINS, ids=lambda joint: f"{joint.oracle}={joint.entry}@{joint.layer}"
)


@each_join
def test_an_entry_means_what_its_oracle_says(joint: Join):
    oracle = BY_ID[joint.oracle]
    for case in oracle.cases:
        expected = oracle.expected(case)
        pattern, call = compiled(joint, case)
        _, _, q_len, k_len = expected.shape
        found = pattern.mask(q_len, k_len, case.heads, batch=case.batch, **call).numpy()
        wrong = np.argwhere(found != expected)
        assert not len(wrong), (case, "first (batch, head, query, key):", wrong[0].tolist())
        zeros = pattern.zero_keys(q_len, k_len, case.heads, batch=case.batch, **call).numpy()
        assert np.array_equal(zeros, oracle.zero_keys(case)), case
        schedule = pattern.schedule(q_len, k_len, case.heads, batch=case.batch, tile=(4, 8), **call)
        for b, h in np.ndindex(expected.shape[:2]):
            assert np.array_equal(schedule.cover(b, h), expected[b, h]), (case, b, h)


# A hundred products of size 1, a dozen roundings deep.
CLOSE = {torch.float64: 1e-12, torch.float32: 3e-5}


@each_join
@pytest.mark.parametrize(
    ("backend", "layout", "dtype"),
    [
        pytest.param("blocked", "auto", torch.float64, marks=pytest.mark.slow),
        ("blocked", "residues(3)", torch.float64),
        pytest.param("triton", "natural", torch.float32, marks=pytest.mark.slow),
        ("triton", "residues(3)", torch.float32),
    ],
    ids=["blocked", "blocked-by-residues", "triton", "triton-by-residues"],
)
def test_an_entry_attends_to_what_its_oracle_says(
    joint: Join, backend: str, layout: str, dtype: torch.dtype
):
    """The whole way, schedule and kernels included, there and back."""
    attend(joint, BY_ID[joint.oracle].cases[1], backend, layout, dtype)


LARGE = {
    "018-dinat": Case({"y": 26, "x": 23}, {"window": 5, "dilation": 4}, layer=1),
    "021-maxvit-grid": Case({"y": 28, "x": 21}, {"grid_size": 7}),
    "025-video_infinity": Case({"n": 600}, {"pad": 9, "top": 12, "devices": 4}),
    "039-longlora": Case({"n": 650}, {"group": 96}, heads=2),
    "053-cca": Case({"c": 40, "n": 645}, {"group": 16, "window": 70}),
    "061-power_attention-blocks": Case({"n": 700}, {"block": 16, "window": 2, "sink": 1}),
    "062-sinklora": Case({"n": 600}, {"group": 120, "sink": 3}, heads=2),
    "066-radial-joint": Case(
        {"t": 9, "s": 64, "words": 17}, {"block": 16, "decay": 1, "full_neighbour": False}
    ),
    "080-lrgt-grouped": Case({"v": 3, "y": 14, "x": 14}, {"side": 7}),
    "102-npt-abd": Case({"n": 37, "d": 16}),
    "107-a2mamba": Case({"y": 22, "x": 26}, {"window": 5}, heads=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["natural", "auto"])
@pytest.mark.parametrize("oracle", LARGE)
def test_entries_of_many_tiles_attend_to_what_their_oracles_say(oracle: str, layout: str):
    joint = next(joint for joint in JOINS if joint.oracle == oracle)
    attend(joint, LARGE[oracle], "blocked", layout, torch.float64)


def attend(joint: Join, case: Case, backend: str, layout: str, dtype: torch.dtype) -> None:
    """Output, log-sum-exp and gradients against NumPy's under the oracle's mask."""
    expected = BY_ID[joint.oracle].expected(case)
    b, h, q_len, k_len = expected.shape
    draw = np.random.default_rng(0)
    lengths = (q_len, k_len, k_len, q_len)
    q, k, v, d_out = (draw.standard_normal((b, h, n, 16)) for n in lengths)
    pattern, call = compiled(joint, case)
    leaves = [torch.tensor(x, dtype=dtype, requires_grad=True) for x in (q, k, v)]
    out, lse = pattern(*leaves, return_lse=True, backend=backend, layout=layout, **call)
    gradients = torch.autograd.grad(out, leaves, torch.tensor(d_out, dtype=dtype))
    wanted = attention(q, k, v, d_out, expected, BY_ID[joint.oracle].zero_keys(case))
    for found, right in zip((out, lse, *gradients), wanted, strict=True):
        np.testing.assert_allclose(found.detach().numpy(), right, atol=CLOSE[dtype])


def attention(q, k, v, d_out, mask: np.ndarray, zeros: np.ndarray) -> tuple[np.ndarray, ...]:
    """out, lse, dq, dk, dv under a mask, as the textbook has them; scale 1 / sqrt(16).

    Zero keys stand in the denominator alone, with a weight of exp(0) each.
    """
    weights = np.where(mask, np.exp(q @ k.swapaxes(2, 3) / 4), 0)
    total = weights.sum(axis=3, keepdims=True) + zeros[..., None]
    p = weights / np.where(total > 0, total, 1)  # a query without a key: out 0, lse -inf
    d_p = d_out @ v.swapaxes(2, 3)
    d_s = p * (d_p - (p * d_p).sum(axis=3, keepdims=True)) / 4
    with np.errstate(divide="ignore"):
        lse = np.log(total[..., 0])
    return p @ v, lse, d_s @ k, d_s.swapaxes(2, 3) @ q, p.swapaxes(2, 3) @ d_out


def test_bigbird_with_the_blocks_that_its_hash_draws():
    """The released generator is not ours; `drawn` says in plain Python what our hash draws."""
    oracle, n, block, count, seed, heads = BY_ID["081-lra-bigbird"], 26, 3, 2, 5, 2
    blocks = -(-n // block)
    drawn_by = [
        [
            [b for b in range(blocks) if drawn(a * block, b * block, n, h, block, count, seed)]
            for a in range(blocks)
        ]
        for h in range(heads)
    ]
    table = np.array([[row + row[:1] * (count - len(row)) for row in rows] for rows in drawn_by])
    case = Case({"n": n}, {"block": block}, {"random": table[None]}, heads=heads)
    pattern = library.load("lra_bigbird", block=block, count=count, seed=seed)
    assert np.array_equal(pattern.mask(n, heads=heads).numpy(), oracle.expected(case))


@pytest.mark.parametrize("row", ["044-lizard", "046-block_transformer-token", "053-cca"])
def test_a_step_of_decoding_is_the_last_rows_of_the_whole(row: str):
    joint = next(joint for joint in JOINS if joint.oracle == row)
    case = BY_ID[row].cases[0]
    expected = torch.from_numpy(BY_ID[row].expected(case))
    pattern, call = compiled(joint, case)
    draw = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, 1, n, 8, dtype=torch.float64, generator=draw)
        for n in (expected.shape[2], expected.shape[3], expected.shape[3])
    )
    whole = pattern(q, k, v, **call)
    for steps in (1, 3):
        found = pattern.mask(steps, expected.shape[3], **call)
        assert torch.equal(found, expected[:, :, -steps:])
        np.testing.assert_allclose(pattern(q[:, :, -steps:], k, v, **call), whole[:, :, -steps:])


def test_srformer_refuses_a_shift_that_cuts_folds_apart():
    assert library.load("srformer", window=22)
    with pytest.raises(AttnDslError, match="needs `shift % 2 == 0`") as caught:
        library.load("srformer", window=22, shift=11)
    assert caught.value.diagnostics[0].code == "A301"


def test_every_oracle_is_stated_by_an_entry_or_says_why_not():
    joined = {joint.oracle for joint in JOINS}
    assert joined | UNSTATED.keys() == BY_ID.keys()
    assert not joined & UNSTATED.keys()


def test_every_entry_is_judged_or_is_dense():
    judged = {joint.entry for joint in JOINS} | {"lra_bigbird"}
    for name in set(library.names()) - judged:
        trial = patterns.trial(library.describe(name))
        mask = library.load(name).mask(trial.q_len, trial.k_len, extents=trial.extents)
        assert mask.all(), name


def test_an_entry_stands_in_the_row_of_its_oracle():
    for joint in JOINS:
        if joint.entry in library.names():
            assert int(library.describe(joint.entry).row) == BY_ID[joint.oracle].row
