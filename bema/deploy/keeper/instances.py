"""The instances: what the orchestrator asked for, kept whatever becomes of the orchestrator."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .child import Child, Order
from .config import Config
from .listeners import Listeners
from .logs import Log, prune
from .loop import Loop
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


class Instances:
    def __init__(self, loop: Loop, config: Config, roster: Roster, descriptors: tuple[int, int], tell: Tell) -> None:
        self._loop = loop
        self._config = config
        self._roster = roster
        self._descriptor_limit = descriptors
        self._tell = tell
        self._listeners = Listeners()
        self._children: dict[int, Child] = {}
        self._requests: dict[int, dict[str, Any]] = {}
        self._statuses: dict[int, StatusRelay] = {}
        self.draining = False
        self.on_empty: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Child]:
        return iter(self._children.values())

    # what the orchestrator may ask

    def spawn(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.draining:
            raise Refusal("unavailable", "the platform is stopping")
        number, deployment, label = request["instance"], request["deployment"], request["init"]["instance"]
        if number in self._children:
            raise Refusal("already_served", f"instance {label} runs already")
        for name in (deployment, label):
            if not _PLAIN.match(name):
                raise Refusal("bad_name", f"{name!r} cannot name a log file")
        with contextlib.ExitStack() as ours:
            order, listen = self._prepare(request, label, ours)
            folder = self._config.state / "logs" / deployment
            prune(folder, _KEPT_LOGS - 1)
            log = Log(
                folder / f"{label}.ndjson",
                self._config.log,
                service=request["name"],
                instance=label,
                version=request["version"],
            )
            heard, ended = functools.partial(self._heard, number), functools.partial(self._ended, number)
            child = Child(self._loop, order, log, self._config.line, heard, ended)
            child.launch(self._descriptor_limit)
            if order.held is not None:
                ours.pop_all()
        self._children[number] = child
        self._statuses[number] = StatusRelay(self._loop, functools.partial(self._pass_on, number))
        self._requests[number] = {**request, "listen": listen, "init": order.init}
        self._roster.add(label, child.pid, child.process_start, order.marker)
        return {"pid": child.pid, "process_start": child.process_start, "listen": listen}

    def _prepare(self, request: dict[str, Any], label: str, ours: contextlib.ExitStack) -> tuple[Order, str | None]:
        """Listener and lease, and the Init that tells of them. Our copy of the lease is closed with `ours`.

        A program does not know of its lease and may close all that it did not open: then ours is the only one.
        """
        init, descriptors, listen = dict(request["init"]), [], request.get("listen")
        by_signal, held = init.get("entry", {}).get("kind") == "main", None
        if listen is not None:
            listen, listener = self._listeners.open(request["deployment"], listen)
            init |= {"listen": listen.partition(":")[2], "listen_fd": listener.fileno()}
            descriptors.append(listener.fileno())
        if request.get("lease") is not None:
            lease = _lock(Path(request["lease"]))
            ours.callback(os.close, lease)
            if by_signal:
                held = lease
            else:
                init["lease_fd"] = lease
                descriptors.append(lease)
        order = Order(
            name=label,
            argv=request["argv"],
            env={**request["env"], "BEMA_INSTANCE": label},
            cwd=request["cwd"],
            init=init,
            descriptors=tuple(descriptors),
            marker=f"BEMA_INSTANCE={label}",
            by_signal=by_signal,
            held=held,
        )
        return order, listen

    def stop(self, request: dict[str, Any]) -> dict[str, Any]:
        child = self._children.get(request["instance"])
        if child is not None:
            child.stop(request["grace_ms"] / 1000, request.get("reason", ""))
        return {}

    def announced(self, request: dict[str, Any]) -> dict[str, Any]:
        """What was found out about an instance that does not announce itself."""
        child = self._children.get(request["instance"])
        if child is not None:
            child.announce = request["announce"]
        return {}

    def forget(self, request: dict[str, Any]) -> dict[str, Any]:
        self._listeners.close(request["deployment"])
        return {}

    def list(self, request: dict[str, Any]) -> dict[str, Any]:
        kept = ("instance", "deployment", "name", "version", "listen", "init")
        return {
            "instances": [
                {key: self._requests[number][key] for key in kept}
                | {
                    "pid": child.pid,
                    "process_start": child.process_start,
                    "announce": child.announce,
                    "status": self._statuses[number].last,
                    "stopping": child.stopping,
                    "since": child.since,
                }
                for number, child in self._children.items()
            ]
        }

    # what happens to them

    def _heard(self, number: int, child: Child, message: dict[str, Any]) -> None:
        match message.get("op"):
            case "announce":
                announced = {"event": "announced", "instance": number, "announce": child.announce}
                self._tell({**announced, "status": self._statuses[number].last})
            case "status":
                if why := self._statuses[number].take(message):
                    child.log.note(f"ignored on the channel: {why}", "warning")
            case _:
                self._tell({"event": "line", "instance": number, "line": message})

    def _pass_on(self, number: int) -> None:
        """Tell its status; one that comes before the announcement is told with it."""
        if self._children[number].announce is not None:
            self._tell({"event": "status", "instance": number, "status": self._statuses[number].last})

    def _ended(self, instance: int, child: Child, code: int | None, number: int | None) -> None:
        self._statuses.pop(instance).close()
        del self._children[instance], self._requests[instance]
        if child.order.held is not None:
            os.close(child.order.held)
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
        if not self._children:
            self.on_empty()

    def child_of(self, pid: int) -> Child | None:
        return next((child for child in self if child.pid == pid), None)

    def drain(self, grace: float) -> None:
        """Stop them all and start none; `on_empty` is called when the last has gone."""
        self.draining = True
        for child in self:
            child.stop(grace, "the platform is stopping")
        if not self._children:
            self.on_empty()

    def close(self) -> None:
        self._listeners.close_all()


def _lock(path: Path) -> int:
    """Open and lock a lease; the lock lives as long as any copy of the descriptor."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise Refusal("already_served", f"{path} is held by another process") from error
        raise
    return descriptor
