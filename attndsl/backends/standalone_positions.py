"""Where the tokens and heads of a call stand: the pattern of its rows is that of the tokens, laid out in order.

Files that ``emit`` writes hold this text, so it asks for nothing else of the package but ``live_tiles``. Each batch
element is laid out by itself, and its pairs are evaluated at the positions of its rows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attndsl.backends.live_tiles import Pattern


@dataclass(frozen=True)
class Positions:
    """Where tokens and heads stand: integers, or tensors of them; None where a call says nothing.

    Args:
        q_start: The position of row 0 of q, for each batch element or for all.
        q_len: How many rows of q hold tokens, likewise.
        q_pos: The position of each row of q, [batch or 1, rows]; -1 for no token.
        k_start: As ``q_start``, of k and v.
        kv_len: As ``q_len``.
        k_pos: As ``q_pos``.
        head_start: Which head of the model is the first of q.
        heads: How many heads the model has.
    """

    q_start: Tensor | int | None = None
    q_len: Tensor | int | None = None
    q_pos: Tensor | None = None
    k_start: Tensor | int | None = None
    kv_len: Tensor | int | None = None
    k_pos: Tensor | None = None
    head_start: int = 0
    heads: int | None = None

    def values(self) -> tuple[Any, ...]:
        """All of it, in order."""
        return tuple(vars(self).values())

    def is_silent(self) -> bool:
        """Whether nothing of it is said."""
        return all(x is y for x, y in zip(self.values(), Positions().values(), strict=True))


@dataclass(frozen=True)
class Spaces:
    """Alignment, spaces and their sizes: the part of a pattern, and of the extents of a call, that positions need."""

    ends: bool  # whether the queries are the last tokens
    placed: bool  # whether the pattern asks where a query stands
    separate: bool  # whether queries lie in a space of their own
    q_tokens: int | None  # how many tokens the space has, where its extents say so
    k_tokens: int | None


@dataclass(frozen=True)
class Rows:
    """The rows of q, or those of k and v, of one batch element."""

    at: Tensor  # int64 [rows]: the position of each; 0 where there is no token
    exist: Tensor  # bool [rows]: whether it holds a token

    def tokens(self) -> Tensor:
        """The positions that there are, in the order of rows."""
        return self.at[self.exist]

    def end(self) -> int:
        """One past the last position; 0 without any."""
        found = self.tokens()
        return max(0, int(found.max()) + 1) if len(found) else 0


@dataclass(frozen=True)
class Side:
    """The rows of q, or of k and v, as a call tells: an entry for each batch element, or one for all."""

    count: int
    start: list[int] | None
    stop: list[int]
    at: Tensor | None
    device: torch.device

    @property
    def is_told(self) -> bool:
        """Whether it says where they stand."""
        return self.start is not None or self.at is not None

    @property
    def entries(self) -> int:
        """How many batch elements it tells apart."""
        return max(len(self.start or [0]), len(self.stop), 1 if self.at is None else len(self.at))

    def first(self, batch: int, default: int = 0) -> int:
        """The position of row 0, where they are one run."""
        return default if self.start is None else int(of_element(self.start, batch))

    def rows(self, batch: int, default: int = 0, negative: bool = False) -> Rows:
        """The rows of one batch element: from ``default`` on where nothing is said."""
        row = torch.arange(self.count, device=self.device)
        at = self.first(batch, default) + row if self.at is None else of_element(self.at, batch)
        exist = (row < of_element(self.stop, batch)) & ((at >= 0) | negative)
        return Rows(torch.where(exist, at, 0), exist)


@dataclass(frozen=True)
class Element:
    """One batch element of a call, or all of them where they stand alike."""

    batch: int | None  # which one; None: all
    q: Rows
    k: Rows
    q_len: int
    k_len: int
    first: int  # the position that entry 0 of an input over the queries is for
    shift: int | None  # how far row 0 of q stands ahead of that of k; None where they are no runs
    head_start: int
    held: int  # heads of q

    def laid_out(self, x: Tensor, kind: str, dims: Sequence[Any], shape: Sequence[Any]) -> Tensor:
        """An input as a call on the tokens alone would be given it; 0, and -1 in lists, where there is none."""
        for axis, (dim, size) in enumerate(zip(dims, shape, strict=True)):
            given = x.shape[axis]
            if dim == "batch":
                if self.batch is not None and given == size:
                    kept = x.narrow(axis, self.batch, 1)
                    x = kept.expand(*kept.shape[:axis], size, *kept.shape[axis + 1 :])
            elif dim == "head":
                if given == self.held < size:
                    places = torch.arange(given, device=x.device) + self.head_start
                    x = spread(x, axis, places, size, 0)
            elif dim in ("q", "k"):
                rows, first = (self.q, self.first) if dim == "q" else (self.k, 0)
                if given != len(rows.at):
                    raise ValueError(
                        f"an input has {given} entries for {len(rows.at)} rows of {dim}"
                    )
                kept = x.movedim(axis, 0)[rows.exist].movedim(0, axis)
                x = spread(kept, axis, rows.tokens() - first, size, -1 if kind == "list" else 0)
            elif isinstance(dim, str) and size is not None:
                x = x.narrow(axis, 0, min(size, given))
        return x

    def of_batch(self, batch: Tensor) -> Tensor:
        """The indices of its batch elements, among those of all."""
        return batch if self.batch is None else batch[self.batch : self.batch + 1]


def spread(x: Tensor, axis: int, places: Tensor, size: int, nothing: int) -> Tensor:
    """The entries of an axis at these places among ``size``, and nothing at others."""
    found = x.new_full((*x.shape[:axis], size, *x.shape[axis + 1 :]), nothing)
    inside = (places >= 0) & (places < size)
    return found.index_copy(axis, places[inside], x.movedim(axis, 0)[inside].movedim(0, axis))


def of_element(values: Any, batch: int) -> Any:
    """The entry of a batch element, among one for each or one for all."""
    return values[batch if len(values) > 1 else 0]


def judged(
    at: Element | None, batch: int, heads: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The batch elements and the heads for which inputs are judged, as they broadcast."""
    elements, of_model = torch.arange(batch, device=device), torch.arange(heads, device=device)
    if at is not None:
        elements = at.of_batch(elements)
        of_model = of_model[at.head_start : at.head_start + at.held]
    return elements[:, None], of_model


