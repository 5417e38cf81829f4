"""Actions that wait until somebody imports a module, without importing it for that."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # the package imports this module first, and costs nothing
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


def after_import(module: str, act: Callable[[], object]) -> None:
    """Runs ``act`` now if the module is imported, else at the end of its import, if it ever is."""
    if module in sys.modules:
        act()
    else:
        sys.meta_path.insert(0, _Waiting(module, act))


class _Waiting(NamedTuple):
    """A finder that finds one module, once, where all others find it."""

    module: str
    act: Callable[[], object]

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if name != self.module:
            return None
        from importlib.util import find_spec

        sys.meta_path.remove(self)
        spec = find_spec(name)
        loader = None if spec is None else spec.loader
        if loader is not None:
            run = loader.exec_module

            def exec_module(made: ModuleType) -> None:
                del loader.exec_module  # the loader may be that of other modules, too
                run(made)
                self.act()

            with suppress(AttributeError):  # of a loader that takes no attributes
                setattr(loader, "exec_module", exec_module)  # noqa: B010
        return spec
