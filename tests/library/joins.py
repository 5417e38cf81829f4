"""Which entry of the library an oracle judges, and under which names: a line an oracle.

`of="a=b"`: what the oracle calls ``a`` is ``b`` in the entry, be it a parameter, an axis or an input.
Names that agree are not listed; `n` and `m` of a flat pattern are its lengths.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from attndsl import ir
from attndsl.compiler import Program, describe, read_mask
from tests.library.oracles import Case


@dataclass(frozen=True)
class Join:
    entry: str
    of: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    layer: int | None = None  # which layer of the entry this part is
    adapt: Callable[[Case], Case] | None = None
    recast: Callable[[Case], Case] | None = None  # another case for the oracle, too


def found(join: Join, case: Case, q_len: int, k_len: int) -> np.ndarray:
    """What the entry says of the case, bool [batch, heads, q_len, k_len]."""
    names = dict(pair.split("=") for pair in join.of.split())
    case = join.adapt(case) if join.adapt else case
    given = {**case.extents, **case.params, **case.inputs}
    named = {names.get(name, name): value for name, value in given.items()}
    shown = describe(join.entry)
    tables = {table.name: table for table in shown.inputs}
    values = {p.name: named[p.name] for p in shown.parameters if p.name in named} | join.values
    values = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
    inputs = {name: fitted(tables[name], named[name]) for name in tables if name in named}
    axes = {
        f"{segment.name}.{axis.name}": axis.name
        for space in (shown.queries, shown.keys)
        for segment in space.segments
        for axis in segment.axes
    }
    extents = {
        full: named[name] for full, short in axes.items() for name in (full, short) if name in named
    }
    used = {*values, *inputs, *extents, *(axes[full] for full in extents)}
    flat = {"n", "m", "y", "x"} if not axes else set()
    unused = set(named) - used - flat
    assert not unused, f"{join.entry} knows no {sorted(unused)}"
    layer = case.layer if join.layer is None else join.layer
    program = Program(read_mask(join.entry, None, values), layer)
    call = program.call(q_len, k_len, case.batch, case.heads, extents, inputs)
    return program.dense(call)


def fitted(table: ir.Table, value: Any) -> np.ndarray:
    """The array with the dims the entry declares: an oracle's inputs all have a batch dim."""
    array = np.asarray(value)
    if "batch" not in table.dims and array.ndim > len(table.dims):
        assert len(array) == 1, "one for all batch elements"
        array = array[0]
    return array


def params(**changes: Callable[[Any], Any]) -> Callable[[Case], Case]:
    """Parameters computed from the oracle's: ``ends=f`` gives ``f(case.params)``, all others go."""
    return lambda case: replace(case, params={n: make(case.params) for n, make in changes.items()})


def each_axis(**names: str) -> Callable[[Case], Case]:
    """A parameter that holds one value an axis, as a parameter an axis: ``window="sy sx"``."""

    def spread(case: Case) -> Case:
        made = {
            ours: value
            for theirs, all_ours in names.items()
            for ours, value in zip(all_ours.split(), case.params[theirs], strict=True)
        }
        return replace(case, params=made)

    return spread


def drop(*names: str) -> Callable[[Case], Case]:
    """Without parameters that follow from the inputs."""
    return lambda case: replace(
        case, params={name: value for name, value in case.params.items() if name not in names}
    )


def kinds_as_input(case: Case) -> Case:
    kinds = np.array(case.params["kinds"])
    others = {name: value for name, value in case.params.items() if name != "kinds"}
    return replace(case, params=others, inputs={"kinds": kinds[None]})


def one_reference(case: Case) -> Case:
    (foreground,) = case.inputs.values()
    extents = {**case.extents, "c": 1}
    return replace(case, extents=extents, inputs={"foreground": foreground[:, None]})


def by_head(*names: str) -> Callable[[Case], Case]:
    """Inputs that are the same for all heads, once a head."""

    def spread(case: Case) -> Case:
        made = {
            name: np.repeat(value[:, None], case.heads, axis=1) if name in names else value
            for name, value in case.inputs.items()
        }
        return replace(case, inputs=made)

    return spread


def on_a_line(case: Case) -> Case:
    """Flat queries as a video of one row."""
    return replace(case, extents={"t": 1, "y": 1, "x": case.extents["n"], "a": case.extents["m"]})


