"""Memory for large messages, which the allocator would give back after each of them."""

from __future__ import annotations

import functools
from typing import Final

KEPT: Final = 4 * 1024 * 1024


@functools.cache
def keep() -> None:
    """Have freed memory kept for the next large message, up to twice `KEPT`.

    glibc gives what is freed at the top of its heap back to the kernel, from 128 KiB on, and a page that comes anew costs
    a fault: twenty for each call of 64 KiB. It raises that bound to twice the largest block that was ever freed (mallopt(3),
    "dynamic mmap threshold"), so one is asked for and freed, which no page is touched for. Elsewhere this does nothing.
    """
    bytes(KEPT)
