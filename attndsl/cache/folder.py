"""A file for each entry. Many processes may read and write at once; whatever is wrong with the disk, callers go on.

An entry is replaced at once, never changed in place, and carries a hash of itself: one that was cut off or
spoiled is not there, and will be written anew.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import stat
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from attndsl.files import replace_file

Key: TypeAlias = Mapping[str, str | int]

VARIABLE: Final = "ATTNDSL_CACHE_DIR"
LARGEST: Final = 16 << 20  # bytes of an entry
MOST: Final = 2_048  # entries of a kind; beyond, the oldest give way
_CHECK = 16  # bytes


def location() -> Path | None:
    """The folder: ``ATTNDSL_CACHE_DIR``, else ``attndsl`` in the user's cache. None: nothing is kept.

    An empty ``ATTNDSL_CACHE_DIR`` turns the cache off. A folder of another user, or one that others can write
    to, is not used either, and a warning says so once: what is read from it is believed.
    """
    folder = _chosen()
    if folder is None or (danger := _danger(folder)) is None:
        return folder
    _warn(folder, danger)
    return None


def _danger(folder: Path) -> str | None:
    """Why what lies in a folder may not be the user's own, if so. A folder that is not there yet is made private."""
    if not hasattr(os, "getuid"):  # on Windows, where a home is private
        return None
    try:
        found = folder.stat()
    except OSError:
        return None
    if found.st_uid != os.getuid():
        return "it belongs to another user"
    return "others can write to it" if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else None


@functools.cache
def _warn(folder: Path, danger: str) -> None:
    text = f"attndsl keeps nothing in {folder}: {danger}; `chmod go-w` it, or set {VARIABLE}"
    warnings.warn(text, RuntimeWarning, stacklevel=4)


def _chosen() -> Path | None:
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        return Path(chosen) if chosen else None
    general = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:  # the rule of XDG: a relative path is none
        return (general if general.is_absolute() else Path.home() / ".cache") / "attndsl"
    except RuntimeError:  # there is no home
        return None


def recall(kind: str, key: Key) -> Any:
    """The JSON value that was kept, or None: never kept, not readable, or spoiled."""
    found = load_bytes(kind, key)
    try:
        return None if found is None else json.loads(found.decode())
    except (ValueError, RecursionError):
        return None


def keep(kind: str, key: Key, value: object) -> bool:
    """Remember a JSON value; False if it cannot be kept: no folder, no permission, no room."""
    return store_bytes(kind, key, json.dumps(value).encode())


def load_bytes(kind: str, key: Key) -> bytearray | None:
    """Loads bytes, like ``recall``."""
    path = _path(kind, key)
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            check, found = file.read(_CHECK), bytearray(file.read(LARGEST + 1))
    except OSError:
        return None
    return found if check == _check(key, found) else None


def store_bytes(kind: str, key: Key, value: bytes) -> bool:
    """Stores bytes, like ``keep``; returns False for more than ``LARGEST``."""
    path = _path(kind, key)
    if path is None or len(value) > LARGEST:
        return False
    try:
        path.parent.parent.mkdir(0o700, parents=True, exist_ok=True)
        path.parent.mkdir(0o700, exist_ok=True)
        replace_file(path, _check(key, value) + value, 0o600)
        _make_room(path.parent)
    except OSError:
        return False
    return True


def _make_room(folder: Path) -> None:
    """Without a quarter of the entries, the oldest, where there are too many."""
    with os.scandir(folder) as entries:
        found = list(entries)
    if len(found) <= MOST:
        return
    ages = []
    for entry in found:
        with contextlib.suppress(OSError):  # another process was faster
            ages.append((entry.stat().st_mtime_ns, entry.path))
    for _, path in sorted(ages)[: MOST // 4]:
        with contextlib.suppress(OSError):
            Path(path).unlink()


def _path(kind: str, key: Key) -> Path | None:
    folder = location()
    return None if folder is None else folder / kind / hashlib.blake2b(_text(key)).hexdigest()[:32]


def _check(key: Key, value: bytes | bytearray) -> bytes:
    """Checksum of the key and the value, so that an entry is valid under its own name only."""
    return hashlib.blake2b(_text(key) + b"\0" + value, digest_size=_CHECK).digest()


def _text(key: Key) -> bytes:
    return json.dumps(dict(key), sort_keys=True).encode()
