"""Files are written whole or not at all, and only files are read. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path
from typing import BinaryIO, Final

_BINARY: Final = getattr(os, "O_BINARY", 0)  # on Windows
_WITHOUT_WAITING: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY
_UNUSED: Final = os.O_CREAT | os.O_EXCL | os.O_WRONLY | _BINARY


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a regular file for reading bytes. Never waits: a named pipe without a writer is refused.

    Raises:
        OSError: there is none, it may not be read, or it is no regular file.
    """
    number = os.open(path, _WITHOUT_WAITING)
    mode = os.fstat(number).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(number, "rb")
    os.close(number)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", os.fspath(path))


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file that a user asked for. A write that fails leaves what was there before.

    A link is followed, the file it leads to keeps its permissions; a device or a pipe is written to.

    Raises:
        OSError: it cannot be written.
    """
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        replace_file(os.path.realpath(path), data)
        return
    if stat.S_ISREG(mode):
        replace_file(os.path.realpath(path), data, stat.S_IMODE(mode))
    else:
        Path(path).write_bytes(data)


def replace_file(path: str | os.PathLike[str], data: bytes, mode: int | None = None) -> None:
    """Puts a file with this content at ``path``, at once: readers see the old one or the new one.

    An existing file or link at the path is replaced, never written to. The new file is written
    beside it under a name of its own, which is gone if anything fails.

    Args:
        path: Where; its folder is there.
        data: All of it.
        mode: Permission bits; by default those of any new file.

    Raises:
        OSError: it cannot be written.
    """
    target = Path(path)
    draft = target.with_name(f".{secrets.token_hex(8)}.draft")
    number = os.open(draft, _UNUSED, 0o666 if mode is None else 0o600)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
        if mode is not None:
            draft.chmod(mode)
        draft.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
