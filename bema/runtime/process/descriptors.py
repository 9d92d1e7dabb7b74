"""The bound on the descriptors of a process, which the platform's own raise: each client takes one."""

from __future__ import annotations

import contextlib
import resource


def raise_limit() -> None:
    """All the descriptors we may have: the keeper gave its own limit back when it started us, as it does for any program."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
