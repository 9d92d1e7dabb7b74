"""The files of the discovery folder: per instance a record, replaced by rename, and a lock file held for life.

Law: lock first, record second; whoever removes a dead instance's files takes its lock before. So a record without a held
lock is always a leftover, and nobody ever removes what somebody lives by.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bema.core.deferred import deferred
from bema.core.errors import Conflict, Invalid, Refused
from bema.core.instance import Instance
from bema.core.naming import read_instance_id, show_instance_id
from bema.runtime import processes
from bema.runtime.discovery.discovery import LARGEST as LARGEST
from bema.runtime.folders import prepare as prepare

if TYPE_CHECKING:
    from bema.state import reserve
else:  # for a disk that is full
    reserve = deferred("bema.state.reserve")

RECORD = ".json"
LOCK = ".lock"
RESERVED = 256 * 1024  # bytes
ORPHAN_AGE = 60.0  # a lock file without a record may be about to get one


@functools.cache
def _decoder() -> msgspec.json.Decoder[Instance]:
    """Made for the first record that is read, which a process that serves alone never does."""
    return msgspec.json.Decoder(Instance)


def record_path(directory: Path, instance_id: int) -> Path:
    return directory / (show_instance_id(instance_id) + RECORD)


def lock_path(directory: Path, instance_id: int) -> Path:
    return directory / (show_instance_id(instance_id) + LOCK)


def write_record(directory: Path, instance: Instance) -> None:
    """Show `instance`, at once and whole. Its lock is held already."""
    path = record_path(directory, instance.id)
    try:
        _write(path, msgspec.json.encode(instance), directory)
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}", code="state_unwritable") from error


def _write(path: Path, record: bytes, directory: Path) -> None:
    # renamed when it is whole: a reader sees the old record or the new one, never a half
    draft = path.with_name(f".{path.name}")
    room = None
    try:
        while True:
            try:
                with open(draft, "wb", opener=_private) as file:
                    file.write(record)
                draft.rename(path)
                return
            except OSError as error:
                # on a full disk nobody would find the platform any more, to remove what fills it
                if room is not None or error.errno != errno.ENOSPC:
                    raise
                room = reserve.Reserve(directory, RESERVED)
                if not room.release():
                    raise
    finally:
        if room is not None:
            room.fill()


def set_aside(directory: Path) -> None:
    """Keep room for the records of those that start while the disk is full."""
    reserve.Reserve(directory, RESERVED).fill()


def remove_record(directory: Path, instance_id: int) -> None:
    """Take the record away, and its lock file. Safe to call twice."""
    record_path(directory, instance_id).unlink(missing_ok=True)
    lock_path(directory, instance_id).unlink(missing_ok=True)


def read_record(directory: Path, label: str) -> Instance | None:
    """The record of that label: None where there is none, `ValueError` where it is not one of ours."""
    try:
        # a record is a regular file: a link may lead anywhere, and the opening of a pipe would wait
        # for its writer
        descriptor = os.open(directory / (label + RECORD), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
            raise ValueError("not a regular file of this user")
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"larger than {LARGEST} bytes")
    instance = _decoder().decode(data)
    if instance.id != read_instance_id(label):
        raise ValueError("its id is not its name")
    return instance


def hold(directory: Path, instance_id: int) -> int:
    """Lock the instance's lock file for as long as the descriptor stays open; `Conflict` when somebody holds it."""
    path = lock_path(directory, instance_id)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            if not _try_lock(descriptor, fcntl.LOCK_EX):
                raise Conflict(f"instance {show_instance_id(instance_id)} is held already", code="already_served")
            if _is_held_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_held_at(path: Path, descriptor: int) -> bool:
    """Whether `path` still is the file we locked: it may have been removed as a leftover between open and lock."""
    try:
        other = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        if not os.path.sameopenfile(descriptor, other):
            return False
        if _try_lock(other, fcntl.LOCK_SH):
            raise Refused(f"{path} can be locked twice: its file system has no working flock", code="no_flock")
        return True
    finally:
        os.close(other)


def lock_of(directory: Path, instance: Instance) -> int | None:
    """A descriptor of its lock file while it is alive: it tells whether it still is when its files were taken away."""
    try:
        descriptor = os.open(lock_path(directory, instance.id), os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        alive = still_alive(descriptor, instance)
    except BaseException:
        os.close(descriptor)
        raise
    if alive:
        return descriptor
    os.close(descriptor)
    return None


def still_alive(descriptor: int, instance: Instance) -> bool:
    if _try_lock(descriptor, fcntl.LOCK_SH):
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # it stays open here, and would keep who buries the rest from it
        return False
    return instance.pid == 0 or (_judged_by_pid(instance) and processes.is_same(instance.pid, instance.process_start))


def _judged_by_pid(instance: Instance) -> bool:
    # the same number is another process in another namespace
    return instance.pid_namespace in (0, processes.own_namespace(os.getpid()))


def is_elsewhere(directory: Path, instance: Instance) -> bool:
    """Whether it holds its lock in another PID namespace, where its pid is not ours to look at."""
    if _judged_by_pid(instance):
        return False
    try:
        descriptor = os.open(lock_path(directory, instance.id), os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def strangers(directory: Path) -> Iterator[Instance]:
    """Those of a folder that are elsewhere, for who looks once."""
    for path in directory.glob(f"*{RECORD}"):
        with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError, Invalid):
            instance = read_record(directory, path.stem)
            if instance is not None and is_elsewhere(directory, instance):
                yield instance


def of_stranger(instance: Instance) -> str:
    """A sentence about one that `is_elsewhere`."""
    return (
        f"an instance of {instance.component_address} (pid {instance.pid} on {instance.host or 'an unnamed host'}) is of"
        " another PID namespace, as in a container, and is not seen from here"
    )


def bury(directory: Path, instance: Instance) -> None:
    """Remove what a dead instance left: its sockets, its record, its lock file. Does nothing while the lock is held."""
    try:
        # by its lock: whoever lives holds it, so that nothing of a living one is removed
        descriptor = hold(directory, instance.id)
    except (Conflict, OSError):
        return
    try:
        for address in instance.addresses.get("rpc", ()):
            if address.startswith("unix:") and address.endswith(f"/{instance.label}.sock"):
                with contextlib.suppress(OSError):
                    Path(address.removeprefix("unix:")).unlink(missing_ok=True)
        remove_record(directory, instance.id)
    finally:
        os.close(descriptor)


def bury_orphans(directory: Path, labels: set[str]) -> None:
    """Remove lock files that never got a record, and drafts that were never shown."""
    for path in directory.iterdir():
        draft = path.name.startswith(".") and path.suffix == RECORD
        if not draft and (path.suffix != LOCK or path.stem in labels):
            continue
        with contextlib.suppress(OSError, Conflict, Invalid):
            if time.time() - path.stat().st_mtime > ORPHAN_AGE:
                if not draft:
                    os.close(hold(directory, read_instance_id(path.stem)))
                path.unlink(missing_ok=True)


def next_fence(directory: Path) -> int | None:
    """The next number of this folder's counter, or None while another process counts."""
    descriptor = os.open(directory / ".fence", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        if not _try_lock(descriptor, fcntl.LOCK_EX):
            return None
        last = os.pread(descriptor, 32, 0).strip()
        fence = (int(last) if last.isdigit() else 0) + 1
        os.pwrite(descriptor, b"%020d\n" % fence, 0)
        return fence
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise Refused(f"flock does not work here: {error.strerror}", code="no_flock") from error
    return True


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
