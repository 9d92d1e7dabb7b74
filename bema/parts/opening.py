"""Opening: how a part is made from its class, in one way for every kind, and the shared instances.

Laws: a class with `open(settings)` is opened by it, and one without is called with no arguments. A class that allows neither
is refused when it is registered or loaded, not when it is needed. Where a kind is opened inside of a loop, `open` may be an
`async def`. There is one shared instance per implementation and process: a changed choice never hands out an instance of
the old one, a forked child makes its own, and asking with other arguments is an error.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable
from typing import Any, Literal

from bema.core.settings import PartSettings
from bema.parts.errors import FactoryError

Opens = Literal["", "plain", "waiting"]
"""How the parts of a factory are opened: by their callers, by a plain `open`, by one that may be awaited."""

FIX = "Give it `@classmethod def open(cls, settings)`, or a constructor that needs nothing."


def unopenable(implementation: type, opens: Opens) -> str:
    """Why it cannot be opened with settings; empty when it can."""
    name, way = implementation.__qualname__, inspect.getattr_static(implementation, "open", None)
    if way is None:
        if _has_no_constructor(implementation) or _takes(implementation, 0):
            return ""
        return f"{name} does not take settings: it has no open(settings), and its constructor needs arguments"
    if not isinstance(way, classmethod | staticmethod):
        return f"{name} does not take settings: its open is not a class method"
    if not _takes(getattr(implementation, "open"), 1):  # noqa: B009 - a class here, which has it
        return f"{name} does not take settings: its open cannot be called as open(settings)"
    if opens == "plain" and inspect.iscoroutinefunction(way.__func__):
        return f"{name}.open is async, and its kind is opened where nothing can wait: write a plain def"
    return ""


def fix_of(why: str) -> str | None:
    """What to do about a misfit, where it is one of these."""
    return FIX if "does not take settings" in why or "nothing can wait" in why else None


def opened(implementation: type, settings: PartSettings) -> Any:
    """An instance, or what is to be awaited for one."""
    way = getattr(implementation, "open", None)
    return implementation() if way is None else way(settings)


def _has_no_constructor(implementation: type) -> bool:
    # `inspect` reads the signature of object, which is written in C, by `tokenize`: compiling its pattern took 3 ms of each start
    written = {name for klass in implementation.__mro__[:-1] for name in vars(klass)}
    return type(implementation) is type and written.isdisjoint({"__init__", "__new__"})


def _takes(function: Any, count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # written in C, without a signature: it will say so itself
        return True
    return True


Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Shared:
    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        # reentrant: the constructor of one shared part may ask for another
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
