"""Whatever a handler does, its caller is told: a call ends in exactly one of answer, end or error."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from bema.core.call import Call
from bema.core.errors import BadAnswer, BemaError, Disconnected, Invalid, RemoteError, Unavailable
from bema.core.naming import Address
from bema.core.spec import EndpointSpec, Shape
from bema.runtime.process import tracing
from bema.runtime.rpc.pool import ConnectionPool
from bema.runtime.threads import in_thread
from tests.runtime.served import serving, stream, unary, until

pytestmark = pytest.mark.usefixtures("each_loop")


class Own(BaseException):
    pass


async def kills_and_returns(call: Call) -> Any:
    call.kill()
    return 1


async def raises_a_base_exception(call: Call) -> Any:
    raise Own("x")


async def raises_generator_exit(call: Call) -> Any:
    raise GeneratorExit


async def raises_stop_iteration_in_a_thread(call: Call) -> Any:
    return await in_thread(next, iter(()))


UNARY = [
    raises_stop_iteration_in_a_thread,
    kills_and_returns,
    raises_a_base_exception,
    raises_generator_exit,
]


@pytest.mark.parametrize("handler", UNARY)
def test_a_unary_call_ends(handler, tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:
            served.handler(unary("odd"))(handler)
            await served.start()
            with pytest.raises(Exception) as caught:
                await asyncio.wait_for(served.call("odd", timeout=None), 2)
            assert not isinstance(caught.value, TimeoutError), "the caller was never told"

    asyncio.run(story())


async def yields_and_kills(call: Call) -> Any:
    yield 1
    call.kill()


async def yields_and_raises_generator_exit(call: Call) -> Any:
    yield 1
    raise GeneratorExit


@pytest.mark.parametrize("handler", [yields_and_kills, yields_and_raises_generator_exit])
def test_a_stream_ends_as_cut(handler, tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:
            served.handler(stream("odd"))(handler)
            await served.start()
            got = []
            with pytest.raises(BemaError):
                async with asyncio.timeout(2):
                    async for item in (await served.client("odd")).stream({}):
                        got.append(item)
            assert got == [1]

    asyncio.run(story())


def test_who_swallows_the_cut_of_a_drain_and_returns_does_not_leave_the_caller_waiting(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:
            begun = asyncio.Event()

            @served.handler(unary("stubborn"))
            async def stubborn(call: Call) -> Any:
                begun.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    return 3

            await served.start()
            call = asyncio.ensure_future(served.call("stubborn", timeout=None))
            await begun.wait()
            assert await served.server.drain(0.05) is False
            with pytest.raises(BemaError):
                await asyncio.wait_for(call, 2)

    asyncio.run(story())


def test_what_a_handler_met_is_not_taken_for_a_call_that_never_ran(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:

            @served.handler(unary("relay"))
            async def relay(call: Call) -> Any:
                raise Unavailable("nobody is behind me")

            await served.start()
            with pytest.raises(Unavailable, match="nobody is behind me") as caught:
                await served.call("relay")
            assert "itself ran" in caught.value.fix

    asyncio.run(story())


def test_what_a_handler_does_wrong_is_not_told_as_its_callers_fault(tmp_path, caplog):
    """A caller whose call was right is not told to mend it."""

    async def story():
        async with serving("unix", tmp_path) as served:

            @served.handler(unary("typed", int, n=int))
            async def typed(call: Call) -> Any:
                return call.arguments["n"]

            @served.handler(unary("wrong"))
            async def wrong(call: Call) -> Any:  # what cannot travel, and what does not fit
                return await served.call("typed", n=object())

            @served.handler(unary("unfit"))
            async def unfit(call: Call) -> Any:
                return await (await served.client("typed", endpoint=None)).unary({"n": "x"})

            @served.handler(unary("misnamed"))
            async def misnamed(call: Call) -> Any:
                return Address.parse("nothing")

            @served.handler(unary("says"))
            async def says(call: Call) -> Any:
                raise Invalid("n is odd", field="n")

            @served.handler(unary("passes"))
            async def passes(call: Call) -> Any:
                try:
                    return await (await served.client("typed", endpoint=None)).unary({"n": "x"})
                except Invalid as error:
                    raise Invalid(f"your n: {error.message}") from error

            await served.start()
            for name in ("wrong", "unfit", "misnamed"):
                with pytest.raises(RemoteError, match="Invalid: the service itself met this") as caught:
                    await served.call(name)
                assert caught.value.type == "Invalid"
                assert f"t.t.{name} failed" in caplog.text
            with pytest.raises(Invalid, match="n is odd") as said:
                await served.call("says")
            assert said.value.details == {"field": "n"}
            with pytest.raises(Invalid, match="your n"):
                await served.call("passes")
            with pytest.raises(Invalid, match=r"the arguments of t\.t\.typed"):
                await (await served.client("typed", endpoint=None)).unary({"n": "x"})

    asyncio.run(story())


def test_an_item_of_the_callers_stream_that_does_not_fit_is_the_callers(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:
            spec = EndpointSpec("sum", Shape.COLLECT, (), int, incoming="numbers", facts={"requests": int})

            @served.handler(spec)
            async def total(call: Call) -> int:
                assert call.requests is not None
                return sum([number async for number in call.requests])

            async def numbers() -> AsyncIterator[Any]:
                yield 1
                yield "two"

            await served.start()
            with pytest.raises(Invalid):
                await (await served.client("sum", endpoint=None)).unary({}, requests=numbers())

    asyncio.run(story())


def test_a_service_is_held_to_its_own_signature_also_by_who_does_not_know_it(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:

            @served.handler(unary("number", int))
            async def number(call: Call) -> Any:
                return "seven"

            await served.start()
            by_address = await served.client("number", endpoint=None)
            with pytest.raises(BadAnswer, match=r"the answer of t\.t\.number: \$: Expected `int`"):
                await by_address.unary({})

    asyncio.run(story())


@pytest.mark.parametrize("leaving", [SystemExit(2), SystemExit("enough"), SystemExit(None)])
def test_a_handler_that_leaves_its_process_ends_its_own_call_and_nothing_else(leaving, tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:
            begun = asyncio.Event()

            @served.handler(unary("leave"))
            async def leave(call: Call) -> Any:
                raise leaving

            @served.handler(unary("stay"))
            async def stay(call: Call) -> str:
                begun.set()
                await asyncio.sleep(0.05)
                return "done"

            await served.start()
            beside = asyncio.ensure_future(served.call("stay"))
            await begun.wait()
            with pytest.raises(RemoteError) as caught:
                await served.call("leave")
            assert caught.value.type.endswith("SystemExit")
            assert await beside == await served.call("stay") == "done"

    asyncio.run(story())


def test_a_call_that_its_ending_process_cancels_is_repeated_elsewhere_where_it_may_run_twice(tmp_path):
    """A loop that is ended cancels its tasks: their callers learn that the outcome is unknown, not that a handler did it."""

    async def story():
        async with serving("unix", tmp_path) as served:
            running: asyncio.Queue[Any] = asyncio.Queue()

            async def wait(call: Call) -> str:
                if running.qsize() == 0 and not served.servers[1].draining:
                    running.put_nowait(asyncio.current_task())
                    await asyncio.Event().wait()
                return "elsewhere"

            served.handler(unary("safe", idempotent=True))(wait)
            served.handler(unary("once"))(wait)
            await served.start()
            for name in ("safe", "once"):
                call = asyncio.ensure_future(served.call(name))
                (await running.get()).cancel()
                running.put_nowait(asyncio.current_task())  # the next one answers
                if name == "safe":
                    assert await call == "elsewhere"
                else:
                    with pytest.raises(Disconnected, match="in its own process"):
                        await call
                running.get_nowait()

    asyncio.run(story())


def test_no_two_calls_have_one_id(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:

            @served.handler(unary("id"))
            async def ident(call: Call) -> str:
                return call.id

            await served.start()
            pools = [ConnectionPool("same") for _ in range(3)]
            ids = [await (await served.client("id", pool=pool)).unary({}) for pool in pools for _ in range(4)]
            assert len(set(ids)) == 12
            for pool in pools:
                await pool.close()

    asyncio.run(story())


def test_what_a_handler_left_running_is_not_bound_by_its_callers_deadline(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:
            later: asyncio.Queue[asyncio.Task[str]] = asyncio.Queue()
            answered = asyncio.Event()

            @served.handler(unary("leaf"))
            async def leaf(call: Call) -> str:
                return "still called"

            @served.handler(unary("begin"))
            async def begin(call: Call) -> None:
                async def work() -> str:
                    await answered.wait()
                    await until(lambda: call.deadline is not None and time.monotonic() > call.deadline)
                    return str(await served.call("leaf"))

                later.put_nowait(asyncio.create_task(work()))

            await served.start()
            await served.call("begin", timeout=0.3)
            answered.set()
            assert await asyncio.wait_for(await later.get(), 5) == "still called"

    asyncio.run(story())


class Declared(Exception):
    pass


def test_what_nobody_declared_is_logged_with_its_traceback_and_trace(tmp_path, caplog):
    async def story():
        async with serving("unix", tmp_path) as served:

            @served.handler(msgspec.structs.replace(unary("fails", which=str), facts={"raises": (Declared,)}))
            async def fails(call: Call) -> Any:
                match call.arguments["which"]:
                    case "declared":
                        raise Declared
                    case "ours":
                        raise Unavailable("not now")
                return 1 // 0

            await served.start()
            for which in ("declared", "ours", "unforeseen"):
                with pytest.raises((Declared, BemaError, ArithmeticError)):
                    await served.call("fails", which=which)

    caplog.handler.addFilter(tracing.TraceFilter())
    asyncio.run(story())
    [record] = [record for record in caplog.records if record.name == "bema.service"]
    assert (record.levelname, record.getMessage()) == ("ERROR", "t.t.fails failed")
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    assert len(record.trace_id) == 32


def test_no_call_is_in_doubt_while_one_instance_after_the_other_is_replaced(tmp_path):
    """What crosses a drain on the way is refused as never run, so it is sent elsewhere, though it may not run twice."""

    async def story():
        async with serving("unix", tmp_path) as served:
            ran: list[int] = []

            @served.handler(unary("once", number=int))
            async def once(call: Call) -> int:
                ran.append(call.arguments["number"])
                return ran[-1]

            async def call_on() -> list[int]:
                client = await served.client("once")
                answered = []
                while not over.is_set():
                    answered.append(await client.unary({"number": (number := next(numbers))}, timeout=10))
                    assert answered[-1] == number
                return answered

            numbers, over = itertools.count(), asyncio.Event()
            await served.start()
            calling = [asyncio.ensure_future(call_on()) for _ in range(8)]
            for _ in range(15):
                old = max(served.servers)
                await served.start()
                served.discovery.drop(old)
                assert await served.servers[old].drain(5)
                await served.servers[old].close()
            over.set()
            answered = sorted(itertools.chain(*await asyncio.gather(*calling)))
            assert answered == sorted(ran) == list(range(len(answered)))

    asyncio.run(story())
