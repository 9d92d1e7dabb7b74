"""The lock file of plugins: what was installed when somebody looked and agreed. Written by `bema plugins lock`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from bema.core.errors import Refused
from bema.parts.entries import PartEntry
from bema.parts.policy import Locked
from bema.parts.provenance import is_editable, record_digest


class LockFile(msgspec.Struct, frozen=True):
    """Sorted rows, so that two machines with the same plugins write the same bytes."""

    version: int = 1
    plugins: tuple[Locked, ...] = ()


def lockable(entries: Iterable[PartEntry]) -> tuple[LockFile, list[str]]:
    """The lock of these entries, and a sentence for each that cannot be pinned."""
    rows: set[Locked] = set()
    problems: list[str] = []
    for entry in entries:
        digest = record_digest(entry.path)
        if is_editable(entry.path):
            problems.append(f"{entry.label} is editable: its RECORD does not cover its code")
        elif not digest:
            problems.append(f"{entry.label} has no RECORD")
        else:
            rows.add(Locked(entry.group, entry.name, entry.reference, entry.dist, entry.version, digest))
    return LockFile(plugins=tuple(sorted(rows))), sorted(problems)


def encode(lock: LockFile) -> bytes:
    return msgspec.json.format(msgspec.json.encode(lock), indent=2) + b"\n"


def read_lock(path: Path) -> frozenset[Locked]:
    """The rows of a lock file; `Refused` when it is missing or malformed: without it nothing can be trusted."""
    try:
        lock = msgspec.json.decode(path.read_bytes(), type=LockFile)
    except OSError as error:
        raise Refused(
            f"the lock file of plugins cannot be read: {error}", fix="Write one with `bema plugins lock`."
        ) from error
    except msgspec.MsgspecError as error:
        raise Refused(
            f"{path} is not a lock file of plugins: {error}", fix="Write one with `bema plugins lock`."
        ) from error
    # a newer form may say more than this reads
    if lock.version != 1:
        raise Refused(f"{path} is of version {lock.version}; this bema reads version 1")
    return frozenset(lock.plugins)


def differences(locked: Iterable[Locked], now: Iterable[Locked]) -> list[str]:
    """What changed since the lock was written, one sentence each."""
    old, new = ({(r.group, r.name, r.dist): r for r in rows} for rows in (locked, now))
    sentences = [
        f"{dist}:{name} ({group}) is not in the lock file" for group, name, dist in sorted(new.keys() - old.keys())
    ]
    sentences += [
        f"{dist}:{name} ({group}) is locked and not installed" for group, name, dist in sorted(old.keys() - new.keys())
    ]
    for key in sorted(old.keys() & new.keys()):
        changed = [f for f in ("value", "version", "record") if getattr(old[key], f) != getattr(new[key], f)]
        if changed:
            sentences.append(
                f"{key[2]}:{key[1]} ({key[0]}) changed its {', '.join(changed)} since the lock was written"
            )
    return sentences
