"""What is measured, and the figures that have to be reached: the one table of thresholds.

Rows against `prototype` are checked when a peer of that name is given. `ours` is compared with a peer on the same kind
of socket where it has one. Clients run on core 0 and servers on core 1; a row that ends in "one core" has both on core 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from bench.harness import Wanted
from bench.rpc.driving import SMALL

Row = dict[str, Any]


def _unary(calls: int, size: int = SMALL, **other: Any) -> Row:
    return {"op": "unary", "calls": calls, "size": size, "items": 0, "paced": False, **other}


def _stream(calls: int, items: int, *, paced: bool, **other: Any) -> Row:
    return {"op": "stream", "calls": calls, "size": SMALL, "items": items, "paced": paced, **other}


COMMON: dict[str, Row] = {
    "unary 1": _unary(1),
    "unary 1, one core": _unary(1, core=0),
    "unary 16": _unary(16),
    "unary 128": _unary(128),
    "unary 64 KiB 128": _unary(128, 65536),
    "stream 1 x 100 burst": _stream(1, 100, paced=False),
    "stream 32 x 100 burst": _stream(32, 100, paced=False),
    "stream 32 x 100 paced": _stream(32, 100, paced=True),
}
"""Rows that every peer runs."""

OWN: dict[str, Row] = {
    "unary 16, one core": _unary(16, core=0),
    "unary 128, one core": _unary(128, core=0),
    "unary 0 B 16": _unary(16, 0),
    "unary 0 B 128": _unary(128, 0),
    "unary 1 KiB 16": _unary(16, 1024),
    "unary 1 KiB 128": _unary(128, 1024),
    "unary 64 KiB 16": _unary(16, 65536),
    "untyped 128": _unary(128) | {"op": "untyped"},
    "pydantic 1": _unary(1) | {"op": "pydantic"},
    "pydantic 128": _unary(128) | {"op": "pydantic"},
    "stream 32 x 1000 burst": _stream(32, 1000, paced=False),
    "stream 32 x 1000 paced": _stream(32, 1000, paced=True),
    "stream 32 x 100 burst, one core": _stream(32, 100, paced=False, core=0),
    "stream 32 x 100 paced, one core": _stream(32, 100, paced=True, core=0),
}
"""Rows that we run, and peers that are given by their file."""

ROWS: dict[str, Row] = COMMON | OWN

_ALONE = ("unary 1", "unary 1, one core")
_OURS_ONLY = ("untyped 128", "pydantic 1", "pydantic 128")

WANTED: list[Wanted] = [
    *(
        Wanted(row, f"ours {socket}", f"prototype {socket}", 0.75 if row in _ALONE else 0.6)
        for socket in ("unix", "tcp")
        for row in ROWS
        if row not in _OURS_ONLY
    ),
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
"""Ratios of the medians of rates."""


class Ceiling(NamedTuple):
    """A figure of ours over TCP, in microseconds: `cpu` of both processes per operation, or `p50` to the first item."""

    row: str
    figure: str
    most: float


MOST: list[Ceiling] = [
    Ceiling("unary 128", "cpu", 10.0),
    Ceiling("stream 1 x 100 burst", "p50", 150.0),
]
