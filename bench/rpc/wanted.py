"""What is measured, and the ratios of medians that have to be reached.

Rows against `prototype` are checked when a peer of that name is given. `ours` is compared with a peer on the same kind
of socket.
"""

from __future__ import annotations

from typing import Any

from bench.harness import Wanted

Row = dict[str, Any]


def _unary(calls: int, size: int = 0, **other: Any) -> Row:
    return {"op": "unary", "calls": calls, "size": size, "items": 0, "paced": False, **other}


def _stream(calls: int, items: int, *, paced: bool, **other: Any) -> Row:
    return {"op": "stream", "calls": calls, "size": 0, "items": items, "paced": paced, **other}


ROWS: dict[str, Row] = {
    "unary 1": _unary(1),
    "unary 16": _unary(16),
    "unary 128": _unary(128),
    "unary 1, one core": _unary(1, core=0),
    "unary 1 KiB 128": _unary(128, 1024),
    "unary 64 KiB 128": _unary(128, 65536),
    "untyped 128": _unary(128) | {"op": "untyped"},
    "pydantic 128": _unary(128) | {"op": "pydantic"},
    "stream 1 x 100 burst": _stream(1, 100, paced=False),
    "stream 32 x 100 burst": _stream(32, 100, paced=False),
    "stream 32 x 100 paced": _stream(32, 100, paced=True),
    "stream 32 x 1000 burst": _stream(32, 1000, paced=False),
    "stream 32 x 1000 paced": _stream(32, 1000, paced=True),
}

_RAW = [
    Wanted(row, f"ours {socket}", f"prototype {socket}", 0.4)
    for socket in ("unix", "tcp")
    for row in ("unary 1", "unary 16", "unary 128", "stream 32 x 100 burst", "stream 32 x 100 paced")
]

WANTED: list[Wanted] = [
    *_RAW,
    Wanted("unary 1", "ours tcp", "dynamo", 4),
    Wanted("unary 1, one core", "ours tcp", "dynamo", 12),
    Wanted("unary 16", "ours tcp", "dynamo", 12),
    Wanted("unary 128", "ours tcp", "dynamo", 15),
    Wanted("unary 64 KiB 128", "ours tcp", "dynamo", 3.5),
    Wanted("stream 32 x 100 burst", "ours tcp", "dynamo", 15),
    Wanted("stream 32 x 100 paced", "ours tcp", "dynamo", 7),
    Wanted("unary 1", "ours tcp", "grpc.aio", 3),
    Wanted("unary 128", "ours tcp", "grpc.aio", 15),
    Wanted("unary 128", "ours tcp", "nats-py", 2),
]

MOST: dict[tuple[str, str], float] = {
    ("unary 128", "cpu"): 10.0,
    ("stream 1 x 100 burst", "p50"): 150.0,
}
"""Microseconds of ours over TCP: CPU of both processes per call, and time to the first item."""