def folded(case: Case) -> Case:
    """A shift as the layer that has it, and the extents of the folded keys."""
    shift, window = case.params["shift"], case.params["window"]
    assert shift in (0, window // 2)
    y, x = case.extents["y"], case.extents["x"]
    extents = {"image.y": y, "image.x": x, "folded.y": y // 2, "folded.x": x // 2}
    return replace(case, extents=extents, params={"window": window}, layer=int(shift > 0))


def draws_of_ours(case: Case) -> Case:
    """The oracle is told the random blocks that the prelude draws."""
    random, block = case.inputs["random"], case.params["block"]
    blocks, count = -(-case.extents["n"] // block), random.shape[-1]
    mask = read_mask("random_blocks", None, {"b": 1, "count": count})
    sizes = {"q": blocks, "k": blocks}
    drawn = ir.meaning(mask, blocks, blocks, sizes, heads=case.heads)[0]
    lists = np.full((case.batch, case.heads, blocks, count), -1)
    for h, row in np.ndindex(case.heads, blocks):
        chosen = np.flatnonzero(drawn[h, row])
        lists[:, h, row, : len(chosen)] = chosen
    return replace(case, inputs={"random": lists})


def without_draws(case: Case) -> Case:
    count = case.inputs["random"].shape[-1]
    return replace(case, inputs={}, params={**case.params, "count": count})


GNA2 = each_axis(window="sy sx", stride="ty tx", dilation="dy dx", causal="py px")
GNA3 = each_axis(window="st sy sx", stride="tt ty tx", dilation="dt dy dx", causal="pt py px")
GROUP3 = each_axis(group="group_t group_y group_x")
RADIAL = params(
    block=lambda p: p["block"],
    decay=lambda p: 100 * p["decay"],
    full_neighbour=lambda p: p["full_neighbour"],
)
TWO = "y=image.y x=image.x py=pooled.y px=pooled.x"

JOINS = {
    "001-stvit-association": Join("stvit", "y=pixels.y x=pixels.x cy=supers.y cx=supers.x"),
    "001-stvit-update": Join("stvit_update", "y=pixels.y x=pixels.x cy=supers.y cx=supers.x"),
    "002-dlgsanet": Join("dlgsanet"),
    "003-ttvsr": Join("ttvsr"),
    "004-catanet": Join("catanet"),
    "005-redundancy": Join("redundancy", adapt=kinds_as_input),
    "006-rgt": Join("rgt_local"),
    "007-rat-region": Join("rat"),
    "007-rat-window": Join("rat_window"),
    "008-hat-window": Join("hat"),
    "008-hat-ocab": Join("hat_overlap"),
    "009-ultragen": Join("ultragen"),
    "010-simplegvr-interleave": Join("simplegvr"),
    "010-simplegvr-sparse_local": Join("simplegvr_sparse"),
    "011-lmr": Join("lmr"),
    "012-lf_epi-uh": Join("epit", layer=0),
    "012-lf_epi-vw": Join("epit", layer=1),
    "013-craft": Join("craft"),
    "014-evenhancer": Join("evenhancer"),
    "015-blockrank": Join("blockrank", "block=block_of"),
    "016-duoformer": Join("duoformer"),
    "017-short_range": Join("decomposed"),
    "018-dinat": Join("dinat"),
    "019-sviptr": Join("sviptr"),
    "020-mossformer": Join("mossformer"),
    "021-maxvit-block": Join("maxvit", layer=0),
    "021-maxvit-grid": Join("maxvit", layer=1),
    "022-kan_dina": Join("medvit_v2"),
    "023-lvit": Join("l2vit"),
    "024-maformer": Join("maformer_local"),
    "025-video_infinity": Join("video_infinity"),
    "026-fit-local": Join("fit_local", "p=n"),
    "026-fit-read": Join("fit_read", "p=n"),
    "026-fit-write": Join("fit_write", "p=n"),
    "026-fit-causal_global": Join("fit_global", values={"past": True}),
    "026-fit-causal_local": Join("fit_local", "p=n", {"past": True}),
    "026-fit-causal_write": Join("fit_write", "p=n", {"past": True}),
    "027-dformer-local": Join("dformer", layer=0, adapt=GROUP3),
    "027-dformer-dilated": Join("dformer", layer=1, adapt=GROUP3),
    "028-gps-local": Join("gps_local", "neighbours=neighbors"),
    "028-gps-global": Join("gps_global"),
    "029-lamamba": Join("lamamba_diff"),
    "030-dcal": Join("dcal"),
    "031-ems": Join("ems"),
    "032-gcvit": Join("gcvit"),
    "033-freelong": Join("freelong"),
    "034-maniqa": Join("maniqa"),
    "035-transnext": Join("transnext", TWO),
    "036-segman": Join("segman"),
    "037-tcpa": Join("tcpa"),
    "038-hilo-high": Join("swin", "window=m"),
    "038-hilo-both": Join("hilo", TWO, adapt=params(window=lambda p: p["window"])),
    "039-longlora": Join("longlora"),
    "040-complete_modelling-local": Join("iagc", layer=0),
    "040-complete_modelling-between": Join("iagc", layer=1),
    "041-magicinfinite": Join("magicinfinite", adapt=on_a_line),
    "042-hicom": Join("hicom", "ct=cells.t cy=cells.y cx=cells.x t=volume.t y=volume.y x=volume.x"),
    "043-davit": Join("davit"),
    "044-lizard": Join("lizard", "s=m"),
    "045-lola_specvit": Join("lola_specvit"),
    "046-block_transformer-block": Join("block_transformer"),
    "046-block_transformer-token": Join("block_transformer_tokens"),
    "047-anchor_attention": Join("anchor_attention", "chosen=stripes"),
    "048-attn_upsample": Join("window_upsample", "y=image.y x=image.x cy=coarse.y cx=coarse.x"),
    "049-gna-1d": Join("gna1d", "causal=past"),
    "049-gna-2d": Join("gna", adapt=GNA2),
    "049-gna-3d": Join("gna3d", adapt=GNA3),
    "050-fna-1d": Join("fna1d", "causal=past"),
    "050-fna-2d": Join("fna", adapt=each_axis(window="sy sx", dilation="dy dx", causal="py px")),
    "051-cab-causal_self": Join("cab", values={"past": True}),
    "051-cab-causal_cross": Join("cab", values={"past": True}),
    "052-largegt-local": Join("largegt", "n=v neighbours=neighbors"),
    "052-largegt-codebook": Join("largegt_global", "n=v"),
    "053-cca": Join("cca"),
    "054-halonet-halo": Join("halonet"),
    "054-halonet-downsampled": Join(
        "halonet_down", "qy=strided_image.y qx=strided_image.x y=image.y x=image.x"
    ),
    "055-routing": Join("routing", "causal=past"),
    "056-tic": Join("tic"),
    "057-scale_dit-small": Join("scale_dit", "y=high.y x=high.x ly=low.y lx=low.x"),
    "057-scale_dit-large": Join(
        "scale_dit", "y=high.y x=high.x ly=low.y lx=low.x block=many", adapt=drop("ratio")
    ),
    "058-kinetics": Join("kinetics", "chosen=kv_chosen", adapt=drop("kv_heads")),
    "059-sgformer": Join("sgformer", TWO),
    "060-varying_window": Join("vwformer"),
    "061-power_attention-tokens": Join("powerattention", values={"block": 1}),
    "061-power_attention-blocks": Join("powerattention"),
    "062-sinklora": Join("sinklora"),
    "063-crossformer-sda": Join("crossformer", layer=0),
    "063-crossformer-lda": Join("crossformer", layer=1),
    "064-sparse_frontier-vertical_slash": Join("frontier_lines"),
    "064-sparse_frontier-blocks": Join("frontier_blocks"),
    "064-sparse_frontier-pages": Join("frontier_pages", "chosen=pages"),
    "065-scale_kv": Join("scalekv", "kept=retained"),
    "066-radial": Join("radial", adapt=RADIAL),
    "066-radial-joint": Join("radial", "words=m", adapt=RADIAL),
    "067-vsa": Join("vsa"),
    "068-lsm": Join("million_scale"),
    "069-creative_upscale": Join("c_upscale", "region=region_of"),
    "070-magicface-rsa": Join("magicface"),
    "070-magicface-rba": Join("magicface_regions"),
    "071-dreamtuner": Join("dreamtuner", adapt=one_reference),
    "072-based": Join("based"),
    "073-histoformer-bin": Join("histoformer"),
    "073-histoformer-frequency": Join("histoformer_frequency"),
    "074-dynamic_mask": Join("dynamic_mask", "chosen=chosen_keys"),
    "075-mask_bench-sliding": Join("bench_sliding"),
    "075-mask_bench-document": Join("documents", "document=doc"),
    "075-mask_bench-causal_document": Join("documents_causal", "document=doc"),
    "075-mask_bench-sliding_document": Join("bench_sliding_document"),
    "075-mask_bench-shared_question": Join("bench_shared_question"),
    "075-mask_bench-global_sliding": Join("bench_global_sliding"),
    "075-mask_bench-causal_blockwise": Join("bench_causal_blockwise", "block=block_of"),
    "075-mask_bench-prefix": Join(
        "prefix",
        adapt=lambda case: replace(case, extents={}, params={"n": case.params["prefix"]}),
    ),
    "075-mask_bench-prefix_document": Join("bench_prefix_document", "prefix=prefix_of"),
    "075-mask_bench-uniform_blocks": Join("bench_uniform_blocks", adapt=by_head("live")),
    "075-mask_bench-variable_blocks": Join(
        "bench_variable_blocks", "block=block_of", adapt=by_head("live")
    ),
    "076-acmil": Join("acmil"),
    "077-mvar": Join("mvar", adapt=params(ends=lambda p: list(np.cumsum(np.square(p["sides"]))))),
    "078-sequence_parallel": Join("sequence_parallel"),
    "079-freecustom": Join("freecustom"),
    "080-lrgt-grouped": Join("lrgt", layer=5),
    "080-lrgt-view": Join("lrgt", layer=0),
    "081-lra-fixed": Join("lra_fixed"),
    "081-lra-strided": Join("lra_strided"),
    "081-lra-longformer": Join("lra_longformer", "marked=is_global"),
    "081-lra-bigbird": Join("lra_bigbird", adapt=without_draws, recast=draws_of_ours),
    "081-lra-local": Join("lra_local"),
    "081-lra-reformer": Join("lra_reformer"),
    "082-iared": Join("iared", "keep=keep_at"),
    "083-axformer": Join("axformer", "chosen=chosen_keys"),
    "084-not_every_layer-window": Join("masformer_window"),
    "084-not_every_layer-blocks": Join("masformer"),
    "085-fit2": Join("fitv2"),
    "086-drsformer": Join("drsformer", "k=kept"),
    "087-deftan-f": Join("deftan", layer=0),
    "087-deftan-t": Join("deftan", layer=1),
    "088-infllm2": Join("infllm2", "chosen=kv_blocks", adapt=drop("kv_heads")),
    "089-spark": Join("spark", "chosen=chosen_keys"),
    "090-hyperattention": Join("hyperattention"),
    "090-hyperattention-causal": Join("hyperattention_causal", "q_rank=q_rank_at k_rank=k_rank_at"),
    "091-efficient_conformer-grouped": Join("efficient_conformer"),
    "091-efficient_conformer-by_head": Join("efficient_conformer_by_head"),
    "092-selective": Join("selective"),
    "093-presto": Join("presto"),
    "094-nsa_latent-local": Join("nsa_window"),
    "094-nsa_latent-compressed": Join("nsa_compressed"),
    "094-nsa_latent-selected": Join("nsa_selected", "chosen=kv_blocks", adapt=drop("kv_heads")),
    "095-pointgs": Join("pointgs", "neighbours=neighbors"),
    "096-griffin": Join("griffin"),
    "097-rope_nope": Join("rnope"),
    "098-moba": Join("moba", "chosen=chosen_keys"),
    "099-mcanet-columns": Join("mcanet", layer=0),
    "099-mcanet-rows": Join("mcanet", layer=1),
    "100-lean": Join("lean", "length=filled"),
    "101-infini": Join("infini"),
    "102-npt-aba": Join("npt", layer=1),
    "102-npt-abd": Join("npt", layer=0),
    "103-eligen": Join("eligen", "words=l prompt=prompt_of"),
    "104-smarttrim": Join("smarttrim", "keep=left"),
    "105-fastmetro": Join("fastmetro"),
    "106-yolo12": Join("yolov12"),
    "107-a2mamba": Join("a2mamba"),
    "108-hydra": Join("hydra"),
    "109-mma": Join("mma", "image=image_span question=question_span"),
    "110-srformer": Join("srformer", adapt=folded),
}
