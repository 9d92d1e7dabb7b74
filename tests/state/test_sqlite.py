"""The engine on disk: who shares a commit, what a failing disk does, whose file it is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bema.core.errors import BemaError, Refused
from bema.state.engine import Mutation
from bema.state.file import SqliteFile
from bema.state.sqlite import SqliteEngine

BIG = bytes(100_000)


def put(key: str, value: bytes = b"v", if_revision: int | None = None) -> list[Mutation]:
    return [Mutation(key, value, if_revision)]


class Commits:
    """Counts the transactions of all files, and can hold them up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        apply = SqliteFile.apply

        def counted(file: SqliteFile, groups: Any) -> Any:
            self.gate.wait(10)
            self.sizes.append(len(groups))
            return apply(file, groups)

        monkeypatch.setattr(SqliteFile, "apply", counted)


def test_who_asks_in_one_turn_shares_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    commits = Commits(monkeypatch)

    async def story() -> None:
        engine = await SqliteEngine.at(tmp_path / "s")
        revisions = await asyncio.gather(*(engine.apply(put(f"k{n}")) for n in range(32)))
        assert revisions == list(range(1, 33))
        await engine.close()

    asyncio.run(story())
    assert commits.sizes == [32]


def test_what_is_asked_while_a_commit_runs_shares_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    commits = Commits(monkeypatch)

    async def story() -> None:
        engine = await SqliteEngine.at(tmp_path / "s")
        commits.gate.clear()
        first = asyncio.ensure_future(engine.apply(put("first")))
        await asyncio.sleep(0.05)
        others = []
        for n in range(10):
            others.append(asyncio.ensure_future(engine.apply(put(f"k{n}"))))
            await asyncio.sleep(0)
        assert not first.done()
        commits.gate.set()
        await asyncio.gather(first, *others)
        await engine.close()

    asyncio.run(story())
    assert commits.sizes == [1, 10]


def test_who_reads_in_between_splits_no_commit_and_finds_what_was_asked_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    commits = Commits(monkeypatch)

    async def story() -> None:
        engine = await SqliteEngine.at(tmp_path / "s")
        _, found, _, page, _ = await asyncio.gather(
            engine.apply(put("a")), engine.get("a"), engine.apply(put("b")), engine.scan(), engine.apply(put("c"))
        )
        assert found is not None
        assert {"a", "b"} <= {entry.key for entry in page}
        await engine.close()

    asyncio.run(story())
    assert commits.sizes == [3]


def test_a_key_that_is_there_fails_who_asked_for_a_new_one_alone(tmp_path: Path):
    async def story() -> None:
        engine = await SqliteEngine.at(tmp_path / "s")
        kept = await engine.apply(put("taken", b"first"))
        said = await asyncio.gather(
            engine.apply(put("one", if_revision=0)),
            engine.apply([*put("half", if_revision=0), *put("taken", b"second", 0)]),
            engine.apply(put("one", b"later", 0)),
            engine.apply(put("two", if_revision=0)),
            return_exceptions=True,
        )
        assert [getattr(one, "details", one) for one in said] == [
            kept + 1,
            {"key": "taken", "revision": kept},
            {"key": "one", "revision": kept + 1},
            kept + 2,
        ]
        assert {(entry.key, entry.value) for entry in await engine.scan()} == {
            ("one", b"v"),
            ("taken", b"first"),
            ("two", b"v"),
        }
        await engine.close()

    asyncio.run(story())


def test_a_scan_reads_nothing_beyond_its_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows: list[int] = []
    read = SqliteFile._read

    def counted(file: SqliteFile, sql: str, values: Any) -> list[Any]:
        found = read(file, sql, values)
        rows.append(len(found))
        return found

    async def story() -> None:
        engine = await SqliteEngine.at(tmp_path / "s")
        await engine.apply([one for n in range(100) for one in put(f"b/{n}")])
        await engine.apply(put("a/1"))
        monkeypatch.setattr(SqliteFile, "_read", counted)
        assert [entry.key for entry in await engine.scan("a/")] == ["a/1"]
        await engine.close()

    asyncio.run(story())
    assert rows == [1]


def test_an_answer_means_that_it_is_on_disk(tmp_path: Path):
    async def story() -> None:
        engine = await SqliteEngine.at(tmp_path / "s")
        for n in range(5):
            await engine.apply(put("k", bytes([n])))
            with contextlib.closing(sqlite3.connect(tmp_path / "s")) as other:
                assert other.execute("SELECT value FROM entries").fetchone() == (bytes([n]),)
        await engine.close()

    asyncio.run(story())


WRITING = """
import asyncio, pathlib, sys
from bema.state.engine import Mutation
from bema.state.sqlite import SqliteEngine

async def story():
    engine = await SqliteEngine.at(pathlib.Path(sys.argv[1]))
    async def caller(number):
        count = 0
        while True:
            await engine.apply([Mutation(f"{number}/{count}/{half}", b"v") for half in "ab"])
            print(number, count, flush=True)
            count += 1
    await asyncio.gather(*(caller(n) for n in range(8)))

asyncio.run(story())
"""


