"""Resource limits of one instance, each process of it counted by itself (getrlimit(2)); what was lowered is never raised.

Law: only what cannot be met by an ordinary script is bounded by a number of ours, and no limit is above the one that the
platform itself was given.
"""

from __future__ import annotations

import resource
from pathlib import Path


def lower(limits: dict[str, int]) -> None:
    """Bound `memory`, `address_space` and `file` in bytes, `files` (open at once) and `processes` in numbers, where they are named.

    `OSError` where the kernel refuses.
    """
    # what a crash leaves would be of the size of its memory, and lie in its folder
    _lower(resource.RLIMIT_CORE, 0)
    for kind, name in (
        # private memory that can be written; an address space would count what is reserved and never used, too
        (resource.RLIMIT_DATA, "memory"),
        (resource.RLIMIT_AS, "address_space"),
        (resource.RLIMIT_FSIZE, "file"),
        (resource.RLIMIT_NOFILE, "files"),
    ):
        if name in limits:
            _lower(kind, limits[name])
    if "processes" in limits:
        # the kernel counts all that the user runs, desktop and other instances included
        _lower(resource.RLIMIT_NPROC, _running() + limits["processes"])


def _lower(kind: int, most: int) -> None:
    soft, hard = (most if each == resource.RLIM_INFINITY else min(each, most) for each in resource.getrlimit(kind))
    resource.setrlimit(kind, (soft, hard))


def _running() -> int:
    """Threads on this machine: no fewer than its user has, and known without a look at each process."""
    return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
