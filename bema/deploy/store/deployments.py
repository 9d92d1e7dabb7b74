"""The deployment store: what must outlive everything.

Laws: a change is on disk before its caller hears of it, and only then in the picture that readers see; one mutation, one
transaction; an idempotency key gives the same answer again; a store written by a newer bema is left alone.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, TypeVar

import msgspec

from bema.core.errors import Conflict, NotFound, Refused
from bema.core.settings import PartSettings
from bema.core.version import VERSION
from bema.deploy.model.deployment import Deployment
from bema.parts import Factory

T = TypeVar("T")
Write = Callable[[sqlite3.Connection], object]
ANSWERS_KEPT = 1000


class StoredReply(msgspec.Struct, frozen=True):
    """What a request with an idempotency key was answered, and the digest of what it had asked."""

    key: str
    request: str
    reply: bytes


class Store(Protocol):
    """Reads come from a picture in memory and cost nothing; writes return when they are durable."""

    @classmethod
    async def open(cls, settings: PartSettings) -> Store:
        """Open or make the store; one on this disk is in `settings.state`. `Refused` (store_newer, state_unwritable) in
        one line."""

    def deployments(self) -> Mapping[str, Deployment]:
        """All deployments by id, current as of the last write that returned."""

    def answer(self, key: str, request: str) -> bytes | None:
        """The reply given before; `Conflict` (key_reused) if that was to another request."""

    async def create(self, deployment: Deployment, code: bytes, answer: StoredReply | None = None) -> None:
        """Add a deployment; `Conflict` (name_taken) with the `id` of the owner's other one of that name."""

    async def save(self, deployment: Deployment) -> None:
        """Replace a deployment; `NotFound` if it was deleted meanwhile."""

    async def delete(self, id: str) -> None:
        """Take a deployment away, with the codes that no other uses; `NotFound` if it is not there."""

    async def code(self, digest: str) -> bytes:
        """The content of a version; `NotFound` for one that nobody uses."""

    def fact(self, name: str) -> str | None:
        """A small thing worth remembering: that an example was deployed once, a port that was chosen."""

    async def remember(self, name: str, value: str) -> None:
        """Replace a fact."""

    async def close(self) -> None:
        """Let go of what is open; nothing that returned is lost."""


class StoreFactory(Factory[Store], group="bema.store", api=VERSION, default="sqlite", opens="waiting"):
    """The store of an orchestrator is opened with `open`."""


@StoreFactory.register("memory")
class MemoryStore:
    """The twin that forgets, and the picture of the one that does not."""

    @classmethod
    async def open(cls, settings: PartSettings) -> Store:
        return cls()

    def __init__(self) -> None:
        self._deployments: dict[str, Deployment] = {}
        self._codes: dict[str, bytes] = {}
        self._answers: dict[str, StoredReply] = {}
        self._facts: dict[str, str] = {}
        self._writing = asyncio.Lock()

    def deployments(self) -> Mapping[str, Deployment]:
        return MappingProxyType(self._deployments)

    def answer(self, key: str, request: str) -> bytes | None:
        given = self._answers.get(key)
        if given is not None and given.request != request:
            raise Conflict("the idempotency key was used for another request", code="key_reused")
        return given.reply if given is not None else None

    def fact(self, name: str) -> str | None:
        return self._facts.get(name)

    async def create(self, deployment: Deployment, code: bytes, answer: StoredReply | None = None) -> None:
        def show() -> None:
            self._deployments[deployment.id] = deployment
            self._hold(deployment.version.digest, code)
            if answer is not None:
                self._answers[answer.key] = answer

        async with self._writing:
            for other in self._deployments.values():
                if (other.owner, other.name) == (deployment.owner, deployment.name):
                    raise Conflict(f"a deployment named {other.name!r} exists", id=other.id)
            await self._write(lambda db: _insert(db, deployment, code, answer), show)

    async def save(self, deployment: Deployment) -> None:
        async with self._writing:
            self._must_exist(deployment.id)
            await self._write(
                lambda db: db.execute(
                    "UPDATE deployments SET body = ? WHERE id = ?", (msgspec.json.encode(deployment), deployment.id)
                ),
                lambda: self._deployments.update({deployment.id: deployment}),
            )

    async def delete(self, id: str) -> None:
        def show() -> None:
            del self._deployments[id]
            for digest in unused:
                self._codes.pop(digest, None)

        async with self._writing:
            self._must_exist(id)
            used = {v.digest for d in self._deployments.values() if d.id != id for v in d.versions}
            unused = {v.digest for v in self._deployments[id].versions} - used
            await self._write(lambda db: _delete(db, id, unused), show)

    async def code(self, digest: str) -> bytes:
        if digest not in self._codes:
            raise NotFound(f"there is no code {digest}")
        return self._codes[digest]

    async def remember(self, name: str, value: str) -> None:
        async with self._writing:
            await self._write(
                lambda db: db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value)),
                lambda: self._facts.update({name: value}),
            )

    async def close(self) -> None:
        return None

    def _hold(self, digest: str, code: bytes) -> None:
        self._codes[digest] = code

    def _must_exist(self, id: str) -> None:
        if id not in self._deployments:
            raise NotFound(f"there is no deployment {id}")

    async def _write(self, write: Write, show: Callable[[], None]) -> None:
        """Make a change durable, then visible."""
        show()


