"""What a caller may rely on: cancellation, cut streams, back-pressure, retries, deadlines through hops."""

import asyncio
import contextlib
import os
import subprocess
import sys
import textwrap
import time
from typing import Any

import msgspec
import pytest

from bema.core.call import Call
from bema.core.errors import BadAnswer, DeadlineExceeded, Denied, Disconnected, NotFound, StreamCut, Unavailable
from bema.core.instance import EndpointInfo, Instance, State
from bema.core.limits import DEFAULTS
from bema.core.spec import EndpointSpec, Shape
from bema.runtime.rpc import resolver, sockets
from bema.runtime.rpc.pool import ConnectionPool
from bema.runtime.rpc.server import Server
from tests.runtime.served import TRANSPORTS, Served, serving, stream, unary, until

pytestmark = pytest.mark.usefixtures("each_loop")


@pytest.fixture(params=TRANSPORTS)
def transport(request):
    return request.param


class Endless:
    """An endless stream that tells when it began and when its `finally` ran."""

    def __init__(self, served: Served) -> None:
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        served.handler(stream("endless"))(self.answer)

    async def answer(self, call: Call) -> Any:
        try:
            for n in range(10**9):
                yield n
                self.begun.set()
                await asyncio.sleep(0)
        finally:
            self.ended.set()


async def leave_by_break(client, begun):
    async for n in client.stream({}):
        if n == 3:
            break


async def leave_by_aclose(client, begun):
    answers = client.stream({})
    assert await anext(answers) == 0
    await answers.aclose()


async def leave_by_context(client, begun):
    async with client.stream({}) as answers:
        async for n in answers:
            if n == 3:
                return


async def leave_by_task_cancel(client, begun):
    async def read():
        async for _ in client.stream({}):
            pass

    task = asyncio.ensure_future(read())
    await begun.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def leave_by_timeout(client, begun):
    seconds = 0.02
    while not begun.is_set():
        with pytest.raises(DeadlineExceeded):
            async for _ in client.stream({}, timeout=seconds):
                pass
        seconds *= 2


async def leave_by_failing(client, begun):
    with contextlib.suppress(LookupError):
        async for _ in client.stream({}):
            raise LookupError


@pytest.mark.alone
@pytest.mark.parametrize(
    "leave",
    [leave_by_break, leave_by_aclose, leave_by_context, leave_by_task_cancel, leave_by_timeout, leave_by_failing],
)
@pytest.mark.usefixtures("no_collector")
def test_however_a_stream_is_left_its_handlers_finally_runs(leave, transport, tmp_path):
    async def story():
        async with serving(transport, tmp_path) as served:
            endless = Endless(served)
            await served.start()
            client, took = await served.client("endless"), []
            for _ in range(3):
                endless.begun.clear()
                endless.ended.clear()
                await leave(client, endless.begun)
                began = time.monotonic()
                async with asyncio.timeout(2):
                    await endless.ended.wait()
                took.append(time.monotonic() - began)
            assert min(took) < 0.1
            await until(lambda: served.server.inflight == 0)
            (connection,) = served.pool.connections.values()
            assert not connection.calls

    asyncio.run(story())


def test_a_cancelled_unary_call_cancels_its_handler(transport, tmp_path):
    async def story():
        async with serving(transport, tmp_path) as served:
            begun, ended = asyncio.Event(), asyncio.Event()

            @served.handler(unary("wait"))
            async def wait(call: Call) -> Any:
                begun.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.set()

            await served.start()
            task = asyncio.ensure_future(served.call("wait"))
            await begun.wait()
            task.cancel()
            async with asyncio.timeout(1):
                await ended.wait()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(story())


CALLER = """
import asyncio, sys
from bema.core.instance import EndpointInfo, Instance
from bema.runtime.rpc.client import Client
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.rpc.pool import ConnectionPool

async def main():
    discovery = MemoryDiscovery()
    await discovery.register(Instance(id=1, namespace="t", component="t", endpoints=(EndpointInfo("endless"),),
        addresses={"rpc": (sys.argv[1],)}, token="token 1"))
    client = Client(ConnectionPool(), await discovery.view("t", "t"), "t.t.endless")
    async for n in client.stream({}):
        if n == 0:
            print("reading", flush=True)

asyncio.run(main())
"""


