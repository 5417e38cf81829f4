"""Families of models with small random weights, and a call of each: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers

VOCABULARY = 128
TOKENS = 21
IMAGE = 100  # the token that stands for a part of an image

_COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_WINDOW = {"sliding_window": 8}
_HEADS = {"head_dim": 16}

# Decoders: name of the family -> (name of the config and model, what the config says beside the above)
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("Llama", {}),
    "Llama 4": ("Llama4", {**_HEADS, "attention_chunk_size": 8, "intermediate_size_mlp": 96, "num_local_experts": 2,
        "layer_types": ["chunked_attention", "full_attention"], "moe_layers": [], "no_rope_layers": [1, 0]}),
    "Mistral": ("Mistral", _WINDOW),
    "Gemma 2": ("Gemma2", {**_HEADS, **_WINDOW, "attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 16}),
    "Gemma 3": ("Gemma3", {**_HEADS, **_WINDOW, "query_pre_attn_scalar": 16,
        "layer_types": ["sliding_attention", "full_attention"]}),
    "Qwen 3": ("Qwen3", _HEADS),
    "gpt-oss": ("GptOss", {**_HEADS, **_WINDOW, "num_local_experts": 2, "num_experts_per_tok": 1}),
    "Phi 3": ("Phi3", {}),
    "Cohere 2": ("Cohere2", _WINDOW),
    "OLMo 2": ("Olmo2", {}),
    "SmolLM 3": ("SmolLM3", {}),
    "Granite": ("Granite", {}),
    "StableLM": ("StableLm", {}),
    "Starcoder 2": ("Starcoder2", _WINDOW),
}  # fmt: skip
_TEXT = {"Gemma3": "Gemma3Text", "Llama4": "Llama4Text"}


def decoder(family: str) -> torch.nn.Module:
    """A decoder with random weights, in evaluation, attending eagerly."""
    name, said = DECODERS[family]
    config = getattr(transformers, f"{_TEXT.get(name, name)}Config")(**{**_COMMON, **said})
    return seeded(getattr(transformers, f"{name}ForCausalLM"), config)


def seeded(kind: Callable[[Any], Any], config: Any) -> Any:
    """A model of the config, the same each time."""
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    return kind(config).eval()


def prompt(left: int = 0, right: int = 0) -> dict[str, torch.Tensor]:
    """Two rows of tokens, the first of them padded."""
    torch.manual_seed(1)
    ids = torch.randint(3, IMAGE, (2, TOKENS))
    mask = torch.ones_like(ids)
    mask[0, :left] = 0
    mask[0, TOKENS - right :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _vision() -> dict[str, Any]:
    return {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14, "projection_dim": 64,
    }  # fmt: skip


def _with_image(count: int, **more: Any) -> dict[str, torch.Tensor]:
    given = prompt()
    given["input_ids"][:, 2 : 2 + count] = IMAGE
    return {**given, **more}


def gemma3_with_images() -> tuple[Any, dict[str, torch.Tensor]]:
    """Gemma 3: tokens of an image see each other in both directions."""
    _, said = DECODERS["Gemma 3"]
    config = transformers.Gemma3Config(
        text_config={**_COMMON, **said}, vision_config=_vision(), mm_tokens_per_image=4,
        image_token_id=IMAGE, boi_token_id=101, eoi_token_id=102,
    )  # fmt: skip
    given = _with_image(4, pixel_values=torch.randn(2, 3, 28, 28))
    given["token_type_ids"] = (given["input_ids"] == IMAGE).long()
    return seeded(transformers.Gemma3ForConditionalGeneration, config), given


def paligemma() -> tuple[Any, dict[str, torch.Tensor]]:
    """PaliGemma: a prefix that is seen whole."""
    text = {**_COMMON, **_HEADS, "model_type": "gemma"}
    config = transformers.PaliGemmaConfig(
        text_config=text, vision_config=_vision(), image_token_id=IMAGE, projection_dim=64
    )
    given = _with_image(4, pixel_values=torch.randn(2, 3, 28, 28))
    given["token_type_ids"] = torch.zeros_like(given["input_ids"])
    return seeded(transformers.PaliGemmaForConditionalGeneration, config), given


def smolvlm() -> tuple[Any, dict[str, torch.Tensor]]:
    """SmolVLM: an encoder of patches before a decoder."""
    text = {**_COMMON, "model_type": "llama"}
    config = transformers.SmolVLMConfig(
        text_config=text, vision_config=_vision(), image_token_id=IMAGE, scale_factor=1
    )
    pixels = torch.randn(2, 1, 3, 28, 28)
    return seeded(transformers.SmolVLMForConditionalGeneration, config), _with_image(
        4, pixel_values=pixels
    )


def modernbert() -> tuple[Any, dict[str, torch.Tensor]]:
    """ModernBERT: windows in both directions, every third layer whole."""
    config = transformers.ModernBertConfig(
        **{**_COMMON, "num_hidden_layers": 3}, local_attention=8, cls_token_id=1, sep_token_id=2
    )
    return seeded(transformers.ModernBertForMaskedLM, config), prompt(right=4)


def bert() -> tuple[Any, dict[str, torch.Tensor]]:
    """BERT: every token that is no padding."""
    return seeded(transformers.BertForMaskedLM, transformers.BertConfig(**_COMMON)), prompt(right=4)


def whisper() -> tuple[Any, dict[str, torch.Tensor]]:
    """Whisper: an encoder of sound, and a decoder that sees it."""
    config = transformers.WhisperConfig(
        vocab_size=VOCABULARY, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, num_mel_bins=8, max_source_positions=20,
        max_target_positions=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    sound = {"input_features": torch.randn(2, 8, 40), "decoder_input_ids": prompt()["input_ids"]}
    return seeded(transformers.WhisperForConditionalGeneration, config), sound


def moonshine() -> tuple[Any, dict[str, torch.Tensor]]:
    """Moonshine: sound of any length."""
    config = transformers.MoonshineConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, encoder_num_hidden_layers=2,
        decoder_num_hidden_layers=2, encoder_num_attention_heads=2, decoder_num_attention_heads=2,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    given = {"input_values": torch.randn(2, 8000), "decoder_input_ids": prompt()["input_ids"]}
    return seeded(transformers.MoonshineForConditionalGeneration, config), given


def t5gemma() -> tuple[Any, dict[str, torch.Tensor]]:
    """T5Gemma: an encoder, and a decoder of soft caps and windows."""
    module = {
        **_COMMON, **_HEADS, **_WINDOW, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 5.0,
        "layer_types": ["sliding_attention", "full_attention"],
    }  # fmt: skip
    config = transformers.T5GemmaConfig(encoder=module, decoder=module, vocab_size=VOCABULARY)
    given = {**prompt(right=4), "decoder_input_ids": prompt()["input_ids"][:, :9]}
    return seeded(transformers.T5GemmaForConditionalGeneration, config), given


def t5() -> tuple[Any, dict[str, torch.Tensor]]:
    """T5: biases by the distance of tokens."""
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2,
        pad_token_id=0, eos_token_id=2, decoder_start_token_id=0,
    )  # fmt: skip
    given = {**prompt(right=4), "decoder_input_ids": prompt()["input_ids"][:, :9]}
    return seeded(transformers.T5ForConditionalGeneration, config), given


# Whatever is no decoder of text alone: name of the family -> a model and a call of it.
OTHERS: dict[str, Callable[[], tuple[Any, dict[str, torch.Tensor]]]] = {
    "Gemma 3 with images": gemma3_with_images,
    "PaliGemma": paligemma,
    "SmolVLM": smolvlm,
    "ModernBERT": modernbert,
    "BERT": bert,
    "Whisper": whisper,
    "Moonshine": moonshine,
    "T5Gemma": t5gemma,
    "T5": t5,
}
