"""One instance per implementation and process, for parts that cannot be had twice.

Law: the key is the implementation, so a changed choice never hands out an instance of the old one, and a forked child
makes its own. Asking with other arguments is an error, not the old instance.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from bema.parts.errors import FactoryError

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Shared:
    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._made: dict[type, tuple[Any, Arguments]] = {}

    def get(self, implementation: type, arguments: Arguments, make: Callable[[], Any]) -> Any:
        """The instance of `implementation`, from `make` the first time."""
        # a forked child has its parent's table and, it may be, its parent's locked lock
        if os.getpid() != self._pid:
            self._renew()
        with self._lock:
            if implementation not in self._made:
                self._made[implementation] = (make(), arguments)
            instance, before = self._made[implementation]
        if before != arguments:
            raise FactoryError(
                f"the shared {implementation.__qualname__} was made with other arguments: {_shown(before)}",
                fix="Ask with the same arguments, or make an instance of your own with create_instance.",
                code="construction_failed",
            )
        return instance


def _shown(arguments: Arguments) -> str:
    positional, named = arguments
    return ", ".join([*map(repr, positional), *(f"{name}={value!r}" for name, value in named.items())]) or "none"
