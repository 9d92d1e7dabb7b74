"""The instances: what the orchestrator asked for, kept whatever becomes of the orchestrator.

Law: nothing here knows what a descriptor means. What a request names `inherit` the child alone holds from its start on
(`stdin` and `stdout` as its own streams), what it names `keep` is held here, neither read nor written, until the instance
has ended, and lent to whichever orchestrator asks; `locator` is the launcher's own and comes back with `list` as it came.
What an instance says on its channel besides Announce and Status is noted and goes no further: what a module asks for it
asks over a socket that its launcher passed to it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from .child import Child, Order
from .config import Config
from .descriptors import Attachments
from .listeners import Listeners
from .logs import Log, prune
from .loop import Loop
from .redaction import Redactor
from .roster import Roster
from .status_relay import StatusRelay

_PLAIN = re.compile(r"[0-9a-z][0-9a-z-]{0,63}\Z")
_KEPT_LOGS = 10

Tell = Callable[[dict[str, Any]], None]


class Refusal(Exception):
    """A request that is not carried out: `code` is one of bema's, the text says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class KeptInstance:
    """One instance: its process, how it says it serves, and what is held for it until it has ended."""

    def __init__(self, child: Child, status: StatusRelay, known: dict[str, Any], held: dict[str, int]) -> None:
        self.child = child
        self.status = status
        self.known = known
        self.held = held

    def listed(self) -> dict[str, Any]:
        return self.known | {
            "pid": self.child.pid,
            "process_start": self.child.process_start,
            "announce": self.child.announce,
            "status": self.status.last,
            "stopping": self.child.stopping,
            "keep": list(self.held),
            "since": self.child.since,
        }

    def close(self) -> None:
        self.status.close()
        for descriptor in self.held.values():
            os.close(descriptor)


