"""A layout from before the engine: how who owned it says what was in it.

Law: `convert` is pure, from rows to what the engine keeps; it runs inside the transaction that replaces the layout, so that
a death in the middle leaves the old one whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

Row = tuple[Any, ...]
Rows = Callable[[str], Iterator[Row]]
"""Rows of a table by its name, in the order they were written where the table keeps one."""

Kept = tuple[str, bytes] | bytes
"""A key with its value, or content."""


class Older(NamedTuple):
    """`tables` has the columns that are read of each table; all of them are dropped afterwards."""

    tables: Mapping[str, tuple[str, ...]]
    convert: Callable[[Rows], Iterator[Kept]]