# ---------------------------------------------------------------------------- what a call says


def placed(
    positions: Positions | None,
    make: Callable[..., Pattern],
    sizes: tuple[int, int, int, int],
    device: torch.device,
    spaces: Spaces,
    most: tuple[int, int],
) -> Pattern:
    """The pattern of the rows of a call.

    Args:
        positions: Where they stand.
        make: ``make(q_len, k_len, batch, heads, device, at)``, the pattern of the tokens of an element.
        sizes: Rows of q and of k, batch elements, heads of q.
        device: Where it is computed.
        spaces: What the pattern says of positions.
        most: Positions are less than the first, heads no more than the second.
    """
    p, (q_rows, k_rows, batch, held) = positions or Positions(), sizes
    if p.is_silent():
        return make(*sizes, device)
    total = held if p.heads is None else p.heads
    if not 0 <= p.head_start <= total - held or total > most[1]:
        raise ValueError(f"{held} heads from head {p.head_start} on, of {total}: at most {most[1]}")
    of_q = {"q_start": p.q_start, "q_len": p.q_len, "q_pos": p.q_pos}
    of_k = {"k_start": p.k_start, "kv_len": p.kv_len, "k_pos": p.k_pos}
    q, k = (side(n, batch, device, most[0], of) for n, of in ((q_rows, of_q), (k_rows, of_k)))
    alike = max(q.entries, k.entries) == 1
    elements = [
        element(b, q, k, spaces, p.head_start, held, most[0]) for b in range(1 if alike else batch)
    ]
    if alike:
        elements = [replace(elements[0], batch=None)]
    patterns = [make(e.q_len, e.k_len, batch, total, device, e) for e in elements]
    return together(elements, patterns)


def stated(segments: list[list[int | None]]) -> int | None:
    """How many tokens a space has, by the extents of each segment; None where one is left open."""
    known = [[n for n in each if n is not None] for each in segments]
    return sum(map(math.prod, known)) if known == segments else None


def side(count: int, batch: int, device: torch.device, most: int, told: dict[str, Any]) -> Side:
    """Reads the arguments of one side: its start, its length and its positions outright."""
    start, stop, at = told
    if told[start] is not None and told[at] is not None:
        raise ValueError(f"positions are given twice: by {start} and by {at}")
    starts = integers(start, told[start], batch, -most, most)
    places = None if told[at] is None else torch.as_tensor(told[at])
    stops = integers(stop, told[stop], batch, 0, count)
    stops = [count] if stops is None else stops
    if places is not None:
        if places.dim() != 2 or places.shape[0] not in (1, batch) or places.shape[1] != count:
            raise ValueError(f"{at} needs the shape {[batch, count]}, not {list(places.shape)}")
        integers(at, places.flatten(), places.numel(), -1, most)
        held = torch.arange(count, device=device) < torch.tensor(stops, device=device)[:, None]
        places = torch.where(held, places.to(device), -1)
        ordered = places.sort(1)[0]
        if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
            raise ValueError(f"{at} gives one position to two rows")
    return Side(count, starts, stops, places, device)


