"""A scope stops what it owns."""

import asyncio
import logging

import pytest

from bema.runtime.tasks import Tasks


def test_a_scope_that_ends_stops_its_tasks_and_waits_for_them():
    async def story():
        ended = []

        async def work():
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append(1)

        async with Tasks("scope") as tasks:
            tasks.start(work(), name="worker")
            await asyncio.sleep(0)
            assert len(tasks) == 1
        assert ended == [1]
        assert len(tasks) == 0

    asyncio.run(story())


def test_a_task_that_fails_is_logged_with_its_name(caplog):
    async def story():
        async def fail():
            raise ValueError("broken")

        async with Tasks("scope") as tasks:
            task = tasks.start(fail(), name="breaker")
            with pytest.raises(ValueError, match="broken"):
                await task
            await asyncio.sleep(0)

    with caplog.at_level(logging.ERROR):
        asyncio.run(story())
    assert "scope: task breaker failed" in caplog.text


def test_an_ended_scope_starts_nothing():
    async def story():
        async def work():
            raise AssertionError("it must not run")

        tasks = Tasks("scope")
        await tasks.stop()
        await tasks.stop()
        with pytest.raises(RuntimeError, match="'scope' has ended"):
            tasks.start(work())

    asyncio.run(story())


def test_a_task_may_stop_the_scope_it_runs_in():
    async def story():
        tasks = Tasks("scope")

        async def last():
            await tasks.stop()
            return "done"

        assert await tasks.start(last()) == "done"

    asyncio.run(story())
