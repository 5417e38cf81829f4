"""Attention over packed sequences of any lengths, without padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, overload

from torch import Tensor

from attndsl.arguments import Layouts
from attndsl.attentions import Attention
from attndsl.compiled import Pattern
from attndsl.compiling import compile as compile_any
from attndsl.positions import BOUNDS, hidden
from attndsl.source import AttnDslError, Diagnostic
from attndsl.sources import Source


def varlen(pattern: Pattern | Attention | Source) -> Varlen:
    """The pattern or attention for packed sequences: ``varlen(p)(q, k, v, cu_seqlens_q, cu_seqlens_k)``.

    Raises:
        AttnDslError: as ``compile``.
    """
    return Varlen(compile_any(pattern))


@dataclass(frozen=True)
class Varlen:
    """A pattern or attention over sequences that lie one behind the other, each in positions of its own.

    Attributes:
        pattern: The compiled pattern or attention.
    """

    pattern: Pattern | Attention

    @overload
    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Any,
        cu_seqlens_k: Any = None,
        *,
        return_lse: Literal[False] = False,
        **options: Any,
    ) -> Tensor: ...
    @overload
    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Any,
        cu_seqlens_k: Any = None,
        *,
        return_lse: Literal[True],
        **options: Any,
    ) -> tuple[Tensor, Tensor]: ...
    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Any,
        cu_seqlens_k: Any = None,
        *,
        return_lse: bool = False,
        scale: float | Tensor | None = None,
        backend: str = "auto",
        layout: Layouts | None = None,
        extents: Mapping[str, int] | None = None,
        inputs: Mapping[str, Any] | None = None,
        heads: int | None = None,
        head_start: int = 0,
        **named: Any,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attention of q [tokens, H, D] over k [keys, Hkv, D] and v [keys, Hkv, Dv], sequence by sequence.

        The result is, for each sequence, that of the call on it alone: lengths and positions are its own.

        Args:
            q: Queries of all sequences, one behind the other.
            k: Keys; Hkv divides H.
            v: Values; Dv may differ from D.
            cu_seqlens_q: Where each sequence begins in q, and where the last one ends: int [sequences + 1] from 0 to
                tokens, on the device of q. Sequences may be empty.
            cu_seqlens_k: The same of k and v; by default that of q.
            return_lse: Also return the log-sum-exp [tokens, H], natural logarithm.
            scale: Factor on the scores: a number, or a tensor [H] or like [tokens, H, 1]; 1/sqrt(D) by default.
            backend: As of a call of the pattern.
            layout: Likewise.
            extents: Likewise, the same in all sequences.
            inputs: The pattern's run-time inputs. Along ``batch`` they have an entry for each sequence. One that is
                declared over ``batch`` and one of ``pos``, ``q`` and ``k`` may be given with an entry for each token
                instead of both dims.
            heads: As of a call of the pattern.
            head_start: Likewise.
            **named: Inputs by name.

        Returns:
            out [tokens, H, Dv], and lse if asked for.

        Raises:
            AttnDslError: A413 bounds that descend, or do not go from 0 to the number of tokens; A502 shapes; else as
                a call of the pattern.
        """
        if not all(x.dim() == 3 for x in (q, k, v)):
            shown = (f"{label}: {list(x.shape)}" for label, x in zip("qkv", (q, k, v), strict=True))
            title = "packed q, k and v have three dims: [tokens, heads, head_dim]"
            raise AttnDslError(Diagnostic("A502", title, notes=tuple(shown)))
        if isinstance(scale, Tensor) and scale.dim() == 3:
            scale = scale.transpose(0, 1)[None]
        of_k = cu_seqlens_q if cu_seqlens_k is None else cu_seqlens_k
        named |= {hidden(name): x for name, x in zip(BOUNDS, (cu_seqlens_q, of_k), strict=True)}
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        options: dict[str, Any] = {
            "scale": scale,
            "backend": backend,
            "layout": layout,
            "heads": heads,
        }
        options |= {"extents": extents, "inputs": inputs, "head_start": head_start, **named}
        if not return_lse:
            made: Tensor = self.pattern(q, k, v, **options)
            return made[0].transpose(0, 1)
        out, lse = self.pattern(q, k, v, return_lse=True, **options)
        return out[0].transpose(0, 1), lse[0].transpose(0, 1)
