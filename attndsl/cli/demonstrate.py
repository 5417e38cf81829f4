"""`attndsl demo`: from a pattern file to a trained model; the story itself is `attndsl.demo`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import arguments as args
from .commands import Command, mistake
from .terminal import Terminal


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seconds", type=args.seconds, default=90.0, metavar="S",
        help="how long each of the two models trains; default 90",
    )  # fmt: skip
    parser.add_argument(
        "--context", type=args.whole(64, 1 << 16), default=4096, metavar="N",
        help="bytes that a model reads at once; default 4096",
    )  # fmt: skip
    parser.add_argument(
        "--verify-seconds", type=args.seconds, default=10.0, metavar="S", help="default 10"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), metavar="FOLDER", help="default demo-out"
    )
    parser.add_argument(
        "--choose", action="store_true",
        help="with blocks that are chosen from q and k, as MoBA does, in place of a window",
    )  # fmt: skip
    parser.add_argument("--seed", type=args.whole(0, 1 << 31), default=0, metavar="N")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    if "torch" not in sys.modules:
        # Threads that wait for each other sleep: on a machine with other work, spinning ones are
        # many times slower. Read once, when torch loads its threads.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from attndsl import demo

    try:
        with terminal.progress("demo") as progress:
            found = demo.run(
                options.out,
                seconds=options.seconds,
                verify_seconds=options.verify_seconds,
                context=options.context,
                seed=options.seed,
                choose=options.choose,
                say=terminal.say,
                progress=progress,
            )
    except OSError as error:
        raise mistake("A603", f"cannot write to {options.out}: {error.strerror}") from None
    return 0 if found["verified"] else 1


COMMAND = Command(
    ("attndsl demo", "attndsl demo --seconds 20 --out /tmp/demo"),
    configure,
    run,
    "Takes about four minutes on two cores. A byte-level language model reads Python's own library\n"
    "within the pattern; its twin attends to everything. Leaves the pattern, the figures (JSON) and\n"
    "a plot of both losses in the folder.",
)
