"""One instance supervised from outside: the outer end of the handshake, and what is shown of it in Discovery.

Law: the state follows the one table (`core.instance.MOVES`); what the process says decides, and its end decides over that.
What it says of itself while it serves changes marks, endpoints and data of its record, never the state.
"""

from __future__ import annotations

import signal
from typing import Any

import msgspec

from bema.core.errors import ProtocolError
from bema.core.instance import DEPLOYED, Instance, State, Terms, move
from bema.deploy.model.replica import Replica
from bema.runtime.discovery.discovery import LARGEST
from bema.wire.module.handshake import Announce
from bema.wire.module.messages import Status

NAMESPACE = "functions"  # where scripts that are no services are shown


class Supervision:
    """`replica` is what is known of it, `record` what is to be shown of it; `token` is what its callers need,
    `isolation` what it has entered."""

    def __init__(
        self, replica: Replica, *, process_start: int = 0, token: str = "", isolation: dict[str, Any] | None = None
    ) -> None:
        self.replica = replica
        self.fault: tuple[str, str] | None = None  # why we end it: (cause, sentence)
        self.stood = ""  # where it did shortly before it was to be killed
        self.process_start = process_start
        self._token = token
        self._isolation = {"isolation": isolation} if isolation else {}
        # it may say how it serves before it announces: that is kept, and shown with the
        # announcement
        self._status = Status()
        self._announced: Instance | None = None  # its record as it was announced

    def announced(self, announce: dict[str, Any], now: int) -> Instance:
        """It serves: the record to show. `ProtocolError` when what it said cannot be understood."""
        try:
            said = msgspec.convert({"op": "announce", **announce}, Announce)
        except msgspec.ValidationError as error:
            raise ProtocolError(f"its announcement cannot be read: {error}") from error
        move(self.replica.state, State.SERVING)
        replica = self.replica = self.replica.serving(announce, ready=self._status.ready)
        self._announced = Instance(
            id=replica.instance,
            namespace=said.namespace or NAMESPACE,
            component=said.name or replica.name or "script",
            endpoints=tuple(said.operations or ()),
            addresses=self._addresses(said),
            deployment=replica.deployment,
            version=replica.version,
            pid=replica.pid,
            process_start=self.process_start,
            token=self._token,
            since=now,
            data={"kind": said.kind or replica.kind, "phases": said.phases or {}} | self._isolation,
            digest=said.digest or "",
            lane=f"{DEPLOYED}{replica.name or replica.deployment}",
            share=replica.share,
            terms=replica.terms,
        )
        return self._shown()

    def moved(self, announce: dict[str, Any]) -> Instance | None:
        """It listens elsewhere than it was found: the record to show, if one is shown."""
        if self._announced is None:
            return None
        said = msgspec.convert({"op": "announce", **announce}, Announce)
        self.replica = msgspec.structs.replace(self.replica, listen=announce["listen"])
        self._announced = msgspec.structs.replace(self._announced, addresses=self._addresses(said))
        return self.record

    def routed(self, share: int, terms: Terms, now: int) -> Instance | None:
        """It has another share of the requests: the record to show, if one is shown."""
        self.replica = self.replica.routed(share, terms, now)
        if self._announced is not None:
            self._announced = msgspec.structs.replace(self._announced, share=share, terms=terms)
        return self.record

    def told(self, status: dict[str, Any]) -> Instance | None:
        """How it serves now: the record to show, if that changes one that is shown. `ProtocolError` when what it said
        cannot be understood, or is more than a record holds."""
        try:
            said = msgspec.convert({**status, "op": "status"}, Status)
        except msgspec.ValidationError as error:
            raise ProtocolError(f"its status cannot be read: {error}") from error
        before, self._status = self._status, said
        # asked before it is taken in: a record that cannot be written would freeze the marks as
        # well
        if self._announced is not None and len(msgspec.json.encode(self._shown())) > LARGEST:
            self._status = before
            raise ProtocolError(f"its status makes a record of more than {LARGEST} bytes")
        self.replica = self.replica.marked(ready=said.ready, stalled=said.stalled, stands=self.replica.stands)
        return self.record if said != before else None

    def stands(self, where: str) -> Instance | None:
        """Where it stands while it is stalled: the record to show, if one is shown."""
        self.replica = self.replica.standing(where)
        return self.record

    @property
    def record(self) -> Instance | None:
        """What is to be shown of it now; None before it announced itself, and when it is gone."""
        shown = self._announced is not None and self.replica.state in (State.SERVING, State.DRAINING)
        return self._shown() if shown else None

    def _shown(self) -> Instance:
        assert self._announced is not None
        said, announced = self._status, self._announced
        return msgspec.structs.replace(
            announced,
            state=self.replica.state,
            ready=said.ready,
            stalled=said.stalled,
            endpoints=announced.endpoints if said.operations is None else tuple(said.operations),
            data={**announced.data, **(said.data or {}), **self._found()},
            digest=announced.digest if said.digest is None else said.digest,
        )

    def _found(self) -> dict[str, str]:
        return {"stands": self.replica.stands} if self.replica.stands else {}

    def _addresses(self, said: Announce) -> dict[str, tuple[str, ...]]:
        if said.addresses:
            return {protocol: tuple(addresses) for protocol, addresses in said.addresses.items()}
        return {"rpc" if self.replica.kind == "service" else "http": (self.replica.listen,)}

    def draining(self) -> Instance | None:
        """It was asked to stop: the record to show, if it was shown before."""
        if self.replica.state is not State.DRAINING:
            self._move(State.DRAINING)
        return self.record

    def ended(self, code: int | None, number: int | None, *, stopped: bool) -> tuple[str, str]:
        """(cause, sentence) of its end."""
        asked = stopped or self.replica.state is State.DRAINING
        how = f"it ended with code {code}" if number is None else f"it was ended by {_name(number)}"
        if number == signal.SIGKILL and self.stood:
            how = f"{how}: it stood in {self.stood}"
        # we ended it for a reason that its exit code does not know
        cause, how = self.fault or ("stopped" if asked else "exited", how)
        self._move(State.GONE if cause == "stopped" else State.FAILED)
        return cause, how

    def _move(self, to: State) -> None:
        self.replica = msgspec.structs.replace(self.replica, state=move(self.replica.state, to))


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
