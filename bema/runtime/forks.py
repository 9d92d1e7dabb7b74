"""What a forked child must not keep: leases, watchers, listeners, connections, and the work of its parent.

Law: a descriptor that means "this process lives", or that keeps a peer's connection open, is let go in every child of
`os.fork`, or the child would keep the meaning alive after the process is gone. It is replaced by /dev/null and not
closed: closing it would tell the event loop's poller, which the child shares with its parent, to forget it, and would
free its number for another file. Children of `exec` never see it: every descriptor is made close-on-exec.

A child lives for what its own code does. One that comes back to ours, from the handler that forked it, ends there, as a
program does: it would go on with its parent's calls, whose side effects would happen twice.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import weakref
from collections.abc import Callable
from typing import NoReturn

_kept: set[int] = set()
_told: list[weakref.WeakMethod[Callable[[], None]]] = []


def close_in_children(descriptor: int) -> None:
    """Let `descriptor` go in children, from now until `forget`."""
    _kept.add(descriptor)


def forget(descriptor: int) -> bool:
    """Whether the descriptor is still ours to close: in a child it is not."""
    if descriptor in _kept:
        _kept.remove(descriptor)
        return True
    return False


def tell_children(forked: Callable[[], None]) -> None:
    """Call a bound method in each child, before the child's own code goes on. Its object is not kept alive by this."""
    _told[:] = [kept for kept in _told if kept() is not None]
    _told.append(weakref.WeakMethod(forked))


def leave(error: BaseException | None = None) -> NoReturn:
    """End this forked child, with the exit code of a program that ends by `error`."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        code = 1
    with contextlib.suppress(Exception):  # its streams may be anything
        if error is not None and not (isinstance(error, SystemExit) and error.code in (None, code)):
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
    # not `sys.exit`: what runs at the end of the interpreter is the parent's
    os._exit(code & 0xFF)


def _in_child() -> None:
    _let_go()
    for kept in _told:
        if (forked := kept()) is not None:
            forked()


def _let_go() -> None:
    if not _kept:
        return
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    while _kept:
        with contextlib.suppress(OSError):
            os.dup2(nothing, _kept.pop(), inheritable=False)
    os.close(nothing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
