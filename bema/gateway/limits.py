"""The bounds the data listener keeps, as one value; defaults come from the one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from bema.core.limits import limit

__all__ = ["Limits"]


_ROWS = {
    "head": "http_head",
    "headers": "http_headers",
    "body": "http_body",
    "head_time": "http_head_time",
    "body_idle": "http_body_idle",
    "idle": "http_idle",
    "connections": "http_connections",
    "pool": "http_pool",
    "pool_idle": "http_pool_idle",
    "connect": "http_connect",
    "waiters": "http_waiters",
    "start": "start",
    "drain": "drain",
}


def _row(field: str) -> Any:
    return limit(_ROWS[field])


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    head: int = _row("head")
    headers: int = _row("headers")
    body: int = _row("body")
    head_time: float = _row("head_time")
    body_idle: float = _row("body_idle")
    idle: float = _row("idle")
    connections: int = _row("connections")
    pool: int = _row("pool")
    pool_idle: float = _row("pool_idle")
    connect: float = _row("connect")
    waiters: int = _row("waiters")
    start: float = _row("start")
    drain: float = _row("drain")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Limits:
        """The bounds that the settings of an Init name as `limits.NAME`; the default where they name none."""
        return cls(**{field: settings.get(f"limits.{row}", limit(row)) for field, row in _ROWS.items()})
