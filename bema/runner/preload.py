"""What a zygote imports beforehand, and whether an instance may be born with it.

Laws: an import that leaves a thread, a descriptor or a process behind is no part of a zygote, for a fork would have half of
it; and an instance may be born only where its own imports would have come to the same: the variables that were read while
importing have the same values, and nothing in the script's folder stands before an installed module.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

# they hold locks, devices or pools of their own beyond what can be counted from outside
_NEVER = frozenset({"grpc", "torch", "tensorflow", "jax", "cupy", "polars"})
# read by the interpreter itself, before it runs a line
_LOCALE = ("LANG", "LC_ALL", "LC_CTYPE")


class Unfit(Exception):
    """An import that no zygote can have."""

    def __init__(self, module: str, why: str) -> None:
        super().__init__(why)
        self.module = module
        self.why = why


class Preloaded:
    """What was imported; `read` holds the variables that were looked at meanwhile, each with what it was."""

    def __init__(self, importing: Callable[[str], object]) -> None:
        """`importing` is told what is imported next: who dies of it cannot say so any more."""
        self.path = list(sys.path)
        # not `os.environ`: where no locale was given, the interpreter has put one there
        given = dict(each.partition("=")[::2] for each in Path("/proc/self/environ").read_text().split("\0"))
        self.read: dict[str, str | None] = {name: given.get(name) for name in _LOCALE}
        self._locale = {name: os.environ[name] for name in _LOCALE if name in os.environ}
        self._importing = importing
        self._before = frozenset(sys.modules)
        self._roots: frozenset[str] = frozenset()

    def load(self, names: list[str], platform: str, skipped: frozenset[str]) -> None:
        """Import them as a script would. `Unfit` for the first that does what no zygote may."""
        if platform:
            # last, as an instance has it
            sys.path.append(platform)
        with self._reading():
            for name in names:
                left_out = any(f"{name}.".startswith(f"{each}.") for each in (*skipped, *_NEVER))
                if name not in sys.modules and not left_out:
                    self._load(name)
        self._roots = frozenset(name.partition(".")[0] for name in sys.modules if name not in self._before)

    def _load(self, name: str) -> None:
        self._importing(name)
        held = _held()
        # one that is not there, asks for what is not there, or ends the program: a script that needs it will be told
        with contextlib.suppress(BaseException):
            importlib.import_module(name)
        if why := _left(held):
            raise Unfit(name, why)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        noted, kind = self.read, type(os.environ)

        class Environ(kind):  # type: ignore[misc, valid-type]
            def __getitem__(self, name: str) -> str:
                if name not in _LOCALE and not _by_sysconfig():
                    noted.setdefault(name, None)
                    noted[name] = super().__getitem__(name)
                return super().__getitem__(name)  # type: ignore[no-any-return]

        os.environ.__class__ = Environ
        try:
            yield
        finally:
            os.environ.__class__ = kind

    def unfit(self, init: dict[str, Any]) -> str:
        """Why an instance with this Init cannot be born with what was imported; empty where it can."""
        # a program's PORT is its own, whichever it will be
        given = {**os.environ, **(init.get("env") or {}), "PORT": "its own"}
        if (secrets := init.get("secrets_fd")) is not None:
            given |= json.loads(os.pread(secrets, os.fstat(secrets).st_size, 0))
        for name, value in self.read.items():
            if given.get(name) != value:
                return f"its packages read {name} while they are imported"
        if init.get("site"):
            return "it has folders with packages of its own"
        for name in os.listdir(Path(init["script"]).parent):  # noqa: PTH208 - names
            if name.partition(".")[0] in self._roots:
                return f"{name} stands beside the script, in the place of an installed module"
        # as the interpreter would have put it there
        os.environ.update(self._locale)
        return ""


def _held() -> set[str]:
    names = os.listdir("/proc/self/fd")  # noqa: PTH208 - names
    # the listing itself had one of them, whose number is free again
    return {name for name in names if os.path.lexists(f"/proc/self/fd/{name}")}


def _left(held: set[str]) -> str:
    """What an import left behind, in words."""
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 - names
        return "it starts a thread"
    if Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        return "it starts a process"
    return "it opens a file or a socket and keeps it" if _held() - held else ""


def _by_sysconfig() -> bool:
    """Whether it is `sysconfig` that reads a variable: what it kept of that, an instance forgets."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = frame.f_globals.get("__name__")
        if name == "sysconfig":
            return True
        if name not in ("os", "posixpath", "collections.abc", "_collections_abc"):  # who looks it up for somebody
            return False
        frame = frame.f_back
    return False
