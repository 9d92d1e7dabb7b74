"""A child of the platform itself, kept standing: started, and started again whenever it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .child import Child, Order
from .config import ChildConfig, Config
from .link import Link
from .listeners import Listeners
from .logs import Log
from .loop import READ, Loop
from .roster import Roster

_WAITS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
_WELL_AFTER = 10.0
# deaths before the first announcement: what never once stood is broken, and starting it again would
# hide why; what stood before is started for ever
_HOPELESS = 5


class Backoff:
    """How long to wait before the next start: nothing at first, more while it keeps dying young."""

    def __init__(self) -> None:
        self.deaths = 0

    def next(self, lived: float) -> float:
        # one bad night in a month must not make the next restart wait
        if lived >= _WELL_AFTER:
            self.deaths = 0
        wait = _WAITS[min(self.deaths, len(_WAITS) - 1)]
        self.deaths += 1
        return wait


class Supervisor:
    """`ready` is called at its first announcement, `died` at a death, `hopeless` when it dies too often before it.

    `said` is told what it writes on stdout, each line once, however often it is started.
    """

    def __init__(
        self,
        plan: ChildConfig,
        config: Config,
        loop: Loop,
        roster: Roster,
        link: Link,
        descriptors: tuple[int, int],
        *,
        ready: Callable[[], None],
        died: Callable[[str], None],
        hopeless: Callable[[str], None],
        said: Callable[[str], None],
    ) -> None:
        self.plan = plan
        self.child: Child | None = None
        self.was_ready = False
        self._config = config
        self._loop = loop
        self._roster = roster
        self._link = link
        self._descriptor_limit = descriptors
        self._ready = ready
        self._died = died
        self._hopeless = hopeless
        self._said = said
        self._known: set[str] = set()
        self._backoff = Backoff()
        self._listeners = Listeners()
        self._on_gone: Callable[[], None] | None = None

    def begin(self) -> None:
        """Start it, now or when somebody connects to the listener that we hold for it."""
        if not self.plan.on_demand or self.plan.listen is None:
            self.start()
            return
        _, listener = self._listeners.open(self.plan.name, self.plan.listen)

        def called() -> None:
            # whoever connected waits in the listener until it accepts
            self._loop.forget(listener)
            self.start()

        self._loop.watch(listener, READ, called)

    def start(self) -> None:
        if self._on_gone is not None:
            return
        self._started = time.monotonic()
        try:
            child = self._launch()
        except OSError as error:
            self._again(f"{self.plan.name} cannot be started: {error}")
            return
        self.child = child
        self._roster.add(self.plan.name, child.pid, child.process_start, "", child.warden.pid)
        self._loop.after(self._config.start, lambda: self._late(child))

    def _launch(self) -> Child:
        env, init = dict(self.plan.env), dict(self.plan.init)
        descriptors = list(self.plan.listen_fds.values())
        if self.plan.listen_fds:
            init["listen_fds"] = self.plan.listen_fds
        if self.plan.listen is not None:
            # ours, and the same one each time: whoever connects while it is away waits in it
            _, listener = self._listeners.open(self.plan.name, self.plan.listen)
            init["listen_fd"] = listener.fileno()
            descriptors.append(listener.fileno())
        theirs = self._link.open() if self.plan.link else ()
        try:
            for variable, end in zip(("BEMA_KEEPER", "BEMA_KEEPER_DESCRIPTORS"), theirs, strict=False):
                env[variable] = str(end.fileno())
                descriptors.append(end.fileno())
            order = Order(self.plan.name, self.plan.argv, env, self.plan.cwd, init, tuple(descriptors))
            child = Child(self._loop, order, self._log(), self._config.line, self._heard, self._ended, self._tell)
            child.launch(self._descriptor_limit)
            return child
        finally:
            for end in theirs:
                end.close()

    def _log(self) -> Log:
        path = self._config.state / "logs" / "bema" / f"{self.plan.name}.ndjson"
        return Log(Path(path), self._config.log, service="bema", instance=self.plan.name, version=self._version)

    @property
    def _version(self) -> str:
        return str(self._config.up.get("version", ""))

    def _heard(self, child: Child, message: dict[str, Any]) -> None:
        if message.get("op") == "announce" and not self.was_ready:
            self.was_ready = True
            self._ready()

    def _tell(self, line: str) -> None:
        # a child that is started again says again where it is reached
        if line not in self._known:
            self._known.add(line)
            self._said(line)

    def _late(self, child: Child) -> None:
        if child is self.child and child.announce is None:
            child.log.note(f"not announced within {self._config.start:g} s", "error")
            child.kill()

    def _ended(self, child: Child, code: int | None, number: int | None) -> None:
        self.child = None
        self._roster.drop(child.pid)
        # closed with it: requests of its successor must not meet what it left half written
        if self.plan.link:
            self._link.close()
        if self._on_gone is not None:
            self._on_gone()
            return
        said = [record["event"] for record in child.log.tail if record["stream"] == "stderr"]
        how = f"signal {number}" if number is not None else f"code {code}" + (f": {said[-1]}" if said else "")
        self._again(f"{self.plan.name} ended with {how}")

    def _again(self, why: str) -> None:
        wait = self._backoff.next(time.monotonic() - self._started)
        if not self.was_ready and self._backoff.deaths >= _HOPELESS:
            self._hopeless(why)
        else:
            self._died(why)
            self._loop.after(wait, self.start)

    def drain(self, grace: float, gone: Callable[[], None]) -> None:
        """Stop it for good; `gone` is called when it has ended, at once if it is not there."""
        self._on_gone = gone
        if self.child is None:
            gone()
        else:
            self.child.stop(grace, "the platform is stopping")

    def close(self) -> None:
        self._listeners.close_all()
