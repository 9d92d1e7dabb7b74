"""The tables of a state's file, and the way there from every layout that was released.

Laws: steps are numbered and go forward only; a released step is never changed. All steps of an opening are one transaction,
after a copy of the file: whenever the process dies, the old layout or the new one is there, whole. A newer layout is not
touched.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from bema.core.errors import Refused
from bema.state.engine import Older, Row, digest_of


def _first(db: sqlite3.Connection, older: Older | None) -> None:
    """Version 1 was the tables of who owned the file; a new file has none of them."""


def _engine(db: sqlite3.Connection, older: Older | None) -> None:
    """Version 2: keys, content by digest, and the counter; with what stood in the owner's tables."""
    db.execute(
        "CREATE TABLE entries (key TEXT PRIMARY KEY, revision INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID"
    )
    db.execute("CREATE TABLE blobs (digest TEXT PRIMARY KEY, content BLOB NOT NULL)")
    db.execute("CREATE TABLE counter (revision INTEGER NOT NULL)")
    revision = 0
    if older is not None:
        revision = _converted(db, older)
    db.execute("INSERT INTO counter VALUES (?)", (revision,))


def _converted(db: sqlite3.Connection, older: Older) -> int:
    there = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    revision = 0

    def rows(table: str) -> Iterator[Row]:
        if table not in there:
            return iter(())
        return iter(db.execute(f"SELECT {', '.join(older.tables[table])} FROM {table}"))

    for kept in older.convert(rows):
        if isinstance(kept, bytes):
            db.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?)", (digest_of(kept), kept))
        else:
            revision += 1
            db.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", (kept[0], revision, kept[1]))
    for table in there & set(older.tables):
        db.execute(f"DROP TABLE {table}")
    return revision


STEPS: tuple[Callable[[sqlite3.Connection, Older | None], None], ...] = (_first, _engine)
"""Step n takes a file from version n to n + 1."""


def check(path: Path) -> None:
    """`Refused` (store_newer) for a file that this bema does not know. It is only read; what else is wrong, opening tells."""
    if path.exists():
        with suppress(sqlite3.Error), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            _known(db, path)


def _known(db: sqlite3.Connection, path: Path) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(STEPS):
        raise Refused(f"the store {path} has version {version}; this bema knows up to {len(STEPS)}", code="store_newer")
    return int(version)


def bring_up(db: sqlite3.Connection, path: Path, older: Older | None) -> None:
    """Give the file the layout of today; `Refused` (store_newer) for one that this bema does not know."""
    version = _known(db, path)
    if version == 1 and older is None:
        raise Refused(f"the store {path} has version 1, and who opens it cannot read that", code="store_newer")
    # WAL alone loses the last commits with the machine's power; FULL syncs the log at each of them
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":  # SQLite says so in no other way, where the disk failed meanwhile
        raise sqlite3.OperationalError(f"its journal stays {mode!r}")
    db.execute("PRAGMA synchronous = FULL")
    # where all that is deleted is overwritten, as Debian builds it, taking away needs as much room as it gives
    db.execute("PRAGMA secure_delete = FAST")
    if version == len(STEPS):
        return
    # a new file has version 0 and nothing worth a copy
    if version:
        _back_up(db, path.with_suffix(f".v{version}.backup"))
    db.execute("BEGIN IMMEDIATE")
    for step in STEPS[version:]:
        step(db, older)
    db.execute(f"PRAGMA user_version = {len(STEPS)}")
    db.execute("COMMIT")
    _sync_folder(path)


def _back_up(db: sqlite3.Connection, to: Path) -> None:
    """A copy beside the store, kept: steps go forward only. It is whole or not there."""
    draft = to.with_name(f".{to.name}")
    draft.unlink(missing_ok=True)
    copy = sqlite3.connect(draft)
    try:
        db.backup(copy)
    finally:
        copy.close()
    draft.rename(to)
    _sync_folder(to)


def _sync_folder(path: Path) -> None:
    """A name is durable once its folder is."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
