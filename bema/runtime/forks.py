"""What a forked child must not keep: leases, watchers, listeners, connections.

Law: a descriptor that means "this process lives", or that keeps a peer's connection open, is let go in every child of
`os.fork`, or the child would keep the meaning alive after the process is gone. It is replaced by /dev/null and not
closed: closing it would tell the event loop's poller, which the child shares with its parent, to forget it, and would
free its number for another file. Children of `exec` never see it: every descriptor is made close-on-exec.
"""

from __future__ import annotations

import contextlib
import os

_kept: set[int] = set()


def close_in_children(descriptor: int) -> None:
    """Let `descriptor` go in children, from now until `forget`."""
    _kept.add(descriptor)


def forget(descriptor: int) -> bool:
    """Whether the descriptor is still ours to close: in a child it is not."""
    if descriptor in _kept:
        _kept.remove(descriptor)
        return True
    return False


def _let_go() -> None:
    if not _kept:
        return
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    while _kept:
        with contextlib.suppress(OSError):
            os.dup2(nothing, _kept.pop(), inheritable=False)
    os.close(nothing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
