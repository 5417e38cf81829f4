"""Numbers that the papers (or the catalogue) state: keys per query, groups, densities, and the known quarrels."""

import itertools
import math

import numpy as np
import pytest

from attndsl.oracles import ORACLES, Case

ORACLE = {(oracle.row, oracle.part): oracle for oracle in ORACLES}


def mask(row: int, part: str, case: Case, head: int = 0) -> np.ndarray:
    """The pairs of one head, bool [Q, K]."""
    return ORACLE[row, part].one(case, 0, head)


def keys(row: int, part: str, extents: dict[str, int], head: int = 0, **more) -> np.ndarray:
    """How many keys each query sees, [Q]. Options of the case, the others are parameters."""
    options = {name: more.pop(name) for name in ("inputs", "heads", "layer") if name in more}
    return mask(row, part, Case(extents, more, **options), head).sum(axis=1)


@pytest.mark.parametrize(
    ("row", "part", "extents", "params", "most"),
    [
        (1, "association", {"y": 10, "x": 10, "cy": 5, "cx": 5}, {"cell_y": 2, "cell_x": 2}, 9),
        (2, "", {"y": 8, "x": 8}, {"radius": 3}, 49),
        (11, "", {"r": 5, "y": 2, "x": 2}, {}, 5),
        (12, "uh", {"u": 2, "v": 1, "h": 12, "w": 2}, {"reach": 5}, 2 * 11),
        (16, "", {"p": 2, "s": 86}, {}, 64 + 16 + 4 + 1 + 1),
        (21, "block", {"y": 14, "x": 14}, {"block": 7}, 49),
        (21, "grid", {"y": 14, "x": 14}, {"grid_size": 7}, 49),
        (38, "both", {"y": 6, "x": 6, "py": 3, "px": 3}, {"window": 2, "low": 0, "heads": 1}, 4),
        (42, "", {"ct": 2, "cy": 3, "cx": 2, "t": 8, "y": 6, "x": 4}, {}, 4 * 2 * 2),
        (44, "", {"s": 4, "n": 140}, {"window": 128}, 4 + 128),
        (46, "token", {"c": 6, "n": 12}, {"block": 4, "width": 2}, 2 + 4),
        (48, "", {"y": 12, "x": 12, "cy": 6, "cx": 6}, {"window": 3, "scale": 2}, 9),
        (54, "halo", {"y": 24, "x": 24}, {"block": 8, "halo": 3}, 14 * 14),
        (56, "", {"y": 7, "x": 9}, {"height": 3, "width": 5, "dilation": 1}, 15),
        (60, "", {"y": 12, "x": 12}, {"window": 2, "ratio": 4}, 8 * 8),
        (72, "", {"n": 80}, {"window": 64}, 65),
        (96, "", {"n": 30}, {"window": 16}, 16),
        (106, "", {"y": 8, "x": 5}, {"areas": 4}, 10),
        (110, "", {"y": 48, "x": 24, "fy": 24, "fx": 12}, {"window": 24, "shift": 0}, 144),
    ],
    ids=lambda value: value if isinstance(value, int | str) else "",
)
def test_an_inner_query_sees_so_many_keys(row, part, extents, params, most):
    assert keys(row, part, extents, **params).max() == most


def test_rectangles_of_rgt_and_craft_hold_their_area():
    assert set(keys(6, "", {"y": 16, "x": 32}, 0, height=8, width=32, heads=2)) == {256}
    assert set(keys(6, "", {"y": 32, "x": 16}, 1, height=8, width=32, heads=2)) == {256}
    for head, layer in itertools.product((0, 1), (0, 1)):  # wrapping, shifted windows stay whole
        at = {"y": 16, "x": 16}
        assert set(keys(13, "", at, head, height=4, width=16, heads=2, layer=layer)) == {64}


def test_evenhancer_sees_49_keys_of_a_frame_or_as_many_zeros():
    near = {f"near_{axis}": np.array([[at]]) for axis, at in (("t", 3), ("y", 4), ("x", 4))}
    case = {"n": 1, "t": 5, "y": 9, "x": 9}
    seen = [keys(14, "", case, offset=o, radius=3, inputs=near)[0] for o in range(-2, 3)]
    assert seen == [49, 49, 49, 49, 49]  # two frames past the last is the last
    corner = near | {"near_y": np.array([[0]])}
    past = Case(case, {"offset": 2, "radius": 3}, corner)
    assert ORACLE[14, ""].zero_keys(past) == 3 * 7


