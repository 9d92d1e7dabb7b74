"""A file is taken forward from every layout that was released, after a copy; a newer one is left alone."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from bema.core.errors import Refused
from bema.state import layout
from bema.state.engine import Mutation, Older
from bema.state.sqlite import SqliteEngine


def test_a_newer_store_is_left_alone(tmp_path: Path):
    path = tmp_path / "store.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(Refused) as caught:
        asyncio.run(SqliteEngine.at(path))
    assert caught.value.code == "store_newer"
    assert "\n" not in caught.value.message
    with pytest.raises(Refused, match="version 99"):
        layout.check(path)
    layout.check(tmp_path / "nothing")
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_an_older_store_is_copied_then_taken_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def before() -> None:
        engine = await SqliteEngine.at(tmp_path / "store.sqlite")
        await engine.apply([Mutation("one", b"1")])
        await engine.close()

    asyncio.run(before())

    def more(db: sqlite3.Connection, older: Older | None) -> None:
        db.execute("CREATE TABLE more (x)")

    monkeypatch.setattr(layout, "STEPS", (*layout.STEPS, more))

    async def after() -> None:
        engine = await SqliteEngine.at(tmp_path / "store.sqlite")
        assert [entry.key for entry in await engine.scan()] == ["one"]
        await engine.close()

    asyncio.run(after())
    with contextlib.closing(sqlite3.connect(tmp_path / "store.v2.backup")) as copy:
        assert copy.execute("SELECT key FROM entries").fetchall() == [("one",)]
        assert copy.execute("PRAGMA user_version").fetchone() == (2,)
    with contextlib.closing(sqlite3.connect(tmp_path / "store.sqlite")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
        assert db.execute("SELECT name FROM sqlite_master WHERE name = 'more'").fetchone() == ("more",)


def test_a_step_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def wrong(db: sqlite3.Connection, older: Older | None) -> None:
        db.execute("CREATE TABLE half (x)")
        db.execute("not a statement")

    monkeypatch.setattr(layout, "STEPS", (*layout.STEPS, wrong))
    with pytest.raises(Refused):
        asyncio.run(SqliteEngine.at(tmp_path / "store.sqlite"))
    with contextlib.closing(sqlite3.connect(tmp_path / "store.sqlite")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (0,)
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == []


@pytest.mark.parametrize(
    "make", [lambda p: p.mkdir(), lambda p: p.write_bytes(b"not a database, but long enough" * 99)]
)
def test_a_file_that_is_no_store_is_refused_in_one_line(tmp_path: Path, make):
    make(tmp_path / "store.sqlite")
    with pytest.raises(Refused) as caught:
        asyncio.run(SqliteEngine.at(tmp_path / "store.sqlite"))
    assert caught.value.code == "state_unwritable"
    assert "\n" not in caught.value.message
