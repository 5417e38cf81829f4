"""Answers of a compiled pattern about itself at given lengths: mask, tiles, pictures, facts, predicted times."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attndsl import backends, claims, explaining, lowering, picturing, views
from attndsl import schedule as scheduling
from attndsl.arguments import Layouts, check_plain_order, layout_text, read_call
from attndsl.compiler import Program
from attndsl.program_arguments import check_open
from attndsl.source import AttnDslError, Diagnostic


class Inspection:
    """The methods of a pattern that are told lengths and compute no attention."""

    _program: Program
    _origin: explaining.Origin | None

    def mask(
        self,
        q_len: int,
        k_len: int | None = None,
        heads: int | None = None,
        **given: Any,
    ) -> Tensor:
        """The dense mask, bool [batch, heads, q_len, k_len]: the meaning. For small sizes."""
        call = read_call(self._program, q_len, k_len, heads, **given)
        return torch.from_numpy(self._program.dense(call))

    def zero_keys(
        self,
        q_len: int,
        k_len: int | None = None,
        heads: int | None = None,
        **given: Any,
    ) -> Tensor:
        """How many zero keys each query sees beside those of its mask, int64 [batch, heads, q_len].

        Raises:
            AttnDslError: A4xx lengths and extents, A408 a count is negative, A501 inputs.
        """
        call = read_call(self._program, q_len, k_len, heads, **given)
        counts = self._program.zero_keys(call)
        whole = torch.zeros(call.batch, call.heads, call.q_len, dtype=torch.int64)
        return whole if counts is None else whole + torch.from_numpy(counts)

    def schedule(
        self,
        q_len: int,
        k_len: int | None = None,
        heads: int | None = None,
        *,
        tile: tuple[int, int] = (128, 128),
        layout: Layouts = "natural",
        **given: Any,
    ) -> scheduling.Schedule:
        """The live tiles: ``.full`` and ``.partial`` tile pairs, ``.nbytes``, ``.density``.

        No tile in it is empty, no full tile needs a mask. Milliseconds at a million tokens.
        ``layout`` is that of a call: tiles are taken in that order.
        """
        call = read_call(self._program, q_len, k_len, heads, **given)
        return self._program.schedule(call, tile, layout_text(layout))

    def parts(
        self,
        q_len: int,
        k_len: int | None = None,
        heads: int | None = None,
        *,
        tile: tuple[int, int] = (128, 128),
        layout: Layouts = "auto",
        **given: Any,
    ) -> tuple[scheduling.Schedule, ...]:
        """The schedules that a call with this layout runs: one, or several of disjoint pairs.

        Only "auto" makes several: where the alternatives of a union want different orders of tokens.
        Their softmaxes are merged by log-sum-exp, exactly.
        """
        call = read_call(self._program, q_len, k_len, heads, **given)
        parts = self._program.tiled(call, layout_text(layout), tile)
        return tuple(part.schedules[tile] for part in parts)

    def predict(
        self,
        q_len: int,
        k_len: int | None = None,
        heads: int | None = None,
        *,
        head_dim: int = 64,
        layout: Layouts | None = None,
        machine: backends.Machine = backends.REFERENCE,
        **given: Any,
    ) -> backends.Times:
        """The seconds that a float32 call takes on a CPU, forward and backward, without running it.

        Every call of a kernel, every pair, every row that is gathered or merged is counted, and weighted
        by what it takes on ``machine``: a reference core, or ``attndsl.backends.this_machine()``, which
        is measured in half a second. A call that would run over lists of keys is timed by its tiles, without
        what chooses them.
        """
        call = read_call(self._program, q_len, k_len, heads, **given)
        order = None if layout is None else layout_text(layout)
        parts = lowering.timed(self._program, call, head_dim, order)
        return backends.predict(parts, head_dim, machine, heads=call.heads, batch=call.batch)

    def running(
        self,
        q_len: int,
        k_len: int | None = None,
        heads: int | None = None,
        *,
        head_dim: int = 64,
        layout: Layouts | None = None,
        device: str = "cpu",
        **given: Any,
    ) -> tuple[scheduling.Schedule, ...]:
        """The schedules that a call runs on such a device, "cpu" or "cuda", in tiles of its own choice.

        Like ``parts``, but "auto" uses the costs of that device. The default layout is that of such a call.
        """
        call = read_call(self._program, q_len, k_len, heads, **given)
        order = None if layout is None else layout_text(layout)
        return lowering.walked(self._program, call, head_dim, order, device)

    def draw(
        self,
        q_len: int,
        k_len: int | None = None,
        heads: int | None = None,
        *,
        head: int = 0,
        query: int | None = None,
        element: int = 0,
        **given: Any,
    ) -> str:
        """A picture in characters of what one head of one batch ``element`` sees; of one ``query``, on its grid.

        Larger and other pictures: ``attndsl.views``.

        Raises:
            AttnDslError: A4xx lengths and extents, A402 no such head, element or query, A501 inputs.
        """
        call = read_call(self._program, q_len, k_len, heads, **given)
        return picturing.draw(self._program, call, picturing.Choice(head, element, query))

    def picture(
        self,
        q_len: int,
        k_len: int | None = None,
        heads: int | None = None,
        *,
        head: int = 0,
        query: int | None = None,
        element: int = 0,
        tile: int | None = None,
        layout: Layouts = "natural",
        **given: Any,
    ) -> views.Sheet:
        """A picture to keep: ``.svg()``, ``.png()``, ``print`` it, or leave it to a notebook.

        Pair by pair; of one ``query`` alone on its own grid; or, with ``tile`` or a ``layout``, the
        tiles that are computed, natural order beside the layout, each part where it makes several.

        Args:
            q_len: How many queries.
            k_len: How many keys, where it differs.
            heads: How many heads.
            head: Which of them.
            query: What this one sees; counted from 0, or from the end.
            element: Which batch element.
            tile: Queries and keys of a tile; by default what makes some 32 tiles of a side.
            layout: The order of tokens, as in a call.
            **given: Batch, extents and inputs.

        Raises:
            AttnDslError: A4xx lengths, extents and layouts, A402 no such head, element or query, A501 inputs.
        """
        call = read_call(self._program, q_len, k_len, heads, **given)
        of, order = picturing.Choice(head, element, query), layout_text(layout)
        if tile is not None or order != "natural":
            return picturing.tiles(self._program, call, of, tile, order)
        return picturing.picture(self._program, call, of)

    def facts(
        self,
        q_len: int | None = None,
        k_len: int | None = None,
        heads: int | None = None,
        **given: Any,
    ) -> dict[str, claims.FactValue]:
        """Properties of the pattern: for every length, or exactly at one.

        Without a length each fact is proved for all lengths, false at some, or not decided; ``reach``
        bounds how far a query sees. With one nothing is left undecided, and three entries say more:
        ``rows_without_keys``, ``reach`` and ``classes``, the connected components of the tokens.
        Every value prints as a phrase.

        Raises:
            AttnDslError: A4xx lengths and extents, A501 inputs.
        """
        if q_len is None:
            check_open(given)
            return claims.facts(self._program.mask, self._program.normal, self._program.layer)
        call = read_call(self._program, q_len, k_len, heads, **given)
        check_plain_order(call)
        return claims.facts_at(self._program.mask, call, self._program.schedule(call, (128, 128)))

    def claims(
        self,
        q_len: int | None = None,
        k_len: int | None = None,
        heads: int | None = None,
        **given: Any,
    ) -> tuple[claims.Judgement, ...]:
        """Outcomes of the ``assert`` clauses beside the pattern, in order.

        Without a length each is proved for all lengths, refuted by an example, or checked on every call
        of up to some tens of tokens. With one it is judged at that call, over all its pairs. A pattern
        that was saved, or built in Python, has none.

        Raises:
            AttnDslError: A4xx lengths and extents, A501 inputs.
        """
        if q_len is None:
            check_open(given)
            return claims.judge(self._program.mask, self._program.layer)
        call = read_call(self._program, q_len, k_len, heads, **given)
        check_plain_order(call)
        if call.model_heads is not None:
            title = "what is asserted is asserted of the whole model, not of some of its heads"
            raise AttnDslError(Diagnostic("A402", title))
        return claims.judge_at(self._program.mask, call)

    def receptive_field(
        self,
        length: int,
        token: int,
        layers: int = 1,
        heads: int | None = None,
        **given: Any,
    ) -> Tensor:
        """The tokens that one token's output depends on after so many layers, bool [length].

        Exact for each token, and cheap: it walks over live tiles, not over pairs. Heads act together,
        and a token keeps what it has (the residual connection). Inputs: those of batch element 0.

        Raises:
            AttnDslError: A4xx lengths and extents, A501 inputs.
        """
        if not 0 <= token < length:
            title = f"there is no token {token} among {length}"
            raise AttnDslError(Diagnostic("A402", title))
        call = read_call(self._program, length, length, heads, **given)
        check_plain_order(call)
        graph = claims.TokenGraph(self._program.schedule(call, (128, 128)))
        return torch.from_numpy(graph.receptive_field(token, layers))

    def explain(
        self,
        q_len: int,
        k_len: int | None = None,
        heads: int | None = None,
        *,
        head_dim: int = 64,
        machine: backends.Machine = backends.REFERENCE,
        **given: Any,
    ) -> str:
        """The pattern as the compiler sees it: passes, facts, tiles, orders of tokens, exact work, advice.

        Times on a CPU are predicted for ``machine``, as ``predict`` does.
        """
        call = read_call(self._program, q_len, k_len, heads, **given)
        return str(explaining.explanation(self._program, call, head_dim, machine, self._origin))

    def explanation(
        self,
        q_len: int,
        k_len: int | None = None,
        heads: int | None = None,
        *,
        head_dim: int = 64,
        machine: backends.Machine = backends.REFERENCE,
        **given: Any,
    ) -> views.Explanation:
        """The value that ``explain`` prints; its ``record()`` is plain data, for tools."""
        call = read_call(self._program, q_len, k_len, heads, **given)
        return explaining.explanation(self._program, call, head_dim, machine, self._origin)
