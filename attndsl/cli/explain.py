"""`attndsl explain`: a pattern as the compiler sees it, or what an error code means."""

from __future__ import annotations

import argparse
import json
import re

from . import arguments as args
from .manual import codes, entry
from .subjects import LARGE, setting, subject
from .terminal import Terminal

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
    return _pattern(options, terminal)


def _code(code: str, terminal: Terminal) -> int:
    found = entry(code)
    if found is None:
        helps = (args.did_you_mean(code, codes()),)
        raise args.mistake("A602", f"there is no error {code}", helps=helps)
    terminal.say(found)
    return 0


def _pattern(options: argparse.Namespace, terminal: Terminal) -> int:
    from attndsl.backends import REFERENCE, this_machine  # torch: half the commands do without
    from attndsl.compiled import Pattern
    from attndsl.explaining import Origin

    about = subject(options)
    call = setting(about.mask, options, LARGE)
    origin = Origin(about.source, None, about.values, options.align)
    pattern = Pattern(about.mask, options.layer, options.without, origin)
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
    if options.json:
        record = explanation.record() | {"digest": pattern.digest, "extents": call.extents}
        terminal.say(json.dumps(record, indent=2))
    else:
        terminal.say(str(explanation))
    return 0


COMMAND = args.Command(
    "explain",
    "a pattern as the compiler sees it: facts, tiles, work; or what an error code means",
    (
        "attndsl explain longformer --q-len 65536",
        "attndsl explain swin -p m=7 --extents y=56,x=56 --heads 8 --json",
        "attndsl explain mine.attn -p w=128",
        "attndsl explain A203",
    ),
    configure,
    run,
)
