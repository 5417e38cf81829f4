"""`attndsl show`: what a pattern or attention is, in words, in the language, and as a picture."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attndsl import frontend, ir, patterns, views
from attndsl.compiler import Program
from attndsl.program_arguments import read_switches

from . import arguments as args
from .commands import Command, mistake
from .subjects import (
    Setting,
    Subject,
    entry_name,
    example_setting,
    literal,
    part_of,
    setting,
    subject,
)
from .terminal import FAINT, Terminal

MOST_PAIRS = 1 << 26  # of a dense mask: 64 MB
MOST_RUNS = 8  # of keys that are spelled out


def configure(parser: argparse.ArgumentParser) -> None:
    args.add_pattern(parser)
    args.add_call(parser)
    group = parser.add_argument_group("the picture")
    number = args.whole(0)
    group.add_argument(
        "--part", type=number, metavar="N", default=0, help="which part of an attention; default 0"
    )
    group.add_argument("--head", type=number, metavar="H", default=0, help="which head; default 0")
    group.add_argument(
        "--element", type=number, metavar="B", default=0, help="which batch element; default 0"
    )
    group.add_argument("--query", type=number, metavar="Q", help="what this one query sees")
    group.add_argument(
        "--tiles", type=args.whole(1), metavar="T",
        help="the tiles of T by T that a kernel computes, instead of pairs; for any length. With"
        " another layout, before and after",
    )  # fmt: skip
    args.add_layout(group, "natural")
    group.add_argument("--png", type=Path, metavar="FILE", help="write the picture as PNG")
    group.add_argument("--svg", type=Path, metavar="FILE", help="write it with rulers and a legend")
    group.add_argument("--ascii", action="store_true", help="draw with ASCII characters only")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    if patterns.is_helper(options.pattern):
        tell_helper(patterns.describe(options.pattern), terminal)
        return 0
    about = subject(options, by_example=True)
    mask = part_of(about, options.part)
    call = example_setting(about.example) if about.example else setting(mask, options)
    program = Program(mask, options.layer, read_switches(options.without))
    drawn = draw(program, mask, call, options, terminal)
    written = _write(drawn.sheet, options)  # before a word is said: its reader may leave early
    tell(about, call, terminal)
    of_parts = f", part {options.part} of {len(about.masks)}" if len(about.masks) > 1 else ""
    terminal.head(drawn.title + of_parts)
    terminal.picture(drawn.text, drawn.inks)
    if drawn.rows:
        terminal.say("\n" + "\n".join(drawn.rows))
    for path in written:
        terminal.say(f"wrote {path}")
    return 0


# ---------------------------------------------------------------------------- words


def tell_helper(declared: frontend.Signature, terminal: Terminal) -> None:
    """The documentation and the definition of a helper, of which there is no picture."""
    terminal.say(f"{declared}  {terminal.paint(FAINT, str(declared.span))}")
    terminal.say()
    terminal.prose(declared.doc)
    terminal.head("definition")
    terminal.code(declared.span.text)
    said = "a helper definition: patterns call it; there is nothing to draw"
    terminal.say(f"\n{terminal.paint(FAINT, said)}")


def tell(about: Subject, call: Setting, terminal: Terminal) -> None:
    """The documentation, the definition, and everything it takes."""
    declared, where = about.signature, about.signature.span
    terminal.say(f"{declared.name}  {terminal.paint(FAINT, str(where))}")
    if (name := entry_name(about.source)) is not None:
        _tell_entry(patterns.entry(name), terminal)
    elif about.source in patterns.selections():
        _tell_entry(patterns.selection(about.source), terminal)
    elif declared.doc:
        terminal.say()
        terminal.prose(declared.doc)
    terminal.head("definition")
    terminal.code(where.text)
    if declared.parameters:
        terminal.head("parameters")
        terminal.say("\n".join(_parameters(about)))
    if declared.constraints:
        terminal.say(f"  where {', '.join(declared.constraints)}")
    if about.inputs:
        terminal.head("inputs")
        terminal.say("\n".join(_inputs(about.inputs, call)))
    for title, space in _spaces(declared):
        terminal.head(title)
        terminal.say(f"  {_spelled(space, call)}")
    if about.attention is not None:
        terminal.head("what becomes of the scores, as a program")
        terminal.code(ir.show_attention(about.attention))
        return
    terminal.head("a query sees the keys for which")
    terminal.prose(ir.show(about.mask.root))
    if about.mask.zeros is not ir.ZERO:
        terminal.head("and so many zero keys")
        terminal.prose(ir.show(about.mask.zeros))


def _tell_entry(entry: patterns.Entry, terminal: Terminal) -> None:
    """Prints the fields of a library entry, or of a published selection, which need not have a row."""
    terminal.say()
    terminal.prose(entry.summary)
    terminal.say()
    fields = {
        "paper": f"{entry.title} (row {entry.row} of the catalogue)" if entry.row else "",
        "source": entry.source,
        "reading": entry.reading,
        "edges": entry.edges,
        "part": entry.part,
        "missing": entry.missing,
    }
    for name, text in fields.items():
        if text:
            terminal.item(name, text)


def _parameters(about: Subject) -> Iterator[str]:
    for each in about.signature.parameters:
        value = about.values.get(each.name)
        remark = f"; here {literal(value)}" if value is not None else ""
        if each.name in about.chosen:
            why = "as in its example" if about.example else "chosen for this picture"
            remark += f", {why}: set it with -p {each.name}=..."
        default = "no default" if each.default is None else f"default {each.default}"
        yield f"  {each.name}: {each.kind}, {default}{remark}"


def _inputs(tables: Sequence[ir.Table], call: Setting) -> Iterator[str]:
    for table in tables:
        kind = "list" if table.is_list else table.kind.value
        text = f"  {table.name}: {kind}[{', '.join(map(str, table.dims))}]"
        if table.name in call.made_up:
            words = call.made_up[table.name]
            text += f", made up here: {words}; give yours with --input {table.name}=FILE.npy"
        yield text


def _spaces(declared: frontend.Signature) -> Iterator[tuple[str, ir.Space]]:
    if declared.queries != declared.keys:
        yield "queries live in", declared.queries
        yield "keys live in", declared.keys
    elif declared.keys.segments:
        yield "positions live in", declared.keys


def _spelled(space: ir.Space, call: Setting) -> str:
    """`captioned = caption(n=12) ++ image(y=12, x=12)`."""
    parts = [
        f"{segment.name}({', '.join(_axis(segment, axis, call.extents) for axis in segment.axes)})"
        for segment in space.segments
    ]
    body = " ++ ".join(parts)
    return (
        body
        if [segment.name for segment in space.segments] == [space.name]
        else f"{space.name} = {body}"
    )


def _axis(segment: ir.Segment, axis: ir.Axis, sizes: dict[str, int]) -> str:
    size = axis.extent or sizes.get(f"{segment.name}.{axis.name}", sizes.get(axis.name))
    return axis.name if size is None else f"{axis.name}={size}"


# ---------------------------------------------------------------------------- pictures


@dataclass(frozen=True)
class _Drawn:
    """A picture: for files, and in characters under a title, with rows of words below it."""

    sheet: views.Sheet
    title: str
    text: str
    inks: tuple[views.Ink, ...]
    rows: tuple[str, ...] = ()


def draw(
    program: Program, mask: ir.Mask, call: Setting, options: argparse.Namespace, terminal: Terminal
) -> _Drawn:
    """The picture of tiles, of one query, or of all pairs.

    Raises:
        AttnDslError: A602, there is no such head or query, or there are too many pairs.
    """
    if options.head >= call.heads:
        title = f"there is no head {options.head}: the call has {call.heads}"
        raise mistake("A602", title, helps=(f"give `--heads {options.head + 1}` too",))
    if options.element >= call.batch:
        title = f"there is no batch element {options.element}: the call has {call.batch}"
        raise mistake("A602", title, helps=(f"give `--batch {options.element + 1}` too",))
    charset = views.Charset.ASCII if options.ascii else terminal.charset
    width = max(16, terminal.width - 10)
    which = f", head {options.head} of {call.heads}" if call.heads > 1 else ""
    which += f", batch element {options.element} of {call.batch}" if call.batch > 1 else ""
    if options.tiles or options.layout != "natural":
        sheet = _tiles(program, mask, call, options, most=512)
        small = _tiles(program, mask, call, options, most=width // 2)
        text = small.text(terminal.width - 2, charset)
        return _Drawn(sheet, f"tiles{which}", text, small.inks)
    pairs = _pairs(program, call, options)
    counts = program.zero_keys(call.call(program))
    zeros = 0
    if counts is not None:
        zeros = counts[options.element % counts.shape[0], options.head % counts.shape[1]]
    if options.query is None:
        sheet = views.Sheet((views.picture_mask(pairs, title=mask.name),))
        title, text = f"mask{which}", views.draw_mask(pairs, width=width, charset=charset)
    else:
        sheet = _view(mask, program, call, pairs, options.query)
        title = f"query {options.query} of {call.q_len}{which}"
        text = sheet.text(terminal.width - 2, charset)
    return _Drawn(sheet, title, text, sheet.inks, tuple(_rows(pairs, zeros, options.query)))


def _tiles(
    program: Program, mask: ir.Mask, call: Setting, options: argparse.Namespace, most: int
) -> views.Sheet:
    """The tiles in natural order, and beside them those of another order."""
    asked = call.call(program)
    side = options.tiles or views.fitting_tile(max(call.q_len, call.k_len))
    natural = program.schedule(asked, (side, side))
    parts = program.tiled(asked, options.layout, (side, side))
    made = [part.schedules[side, side] for part in parts]
    shown = options.head, options.element
    return views.sheet_of_tiles(natural, made, *shown, most=most, title=mask.name)


def _pairs(program: Program, call: Setting, options: argparse.Namespace) -> Any:
    """The dense mask of one head of one batch element, bool [q, k]."""
    if call.q_len * call.k_len * call.heads * call.batch > MOST_PAIRS:
        title = f"{call.q_len:,} queries by {call.k_len:,} keys are too many to draw pair by pair"
        raise mistake("A602", title, helps=("`--tiles 128` draws tiles, at any length",))
    return program.dense(call.call(program))[options.element, options.head]


def _view(mask: ir.Mask, program: Program, call: Setting, pairs: Any, query: int) -> views.Sheet:
    """The keys of one query, each segment on its grid."""
    if query >= call.q_len:
        title = f"there is no query {query}: the call has {call.q_len}, counted from 0"
        raise mistake("A602", title)
    position = query + mask.shift(call.q_len, call.k_len)
    own = position if not mask.is_rectangular and 0 <= position < call.k_len else None
    sizes, title = call.call(program).sizes, f"{mask.name}, query {query}"
    return views.Sheet(views.picture_query(pairs[query], mask.keys, sizes, own, title=title))


def _rows(pairs: Any, zeros: Any, query: int | None) -> Iterator[str]:
    """Exactly which keys the first, the middle and the last query see, or the one asked for."""
    count = len(pairs)
    zeros = np.broadcast_to(zeros, count)
    for row in sorted({0, count // 2, count - 1}) if query is None else [query]:
        keys = np.flatnonzero(pairs[row])
        sees = _some(len(keys), "key") + (f": {runs(keys)}" if len(keys) else "")
        sees += f"; and {_some(zeros[row], 'zero key')}" if zeros[row] else ""
        yield f"  query {row} sees {sees}"


def _some(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def runs(keys: Any) -> str:
    """`0..3, 17, 20..22`: both ends included."""
    parts = np.split(keys, np.flatnonzero(np.diff(keys) != 1) + 1)
    spelled = [f"{run[0]}..{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in parts]
    rest = len(spelled) - MOST_RUNS
    return ", ".join(spelled[:MOST_RUNS]) + (f", ... and {rest} runs more" if rest > 0 else "")


def _write(sheet: views.Sheet, options: argparse.Namespace) -> list[Path]:
    """Writes the files that were asked for, and returns their paths."""
    if options.png is not None:
        args.write(options.png, sheet.png(), options)
    if options.svg is not None:
        args.write(options.svg, sheet.svg().encode(), options)
    return [path for path in (options.png, options.svg) if path is not None]


COMMAND = Command(
    (
        "attndsl show longformer -p w=3 -p g=2",
        "attndsl show gemma2 -p c=2.5 -p w=8",
        "attndsl show swin --extents y=14,x=14 --query 90",
        "attndsl show 'causal and (q - k < 8 or k % 8 == 7)' --q-len 48",
        "attndsl show mine.attn:local --q-len 100_000 --tiles 1024 --svg local.svg",
        "attndsl show strided -p s=32 --q-len 1024 --layout auto --svg strided.svg",
        "attndsl show documents --input doc=ids.npy --png documents.png",
    ),
    configure,
    run,
)
