"""Reading logs while they are written and rotated."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bema.deploy.orchestrator import logs


class Writer:
    """Writes as the keeper does: whole records, rotation by renaming."""

    def __init__(self, folder: Path, label: str, keep: int = 3) -> None:
        folder.mkdir(exist_ok=True)
        self.path = folder / f"{label}.ndjson"
        self.keep = keep

    def write(self, *stamps: int) -> None:
        with self.path.open("a") as file:
            file.writelines(json.dumps({"ts": ts, "event": f"line {ts}"}) + "\n" for ts in stamps)

    def rotate(self) -> None:
        for number in range(self.keep - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                self.path.with_name(f"{self.path.name}.{number}").rename(f"{self.path}.{number + 1}")
        self.path.rename(f"{self.path}.1")


def stamps(folder: Path, **how: Any) -> list[int]:
    async def story() -> list[int]:
        return [record["ts"] async for record in logs.read(folder, **how)]

    return asyncio.run(story())


def test_a_deployment_without_logs_has_no_lines(tmp_path: Path):
    assert stamps(tmp_path / "none", tail=10) == []


def test_the_last_lines_of_all_instances_in_order_of_time(tmp_path: Path):
    Writer(tmp_path, "a").write(1, 3, 5)
    Writer(tmp_path, "b").write(2, 4, 6)
    assert stamps(tmp_path, tail=4) == [3, 4, 5, 6]
    assert stamps(tmp_path, tail=100) == [1, 2, 3, 4, 5, 6]
    assert stamps(tmp_path, tail=0) == []
    assert stamps(tmp_path, tail=100, since=5) == [5, 6]


def test_the_tail_reaches_into_rotated_parts(tmp_path: Path):
    writer = Writer(tmp_path, "a")
    for first in (1, 3, 5):
        writer.write(first, first + 1)
        writer.rotate()
    writer.write(7)
    assert stamps(tmp_path, tail=4) == [4, 5, 6, 7]
    assert stamps(tmp_path, tail=99) == [1, 2, 3, 4, 5, 6, 7]


def test_long_lines_are_whole(tmp_path: Path):
    path = tmp_path / "a.ndjson"
    path.write_text("".join(json.dumps({"ts": n, "event": "x" * 50_000}) + "\n" for n in range(10)))
    assert stamps(tmp_path, tail=5) == [5, 6, 7, 8, 9]


def test_a_line_that_is_no_record_is_shown_as_it_is(tmp_path: Path):
    (tmp_path / "a.ndjson").write_bytes(b"not json\xff\n")

    async def story() -> list[dict[str, Any]]:
        return [record async for record in logs.read(tmp_path, tail=1)]

    assert asyncio.run(story())[0]["event"] == "not json\N{REPLACEMENT CHARACTER}"


async def take(lines: AsyncIterator[dict[str, Any]], count: int) -> list[int]:
    async with asyncio.timeout(10):
        return [(await anext(lines))["ts"] for _ in range(count)]


def test_following_sees_each_record_once_through_rotations_and_new_instances(tmp_path: Path):
    async def story() -> None:
        first, second = Writer(tmp_path, "a"), Writer(tmp_path, "b")
        first.write(1, 2)
        lines = logs.read(tmp_path, tail=1, follow=True, pause=0.01)
        assert await take(lines, 1) == [2]
        first.write(3)
        assert await take(lines, 1) == [3]
        first.write(4)
        first.rotate()
        first.write(5)
        first.rotate()
        first.write(6)
        assert await take(lines, 3) == [4, 5, 6]
        second.write(7)
        assert await take(lines, 1) == [7]
        first.write(8)
        second.write(9)
        assert await take(lines, 2) == [8, 9]

    asyncio.run(story())


def test_following_lets_go_of_logs_that_were_pruned(tmp_path: Path):
    async def story() -> None:
        held = len(os.listdir("/proc/self/fd"))
        Writer(tmp_path, "first").write(99)
        lines = logs.read(tmp_path, tail=1, follow=True, pause=0)
        async with contextlib.aclosing(lines):
            assert await take(lines, 1) == [99]
            for number in range(20):
                writer = Writer(tmp_path, f"i{number}")
                writer.write(number)
                assert await take(lines, 1) == [number]
                writer.path.unlink()
            assert len(os.listdir("/proc/self/fd")) <= held + 3

    asyncio.run(story())


def test_a_folder_that_goes_while_it_is_read_has_no_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Writer(tmp_path, "a").write(1)

    def gone(*_: Any) -> None:
        raise FileNotFoundError(str(tmp_path))

    monkeypatch.setattr(Path, "glob", gone)
    assert stamps(tmp_path, tail=10) == []


def test_half_a_record_waits_for_its_other_half(tmp_path: Path):
    async def story() -> None:
        path = tmp_path / "a.ndjson"
        path.write_text('{"ts": 1}\n{"ts"')
        lines = logs.read(tmp_path, tail=5, follow=True, pause=0.01)
        assert await take(lines, 1) == [1]
        with path.open("a") as file:
            file.write(": 2}\n")
        assert await take(lines, 1) == [2]

    asyncio.run(story())


def test_following_ends_with_the_deployment_and_its_last_lines(tmp_path: Path):
    async def story() -> None:
        writer = Writer(tmp_path, "a")
        lives = [True]
        lines = logs.read(tmp_path, tail=0, follow=True, alive=lambda: lives[0], pause=0.01)
        waiting = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(0.05)
        writer.write(1)
        lives.clear()
        lives.append(False)
        assert (await waiting)["ts"] == 1
        assert [record["ts"] async for record in lines] == []

    asyncio.run(story())
