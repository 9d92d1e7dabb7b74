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
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .child import Child, Order
from .config import Config
from .descriptors import Attachments
from .imports import NAME, Imports
from .later import Later
from .listeners import Listeners
from .logs import Log, prune
from .loop import Loop
from .redaction import Redactor
from .roster import Roster
from .status_relay import StatusRelay
from .zygote import ZygoteOrder
from .zygotes import Zygotes

_PLAIN = re.compile(r"[0-9a-z][0-9a-z-]{0,63}\Z")
_KEPT_LOGS = 10

Tell = Callable[[dict[str, Any]], None]


class Refusal(Exception):
    """A request that is not carried out: `code` is one of bema's, the text says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Begun:
    """A start that is under way: what was asked for, what is held for it, and how it is to be started."""

    def __init__(self, request: dict[str, Any], zygote: ZygoteOrder | None) -> None:
        self.request = request
        self.zygote = zygote
        self.why = ""  # not by a zygote
        self.stop: tuple[float, str] | None = None  # it was asked to stop before it was there
        self.held: dict[str, int] = {}
        self.imports: Imports | None = None
        self.theirs = contextlib.ExitStack()  # our copies of what it inherits
        self._ours = contextlib.ExitStack()

    def take(self, attached: Attachments) -> dict[str, int]:
        """The descriptors that came with the request: gives those that the child inherits, by name."""
        inherited = {name: _taken(attached, name, self.theirs) for name in self.request.get("inherit", ())}
        self.held = {name: _taken(attached, name, self._ours) for name in self.request.get("keep", ())}
        if self.zygote is not None:
            self.imports = Imports()
            self._ours.callback(self.imports.close)
            inherited[NAME] = self.imports.descriptor
        return inherited

    def close(self) -> None:
        self.theirs.close()
        self._ours.close()


class KeptInstance:
    """One instance: its process, how it says it serves, and what is held for it until it has ended."""

    def __init__(self, child: Child, status: StatusRelay, begun: Begun, known: dict[str, Any]) -> None:
        self.child = child
        self.status = status
        self.known = known
        self.held = begun.held
        self.begun = begun

    @property
    def start(self) -> dict[str, str]:
        """How it was started, `exec` or `zygote`; where another way was thought of, why not by that."""
        unfit = self.child.warden.report.hear().get("unfit", "")
        why = unfit or self.begun.why
        return {"kind": "exec" if why or self.begun.zygote is None else "zygote"} | ({"why": why} if why else {})

    def listed(self) -> dict[str, Any]:
        return self.known | {
            "pid": self.child.pid,
            "process_start": self.child.process_start,
            "announce": self.child.announce,
            "status": self.status.last,
            "stopping": self.child.stopping,
            "keep": list(self.held),
            "since": self.child.since,
            "start": self.start,
        }

    def close(self) -> None:
        self.status.close()
        self.begun.close()


class Instances:
    def __init__(self, loop: Loop, config: Config, roster: Roster, descriptors: tuple[int, int], tell: Tell) -> None:
        self._loop = loop
        self._config = config
        self._roster = roster
        self._descriptor_limit = descriptors
        self._tell = tell
        self._listeners = Listeners()
        self.zygotes = Zygotes(loop, roster, descriptors)
        self._begun: dict[int, Begun] = {}  # zygotes were asked for these
        self._kept: dict[int, KeptInstance] = {}
        self.draining = False
        self.on_empty: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Child]:
        return (kept.child for kept in self._kept.values())

    # what the orchestrator may ask

    def spawn(self, request: dict[str, Any], attached: Attachments) -> dict[str, Any] | Later:
        if self.draining:
            raise Refusal("unavailable", "the platform is stopping")
        number, deployment, label = request["instance"], request["deployment"], request["init"]["instance"]
        if number in self._kept or number in self._begun:
            raise Refusal("already_served", f"instance {label} runs already")
        # they become a path: the orchestrator is ours, and one of its defects must not write
        # elsewhere
        for name in (deployment, label):
            if not _PLAIN.match(name):
                raise Refusal("bad_name", f"{name!r} cannot name a log file")
        begun = Begun(request, _zygote(request))
        begun.why = (request.get("zygote") or {}).get("why", "")
        try:
            inherited = begun.take(attached)
            order, listen = self._order(request, label, inherited)
            heard, ended = functools.partial(self._heard, number), functools.partial(self._ended, number)
            child = Child(self._loop, order, self._log(request, label), self._config.line, heard, ended)
            if begun.zygote is not None and (later := self._fork(number, begun, child, listen)) is not None:
                return later
            return self._launch(number, begun, child, listen)
        except BaseException:
            begun.close()
            raise

    def _fork(self, number: int, begun: Begun, child: Child, listen: str | None) -> Later | None:
        """Have a zygote fork it; None where it is to be started otherwise, for a reason that is noted."""
        user = f"{begun.request['deployment']}/{begun.request['version']}"
        zygote = self.zygotes.of(begun.zygote, user) if begun.zygote is not None else ""
        if isinstance(zygote, str):
            begun.why = zygote
            return None
        later = Later()

        def done(why: str) -> None:
            del self._begun[number]
            begun.why = why
            if not later.wanted():
                self._nobodys(number, begun, child, there=not why)
            elif why:
                later.settle(lambda: self._instead(number, begun, child, listen))
            else:
                self.zygotes.forked(zygote)
                later.settle(lambda: self._keep(number, begun, child, listen))
                self._obey(number, begun)

        try:
            child.fork(zygote, done)
        except OSError as error:
            begun.why = f"its zygote cannot be asked: {error.strerror or error}"
            return None
        self._begun[number] = begun
        return later

    def _launch(self, number: int, begun: Begun, child: Child, listen: str | None) -> dict[str, Any]:
        child.launch(self._descriptor_limit)
        return self._keep(number, begun, child, listen)

    def _instead(self, number: int, begun: Begun, child: Child, listen: str | None) -> dict[str, Any]:
        """Started anew, since its zygote did not fork it."""
        try:
            if self.draining or begun.stop is not None:
                raise Refusal("unavailable", "it was asked to stop")
            return self._launch(number, begun, child, listen)
        except BaseException:
            begun.close()
            self._emptied()
            raise

    def _keep(self, number: int, begun: Begun, child: Child, listen: str | None) -> dict[str, Any]:
        # a lease that we held too would outlive its instance
        begun.theirs.close()
        request = begun.request
        status = StatusRelay(self._loop, functools.partial(self._pass_on, number))
        known = {key: request.get(key) for key in ("instance", "deployment", "locator")} | {"listen": listen}
        kept = self._kept[number] = KeptInstance(child, status, begun, known)
        # after the start: until it is written, the parent-death signals end what a killed keeper
        # leaves
        self._roster.add(child.order.name, child.pid, child.process_start, child.order.marker, child.warden.pid)
        if begun.why:
            child.log.note(f"started without a zygote: {begun.why}")
        return {
            "pid": child.pid,
            "process_start": child.process_start,
            "listen": listen,
            "since": child.since,
            "start": kept.start,
        }

    def _obey(self, number: int, begun: Begun) -> None:
        """What was said while it was being forked."""
        kept = self._kept.get(number)
        if kept is not None and (begun.stop is not None or self.draining):
            kept.child.stop(*(begun.stop or (0.0, "the platform is stopping")))

    def _nobodys(self, number: int, begun: Begun, child: Child, *, there: bool) -> None:
        """Whoever asked for it is gone, and who came after has never heard of it."""
        if there:
            self._keep(number, begun, child, None)
            child.stop(0.0, "nobody waits for it")
            return
        begun.close()
        child.log.close()
        self._tell_end(number, None, None, stopped=True, tail=[])
        self._emptied()

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
        stop = request["grace_ms"] / 1000, request.get("reason", "")
        if (kept := self._kept.get(request["instance"])) is not None:
            kept.child.stop(*stop)
        elif (begun := self._begun.get(request["instance"])) is not None:
            begun.stop = stop
        return {}

    def announced(self, request: dict[str, Any], attached: Attachments) -> dict[str, Any]:
        """What was found out about an instance that does not announce itself."""
        kept = self._kept.get(request["instance"])
        if kept is None:
            return {}
        kept.child.announce = request["announce"]
        self._learn(kept)
        return {"start": kept.start}

    def lend(self, request: dict[str, Any], attached: Attachments) -> dict[str, Any]:
        """A copy of a descriptor that is kept for an instance."""
        kept = self._kept.get(request["instance"])
        if kept is None or request["name"] not in kept.held:
            raise Refusal("not_found", f"no {request['name']!r} is kept for instance {request['instance']}")
        attached.give(request["name"], kept.held[request["name"]])
        return {}

    def note(self, request: dict[str, Any], attached: Attachments) -> dict[str, Any]:
        """A line for the log of an instance: what was found out about it from outside."""
        kept = self._kept.get(request["instance"])
        if kept is not None:
            kept.child.log.note(request["text"], request.get("level", "info"))
        return {}

    def forget(self, request: dict[str, Any], attached: Attachments) -> dict[str, Any]:
        """Close the listeners of a deployment, or those of a version of it."""
        version = request.get("version", "")
        self._listeners.close_under(f"{request['deployment']}/{version}/" if version else f"{request['deployment']}/")
        self.zygotes.forget(f"{request['deployment']}/{version}")
        return {}

    def list(self, request: dict[str, Any], attached: Attachments) -> dict[str, Any]:
        return {"instances": [kept.listed() for kept in self._kept.values()], "zygotes": self.zygotes.listed()}

    # what happens to them

    def _heard(self, number: int, child: Child, message: dict[str, Any]) -> None:
        match message.get("op"):
            case "announce":
                kept = self._kept[number]
                announced = {"event": "announced", "instance": number, "announce": child.announce}
                self._tell({**announced, "status": kept.status.last, "start": kept.start})
                self._learn(kept)
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
        kept = self._kept.pop(instance)
        self._learn(kept)
        kept.close()
        self._roster.drop(child.pid)
        self._tell_end(instance, code, number, stopped=child.stopping, tail=list(child.log.tail))
        self._emptied()

    def _tell_end(
        self, instance: int, code: int | None, number: int | None, *, stopped: bool, tail: Sequence[dict[str, Any]]
    ) -> None:
        end = {"instance": instance, "code": code, "signal": number, "stopped": stopped, "tail": tail}
        self._tell({"event": "exited", **end})

    def _learn(self, kept: KeptInstance) -> None:
        """What it has imported, if it has ever served: the next one is to find that imported."""
        begun = kept.begun
        if begun.imports is not None and begun.zygote is not None and kept.child.announce is not None:
            self.zygotes.learned(begun.zygote.key, begun.imports.names())

    def _emptied(self) -> None:
        if not self._kept and not self._begun:
            self.on_empty()

    def drain(self, grace: float) -> None:
        """Stop them all and start none; `on_empty` is called when the last has gone."""
        self.draining = True
        self.zygotes.close()
        for child in self:
            child.stop(grace, "the platform is stopping")
        self._emptied()

    def close(self) -> None:
        self.zygotes.close()
        self._listeners.close_all()


def _zygote(request: dict[str, Any]) -> ZygoteOrder | None:
    """The zygote that may fork what is asked for, if there is to be one."""
    asked = request.get("zygote")
    # who speaks over its own streams is no script of ours
    if asked is None or "why" in asked or {"stdin", "stdout"} & set(request.get("inherit", ())):
        return None
    platform = str(request["init"].get("platform") or "")
    return ZygoteOrder(
        asked["key"], request["argv"], asked["env"], request["cwd"], platform, asked["memory"], asked.get("sandbox")
    )


def _taken(attached: Attachments, name: str, until: contextlib.ExitStack) -> int:
    """A descriptor that came with the request, closed with `until`."""
    descriptor = attached.take(name)
    until.callback(os.close, descriptor)
    return descriptor
