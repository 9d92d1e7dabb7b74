"""One instance seen from outside: the outer end of the handshake, and what is shown of it in Discovery.

Law: the state follows the one table (`core.instance.MOVES`); what the process says decides, and its end decides over that.
What it says of itself while it serves changes marks, endpoints and data of its record, never the state.
"""

from __future__ import annotations

import signal
from typing import Any

import msgspec

from bema.core.errors import ProtocolError
from bema.core.instance import Instance, State, move
from bema.runtime.discovery.records import LARGEST
from bema.wire.module.handshake import Announce
from bema.wire.module.messages import Status

NAMESPACE = "functions"  # where scripts that are no services are shown


class Supervised:
    """`init` is what the process was told; `since` is the instant of its start."""

    def __init__(self, instance: int, init: dict[str, Any], *, pid: int, process_start: int, listen: str, since: int):
        self.instance = instance
        self.init = init
        self.pid = pid
        self.process_start = process_start
        self.listen = listen
        self.since = since
        self.state = State.STARTING
        self.announce: dict[str, Any] | None = None
        self.fault: tuple[str, str] | None = None  # why we end it: (cause, sentence)
        self._status = Status()
        self._announced: Instance | None = None  # its record as it was announced

    @property
    def kind(self) -> str:
        return str((self.init.get("entry") or {}).get("kind", "main"))

    def announced(self, announce: dict[str, Any], now: int) -> Instance:
        """It serves: the record to show. `ProtocolError` when what it said cannot be understood."""
        try:
            said = msgspec.convert({"op": "announce", **announce}, Announce)
        except msgspec.ValidationError as error:
            raise ProtocolError(f"its announcement cannot be read: {error}") from error
        self.state = move(self.state, State.SERVING)
        self.announce = announce
        init = self.init
        self._announced = Instance(
            id=self.instance,
            namespace=said.namespace or init.get("namespace") or NAMESPACE,
            component=said.name or init.get("name") or "script",
            endpoints=tuple(said.operations or ()),
            addresses=self._addresses(said),
            deployment=init.get("deployment") or "",
            version=init.get("version") or "",
            pid=self.pid,
            process_start=self.process_start,
            token=init.get("auth_token") or "",
            since=now,
            data={"kind": said.kind or self.kind, "phases": said.phases or {}},
            digest=said.digest or "",
        )
        return self._shown()

    def told(self, status: dict[str, Any]) -> Instance | None:
        """How it serves now: the record to show, if that changes one that is shown. `ProtocolError` when what it said
        cannot be understood, or is more than a record holds."""
        try:
            said = msgspec.convert({**status, "op": "status"}, Status)
        except msgspec.ValidationError as error:
            raise ProtocolError(f"its status cannot be read: {error}") from error
        before, self._status = self._status, said
        if self._announced is not None and len(msgspec.json.encode(self._shown())) > LARGEST:
            self._status = before
            raise ProtocolError(f"its status makes a record of more than {LARGEST} bytes")
        return self.record if said != before else None

    @property
    def ready(self) -> bool:
        return self._status.ready

    @property
    def stalled(self) -> bool:
        return self._status.stalled

    @property
    def record(self) -> Instance | None:
        """What is to be shown of it now; None before it announced itself, and when it is gone."""
        shown = self._announced is not None and self.state in (State.SERVING, State.DRAINING)
        return self._shown() if shown else None

    def _shown(self) -> Instance:
        assert self._announced is not None
        said, announced = self._status, self._announced
        return msgspec.structs.replace(
            announced,
            state=self.state,
            ready=said.ready,
            stalled=said.stalled,
            endpoints=announced.endpoints if said.operations is None else tuple(said.operations),
            data={**announced.data, **(said.data or {})},
            digest=announced.digest if said.digest is None else said.digest,
        )

    def _addresses(self, said: Announce) -> dict[str, tuple[str, ...]]:
        if said.addresses:
            return {protocol: tuple(addresses) for protocol, addresses in said.addresses.items()}
        return {"rpc" if self.kind == "service" else "http": (self.listen,)}

    def draining(self) -> Instance | None:
        """It was asked to stop: the record to show, if it was shown before."""
        if self.state is not State.DRAINING:
            self.state = move(self.state, State.DRAINING)
        return self.record

    def ended(self, code: int | None, number: int | None, *, stopped: bool) -> tuple[str, str]:
        """(cause, sentence) of its end."""
        asked = stopped or self.state is State.DRAINING
        how = f"it ended with code {code}" if number is None else f"it was ended by {_name(number)}"
        cause, how = self.fault or ("stopped" if asked else "exited", how)
        self.state = move(self.state, State.GONE if cause == "stopped" else State.FAILED)
        return cause, how


def found_at(address: str, phases: dict[str, int]) -> dict[str, Any]:
    """The announcement of a program that makes none, from where it was found to listen."""
    return {
        "listen": address.partition(":")[2],
        "endpoints": [],
        "kind": "main",
        "addresses": {"http": [address]},
        "phases": phases,
    }


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
