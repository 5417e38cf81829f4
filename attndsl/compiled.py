"""The face of the package: ``compile`` and the ``Pattern`` it returns. Thin methods that call the doors."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, overload

import torch
from torch import Tensor

from attndsl import (
    backends,
    emission,
    explaining,
    frontend,
    ir,
    notebooks,
    op,
)
from attndsl.arguments import Layouts, bind, layout_text, read_inputs, take_positions
from attndsl.compiler import Program, read_saved, saved
from attndsl.files import write_file
from attndsl.inspection import Inspection
from attndsl.interop import Exports
from attndsl.positions import with_heads
from attndsl.program_arguments import read_heads, read_layer, read_switches
from attndsl.selected import Selecting, Selector
from attndsl.source import AttnDslError, Diagnostic
from attndsl.sources import Source, joined


class Pattern(Inspection, Selecting, Exports):
    """A compiled pattern: call it on q, k, v; ask it for its mask, its schedule, its facts.

    One Pattern serves every length, batch size, head count and grid extent.

    Methods that are told lengths take ``**given`` too:

    - ``batch``: how many batch elements; as many as the inputs are for, by default, as is ``heads``.
    - ``head_start``, ``head_count``: which of the heads, where a rank of a parallel model holds some of them:
      so many from there on. ``heads`` are those of the whole model. Inputs have an entry for each of either.
    - ``extents``: sizes of grid axes that the lengths do not determine, ``{"y": 56, "x": 56}``.
    - ``q_start``, ``q_used``, ``q_pos``, ``k_start``, ``kv_len``, ``k_pos``: where the tokens stand, as in a call,
      whose ``q_len`` is ``q_used`` here. The lengths are then those of q and k in memory, and what is no token sees
      nothing.
    - ``inputs``: the pattern's run-time inputs, ``{"doc": ids}``.
    - Any other name is an input, ``doc=ids``. A name that a method has as an argument of its own, ``tile``
      say, means that argument; an input of that name is given in ``inputs``.

    Inputs are tensors, arrays or nested lists of the declared dims and type. A dim ``batch``, ``head``, ``q`` or
    ``k`` may have one entry that serves all. Bool inputs may be 0 and 1. An input that is declared, but that
    the compiled pattern does not read, may be given or left out.
    """

    def __init__(
        self,
        mask: ir.Mask,
        layer: int = 0,
        without: Collection[str] = (),
        origin: explaining.Origin | None = None,
        captured: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._program = Program(mask, read_layer(layer), read_switches(without), captured)
        self._planner = op.planner_of(self._program)
        self._selector = Selector.of((mask,), self._program.layer)
        self._origin = origin  # for advice alone: two patterns that differ in it are equal

    @property
    def name(self) -> str:
        """The name it was declared under."""
        return self._program.mask.name

    @property
    def doc(self) -> str:
        """Its documentation comment."""
        return self._program.mask.doc

    @property
    def ir(self) -> ir.Mask:
        """The relation itself, with its spaces and inputs."""
        return self._program.mask

    @property
    def layer(self) -> int:
        """The value of ``layer`` that it was compiled for."""
        return self._program.layer

    @property
    def without(self) -> tuple[str, ...]:
        """The simplifications that it was compiled without, by name."""
        return self._program.without

    @property
    def captured(self) -> Mapping[str, Any]:
        """The tensors of a mask_mod, by name: inputs of calls that are given no others. They are not saved."""
        return self._program.captured

    @property
    def digest(self) -> str:
        """A hash of the meaning, stable across processes: equal for equal normal forms."""
        return self._program.normal.digest

    def __repr__(self) -> str:
        return f"<attndsl.Pattern {self.name or 'unnamed'}: {ir.show(self.ir.root, self.ir.zeros)}>"

    def _repr_html_(self) -> str:
        return notebooks.pattern_html(self._program)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pattern) or self._program.key != other._program.key:
            return False
        return self.ir.selections == other.ir.selections

    def __hash__(self) -> int:
        return hash(self._program.key)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._saved(),)

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
        **named: Any,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attention of q [B, H, Q, D] over k [B, Hkv, K, D] and v [B, Hkv, K, Dv], within the pattern.

        Args:
            q: Queries.
            k: Keys; Hkv divides H (GQA, MQA).
            v: Values; Dv may differ from D.
            return_lse: Also return the log-sum-exp [B, H, Q], natural logarithm.
            scale: Factor on the scores: a number, or a tensor [H] or like [B, H, Q, 1]; 1/sqrt(D) by default.
            backend: "auto", "triton", "blocked", "reference"; "flex", "sdpa", "varlen", "flash_attn", or "natten".
            layout: The order in which tokens are taken into tiles, which changes the work and never the
                result: "natural"; "auto", the cheapest that the pattern suggests, split in parts where
                they want different orders; "residues(8)", "boxes(y=8, x=16)", "axes(x, y)",
                "morton(y, x)", "sorted(doc)", "banded(nbr)"; a pair where queries and keys differ.
                By default on CPUs, for 512 tokens or more, "auto" of patterns without run-time inputs, and that
                of the ranks of patterns that rank their tokens; "natural" otherwise. Kernels of others have
                orders of their own, and refuse one.
            extents: Sizes of grid axes that the lengths do not determine, {"y": 56, "x": 56}.
            inputs: The pattern's run-time inputs, {"doc": ids}.
            heads: How many heads the whole model has, where q holds some of them only, as on a rank of a
                tensor-parallel model. Inputs have an entry for each head of q, or for each of all.
            head_start: Which of them is the first of q.
            **named: Positions, and inputs by name, doc=ids, where the name is none of the above. Where the tokens
                stand, ints or int tensors: ``q_start`` and ``k_start`` [B], the position of row 0; ``q_len`` and
                ``kv_len`` [B], how many rows hold tokens; ``q_pos`` [B or 1, Q] and ``k_pos`` [B or 1, K], all
                positions, -1 for no token. See docs/caches.md. ``selection`` is what ``select`` returned.

        Returns:
            out [B, H, Q, Dv], and lse if asked for. Queries without a key, and rows of q without a token: out 0,
            lse -inf.

        Raises:
            AttnDslError: A4xx lengths, extents and layouts, A5xx tensors, inputs, backends; A506, an argument of
                another library's attention that asks for what is not done here.
        """
        at = take_positions(named) if named else {}
        if self._selector.selections:
            is_part = head_start != 0 or heads is not None
            inputs, named = self._selector.completed(
                q, k, scale, inputs, named, at, is_part, extents
            )
        found = read_inputs(self._program, inputs, named)
        if head_start or heads is not None:
            _, total = read_heads(heads, head_start, None)
            extents = with_heads(extents, head_start, total)
        out, lse = op.attention(
            *(self._planner, q, k, v),
            scale=scale,
            backend=backend,
            layout=None if layout is None else layout_text(layout),
            extents=extents,
            inputs=found,
            positions=at,
        )
        return (out, lse) if return_lse else out

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
    ) -> op.BoundCall:
        """Decides a call once: ``p.bind(q_len, k_len, heads, batch=8, doc=ids)`` is called with q, k and v alone.

        Lengths, heads, extents, inputs and positions are checked here, and the tensors among them copied. Layers may
        share the result. ``scale``, ``backend`` and ``layout`` are those of a call. With ``block_table``, k_len is that
        of all pages of a batch element, and the call takes pages.

        Raises:
            AttnDslError: A4xx lengths, extents and positions, A501 inputs.
        """
        text = None if layout is None else layout_text(layout)
        options = {"scale": scale, "backend": backend, "layout": text}
        return bind(self._program, self._planner, (q_len, k_len, heads), device, options, given)

    def tune(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        backend: str = "auto",
        layout: Layouts | None = None,
        extents: Mapping[str, int] | None = None,
        inputs: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> tuple[backends.Tuned, ...]:
        """Measure which tiles, warps and stages run a call with these arguments fastest; use them from now on.

        The result serves every later call of this pattern, in this process and others, with these dtypes, widths and
        layout, heads that share keys alike, and lengths up to the same powers of two. Results are stored
        in the folder ``ATTNDSL_CACHE_DIR``, by default ``attndsl`` in the user's cache. Without tuning, calls
        take defaults that are known to fit each GPU.

        Takes up to some minutes, most of them in the compiler; the backward is tuned if a tensor requires a
        gradient. Returns what was found, an item a pass; nothing where there is no choice, as on the CPU.

        Raises:
            AttnDslError: as a call.
        """
        text, at = None if layout is None else layout_text(layout), take_positions(named)
        return op.tune(
            *(self._planner, q, k, v),
            backend=backend,
            layout=text,
            extents=extents,
            inputs=read_inputs(self._program, inputs, named),
            positions=at,
        )

    def emit(self, *, definition: str = "") -> str:
        """A stand-alone Python file that computes attention within the pattern: torch and triton, nothing else.

        It holds the pattern as a function on tensors, the Triton kernels of the package, forward and backward, and
        ``attention(q, k, v, *, scale=None, return_lse=False, ...)`` with the inputs and open extents of the
        pattern as keywords, and positions as in calls. Equal patterns give equal bytes.

        Args:
            definition: How the pattern was written, to be quoted above the relation itself.
        """
        return emission.emit(self.ir, self.layer, definition=definition)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the pattern as JSON, whole or not at all; ``Pattern.load`` reads back its equal, asserts included."""
        write_file(path, self._saved().encode())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Pattern:
        """The pattern that ``save`` wrote. Reading runs nothing.

        Raises:
            AttnDslError: A405, the file is not a saved pattern.
        """
        return _restored(Path(path).read_bytes())

    def _saved(self) -> str:
        return saved(self.ir, self.layer, self.without)


def _restored(text: str | bytes) -> Pattern:
    return Pattern(*read_saved(text))


def compile_pattern(
    source: Source | Pattern,
    /,
    *,
    entry: str | None = None,
    layer: int = 0,
    align: Literal["start", "end"] | None = None,
    without: Collection[str] = (),
    values: Mapping[str, frontend.Given] | None = None,
    **named: frontend.Given,
) -> Pattern:
    """Compiles a pattern; arguments and errors are those of ``attndsl.compile``."""
    if isinstance(source, Pattern):
        if entry or layer or align or without or values or named:
            title = f"{source.name or 'the pattern'} is compiled already: it takes no values and options"
            raise AttnDslError(Diagnostic("A211", title))
        return source
    switches = read_switches(without)
    origin = explaining.Origin(source, entry, joined(values, named), align)
    return Pattern(origin.mask(layer), layer, switches, origin)
