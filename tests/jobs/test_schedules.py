"""Schedules with their calls, in a file that owners take over: once, whoever fires."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bema.core.call import Call
from bema.core.durable import Queue
from bema.core.errors import BadDeclaration, NotFound, Refused
from bema.core.limits import DEFAULTS
from bema.core.settings import PartSettings
from bema.core.spec import EndpointSpec, Parameter, Shape
from bema.core.timetable import DeclaredSchedule, Timetable, timetable
from bema.jobs.calls import CallRecord, DurableState
from bema.jobs.engine import JobsEngine, JobsFactory
from bema.jobs.schedule import Schedule
from bema.jobs.schedules import Schedules, declared_by
from tests.jobs.clocks import ManualAlarmClock
from tests.jobs.running import owning

HOUR = 3600


class Clocked:
    """Schedules over an engine, with a clock that moves when told; `fired` are the calls there are."""

    def __init__(self, engine: JobsEngine, clock: ManualAlarmClock) -> None:
        self.engine = engine
        self.clock = clock
        self.schedules = Schedules(engine, engine.create, clock)

    async def at(self, hours: float) -> float | None:
        """Look at the clock so many hours after the start."""
        self.clock.advance(hours * HOUR - self.clock.monotonic())
        return await self.schedules.turn()

    @property
    def fired(self) -> list[str]:
        live = sorted(self.engine.live().values(), key=lambda record: record.id)
        return [record.metadata["bema-scheduled"][11:16] if record.key else "by hand" for record in live]


@contextlib.asynccontextmanager
async def clocked(folder: Path, *declared: Schedule, clock: ManualAlarmClock | None = None) -> AsyncIterator[Clocked]:
    engine = await JobsFactory.lookup("sqlite").open(PartSettings({}, DEFAULTS, folder), "t.t")
    found = Clocked(engine, clock or ManualAlarmClock(MIDNIGHT))
    try:
        await found.schedules.reconcile(declared)
        yield found
    finally:
        await found.schedules.close()
        await engine.close()


MIDNIGHT = 1_700_006_400_000_000


def hourly(**more: Any) -> Schedule:
    return Schedule(name="hourly", route="t.t.f", timetable=timetable("0 * * * *"), arguments=b"\x80", **more)


def told(story):
    def run(tmp_path):
        asyncio.run(story(tmp_path))

    run.__name__ = story.__name__
    return run


@told
async def test_a_firing_is_a_call_with_its_arguments(folder):
    async with clocked(folder, hourly(group="g")) as found:
        assert await found.at(0) == HOUR
        assert await found.at(1) == HOUR
        (call,) = found.engine.live().values()
        assert (call.route, call.group, call.state) == ("t.t.f", "g", DurableState.QUEUED)
        assert call.metadata == {"bema-schedule": "hourly", "bema-scheduled": "2023-11-15T01:00:00+00:00"}
        assert await found.engine.arguments(call.id) == b"\x80"
        (shown,) = await found.schedules.listed()
        assert (shown["call"], shown["fired"], shown["next"]) == (
            call.id,
            MIDNIGHT + HOUR * 1_000_000,
            MIDNIGHT + 2 * HOUR * 1_000_000,
        )


@told
async def test_two_owners_that_fire_at_once_make_one_call(folder):
    async with clocked(folder, hourly()) as found:
        other = Schedules(found.engine, found.engine.create, found.clock)
        await other.reconcile([hourly()])
        found.clock.advance(HOUR)
        await asyncio.gather(found.schedules.turn(), other.turn(), found.schedules.turn())
        assert found.fired == ["01:00"]


@told
async def test_an_owner_that_died_between_the_call_and_its_note_does_not_fire_again(folder):
    clock = ManualAlarmClock(MIDNIGHT)
    async with clocked(folder, hourly(), clock=clock) as found:

        async def dies(schedule):
            raise asyncio.CancelledError

        found.engine.keep_schedule = dies  # type: ignore[method-assign]
        with pytest.raises(asyncio.CancelledError):
            await found.at(1)
        assert found.fired == ["01:00"]
    async with clocked(folder, hourly(), clock=clock) as found:
        assert await found.at(1) == HOUR
        assert found.fired == ["01:00"]
        assert (await found.schedules.listed())[0]["fired"] == MIDNIGHT + HOUR * 1_000_000


@told
async def test_what_had_fired_is_not_fired_with_other_arguments(folder):
    clock = ManualAlarmClock(MIDNIGHT)
    async with clocked(folder, hourly(), clock=clock) as found:
        keep = found.engine.keep_schedule

        async def fails(schedule):
            raise Refused("the disk is full", code="state_unwritable")

        found.engine.keep_schedule = fails  # type: ignore[method-assign]
        await found.at(1)
        found.engine.keep_schedule = keep  # type: ignore[method-assign]
    changed = Schedule(name="hourly", route="t.t.f", timetable=timetable("0 * * * *"), arguments=b"\x81\xa1n\x01")
    async with clocked(folder, changed, clock=clock) as found:
        assert await found.at(1) == HOUR
        assert found.fired == ["01:00"]
        (call,) = found.engine.live().values()
        assert await found.engine.arguments(call.id) == b"\x80"
        assert (await found.schedules.listed())[0]["call"] == call.id


@told
async def test_a_schedule_does_not_lose_its_calls_when_the_owner_moved(folder):
    clock = ManualAlarmClock(MIDNIGHT)
    async with clocked(folder, hourly(), clock=clock) as found:
        await found.at(0.5)
    async with clocked(folder, hourly(), clock=clock) as found:
        await found.at(1)
        assert found.fired == ["01:00"]
    # nobody is there from two to five
    async with clocked(folder, hourly(), clock=clock) as found:
        await found.at(5.5)
        assert found.fired == ["01:00", "05:00"]
        await found.at(6)
        assert found.fired == ["01:00", "05:00", "06:00"]


@told
async def test_after_a_pause_nothing_floods_and_it_stays_paused_over_a_start(folder):
    clock = ManualAlarmClock(MIDNIGHT)
    async with clocked(folder, hourly(), clock=clock) as found:
        assert (await found.schedules.pause("hourly"))["paused"]
        assert await found.at(5) is None
    async with clocked(folder, hourly(), clock=clock) as found:
        assert await found.at(48.5) is None
        assert found.fired == []
        resumed = await found.schedules.resume("hourly")
        assert resumed["next"] == MIDNIGHT + 49 * HOUR * 1_000_000
        await found.schedules.turn()
        assert found.fired == []
        await found.at(49)
        assert found.fired == ["01:00"]
        await found.schedules.pause("hourly")
        await found.at(60)
        await found.schedules.resume("hourly", missed=True)
        await found.schedules.turn()
        assert found.fired == ["01:00", "12:00"], "one for eleven, by choice"


@told
async def test_a_pause_while_it_fires_is_not_lost(folder):
    async with clocked(folder, hourly()) as found:
        submit, going = found.engine.create, asyncio.Event()

        async def slow(record: CallRecord, arguments: bytes) -> CallRecord:
            going.set()
            return await submit(record, arguments)

        found.schedules._submit = slow
        found.clock.advance(HOUR)
        turn = asyncio.create_task(found.schedules.turn())
        await going.wait()
        await found.schedules.pause("hourly")
        await turn
        assert (await found.schedules.listed())[0]["paused"]
        await found.at(3)
        assert found.fired == ["01:00"]


@told
async def test_a_clock_that_is_set_back_by_a_day_fires_nothing_twice(folder):
    async with clocked(folder, hourly()) as found:
        await found.at(30)
        for hours in (6, 7, 29, 30, 30.5):
            await found.at(hours)
        assert found.fired == ["06:00"]
        await found.at(31)
        assert found.fired == ["06:00", "07:00"]


@told
async def test_a_clock_that_was_days_ahead_fires_on_and_what_had_fired_does_not_again(folder):
    async with clocked(folder, hourly()) as found:
        for hours in (1, 2, 24 * 100):
            await found.at(hours)
        fired = found.fired
        await found.at(0.5)
        for hours in (1, 2, 3):
            await found.at(hours)
        assert sorted(found.fired) == sorted([*fired, "03:00"])


@told
async def test_while_nobody_declares_it_nothing_fires_and_it_is_made_up_for_once(folder):
    async with clocked(folder) as found:
        instance, another = object(), object()
        found.schedules.declare([hourly()], instance)
        assert await found.at(0.5) == HOUR / 2
        await found.at(1)
        found.schedules.declare([hourly()], another)
        found.schedules.retract(instance)
        await found.at(2)
        assert found.fired == ["01:00", "02:00"]
        found.schedules.retract(another)
        assert await found.at(9.5) is None
        found.schedules.declare([hourly()], instance)
        assert await found.at(9.6) == pytest.approx(0.4 * HOUR)
        assert found.fired == ["01:00", "02:00", "09:00"]


@told
async def test_the_declared_are_added_changed_and_dropped(folder):
    clock = ManualAlarmClock(MIDNIGHT)
    daily = Schedule(name="daily", route="t.t.f", timetable=timetable("0 0 * * *"), arguments=b"\x80")
    async with clocked(folder, hourly(), daily, clock=clock) as found:
        await found.schedules.pause("daily")
        await found.at(1)
    changed = Schedule(name="hourly", route="t.t.g", timetable=timetable(every=600), arguments=b"\x81")
    async with clocked(folder, changed, clock=clock) as found:
        shown = {each["name"]: each for each in await found.schedules.listed()}
        assert (shown["hourly"]["endpoint"], shown["hourly"]["when"]) == ("t.t.g", "every 600 s")
        assert shown["daily"]["paused"], "what a person stopped is remembered while the code is away"
        assert await found.at(1) == 600
    async with clocked(folder, daily, clock=clock) as found:
        assert [(each["name"], each["paused"]) for each in await found.schedules.listed()] == [("daily", True)]


@told
async def test_an_instant_that_came_comes_no_more_though_its_code_was_away(folder):
    clock = ManualAlarmClock(MIDNIGHT)
    once = Schedule(name="once", route="t.t.f", arguments=b"\x80", timetable=_at(MIDNIGHT + 1_000_000))
    async with clocked(folder, once, clock=clock) as found:
        assert await found.at(1) is None
        assert found.fired == ["00:00"]
        (call,) = found.engine.live().values()
        claimed = await found.engine.claim(call.id, "")
        await found.engine.end(claimed.id, claimed.fence, DurableState.DONE, b"", now=1)
        await found.engine.sweep(2**50)
    async with clocked(folder, clock=clock):
        pass
    async with clocked(folder, once, clock=clock) as found:
        assert await found.at(2) is None
        assert found.fired == []


def _at(instant: int) -> Timetable:
    return Timetable(at=instant)


@told
async def test_a_firing_by_hand_is_a_call_more(folder):
    async with clocked(folder, hourly()) as found:
        first, second = await found.schedules.run("hourly"), await found.schedules.run("hourly")
        assert first != second
        await found.at(1)
        assert sorted(found.fired) == ["01:00", "by hand", "by hand"]
        with pytest.raises(NotFound, match="did you mean 'hourly'"):
            await found.schedules.run("hourl")


@told
async def test_what_cannot_be_written_is_tried_again_and_holds_up_no_other(folder):
    minutely = Schedule(name="other", route="t.t.g", timetable=timetable("0 * * * *"), arguments=b"\x80")
    async with clocked(folder, hourly(), minutely) as found:
        create, full = found.engine.create, True

        async def fails(record: CallRecord, arguments: bytes) -> CallRecord:
            if full and record.route == "t.t.f":
                raise Refused("the disk is full", code="state_unwritable")
            return await create(record, arguments)

        found.schedules._submit = fails
        assert await found.at(1) == 1.0, "soon again"
        assert [record.route for record in found.engine.live().values()] == ["t.t.g"]
        full = False
        found.clock.advance(1)
        await found.schedules.turn()
        assert found.fired == ["01:00", "01:00"]


def test_a_declared_schedule_brings_its_arguments():
    endpoint = EndpointSpec(
        "clean",
        Shape.UNARY,
        (Parameter("days", int), Parameter("dry", bool, required=False, default=False)),
        facts={
            "jobs": {
                "schedules": (DeclaredSchedule(timetable=timetable(every=60), arguments={"days": 3}),),
                "queue": Queue(group="days"),
            }
        },
    )
    (found,) = declared_by("demo.shop", endpoint)
    assert (found.name, found.route, found.arguments) == ("clean", "demo.shop.clean", b"\x81\xa4days\x03")
    assert found.group == "days=3"
    assert declared_by("demo.shop", EndpointSpec("plain", Shape.UNARY)) == []
    wrong = DeclaredSchedule(timetable=timetable(every=60), name="n", arguments={"days": "three"})
    with pytest.raises(BadDeclaration, match=r"the arguments of the schedule n of demo\.shop\.clean"):
        declared_by(
            "demo.shop",
            EndpointSpec("clean", Shape.UNARY, endpoint.parameters, facts={"jobs": {"schedules": (wrong,)}}),
        )


def test_its_calls_run_and_their_results_are_kept(tmp_path):
    async def story():
        async with owning(tmp_path) as owner:
            times = []

            @owner.durable
            async def tick(call: Call) -> str:
                times.append(call.metadata["bema-schedule"])
                return "ticked"

            owner.runner.begin()
            schedules = owner.runner.schedules
            now = owner.runner.clock.now()
            declared = Schedule(name="soon", route="t.t.tick", timetable=_at(now + 50_000), arguments=b"\x80")
            schedules.declare([declared], owner)
            async with asyncio.timeout(10):
                while not (listed := await schedules.listed()) or not listed[0]["call"]:
                    await asyncio.sleep(0.01)
                assert await owner.runner.result(listed[0]["call"]) == "ticked"
            assert times == ["soon"]

    asyncio.run(story())