def _insert(db: sqlite3.Connection, deployment: Deployment, code: bytes, answer: StoredReply | None) -> None:
    db.execute("INSERT OR IGNORE INTO codes VALUES (?, ?)", (deployment.version.digest, code))
    db.execute(
        "INSERT INTO deployments VALUES (?, ?, ?, ?)",
        (deployment.id, deployment.owner, deployment.name, msgspec.json.encode(deployment)),
    )
    if answer is not None:
        db.execute(
            "INSERT INTO answers (key, request, reply) VALUES (?, ?, ?)", (answer.key, answer.request, answer.reply)
        )
        db.execute("DELETE FROM answers WHERE number <= (SELECT max(number) FROM answers) - ?", (ANSWERS_KEPT,))


def _delete(db: sqlite3.Connection, id: str, codes: set[str]) -> None:
    db.execute("DELETE FROM deployments WHERE id = ?", (id,))
    db.executemany("DELETE FROM codes WHERE digest = ?", [(digest,) for digest in codes])


MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE deployments (id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL,
                              UNIQUE (owner, name)) WITHOUT ROWID;
    CREATE TABLE codes (digest TEXT PRIMARY KEY, code BLOB NOT NULL);
    CREATE TABLE answers (number INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL, request TEXT NOT NULL,
                          reply BLOB NOT NULL);
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    """,
)
"""Step n takes a store from version n to n + 1. A step is never changed once it was released."""


@StoreFactory.register("sqlite")
class SqliteStore(MemoryStore):
    """One file, one connection, one thread."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._sqlite: sqlite3.Connection | None = None

    @classmethod
    async def open(cls, settings: PartSettings) -> SqliteStore:
        return await cls.at(settings.state / "store.sqlite")

    @classmethod
    async def at(cls, path: Path) -> SqliteStore:
        store = cls(path)
        try:
            await store._do(store._open)
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        if self._sqlite is not None:
            await self._do(self._sqlite.close)
            self._sqlite = None
        self._thread.shutdown(wait=False)

    async def code(self, digest: str) -> bytes:
        def read() -> bytes:
            row = self._connection.execute("SELECT code FROM codes WHERE digest = ?", (digest,)).fetchone()
            if row is None:
                raise NotFound(f"there is no code {digest}")
            return bytes(row[0])

        return await self._do(read)

    def _hold(self, digest: str, code: bytes) -> None:
        """Codes stay on disk: they may be a megabyte each."""

    async def _write(self, write: Write, show: Callable[[], None]) -> None:
        def transaction() -> None:
            try:
                with self._connection as db:
                    write(db)
            except sqlite3.DatabaseError as error:
                raise self._refused("written", error) from error

        # a caller that is cancelled must not leave the picture behind the disk
        work = asyncio.ensure_future(self._do(transaction))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await work
            show()
            raise
        show()

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    @property
    def _connection(self) -> sqlite3.Connection:
        assert self._sqlite is not None, "the store is not open"
        return self._sqlite

    def _open(self) -> None:
        try:
            self._sqlite = db = sqlite3.connect(self._path)
            # WAL alone loses the last commits with the machine's power; FULL syncs the log at each of them
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            self._migrate(db)
        except sqlite3.DatabaseError as error:
            raise self._refused("opened", error) from error
        for (body,) in db.execute("SELECT body FROM deployments ORDER BY name, owner"):
            deployment = msgspec.json.decode(body, type=Deployment)
            self._deployments[deployment.id] = deployment
        for row in db.execute("SELECT key, request, reply FROM answers ORDER BY number"):
            self._answers[row[0]] = StoredReply(*row)
        self._facts.update(db.execute("SELECT name, value FROM facts"))

    def _refused(self, verb: str, error: Exception) -> Refused:
        return Refused(f"the store {self._path} cannot be {verb}: {error}", code="state_unwritable")

    def _migrate(self, db: sqlite3.Connection) -> None:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise Refused(
                f"the store {self._path} has version {version}; this bema knows up to {len(MIGRATIONS)}",
                code="store_newer",
            )
        # a new file has version 0 and nothing worth a copy
        if 0 < version < len(MIGRATIONS):
            self._back_up(db, version)
        for number in range(version, len(MIGRATIONS)):
            db.executescript(f"BEGIN; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;")

    def _back_up(self, db: sqlite3.Connection, version: int) -> None:
        """A copy beside the store, kept: migrations go forward only."""
        copy = sqlite3.connect(self._path.with_suffix(f".v{version}.backup"))
        with copy:
            db.backup(copy)
        copy.close()