def test_hats_overlapping_windows_keep_484_real_keys_on_average_at_64_by_64():
    a_side = keys(8, "ocab", {"y": 1, "x": 64}, window=16, overlap=4)
    assert a_side.max() == 24  # hence 24 x 24 = 576 inside
    assert a_side.mean() ** 2 == 484
    zeros = ORACLE[8, "ocab"].zero_keys(Case({"y": 16, "x": 32}, {"window": 16, "overlap": 4}))
    assert set(zeros.ravel()) == {576 - 16 * 20}  # one window high, two wide: 16 by 20 real keys


@pytest.mark.parametrize(
    ("row", "part", "slots"),
    [
        (1, "association", lambda p: 9),
        (8, "ocab", lambda p: (p["window"] + 2 * p["overlap"]) ** 2),
        (14, "", lambda p: (2 * p["radius"] + 1) ** 2),
        (54, "halo", lambda p: (p["block"] + 2 * p["halo"]) ** 2),
        (54, "downsampled", lambda p: (p["block"] + 2 * p["halo"]) ** 2),
        (56, "", lambda p: p["height"] * p["width"]),
    ],
    ids=lambda value: value if isinstance(value, int | str) else "",
)
def test_every_slot_of_a_padded_row_is_a_key_or_a_zero(row, part, slots):
    for case in ORACLE[row, part].cases:
        keys_seen = ORACLE[row, part].expected(case).sum(axis=3)
        assert (keys_seen + ORACLE[row, part].zero_keys(case) == slots(case.params)).all()


@pytest.mark.parametrize(("y", "x"), [(7, 9), (11, 7), (14, 8)])
def test_natten_keeps_exactly_k_keys_an_axis_up_to_the_corners(y, x):
    at = {"y": y, "x": x}
    for k in (2, 3, 5, 7):
        assert set(keys(36, "", at, window=k)) == {k * k}
    assert set(keys(18, "", at, window=3, dilation=2, layer=1)) == {9}
    assert set(keys(22, "", at, window=2, dilation=3)) == {4}
    for head in (0, 1):
        assert set(keys(107, "", at, head, window=3, heads=2)) == {9}
    for stride in (1, 2, 4):
        sizes = {"window": (4, 3), "stride": (stride, 1), "dilation": (1, 2)}
        assert set(keys(49, "2d", at, **sizes, causal=(False, False))) == {12}


def test_gna_goes_from_sliding_to_blocked():
    options = {"window": 4, "dilation": 1, "causal": False}
    sliding = mask(49, "1d", Case({"n": 16}, options | {"stride": 1}))
    blocked = mask(49, "1d", Case({"n": 16}, options | {"stride": 4}))
    assert len({row.tobytes() for row in sliding}) == 13  # a window at every place
    assert len({row.tobytes() for row in blocked}) == 4
    assert np.array_equal(blocked, np.kron(np.eye(4, dtype=bool), np.ones((4, 4), bool)))


def test_ultragen_and_lrgt_have_their_densities():
    tiles = mask(9, "", Case({"t": 2, "y": 8, "x": 8}, {"even": 4, "odd": 5}))
    assert tiles.mean() == 1 / 16
    views = mask(80, "grouped", Case({"v": 3, "y": 14, "x": 14}, {"side": 7}))
    assert views.mean() == 1 / 49
    assert set(views.sum(axis=1)) == {4 * 3}  # groups of 4V tokens
    assert len({row.tobytes() for row in views}) == 49


