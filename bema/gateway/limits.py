"""The bounds the data listener keeps, as one value; defaults come from the one table."""

from __future__ import annotations

import msgspec

from bema.core.limits import limit

__all__ = ["Limits"]


def _default(name: str) -> float:
    return limit(name)


class Limits(msgspec.Struct, frozen=True):
    head: int = int(limit("http_head"))
    headers: int = int(limit("http_headers"))
    body: int = int(limit("http_body"))
    head_time: float = _default("http_head_time")
    body_idle: float = _default("http_body_idle")
    idle: float = _default("http_idle")
    connections: int = int(limit("http_connections"))
    pool: int = int(limit("http_pool"))
    pool_idle: float = _default("http_pool_idle")
    connect: float = _default("http_connect")
    waiters: int = int(limit("http_waiters"))
    start: float = _default("start")
    drain: float = _default("drain")