class Instances:
    def __init__(self, loop: Loop, config: Config, roster: Roster, descriptors: tuple[int, int], tell: Tell) -> None:
        self._loop = loop
        self._config = config
        self._roster = roster
        self._descriptor_limit = descriptors
        self._tell = tell
        self._listeners = Listeners()
        self._kept: dict[int, KeptInstance] = {}
        self.draining = False
        self.on_empty: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Child]:
        return (kept.child for kept in self._kept.values())

    # what the orchestrator may ask

    def spawn(self, request: dict[str, Any], attached: Attachments) -> dict[str, Any]:
        if self.draining:
            raise Refusal("unavailable", "the platform is stopping")
        number, deployment, label = request["instance"], request["deployment"], request["init"]["instance"]
        if number in self._kept:
            raise Refusal("already_served", f"instance {label} runs already")
        # they become a path: the orchestrator is ours, and one of its defects must not write
        # elsewhere
        for name in (deployment, label):
            if not _PLAIN.match(name):
                raise Refusal("bad_name", f"{name!r} cannot name a log file")
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            inherited = {name: _taken(attached, name, theirs) for name in request.get("inherit", ())}
            held = {name: _taken(attached, name, ours) for name in request.get("keep", ())}
            order, listen = self._order(request, label, inherited)
            heard, ended = functools.partial(self._heard, number), functools.partial(self._ended, number)
            child = Child(self._loop, order, self._log(request, label), self._config.line, heard, ended)
            # `theirs` closes our copies after the spawn: a lease that we held too would outlive its
            # instance
            child.launch(self._descriptor_limit)
            ours.pop_all()
        status = StatusRelay(self._loop, functools.partial(self._pass_on, number))
        known = {key: request.get(key) for key in ("instance", "deployment", "locator")} | {"listen": listen}
        self._kept[number] = KeptInstance(child, status, known, held)
        # after the spawn: until it is written, the parent-death signals end what a killed keeper
        # leaves
        self._roster.add(label, child.pid, child.process_start, order.marker, child.warden.pid)
        return {"pid": child.pid, "process_start": child.process_start, "listen": listen, "since": child.since}

    def _order(self, request: dict[str, Any], label: str, inherited: dict[str, int]) -> tuple[Order, str | None]:
        """What to run, and where it listens. Init says under which number each descriptor is inherited."""
        streams = {name: inherited[name] for name in ("stdin", "stdout") if name in inherited}
        others = {name: number for name, number in inherited.items() if name not in streams}
        init, descriptors, listen = request["init"] | others, list(others.values()), request.get("listen")
        if listen is not None:
            listen, listener = self._listeners.open(request["slot"], listen)
            init |= {"listen": listen.partition(":")[2], "listen_fd": listener.fileno()}
            descriptors.append(listener.fileno())
        order = Order(
            name=label,
            argv=request["argv"],
            env={**request["env"], "BEMA_INSTANCE": label},
            cwd=request["cwd"],
            init=init,
            descriptors=tuple(descriptors),
            marker=f"BEMA_INSTANCE={label}",
            by_signal=init.get("entry", {}).get("kind") == "main",
            stdio=(streams["stdin"], streams["stdout"]) if streams else None,
        )
        return order, listen

    def _log(self, request: dict[str, Any], label: str) -> Log:
        folder = self._config.state / "logs" / request["deployment"]
        # before its own is made: a crash loop starts one each few seconds
        prune(folder, _KEPT_LOGS - 1)
        origin = {"service": request["name"], "instance": label, "version": request["version"]}
        redact = None if (told := request.get("redact")) is None else Redactor(told)
        return Log(folder / f"{label}.ndjson", self._config.log, redact, **origin)

    def stop(self, request: dict[str, Any], attached: Attachments) -> dict[str, Any]:
        kept = self._kept.get(request["instance"])
        if kept is not None:
            kept.child.stop(request["grace_ms"] / 1000, request.get("reason", ""))
        return {}

    def announced(self, request: dict[str, Any], attached: Attachments) -> dict[str, Any]:
        """What was found out about an instance that does not announce itself."""
        kept = self._kept.get(request["instance"])
        if kept is not None:
            kept.child.announce = request["announce"]
        return {}

    def lend(self, request: dict[str, Any], attached: Attachments) -> dict[str, Any]:
        """A copy of a descriptor that is kept for an instance."""
        kept = self._kept.get(request["instance"])
        if kept is None or request["name"] not in kept.held:
            raise Refusal("not_found", f"no {request['name']!r} is kept for instance {request['instance']}")
        attached.give(request["name"], kept.held[request["name"]])
        return {}

    def forget(self, request: dict[str, Any], attached: Attachments) -> dict[str, Any]:
        """Close the listeners of a deployment, or those of a version of it."""
        version = request.get("version", "")
        self._listeners.close_under(f"{request['deployment']}/{version}/" if version else f"{request['deployment']}/")
        return {}

    def list(self, request: dict[str, Any], attached: Attachments) -> dict[str, Any]:
        return {"instances": [kept.listed() for kept in self._kept.values()]}

    # what happens to them

    def _heard(self, number: int, child: Child, message: dict[str, Any]) -> None:
        match message.get("op"):
            case "announce":
                announced = {"event": "announced", "instance": number, "announce": child.announce}
                self._tell({**announced, "status": self._kept[number].status.last})
            case "status":
                if why := self._kept[number].status.take(message):
                    child.log.note(f"ignored on the channel: {why}", "warning")
            case unknown:
                child.log.note(f"ignored on the channel: {str(unknown)[:100]!r} is no word of it", "warning")

    def _pass_on(self, number: int) -> None:
        """Tell its status; one that comes before the announcement is told with it."""
        kept = self._kept[number]
        # who hears of an instance that it does not know yet as serving could only drop it
        if kept.child.announce is not None:
            self._tell({"event": "status", "instance": number, "status": kept.status.last})

    def _ended(self, instance: int, child: Child, code: int | None, number: int | None) -> None:
        # let go first: whoever is told of the end may ask for the next start at once
        self._kept.pop(instance).close()
        self._roster.drop(child.pid)
        self._tell(
            {
                "event": "exited",
                "instance": instance,
                "code": code,
                "signal": number,
                "stopped": child.stopping,
                "tail": list(child.log.tail),
            }
        )
        if not self._kept:
            self.on_empty()

    def drain(self, grace: float) -> None:
        """Stop them all and start none; `on_empty` is called when the last has gone."""
        self.draining = True
        for child in self:
            child.stop(grace, "the platform is stopping")
        if not self._kept:
            self.on_empty()

    def close(self) -> None:
        self._listeners.close_all()


def _taken(attached: Attachments, name: str, until: contextlib.ExitStack) -> int:
    """A descriptor that came with the request, closed with `until`."""
    descriptor = attached.take(name)
    until.callback(os.close, descriptor)
    return descriptor
