"""`attndsl emit`: a pattern or an attention as one stand-alone file of Triton."""

from __future__ import annotations

import argparse
from pathlib import Path

from attndsl import emission, ir
from attndsl.source import AttnDslError, Diagnostic
from attndsl.sources import describe, is_attention, read_attention, read_mask

from . import arguments as args
from .commands import Command
from .subjects import spelled
from .terminal import Terminal


def configure(parser: argparse.ArgumentParser) -> None:
    args.add_pattern(parser)
    parser.add_argument(
        "--layer", type=args.whole(0, 1 << 20), metavar="N", default=0, help="default 0"
    )
    parser.add_argument(
        "--dropout", type=args.share, metavar="P", default=0.0, help="of an attention: drop weights"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: print it")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    source, given = options.pattern, args.parameters(options.param)
    asked = source, None, given, options.align, options.layer
    read = read_attention(*asked) if is_attention(source, None) else read_mask(*asked)
    values = f"\n\n{read.name}{spelled(given)}" if given else ""
    written = describe(source).span.text + values
    if isinstance(read, ir.Mask):
        if options.dropout:
            title = f"--dropout drops weights of attentions, and {read.name} is a pattern"
            raise AttnDslError(Diagnostic("A602", title))
        text = emission.emit(read, options.layer, definition=written)
    else:
        text = emission.emit_attention(
            read, options.layer, definition=written, dropout_p=options.dropout
        )
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
        "attndsl emit alibi",
    ),
    configure,
    run,
)
