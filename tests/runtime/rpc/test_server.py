"""What a server does with calls, over every transport, through the real client."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from bema.core.call import Call
from bema.core.errors import (
    BadAnswer,
    BadDeclaration,
    BemaError,
    Conflict,
    DeadlineExceeded,
    Invalid,
    NotFound,
    RemoteError,
    StreamCut,
    TooLarge,
    Unavailable,
)
from bema.core.limits import DEFAULTS
from bema.core.spec import EndpointSpec, Parameter, Shape
from bema.runtime.rpc.server import Server
from tests.runtime.served import TRANSPORTS, serving, stream, unary, until

pytestmark = pytest.mark.usefixtures("each_loop")


class Order(msgspec.Struct):
    item: str
    count: int = 1


@pytest.fixture(params=TRANSPORTS)
def transport(request):
    return request.param


def test_typed_values_cross_and_come_back_as_their_types(transport, tmp_path):
    async def story():
        async with serving(transport, tmp_path) as served:

            @served.handler(unary("order", tuple[Order, set[int]], order=Order, numbers=set[int]))
            async def order(call: Call) -> Any:
                return call.arguments["order"], call.arguments["numbers"]

            await served.start()
            assert await served.call("order", order=Order("tea", 2), numbers={1, 2}) == (Order("tea", 2), {1, 2})

    asyncio.run(story())


def test_one_mutated_dict_yielded_64_times_is_64_values(transport, tmp_path):
    async def story():
        async with serving(transport, tmp_path) as served:

            @served.handler(stream("count"))
            async def count(call: Call) -> Any:
                answer = {"n": 0}
                for n in range(64):
                    answer["n"] = n
                    yield answer

            await served.start()
            client = await served.client("count")
            assert [item["n"] async for item in client.stream({})] == list(range(64))

    asyncio.run(story())


def test_a_bad_value_in_a_busy_turn_fails_one_call(transport, tmp_path):
    async def story():
        async with serving(transport, tmp_path) as served:

            @served.handler(unary("give", n=int))
            async def give(call: Call) -> Any:
                n = call.arguments["n"]
                return (n, n) if n == 7 else 2**70 if n == 8 else n

            @served.handler(stream("items"))
            async def items(call: Call) -> Any:
                yield 1
                yield {"a": {2}}

            await served.start()
            answers = await asyncio.gather(*(served.call("give", n=n) for n in range(20)), return_exceptions=True)
            assert [a for a in answers if not isinstance(a, Exception)] == [n for n in range(20) if n not in (7, 8)]
            assert isinstance(answers[7], BadAnswer) and "the answer of t.t.give: $: a value of type tuple" in str(
                answers[7]
            )
            assert isinstance(answers[8], BadAnswer) and "64 bits" in str(answers[8])
            got = []
            with pytest.raises(BadAnswer, match=r"an item of t\.t\.items: \$\.a"):
                async for item in (await served.client("items")).stream({}):
                    got.append(item)
            assert got == [1]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "missing required field `order`"),
        ({"order": {"item": 1}}, r"\$\.order\.item"),
        ({"order": {"item": "x"}, "more": 1}, "more"),
    ],
)
def test_wrong_arguments_never_reach_the_handler(arguments, says, tmp_path):
    async def story():
        async with serving("memory", tmp_path) as served:
            ran = []

            @served.handler(unary("order", order=Order))
            async def order(call: Call) -> Any:
                ran.append(call)

            await served.start()
            client = await served.client("order", endpoint=None)
            with pytest.raises(Invalid, match=says):
                await client.unary(arguments)
            assert not ran

    asyncio.run(story())


class OutOfTea(Exception):
    def __init__(self, left: int) -> None:
        super().__init__(left)
        self.left = left


def test_errors_cross_with_type_attributes_and_traceback(transport, tmp_path):
    async def story():
        async with serving(transport, tmp_path) as served:
            spec = msgspec.structs.replace(unary("fail", how=str), facts={"raises": (OutOfTea,)})

            @served.handler(spec)
            async def fail(call: Call) -> Any:
                how = call.arguments["how"]
                raise {"ours": NotFound("no tea"), "builtin": KeyError("tea"), "own": OutOfTea(3)}[how]

            await served.start()
            with pytest.raises(NotFound, match="no tea"):
                await served.call("fail", how="ours")
            with pytest.raises(KeyError) as caught:
                await served.call("fail", how="builtin")
            assert "in fail" in vars(caught.value)["remote_traceback"]
            with pytest.raises(OutOfTea) as own:
                await served.call("fail", how="own")
            assert own.value.left == 3
            stranger = await served.client("fail", endpoint=None)
            with pytest.raises(RemoteError, match="OutOfTea: 3") as remote:
                await stranger.unary({"how": "own"})
            assert remote.value.type == "OutOfTea"
            assert "in fail" in remote.value.traceback

    asyncio.run(story())


def test_an_unknown_route_is_not_found(tmp_path):
    async def story():
        async with serving("memory", tmp_path) as served:

            @served.handler(unary("here"))
            async def here(call: Call) -> Any:
                return 1

            await served.start()
            served.server.remove("t.t.here")
            with pytest.raises(NotFound, match=r"no endpoint 't\.t\.here'"):
                await served.call("here")

    asyncio.run(story())


def test_what_is_wrong_with_a_handler_is_said_when_it_is_added():
    async def echo(call: Call) -> Any:
        return None

    server = Server()
    server.add("a.b.c", echo, unary("c"))
    with pytest.raises(Conflict, match="already"):
        server.add("a.b.c", echo, unary("c"))
    with pytest.raises(BadDeclaration, match=r"endpoint a\.b\.d, what it returns: .*Server cannot travel"):
        server.add("a.b.d", echo, unary("d", Server))
    with pytest.raises(BadDeclaration, match=r"endpoint a\.b\.d: parameter 'given': .*Server cannot travel"):
        server.add("a.b.d", echo, unary("d", given=Server))
    assert "a.b.d" not in server.routes


def test_an_expired_deadline_ends_the_handler_and_is_told(transport, tmp_path):
    async def story():
        async with serving(transport, tmp_path) as served:
            ended = asyncio.Event()

            @served.handler(unary("slow"))
            async def slow(call: Call) -> Any:
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.set()

            @served.handler(stream("drip"))
            async def drip(call: Call) -> Any:
                yield 1
                await asyncio.Event().wait()

            await served.start()
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                await served.call("slow", timeout=0.05)
            async with asyncio.timeout(1):
                await ended.wait()
            with pytest.raises(DeadlineExceeded):
                async for _ in (await served.client("drip")).stream({}, timeout=0.05):
                    pass
            assert time.monotonic() - began < 2
            await until(lambda: served.server.inflight == 0)

    asyncio.run(story())


def test_no_time_left_means_no_call(tmp_path):
    async def story():
        async with serving("memory", tmp_path) as served:
            ran = []

            @served.handler(unary("count"))
            async def count(call: Call) -> Any:
                ran.append(1)

            await served.start()
            for timeout in (0, -1):
                with pytest.raises(DeadlineExceeded):
                    await served.call("count", timeout=timeout)
            assert not ran and not served.pool.connections, "it is said here: nobody was even connected to"

    asyncio.run(story())


def test_sync_handlers_run_in_threads_and_block_nobody(transport, tmp_path):
    async def story():
        async with serving(transport, tmp_path) as served:
            release = threading.Event()

            def wait(call: Call) -> Any:
                assert release.wait(5)
                return threading.current_thread() is not threading.main_thread()

            def count(call: Call) -> Iterator[int]:
                yield from range(call.arguments["to"])

            served.handler(msgspec.structs.replace(unary("wait"), threaded=True))(wait)
            served.handler(msgspec.structs.replace(stream("count", to=int), threaded=True))(count)
            await served.start()
            waiting = asyncio.ensure_future(served.call("wait"))
            assert [n async for n in (await served.client("count")).stream({"to": 5})] == [0, 1, 2, 3, 4]
            assert not waiting.done()
            release.set()
            assert await waiting is True

    asyncio.run(story())


def test_handlers_answer_in_the_other_shape_too(tmp_path):
    async def story():
        async with serving("memory", tmp_path) as served:

            @served.handler(unary("one"))
            async def one(call: Call) -> Any:
                return 1

            @served.handler(stream("many", to=int))
            async def many(call: Call) -> Any:
                for n in range(call.arguments["to"]):
                    yield n

            await served.start()
            assert [n async for n in (await served.client("one")).stream({})] == [1]
            client = await served.client("many")
            assert await client.unary({"to": 1}) == 0
            with pytest.raises(Invalid, match="2 answers where one"):
                await client.unary({"to": 2})

    asyncio.run(story())


def test_streams_of_requests_are_collected_and_answered(transport, tmp_path):
    total = EndpointSpec("total", Shape.COLLECT, (Parameter("start", int),), int, facts={"requests": int})
    double = EndpointSpec("double", Shape.BOTH, (), int, facts={"requests": int})

    async def story():
        async with serving(transport, tmp_path) as served:

            @served.handler(total)
            async def collect(call: Call) -> Any:
                assert call.requests is not None
                return call.arguments["start"] + sum([n async for n in call.requests])

            @served.handler(double)
            async def both(call: Call) -> Any:
                assert call.requests is not None
                async for n in call.requests:
                    yield 2 * n

            await served.start()

            async def numbers(to: int) -> Any:
                for n in range(to):
                    yield n

            client = await served.client("total")
            assert await client.unary({"start": 5}, requests=numbers(1000)) == 5 + sum(range(1000))
            answers = (await served.client("double")).stream({}, requests=numbers(300))
            assert [n async for n in answers] == [2 * n for n in range(300)]

            async def wrong() -> Any:
                yield 1
                yield "two"

            with pytest.raises(Invalid, match="Expected `int`"):
                await client.unary({"start": 5}, requests=wrong())

            async def broken() -> Any:
                yield 1
                raise LookupError("the caller's own")

            with pytest.raises(LookupError, match="the caller's own"):
                await client.unary({"start": 5}, requests=broken())
            await until(lambda: served.server.inflight == 0)

    asyncio.run(story())


def test_an_answer_that_is_not_what_its_signature_says_is_refused_by_the_server(transport, tmp_path):
    """Also where the caller knows no types and would take anything."""

    async def story():
        async with serving(transport, tmp_path) as served:

            @served.handler(unary("give", int))
            async def give(call: Call) -> Any:
                return "x"

            @served.handler(stream("items", float))
            async def items(call: Call) -> Any:
                yield 1.5
                yield "x"

            await served.start()
            for endpoint in ({}, {"endpoint": None}):
                with pytest.raises(BemaError, match=r"the answer of t\.t\.give: \$: Expected `int`, got `str`"):
                    await (await served.client("give", **endpoint)).unary({})
                got = []
                with pytest.raises(BemaError, match=r"an item of t\.t\.items: \$: Expected `float`, got `str`"):
                    async for item in (await served.client("items", **endpoint)).stream({}):
                        got.append(item)
                assert got == [1.5]

    asyncio.run(story())


def test_an_oversize_message_is_refused_by_name_and_the_connection_survives(transport, tmp_path):
    most = DEFAULTS.rpc_message

    async def story():
        async with serving(transport, tmp_path) as served:

            @served.handler(unary("size", blob=bytes))
            async def size(call: Call) -> Any:
                return len(call.arguments["blob"])

            @served.handler(unary("blob", bytes, size=int))
            async def blob(call: Call) -> Any:
                return bytes(call.arguments["size"])

            await served.start()
            await served.call("size", blob=b"")
            (connection,) = served.pool.connections.values()
            with pytest.raises(TooLarge, match=rf"limit of {most} bytes \(rpc_message\)"):
                await served.call("size", blob=bytes(most + 1))
            with pytest.raises(TooLarge, match="rpc_message"):
                await served.call("blob", size=most + 1)
            assert await served.call("size", blob=bytes(3_000_000)) == 3_000_000
            assert len(await served.call("blob", size=3_000_000)) == 3_000_000
            assert list(served.pool.connections.values()) == [connection]

    asyncio.run(story())


def test_drain_refuses_what_is_new_and_finishes_what_runs(transport, tmp_path):
    async def story():
        async with serving(transport, tmp_path) as served:
            release = asyncio.Event()

            @served.handler(unary("wait"))
            async def wait(call: Call) -> Any:
                await release.wait()
                return "done"

            await served.start()
            running = asyncio.ensure_future(served.call("wait"))
            await until(lambda: served.server.inflight == 1)
            draining = asyncio.ensure_future(served.server.drain(5))
            await asyncio.sleep(0)
            with pytest.raises(Unavailable, match="stopping"):
                await served.call("wait")
            release.set()
            assert await running == "done"
            assert await draining is True

    asyncio.run(story())


def test_drain_cuts_what_outlives_the_grace(transport, tmp_path):
    async def story():
        async with serving(transport, tmp_path) as served:
            ended = []

            @served.handler(stream("forever"))
            async def forever(call: Call) -> Any:
                try:
                    yield 1
                    await asyncio.Event().wait()
                finally:
                    ended.append(1)

            await served.start()
            got = []

            async def read() -> None:
                async for item in (await served.client("forever")).stream({}):
                    got.append(item)

            reading = asyncio.ensure_future(read())
            await until(lambda: bool(got))
            assert await served.server.drain(0.05) is False
            with pytest.raises(StreamCut, match="stopped before"):
                await reading
            assert ended == [1]

    asyncio.run(story())


def test_a_handler_that_cancels_itself_is_an_error_not_a_hang(tmp_path):
    async def story():
        async with serving("memory", tmp_path) as served:

            @served.handler(unary("odd"))
            async def odd(call: Call) -> Any:
                raise asyncio.CancelledError

            await served.start()
            with pytest.raises(BemaError, match="CancelledError"):
                await served.call("odd")
            assert served.server.inflight == 0

    asyncio.run(story())


def test_what_a_handler_sees_of_its_call(transport, tmp_path):
    async def story():
        async with serving(transport, tmp_path) as served:

            @served.handler(unary("look"))
            async def look(call: Call) -> Any:
                left = None if call.deadline is None else call.deadline - time.monotonic()
                return {
                    "route": call.route,
                    "meta": call.metadata,
                    "left": left,
                    "peer": call.peer,
                    "id": bool(call.id),
                }

            await served.start()
            client = await served.client("look")
            seen = await client.unary({}, timeout=3, metadata={"user": "ada"})
            assert 0 < seen.pop("left") <= 3
            assert seen == {"route": "t.t.look", "meta": {"user": "ada"}, "peer": "test", "id": True}
            assert (await client.unary({}))["left"] is None

    asyncio.run(story())
