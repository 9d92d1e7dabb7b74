"""Schedules: makes the calls of the schedules of one component, in the process that owns its calls.

Laws: a firing is a durable call whose key is its schedule and its instant, so a repetition by another owner, or after a death
in between, is the same call. The call is kept first, then that it fired. All schedules share one heap and one task. What
cannot be written now is tried again, and holds up no other schedule.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from bema.core.errors import BadDeclaration, BemaError, Conflict, Invalid, NotFound, Refused
from bema.core.naming import nearest, new_call_id
from bema.core.spec import EndpointSpec
from bema.core.timetable import DeclaredSchedule, iso
from bema.jobs.admission import group_of
from bema.jobs.calls import CallRecord
from bema.jobs.engine import JobsEngine
from bema.jobs.schedule import Schedule, reconciled
from bema.runtime.alarms import AlarmClock
from bema.runtime.tasks import Tasks
from bema.wire.values import codecs

logger = logging.getLogger("bema.jobs")

_LOOK: Final = 15.0
"""Seconds after which the clock is looked at again: it may have been set. Below the grace of a firing."""
_AGAIN: Final = 1.0
"""Seconds until what the machine did not allow is tried again."""

Submit = Callable[[CallRecord, bytes], Awaitable[CallRecord]]


class Schedules:
    """Tell it what the code declares, and `begin`; without that, it looks after what is kept. `submit` keeps a call and runs it."""

    def __init__(self, engine: JobsEngine, submit: Submit, clock: AlarmClock) -> None:
        self._engine = engine
        self._submit = submit
        self._clock = clock
        self._active: dict[str, Schedule] = {}  # that fire here, by name
        self._heap: list[tuple[int, str]] = []  # when to look at each
        self._looks: dict[str, int] = {}  # the instant under which each stands in the heap
        self._told: set[str] = set()  # whose trouble was said
        self._declarations: dict[object, tuple[Schedule, ...]] = {}  # by whom, the last one last
        self._settled = True
        self._turn = asyncio.Lock()  # a person's change and a firing write the same record
        self._news = asyncio.Event()
        self._tasks = Tasks("schedules")

    def begin(self) -> None:
        """Fire what is declared, now or later, each with its past."""
        self._tasks.start(self._turns(), "schedules")

    def declare(self, declared: Iterable[Schedule], by: object) -> None:
        """Go by what somebody declares, until a later one declares something else, or those that did have retracted."""
        self._declarations.pop(by, None)
        self._declarations[by] = tuple(declared)
        self._changed()

    def retract(self, by: object) -> None:
        """Who declared this is gone. Without anybody nothing fires, and what comes is missed."""
        if self._declarations.pop(by, None) is not None:
            self._changed()

    def _changed(self) -> None:
        self._settled = False
        self._news.set()

    def quiet(self) -> bool:
        """Whether all is kept that is declared, and nothing is to be looked at now."""
        return self._settled and not (self._heap and self._heap[0][0] <= self._clock.now()) and not self._turn.locked()

    async def close(self) -> None:
        """Fire no more. The engine stays open."""
        await self._tasks.stop()

    async def _turns(self) -> None:
        while True:
            self._news.clear()
            try:
                wait = await self.turn()
                self._told.discard("")
            except BemaError as error:
                self._say("", "the schedules cannot be kept", error)
                wait = _AGAIN
            alarm = (
                None if wait is None else self._clock.at(self._clock.now() + round(wait * 1_000_000), self._news.set)
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if wait is None else min(wait, _LOOK)):
                    await self._news.wait()
            if alarm is not None:
                alarm()

    async def _settle(self) -> None:
        if self._settled:
            return
        self._settled = True  # before anything is awaited: what changes meanwhile is settled next
        if not self._declarations:
            self._active.clear()
            self._looks.clear()
            return
        try:
            await self.reconcile(next(reversed(self._declarations.values())))
        except BemaError:
            self._settled = False
            raise

    async def reconcile(self, declared: Iterable[Schedule]) -> None:
        """Bring what is kept to what the code declares: added, changed, or dropped. What a person paused stays paused."""
        async with self._turn:
            now, wanted = self._clock.now(), {schedule.name: schedule for schedule in declared}
            kept = {schedule.name: schedule for schedule in await self._engine.schedules()}
            for name, schedule in wanted.items():
                await self._keep(reconciled(kept.get(name), schedule, now), kept.get(name))
            for name in kept.keys() - wanted.keys():
                self._active.pop(name, None)
                self._looks.pop(name, None)
                if not kept[name].outlives_code:
                    await self._engine.drop_schedule(name)

    # firing

    async def turn(self) -> float | None:
        """Go by what is declared now, and fire what is due; the seconds until there is more to look at, None for never."""
        await self._settle()
        async with self._turn:
            now = self._clock.now()
            for schedule in tuple(self._active.values()):
                if (rewound := schedule.rewound(now)) is not schedule:
                    logger.warning(
                        "schedule %s fired on a clock that was days ahead; it goes by this one", schedule.name
                    )
                    self._look_at(rewound)
            while self._heap and self._heap[0][0] <= now:
                at, name = heapq.heappop(self._heap)
                # an entry of a heap cannot be taken out of its middle: it is passed over when it comes up
                if self._looks.get(name) == at:
                    await self._look(self._active[name], now)
            return (self._heap[0][0] - now) / 1_000_000 if self._heap else None

    async def _look(self, schedule: Schedule, now: int) -> None:
        after, fires = schedule.due(now)
        try:
            if fires:
                call = await self._fire(schedule, after.passed, now)
                after = msgspec.structs.replace(after, fired=after.passed, call=call)
            elif after is not schedule:
                logger.warning("schedule %s missed %s, and skips it", schedule.name, iso(after.passed))
            await self._keep(after, schedule)
            self._told.discard(schedule.name)
        except BemaError as error:
            # the call may be there: its key makes it the same one next time
            self._say(schedule.name, f"schedule {schedule.name} cannot fire", error)
            self._push(schedule.name, now + round(_AGAIN * 1_000_000))

    async def _fire(self, schedule: Schedule, instant: int, now: int) -> str:
        metadata = {"bema-schedule": schedule.name, "bema-scheduled": iso(instant)}
        record = _call_of(schedule, now, key=schedule.key_at(instant), metadata=metadata)
        try:
            return (await self._submit(record, schedule.arguments)).id
        except Conflict as error:
            if error.code != "call_exists":
                raise
            # it fired before its arguments were changed
            return str(error.details["id"])

    async def _keep(self, schedule: Schedule, before: Schedule | None) -> None:
        if schedule != before:
            await self._engine.keep_schedule(schedule)
        self._look_at(schedule)

    def _look_at(self, schedule: Schedule) -> None:
        self._active[schedule.name] = schedule
        if (at := schedule.next) is None:
            self._looks.pop(schedule.name, None)
        else:
            self._push(schedule.name, at)

    def _push(self, name: str, at: int) -> None:
        self._looks[name] = at
        heapq.heappush(self._heap, (at, name))
        self._news.set()

    def _say(self, name: str, what: str, error: BemaError) -> None:
        """Once for each trouble, and not at each try."""
        if name not in self._told:
            logger.error("%s: %s; trying again", what, error.message)
        self._told.add(name)

    # what people ask for

    async def listed(self) -> list[dict[str, Any]]:
        """Every schedule that is kept, as plain data; instants in microseconds UTC, 0 for none."""
        return [_data(schedule) for schedule in await self._engine.schedules()]

    async def pause(self, name: str) -> dict[str, Any]:
        """Let it fire no more until it is resumed. `NotFound`."""
        async with self._turn:
            schedule = await self._kept(name)
            return await self._change(schedule, msgspec.structs.replace(schedule, paused=True))

    async def resume(self, name: str, missed: bool = False) -> dict[str, Any]:
        """Let a paused one fire again. What came meanwhile does not, or with `missed` once, by its own rule. `NotFound`."""
        async with self._turn:
            schedule = await self._kept(name)
            return await self._change(schedule, schedule.resumed(self._clock.now(), missed=missed))

    async def run(self, name: str) -> str:
        """Make its call now, besides its instants; gives the call's id. `NotFound`."""
        schedule = await self._kept(name)
        record = _call_of(schedule, self._clock.now(), metadata={"bema-schedule": name})
        return (await self._submit(record, schedule.arguments)).id

    async def _kept(self, name: str) -> Schedule:
        if not isinstance(name, str):
            raise Invalid(f"{name!r} is not the name of a schedule", code="bad_name")
        if name in self._active:
            return self._active[name]
        kept = {schedule.name: schedule for schedule in await self._engine.schedules()}
        if name not in kept:
            raise NotFound(f"there is no schedule {name!r}{nearest(name, kept)}")
        return kept[name]

    async def _change(self, before: Schedule, after: Schedule) -> dict[str, Any]:
        if after != before:
            await self._engine.keep_schedule(after)
        if before.name in self._active:
            self._look_at(after)
        return _data(after)


