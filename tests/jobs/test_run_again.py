"""Durable calls run again with what they recorded: where their code comes to, and that nothing is done meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from bema.core.call import Call
from bema.jobs.calls import DurableState
from bema.jobs.operations import CallOperations
from bema.jobs.replay import CallHistory, Frames, Replay, ReplayEnd, last_of_users
from tests.jobs.running import owning

done: list[Any] = []


def told(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    def run(tmp_path):
        async def story():
            done.clear()
            async with owning(tmp_path) as owner, asyncio.timeout(20):
                await test(owner)

        asyncio.run(story())

    run.__name__ = test.__name__
    return run


async def double(n: int) -> int:
    done.append(n)
    return n * 2


class Replayed:
    """A call of `name` that has come as far as it can, run again by the code that its endpoint has now."""

    def __init__(self, owner: Any, id: str) -> None:
        self._owner = owner
        self._id = id
        self.steps: list[str] = []
        self.frames: Frames = []

    async def history(self) -> CallHistory:
        engine = self._owner.engine
        record = await engine.get(self._id)
        return CallHistory(
            record=record,
            arguments=await engine.arguments(self._id),
            entries=(await engine.journal(self._id)).entries,
            payload=await engine.outcome(self._id) if record.state.ended else None,
        )

    async def end(self) -> ReplayEnd:
        history = await self.history()
        endpoint = self._owner.runner.endpoints[history.record.route]
        before = list(done)
        replay = Replay(history, endpoint, lambda entry: self.steps.append(entry.shown), self._seen)
        try:
            return await replay.end()
        finally:
            assert done == before, "a replay does no step"
            assert await self.history() == history, "a replay writes nothing"

    def _seen(self, frames: Frames) -> None:
        self.frames = frames

    @property
    def at(self) -> str:
        """The function of the user's that it stands in."""
        return self.frames[last_of_users(self.frames)][0].f_code.co_name


@told
async def test_a_call_that_has_ended_comes_to_the_same_result(owner):
    @owner.durable
    async def order(n: int, call: Call) -> list[int]:
        one = await call.step(double, n)
        return [one, *await asyncio.gather(call.step(double, one), call.step(double, one + 1))]

    owner.runner.begin()
    id = await owner.submit("order", n=3)
    await owner.until(id, DurableState.DONE)
    replay = Replayed(owner, id)
    assert await replay.end() == ("done", "[6, 12, 14]", True)
    assert sorted(replay.steps) == ["step 1 double", "step 1.1:1 double", "step 1.2:1 double"]
    assert replay.frames == []


@told
async def test_a_call_that_waits_stands_where_it_waits(owner):
    @owner.durable
    async def order(n: int, call: Call) -> int:
        return await helper(call, await call.step(double, n))

    async def helper(call: Call, doubled: int) -> int:
        return doubled + await call.ask(int, "how many?")

    owner.runner.begin()
    id = await owner.submit("order", n=3)
    await owner.until(id, DurableState.ASKING)
    replay = Replayed(owner, id)
    assert await replay.end() == ("waits", "ask 2 int: how many?", True)
    assert replay.at == "helper"
    assert replay.frames[last_of_users(replay.frames)][0].f_locals["doubled"] == 6
    assert "order" in [frame.f_code.co_name for frame, _ in replay.frames], "the way to it is there"


@told
async def test_code_that_asks_for_something_else_differs_and_both_are_named(owner):
    @owner.durable
    async def order(n: int, call: Call) -> int:
        doubled = await call.step(double, n)
        return await call.ask(int) + doubled

    owner.runner.begin()
    id = await owner.submit("order", n=3)
    await owner.until(id, DurableState.ASKING)

    @owner.durable  # type: ignore[no-redef]
    async def order(n: int, call: Call) -> int:  # noqa: F811 - the file was edited
        await call.sleep(3)
        return 1

    replay = Replayed(owner, id)
    kind, says, agrees = await replay.end()
    assert (kind, agrees, replay.at) == ("differs", False, "order")
    assert "step 1 double" in says
    assert "sleep 1" in says


