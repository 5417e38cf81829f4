"""The command line: each command reads its arguments and calls one door."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from attndsl import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``attndsl ARGV``; the result is the exit status."""
    parser = _parser()
    parser.parse_args(argv)
    parser.print_help()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attndsl", description="A compiler for attention patterns."
    )
    parser.add_argument("--version", action="version", version=f"attndsl {__version__}")
    return parser
