"""One instance as its launcher and the orchestrator see it: what is known from outside, beside the record it shows.

Law: the state follows the one table (`core.instance.MOVES`); NEW is one whose launcher was asked and has not answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from bema.core.instance import State, Terms
from bema.core.naming import show_instance_id


def chosen(replicas: Sequence[Replica], version: str = "", instance: str = "") -> Replica | None:
    """The one that is meant: of that version, with that label; of several the first that serves, else the first."""
    running = (each for each in replicas if each.state is not State.NEW)
    meant = [each for each in running if version in ("", each.version) and instance in ("", each.label)]
    return next((each for each in meant if each.state is State.SERVING), meant[0] if meant else None)


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """`announce` is what it said when it began to serve, or what was found out from outside."""

    instance: int
    deployment: str
    version: str
    state: State
    since: int  # microseconds UTC
    name: str = ""
    kind: str = "main"  # service, app, mcp or main: what the script was found to hold
    pid: int = 0  # 0 where its launcher knows of none
    listen: str = ""
    announce: dict[str, Any] | None = None
    ready: bool = True  # what it says of itself
    stalled: bool = False
    slot: int = 0  # which of its version's listeners it has
    share: int = 100  # what it is shown with
    terms: Terms = Terms()  # and this, too
    unshared: int = 0  # the instant from which it is shown without a share
    stands: str = ""  # where, while it is stalled

    @property
    def label(self) -> str:
        return show_instance_id(self.instance)

    @property
    def phases(self) -> dict[str, int]:
        """How long each step of its start took, in milliseconds."""
        return (self.announce or {}).get("phases") or {}

    def serving(self, announce: dict[str, Any], *, ready: bool = True) -> Replica:
        """The same, after it announced itself."""
        return msgspec.structs.replace(self, state=State.SERVING, announce=announce, ready=ready)

    def routed(self, share: int, terms: Terms, now: int) -> Replica:
        """The same, shown with another share of the requests."""
        unshared = 0 if share else self.unshared or now
        return msgspec.structs.replace(self, share=share, terms=terms, unshared=unshared)

    def marked(self, *, ready: bool, stalled: bool, stands: str = "") -> Replica:
        """The same, after it said how it serves. `stands` is nothing of one that goes on."""
        return msgspec.structs.replace(self, ready=ready, stalled=stalled, stands=stands if stalled else "")

    def standing(self, where: str) -> Replica:
        """The same, after it was found out where it stands; of one that went on meanwhile that is nothing any more."""
        return msgspec.structs.replace(self, stands=where if self.stalled else "")
