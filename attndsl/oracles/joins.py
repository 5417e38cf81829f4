"""Oracles and the entries that state them, and how the names of the one are spelt by the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .registry import Case


@dataclass(frozen=True, slots=True)
class Question:
    """A case of an oracle, in the words of the entry that states it.

    Attributes:
        entry: The name of the entry.
        layer: The layer to compile it for.
        values: For its parameters.
        extents: Sizes of axes; some may be no axis of the entry, but the length of a flat sequence.
        inputs: Arrays [batch, ...].
        heads: How many heads.
        batch: How many batch elements.
    """

    entry: str
    layer: int
    values: dict[str, Any]
    extents: dict[str, int]
    inputs: dict[str, Any]
    heads: int
    batch: int


@dataclass(frozen=True, slots=True)
class Join:
    """Pairs an oracle with the entry that states it.

    Attributes:
        oracle: The id of the oracle.
        entry: The entry.
        names: The oracle's name of an extent, parameter or input, and the entry's where it differs: several of the
            entry's, with commas between, for a tuple.
        layer: The layer at which the entry is this oracle; None: the case's own.
        more: Further parameters: those of the entry that the oracle does without.
    """

    oracle: str
    entry: str
    names: dict[str, str] = field(default_factory=dict)
    layer: int | None = None
    more: dict[str, object] = field(default_factory=dict)

    def ask(self, case: Case) -> Question:
        """Turns a case into a call of the entry."""

        def spelt(given: dict[str, Any]) -> dict[str, Any]:
            made: dict[str, Any] = {}
            for name, it in given.items():
                theirs = self.names.get(name, name).split(",")
                made |= zip(theirs, it if len(theirs) > 1 else (it,), strict=True)
            return made

        layer = case.layer if self.layer is None else self.layer
        values = spelt(case.params) | self.more
        extents, inputs = spelt(case.extents), spelt(case.inputs)
        return Question(self.entry, layer, values, extents, inputs, case.heads, case.batch)


def join(
    oracle: str, entry: str, names: str = "", *, layer: int | None = None, **more: object
) -> Join:
    """``names`` reads "ours=theirs ours=theirs"."""
    spelt = dict(pair.split("=") for pair in names.split())
    return Join(oracle, entry, spelt, layer, more)


JOINS: tuple[Join, ...] = (
    join("001-stvit-association", "stvit", "y=pixels.y x=pixels.x cy=supers.y cx=supers.x"),
    join("001-stvit-update", "stvit_update", "y=pixels.y x=pixels.x cy=supers.y cx=supers.x"),
    join("002-dlgsanet", "dlgsanet"),
    join("003-ttvsr", "ttvsr"),
    join("004-catanet", "catanet"),
    join("005-redundancy", "redundancy"),
    join("006-rgt", "rgt_local"),
    join("006-rgt-global", "rgt_global"),
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
    join("019-sviptr-global", "sviptr_global", "y=image.y x=image.x py=pooled_image.y px=pooled_image.x"),
    join("020-mossformer", "mossformer"),
    join("021-maxvit-block", "maxvit", layer=0),
    join("021-maxvit-grid", "maxvit", layer=1),
    join("022-kan_dina", "medvit_v2"),
    join("023-lvit", "l2vit"),
    join("024-maformer", "maformer_local"),
    join("024-maformer-global", "maformer_global"),
    join("025-video_infinity", "video_infinity"),
    join("026-fit-causal_global", "fit_global", past=True),
    join("026-fit-causal_local", "fit_local", "p=n", past=True),
    join("026-fit-causal_write", "fit_write_past", "p=n m=latent.m w=phantom.m"),
    join("026-fit-local", "fit_local", "p=n"),
    join("026-fit-read", "fit_read", "p=n"),
    join("026-fit-write", "fit_write", "p=n"),
    join("027-dformer-dilated", "dformer", layer=1),
    join("027-dformer-local", "dformer", layer=0),
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
    join("041-magicinfinite", "magicinfinite"),
    join("042-hicom", "hicom", "ct=cells.t cy=cells.y cx=cells.x t=volume.t y=volume.y x=volume.x"),
    join("043-davit", "davit"),
    join("044-lizard", "lizard", "s=m"),
    join("045-lola_specvit", "lola_specvit"),
    join("046-block_transformer-block", "block_transformer"),
    join("046-block_transformer-token", "block_transformer_tokens"),
    join("047-anchor_attention", "anchor_attention", "chosen=stripes"),
    join("048-attn_upsample", "window_upsample", "y=image.y x=image.x cy=coarse.y cx=coarse.x"),
    join("049-gna-1d", "gna1d", "causal=past"),
    join("049-gna-2d", "gna", "window=sy,sx stride=ty,tx dilation=dy,dx causal=py,px"),
    join("049-gna-3d", "gna3d", "window=st,sy,sx stride=tt,ty,tx dilation=dt,dy,dx causal=pt,py,px"),
    join("050-fna-1d", "fna1d", "causal=past"),
    join("050-fna-2d", "fna", "window=sy,sx dilation=dy,dx causal=py,px"),
    join("051-cab-causal_cross", "cab", past=True, cross=True),
    join("051-cab-causal_self", "cab", past=True),
    join("052-largegt-codebook", "largegt_global", "n=v"),
    join("052-largegt-local", "largegt", "n=v neighbours=neighbors"),
    join("053-cca", "cca"),
    join("054-halonet-downsampled", "halonet_down", "qy=strided_image.y qx=strided_image.x y=image.y x=image.x"),
    join("054-halonet-halo", "halonet"),
    join("055-routing", "routing", "causal=past"),
    join("056-tic", "tic"),
    join("057-scale_dit-large", "scale_dit", "y=high.y x=high.x ly=low.y lx=low.x block=many"),
    join("057-scale_dit-small", "scale_dit", "y=high.y x=high.x ly=low.y lx=low.x"),
    join("058-kinetics", "kinetics", "chosen=kv_chosen"),
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
    join("066-radial", "radial"),
    join("066-radial-joint", "radial", "words=m"),
    join("067-vsa", "vsa"),
    join("068-lsm", "million_scale"),
    join("069-creative_upscale", "c_upscale", "region=region_of"),
    join("070-magicface-rba", "magicface_regions"),
    join("070-magicface-rsa", "magicface"),
    join("071-dreamtuner", "dreamtuner"),
    join("072-based", "based"),
    join("073-histoformer-bin", "histoformer"),
    join("073-histoformer-frequency", "histoformer_frequency"),
    join("074-dynamic_mask", "dynamic_mask", "chosen=kv_keys"),
    join("075-mask_bench-causal_blockwise", "bench_causal_blockwise", "block=block_of"),
    join("075-mask_bench-causal_document", "documents_causal", "document=doc"),
    join("075-mask_bench-document", "documents", "document=doc"),
    join("075-mask_bench-global_sliding", "bench_global_sliding"),
    join("075-mask_bench-prefix", "prefix", "prefix=n"),
    join("075-mask_bench-prefix_document", "bench_prefix_document", "prefix=prefix_of"),
    join("075-mask_bench-shared_question", "bench_shared_question"),
    join("075-mask_bench-sliding", "bench_sliding"),
    join("075-mask_bench-window", "bench_window"),
    join("075-mask_bench-block_causal_document", "bench_block_causal_document"),
    join("075-mask_bench-uniform_blocks", "bench_uniform_blocks"),
    join("075-mask_bench-variable_blocks", "bench_variable_blocks", "block=block_of"),
    join("076-acmil", "acmil"),
    join("077-mvar", "mvar"),
    join("078-sequence_parallel", "sequence_parallel"),
    join("079-freecustom", "freecustom"),
    *(join("080-lrgt-grouped", "lrgt", layer=layer) for layer in (5, 7, 9, 11)),
    *(join("080-lrgt-view", "lrgt", layer=layer) for layer in (0, 4, 6, 8, 10)),
    join("081-lra-bigbird", "lra_bigbird"),
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
    join("086-drsformer", "drsformer"),
    join("087-deftan-f", "deftan", layer=0),
    join("087-deftan-t", "deftan", layer=1),
    join("088-infllm2", "infllm2", "chosen=kv_blocks"),
    join("089-spark", "spark", "chosen=chosen_keys"),
    join("090-hyperattention", "hyperattention"),
    join("090-hyperattention-causal", "hyperattention_causal", "q_rank=q_rank_at k_rank=k_rank_at"),
    join("091-efficient_conformer-by_head", "efficient_conformer_by_head"),
    join("091-efficient_conformer-grouped", "efficient_conformer"),
    join("091-efficient_conformer-strided", "efficient_conformer_strided", "qn=strided_tokens.n n=tokens.n"),
    join("092-selective", "selective"),
    join("093-presto", "presto"),
    join("094-nsa_latent-compressed", "nsa_compressed"),
    join("094-nsa_latent-local", "nsa_window"),
    join("094-nsa_latent-selected", "nsa_selected", "chosen=kv_blocks"),
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
    join("110-srformer", "srformer", "y=image.y x=image.x fy=folded.y fx=folded.x"),
)  # fmt: skip