@told
async def test_a_handler_that_ends_with_another_result_differs(owner):
    @owner.durable
    async def order(n: int, call: Call) -> int:
        return await call.step(double, n)

    owner.runner.begin()
    id = await owner.submit("order", n=3)
    await owner.until(id, DurableState.DONE)

    @owner.durable  # type: ignore[no-redef]
    async def order(n: int, call: Call) -> int:  # noqa: F811
        return await call.step(double, n) + 1

    assert await Replayed(owner, id).end() == ("differs", "the call ended with 6, and the handler now with 7", False)

    @owner.durable  # type: ignore[no-redef]
    async def order(n: int, call: Call) -> int:  # noqa: F811
        return await call.step(double, await call.step(double, n))

    kind, says, _ = await Replayed(owner, id).end()
    assert (kind, says) == ("differs", "the call has done, and the code asks for step 2 double")


@told
async def test_a_failure_is_found_again_with_the_frames_in_which_it_was_raised(owner):
    @owner.durable
    async def order(n: int, call: Call) -> int:
        doubled = await call.step(double, n)
        return check(doubled)

    def check(doubled: int) -> int:
        raise ValueError(f"{doubled} is too much")

    owner.runner.begin()
    id = await owner.submit("order", n=3)
    await owner.until(id, DurableState.FAILED)
    replay = Replayed(owner, id)
    assert await replay.end() == ("failed", "ValueError: 6 is too much", True)
    assert replay.at == "check"


@told
async def test_a_handler_that_now_fails_where_the_call_goes_on_is_told(owner):
    @owner.durable
    async def order(n: int, call: Call) -> int:
        doubled = await call.step(double, n)
        return doubled + await call.ask(int)

    owner.runner.begin()
    id = await owner.submit("order", n=3)
    await owner.until(id, DurableState.ASKING)

    @owner.durable  # type: ignore[no-redef]
    async def order(n: int, call: Call) -> int:  # noqa: F811
        await call.step(double, n)
        raise KeyError("gone")

    assert await Replayed(owner, id).end() == ("failed", "KeyError: 'gone'", False)

    @owner.durable  # type: ignore[no-redef]
    async def order(n: int, call: Call) -> int:  # noqa: F811
        raise KeyError("at once")

    kind, says, _ = await Replayed(owner, id).end()
    assert kind == "differs"
    assert "its history goes on with step 1 double; it raised KeyError: 'at once'" in says


@told
async def test_a_cancelled_call_is_cancelled_at_the_same_place_and_undone_in_the_history(owner):
    @owner.durable
    async def order(n: int, call: Call) -> int:
        call.on_cancel(double, 100)
        await call.step(double, n)
        return await call.ask(int)

    owner.runner.begin()
    id = await owner.submit("order", n=3)
    await owner.until(id, DurableState.ASKING)
    await owner.runner.cancel(id)
    await owner.until(id, DurableState.CANCELLED)
    replay = Replayed(owner, id)
    assert (await replay.end()).kind == "cancelled"
    assert replay.steps == ["step 1 double", "cancel", "step 3 double"]


@told
async def test_arguments_that_do_not_fit_any_more_differ(owner):
    @owner.durable
    async def order(n: int, call: Call) -> int:
        return await call.ask(int) + n

    owner.runner.begin()
    id = await owner.submit("order", n=3)
    await owner.until(id, DurableState.ASKING)

    @owner.durable  # type: ignore[no-redef]
    async def order(n: str, call: Call) -> int:  # noqa: F811
        return 1

    assert (await Replayed(owner, id).end()).kind == "differs"


@told
async def test_a_history_comes_in_parts_that_a_message_can_carry(owner):
    async def make(n: int) -> bytes:
        return bytes(1024 * 1024 - 100)

    @owner.durable
    async def many(call: Call) -> int:
        for n in range(9):
            await call.step(make, n)
        return 9

    owner.runner.begin()
    id = await owner.submit("many")
    await owner.until(id, DurableState.DONE)
    calls, after = CallOperations(owner.runner), 0
    parts: list[dict[str, Any]] = []
    while not parts or parts[-1]["more"]:
        parts.append(await calls.history(id, after))
        after = parts[-1]["last"]
    orders = [msgspec.msgpack.decode(entry)["order"] for part in parts for entry in part["entries"]]
    assert (orders, len(parts)) == (list(range(1, 10)), 3)
