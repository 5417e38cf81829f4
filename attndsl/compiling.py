"""Verbs that make patterns and attentions: `compile` of whatever says one, `attention` over a pattern."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, cast, overload

from attndsl import frontend
from attndsl import ir as nodes
from attndsl.attentions import Attention
from attndsl.backends import MaskMod
from attndsl.compiled import Pattern, compile_pattern
from attndsl.conversion import from_mask_mod
from attndsl.interop import is_mask_mod
from attndsl.source import AttnDslError, Diagnostic
from attndsl.sources import Source, is_attention, joined, read_attention, read_mask


@overload
def compile(  # noqa: A001 - the public name
    source: nodes.Attention | Attention,
    /,
    *,
    entry: str | None = None,
    layer: int = 0,
    align: Literal["start", "end"] | None = None,
    without: Collection[str] = (),
    values: Mapping[str, frontend.Given] | None = None,
    **named: frontend.Given,
) -> Attention: ...


@overload
def compile(  # noqa: A001 - the public name
    source: Source | Pattern | MaskMod,
    /,
    *,
    entry: str | None = None,
    layer: int = 0,
    align: Literal["start", "end"] | None = None,
    without: Collection[str] = (),
    values: Mapping[str, frontend.Given] | None = None,
    **named: frontend.Given,
) -> Pattern: ...


def compile(  # noqa: A001 - the public name
    source: Source | Pattern | MaskMod | nodes.Attention | Attention,
    /,
    *,
    entry: str | None = None,
    layer: int = 0,
    align: Literal["start", "end"] | None = None,
    without: Collection[str] = (),
    values: Mapping[str, frontend.Given] | None = None,
    **named: frontend.Given,
) -> Pattern | Attention:
    """Compile a pattern or an attention.

    Args:
        source: A path ("longformer.attn", "file.attn:name"), program text, an expression ("causal and
            q - k < 8"), the name of a pattern of the prelude or the library ("causal_window"), the Python
            form (``window(256) | (q < 4)``), a mask of the IR, or a mask_mod as for `from_mask_mod`. A pattern
            that is compiled already is returned as it is. Text, a path or a name may stand for an attention,
            and gives an `Attention`.
        entry: Which pattern or attention of the file; the last one by default.
        layer: The value of ``layer``.
        align: Where queries stand when there are fewer or more of them than keys, unless the pattern
            says so itself: "end", at the last positions, the default; "start", at the first.
        without: Simplifications to leave out, by name: "separate", "drop_implied", "merge_heads", "whole". The
            result of a call is the same; to find out which of them a difference in speed comes from.
        values: For its parameters, {"w": 256}.
        **named: The same by name, w=256, where the name is none of the above.

    Raises:
        AttnDslError: everything that is wrong with the program, with places and hints.
    """
    if isinstance(source, Attention):
        if entry or layer or align or without or values or named:
            title = f"{source.name or 'the attention'} is compiled already: it takes no values"
            raise AttnDslError(Diagnostic("A211", title))
        return source
    given = joined(values, named)
    if is_mask_mod(source):
        if entry or given:
            title = "a mask_mod has no entries and parameters: what it captures says what it is"
            helps = ("functools.partial sets arguments",)
            raise AttnDslError(Diagnostic("A211", title, helps=helps))
        return from_mask_mod(source, layer=layer, align=align, without=without)
    if not isinstance(source, nodes.Attention) and not is_attention(source, entry):
        return compile_pattern(
            cast(Source, source), entry=entry, layer=layer, align=align, without=without,
            values=given or None,
        )  # fmt: skip
    if without:
        title = "simplifications are left out of patterns, not of attentions"
        raise AttnDslError(Diagnostic("A412", title))
    return Attention(read_attention(source, entry, given, align, layer), layer)


def attention(
    pattern: Source,
    score: frontend.Rule | None = None,
    *,
    weights: frontend.Weights = "softmax",
    factor: frontend.Rule | None = None,
    mass: frontend.Operand | None = None,
    keys: str = "",
    pair: int | None = None,
    layer: int = 0,
    align: str | None = None,
    values: Mapping[str, frontend.Given] | None = None,
) -> Attention:
    """An attention over a pattern, in Python: ``attention(causal(), lambda s: s - slope * (q - k))``.

    Args:
        pattern: Whatever `compile` makes a pattern of, or one that is compiled already.
        score: A function from the score ``s`` of a pair to what becomes of it; by default it stays as it is.
        weights: "softmax", "sigmoid", "entmax", "stick", "columns", ("pointwise", f), or ("l1", f).
        factor: Multiplies the weights after they are normalised: a real, or a function of ``s``.
        mass: A real that is added to the denominator of each query.
        keys: The name of keys and values that a call is given beside its own.
        pair: 0 or 1: heads 2i, or 2i + 1, of q and k, with all heads of v.
        layer: The value of ``layer``.
        align: As for `compile`.
        values: For the parameters of the pattern.

    Raises:
        AttnDslError: A2xx and A3xx, with places.
    """
    mask = (
        pattern.ir
        if isinstance(pattern, Pattern)
        else read_mask(pattern, None, values, align, layer)
    )
    made = frontend.scored(mask, score, weights, factor, mass, keys, pair, mask.name)
    return Attention(made, layer)
