"""The layout that was released before the state engine, and how it is read.

It had four tables, and one record for all of a deployment. Law: nothing here changes any more. A deployment that cannot be
read is taken over as it is: it is shown as failed, and can be deleted, like any other that cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from bema.core.redaction import hides
from bema.deploy.model.bundle import Bundle
from bema.deploy.model.deployment import Build, Deployment, ScriptEntry, Version, VersionStatus
from bema.deploy.model.restarts import Attempt
from bema.deploy.store.records import StoredReply, deployment_key, fact_key, name_key, reply_key, status_key
from bema.state.engine import Kept, Older, Rows


class _Version(msgspec.Struct, kw_only=True):
    number: int
    digest: str  # of the code itself
    entry: ScriptEntry
    env: dict[str, str] = {}
    dependencies: tuple[str, ...] = ()
    requires_python: str = ""
    created: int = 0
    launcher: str = ""
    build: Build = Build()
    __repr__ = hides("env")


class _Deployment(msgspec.Struct, kw_only=True):
    id: str
    name: str
    owner: str
    versions: tuple[_Version, ...]
    created: int
    updated: int
    attempts: tuple[Attempt, ...] = ()  # of the newest version
    restarts: int = 0


def _convert(rows: Rows) -> Iterator[Kept]:
    bundles: dict[str, str] = {}
    for digest, code in rows("codes"):
        bundle = Bundle.of_script(bytes(code))
        bundles[digest] = bundle.digest
        yield bundle.encoded
    for id, owner, name, body in rows("deployments"):
        yield name_key(owner, name), id.encode()
        yield from _deployment(id, bytes(body), bundles)
    for key, request, reply in rows("answers"):
        yield reply_key(key), msgspec.json.encode(StoredReply(key, request, bytes(reply)))
    for name, value in rows("facts"):
        yield fact_key(name), value.encode()


def _deployment(id: str, body: bytes, bundles: dict[str, str]) -> Iterator[Kept]:
    try:
        old = msgspec.json.decode(body, type=_Deployment)
        new = Deployment(
            id=old.id,
            name=old.name,
            owner=old.owner,
            versions=tuple(_version(version, bundles) for version in old.versions),
            created=old.created,
            updated=old.updated,
        )
    except (msgspec.DecodeError, ValueError, RecursionError):
        yield deployment_key(id), body
        return
    yield deployment_key(id), msgspec.json.encode(new)
    for version in old.versions:
        status = VersionStatus(build=version.build, updated=old.updated)
        # it kept one history for all, which was that of the newest
        if version is old.versions[-1]:
            status = msgspec.structs.replace(status, attempts=old.attempts, restarts=old.restarts)
        yield status_key(id, f"v{version.number}"), msgspec.json.encode(status)


def _version(old: _Version, bundles: dict[str, str]) -> Version:
    return Version(
        number=old.number,
        digest=bundles.get(old.digest, old.digest),
        entry=old.entry,
        env=old.env,
        dependencies=old.dependencies,
        requires_python=old.requires_python,
        created=old.created,
        launcher=old.launcher,
    )


RELEASED = Older(
    tables={
        "codes": ("digest", "code"),
        "deployments": ("id", "owner", "name", "body"),
        "answers": ("key", "request", "reply"),
        "facts": ("name", "value"),
    },
    convert=_convert,
)
