"""Results kept within a process: so many, of so many bytes, the oldest gone first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")

LARGEST_HELD: Final = 96 << 20  # bytes of the arrays that the results of one memo hold


def bytes_of(value: Any) -> int:
    """The ``nbytes`` of a result or, in a tuple, of its items; 0 of what has none."""
    if isinstance(value, tuple):
        return sum(map(bytes_of, value))
    return int(getattr(value, "nbytes", 0))


class Memo:
    """Results of pure functions, by key: the last ones that were asked for, safe with threads.

    The last one stays, whatever it weighs; what weighs nothing gives way to numbers alone.
    """

    def __init__(
        self, most: int, heaviest: int | None = None, weigh: Callable[[Any], int] = bytes_of
    ) -> None:
        """``most``: how many results. ``heaviest``: their weights together, by default ``LARGEST_HELD``."""
        self._most = most
        self._heaviest = LARGEST_HELD if heaviest is None else heaviest
        self._weigh = weigh
        self._found: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    def __call__(self, key: Any, make: Callable[[], T]) -> T:
        """The result that is kept under the key, or that is made and kept from now on."""
        found: Any = self.get(key, self)  # None may be a result
        return self.keep(key, make()) if found is self else found  # type: ignore[no-any-return]

    def get(self, key: Any, default: Any = None) -> Any:
        """The result that is kept under the key."""
        with self._lock:
            if key not in self._found:
                return default
            self._found.move_to_end(key)
            return self._found[key][0]

    def keep(self, key: Any, made: T) -> T:
        """The first result that was kept under the key: this one, unless another thread was faster."""
        weight = self._weigh(made)
        with self._lock:
            if key in self._found:
                return self._found[key][0]  # type: ignore[no-any-return]
            self._found[key] = made, weight
            self._held += weight
            while len(self._found) > self._most:
                self._drop(next(iter(self._found)))
            if self._held > self._heaviest:
                for old in [old for old, (_, held) in self._found.items() if held and old != key]:
                    self._drop(old)
                    if self._held <= self._heaviest:
                        break
        return made

    def replace(self, key: Any, made: T) -> T:
        """This result, kept under the key from now on."""
        with self._lock:
            if key in self._found:
                self._drop(key)
        return self.keep(key, made)

    def _drop(self, key: Any) -> None:
        self._held -= self._found.pop(key)[1]
