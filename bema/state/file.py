"""A state's SQLite file, as the one thread that owns its connection sees it. Nothing here waits for anybody else.

Laws: a group is one transaction, so one sync covers all callers in it; who asked for another revision fails alone, before
anything is written. A commit that fails fails every caller of its group; when the disk itself failed, what it holds is no
longer known, and nothing more is written until the file is opened again.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bema.core.errors import BemaError, Refused
from bema.state.engine import Entry, Mutation, Older, RevisionConflict, StateChange, digest_of, no_blob
from bema.state.layout import bring_up
from bema.state.lock import FileLock
from bema.state.spare import Spare

T = TypeVar("T")

_ROWS = 128
"""Rows of one statement. Each statement lets go of the interpreter once: a row at a time would do so for each row."""
_DISK = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY})


class Committed(NamedTuple):
    """What became of a group: for each caller a revision or an error, and the changes, in order."""

    outcomes: list[int | BemaError]
    changes: list[StateChange]
    revision: int


class _Full(Refused):
    """There is no room for it on the disk; the file is as it was."""


class SqliteFile:
    """`open` first. Every method may raise `Refused` (state_unwritable); writes (state_failed) too."""

    def __init__(self, path: Path, older: Older | None = None) -> None:
        self._path = path
        self._older = older
        self._lock = FileLock(path)
        self._spare = Spare(path)
        self._db: sqlite3.Connection | None = None
        self._revision = 0
        self._failure = ""

    def open(self) -> int:
        """Take the file, bring it up to date; gives its revision."""
        # before the file is touched: who loses the race must not have brought it up to date
        self._lock.take()
        try:
            # isolation_level None: transactions begin where we say so
            self._db = sqlite3.connect(self._path, isolation_level=None, cached_statements=4 * _ROWS)
            bring_up(self._db, self._path, self._older)
            self._spare.keep()
            (self._revision,) = self._db.execute("SELECT revision FROM counter").fetchone()
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise self._refused("opened", error) from error
        except BaseException:
            self.close()
            raise
        return self._revision

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
            return self._applied(groups)
        except _Full as error:
            return self._only_freed(groups, error)
        except Refused as error:
            return Committed([error] * len(groups), [], self._revision)

    def _applied(self, groups: Sequence[Sequence[Mutation]]) -> Committed:
        self._must_write()
        committed = self._decide(groups)
        if committed.revision > self._revision:
            self._commit(committed)
        self._revision = committed.revision
        return committed

    def _only_freed(self, groups: Sequence[Sequence[Mutation]], full: _Full) -> Committed:
        """Of what did not fit, those who only take away: deleting works on a full disk."""
        outcomes: list[int | BemaError] = [full] * len(groups)
        freeing = [number for number, group in enumerate(groups) if all(m.value is None for m in group)]
        try:
            with self._roomier():
                committed = self._applied([groups[number] for number in freeing])
        except Refused as error:
            return Committed(
                [error if number in freeing else full for number in range(len(groups))], [], self._revision
            )
        for number, outcome in zip(freeing, committed.outcomes, strict=True):
            outcomes[number] = outcome
        return Committed(outcomes, committed.changes, committed.revision)

    @contextlib.contextmanager
    def _roomier(self) -> Iterator[None]:
        self._spare.give()
        try:
            yield
        finally:
            self._spare.keep()

    def _decide(self, groups: Sequence[Sequence[Mutation]]) -> Committed:
        """Who succeeds, as if they came one after the other."""
        known = self._revisions(
            {m.key for group in groups for m in group if m.if_revision is not None or m.value is None}
        )
        revision, outcomes, changes = self._revision, list[int | BemaError](), list[StateChange]()
        for group in groups:
            if conflict := _conflict(group, known):
                outcomes.append(conflict)
                continue
            for key, value, _ in group:
                revision += 1
                # to take away what is not there is no change, and no watcher is told of it
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

    def _commit(self, committed: Committed) -> None:
        last = {change.key: change for change in committed.changes}
        gone = [(change.key,) for change in last.values() if change.value is None]
        puts = [(c.key, c.revision, c.value) for c in last.values() if c.value is not None]
        # only the last of each key is written; those before it are for watchers alone
        with self._transaction() as db:
            for some in _in_parts(puts):
                rows = ",".join(["(?,?,?)"] * len(some))
                db.execute(f"INSERT OR REPLACE INTO entries VALUES {rows}", list(chain.from_iterable(some)))
            if gone:
                db.executemany("DELETE FROM entries WHERE key = ?", gone)
            db.execute("UPDATE counter SET revision = ?", (committed.revision,))

    def put_blob(self, content: bytes) -> str:
        digest = digest_of(content)
        self._must_write()
        if not self._read("SELECT 1 FROM blobs WHERE digest = ?", (digest,)):
            with self._transaction() as db:
                db.execute("INSERT INTO blobs VALUES (?, ?)", (digest, content))
        return digest

    def drop_blobs(self, digests: Iterable[str]) -> None:
        self._must_write()
        rows = [(digest,) for digest in digests]
        try:
            self._drop(rows)
        except _Full:
            with self._roomier():
                self._drop(rows)

    def _drop(self, rows: list[tuple[str]]) -> None:
        with self._transaction() as db:
            db.executemany("DELETE FROM blobs WHERE digest = ?", rows)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._connection
        try:
            # the write lock at once: a transaction that begins by reading can be refused when it
            # writes
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            # after a failed sync the kernel may have dropped the pages: a retry that succeeds
            # proves nothing
            if code in _DISK:
                self._failure = str(error)
            raise self._refused("written", error, _Full if code == sqlite3.SQLITE_FULL else Refused) from error

    # reading

    def get(self, key: str) -> Entry | None:
        rows = self._read("SELECT key, value, revision FROM entries WHERE key = ?", (key,))
        return Entry(*rows[0]) if rows else None

    def scan(self, prefix: str, after: str, limit: int) -> list[Entry]:
        first, more = (after, ">") if after >= prefix else (prefix, ">=")
        rows = self._read(
            f"SELECT key, value, revision FROM entries WHERE key {more} ? ORDER BY key LIMIT ?",
            (first, limit),
        )
        return [Entry(*row) for row in rows if row[0].startswith(prefix)]

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

    def _refused(self, verb: str, error: Exception, kind: type[Refused] = Refused) -> Refused:
        return kind(f"the store {self._path} cannot be {verb}: {error}", code="state_unwritable")


def _conflict(group: Sequence[Mutation], known: dict[str, int]) -> RevisionConflict | None:
    for key, _, wanted in group:
        if wanted is not None and known.get(key, 0) != wanted:
            return RevisionConflict(key, known.get(key, 0))
    return None


def _in_parts(values: list[T]) -> Iterator[list[T]]:
    """At most so many at a time as fit into one statement."""
    for first in range(0, len(values), _ROWS):
        yield values[first : first + _ROWS]
