"""The keys of what is stored of deployments, and the records under them.

Desired state and status lie under keys of their own, so that a start writes one small record and nothing else:

    deployments/ID       Deployment, as JSON       status/ID/LABEL   VersionStatus, as JSON
    names/OWNER/NAME     the ID that has the name  replies/DIGEST    StoredReply of an idempotency key
    facts/NAME           a text                    data/OWNER/NAME   DataFolder, as JSON

Law: a record of the same bema comes back equal; what cannot be read is a finding, never the end of who reads it.
"""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from bema.core.problems import PROBLEMS
from bema.deploy.model.deployment import Build, Deployment, DeploymentInfo, Fault, Outward, VersionStatus
from bema.state.engine import Mutation

T = TypeVar("T")

DEPLOYMENTS, NAMES, STATUS, REPLIES, FACTS = "deployments/", "names/", "status/", "replies/", "facts/"
DATA = "data/"


class StoredReply(msgspec.Struct, frozen=True):
    """What a request with an idempotency key was answered, and the digest of what it had asked."""

    key: str
    request: str
    reply: bytes


class DataFolder(msgspec.Struct, frozen=True):
    """Where what was written by the functions of a name lies: it outlives each of them until it is purged."""

    id: str  # the folder's name, that of the first deployment that had it
    name: str
    owner: str
    kept: int = 0  # the instant since which no deployment has it; 0 while one has


class UnreadableDeployment(msgspec.Struct, frozen=True):
    """A deployment whose record cannot be read: set aside, and shown as failed."""

    id: str
    name: str
    owner: str
    fault: Fault
    created: int = 0  # in a list it comes before all others

    @property
    def state(self) -> str:
        return str(Outward.START_FAILED)

    def info(self) -> DeploymentInfo:
        """As the API shows it."""
        return DeploymentInfo(
            id=self.id,
            name=self.name,
            owner=self.owner,
            version="",
            state=self.state,
            kind="",
            created=self.created,
            updated=0,
            error=self.fault,
        )


def deployment_key(id: str) -> str:
    return DEPLOYMENTS + id


def name_key(owner: str, name: str) -> str:
    # quoted: read back it is split at the first '/', and an owner's name may have one
    return f"{NAMES}{quote(owner, safe='')}/{quote(name, safe='')}"


def data_key(owner: str, name: str) -> str:
    return f"{DATA}{quote(owner, safe='')}/{quote(name, safe='')}"


def status_key(id: str, label: str) -> str:
    return f"{STATUS}{id}/{label}"


def reply_key(key: str) -> str:
    """Keys of requests are whatever their senders like: any length, any character."""
    return REPLIES + hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def fact_key(name: str) -> str:
    return FACTS + quote(name, safe="")


def put(key: str, record: Any, if_revision: int | None = None) -> Mutation:
    return Mutation(key, msgspec.json.encode(record), if_revision)


def read(value: bytes, kind: type[T]) -> T | Fault:
    """A record, or what is wrong with it."""
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        return unreadable(f"the stored {kind.__name__.lower()} cannot be read: {error}")


def read_deployment(id: str, value: bytes) -> Deployment | Fault:
    found = read(value, Deployment)
    # everything is looked up by the key: under another id it could be neither stopped nor deleted
    if isinstance(found, Deployment) and found.id != id:
        return unreadable(f"the stored deployment has another id: {found.id}")
    return found


def read_status(value: bytes) -> VersionStatus:
    """One that cannot be read tells of a failed build, which is made again when somebody asks."""
    found = read(value, VersionStatus)
    return VersionStatus(build=Build(state="failed", fault=found)) if isinstance(found, Fault) else found


def unreadable(message: str) -> Fault:
    return Fault("record_unreadable", message, PROBLEMS["record_unreadable"].fix)
