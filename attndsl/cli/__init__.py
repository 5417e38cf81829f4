"""Floor 9: the command line. Each command is a file of its own, which reads its arguments and calls doors.

`main` runs `attndsl ARGV` and gives its exit status: 0 fine, 1 a check failed, 2 a mistake of the user,
3 not decided.
"""

from __future__ import annotations

from collections.abc import Sequence

_INTERRUPTED = 130  # what shells give a program that Ctrl-C ended


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``attndsl ARGV``.

    Returns:
        The exit status: 0 fine, 1 a check failed, 2 a mistake of the user, explained on stderr,
        3 nothing failed but an assert could not be decided, 130 interrupted.
    """
    try:
        from .running import run  # loads half of the package, and may be interrupted already

        return run(argv)
    except KeyboardInterrupt:
        return _INTERRUPTED


__all__ = ["main"]
