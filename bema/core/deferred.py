"""Deferred: a module that is imported when something of it is first used, because most processes never use it.

Law: who defers a module imports it for type checkers too, under the same name, so that the contracts of the rooms and the
checker see what they would see of any import:

    if TYPE_CHECKING:
        from bema.core import describe
    else:  # schemas are for who asks
        describe = deferred("bema.core.describe")
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class _Deferred:
    """Stands for a module, and imports it with the first attribute that is asked for."""

    __slots__ = ("_module", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._module: ModuleType | None = None

    def __getattr__(self, attribute: str) -> Any:
        # whoever looks through the globals of a module, as `inspect` does, asks for these, and uses nothing
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        if self._module is None:
            self._module = importlib.import_module(self._name)
        return getattr(self._module, attribute)

    def __repr__(self) -> str:
        return f"<deferred {self._name}>"


def deferred(name: str) -> Any:
    """What stands for the module of that full name. `ImportError` comes with the first use, not here."""
    return _Deferred(name)