def _call_of(schedule: Schedule, now: int, *, metadata: dict[str, str], key: str = "") -> CallRecord:
    return CallRecord(
        id=new_call_id(now), route=schedule.route, created=now, key=key, group=schedule.group, metadata=metadata
    )


def declared_by(component: str, endpoint: EndpointSpec) -> list[Schedule]:
    """The schedules of an endpoint, with encoded arguments; `BadDeclaration` for arguments that are not of their types."""
    said = endpoint.facts.get("jobs")
    found: list[DeclaredSchedule] = list(said.get("schedules", ())) if isinstance(said, Mapping) else []
    return [_schedule(f"{component}.{endpoint.name}", endpoint, one) for one in found]


def _schedule(route: str, endpoint: EndpointSpec, said: DeclaredSchedule) -> Schedule:
    try:
        arguments = codecs.arguments_encoder(endpoint.parameters)(dict(said.arguments))
        codecs.arguments_decoder(endpoint.parameters)(arguments)
    except (Invalid, *codecs.UNFIT) as error:
        refusal = codecs.refusal(error, f"the arguments of the schedule {said.name} of {route}")
        raise BadDeclaration(refusal.message, fix=refusal.fix) from error
    return Schedule(
        name=said.name or endpoint.name,
        route=route,
        timetable=said.timetable,
        missed=said.missed,
        arguments=arguments,
        group=group_of(endpoint, said.arguments),
    )


def _data(schedule: Schedule) -> dict[str, Any]:
    try:
        upcoming = schedule.next or 0
    except Refused:  # looked after where cronsim is not installed
        upcoming = 0
    return {
        "name": schedule.name,
        "endpoint": schedule.route,
        "when": schedule.timetable.text,
        "missed": schedule.missed,
        "paused": schedule.paused,
        "next": upcoming,
        "fired": schedule.fired,
        "call": schedule.call,
    }