def test_what_was_answered_before_a_kill_is_there_and_no_group_is_halved(tmp_path: Path):
    program = subprocess.Popen([sys.executable, "-c", WRITING, str(tmp_path / "s")], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    answered = [program.stdout.readline().split() for _ in range(200)]
    program.send_signal(signal.SIGKILL)
    answered += [line.split() for line in program.stdout.read().splitlines() if len(line.split()) == 2]
    program.wait()
    program.stdout.close()

    async def story() -> None:
        engine = await SqliteEngine.at(tmp_path / "s")
        keys = {entry.key for entry in await engine.scan(limit=100_000)}
        assert {f"{number}/{count}/{half}" for number, count in answered for half in "ab"} <= keys
        assert {key[:-1] for key in keys if key.endswith("a")} == {key[:-1] for key in keys if key.endswith("b")}
        assert engine.revision == len(keys)
        await engine.close()

    asyncio.run(story())


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing further fails, as on a broken disk: the kernel refuses it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_when_the_disk_fails_its_whole_group_fails_and_nothing_more_is_written(tmp_path: Path):
    async def story() -> None:
        engine = await SqliteEngine.at(tmp_path / "s")
        kept = await engine.apply(put("kept"))
        watch = engine.watch(kept)
        with files_of_at_most(8192):
            group = [engine.apply(put("small")), engine.apply(put("big", BIG)), engine.apply(put("other"))]
            done = await asyncio.gather(*group, return_exceptions=True)
        assert [error.code for error in done if isinstance(error, BemaError)] == ["state_unwritable"] * 3
        for work in (engine.apply(put("later")), engine.put_blob(b"x"), engine.drop_blobs([])):
            with pytest.raises(Refused) as caught:
                await work
            assert caught.value.code == "state_failed"
        assert [entry.key for entry in await engine.scan()] == ["kept"]
        assert (engine.revision, watch.take()) == (kept, [])
        await engine.close()
        again = await SqliteEngine.at(tmp_path / "s")
        assert [entry.key for entry in await again.scan()] == ["kept"]
        assert await again.apply(put("later")) == kept + 1
        await again.close()

    asyncio.run(story())


def test_a_full_disk_fails_what_does_not_fit_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def story() -> None:
        engine = await SqliteEngine.at(tmp_path / "s")
        await engine.apply(put("kept"))
        pages = 40
        await engine._do(lambda: engine._file._connection.execute(f"PRAGMA max_page_count = {pages}").fetchall())
        with pytest.raises(Refused) as caught:
            await engine.apply(put("big", bytes(pages * 4096)))
        assert caught.value.code == "state_unwritable"
        await engine.apply(put("small"))
        assert [entry.key for entry in await engine.scan()] == ["kept", "small"]
        await engine.close()

    asyncio.run(story())


def test_a_cancelled_caller_leaves_watchers_and_disk_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    commits = Commits(monkeypatch)

    async def story() -> None:
        engine = await SqliteEngine.at(tmp_path / "s")
        watch = engine.watch(0)
        commits.gate.clear()
        task = asyncio.ensure_future(engine.apply(put("k")))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        commits.gate.set()
        assert [entry.key for entry in await engine.scan()] == ["k"]
        assert [change.key for change in watch.take()] == ["k"]
        await engine.close()

    asyncio.run(story())


def test_the_holder_of_a_file_is_named(tmp_path: Path):
    async def story() -> None:
        engine = await SqliteEngine.at(tmp_path / "s")
        done = subprocess.run(
            [sys.executable, "-c", WRITING, str(tmp_path / "s")], capture_output=True, text=True, check=False
        )
        assert f"is held by process {os.getpid()} (" in done.stderr
        await engine.close()

    asyncio.run(story())


def test_a_killed_owner_holds_nothing_nor_do_its_children(tmp_path: Path):
    forking = WRITING.replace("import asyncio", "import os, time, asyncio").replace(
        "    await asyncio.gather(", "    if os.fork() == 0: time.sleep(60)\n    await asyncio.gather("
    )
    program = subprocess.Popen(
        [sys.executable, "-c", forking, str(tmp_path / "s")], stdout=subprocess.PIPE, text=True, process_group=0
    )
    assert program.stdout is not None
    program.stdout.readline()
    program.kill()
    program.wait()

    async def story() -> None:
        engine = await SqliteEngine.at(tmp_path / "s")
        assert engine.revision
        await engine.close()

    try:
        asyncio.run(story())
    finally:
        os.killpg(program.pid, signal.SIGKILL)
        program.stdout.close()


def test_a_loop_that_ends_without_closing_lets_go_of_the_file(tmp_path: Path):
    async def leave() -> None:
        engine = await SqliteEngine.at(tmp_path / "s")
        engine._ask(put("k"))

    async def story() -> None:
        async with asyncio.timeout(10):
            while True:
                try:
                    engine = await SqliteEngine.at(tmp_path / "s")
                except Refused:
                    await asyncio.sleep(0.01)
                else:
                    await engine.close()
                    return

    asyncio.run(leave())
    asyncio.run(story())
