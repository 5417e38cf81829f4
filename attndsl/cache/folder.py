"""A file for each entry. Many processes may read and write at once; whatever is wrong with the disk, callers go on.

An entry is replaced at once, never changed in place, and carries a hash of itself: one that was cut off or
spoiled is not there, and will be written anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

Key: TypeAlias = Mapping[str, str | int]

VARIABLE: Final = "ATTNDSL_CACHE_DIR"
_LONGEST = 1 << 20  # bytes; nothing that is kept comes near


def location() -> Path | None:
    """The folder: ``ATTNDSL_CACHE_DIR``, else ``attndsl`` in the user's cache. None: nothing is kept.

    An empty ``ATTNDSL_CACHE_DIR`` turns the cache off.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        return Path(chosen) if chosen else None
    general = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(general) if general else Path.home() / ".cache") / "attndsl"
    except RuntimeError:  # there is no home
        return None


def recall(kind: str, key: Key) -> Any:
    """The JSON value that was kept, or None: never kept, not readable, or spoiled."""
    path = _path(kind, key)
    if path is None:
        return None
    try:
        with path.open(encoding="utf-8") as file:
            entry = json.loads(file.read(_LONGEST))
        value = entry["value"]
        sound = entry["key"] == dict(key) and entry["check"] == _check(key, value)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return value if sound else None


def keep(kind: str, key: Key, value: object) -> bool:
    """Remember a JSON value; False if it cannot be kept: no folder, no permission, no room."""
    path = _path(kind, key)
    if path is None:
        return False
    text = json.dumps({"key": dict(key), "value": value, "check": _check(key, value)})
    draft = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number, draft = tempfile.mkstemp(dir=path.parent, suffix=".draft")
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
        Path(draft).replace(path)
    except OSError:
        if draft is not None:
            with contextlib.suppress(OSError):
                Path(draft).unlink()
        return False
    return True


def _path(kind: str, key: Key) -> Path | None:
    folder = location()
    return None if folder is None else folder / kind / f"{_digest(dict(key))}.json"


def _check(key: Key, value: object) -> str:
    return _digest([dict(key), value])


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
