"""The platform's owner of durable calls, and the instances that run them: who gets what, and what happens when one of them is lost."""

import asyncio
import contextlib
import gc
import itertools
import shutil
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import msgspec
import pytest

from bema.core import settings
from bema.core.call import Call, Unary
from bema.core.clock import SystemClock
from bema.core.errors import BemaError, Conflict, Invalid, NotFound
from bema.core.naming import new_call_id
from bema.jobs.awaited import Incoming
from bema.jobs.calls import CallRecord, DurableState
from bema.jobs.journal import JournalEntry
from bema.jobs.ledger import SqliteLedger
from bema.jobs.membership import Membership
from bema.jobs.service import Jobs, kept, settings_of, unfinished
from bema.jobs.worker import DurableEndpoint
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.distributed import DistributedRuntime
from bema.runtime.process.host import LaunchOptions
from bema.runtime.rpc import signatures
from bema.runtime.rpc.adapter import handler_of
from bema.sdk import lifecycle
from bema.state.engine import Mutation

NAME = "t.t@11111111-2222-3333-4444-555555555555"
_numbers = itertools.count(1)


class OutOfStock(Exception):
    pass


class Platform:
    """The service, which may be ended and started again where it was, and members of it."""

    def __init__(self, **limits: Any) -> None:
        self.address = f"memory:jobs/{next(_numbers)}"
        self.members: list[Membership] = []
        self._limits = limits

    async def start(self) -> None:
        options = LaunchOptions(listen=self.address, token="secret", embedded=True)
        self._runtime = DistributedRuntime(MemoryDiscovery(), options=options, limits=self._limits)
        shown = asyncio.Event()
        self._runtime.host.shown.append(lambda hosted: shown.set())
        self._life = asyncio.create_task(lifecycle.start(Jobs, self._runtime))
        async with asyncio.timeout(10):
            await shown.wait()

    async def end(self) -> None:
        self._runtime.stop()
        await asyncio.wait({self._life})
        await self._runtime.close()

    async def member(
        self, *functions: Callable[..., Any], version: str = "v1", kind: type[Membership] = Membership
    ) -> Membership:
        member = kind(self.address, "secret", NAME, version, self._runtime.limits)
        for function in functions:
            spec = signatures.read(function, function.__name__, method=False)
            spec = msgspec.structs.replace(spec, facts={**spec.facts, "raises": (OutOfStock,)})
            handler = cast("Unary", handler_of(function, spec))
            member.endpoints[f"t.t.{spec.name}"] = DurableEndpoint(spec, handler)
        self.members.append(member)
        member.begin()
        async with asyncio.timeout(10):
            await member.joined.wait()
        return member

    async def operate(self, operation: str, **arguments: Any) -> Any:
        """As a person asks through a member."""
        return await self.members[-1].answer(Call(arguments={"operation": operation, "arguments": arguments}))

    async def until_running(self, endpoint: str) -> None:
        """One call of an endpoint runs, and another is queued behind it."""
        async with asyncio.timeout(10):
            while True:
                calls = (await self.operate("list"))["calls"]
                states = sorted(call["state"] for call in calls if call["route"] == f"t.t.{endpoint}")
                if states == ["queued", "running"]:
                    return
                await asyncio.sleep(0.005)

    async def until(self, id: str, state: DurableState) -> dict[str, Any]:
        async with asyncio.timeout(10):
            while (shown := await self.operate("show", id=id))["state"] != state:
                await asyncio.sleep(0.005)
        found: dict[str, Any] = shown
        return found


async def submit(member: Membership, name: str, **arguments: Any) -> str:
    now = SystemClock().now()
    record = CallRecord(id=new_call_id(now), route=f"t.t.{name}", created=now)
    return (await member.submit(record, member.endpoint(record.route).encode_arguments(arguments))).id


async def result(member: Membership, name: str, **arguments: Any) -> Any:
    async with asyncio.timeout(10):
        return await member.result(await submit(member, name, **arguments))


