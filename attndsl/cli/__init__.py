"""Floor 9: the command line. Each command is a file of its own, which reads its arguments and calls doors.

`main` runs `attndsl ARGV` and gives its exit status: 0 fine, 1 a check failed, 2 a mistake of the user.
"""

from .running import main

__all__ = ["main"]
