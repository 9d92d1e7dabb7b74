"""What the store holds, as its readers see it: made of the engine's changes, one after the other.

Law: a change that was seen already changes nothing, so scanning and watching may overlap.
"""

from __future__ import annotations

import logging
from urllib.parse import unquote

from bema.core.access import LOCAL_ADMIN
from bema.deploy.model.deployment import Fault, Rollout, VersionStatus
from bema.deploy.store.records import (
    NAMES,
    DataFolder,
    StoredReply,
    UnreadableDeployment,
    deployment_key,
    read,
    read_deployment,
    read_status,
    status_key,
)
from bema.state.engine import StateChange

logger = logging.getLogger(__name__)


class Picture:
    """Facts, folders of data and replies are by their keys, replies in the order they were given."""

    def __init__(self) -> None:
        self.rollouts: dict[str, Rollout] = {}
        self.unreadable: dict[str, UnreadableDeployment] = {}
        self.replies: dict[str, StoredReply] = {}
        self.facts: dict[str, str] = {}
        self.data: dict[str, DataFolder] = {}
        self.unreadable_data: set[str] = set()
        self._named: dict[str, str] = {}  # the key of a name -> id
        self.revisions: dict[str, int] = {}
        self._names: dict[str, str] = {}  # and the other way
        self._statuses: dict[str, dict[str, VersionStatus]] = {}

    def show(self, change: StateChange) -> None:
        # scanned and watched at once: what is older than what is known was seen in both
        if change.revision <= self.revisions.get(change.key, 0):
            return
        if change.value is None:
            self.revisions.pop(change.key, None)
        else:
            self.revisions[change.key] = change.revision
        kind, _, rest = change.key.partition("/")
        match kind:
            case "deployments":
                self._show_deployment(rest, change.value)
            case "status":
                self._show_status(*rest.rpartition("/")[::2], change.value)
            case "names":
                self._show_name(change.key, change.value)
            case "replies":
                self._show_reply(change.key, change.value)
            case "facts":
                self._show_fact(change.key, change.value)
            case "data":
                self._show_data(change.key, change.value)

    def settle(self) -> None:
        """After a scan, which comes in the order of keys: replies in the order they were given."""
        self.replies = dict(sorted(self.replies.items(), key=lambda item: self.revisions[item[0]]))

    def named(self, key: str) -> str | None:
        """The id that has the name of that key."""
        return self._named.get(key)

    def keys_of(self, id: str) -> list[str]:
        """All keys that are about a deployment."""
        statuses = [status_key(id, label) for label in self._statuses.get(id, ())]
        mine = [self._names[id]] if id in self._names else []
        return [key for key in (deployment_key(id), *statuses, *mine) if key in self.revisions]

    def _show_deployment(self, id: str, value: bytes | None) -> None:
        self.unreadable.pop(id, None)
        found = None if value is None else read_deployment(id, value)
        if found is None:
            self.rollouts.pop(id, None)
        elif isinstance(found, Fault):
            self.rollouts.pop(id, None)
            self.unreadable[id] = UnreadableDeployment(id, *self._owner_and_name(id), found)
            logger.error("deployment %s is set aside: %s", id, found.message)
        else:
            # its statuses may be here already: records are shown one by one
            self.rollouts[id] = Rollout(found, self._statuses.get(id, {}))

    def _show_status(self, id: str, label: str, value: bytes | None) -> None:
        statuses = {other: status for other, status in self._statuses.get(id, {}).items() if other != label}
        if value is not None:
            statuses[label] = read_status(value)
        if statuses:
            self._statuses[id] = statuses
        else:
            self._statuses.pop(id, None)
        if id in self.rollouts:
            self.rollouts[id] = Rollout(self.rollouts[id].deployment, statuses)

    def _show_name(self, key: str, value: bytes | None) -> None:
        self._names.pop(self._named.pop(key, ""), None)
        if value is None:
            return
        id = value.decode(errors="replace")
        self._names[id], self._named[key] = key, id
        if id in self.unreadable:
            aside = self.unreadable[id]
            self.unreadable[id] = UnreadableDeployment(id, *self._owner_and_name(id), aside.fault)

    def _owner_and_name(self, id: str) -> tuple[str, str]:
        """As `UnreadableDeployment` has them; what has no name is the administrator's."""
        owner, _, name = self._names.get(id, "").removeprefix(NAMES).partition("/")
        return (unquote(name), unquote(owner)) if name else (id, LOCAL_ADMIN.subject)

    def _show_reply(self, key: str, value: bytes | None) -> None:
        self.replies.pop(key, None)
        if value is None:
            return
        found = read(value, StoredReply)
        if isinstance(found, Fault):
            logger.warning("an answer is forgotten: %s", found.message)
        else:
            self.replies[key] = found

    def _show_fact(self, key: str, value: bytes | None) -> None:
        self.facts.pop(key, None)
        if value is not None:
            self.facts[key] = value.decode(errors="replace")

    def _show_data(self, key: str, value: bytes | None) -> None:
        self.data.pop(key, None)
        self.unreadable_data.discard(key)
        if value is None:
            return
        found = read(value, DataFolder)
        if isinstance(found, Fault):
            # whose folder it is is not known: until somebody mends it, no folder counts as nobody's
            self.unreadable_data.add(key)
            logger.error("the record of a folder of data cannot be read: %s", found.message)
        else:
            self.data[key] = found
