"""A full disk: nothing can be added, everything can be taken away, and what is there stays whole."""

import asyncio
from pathlib import Path

import pytest

from bema.core.errors import Refused
from bema.state.engine import Mutation
from bema.state.reserve import NAME, SIZE, Reserve
from bema.state.sqlite import SqliteEngine
from tests.disks import fill, small_disk

VALUE = b"x" * 2000


def test_what_takes_more_away_than_it_adds_works_on_a_full_disk(tmp_path: Path):
    async def story(disk: Path) -> None:
        engine = await SqliteEngine.at(disk / "store.sqlite")
        digest = await engine.put_blob(b"y" * 100_000)
        for number in range(60):
            await engine.apply([Mutation(f"{part}/{number}", VALUE) for part in ("a", "b", "c")])
        fill(disk)
        for _ in range(3):
            with pytest.raises(Refused, match="full") as caught:
                await engine.apply([Mutation("more", VALUE * 100)])
            assert (caught.value.code, "Free some space" in (caught.value.fix or "")) == ("state_unwritable", True)
        for number in range(60):
            gone = [Mutation(f"{part}/{number}", None) for part in ("a", "b", "c")]
            await engine.apply([*gone, Mutation(f"kept/{number}", b"small")])
            fill(disk)  # whatever became free is taken by others at once
        await engine.drop_blobs([digest])
        assert len(await engine.scan("kept/")) == 60
        assert await engine.scan("a/") == []
        await engine.close()
        again = await SqliteEngine.at(disk / "store.sqlite")
        assert (len(await again.scan("kept/")), await again.blobs()) == (60, [])
        await again.close()

    with small_disk(tmp_path / "disk", 8) as disk:
        asyncio.run(story(disk))


def test_those_who_add_fail_alone(tmp_path: Path):
    async def story(disk: Path) -> None:
        engine = await SqliteEngine.at(disk / "store.sqlite")
        await engine.apply([Mutation(key, VALUE) for key in ("a", "b")])
        fill(disk)
        done = await asyncio.gather(
            engine.apply([Mutation("more", VALUE * 100)]),
            engine.apply([Mutation("a", None)]),
            engine.apply([Mutation("again", VALUE * 100)]),
            engine.apply([Mutation("b", None)]),
            return_exceptions=True,
        )
        assert [isinstance(each, Refused) for each in done] == [True, False, True, False]
        assert await engine.scan() == []
        await engine.close()

    with small_disk(tmp_path / "disk", 8) as disk:
        asyncio.run(story(disk))


def test_space_is_set_aside_again_when_there_is_some(tmp_path: Path):
    async def story(disk: Path) -> None:
        engine = await SqliteEngine.at(disk / "store.sqlite")
        await engine.apply([Mutation("a", VALUE), Mutation("b", VALUE)])
        fill(disk)
        await engine.apply([Mutation("a", None)])
        (disk / "ballast").unlink()
        await engine.apply([Mutation("c", VALUE)])
        assert (disk / NAME).stat().st_size == SIZE
        await engine.close()

    with small_disk(tmp_path / "disk", 8) as disk:
        asyncio.run(story(disk))


def test_it_has_real_blocks_and_there_is_one_of_a_folder(tmp_path: Path):
    reserve = Reserve(tmp_path)
    reserve.fill()
    reserve.fill()
    found = (tmp_path / NAME).stat()
    assert (found.st_size, found.st_blocks * 512 >= SIZE, reserve.short) == (SIZE, True, False)
    assert reserve.release()
    assert not reserve.release()
