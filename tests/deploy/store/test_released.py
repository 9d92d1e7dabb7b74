"""A state directory of the first released layout is taken over whole, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bema.core.errors import Conflict, Refused
from bema.deploy.model.bundle import Bundle
from bema.deploy.store.deployments import Store
from bema.deploy.store.released import RELEASED
from bema.state.sqlite import SqliteEngine

DUMP = Path(__file__).parents[2] / "data" / "state" / "released-1.sql"
HELLO, TWIN, ADAS, BROKEN = (f"6f1b7a52-0000-4000-8000-{n:012}" for n in (1, 2, 3, 4))

# opens the store, and is killed before its nth statement, or before the copy has its name
OPENING = """
import asyncio, os, pathlib, signal, sqlite3, sys
from bema.deploy.store.released import RELEASED
from bema.state.sqlite import SqliteEngine

path, at = pathlib.Path(sys.argv[1]), sys.argv[2]
statements, connect = 0, sqlite3.connect

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def told(statement):
    global statements
    statements += 1
    if str(statements) == at:
        die()

def traced(*arguments, **options):
    db = connect(*arguments, **options)
    db.set_trace_callback(told)
    return db

sqlite3.connect = traced
if at == "copy":
    pathlib.Path.rename = die

async def story():
    await (await SqliteEngine.at(path, older=RELEASED)).close()
    print(statements)

asyncio.run(story())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The store of a state directory as the release wrote it."""
    path = tmp_path / "store.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(DUMP.read_text())
    return path


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Store]:
    store = await Store.open(await SqliteEngine.at(path, older=RELEASED))
    try:
        yield store
    finally:
        await store.close()


async def check(store: Store) -> None:
    """All that the release had stored is there."""
    rollouts = store.rollouts()
    assert set(rollouts) == {HELLO, TWIN, ADAS}
    hello, twin, adas = rollouts[HELLO], rollouts[TWIN], rollouts[ADAS]
    assert (hello.name, hello.owner, hello.version.label, hello.version.env) == (
        "hello",
        "local",
        "v1",
        {"GREETING": "hi"},
    )
    assert (hello.status.build.state, hello.status.build.lock, hello.restarts) == ("done", "six==1.17.0\n", 1)
    assert [attempt.instance for attempt in hello.status.attempts] == [11, 12]
    assert twin.status.build.fault is not None and twin.status.build.fault.message == "no such package"
    assert (adas.owner, adas.status.build.state) == ("ada/ofé", "pending")
    assert await store.bundle(hello.version.digest) == Bundle.of_script(b"app = 1\n")
    assert twin.version.digest == hello.version.digest
    assert (await store.bundle(adas.version.digest)).script.decode() == "# café\napp = 2\n"
    assert store.answer("local/key-1", "request-digest") == b'{"id":"a"}'
    assert store.answer("ada/key-2", "other") == b"{}"
    assert (store.fact("seed.hello"), store.fact("gateway_port")) == (HELLO, "8700")


def test_everything_released_is_there(path: Path):
    async def story() -> None:
        for _ in range(2):
            async with opened(path) as store:
                await check(store)
                with pytest.raises(Conflict):
                    await store.create(store.rollouts()[HELLO].deployment, Bundle.of_script(b""))

    asyncio.run(story())


def test_what_could_not_be_read_is_shown_and_can_be_deleted(path: Path):
    async def story() -> None:
        async with opened(path) as store:
            (aside,) = store.unreadable().values()
            assert (aside.id, aside.owner, aside.name, aside.fault.code) == (
                BROKEN,
                "local",
                "broken",
                "record_unreadable",
            )
            await store.delete(BROKEN)
        async with opened(path) as again:
            assert not again.unreadable()

    asyncio.run(story())


def test_a_copy_of_the_old_layout_is_kept(path: Path):
    async def story() -> None:
        async with opened(path):
            pass

    asyncio.run(story())
    with contextlib.closing(sqlite3.connect(path.with_name("store.v1.backup"))) as copy:
        assert copy.execute("PRAGMA user_version").fetchone() == (1,)
        assert "\n".join(copy.iterdump()) in DUMP.read_text()
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert tables == {"entries", "blobs", "counter"}


def opening(path: Path, at: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", OPENING, str(path), at], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0])
def test_killed_in_the_middle_the_next_opening_finds_it_whole(path: Path, tmp_path: Path, share: float):
    rehearsal = tmp_path / "rehearsal.sqlite"
    rehearsal.write_bytes(path.read_bytes())
    statements = int(opening(rehearsal, "never").stdout)
    killed = opening(path, str(1 + round(share * (statements - 1))))
    assert killed.returncode == -signal.SIGKILL
    with contextlib.closing(sqlite3.connect(path)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert (version, "entries" in tables, "deployments" in tables) in ((1, False, True), (2, True, False))

    async def story() -> None:
        async with opened(path) as store:
            await check(store)

    asyncio.run(story())


def test_killed_before_the_copy_is_whole_there_is_none(path: Path):
    assert opening(path, "copy").returncode == -signal.SIGKILL
    assert not path.with_name("store.v1.backup").exists()

    async def story() -> None:
        async with opened(path) as store:
            await check(store)

    asyncio.run(story())
    assert path.with_name("store.v1.backup").exists()
    assert not list(path.parent.glob(".store*"))


def test_who_does_not_know_that_layout_leaves_it_alone(path: Path):
    with pytest.raises(Refused) as caught:
        asyncio.run(SqliteEngine.at(path))
    assert "\n" not in caught.value.message
    assert not path.with_name("store.v1.backup").exists()