@pytest.mark.alone
@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_a_callers_death_runs_the_handlers_finally(transport, tmp_path):
    async def story():
        async with serving(transport, tmp_path) as served:
            endless = Endless(served)
            await served.start()
            where = (await served.discovery.view()).instances()[0].addresses["rpc"][0]
            caller = subprocess.Popen([sys.executable, "-c", CALLER, where], stdout=subprocess.PIPE)
            try:
                await endless.begun.wait()
            finally:
                caller.kill()
                caller.wait()
                caller.communicate()
            died = time.monotonic()
            await endless.ended.wait()
            assert time.monotonic() - died < 1

    asyncio.run(story())


def test_a_cut_stream_raises_and_a_complete_one_ends(transport, tmp_path):
    async def story():
        async with serving(transport, tmp_path) as served:
            hold = asyncio.Event()

            @served.handler(stream("three"))
            async def three(call: Call) -> Any:
                for n in range(3):
                    yield n
                if call.metadata:
                    await hold.wait()

            await served.start()
            client = await served.client("three")
            assert [n async for n in client.stream({})] == [0, 1, 2]
            got = []
            with pytest.raises(StreamCut, match="lost before the stream ended"):
                async for n in client.stream({}, metadata={"hold": "on"}):
                    got.append(n)
                    if n == 2:
                        next(iter(served.server.connections)).abort(Disconnected("pulled"))
            assert got == [0, 1, 2]

    asyncio.run(story())


def test_a_lost_connection_leaves_a_sent_call_unknown(transport, tmp_path):
    async def story():
        async with serving(transport, tmp_path) as served:
            begun = asyncio.Event()

            @served.handler(unary("wait"))
            async def wait(call: Call) -> Any:
                begun.set()
                await asyncio.Event().wait()

            await served.start()
            task = asyncio.ensure_future(served.call("wait"))
            await begun.wait()
            next(iter(served.server.connections)).abort(Disconnected("pulled"))
            with pytest.raises(Disconnected, match="after the call was sent"):
                await task

    asyncio.run(story())


def test_a_lost_connection_is_told_once_in_a_sentence(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:
            begun = asyncio.Event()

            @served.handler(unary("wait"))
            async def wait(call: Call) -> Any:
                begun.set()
                await asyncio.Event().wait()

            await served.start()
            task = asyncio.ensure_future(served.call("wait"))
            await begun.wait()
            lost = next(iter(served.server.connections)).transport
            assert lost is not None
            lost.abort()
            with pytest.raises(Disconnected) as caught:
                await task
            said = str(caught.value)
            assert said.startswith("the connection was lost after the call was sent: ")
            assert said.count("the connection was lost") == 1
            assert len(said) > len("the connection was lost after the call was sent: ")

    asyncio.run(story())


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "by address"])
def test_an_idempotent_call_is_repeated_elsewhere(typed, transport, tmp_path):
    """Who calls by address takes it from the instances' records."""

    async def story():
        async with serving(transport, tmp_path) as served:
            begun: list[str] = []

            @served.handler(unary("which", idempotent=True))
            async def which(call: Call) -> Any:
                begun.append(call.route)
                if len(begun) == 1:
                    for server in served.servers.values():
                        for connection in tuple(server.connections):
                            if connection.calls:
                                connection.abort(Disconnected("pulled"))
                    await asyncio.Event().wait()
                return "done"

            await served.start()
            await served.start()
            client = await served.client("which", **({} if typed else {"endpoint": None}))
            assert await client.unary({}) == "done"
            assert len(begun) == 2

    asyncio.run(story())


@pytest.mark.parametrize("idempotent", [True, False])
def test_an_idempotent_call_that_its_stopping_instance_cut_is_repeated_elsewhere(idempotent, tmp_path):
    """How far it came is as unknown as after a lost connection."""

    async def story():
        async with serving("unix", tmp_path) as served:
            begun = asyncio.Event()

            @served.handler(unary("waits", idempotent=idempotent))
            async def waits(call: Call) -> str:
                if not begun.is_set():
                    begun.set()
                    await asyncio.Event().wait()
                return "elsewhere"

            await served.start()
            await served.start()
            call = asyncio.ensure_future(served.call("waits"))
            await begun.wait()
            (server,) = [s for s in served.servers.values() if s.inflight]
            assert await server.drain(0.0) is False
            if idempotent:
                assert await call == "elsewhere"
            else:
                with pytest.raises(StreamCut, match="the instance stopped"):
                    await call

    asyncio.run(story())