def integers(name: str, value: Any, batch: int, least: int, most: int) -> list[int] | None:
    """An integer for each batch element, or one for all; None where nothing is said."""
    if value is None:
        return None
    x = torch.as_tensor(value)
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise ValueError(f"{name} holds {x.dtype}, not integers")
    if x.dim() > 1 or (x.dim() == 1 and len(x) not in (1, batch)):
        raise ValueError(f"{name} is a number, or one for each of the {batch} batch elements")
    found: list[int] = x.reshape(-1).tolist()
    if found and not least <= min(found) <= max(found) <= most:
        raise ValueError(f"{name} has numbers that are not from {least} to {most}")
    return found


def element(
    batch: int, q: Side, k: Side, spaces: Spaces, head_start: int, held: int, most: int
) -> Element:
    """One batch element: its rows, and the lengths of the call on its tokens."""
    keys = k.rows(batch)
    last, start = keys.end(), 0
    if q.is_told:
        queries = q.rows(batch)
        last = max(last, queries.end()) if spaces.ends else last
    else:
        start = last - of_element(q.stop, batch) if spaces.ends else 0
        queries = q.rows(batch, start, negative=not spaces.placed)
    k_len = length("keys", last, spaces.k_tokens)
    if spaces.ends:
        tokens = queries.tokens() if q.is_told else queries.at[:0]
        first = int(tokens.min()) if len(tokens) else k_len if q.is_told else start
        q_len = k_len - min(first, k_len)
    else:
        q_len = length("queries", queries.end(), spaces.q_tokens if spaces.separate else None)
    if max(q_len, k_len) >= most:
        raise ValueError(f"there are fewer than {most} tokens")
    runs = q.at is None and k.at is None
    shift = q.first(batch, start) - k.first(batch) if runs else None
    first = k_len - q_len if spaces.ends else 0
    return Element(batch, queries, keys, q_len, k_len, first, shift, head_start, held)


def length(word: str, last: int, tokens: int | None) -> int:
    """How many positions a side has: as many as extents state, or up to the last token."""
    if tokens is not None and last > tokens:
        raise ValueError(f"the {word} end at position {last - 1}, of {tokens} tokens")
    return last if tokens is None else tokens


# ---------------------------------------------------------------------------- the pattern of the rows


def together(elements: list[Element], patterns: list[Pattern]) -> Pattern:
    """The pattern of the rows, by those of the tokens of each element."""
    first, several = patterns[0], len(elements) > 1
    shifts = [e.shift for e in elements if e.shift is not None]
    low, high = (min(shifts), max(shifts)) if shifts else (0, 0)

    def of_all(ask: Callable[[Element, Pattern, Tensor], Tensor], batch: Tensor) -> Tensor:
        found = [ask(e, p, e.of_batch(batch)) for e, p in zip(elements, patterns, strict=True)]
        return torch.cat(found) if several else found[0]

    def sees(q: Tensor, k: Tensor, batch: Tensor, head: Tensor) -> Tensor:
        def ask(e: Element, p: Pattern, b: Tensor) -> Tensor:
            row, column = (x.clamp(max=len(y.at) - 1) for x, y in ((q - low, e.q), (k, e.k)))
            pairs = p.sees(e.q.at[row], e.k.at[column], b, head + e.head_start)
            return (pairs & e.q.exist[row] & e.k.exist[column]).expand(shape(b, head, row, column))

        return of_all(ask, batch)

    def zero_keys(q: Tensor, batch: Tensor, head: Tensor) -> Tensor:
        def ask(e: Element, p: Pattern, b: Tensor) -> Tensor:
            assert p.zero_keys is not None, "all elements have the same pattern"
            counts = p.zero_keys(e.q.at[q - low], b, head + e.head_start)
            return torch.where(e.q.exist[q - low], counts, 0).expand(shape(b, head, q))

        return of_all(ask, batch)

    reaches = [[getattr(p, name) for p in patterns] for name in ("back", "ahead")]
    back, ahead = (None if not shifts or None in each else max(each) for each in reaches)
    return Pattern(
        sees,
        len(elements[0].q.at),
        len(elements[0].k.at),
        len(elements) if several else first.batch,
        elements[0].held if first.heads > 1 else 1,
        first.device,
        low,
        back,
        None if ahead is None else ahead + high - low,
        None if first.zero_keys is None else zero_keys,
        existing([e.q.exist for e in elements]),
        existing([e.k.exist for e in elements]),
    )


def shape(*each: Tensor) -> torch.Size:
    """The shape that indices broadcast to."""
    found: torch.Size = torch.broadcast_shapes(*(x.shape for x in each))  # type: ignore[no-untyped-call]
    return found


def existing(rows: list[Tensor]) -> Tensor | None:
    """The rows that hold tokens, bool [batch or 1, rows]; None where all do."""
    found = torch.stack(rows)
    return None if found.all() else found
