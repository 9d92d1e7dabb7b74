"""The layouts of durable calls: steps are taken in order, once each, and what is newer is left alone."""

import asyncio

import pytest

from bema.core.errors import Refused
from bema.core.limits import DEFAULTS
from bema.core.settings import PartSettings
from bema.jobs.layout import bring_up
from bema.state.engine import Mutation, StateEngine
from bema.state.memory import MemoryEngine


async def renamed(state: StateEngine) -> list[Mutation]:
    entries = await state.scan("old/")
    moved = [Mutation(f"new/{entry.key.removeprefix('old/')}", entry.value) for entry in entries]
    return [*moved, *(Mutation(entry.key, None) for entry in entries)]


async def marked(state: StateEngine) -> list[Mutation]:
    return [Mutation("marked", str(len(await state.scan("new/"))).encode())]


def test_each_step_is_taken_once_and_in_order(tmp_path):
    async def story():
        state = await MemoryEngine.open(PartSettings({}, DEFAULTS, tmp_path), "t")
        await state.apply([Mutation("old/a", b"1"), Mutation("old/b", b"2")])
        await bring_up(state)
        assert [entry.key for entry in await state.scan()] == ["old/a", "old/b"], "layout 1 bears no number"
        for _ in range(2):
            await bring_up(state, (renamed, marked))
            assert {entry.key: entry.value for entry in await state.scan()} == {
                "marked": b"2",
                "meta/layout": b"3",
                "new/a": b"1",
                "new/b": b"2",
            }
        with pytest.raises(Refused, match="layout 3; this bema knows up to 1"):
            await bring_up(state)

    asyncio.run(story())
