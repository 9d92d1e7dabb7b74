"""What a forked child must not keep: leases, watchers, listeners.

Law: a descriptor that means "this process lives" is closed in every child of `os.fork`, or the child would keep the
meaning alive after the process is gone. Children of `exec` never see it: every descriptor is made close-on-exec.
"""

from __future__ import annotations

import contextlib
import os

_kept: set[int] = set()


def close_in_children(descriptor: int) -> None:
    """Close `descriptor` in children, from now until `forget`."""
    _kept.add(descriptor)


def forget(descriptor: int) -> bool:
    """Whether the descriptor is still ours to close: in a child it is not, its number may be another file by now."""
    if descriptor in _kept:
        _kept.remove(descriptor)
        return True
    return False


def _close_all() -> None:
    while _kept:
        with contextlib.suppress(OSError):
            os.close(_kept.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)
