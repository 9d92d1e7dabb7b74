"""Schedules and queues of what is deployed: an instance declares them, the platform's service goes by them."""

import asyncio
from typing import Any

import msgspec

from bema.core.call import Call
from bema.core.clock import SystemClock
from bema.core.durable import Queue
from bema.core.timetable import Timetable, timetable
from bema.jobs.calls import DurableState
from bema.jobs.membership import Membership
from bema.jobs.schedule import Schedule
from tests.jobs import test_service
from tests.jobs.test_service import Platform, submit

told = test_service.told  # a fixture


async def tick(call: Call) -> str:
    return str(call.metadata.get("bema-schedule"))


def declaring(*schedules: Schedule, queue: Queue | None = None) -> type[Membership]:
    """Members that declare these schedules, and a queue for each of their endpoints."""

    class Declaring(Membership):
        def begin(self) -> None:
            self.schedules = list(schedules)
            for endpoint in self.endpoints.values():
                facts = {**endpoint.spec.facts, "jobs": {"queue": queue}}
                endpoint.spec = msgspec.structs.replace(endpoint.spec, facts=facts)
            super().begin()

    return Declaring


def soon(name: str) -> Schedule:
    at = SystemClock().now() + 50_000
    return Schedule(name=name, route="t.t.tick", timetable=Timetable(at=at), arguments=b"\x80")


async def listed(platform: Platform) -> dict[str, Any]:
    return {each["name"]: each for each in await platform.operate("schedules")}


async def until_fired(platform: Platform, name: str) -> str:
    async with asyncio.timeout(10):
        while not (found := (await listed(platform)).get(name)) or not found["call"]:
            await asyncio.sleep(0.01)
    call: str = found["call"]
    return call


def test_the_service_fires_what_an_instance_declares_and_the_instance_runs_it(told):
    async def story(platform: Platform):
        member = await platform.member(tick, kind=declaring(soon("a")))
        assert await member.result(await until_fired(platform, "a")) == "a"
        made = await platform.operate("run_schedule", name="a")
        assert await member.result(made) == "a"

    told(story)


def test_who_joined_last_says_what_the_clock_calls_and_the_one_before_when_that_leaves(told):
    async def story(platform: Platform):
        hourly = Schedule(name="hourly", route="t.t.tick", timetable=timetable("0 * * * *"), arguments=b"\x80")
        await platform.member(tick, version="v1", kind=declaring(hourly))
        newer = await platform.member(tick, version="v2", kind=declaring(soon("b")))
        await until_fired(platform, "b")
        assert (await listed(platform)).keys() == {"b"}, "gone from the code"
        platform.members.remove(newer)
        await newer.close()
        async with asyncio.timeout(10):
            while "hourly" not in await listed(platform):
                await asyncio.sleep(0.01)

    told(story)


def test_a_pause_holds_over_a_start_of_the_service(told):
    async def story(platform: Platform):
        every = Schedule(name="every", route="t.t.tick", timetable=timetable(every=3600), arguments=b"\x80")
        await platform.member(tick, kind=declaring(every))
        async with asyncio.timeout(10):
            while "every" not in await listed(platform):
                await asyncio.sleep(0.01)
        assert (await platform.operate("pause_schedule", name="every"))["paused"]
        await platform.end()
        await platform.start()
        async with asyncio.timeout(10):
            await platform.members[-1].joined.wait()
        assert (await listed(platform))["every"]["paused"]
        assert not (await platform.operate("resume_schedule", name="every"))["paused"]

    told(story)


def test_the_queue_of_an_endpoint_holds_across_its_instances(told):
    running = most = 0

    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1

    async def few(call: Call) -> None:
        await call.step(work)

    async def story(platform: Platform):
        kind = declaring(queue=Queue(concurrency=2))
        members = [await platform.member(few, kind=kind) for _ in range(3)]
        ids = [await submit(members[n % 3], "few") for n in range(12)]
        for id in ids:
            await platform.until(id, DurableState.DONE)
        assert most == 2

    told(story)
