"""Arguments that users bring along from other attention calls, and what to write here instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

# Arguments of the methods of a pattern and of the modules: inputs of these names go into `inputs`.
ARGUMENTS: Final = frozenset(
    "backend batch block_table device element extents head head_count head_dim head_start heads inputs k k_len k_pos "  # noqa: SIM905
    "k_start kv_len layers layout length machine q q_len q_pos q_start q_used query return_lse scale self "
    "tile token v x".split()
)


@dataclass(frozen=True, slots=True)
class Foreign:
    """An argument of other libraries' attention: values that ask for nothing, and what to do about others."""

    instead: str
    harmless: tuple[object, ...] = ()


_MASK = Foreign(
    "the pattern says which pairs are seen; a mask can be an input of it:"
    " `input keep: bool[batch, head, q, k]`, `pattern p = causal and keep[q, k]`"
)


_CAUSAL = Foreign(
    'the pattern says which keys are seen: compile `causal and ...`, with align="start" where the first query'
    " is at the first key",
    (False,),
)


_DROPOUT = Foreign(
    "an attention drops weights, `attention a over causal = score s`, called with dropout_p= and dropout_seed=; or by a"
    " factor of 0 or 1 / (1 - p), drawn anew in each step: `input keep: real[batch, head, q, k]`,"
    " `score s factor keep[q, k]`",
    (0, False),
)


_SCORES = Foreign(
    "a pattern leaves scores as they are; an attention over it changes them: `attention a over causal = score ...`,"
    " see docs/scores.md",
    (0,),
)


_WINDOW = Foreign(
    'the window is the pattern\'s: attndsl.compile("window", left=..., right=...)', (-1, (-1, -1))
)


_SCALE = Foreign("the factor on the scores is called `scale`")


_PACKED = Foreign(
    "packed sequences: attndsl.varlen(p)(q, k, v, cu_seqlens_q, cu_seqlens_k), each in positions of its own; or by"
    ' ids, "documents_causal", called with doc='
)


_WEIGHTS = Foreign(
    "weights are never held; an attention gives those of short sequences, `attndsl.attention(p).weights(q, k)`, as do "
    "values that are unit vectors, v = torch.eye(k_len)",
    (False,),
)


_LARGEST = Foreign(
    "an attention gives the largest score of each query, `attndsl.attention(p).row_max(q, k)`; `return_lse=True` gives "
    "what is at least that, and at most log(keys) more",
    (False,),
)


_ANYWAY = Foreign("it always is so", (True, False))


FOREIGN: Final[Mapping[str, Foreign]] = {
    **dict.fromkeys(("attn_mask", "attention_mask", "key_padding_mask", "mask"), _MASK),
    **dict.fromkeys(("block_mask", "mask_mod"), _MASK),
    **dict.fromkeys(("is_causal", "causal"), _CAUSAL),
    **dict.fromkeys(("dropout_p", "dropout", "attention_dropout"), _DROPOUT),
    **dict.fromkeys(("softcap", "logits_soft_cap", "score_mod", "bias", "attn_bias"), _SCORES),
    **dict.fromkeys(("alibi_slopes", "position_bias", "sinks", "s_aux"), _SCORES),
    **dict.fromkeys(("window_size", "sliding_window"), _WINDOW),
    **dict.fromkeys(("softmax_scale", "sm_scale", "scaling"), _SCALE),
    **dict.fromkeys(("cu_seqlens", "cu_seqlens_q", "cu_seqlens_k", "cu_seqlens_kv"), _PACKED),
    **dict.fromkeys(("return_weights", "need_weights", "output_attentions"), _WEIGHTS),
    "return_attn_probs": _WEIGHTS,
    "return_max": _LARGEST,
    **dict.fromkeys(("enable_gqa", "deterministic"), _ANYWAY),
}
