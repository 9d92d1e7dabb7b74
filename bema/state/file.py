"""A state's SQLite file, as the one thread that owns its connection sees it. Nothing here waits for anybody else.

Laws: a group is one transaction, so one sync covers all callers in it; who asked for another revision fails alone, before
anything is written. A commit that fails fails every caller of its group, but on a full disk: there, who takes away more
than it adds succeeds. When the disk itself failed, what it holds is no longer known, and nothing more is written until the
file is opened again.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bema.core.errors import BemaError, Refused
from bema.state.engine import LAST, Entry, Mutation, Older, RevisionConflict, Row, StateChange, digest_of, no_blob
from bema.state.layout import bring_up
from bema.state.lock import FileLock
from bema.state.reserve import SIZE, Reserve

T = TypeVar("T")

_ROWS = 128
"""Rows of one statement. Each statement lets go of the interpreter once: a row at a time would do so for each row."""
_DISK = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY})


class _DiskFull(Refused):
    """Nothing was written, and nothing is broken."""


class _Taken(Exception):
    """A key that was taken for new is there; nothing was written."""


class Committed(NamedTuple):
    """What became of a group: for each caller a revision or an error, and the changes, in order."""

    outcomes: list[int | BemaError]
    changes: list[StateChange]
    revision: int


class SqliteFile:
    """`open` first. Every method may raise `Refused` (state_unwritable); writes (state_failed) too."""

    def __init__(self, path: Path, older: Older | None = None) -> None:
        self._path = path
        self._older = older
        self._lock = FileLock(path)
        self._reserve = Reserve(path.parent)
        self._db: sqlite3.Connection | None = None
        self._revision = 0
        self._failure = ""

    def open(self) -> int:
        """Take the file, bring it up to date; gives its revision."""
        self._lock.take()
        try:
            self._sync_what_was_left()
            # isolation_level None: transactions begin where we say so
            self._db = sqlite3.connect(self._path, isolation_level=None, cached_statements=4 * _ROWS)
            bring_up(self._db, self._path, self._older)
            # what a statement may have to undo stays in memory, and needs no file of its own
            self._db.execute("PRAGMA temp_store = MEMORY")
            (self._revision,) = self._db.execute("SELECT revision FROM counter").fetchone()
            self._reserve.fill()
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise self._refused("opened", error) from error
        except BaseException:
            self.close()
            raise
        return self._revision

    def _sync_what_was_left(self) -> None:
        """An owner that was killed wrote what it had not synced, and it reads as committed: so it is made, before anybody is told.

        Before the file is connected to: closing a descriptor lets go of the locks that the process has on that file.
        """
        for path in (self._path, self._path.with_name(f"{self._path.name}-wal")):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None
        self._lock.release()

    # writing

    def apply(self, groups: Sequence[Sequence[Mutation]]) -> Committed:
        """Commit what many callers asked for, in their order."""
        try:
            done = self._committed(groups, self._commit)
            if self._reserve.short:
                self._reserve.fill()
            return done
        except _DiskFull as error:
            return self._freed(groups, error)
        except Refused as error:
            return Committed([error] * len(groups), [], self._revision)

    def _committed(
        self, groups: Sequence[Sequence[Mutation]], commit: Callable[[Committed, set[str]], None]
    ) -> Committed:
        self._must_write()
        asked = {m.key for group in groups for m in group if m.if_revision is not None or m.value is None}
        # a key that must not be there is mostly not: nobody looks, and where it is its row is refused
        new = asked.difference(m.key for group in groups for m in group if m.if_revision or m.value is None)
        try:
            return self._tried(groups, asked - new, new, commit)
        except _Taken:
            return self._tried(groups, asked, set(), commit)

    def _tried(
        self,
        groups: Sequence[Sequence[Mutation]],
        looked: set[str],
        new: set[str],
        commit: Callable[[Committed, set[str]], None],
    ) -> Committed:
        committed = self._decide(groups, self._revisions(looked))
        if committed.revision > self._revision:
            commit(committed, new)
        self._revision = committed.revision
        return committed

    def _freed(self, groups: Sequence[Sequence[Mutation]], error: _DiskFull) -> Committed:
        """On a full disk: commit for those alone who free some of it."""
        freeing = [group for group in groups if _frees(group)]
        try:
            done = self._committed(freeing, lambda *what: self._in_reserve(partial(self._commit, *what)))
        except Refused:
            return Committed([error] * len(groups), [], self._revision)
        outcomes = iter(done.outcomes)
        return done._replace(outcomes=[next(outcomes) if _frees(group) else error for group in groups])

    def _in_reserve(self, work: Callable[[], None]) -> None:
        """Do what frees space in the space that is set aside for it."""
        self._reserve.release()
        try:
            work()
        finally:
            self._shorten_log()
            self._reserve.fill()

    def _shorten_log(self) -> None:
        """Take what was written ahead into the file, which gives back the room of the log.

        Not where the file would grow by most of what is left: half a transfer gives nothing back, and the next deletion
        needs the room.
        """
        with contextlib.suppress(sqlite3.Error, OSError):
            (pages,), (page,) = (
                self._connection.execute(f"PRAGMA page_{what}").fetchone() for what in ("count", "size")
            )
            grows = pages * page - self._path.stat().st_size
            disk = os.statvfs(self._path)
            if grows <= disk.f_bavail * disk.f_frsize - SIZE // 8:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _decide(self, groups: Sequence[Sequence[Mutation]], known: dict[str, int]) -> Committed:
        """Who succeeds, as if they came one after the other; a key that is not in `known` is not there."""
        revision, outcomes, changes = self._revision, list[int | BemaError](), list[StateChange]()
        for group in groups:
            if conflict := _conflict(group, known):
                outcomes.append(conflict)
                continue
            for key, value, _ in group:
                revision += 1
                if value is not None or known.get(key):
                    known[key] = revision if value is not None else 0
                    changes.append(StateChange(revision, key, value))
            outcomes.append(revision)
        return Committed(outcomes, changes, revision)

    def _revisions(self, keys: set[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for some in _in_parts(list(keys)):
            marks = ",".join("?" * len(some))
            found.update(self._read(f"SELECT key, revision FROM entries WHERE key IN ({marks})", some))
        return found

    def _commit(self, committed: Committed, new: set[str]) -> None:
        last = {change.key: change for change in committed.changes}
        gone, fresh, puts = list[Row](), list[Row](), list[Row]()
        for key, (revision, _, value) in last.items():
            if value is None:
                gone.append((key,))
            else:
                (fresh if key in new else puts).append((key, revision, value))

        def write(db: sqlite3.Connection) -> None:
            for how, rows in (("ROLLBACK", fresh), ("REPLACE", puts)):
                for some in _in_parts(rows):
                    marks = ",".join(["(?,?,?)"] * len(some))
                    db.execute(f"INSERT OR {how} INTO entries VALUES {marks}", list(chain.from_iterable(some)))
            if gone:
                db.executemany("DELETE FROM entries WHERE key = ?", gone)
            db.execute("UPDATE counter SET revision = ?", (committed.revision,))

        self._in_transaction(write)

    def put_blob(self, content: bytes) -> str:
        digest = digest_of(content)
        self._must_write()
        if not self._read("SELECT 1 FROM blobs WHERE digest = ?", (digest,)):
            self._in_transaction(lambda db: db.execute("INSERT INTO blobs VALUES (?, ?)", (digest, content)))
        return digest

    def drop_blobs(self, digests: Iterable[str]) -> None:
        self._must_write()
        dropped = [(digest,) for digest in digests]
        if not dropped:
            return
        try:
            self._drop(dropped)
        except _DiskFull:
            self._in_reserve(partial(self._drop, dropped))

    def _drop(self, digests: list[tuple[str]]) -> None:
        self._in_transaction(lambda db: db.executemany("DELETE FROM blobs WHERE digest = ?", digests))

    def _in_transaction(self, work: Callable[[sqlite3.Connection], object]) -> None:
        db = self._connection
        try:
            db.execute("BEGIN IMMEDIATE")
            work(db)
            db.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_CONSTRAINT:
                raise _Taken from error
            if code in _DISK:
                self._failure = str(error)
            refused = self._refused("written", error)
            if code == sqlite3.SQLITE_FULL:
                refused = _DiskFull(
                    refused.message,
                    code=refused.code,
                    fix="Free some space on its disk; what is removed with `bema rm NAME --purge` frees its own.",
                )
            raise refused from error

    # reading

    def get(self, key: str) -> Entry | None:
        rows = self._read("SELECT key, value, revision FROM entries WHERE key = ?", (key,))
        return Entry(*rows[0]) if rows else None

    def scan(self, prefix: str, after: str, limit: int) -> list[Entry]:
        first, more = (after, ">") if after >= prefix else (prefix, ">=")
        # not beyond the prefix: there, a page of others' rows would be read for nothing
        rows = self._read(
            f"SELECT key, value, revision FROM entries WHERE key {more} ? AND key < ? ORDER BY key LIMIT ?",
            (first, prefix + LAST, limit),
        )
        return [Entry(*row) for row in rows]

    def scan_back(self, prefix: str, before: str, limit: int) -> list[Entry]:
        end = min(before or prefix + LAST, prefix + LAST)
        rows = self._read(
            "SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key DESC LIMIT ?",
            (prefix, end, limit),
        )
        return [Entry(*row) for row in rows]

    def blob(self, digest: str) -> bytes:
        rows = self._read("SELECT content FROM blobs WHERE digest = ?", (digest,))
        if not rows:
            raise no_blob(digest)
        return bytes(rows[0][0])

    def blobs(self) -> list[str]:
        return [digest for (digest,) in self._read("SELECT digest FROM blobs ORDER BY digest", ())]

    def _read(self, sql: str, values: Sequence[Any]) -> list[Any]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._refused("read", error) from error

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise Refused(f"the store {self._path} is closed", code="state_failed")
        return self._db

    def _must_write(self) -> None:
        if self._failure:
            raise Refused(
                f"the store {self._path} is not written since the disk failed: {self._failure}", code="state_failed"
            )

    def _refused(self, verb: str, error: Exception) -> Refused:
        return Refused(f"the store {self._path} cannot be {verb}: {error}", code="state_unwritable")


def _conflict(group: Sequence[Mutation], known: dict[str, int]) -> RevisionConflict | None:
    for key, _, wanted in group:
        if wanted is not None and known.get(key, 0) != wanted:
            return RevisionConflict(key, known.get(key, 0))
    return None


def _frees(group: Sequence[Mutation]) -> bool:
    """Whether it takes more away than it adds."""
    gone = sum(mutation.value is None for mutation in group)
    return gone > len(group) - gone


def _in_parts(values: list[T]) -> Iterator[list[T]]:
    """At most so many at a time as fit into one statement."""
    for first in range(0, len(values), _ROWS):
        yield values[first : first + _ROWS]
