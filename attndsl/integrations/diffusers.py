"""Patterns in the transformers of diffusers: Flux, Wan, HunyuanVideo, others that dispatch attention, and CogVideoX.

Needs diffusers (``pip install "attndsl[diffusers]"``). ``use(model, pattern, extents={"t": 21, "y": 30, "x": 52})``
lets the self-attentions of a model see the pairs of a pattern. Its space lists the tokens in the order in which the
model has them: Flux and CogVideoX put text first, HunyuanVideo behind the video, Wan has the video alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import attndsl

from .masks import NO_PADDING, both, refusal

Attend: TypeAlias = Callable[..., Tensor]


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
        model: A transformer of diffusers whose attention goes through its dispatcher, or CogVideoX.
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
    attend = None
    if pattern is not None:
        compiled = attndsl.compile(pattern, **values)
        if not isinstance(compiled, attndsl.Pattern):
            raise refusal("a pattern is put into a model, and this is an attention")
        options = {"extents": extents, "inputs": dict(inputs or {}), "layout": layout}
        attend = _attention_of(compiled, options)
    backend = None if attend is None else _registered(attend)
    for module in found:
        if hasattr(module.processor, "_attention_backend"):
            module.processor._attention_backend = backend
        else:
            own = getattr(module.processor, "inner", module.processor)
            module.processor = own if attend is None else PatternProcessor(own, attend)
    return len(found)


class PatternProcessor:
    """A processor of CogVideoX, with a pattern where it calls ``scaled_dot_product_attention`` by itself."""

    def __init__(self, inner: Callable[..., Any], attend: Attend) -> None:
        self.inner, self.attend = inner, attend

    def __call__(self, *args: Any, **given: Any) -> Any:
        """Runs the processor.

        Raises:
            AttnDslError: A506, it does not call that function once.
        """
        with _Instead(self.attend) as calls:
            made = self.inner(*args, **given)
        if calls.count != 1:
            title = f"{type(self.inner).__name__} computes {calls.count} attentions by torch"
            raise refusal(
                title, "the pattern stands for one; this version of diffusers is not known"
            )
        return made


class _Instead(TorchFunctionMode):
    """An attention that is computed where ``scaled_dot_product_attention`` is called."""

    def __init__(self, attend: Attend) -> None:
        super().__init__()
        self.attend, self.count = attend, 0

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function is not nn.functional.scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        self.count += 1
        q, k, v, *rest = (*args, *[(kwargs or {}).pop(name) for name in _NAMES[len(args) :]])
        out = self.attend(*(x.transpose(1, 2) for x in (q, k, v)), *rest, **(kwargs or {}))
        return out.transpose(1, 2)


_NAMES: Final = ("query", "key", "value")


def _is_block(name: str) -> bool:
    return name.partition(".")[0].endswith("blocks")


def _self_attentions(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Attentions over the tokens of the model: those to other tokens have a second sequence of their own."""
    for name, module in model.named_modules():
        processor = getattr(module, "processor", None)
        if not hasattr(processor, "_attention_backend") and not _is_own(processor):
            continue
        is_cross = getattr(module, "is_cross_attention", False) or name.endswith("attn2")
        if not is_cross:
            yield name, module


def _is_own(processor: object) -> bool:
    """Whether a processor is one that calls torch by itself, of a joint attention over text and video."""
    inner = getattr(processor, "inner", processor)
    return type(inner).__name__ in ("CogVideoXAttnProcessor2_0", "FusedCogVideoXAttnProcessor2_0")


def _registered(attend: Attend) -> AttentionBackendName:
    """The name under which diffusers calls it: its back ends are members of an enumeration, one more is made."""
    name = f"attndsl_{len(_AttentionBackendRegistry._backends)}"
    member = str.__new__(AttentionBackendName, name)
    member._name_ = member._value_ = name
    _AttentionBackendRegistry.register(member)(attend)
    return member


def _attention_of(pattern: attndsl.Pattern, options: Mapping[str, Any]) -> Attend:
    """The pattern as a back end of diffusers."""
    padded = attndsl.compile(both(pattern.ir, NO_PADDING))

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

    return attend


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
