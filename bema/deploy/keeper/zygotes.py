"""The zygotes: one for each environment and owner, as long as somebody uses it and its memory is within the budget.

Laws: no start waits for a zygote to be made; where there is none that can fork now, there is a sentence that says why. One
is made when the first instance of its environment serves, of what that has imported. What it cannot have it is made again
without; one that ends again and again is not made any more.
"""

from __future__ import annotations

import functools
from typing import Any

from .loop import Loop
from .roster import Roster
from .zygote import Zygote, ZygoteOrder

_HOPELESS = 8  # ends in a row, none of which was asked for and none after a fork
_GROWN = 64 * 1024 * 1024  # bytes that a zygote may grow by
_PREPARING = "its zygote is being prepared"


class Lineage:
    """What is known of the zygotes of one environment and owner."""

    def __init__(self, order: ZygoteOrder) -> None:
        self.order = order
        self.zygote: Zygote | None = None
        self.users: set[str] = set()  # versions of deployments, as "deployment/version"
        self.modules: dict[str, None] = {}  # in the order of their import
        self.skipped: dict[str, str] = {}  # why
        self.ends = 0
        self.refused = ""


class Zygotes:
    def __init__(self, loop: Loop, roster: Roster, descriptors: tuple[int, int]) -> None:
        self._loop = loop
        self._roster = roster
        self._descriptor_limit = descriptors
        self._lineages: dict[str, Lineage] = {}
        self._ending: dict[int, Zygote] = {}  # by pid: killed, and not reaped yet
        self._closed = False

    def of(self, order: ZygoteOrder, user: str) -> Zygote | str:
        """The one to fork, or why there is none."""
        lineage = self._lineages.setdefault(order.key, Lineage(order))
        lineage.users.add(user)
        lineage.order = order
        if lineage.refused:
            return lineage.refused
        if lineage.zygote is None:
            return "it is the first start of its environment" if not lineage.modules else _PREPARING
        return lineage.zygote if lineage.zygote.ready else _PREPARING

    def learned(self, key: str, names: list[str]) -> None:
        """An instance serves, or has served, and imported these: there is to be a zygote that has them."""
        if (lineage := self._lineages.get(key)) is None:
            return
        new = [name for name in names if name not in lineage.modules]
        lineage.modules |= dict.fromkeys(new)
        if new and lineage.zygote is not None:
            self._end(lineage, "another takes its place, which has imported more")
        if lineage.zygote is None and lineage.modules:
            self._start(lineage)

    def forked(self, zygote: Zygote) -> None:
        """It has forked: it is as it should be, unless it has grown."""
        lineage = self._lineages.get(zygote.order.key)
        if lineage is None or lineage.zygote is not zygote:
            return
        lineage.ends = 0
        if zygote.measure() > zygote.memory + _GROWN and not zygote.forking:
            self._end(lineage, "it has grown")
            self._start(lineage)

    def forget(self, users: str) -> None:
        """Those whose names begin so are gone."""
        for key, lineage in list(self._lineages.items()):
            lineage.users = {user for user in lineage.users if not user.startswith(users)}
            if not lineage.users:
                self._end(lineage, "nobody uses it any more")
                del self._lineages[key]

    def _start(self, lineage: Lineage) -> None:
        if lineage.refused or self._closed:
            return
        prepared = functools.partial(self._fit, lineage)
        try:
            zygote = Zygote(
                self._loop,
                lineage.order,
                list(lineage.modules),
                list(lineage.skipped),
                self._descriptor_limit,
                prepared,
            )
        except OSError as error:
            self._failed(lineage, f"its zygote cannot be started: {error.strerror or error}")
            return
        lineage.zygote = zygote
        self._roster.add(f"zygote {lineage.order.key}", zygote.pid, zygote.start, "")

    def _fit(self, lineage: Lineage) -> None:
        """One is ready: those that were used least recently make room for it."""
        budget = lineage.order.memory
        alive = [each for each in self._lineages.values() if each.zygote is not None and each is not lineage]
        alive.sort(key=lambda each: each.zygote.used if each.zygote is not None else 0.0)
        own = lineage.zygote.memory if lineage.zygote is not None else 0
        total = own + sum(each.zygote.memory for each in alive if each.zygote is not None)
        while total > budget and alive:
            oldest = alive.pop(0)
            total -= oldest.zygote.memory if oldest.zygote is not None else 0
            self._end(oldest, "its memory is needed for another")
        if total > budget:
            lineage.refused = f"its zygote takes {own} bytes, of {budget} that all may take"
            self._end(lineage, lineage.refused)

    def _end(self, lineage: Lineage, why: str) -> None:
        zygote, lineage.zygote = lineage.zygote, None
        if zygote is not None:
            zygote.kill(why)
            self._ending[zygote.pid] = zygote

    def ended(self, pid: int, status: int) -> bool:
        """A child of ours was reaped; whether it was a zygote."""
        lineage = next((each for each in self._lineages.values() if each.zygote and each.zygote.pid == pid), None)
        zygote = self._ending.pop(pid, None) if lineage is None else lineage.zygote
        if zygote is None:
            return False
        self._roster.drop(pid)
        how = zygote.ended(status)
        if lineage is not None:
            lineage.zygote = None
            self._died(lineage, zygote, how)
        return True

    def _died(self, lineage: Lineage, zygote: Zygote, how: str) -> None:
        """By itself, or because it hung: made again at once only where it is known what to leave out."""
        module, why = zygote.unfit or (zygote.importing, how)
        if not zygote.was_ready and module:
            lineage.skipped[module] = why
            self._failed(lineage, f"its zygote cannot import {module}: {why}")
        else:
            self._failed(lineage, f"its zygote cannot be kept: {how}")
        if not zygote.was_ready:
            self._start(lineage)

    def _failed(self, lineage: Lineage, why: str) -> None:
        lineage.ends += 1
        if lineage.ends >= _HOPELESS:
            lineage.refused = why

    def look(self) -> set[int]:
        """Take in what zygotes have reported; gives who may be a child of ours: themselves, and what they are forking."""
        zygotes = [*self._ending.values(), *(each.zygote for each in self._lineages.values() if each.zygote)]
        return {zygote.pid for zygote in zygotes}.union(*(zygote.look() for zygote in zygotes))

    def listed(self) -> list[dict[str, Any]]:
        return [
            {
                "key": key,
                "ready": lineage.zygote is not None and lineage.zygote.ready,
                "pid": lineage.zygote.pid if lineage.zygote is not None else None,
                "memory": lineage.zygote.memory if lineage.zygote is not None else 0,
                "forking": lineage.zygote.forking if lineage.zygote is not None else 0,
                "modules": len(lineage.modules),
                "skipped": lineage.skipped,
                "refused": lineage.refused,
            }
            for key, lineage in self._lineages.items()
        ]

    def close(self) -> None:
        self._closed = True
        for lineage in self._lineages.values():
            self._end(lineage, "the platform is stopping")
