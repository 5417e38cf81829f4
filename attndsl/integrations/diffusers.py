"""Patterns in the transformers of diffusers: Flux, Wan, HunyuanVideo and others that dispatch their attention.

Needs diffusers (``pip install "attndsl[diffusers]"``). ``use(model, pattern, extents={"t": 21, "y": 30, "x": 52})``
lets the self-attentions of a model see the pairs of a pattern. Its space lists the tokens in the order in which the
model has them: Flux puts text before the image, HunyuanVideo behind the video, Wan has the video alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch import Tensor, nn

import attndsl

from .masks import NO_PADDING, both, refusal


def use(
    model: nn.Module,
    pattern: Any,
    *,
    extents: Mapping[str, int] | None = None,
    inputs: Mapping[str, Any] | None = None,
    layout: str | None = "auto",
    blocks: Callable[[str], bool] | None = None,
    **values: Any,
) -> int:
    """Lets self-attentions see the pairs of a pattern; attention to other tokens, to text by itself, stays as it is.

    Args:
        model: A transformer of diffusers whose attention goes through its dispatcher.
        pattern: Whatever `attndsl.compile` takes; None takes away what was put there before.
        extents: Sizes of the axes of the pattern's grid.
        inputs: Run-time inputs of the pattern.
        layout: The order in which tokens are taken into tiles, "auto" by default: found once, and kept.
        blocks: Which attentions, by the names of their modules, "transformer_blocks.3.attn"; by default those of all
            blocks, and none of what embeds time or text.
        **values: Parameters of the pattern.

    Returns:
        How many attentions it was put into.

    Raises:
        AttnDslError: A506, no attention of the model goes through the dispatcher; what `attndsl.compile` raises.
    """
    asked = _is_block if blocks is None else blocks
    found = [module for name, module in _self_attentions(model) if asked(name)]
    if not found:
        title = (
            f"no self-attention of {type(model).__name__} goes through the dispatcher of diffusers"
        )
        raise refusal(title, "its processors have no `_attention_backend`, or `blocks` names none")
    backend = None
    if pattern is not None:
        compiled = attndsl.compile(pattern, **values)
        if not isinstance(compiled, attndsl.Pattern):
            raise refusal("a pattern is put into a model, and this is an attention")
        options = {"extents": extents, "inputs": dict(inputs or {}), "layout": layout}
        backend = _registered(compiled, options)
    for module in found:
        module.processor._attention_backend = backend
    return len(found)


def _is_block(name: str) -> bool:
    return name.partition(".")[0].endswith("blocks")


def _self_attentions(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Attentions over the tokens of the model: those to other tokens have a second sequence of their own."""
    for name, module in model.named_modules():
        if not hasattr(getattr(module, "processor", None), "_attention_backend"):
            continue
        is_cross = getattr(module, "is_cross_attention", False) or name.endswith("attn2")
        if not is_cross:
            yield name, module


def _registered(pattern: attndsl.Pattern, options: Mapping[str, Any]) -> AttentionBackendName:
    """The name under which diffusers calls a pattern: its back ends are members of an enumeration, one more is made."""
    padded = attndsl.compile(both(pattern.ir, NO_PADDING))
    name = f"attndsl_{len(_AttentionBackendRegistry._backends)}"
    member = str.__new__(AttentionBackendName, name)
    member._name_ = member._value_ = name

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
        _parallel_config: Any = None,
    ) -> Tensor:
        """q, k and v are [batch, tokens, heads, dim]; a mask is one of keys, [batch, 1, 1, keys] or [batch, keys]."""
        if dropout_p or is_causal or _parallel_config is not None:
            raise refusal(
                "dropout, `is_causal` and context parallelism are not taken beside a pattern"
            )
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        given, run = dict(options["inputs"]), pattern
        if attn_mask is not None:
            run = padded
            given["padding"] = _of_keys(attn_mask, key)
        more = {"extents": options["extents"], "layout": options["layout"]}
        out: Tensor = run(q, k, v, inputs=given, scale=scale, **more)
        return out.transpose(1, 2)

    _AttentionBackendRegistry.register(member)(attend)
    return member


def _of_keys(mask: Tensor, key: Tensor) -> Tensor:
    """A mask of keys, bool [batch, keys].

    Raises:
        AttnDslError: A506, it differs between queries or heads, or is added to scores.
    """
    batch, keys = key.shape[:2]
    counts = mask.numel() in (keys, batch * keys) and mask.shape[-1] == keys
    if mask.dtype != torch.bool or not counts:
        title = f"a mask {tuple(mask.shape)} of {mask.dtype} beside a pattern"
        raise refusal(title, "a bool mask of keys is joined with it, [batch, 1, 1, keys]")
    return mask.reshape(-1, keys).expand(batch, keys)
