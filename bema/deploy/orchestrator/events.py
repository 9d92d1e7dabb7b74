"""What became of each deployment, as a short memory of changes: one event for each.

Law: an event is made where what is told of a deployment is another than before, and nowhere else, so that it misses nothing that
`read` would have shown. It is in memory: the orchestrator that comes next remembers what it sees itself.
"""

from __future__ import annotations

import logging
from collections import deque

import msgspec

from bema.deploy.model.deployment import DeploymentInfo

logger = logging.getLogger(__name__)

_KEPT = 50


class DeploymentEvent(msgspec.Struct, frozen=True):
    """A change: the version that is about, the state it came to, and why where that is a failure."""

    at: int
    deployment: str
    version: str
    state: str
    share: int = 0
    message: str = ""


class DeploymentEvents:
    """The last changes of each deployment."""

    def __init__(self) -> None:
        self._events: dict[str, deque[DeploymentEvent]] = {}
        self._told: dict[str, dict[str, tuple[str, int]]] = {}

    def of(self, deployment: str, since: int = 0) -> list[DeploymentEvent]:
        return [event for event in self._events.get(deployment, ()) if event.at > since]

    def see(self, info: DeploymentInfo, at: int) -> None:
        """Note what is told of a deployment now."""
        shares = info.traffic
        seen = {info.version: (info.state, shares.get(info.version, 0), info.error)}
        if info.latest is not None:
            seen[info.latest.version] = (info.latest.state, shares.get(info.latest.version, 0), info.latest.error)
        before = self._told.get(info.id, {})
        for version, (state, share, error) in seen.items():
            if before.get(version) != (state, share):
                self._add(
                    DeploymentEvent(at, info.id, version, state, share, "" if error is None else error.message),
                    info.name,
                )
        self._told[info.id] = {version: (state, share) for version, (state, share, _) in seen.items()}

    def _add(self, event: DeploymentEvent, name: str) -> None:
        kept = self._events.setdefault(event.deployment, deque(maxlen=_KEPT))
        # who follows asks for what is later than the last it saw
        at = max(event.at, kept[-1].at + 1) if kept else event.at
        kept.append(msgspec.structs.replace(event, at=at))
        logger.info("%s %s is %s%s", name, event.version, event.state, f": {event.message}" if event.message else "")

    def forget(self, deployment: str) -> None:
        self._events.pop(deployment, None)
        self._told.pop(deployment, None)
