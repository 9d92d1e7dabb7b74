"""Whether programs still accept where they were found: a program says nothing, and its process may outlive its listener.

Law: the kernel's tables are read, nobody is connected to: a connection is a request to a program that accepts one at a time.
One reading serves all programs, however many there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

_PERIOD = 1.0
_MISSES = 2  # looks in a row; a reloader is away for less
_LISTEN = "0A"
_ACCEPTS = 0x10000  # __SO_ACCEPTCON

Tell = Callable[[int, bool], None]


class _Watched:
    def __init__(self, key: str) -> None:
        self.key = key
        self.misses = 0


class ListenerWatch:
    """`tell` is told of an instance whose listener went, and again when it is back."""

    def __init__(self, tell: Tell, period: float = _PERIOD) -> None:
        self._tell = tell
        self._period = period
        self._watched: dict[int, _Watched] = {}
        self._task: asyncio.Task[None] | None = None

    def watch(self, instance: int, address: str) -> None:
        self._watched[instance] = _Watched(_key(address))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="listeners of programs")

    def forget(self, instance: int) -> None:
        self._watched.pop(instance, None)

    async def close(self) -> None:
        self._watched.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        # ends with the last program, so that a platform of services alone is never woken by this
        while self._watched:
            await asyncio.sleep(self._period)
            accepting = await asyncio.to_thread(accepted)
            for instance, watched in list(self._watched.items()):
                self._look(instance, watched, there=watched.key in accepting)

    def _look(self, instance: int, watched: _Watched, *, there: bool) -> None:
        before = watched.misses >= _MISSES
        watched.misses = 0 if there else watched.misses + 1
        now = watched.misses >= _MISSES
        if now is not before:
            self._tell(instance, not now)


def _key(address: str) -> str:
    """What the tables are asked for: a path, or a port, on whichever address of the machine."""
    return address if address.startswith("unix:") else f"tcp:{address.rpartition(':')[2]}"


def accepted() -> set[str]:
    """Where anybody accepts."""
    ports = {
        f"tcp:{int(fields[1].rpartition(':')[2], 16)}"
        for table in ("tcp", "tcp6")
        for fields in _rows(table)
        if fields[3] == _LISTEN
    }
    paths = {f"unix:{fields[7]}" for fields in _rows("unix") if len(fields) > 7 and int(fields[3], 16) & _ACCEPTS}
    return ports | paths


def _rows(table: str) -> Iterator[list[str]]:
    try:
        lines = Path("/proc/net", table).read_text().splitlines()[1:]
    except OSError:  # a kernel without IPv6
        return
    for line in lines:
        yield line.split()
