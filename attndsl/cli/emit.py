"""`attndsl emit`: a pattern as one stand-alone file of Triton."""

from __future__ import annotations

import argparse
from pathlib import Path

from attndsl import emission
from attndsl.source import AttnDslError, Diagnostic
from attndsl.sources import describe, is_attention, read_mask

from . import arguments as args
from .commands import Command
from .subjects import spelled
from .terminal import Terminal


def configure(parser: argparse.ArgumentParser) -> None:
    args.add_pattern(parser)
    parser.add_argument(
        "--layer", type=args.whole(0, 1 << 20), metavar="N", default=0, help="default 0"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: print it")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    source, given = options.pattern, args.parameters(options.param)
    if is_attention(source, None):
        title = f"{source} is an attention: patterns alone are emitted"
        helps = ("`device_functions` of it gives the functions of its scores that kernels call",)
        raise AttnDslError(Diagnostic("A520", title, helps=helps))
    mask = read_mask(source, None, given, options.align, options.layer)
    written = describe(source).span.text
    values = f"\n\n{mask.name}{spelled(given)}" if given else ""
    text = emission.emit(mask, options.layer, definition=written + values)
    if options.output is None:
        terminal.say_exactly(text)
    else:
        args.write(options.output, text.encode(), options)
        terminal.say(f"wrote {options.output}")
    return 0


COMMAND = Command(
    (
        "attndsl emit longformer -p w=512 -o longformer_attention.py",
        "attndsl emit mine.attn:local -o local.py",
        "attndsl emit documents_causal",
    ),
    configure,
    run,
)
