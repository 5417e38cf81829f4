"""`attndsl explain`: a pattern or attention as the compiler sees it, or what an error code means."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from attndsl import ir, passes

from . import arguments as args
from .commands import Command, did_you_mean, mistake
from .manual import codes, entry
from .subjects import LARGE, Subject, setting, subject
from .terminal import Terminal, wrapped

CODE = re.compile(r"[Aa][0-9]{3}")


def configure(parser: argparse.ArgumentParser) -> None:
    args.add_pattern(parser)
    args.add_call(parser)
    parser.add_argument(
        "--head-dim", type=args.whole(1, 1 << 16), metavar="D", default=64, help="default 64"
    )
    parser.add_argument(
        "--this-cpu",
        action="store_true",
        help="predict times for this machine, measured in half a second, not for a reference core",
    )
    parser.add_argument("--json", action="store_true", help="the same for tools")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    if CODE.fullmatch(options.pattern):
        return _code(options.pattern.upper(), terminal)
    about = subject(options)
    if about.attention is None:
        return _pattern(about, options, terminal)
    return _attention(about, about.attention, options, terminal)


def _code(code: str, terminal: Terminal) -> int:
    found = entry(code)
    if found is None:
        helps = (did_you_mean(code, codes()),)
        raise mistake("A602", f"there is no error {code}", helps=helps)
    terminal.say(found)
    return 0


def _pattern(about: Subject, options: argparse.Namespace, terminal: Terminal) -> int:
    explanation, record = _explained(about, about.mask, options, terminal)
    terminal.say(json.dumps(record, indent=2) if options.json else explanation)
    return 0


def _attention(
    about: Subject, attention: ir.Attention, options: argparse.Namespace, terminal: Terminal
) -> int:
    """The text, the derivatives of every score, and the pattern of every part."""
    text = ir.show_attention(attention)
    parts = [part for term in attention.terms for part in term.parts]
    found = [_explained(about, part.mask, options, terminal) for part in parts]
    slopes = [
        {ir.show(leaf): ir.show(slope) for leaf, slope in passes.differentiate(part.score).items()}
        for part in parts
    ]
    if options.json:
        records = [
            record | {"derivatives": by_leaf}
            for (_, record), by_leaf in zip(found, slopes, strict=True)
        ]
        whole = {"attention": attention.name, "program": text, "digest": attention.digest}
        terminal.say(json.dumps(whole | {"parts": records}, indent=2))
        return 0
    terminal.code(text, "")
    for number, ((explanation, _), by_leaf) in enumerate(zip(found, slopes, strict=True)):
        terminal.head(f"part {number} of {len(parts)}: the score changes by")
        terminal.say("\n".join(f"  {slope}  per {leaf}" for leaf, slope in by_leaf.items()))
        terminal.head(f"part {number} of {len(parts)}: its pattern")
        terminal.say(explanation)
    return 0


def _explained(
    about: Subject, mask: ir.Mask, options: argparse.Namespace, terminal: Terminal
) -> tuple[str, dict[str, Any]]:
    """A pattern at the call of the options, in words and as plain data."""
    from attndsl.backends import REFERENCE, this_machine  # torch: half the commands do without
    from attndsl.compiled import Pattern
    from attndsl.explaining import Origin

    call = setting(mask, options, LARGE)
    is_alone = about.attention is None
    origin = Origin(about.source, None, about.values, options.align) if is_alone else None
    pattern = Pattern(mask, options.layer, options.without, origin)
    for name, value in about.chosen.items():
        terminal.warn(f"{name} = {value} was chosen here; set it with -p {name}=...")
    for name, words in call.made_up.items():
        terminal.warn(f"{name} was made up here: {words}; give yours with --input {name}=FILE.npy")
    lengths = (call.q_len, call.k_len, call.heads)
    explanation = pattern.explanation(
        *lengths,
        head_dim=options.head_dim,
        batch=call.batch,
        machine=this_machine() if options.this_cpu else REFERENCE,
        extents=call.extents,
        inputs=call.inputs,
    )
    record = explanation.record() | {"digest": pattern.digest, "extents": call.extents}
    return "\n".join(wrapped(str(explanation), terminal.width)), record


COMMAND = Command(
    (
        "attndsl explain longformer --q-len 65536",
        "attndsl explain swin -p m=7 --extents y=56,x=56 --heads 8 --json",
        "attndsl explain mine.attn -p w=128",
        "attndsl explain A203",
    ),
    configure,
    run,
)
