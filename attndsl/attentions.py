"""The face of attentions: a pattern, what is done with its scores, and the call."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor

from attndsl import emission, frontend, notebooks, op
from attndsl import ir as nodes
from attndsl.arguments import Layouts, bind_scored, layout_text, take_positions
from attndsl.compiled import Pattern
from attndsl.files import write_file
from attndsl.inputs import gathered
from attndsl.passes import SEED
from attndsl.positions import with_heads
from attndsl.program_arguments import read_heads, read_layer
from attndsl.selected import Selecting, Selector
from attndsl.source import AttnDslError, Diagnostic, brief


class Attention(frontend.AttentionOperators, Selecting):
    """A compiled attention: call it on q, k, v, its real inputs among the arguments.

    One Attention serves every length, batch size, head count and grid extent. Gradients reach q, k, v and every real
    input, the same bits every run. ``a + 2.0 * b``, ``a - lam * b`` and ``a / 2`` are sums of attentions, each
    normalised for itself; ``a | b`` is one softmax over the pairs of both.
    """

    def __init__(self, attention: nodes.Attention, layer: int = 0) -> None:
        self._attention, self._layer = attention, read_layer(layer)
        self._selector = Selector.of_attention(attention, self._layer)
        self._terms = tuple(
            op.TermProgram.of(term, attention.tables, self._layer) for term in attention.terms
        )
        self._text = nodes.dump_attention(
            attention
        )  # made before any call: a traced call cannot do so
        # names and kinds of all inputs, for whoever reads the arguments of a call; those that selections alone read
        # are told apart where tables are made, and are nothing to a call that is given these
        self._declared = nodes.Mask(
            nodes.BoolConst(True),
            tables=attention.inputs,
            name=attention.name,
            unread=(*attention.ignored, *sorted(self._selector.asked)),
        )

    def _of(self, attention: nodes.Attention) -> Attention:
        return Attention(attention, self._layer)

    @property
    def name(self) -> str:
        """The name it was declared under."""
        return self._attention.name

    @property
    def doc(self) -> str:
        """Its documentation comment."""
        return self._attention.doc

    @property
    def ir(self) -> nodes.Attention:
        """The attention itself, with its masks, expressions and inputs."""
        return self._attention

    @property
    def digest(self) -> str:
        """A hash of the meaning, stable across processes."""
        return self._attention.digest

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """The patterns of its parts, in order."""
        return tuple(Pattern(mask, self._layer) for mask in self._attention.masks)

    @property
    def pattern(self) -> Pattern:
        """Its pattern, where it has one part.

        Raises:
            AttnDslError: A211, it has several: ``patterns``.
        """
        if len(self._attention.masks) != 1:
            title = f"{self.name or 'the attention'} has {len(self._attention.masks)} patterns"
            helps = ("`patterns` are all of them",)
            raise AttnDslError(Diagnostic("A211", title, helps=helps))
        return self.patterns[0]

    @property
    def inputs(self) -> tuple[nodes.Table, ...]:
        """The inputs of a call by name: real ones, and those of its patterns and selections."""
        read = {table.name for table in self._declared.tables}
        asked = (table for table in self._selector.inputs if table.name not in read)
        return (*self._declared.tables, *asked)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Attention) and (self._attention, self._layer) == (
            other._attention,
            other._layer,
        )

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        inputs = ", ".join(table.name for table in self.inputs)
        return f"<attndsl.Attention {self.name or 'unnamed'}({inputs})>"

    def _repr_html_(self) -> str:
        return notebooks.attention_html(self._attention, self._layer)

    def __str__(self) -> str:
        return nodes.show_attention(self._attention)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (nodes.dump_attention(self._attention), self._layer)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the attention as JSON, whole or not at all; ``Attention.load`` reads back its equal."""
        write_file(path, nodes.dump_attention(self._attention).encode())

    @staticmethod
    def load(path: str | os.PathLike[str], layer: int = 0) -> Attention:
        """The attention that ``save`` wrote, for that value of ``layer``. Reading runs nothing.

        Raises:
            AttnDslError: A405, the file is not a saved attention.
        """
        return _restored(Path(path).read_text(encoding="utf-8"), layer)

    @overload
    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, return_lse: Literal[False] = False, **options: Any
    ) -> Tensor: ...
    @overload
    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, return_lse: Literal[True], **options: Any
    ) -> tuple[Tensor, Tensor]: ...
    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        return_lse: bool = False,
        scale: float | Tensor | None = None,
        backend: str = "auto",
        layout: Layouts | None = None,
        extents: Mapping[str, int] | None = None,
        inputs: Mapping[str, Any] | None = None,
        heads: int | None = None,
        head_start: int = 0,
        dropout_p: float = 0.0,
        dropout_seed: int | Tensor | None = None,
        **named: Any,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The attention of q [B, H, Q, D] over k [B, Hkv, K, D] and v [B, Hkv, K, Dv].

        Args:
            q: Queries.
            k: Keys; Hkv divides H (GQA, MQA).
            v: Values; Dv may differ from D.
            return_lse: Also return the log-sum-exp [B, H, Q], natural logarithm, with all mass in it; of one term
                alone. Weights that have none give 0, and -inf for queries without keys.
            scale: Factor on q k^T before anything else is done: a number, or a tensor [H] or like [B, H, Q, 1];
                1/sqrt(D) by default.
            backend: "auto", "blocked", "triton" or "reference".
            layout: The order in which tokens are taken into tiles, as in calls of a pattern.
            extents: Sizes of grid axes that the lengths do not determine, {"y": 56, "x": 56}.
            inputs: Run-time inputs by name. Real ones are tensors of a floating dtype, computed with in float32, or
                float64 where q is; their gradients have their own dtype.
            heads: How many heads the whole model has, where q holds some of them only.
            head_start: Which of them is the first of q.
            dropout_p: The probability with which each weight is dropped, after it is normalised; those that are kept
                are divided by 1 - p.
            dropout_seed: An int that says which are dropped: equal seeds drop equal pairs of batch element, head,
                query and key, whatever the back end, layout and lengths.
            **named: Inputs by name; positions, as in calls of a pattern; keys and values from elsewhere, as
                ``memory=(k, v)``, where the attention says ``by memory``.

        Returns:
            out [B, H, Q, Dv], and lse if asked for. Queries without a key, and rows of q without a token: out 0.

        Raises:
            AttnDslError: A4xx lengths, extents and layouts, A5xx tensors, inputs and back ends.
        """
        call = self._call(
            q, k, scale=scale, backend=backend, layout=layout, extents=extents, inputs=inputs,
            heads=heads, head_start=head_start, **named,
        )  # fmt: skip
        if dropout_p:
            seeded = {**(call.inputs or {}), SEED.name: _seed(dropout_p, dropout_seed, q)}
            call = dataclasses.replace(call, inputs=seeded)
        whole = op.Whole(self._text, self._layer, self._terms)
        out, lse = op.attend(whole, q, k, v, call, dropout=float(dropout_p), with_lse=return_lse)
        return (out, lse) if return_lse else out

    def _call(
        self,
        q: Tensor,
        k: Tensor,
        *,
        scale: float | Tensor | None = None,
        backend: str = "auto",
        layout: Layouts | None = None,
        extents: Mapping[str, int] | None = None,
        inputs: Mapping[str, Any] | None = None,
        heads: int | None = None,
        head_start: int = 0,
        **named: Any,
    ) -> op.ScoredCall:
        """A call beside its tensors, its arguments by name read."""
        at = take_positions(named)
        keys = {name: named.pop(name) for name in self._attention.key_inputs if name in named}
        is_part = head_start != 0 or heads is not None
        inputs, named = self._selector.completed(q, k, scale, inputs, named, at, is_part, extents)
        found = gathered(self._declared, inputs, named)
        if head_start or heads is not None:
            _, total = read_heads(heads, head_start, None)
            extents = with_heads(extents, head_start, total)
        order = None if layout is None else layout_text(layout)
        return op.ScoredCall(scale, backend, order, extents, found, at, keys)

    def device_functions(self, q: Tensor, k: Tensor, v: Tensor, **inputs: Any) -> str:
        """Text of the functions that GPUs run on the scores of such a call, their symbolic derivatives included.

        Args:
            q: Queries, as in a call; only shapes matter, and no GPU is needed.
            k: Keys.
            v: Values.
            **inputs: Inputs by name, as in a call.

        Raises:
            AttnDslError: A520, some part of a score has no kernel.
        """
        call = op.ScoredCall(inputs=gathered(self._declared, None, inputs))
        return op.device_functions(self._terms, q, k, v, call)

    def emit(self, *, definition: str = "", dropout_p: float = 0.0) -> str:
        """A stand-alone Python file that computes the attention: torch and triton, nothing else.

        It holds the functions of the scores and their derivatives, the patterns, the Triton kernels of the package, and
        ``attention(q, k, v, *, scale=None, return_lse=False, ...)`` with inputs, keys from elsewhere and open extents
        as keywords. Gradients reach q, k, v and every real input. Equal attentions give equal bytes.

        Args:
            definition: How the attention was written, to be quoted above what it means.
            dropout_p: The probability with which a weight is dropped; ``attention`` takes ``dropout_seed`` then, and
                drops what calls with that seed do.

        Raises:
            AttnDslError: A403, numbers do not fit 64 bits; A501, no probability; A520, a form or a score has no kernel.
        """
        if dropout_p:
            _check_probability(dropout_p)
        given = self._attention, self._layer
        return emission.emit_attention(*given, definition=definition, dropout_p=dropout_p)

    def weights(self, q: Tensor, k: Tensor, **options: Any) -> Tensor:
        """The weights [B, H, Q, K] themselves, 0 outside the pattern: for short sequences, as they take the square.

        They are what values that are unit vectors give; differentiable. ``options`` are those of a call.

        Raises:
            AttnDslError: A502, the attention takes keys from elsewhere; else as a call.
        """
        heads, k_len = self._value_heads(k), k.shape[2]
        unit = torch.eye(k_len, dtype=k.dtype, device=k.device)
        made: Tensor = self(q, k, unit.expand(k.shape[0], heads, k_len, k_len), **options)
        return made

    def column_sums(self, q: Tensor, k: Tensor, **options: Any) -> Tensor:
        """The sums [B, Hkv, K] of the weights that each key has, over its queries and query heads; no gradient.

        Nothing as large as the square is made: they are the gradient of values for results of ones. ``options`` are
        those of a call.

        Raises:
            AttnDslError: A502, the attention takes keys from elsewhere; else as a call.
        """
        with torch.enable_grad():
            shape = k.shape[0], self._value_heads(k), k.shape[2], 1
            v = torch.zeros(shape, dtype=k.dtype, device=k.device, requires_grad=True)
            out = self(q.detach(), k.detach(), v, **options)
            (sums,) = torch.autograd.grad(out, v, torch.ones_like(out))
        return sums[..., 0]

    def row_max(self, q: Tensor, k: Tensor, **options: Any) -> Tensor:
        """The largest score [B, H, Q] of each query, -inf where it sees no key; no gradient, no mass in it.

        Nothing as large as the square is made: it takes four forwards with values of one number, five in float64.
        ``options`` are those of a call.

        Raises:
            AttnDslError: A502, of a sum of several attentions and of packed sequences; else as a call.
        """
        heads = k.shape[1] if self._attention.key_inputs else self._value_heads(k)
        v = torch.zeros((k.shape[0], heads, k.shape[2], 1), dtype=k.dtype, device=k.device)
        return op.row_maxima(self._terms, q, k, v, self._call(q, k, **options))

    def _value_heads(self, k: Tensor) -> int:
        """How many heads values have beside these keys."""
        if self._attention.key_inputs:
            title = "weights of keys from elsewhere are not told apart from those of the call's own"
            raise AttnDslError(Diagnostic("A502", title))
        parts = (part for term in self._attention.terms for part in term.parts)
        return int(k.shape[1]) // max([1, *(part.member[1] for part in parts if part.member)])

    def bind(
        self,
        q_len: int,
        k_len: int | None = None,
        heads: int | None = None,
        *,
        device: torch.device | str = "cpu",
        scale: float | Tensor | None = None,
        backend: str = "auto",
        layout: Layouts | None = None,
        **given: Any,
    ) -> op.BoundAttention:
        """Decides a call once, as `Pattern.bind`: ``a.bind(q_len, k_len, heads, batch=8, doc=ids)``.

        The result is called with q, k and v. Int and bool inputs and positions are copied. Real inputs are held as
        they are, or given with each call, ``call(q, k, v, slope=slope)``, as are keys from elsewhere. ``heads`` are
        those of q.

        Raises:
            AttnDslError: A4xx lengths, extents and positions, A501 inputs.
        """
        text = None if layout is None else layout_text(layout)
        call = op.ScoredCall(scale, backend, text)
        lengths = q_len, k_len, heads
        return bind_scored(self._declared, self._terms, lengths, device, call, given)

    @property
    def has_lse(self) -> bool:
        """Whether ``return_lse`` is answered: not of a sum of several attentions."""
        return op.has_lse(self._attention.terms)


def _seed(p: float, seed: object, q: Tensor) -> Tensor:
    """The seed of a call with dropout as an input."""
    _check_probability(p)
    made = seed if isinstance(seed, Tensor) else None
    if isinstance(seed, int) and not isinstance(seed, bool) and abs(seed) < nodes.LARGEST:
        made = torch.tensor(seed)
    if made is None or made.numel() != 1 or made.dtype not in (torch.int64, torch.int32):
        title = f"dropout needs an int as its seed, not {brief(seed)}"
        helps = ("dropout_seed=step, another one in each step and layer",)
        raise AttnDslError(Diagnostic("A501", title, helps=helps))
    return made.reshape(1).to(device=q.device, dtype=torch.int64)


def _check_probability(p: float) -> None:
    if not 0 < p < 1:
        title = f"dropout_p is a probability from 0 to below 1, not {brief(p)}"
        raise AttnDslError(Diagnostic("A501", title))


def _restored(text: str, layer: int) -> Attention:
    return Attention(nodes.load_attention(text), layer)
