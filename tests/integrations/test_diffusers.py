"""Transformers of diffusers with a pattern give what dense attention with its mask gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("diffusers")

import diffusers

import attndsl
from attndsl.integrations.diffusers import PatternProcessor, use

VIDEO = {"t": 3, "y": 4, "x": 6}
IMAGE = {"y": 5, "x": 8}
TEXT = 7


def flux() -> tuple[Any, dict[str, Any]]:
    """Text, then an image; both kinds of blocks."""
    model = diffusers.FluxTransformer2DModel(
        in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    given = {
        "hidden_states": torch.randn(2, 40, 4),
        "encoder_hidden_states": torch.randn(2, TEXT, 32),
        "pooled_projections": torch.randn(2, 32),
        "timestep": torch.tensor([0.5, 0.5]),
        "img_ids": torch.randn(40, 3),
        "txt_ids": torch.zeros(TEXT, 3),
    }
    return model, given


def wan() -> tuple[Any, dict[str, Any]]:
    """A video; the text is seen by another attention."""
    model = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
        text_dim=16, freq_dim=32, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
    )  # fmt: skip
    given = {
        "hidden_states": torch.randn(1, 4, VIDEO["t"], 2 * VIDEO["y"], 2 * VIDEO["x"]),
        "timestep": torch.tensor([3]),
        "encoder_hidden_states": torch.randn(1, TEXT, 16),
    }
    return model, given


def hunyuan() -> tuple[Any, dict[str, Any]]:
    """A video, then text of which some is padding."""
    model = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1,
        num_single_layers=1, num_refiner_layers=1, patch_size=1, patch_size_t=1, text_embed_dim=16,
        pooled_projection_dim=8, rope_axes_dim=(4, 4, 8), guidance_embeds=False,
    )  # fmt: skip
    mask = torch.ones(1, TEXT, dtype=torch.long)
    mask[:, 4:] = 0
    given = {
        "hidden_states": torch.randn(1, 4, VIDEO["t"], VIDEO["y"], VIDEO["x"]),
        "timestep": torch.tensor([3]),
        "encoder_hidden_states": torch.randn(1, TEXT, 16),
        "encoder_attention_mask": mask,
        "pooled_projections": torch.randn(1, 8),
    }
    return model, given


def cogvideox() -> tuple[Any, dict[str, Any]]:
    """Text, then a video, in one attention that is no back end of diffusers."""
    model = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, text_embed_dim=16,
        time_embed_dim=8, num_layers=2, sample_width=12, sample_height=8, sample_frames=9, patch_size=2,
        temporal_compression_ratio=4, max_text_seq_length=TEXT,
    )  # fmt: skip
    given = {
        "hidden_states": torch.randn(1, VIDEO["t"], 4, 2 * VIDEO["y"], 2 * VIDEO["x"]),
        "timestep": torch.tensor([3]),
        "encoder_hidden_states": torch.randn(1, TEXT, 16),
    }
    return model, given


CASES: dict[str, tuple[Callable[[], tuple[Any, dict[str, Any]]], str, dict[str, int], int]] = {
    "Flux": (
        flux,
        """space joint = text(7) ++ image(y, x)
        pattern p over joint = q in text or k in text or abs(q.y - k.y) <= 1 and abs(q.x - k.x) <= 2""",
        IMAGE,
        2,
    ),
    "Wan": (
        wan,
        "grid video(t, y, x)\npattern p over video = abs(q.t - k.t) <= 1 and abs(q.x - k.x) <= 1",
        VIDEO,
        2,
    ),
    "CogVideoX": (
        cogvideox,
        """space joint = text(7) ++ video(t, y, x)
        pattern p over joint = q in text or k in text or abs(q.t - k.t) <= 1 and abs(q.x - k.x) <= 1""",
        VIDEO,
        2,
    ),
    "HunyuanVideo": (
        hunyuan,
        """space joint = video(t, y, x) ++ text(7)
        pattern p over joint = q in text or k in text or abs(q.t - k.t) <= 1 and abs(q.y - k.y) <= 1""",
        VIDEO,
        2,
    ),
}


def seeded(name: str) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(0)
    return CASES[name][0]()


def run(model: Any, given: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        return model(**given, return_dict=False)[0]


def dense(mask: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets self-attentions of that many tokens see the mask, written out."""
    native = F.scaled_dot_product_attention

    def masked(query: Any, key: Any, value: Any, attn_mask: Any = None, **options: Any) -> Any:
        if query.shape[-2] == key.shape[-2] == mask.shape[-1]:
            attn_mask = mask if attn_mask is None else mask & attn_mask.bool()
        return native(query, key, value, attn_mask=attn_mask, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", masked)


@pytest.mark.parametrize("name", CASES)
def test_a_pattern_in_a_model_is_dense_attention_with_its_mask(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    model, given = seeded(name)
    _, text, extents, count = CASES[name]
    plain = run(model, given)
    assert use(model, text, extents=extents) == count
    found = run(model, given)
    assert not torch.allclose(found, plain, atol=1e-4)
    use(model, None)
    torch.testing.assert_close(run(model, given), plain)
    tokens = math.prod(extents.values()) + (TEXT if name != "Wan" else 0)
    mask = attndsl.compile(text).mask(tokens, extents=extents)
    dense(mask[0, 0], monkeypatch)
    torch.testing.assert_close(run(model, given), found, atol=1e-5, rtol=1e-4)


def test_every_pair_is_the_attention_of_the_model():
    model, given = seeded("HunyuanVideo")
    plain = run(model, given)
    use(model, "true", layout=None)
    torch.testing.assert_close(run(model, given), plain, atol=1e-5, rtol=1e-4)


def test_a_pattern_may_be_put_into_some_blocks():
    model, _ = seeded("Wan")
    assert use(model, "true", blocks=lambda name: name.startswith("blocks.1.")) == 1


def test_gradients_reach_the_weights():
    model, given = seeded("Wan")
    use(model, CASES["Wan"][1], extents=VIDEO)
    model(**given, return_dict=False)[0].sum().backward()
    weights = model.blocks[0].attn1.to_q.weight
    assert weights.grad is not None
    assert weights.grad.abs().sum() > 0


def test_a_processor_that_attends_otherwise_is_refused():
    processor = PatternProcessor(lambda x: x, lambda *_: None)
    with pytest.raises(attndsl.AttnDslError, match="computes 0 attentions by torch"):
        processor(torch.zeros(1))


def test_models_and_patterns_that_do_not_fit_are_refused():
    model, _ = seeded("Wan")
    with pytest.raises(attndsl.AttnDslError, match="no self-attention of Linear"):
        use(torch.nn.Linear(2, 2), "true")
    with pytest.raises(attndsl.AttnDslError, match="this is an attention"):
        use(model, "alibi")