def test_longlora_does_not_leak_round_the_end():
    n, group = 32, 8
    case = Case({"n": n}, {"group": group}, heads=2)
    with_sinks = Case({"n": n}, {"group": group, "sink": 2}, heads=2)
    for row, at in ((39, case), (62, with_sinks)):
        for head in (0, 1):
            seen = mask(row, "", at, head)
            assert not np.triu(seen, 1).any()
            assert seen.diagonal().all()
    shifted = mask(39, "", case, 1)
    assert not shifted[-group // 2 :, : group // 2].any()  # ends split: no wrap at all
    assert set(np.diff(np.flatnonzero(shifted.sum(axis=1) == 1))) == {4, 8}  # group starts


def test_cca_covers_every_earlier_token_once_pooled_or_raw():
    n, group = 48, 4
    for window in (4, 5, 12):
        case = Case({"c": n // group, "n": n}, {"group": group, "window": window})
        seen = mask(53, "", case)
        cores, raw = seen[:, : n // group], seen[:, n // group :]
        covered = np.repeat(cores, group, axis=1).astype(int) + raw
        assert np.array_equal(covered, np.tri(n, dtype=int))
        widths = [i + 1 if i < window else window + (i + 1 - window) % group for i in range(n)]
        assert raw.sum(axis=1).tolist() == widths


def test_power_attention_visits_about_ten_blocks_at_32k():
    blocks = 32768 // 256
    counts = keys(61, "tokens", {"n": blocks}, window=5, sink=1)
    assert counts[-1] == 10  # five near, four powers of two, one sink
    assert counts.max() <= 5 + math.ceil(math.log2(blocks)) - 2 + 1


def test_power_attention_reaches_everything_in_log_steps():
    hop = mask(61, "tokens", Case({"n": 64}, {"window": 1, "sink": 0})).astype(int)
    reach = np.linalg.matrix_power(hop, 6)
    assert np.array_equal(reach > 0, np.tri(64, dtype=bool))
    assert (np.linalg.matrix_power(hop, 5)[-1] == 0).sum() == 1  # 63 = 111111 in binary


def test_sparse_transformer_fixed_has_33_summary_columns_a_block():
    counts = keys(81, "fixed", {"n": 400}, block=128, summary=32, cls=False)
    assert counts[399] == 3 * 33 + (399 % 128 + 1)
    opened = mask(81, "fixed", Case({"n": 9}, {"block": 4, "summary": 1, "cls": True}))
    assert opened[0].all()
    assert opened[:, 0].all()


def test_the_cls_token_of_lra_stands_before_the_blocks():
    seen = mask(81, "fixed", Case({"n": 10}, {"block": 4, "summary": 1, "cls": True}))
    assert np.flatnonzero(seen[6]).tolist() == [
        0,
        1,
        4,
        5,
        6,
    ]  # token 5: block 4, 5; 0 and 3 of block 0
    assert seen[0].all()


def test_lras_longformer_leans_right_when_even():
    none = {"marked": np.zeros((1, 40), bool)}
    seen = mask(81, "longformer", Case({"n": 40}, {"window": 16}, none))
    assert np.flatnonzero(seen[20]).tolist() == list(range(20 - 8 + 1, 20 + 8 + 1))


def test_var_scales_sum_to_680_tokens():
    sides = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    counts = keys(77, "", {"n": 680}, ends=np.cumsum(np.square(sides)))
    assert sorted(set(counts)) == [side**2 for side in sides]


def test_kinetics_reads_1024_tokens_from_64_pages_of_16():
    pages = np.random.default_rng(0).permutation(99)[:64].reshape(1, 1, 64)
    case = {"n": 1, "m": 4 + 99 * 16 + 9}
    params = {"sink": 4, "local": 7, "block": 16}
    seen = keys(58, "", case, **params, inputs={"chosen": pages})
    assert seen.tolist() == [4 + 1024 + 9]  # the block that local keys begin in has 2 keys more


def test_catanet_sees_two_groups_and_the_last_only_itself():
    rank = np.random.default_rng(1).permutation(64)
    counts = keys(4, "", {"n": 64}, group=16, inputs={"rank": rank[None]})
    assert np.array_equal(counts, np.where(rank // 16 == 3, 16, 32))


def test_catanets_last_group_sees_as_many_places_before_as_it_lacks_twice():
    rank = {"rank": np.arange(26)[None]}  # groups of 6: 5, of which the last lacks 4
    seen = mask(4, "", Case({"n": 26}, {"group": 6}, rank))
    assert np.flatnonzero(seen[25]).tolist() == list(range(4 * 6 - 2 * 4, 26))
    assert np.flatnonzero(seen[23]).tolist() == list(range(18, 26))


def test_video_infinity_samples_each_device_and_counts_the_padding():
    case = Case({"n": 35}, {"pad": 2, "top": 10, "devices": 5})  # 7 frames each, stride 3
    shared = mask(25, "", case)[[0, 34]].all(axis=0)
    assert np.flatnonzero(shared).tolist() == [0, 3, 6, 7, 10, 13, 14, 17, 20, 21]
    assert mask(25, "", case)[8].sum() == 5 + 10 - 3  # a frame both near and sampled counts once
    assert ORACLE[25, ""].zero_keys(Case({"n": 24}, {"pad": 5, "top": 4, "devices": 1})).sum() == 30


def test_freelong_sees_seventeen_frames():
    seen = mask(33, "", Case({"n": 40}, {"window": 16}))
    assert np.flatnonzero(seen[20]).tolist() == list(range(12, 29))
    assert np.flatnonzero(seen[0]).tolist() == list(range(9))


@pytest.mark.parametrize(
    ("heads", "low", "window", "pooled"), [(3, 50, 2, 1), (3, 50, 1, 3), (4, 90, 2, 3)]
)
def test_hilo_rounds_the_pooled_heads_down(heads, low, window, pooled):
    extents = {"y": 4, "x": 4, "py": 4 // window, "px": 4 // window}
    case = Case(extents, {"window": window, "low": low}, heads=heads)
    sees_image = ORACLE[38, "both"].expected(case)[0, :, :, :16].any(axis=(1, 2))
    assert sees_image.tolist() == [True] * (heads - pooled) + [False] * pooled


def test_presto_gives_five_captions_two_frames_each():
    captions = {"caption": np.arange(5)[None]}
    apart = {"segments": 5, "overlap": 0}
    seen = mask(93, "", Case({"t": 10, "y": 1, "x": 1, "m": 5}, apart, captions))
    assert np.array_equal(seen, np.repeat(np.eye(5, dtype=bool), 2, axis=0))
    shared = mask(93, "", Case({"t": 22, "y": 1, "x": 1, "m": 5}, apart | {"overlap": 1}, captions))
    assert [np.flatnonzero(column)[[0, -1]].tolist() for column in shared.T] == [
        [0, 4], [3, 8], [7, 13], [12, 17], [16, 21]
    ]  # fmt: skip


def test_nsa_compresses_what_has_ended():
    counts = keys(94, "compressed", {"n": 100, "c": 5}, length=32, stride=16)
    assert [counts[i] for i in (30, 31, 46, 47, 95)] == [0, 1, 1, 2, 5]


def test_infllm2_sees_every_one_of_the_last_keys_and_whole_blocks():
    nothing = {"chosen": np.full((1, 1, 40, 1), -1)}
    params = {"dense_len": 0, "block": 4, "initial": 1, "local": 8}
    seen = mask(88, "", Case({"n": 40}, params, nothing))
    for i in range(40):
        assert seen[i, max(i - 7, 0) : i + 1].all()
        assert seen[i, : min(4, i + 1)].all()
        assert seen[i].sum() <= 4 + 8 + 3  # blocks stick out by less than one


def test_radial_keeps_two_frames_an_octave():
    params = {"block": 2, "decay": 100, "full_neighbour": False}
    frames, s = 40, 4
    seen = mask(66, "", Case({"t": frames, "s": s}, params))
    kept = seen.reshape(frames, s, frames, s).any(axis=(1, 3))
    # The width 8 / 2^bitlen(d) falls under the block at d = 4; from there 2, 4, 8, 16 divide d.
    apart = [39 - f for f in np.flatnonzero(kept[39]) if f > 0]
    assert apart[::-1] == [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
    assert kept[:, 0].all()  # the sink frame


def test_hicoms_cells_have_one_size_overlap_by_one_and_miss_nothing():
    for n, cells in ((8, 3), (8, 4), (8, 5), (27, 14)):
        seen = mask(42, "", Case({"ct": 1, "cy": 1, "cx": cells, "t": 1, "y": 1, "x": n}))
        assert set(seen.sum(axis=1)) == {math.ceil(n / cells)}  # 27 in 14: cells of exactly 2
        assert seen.any(axis=0).all()
        overlap = (seen[1:] & seen[:-1]).sum(axis=1)
        assert overlap.sum() == cells * math.ceil(n / cells) - n
        assert set(overlap) <= {0, 1}


def test_drsformers_masks_are_nested():
    order = {"order": np.argsort(np.random.default_rng(2).random((1, 1, 60, 60)), axis=-1)}
    seen = [mask(86, "", Case({"n": 60}, {"kept": k}, order)) for k in (30, 40, 45, 48)]
    assert [set(m.sum(axis=1)) for m in seen] == [{30}, {40}, {45}, {48}]
    assert all((a <= b).all() for a, b in itertools.pairwise(seen))


PARTITIONS = [
    "006-rgt",
    "007-rat-region",
    "007-rat-window",
    "008-hat-window",
    "009-ultragen",
    "010-simplegvr-interleave",
    "013-craft",
    "016-duoformer",
    "019-sviptr",
    "020-mossformer",
    "021-maxvit-block",
    "021-maxvit-grid",
    "023-lvit",
    "026-fit-local",
    "027-dformer-dilated",
    "027-dformer-local",
    "028-gps-global",
    "034-maniqa",
    "063-crossformer-lda",
    "073-histoformer-bin",
    "073-histoformer-frequency",
    "077-mvar",
    "080-lrgt-grouped",
    "080-lrgt-view",
    "085-fit2",
    "091-efficient_conformer-grouped",
    "102-npt-aba",
    "106-yolo12",
]


@pytest.mark.parametrize("name", PARTITIONS)
def test_a_partition_covers_every_token_once(name):
    (found,) = (oracle for oracle in ORACLES if oracle.id == name)
    for case in found.cases:
        for seen in found.expected(case).reshape(-1, *found.expected(case).shape[2:]):
            groups = {row.tobytes() for row in seen}
            members = np.array([np.frombuffer(group, dtype=bool) for group in groups])
            assert (members.sum(axis=0) == 1).all()
            assert seen.diagonal().all()