def test_what_an_instance_refused_goes_to_the_next(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:

            @served.handler(unary("who"))
            async def who(call: Call) -> Any:
                return "here"

            first = await served.start()
            await served.start()
            client = await served.client("who")
            assert {await client.unary({}) for _ in range(4)} == {"here"}
            await served.servers[first].drain(1)
            assert [await client.unary({}) for _ in range(20)] == ["here"] * 20

    asyncio.run(story())


def test_who_takes_over_is_waited_for_though_its_record_comes_after_the_word_that_the_other_goes(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:

            @served.handler(unary("who"))
            async def who(call: Call) -> Any:
                return "here"

            first = await served.start()
            client = await served.client("who")
            await client.unary({})
            draining = asyncio.create_task(served.servers[first].drain(1))
            await until(lambda: client.instances()[0].id == first and client._resolver._pool.is_leaving([first]))
            asked = asyncio.create_task(client.unary({}))
            await asyncio.sleep(0)
            await served.start()
            assert await asked == "here"
            await draining

    asyncio.run(story())


def test_nothing_listens_is_unavailable_and_the_next_instance_is_tried(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:

            @served.handler(unary("who"))
            async def who(call: Call) -> Any:
                return "here"

            first = await served.start()
            await served.servers[first].close()
            client = await served.client("who")
            with pytest.raises(Unavailable, match="nobody answers"):
                await client.unary({})
            await served.start()
            assert [await client.unary({}) for _ in range(6)] == ["here"] * 6
            with pytest.raises(Unavailable):
                await client.unary({}, instance=99)

    asyncio.run(story())


def test_an_instance_is_waited_for(tmp_path):
    async def story():
        async with serving("memory", tmp_path) as served:

            @served.handler(unary("who"))
            async def who(call: Call) -> Any:
                return "here"

            client = await served.client("who")
            with pytest.raises(Unavailable, match=r"no instance of t\.t\.who is there"):
                await client.unary({})
            with pytest.raises(Unavailable, match="within"):
                await client.ready(0.01)
            patient = await served.client("who", wait=5)
            waiting = asyncio.ensure_future(patient.unary({}))
            ready = asyncio.ensure_future(client.ready())
            await asyncio.sleep(0)
            await served.start()
            assert await waiting == "here"
            assert await ready is client
            assert await client is client

    asyncio.run(story())


def test_waiting_is_told_once_after_a_while_and_never_where_there_was_no_wait(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(resolver, "_SILENCE", 0.01)

    async def story():
        async with serving("memory", tmp_path) as served:

            @served.handler(unary("who"))
            async def who(call: Call) -> Any:
                return "here"

            client = await served.client("who", wait=0.05)
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await client.unary({})
            assert caplog.messages == ["waiting for an instance of t.t.who, for up to 0.05 s: none is there yet"]
            await served.start()
            other = await served.client("who", wait=5)
            assert await other.unary({}) == "here"
            await asyncio.sleep(0.03)
            assert len(caplog.messages) == 1

    asyncio.run(story())


def test_its_own_instance_and_those_that_cannot_take_calls_are_passed_over(tmp_path):
    async def story():
        async with serving("memory", tmp_path) as served:

            @served.handler(unary("who"))
            async def who(call: Call) -> Any:
                return call.peer

            own, other, third = [await served.start() for _ in range(3)]
            client = await served.client("who", skip=own)
            assert [i.id for i in client.instances()] == [other, third]
            view = await served.discovery.view("t", "t")
            leaving = next(i for i in view.instances() if i.id == other)
            served.discovery.put(msgspec.structs.replace(leaving, state=State.DRAINING))
            assert [i.id for i in client.instances()] == [third]
            assert (await served.client("missing")).instances() == ()

    asyncio.run(story())


def test_a_wrong_token_is_refused(transport, tmp_path):
    async def story():
        async with serving(transport, tmp_path) as served:

            @served.handler(unary("who"))
            async def who(call: Call) -> Any:
                return 1

            await served.start()
            (instance,) = (await served.discovery.view()).instances()
            served.discovery.put(msgspec.structs.replace(instance, token="guessed"))
            with pytest.raises(Denied, match="token"):
                await served.call("who")
            assert not served.server.connections

    asyncio.run(story())


def test_a_slow_reader_stops_its_producer_and_slows_nobody_else(transport, tmp_path):
    window = DEFAULTS.rpc_stream_window

    async def story():
        async with serving(transport, tmp_path) as served:
            made = 0

            @served.handler(stream("pour", bytes))
            async def pour(call: Call) -> Any:
                nonlocal made
                for _ in range(10_000):
                    yield bytes(10_000)
                    made += 1

            @served.handler(stream("quick", bytes))
            async def quick(call: Call) -> Any:
                for _ in range(200):
                    yield bytes(10_000)

            await served.start()
            async with (await served.client("pour")).stream({}) as slow:
                assert len(await anext(slow)) == 10_000
                client = await served.client("quick")
                for _ in range(5):
                    assert len([item async for item in client.stream({}, timeout=5)]) == 200
                assert made * 10_000 <= window + 20_000
                before = made
                for _ in range(100):
                    await anext(slow)
                await until(lambda: made > before)
                assert made * 10_000 <= 101 * 10_000 + window + 20_000

    asyncio.run(story())


def test_many_slow_readers_do_not_use_up_the_connection(transport, tmp_path):
    """More unread bytes than the connection's window: a stream that is read still moves."""

    async def story():
        async with serving(transport, tmp_path) as served:

            @served.handler(stream("pour", bytes))
            async def pour(call: Call) -> Any:
                for _ in range(3_000):
                    yield bytes(1_000)

            await served.start()
            client = await served.client("pour")
            slow = [client.stream({}) for _ in range(16)]
            for answers in slow:
                await anext(answers)
            async with asyncio.timeout(20):
                assert len([item async for item in client.stream({})]) == 3_000
            for answers in slow:
                await answers.aclose()
            async with asyncio.timeout(20):
                assert len([item async for item in client.stream({})]) == 3_000
            await until(lambda: served.server.inflight == 0)

    asyncio.run(story())


def test_a_callers_stream_is_stopped_by_a_slow_handler(transport, tmp_path):
    window = DEFAULTS.rpc_stream_window

    async def story():
        async with serving(transport, tmp_path) as served:
            go = asyncio.Event()

            @served.handler(EndpointSpec("eat", Shape.COLLECT, (), int, facts={"requests": bytes}))
            async def eat(call: Call) -> Any:
                assert call.requests is not None
                await go.wait()
                return sum([len(item) async for item in call.requests])

            await served.start()
            made = 0

            async def feed() -> Any:
                nonlocal made
                for _ in range(500):
                    made += 1
                    yield bytes(10_000)

            task = asyncio.ensure_future((await served.client("eat")).unary({}, requests=feed()))
            await until(lambda: made > 100)
            for _ in range(50):
                await asyncio.sleep(0.001)
            assert made * 10_000 <= window + 30_000
            go.set()
            assert await task == 500 * 10_000

    asyncio.run(story())


@pytest.mark.alone
@pytest.mark.parametrize("how", ["cancelled", "out of time"])
def test_deadline_metadata_and_cancellation_reach_the_third_hop(how, transport, tmp_path):
    async def story():
        async with serving(transport, tmp_path) as served:
            ended: list[str] = []
            arrived = asyncio.Event()
            seen: dict[str, Any] = {}

            def hop(name: str, after: str | None) -> None:
                @served.handler(unary(name))
                async def answer(call: Call) -> Any:
                    seen[name] = (dict(call.metadata), call.deadline)
                    try:
                        if after is None:
                            arrived.set()
                            await asyncio.Event().wait()
                            return None
                        return await (await served.client(after)).unary({}, timeout=60, metadata={name: "was here"})
                    finally:
                        ended.append(name)

            hop("one", "two")
            hop("two", "three")
            hop("three", None)
            await served.start()
            client, seconds = await served.client("one"), 30 if how == "cancelled" else 0.3
            task = asyncio.ensure_future(client.unary({}, timeout=seconds, metadata={"user": "ada"}))
            await arrived.wait()
            assert seen["three"][0]["user"] == "ada"
            assert seen["three"][0]["two"] == "was here"
            assert seen["three"][0]["traceparent"] == seen["two"][0]["traceparent"]
            deadlines = [seen[name][1] for name in ("one", "two", "three")]
            assert max(deadlines) - min(deadlines) < 0.2
            if how == "cancelled":
                task.cancel()
            else:
                with pytest.raises(DeadlineExceeded):
                    await task
            took = await until(lambda: sorted(ended) == ["one", "three", "two"])
            assert took < 0.5

    asyncio.run(story())


def test_stop_asks_politely_and_the_stream_is_marked_as_cut(transport, tmp_path):
    async def story():
        async with serving(transport, tmp_path) as served:

            @served.handler(stream("polite"))
            async def polite(call: Call) -> Any:
                n = 0
                while not call.is_stopped():
                    yield n
                    n += 1
                    await asyncio.sleep(0)
                yield "goodbye"

            await served.start()
            answers = (await served.client("polite")).stream({})
            got = []
            with pytest.raises(StreamCut):
                async for item in answers:
                    got.append(item)
                    answers.stop()
            assert got[-1] == "goodbye"

    asyncio.run(story())


def test_an_answer_that_does_not_fit_the_declared_type_is_the_services_fault(tmp_path):
    async def story():
        async with serving("memory", tmp_path) as served:

            @served.handler(unary("number"))
            async def number(call: Call) -> Any:
                return "seven"

            @served.handler(stream("numbers"))
            async def numbers(call: Call) -> Any:
                yield "seven"

            await served.start()
            client = await served.client("number", endpoint=unary("number", int))
            with pytest.raises(BadAnswer, match=r"the answer of t\.t\.number: Expected `int`"):
                await client.unary({})
            client = await served.client("numbers", endpoint=stream("numbers", int))
            with pytest.raises(BadAnswer, match=r"an item of t\.t\.numbers"):
                await anext(client.stream({}))
            await until(lambda: served.server.inflight == 0)

    asyncio.run(story())


def test_a_silent_instance_gets_no_new_calls_and_running_ones_live(tmp_path):
    """SIGSTOP: calls go elsewhere within heartbeats; after SIGCONT the old call is answered and new ones come again."""
    worker = textwrap.dedent(
        """
        import asyncio, sys
        from bema.core.spec import EndpointSpec, Shape
        from bema.runtime.rpc.server import Server

        async def main():
            server = Server("token 1")
            async def who(call):
                return "worker"
            async def slow(call):
                await asyncio.sleep(0.3)
                return "worker"
            server.add("t.t.who", who, EndpointSpec("who", Shape.UNARY))
            server.add("t.t.slow", slow, EndpointSpec("slow", Shape.UNARY))
            print(await server.listen("tcp:127.0.0.1:0"), flush=True)
            await asyncio.Event().wait()

        asyncio.run(main())
        """
    )

    async def story():
        async with serving("tcp", tmp_path) as served:

            @served.handler(unary("who"))
            async def who(call: Call) -> Any:
                return "here"

            here = await served.start()
            view = await served.discovery.view("t", "t")
            process = subprocess.Popen([sys.executable, "-c", worker], stdout=subprocess.PIPE, text=True)
            try:
                assert process.stdout is not None
                where = await asyncio.to_thread(process.stdout.readline)
                mine = view.instances()[0]
                served.discovery.put(
                    msgspec.structs.replace(
                        mine,
                        id=here + 100,
                        addresses={"rpc": (where.strip(),)},
                        token="token 1",
                        endpoints=(*mine.endpoints, msgspec.structs.replace(mine.endpoints[0], name="slow")),
                    )
                )
                client = await served.client("who")
                assert {await client.unary({}) for _ in range(6)} == {"here", "worker"}
                slow = asyncio.ensure_future((await served.client("slow")).unary({}, timeout=30))
                await asyncio.sleep(0.05)
                os.kill(process.pid, 19)
                connection = served.pool.connections[here + 100]
                took = await until(lambda: connection.silent)
                assert took < 3
                assert {await client.unary({}, timeout=5) for _ in range(10)} == {"here"}
                alone = asyncio.ensure_future(client.unary({}, instance=here + 100, timeout=30))
                await asyncio.sleep(0.05)
                assert not alone.done() and not slow.done()
                os.kill(process.pid, 18)
                assert await slow == "worker"
                assert await alone == "worker"
                assert {await client.unary({}) for _ in range(6)} == {"here", "worker"}
            finally:
                process.kill()
                process.communicate()

    asyncio.run(story())


@pytest.mark.alone
def test_a_new_caller_waits_once_for_who_accepts_and_says_nothing_and_hears_it_when_it_speaks(tmp_path):
    """As a process does that was stopped before anybody called it: the kernel accepts in its stead."""

    async def story():
        async with serving("unix", tmp_path) as served:

            @served.handler(unary("who"))
            async def who(call: Call) -> Any:
                return "here"

            here = await served.start()
            view = await served.discovery.view("t", "t")
            silent = sockets.bind(f"unix:{tmp_path}/silent.sock")
            mine = view.instances()[0]
            places = {"rpc": (f"unix:{tmp_path}/silent.sock", "tcp:127.0.0.1:1")}
            served.discovery.put(msgspec.structs.replace(mine, id=here + 1, addresses=places, token="t"))
            client = await served.client("who")
            began = time.monotonic()
            assert {await client.unary({}, timeout=20) for _ in range(10)} == {"here"}
            assert time.monotonic() - began < 2 * DEFAULTS.rpc_heartbeat

            server = Server("t")

            async def there(call: Call) -> Any:
                return "there"

            server.add("t.t.who", there, unary("who"))
            await server.listen(silent)
            async with asyncio.timeout(5):
                while await client.unary({}) != "there":
                    await asyncio.sleep(0.01)
            await server.close()

    asyncio.run(story())


def test_a_paced_stream_goes_on_beyond_its_window(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:

            @served.handler(stream("ticks", tuple[int, str]))
            async def ticks(call: Call) -> Any:
                for n in range(12_000):
                    await asyncio.sleep(0)
                    yield n, "x" * 200

            await served.start()
            client = await served.client("ticks")
            async with asyncio.timeout(60):
                assert [n async for n, _ in client.stream({})] == list(range(12_000))

    asyncio.run(story())


def test_where_all_are_silent_the_first_that_speaks_is_called_and_a_call_is_given_up_at_the_limit(
    tmp_path,
):
    async def story():
        async with serving("unix", tmp_path) as served:
            served.pool.limits = DEFAULTS.but(rpc_connect=2.5)
            silent = [sockets.bind(f"unix:{tmp_path}/{n}.sock") for n in range(2)]
            for n in range(2):
                served.discovery.put(
                    Instance(
                        id=1 + n,
                        namespace="t",
                        component="t",
                        endpoints=(EndpointInfo("who"),),
                        addresses={"rpc": (f"unix:{tmp_path}/{n}.sock",)},
                    )
                )
            client = await served.client("who")
            waiting = asyncio.ensure_future(client.unary({}, timeout=20))
            await until(lambda: len(served.pool._opening) == 2)
            server = Server()

            async def who(call: Call) -> Any:
                return "there"

            server.add("t.t.who", who, unary("who"))
            await server.listen(silent[1])
            assert await waiting == "there"
            with pytest.raises(Unavailable, match="says nothing"):
                await client.unary({}, instance=1)
            await server.close()
            silent[0].close()

    asyncio.run(story())


@pytest.mark.alone
def test_a_forked_child_does_not_keep_its_parents_connections(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:
            endless = Endless(served)
            await served.start()
            where = (await served.discovery.view()).instances()[0].addresses["rpc"][0]
            script = CALLER.replace('print("reading", flush=True)', "fork()").replace(
                "import asyncio, sys",
                "import asyncio, os, sys, time\n"
                "def fork():\n"
                "    if os.fork() == 0:\n"
                "        os.write(1, b'%d\\n' % os.getpid())\n"
                "        time.sleep(30)\n"
                "        os._exit(0)\n",
            )
            caller = subprocess.Popen([sys.executable, "-c", script, where], stdout=subprocess.PIPE, text=True)
            assert caller.stdout is not None
            child = int(await asyncio.to_thread(caller.stdout.readline))
            try:
                caller.kill()
                caller.wait()
                died = time.monotonic()
                await endless.ended.wait()
                assert time.monotonic() - died < 1
                os.kill(child, 0)
            finally:
                os.kill(child, 9)
                caller.stdout.close()

    asyncio.run(story())


def test_two_clients_that_ask_at_once_share_one_connection(transport, tmp_path):
    async def story():
        async with serving(transport, tmp_path) as served:

            @served.handler(unary("who"))
            async def who(call: Call) -> Any:
                return 1

            await served.start()
            assert await asyncio.gather(*(served.call("who") for _ in range(20))) == [1] * 20
            assert len(served.server.connections) == 1
            another = ConnectionPool()
            client = await served.client("who", pool=another)
            await client.unary({})
            assert len(served.server.connections) == 2
            await another.close()
            await until(lambda: len(served.server.connections) == 1)

    asyncio.run(story())


def test_an_endpoint_that_is_missing_is_not_retried(tmp_path):
    async def story():
        async with serving("memory", tmp_path) as served:

            @served.handler(unary("who"))
            async def who(call: Call) -> Any:
                return 1

            await served.start()
            served.server.remove("t.t.who")
            with pytest.raises(NotFound):
                await served.call("who")

    asyncio.run(story())