@contextlib.asynccontextmanager
async def running(**limits: Any) -> AsyncIterator[Platform]:
    platform = Platform(**limits)
    await platform.start()
    try:
        yield platform
    finally:
        for member in platform.members:
            await member.close()
        await platform.end()


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Run a story of one platform with a state directory of its own."""

    def tell(story: Callable[[Platform], Awaitable[None]], **limits: Any) -> None:
        monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))
        settings.place(None)

        async def whole():
            async with running(**limits) as platform:
                await story(platform)

        asyncio.run(whole())

    return tell


async def double(n: int) -> int:
    return n * 2


async def order(n: int, call: Call) -> list[int]:
    one = await call.step(double, n)
    return [one, *await asyncio.gather(call.step(double, one), call.step(double, one + 1))]


async def approve(what: str, call: Call) -> str:
    answer = await call.ask(bool, what)
    return f"{what}: {answer}, {await call.signal('go', int)}"


async def refuse(call: Call) -> None:
    raise OutOfStock("nothing left")


def test_a_member_runs_a_call_and_its_steps_are_kept_by_the_service(told):
    async def story(platform):
        member = await platform.member(order)
        id = await submit(member, "order", n=3)
        assert await member.result(id) == [6, 12, 14]
        shown = await platform.operate("show", id=id)
        assert [step["what"] for step in shown["steps"]] == ["step 1 double", "step 1.1:1 double", "step 1.2:1 double"]
        assert (shown["state"], shown["version"]) == ("done", "v1")

    told(story)


def test_a_declared_exception_reaches_the_caller_as_itself(told):
    async def story(platform):
        member = await platform.member(refuse)
        with pytest.raises(OutOfStock, match="nothing left"):
            await result(member, "refuse")

    told(story)


def test_members_share_the_calls(told):
    async def story(platform):
        met, here = asyncio.Event(), set[str]()

        def meeting(name: str) -> Callable[..., Any]:
            async def come() -> str:
                here.add(name)
                if len(here) == 2:
                    met.set()
                await met.wait()
                return name

            async def meet(call: Call) -> str:
                return await call.step(come)

            return meet

        first = await platform.member(meeting("first"))
        second = await platform.member(meeting("second"))
        both = await asyncio.gather(result(first, "meet"), result(second, "meet"))
        assert sorted(both) == ["first", "second"], "one member runs one call, and the other the other"

    told(story)


def test_what_a_lost_member_ran_goes_on_with_another(told):
    async def story(platform):
        began, tries = asyncio.Event(), list[str]()

        def working(name: str) -> Callable[..., Any]:
            async def step() -> str:
                tries.append(name)
                began.set()
                if name == "first":
                    await asyncio.Event().wait()
                return name

            async def work(call: Call) -> str:
                return await call.step(step)

            return work

        first = await platform.member(working("first"))
        id = await submit(first, "work")
        await began.wait()
        second = await platform.member(working("second"))
        await first.close()
        async with asyncio.timeout(10):
            assert await second.result(id) == "second"
        assert tries == ["first", "second"]

    told(story)


class Silent(Membership):
    """Its process is stopped: nothing is heard of it, and its connection stands."""

    async def _renew(self, joined: Any) -> None:
        return


def test_a_member_that_is_not_heard_of_loses_its_calls_and_writes_nothing_more(told):
    async def story(platform):
        slept = asyncio.Event()

        def working(asleep: bool) -> Callable[..., Any]:
            async def step() -> str:
                if asleep:
                    slept.set()
                    await asyncio.Event().wait()
                return "fresh"

            async def work(call: Call) -> str:
                return await call.step(step)

            return work

        silent = await platform.member(working(asleep=True), kind=Silent)
        id, session = await submit(silent, "work"), silent._session
        await slept.wait()
        fresh = await platform.member(working(asleep=False))
        async with asyncio.timeout(10):
            assert await fresh.result(id) == "fresh"
        old = CallRecord(id=id, route="t.t.work", created=0, state=DurableState.RUNNING, fence=1)
        late = JournalEntry(order=1, place="1", kind="step", value=b"stale")
        with pytest.raises(NotFound, match="is over"):
            await silent._jobs.complete(NAME, id, 1, late, session)
        with pytest.raises(BemaError, match="is stale"):
            await silent._jobs.complete(NAME, id, 1, late, fresh._session)
        for write in (
            silent._jobs.end(NAME, old, DurableState.DONE, b"stale"),
            silent._jobs.suspend(NAME, old, DurableState.PAUSED),
        ):
            with pytest.raises(BemaError) as refused:
                await write
            assert refused.value.code == "stale_claim"
        shown = await platform.operate("show", id=id)
        assert (shown["result"], [step["result"] for step in shown["steps"]]) == ("fresh", ["fresh"])

    told(story, jobs_lease=0.3)


def test_a_call_stays_on_the_version_that_it_began_on(told):
    async def story(platform):
        def versioned(version: str) -> Callable[..., Any]:
            async def work(call: Call) -> str:
                await call.ask(bool)
                return version

            return work

        old = await platform.member(versioned("v1"), version="v1")
        id = await submit(old, "work")
        await platform.until(id, DurableState.ASKING)
        await old.close()
        new = await platform.member(versioned("v2"), version="v2")
        answering = asyncio.ensure_future(platform.operate("answer", id=id, value=True))
        await platform.until(id, DurableState.QUEUED)  # nobody has its version
        again = await platform.member(versioned("v1"), version="v1")
        async with asyncio.timeout(10):
            await answering
            assert await new.result(id) == "v1"
        assert again.joined.is_set()

    told(story)


def test_a_full_member_holds_up_no_call_of_another(told):
    async def story(platform):
        gates = {name: asyncio.Event() for name in ("slow", "fast")}

        def gated(name: str) -> Callable[..., Any]:
            async def pass_through() -> str:
                await gates[name].wait()
                return name

            async def work(call: Call) -> str:
                return await call.step(pass_through)

            work.__name__ = name
            return work

        slow, fast = await platform.member(gated("slow")), await platform.member(gated("fast"))
        waiting = [asyncio.ensure_future(result(slow, "slow")) for _ in range(2)]
        await platform.until_running("slow")
        passing = [asyncio.ensure_future(result(fast, "fast")) for _ in range(2)]
        await platform.until_running("fast")
        gates["fast"].set()
        assert await asyncio.gather(*passing) == ["fast", "fast"], "though an older call waits for a place elsewhere"
        gates["slow"].set()
        assert await asyncio.gather(*waiting) == ["slow", "slow"]

    told(story, jobs_running=1)


def test_answers_and_signals_reach_the_member_that_runs_the_call(told):
    async def story(platform):
        member = await platform.member(approve)
        id = await submit(member, "approve", what="tea")
        await platform.until(id, DurableState.ASKING)
        with pytest.raises(Invalid, match="Expected `bool`, got `str`"):
            await platform.operate("answer", id=id, value="perhaps")
        await platform.operate("signal", id=id, name="go", value=7)
        await platform.operate("answer", id=id, value=True)
        assert await member.result(id) == "tea: True, 7"
        with pytest.raises(Conflict):
            await platform.operate("answer", id=id, value=True)

    told(story)


def test_a_call_that_runs_elsewhere_is_cancelled_and_cleans_up(told):
    async def story(platform):
        began, cleaned = asyncio.Event(), asyncio.Event()

        async def for_ever() -> None:
            began.set()
            await asyncio.Event().wait()

        async def work(call: Call) -> None:
            try:
                await call.step(for_ever)
            finally:
                cleaned.set()

        member = await platform.member(work)
        id = await submit(member, "work")
        await began.wait()
        await platform.operate("cancel", id=id)
        await platform.until(id, DurableState.CANCELLED)
        assert cleaned.is_set()
        with pytest.raises(Conflict, match="was cancelled"):
            await member.result(id)

    told(story)


def test_callers_and_members_outlive_the_service(told):
    async def story(platform):
        began, tries = asyncio.Event(), list[int]()

        async def slow() -> str:
            tries.append(len(tries))
            began.set()
            if len(tries) == 1:
                await asyncio.Event().wait()
            return "done"

        async def work(call: Call) -> list[Any]:
            return [await call.step(double, 2), await call.step(slow)]

        member = await platform.member(work)
        waiting = asyncio.ensure_future(result(member, "work"))
        await began.wait()
        await platform.end()
        assert await unfinished(settings.current())
        await platform.start()
        assert await waiting == [4, "done"]
        assert tries == [0, 1]

    told(story)


def test_a_made_up_name_session_or_call_is_refused(told):
    async def story(platform):
        member = await platform.member(order)
        for bad in ("t.t", "../../x@11111111-2222-3333-4444-555555555555", "t.t@../../etc"):
            with pytest.raises(Invalid) as refused:
                settings_of(settings.current(), bad)
            assert refused.value.code == "bad_name"
        with pytest.raises(NotFound):
            await member._jobs.renew(7)
        with pytest.raises(NotFound):
            await member._jobs.operate("t.other@11111111-2222-3333-4444-555555555555", "list", {})
        with pytest.raises(NotFound):
            await platform.operate("show", id=new_call_id(1))

    told(story)


def test_only_a_file_with_an_unfinished_call_is_a_reason_to_start(told):
    async def story(platform):
        member = await platform.member(order, approve)
        assert await result(member, "order", n=1) == [2, 4, 6]
        await platform.end()
        assert (kept(settings.current()), await unfinished(settings.current())) == ([NAME], False)
        await platform.start()
        member = await platform.member(approve)
        await submit(member, "approve", what="tea")
        await platform.end()
        assert await unfinished(settings.current())
        await platform.start()

    told(story)


def test_what_was_purged_is_let_go_of(told):
    async def story(platform):
        member = await platform.member(order)
        assert await result(member, "order", n=1) == [2, 4, 6]
        assert await member._jobs.names() == [NAME]
        await member.close()
        shutil.rmtree(settings_of(settings.current(), NAME).state)
        last = Membership(platform.address, "secret", NAME, "v1", platform._runtime.limits)
        assert await last._jobs.names() == []
        await last.close()
        again = await platform.member(order)
        assert await result(again, "order", n=1) == [2, 4, 6], "of a file that is made anew"
        assert kept(settings.current()) == [NAME]

    told(story)


def test_who_asks_before_the_service_is_there_is_answered_when_it_is(told):
    async def story(platform):
        await platform.end()
        early = Membership(platform.address, "secret", NAME, "v1", platform._runtime.limits)
        platform.members.append(early)
        early.begin()
        asked = asyncio.ensure_future(platform.operate("list"))
        await asyncio.sleep(0)
        await platform.start()
        async with asyncio.timeout(10):
            assert (await asked)["calls"] == []

    told(story)


def test_calls_that_cannot_be_opened_hold_up_no_others(told, caplog):
    async def story(platform):
        member = await platform.member(order)
        assert await result(member, "order", n=1) == [2, 4, 6]
        await member.close()
        platform.members.clear()
        await platform.end()
        newer = NAME.replace("1111", "9999")
        held = await SqliteLedger.open(settings_of(settings.current(), newer), newer)
        await held._state.apply([Mutation("meta/layout", b"99")])
        await held.close()
        await platform.start()
        again = await platform.member(order)
        assert await result(again, "order", n=1) == [2, 4, 6]
        assert await again._jobs.names() == [NAME]
        assert f"the durable calls of {newer} cannot be opened: the durable calls have layout 99" in caplog.text

    told(story)


def incomings() -> list[Incoming]:
    """All that there are in this process."""
    return [one for one in gc.get_objects() if isinstance(one, Incoming)]


def test_a_member_keeps_nothing_of_what_was_offered_to_calls_that_are_over(told):
    async def story(platform):
        others = weakref.WeakSet(incomings())  # of tests before this one
        offered, met = weakref.WeakSet[Incoming](), asyncio.Event()

        class Counted(Membership):
            def _offered(self, task: Any) -> None:
                super()._offered(task)
                offered.update(one for one in incomings() if one not in others)
                met.set()

        member = await platform.member(approve, kind=Counted)
        id = await submit(member, "approve", what="tea")
        await platform.until(id, DurableState.ASKING)
        await platform.operate("signal", id=id, name="go", value=7)
        await platform.operate("answer", id=id, value=True)
        async with asyncio.timeout(10):
            await met.wait()
            assert await member.result(id) == "tea: True, 7"
            while offered:
                gc.collect()
                await asyncio.sleep(0.005)  # a run is over a moment after its end is known

    told(story)
