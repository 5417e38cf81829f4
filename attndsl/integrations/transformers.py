"""``attn_implementation="attndsl"`` for the models of transformers.

Needs transformers 5 (``pip install "attndsl[transformers]"``). ``register()`` once, then

    model = AutoModelForCausalLM.from_pretrained(..., attn_implementation="attndsl")

runs every model that attends through the attention interface of transformers. The mask of a model is the function that
transformers makes of it, causal, sliding, chunked, packed or around images, traced to a pattern; caches say where their
tokens stand. Soft caps, sinks and position biases are scores. `use` puts a pattern of one's own into a model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import causal_mask_function

import attndsl
from attndsl import reals
from attndsl.interop import Traced, trace
from attndsl.ir import Mask
from attndsl.op import eager_only

from .masks import NO_PADDING, both, refusal

NAME: Final = "attndsl"
_PADDING: Final = "padding"
_PATTERN: Final = "attndsl_pattern"  # the attribute of attention modules that `use` gives a pattern
_KEPT: Final = 256  # patterns and attentions of the masks that models make


def register() -> None:
    """Makes ``attn_implementation="attndsl"`` known to transformers. To call it again does nothing more."""
    AttentionInterface.register(NAME, attention_forward)
    AttentionMaskInterface.register(NAME, pattern_mask)


def use(
    model: PreTrainedModel,
    pattern: Any,
    layers: Collection[int] | None = None,
    *,
    keep_mask: bool = True,
    inputs: Mapping[str, Any] | None = None,
    **values: Any,
) -> None:
    """Puts a pattern into a model: queries see the keys of the pattern that the model's own mask has, too.

    Args:
        model: Any model that attends through the interface; it is set to ``attn_implementation="attndsl"``.
        pattern: Whatever `attndsl.compile` takes, of parameters ``values``; None takes away what was put there before.
        layers: Which layers, counted from 0; all by default.
        keep_mask: False: the pattern stands in place of the model's own mask, of which padding alone stays.
        inputs: Run-time inputs of the pattern, read as they are in each call; they cover all positions of the sequence,
            those that are written later, too.
        **values: Parameters of the pattern.

    Raises:
        AttnDslError: A506, no layer is of that number, or several are; an input is not given; what `attndsl.compile`
            raises.
    """
    register()
    compiled = None if pattern is None else attndsl.compile(pattern, **values)
    if compiled is not None and not isinstance(compiled, attndsl.Pattern):
        raise refusal(
            "scores are the model's own: a pattern is put into it, and this is an attention"
        )
    given = {} if compiled is None else {**compiled.captured, **(inputs or {})}
    declared = {table.name for table in compiled.ir.tables} if compiled is not None else set()
    if lacking := declared - given.keys():
        name = min(lacking)
        raise refusal(f"a model gives its attention no input {name}", f"`inputs={{{name!r}: ...}}`")
    if unknown := given.keys() - declared:
        raise refusal(f"the pattern has no input {min(unknown)}")
    attentions = [m for m in model.modules() if _is_attention(m)]
    found = {m.layer_idx: m for m in attentions}
    if len(found) < len(attentions):
        title = f"{type(model).__name__} has several attentions of one layer number"
        raise refusal(title, "give the part that is meant: `model.get_decoder()`, an encoder")
    wanted = found.keys() if layers is None else set(layers)
    if not found or not wanted <= found.keys():
        missing = ", ".join(map(str, sorted(wanted - found.keys()))) or "at all"
        raise refusal(
            f"{type(model).__name__} has no attention layer {missing}", f"it has {len(found)}"
        )
    model.set_attn_implementation(NAME)
    for layer in wanted:
        put = None if compiled is None else _Put(compiled, keep_mask, given)
        setattr(found[layer], _PATTERN, put)


class _Put(NamedTuple):
    """A pattern in an attention of a model."""

    pattern: attndsl.Pattern
    keep_mask: bool
    inputs: Mapping[str, Any]


def _is_attention(module: nn.Module) -> bool:
    return isinstance(getattr(module, "layer_idx", None), int) and hasattr(module, "scaling")


class PatternMask(BlockMask):
    """The mask of a model's call: a pattern with its inputs, and where the tokens of the call stand.

    Models pass it on as they do a BlockMask. One that takes parts of it, or asks for its entries, is given bool ones.
    """

    def __init__(
        self,
        mask: Mask,
        inputs: Mapping[str, Tensor],
        lengths: tuple[int, int, int],
        starts: tuple[Any, Any],
        padding: Tensor | None,
    ) -> None:
        self.mask, self.inputs, self.lengths, self.starts = mask, inputs, lengths, starts
        self.padding = padding
        self.pattern = _pattern(mask)

    @property
    def shape(self) -> tuple[int, ...]:
        """(batch, 1, queries, keys)."""
        batch, q_len, k_len = self.lengths
        return batch, 1, q_len, k_len

    @property
    def ndim(self) -> int:
        """Always 4."""
        return 4

    def to(self, *_: Any, **__: Any) -> PatternMask:
        """Itself: its inputs follow the queries of a call to their device."""
        return self

    def to_dense(self) -> Tensor:
        """The mask written out, bool [batch, 1, queries, keys]."""
        batch, q_len, k_len = self.lengths
        positions = {"q_start": self.starts[0], "k_start": self.starts[1]}
        inputs = {name: x.cpu() for name, x in self.inputs.items()}
        dense = self.pattern.mask(q_len, k_len, batch=batch, inputs=inputs, **positions)
        return dense.expand(batch, 1, q_len, k_len)

    def __getitem__(self, index: Any) -> Tensor:  # type: ignore[override]
        return self.to_dense()[index]

    def __repr__(self) -> str:
        return f"PatternMask{self.shape} of {self.pattern!r}"

    __str__ = __repr__


@eager_only
def pattern_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    **_: Any,
) -> PatternMask:
    """The mask of a call, as transformers asks for it: ``mask_function(b, h, q, k)`` of positions, and padding.

    Args:
        batch_size: Sequences of the call.
        q_length: Queries.
        kv_length: Rows of the keys, those of a cache included.
        q_offset: The position of the first query.
        kv_offset: The position of the first key.
        mask_function: Which pairs there are.
        attention_mask: Bool [batch, positions], false where a token is padding.

    Raises:
        AttnDslError: A218, the function does what no pattern says; at its line.
    """
    traced: Traced = trace(mask_function)
    mask, inputs = traced.mask, dict(traced.inputs)
    padding = None
    if attention_mask is not None and not bool(attention_mask.all()):
        missing = kv_length + kv_offset - attention_mask.shape[-1]
        padding = nn.functional.pad(attention_mask.bool(), (0, max(0, missing)))
        mask = _padded(mask)
        inputs[_PADDING] = padding
    start = q_offset
    if isinstance(start, Tensor):
        start = int(start) if start.device.type == "cpu" else start.expand(batch_size)
    lengths = (batch_size, q_length, kv_length)
    return PatternMask(mask, inputs, lengths, (start, kv_offset), padding)


@functools.lru_cache(maxsize=_KEPT)
def _pattern(mask: Mask) -> attndsl.Pattern:
    return attndsl.compile(mask)


@functools.lru_cache(maxsize=_KEPT)
def _padded(mask: Mask) -> Mask:
    return both(mask, NO_PADDING)


@eager_only
@functools.lru_cache(maxsize=_KEPT)
def _joined(mask: Mask, other: Mask) -> attndsl.Pattern:
    return attndsl.compile(both(mask, other))


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: PatternMask | Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    **given: Any,
) -> tuple[Tensor, None]:
    """One attention of a model, as transformers calls it.

    Args:
        module: The attention module; `use` may have put a pattern there.
        query: [batch, heads, queries, dim].
        key: [batch, kv_heads, keys, dim].
        value: [batch, kv_heads, keys, dim of values].
        attention_mask: What `pattern_mask` made; or bool, or added to scores, [batch or 1, heads or 1, queries, keys].
        scaling: Factor on scores, 1/sqrt(dim) by default.
        dropout: Must be 0.
        softcap: Scores are ``softcap * tanh(score / softcap)``.
        s_aux: Sinks, [heads]: ``exp(s_aux)`` is added to each denominator.
        position_bias: Added to scores, [batch or 1, heads or 1, queries, keys].
        is_causal: Without a mask, whether queries see later keys.
        sliding_window: Told by models beside their mask, and refused without one.
        **given: What other implementations are told.

    Returns:
        out [batch, queries, heads, dim of values], and no weights.

    Raises:
        AttnDslError: A506, weights or dropout are asked for, or the mask is of another call.
    """
    if dropout:
        raise refusal(
            "attention dropout is not done here", "set `attention_dropout` of the config to 0"
        )
    if given.get("output_attentions"):
        raise refusal("attention weights are never written out", 'attn_implementation="eager"')
    call = _call(module, query, key, attention_mask, is_causal, sliding_window)
    if call.added is not None:
        position_bias = call.added if position_bias is None else position_bias + call.added
    inputs, options = dict(call.inputs), {"scale": scaling, **call.positions}
    if softcap is None and s_aux is None and position_bias is None:
        out = call.pattern(query, key, value, inputs=inputs, **options)
    else:
        if s_aux is not None:
            inputs["sinks"] = s_aux.reshape(-1)
        if position_bias is not None:
            inputs["bias"] = position_bias[..., : key.shape[2]]
        scored = _scored(call.pattern.ir, softcap, s_aux is not None, position_bias is not None)
        out = scored(query, key, value, inputs=inputs, **options)
    return out.transpose(1, 2).contiguous(), None


@eager_only
@functools.lru_cache(maxsize=_KEPT)
def _scored(
    mask: Mask, softcap: float | None, has_sinks: bool, has_bias: bool
) -> attndsl.Attention:
    """A mask with the scores that models of transformers have: a cap, then a bias, and sinks."""
    sinks: Any = attndsl.table("sinks", "real", "head")
    bias: Any = attndsl.table("bias", "real", "batch", "head", "q", "k")

    def score(s: Any) -> Any:
        capped = s if softcap is None else softcap * reals.tanh(s / softcap)
        return capped + bias[attndsl.q, attndsl.k] if has_bias else capped

    mass: Any = reals.exp(sinks[attndsl.head]) if has_sinks else None
    return attndsl.attention(mask, score, mass=mass)


class _Call(NamedTuple):
    """One attention that a model asks for."""

    pattern: attndsl.Pattern
    inputs: Mapping[str, Tensor]
    positions: Mapping[str, Any]
    added: Tensor | None = None  # to scores


def _call(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    given: PatternMask | Tensor | None,
    is_causal: bool | None,
    sliding_window: int | None,
) -> _Call:
    there: _Put | None = getattr(module, _PATTERN, None)
    put, keep_mask, own = there or (None, True, dict[str, Any]())
    batch, q_len, k_len = query.shape[0], query.shape[2], key.shape[2]
    if isinstance(given, PatternMask):
        if given.lengths != (batch, q_len, k_len):
            counts = f"{given.lengths} for a call of {(batch, q_len, k_len)}"
            raise refusal(f"the mask is of another call: (batch, queries, keys) = {counts}")
        pattern = given.pattern
        if put is not None and keep_mask:
            pattern = _joined(put.ir, given.mask)
        elif put is not None:
            if given.inputs.keys() - {_PADDING}:
                raise refusal("the model's mask reads inputs", "`use(..., keep_mask=True)`")
            pattern = put if given.padding is None else _joined(put.ir, _padded(_EVERY.ir))
        starts = dict(zip(("q_start", "k_start"), given.starts, strict=True))
        return _Call(pattern, {**given.inputs, **own}, starts)
    if isinstance(given, Tensor):
        if put is not None:
            raise refusal("a mask written out cannot be joined with a pattern of one's own")
        given = given[..., :k_len]
        if given.dtype == torch.bool:
            return _Call(_WRITTEN_OUT, {"written": given}, {})
        return _Call(_EVERY, {}, {}, given)
    if given is not None:
        raise refusal(f"a mask is no {type(given).__name__}")
    if sliding_window is not None:
        raise refusal("the model tells a window and gives no mask")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    pattern = _CAUSAL if causal and q_len > 1 else _EVERY
    joined = pattern if put is None else _joined(put.ir, pattern.ir)
    return _Call(joined, own, {"q_start": 0})


_EVERY: Final = attndsl.compile("pattern every align start = true")
_CAUSAL: Final = attndsl.compile("pattern causal_from_start align start = k <= q")
_WRITTEN_OUT: Final = attndsl.compile(
    "input written: bool[batch, head, q, k]\npattern written_out align start = written[q, k]"
)
