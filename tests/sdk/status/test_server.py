"""`BEMA_STATUS_PORT`: what a process tells of itself over HTTP."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from bema import (
    BadDeclaration,
    Context,
    DistributedRuntime,
    MemoryDiscovery,
    Overloaded,
    StreamCut,
    async_init,
    endpoint,
    entrypoint,
    liveness,
    readiness,
    serve,
    service,
)
from bema.core.instance import EndpointInfo
from bema.runtime.discovery.discovery import wait_for
from bema.runtime.process.host import LaunchOptions
from bema.runtime.rpc.metrics import CallMetrics
from bema.sdk import health
from bema.sdk.status import server
from bema.sdk.status.components import ComponentView
from bema.sdk.status.exposition import exposition
from tests.sdk.asking import free_port, get, samples


class Watched:
    """A service with its status page in this loop, and a runtime that calls it."""

    def __init__(self, cls, **limits):
        self._cls = cls
        self.discovery = MemoryDiscovery()
        self.serving = DistributedRuntime(self.discovery, options=LaunchOptions(listen=f"memory:status-{cls.__name__}"))
        self.serving.host.limits = self.serving.limits.but(**limits)
        self.calling = DistributedRuntime(self.discovery)

    async def __aenter__(self):
        self.life = asyncio.create_task(serve(self._cls, self.serving))
        while not server._by_loop:
            await asyncio.sleep(0)
        (self.status,) = server._by_loop.values()
        return self

    async def page(self, path):
        return await asyncio.to_thread(get, self.status.port, path)

    async def samples(self):
        code, text = await self.page("/metrics")
        assert code == 200
        return samples(text)

    async def listed(self):
        await asyncio.wait_for(wait_for(await self.discovery.view(), lambda found: len(found) > 0), 5)

    async def __aexit__(self, *exc):
        await self.calling.close()
        self.serving.stop()
        await self.life
        await self.serving.close()
        assert not server._by_loop


@pytest.fixture(autouse=True)
def asked_for(monkeypatch):
    monkeypatch.setenv(server.PORT.variable, "0")


def test_requests_are_counted_by_endpoint_and_by_what_they_ended_as():
    @service(name="counted", namespace="status")
    class Counted:
        @endpoint()
        async def twice(self, number: int) -> int:
            return 2 * number

        @endpoint()
        async def fails(self) -> None:
            raise ValueError("no")

        @endpoint()
        async def waits(self) -> None:
            began.set()
            await asyncio.Event().wait()

    async def story():
        async with Watched(Counted) as watched:
            await watched.listed()
            counted = watched.calling.client(Counted)
            assert [await counted.twice(n) for n in range(3)] == [0, 2, 4]
            with pytest.raises(ValueError):
                await counted.fails()
            with pytest.raises(Exception, match="int"):
                await counted.twice("not a number")
            waiting = asyncio.ensure_future(counted.waits())
            await began.wait()
            where = 'namespace="status",component="counted",endpoint='
            assert (await watched.samples())[f'bema_requests_in_flight{{{where}"waits"}}'] == 1
            waiting.cancel()
            while (found := await watched.samples())[f'bema_requests_in_flight{{{where}"waits"}}']:
                pass
            assert found[f'bema_requests_total{{{where}"twice",outcome="ok"}}'] == 3
            assert found[f'bema_requests_total{{{where}"twice",outcome="error"}}'] == 1
            assert found[f'bema_errors_total{{{where}"twice",code="invalid_argument"}}'] == 1
            assert found[f'bema_errors_total{{{where}"fails",code="remote_error"}}'] == 1
            assert found[f'bema_cancellations_total{{{where}"waits"}}'] == 1
            assert found[f'bema_request_duration_seconds_count{{{where}"twice"}}'] == 4
            assert found[f'bema_request_duration_seconds_bucket{{{where}"twice",le="+Inf"}}'] == 4
            assert found["bema_ready"] == 1
            assert 0 <= found["bema_loop_lag_seconds"] < 5
            code, told = await watched.page("/readyz")
            said = json.loads(told)["services"]["status.counted"]
            assert (code, said["state"]) == (200, "serving")
            assert said["endpoints"]["twice"] == {
                "serving": True, "in_flight": 0, "ok": 3, "errors": 1, "cancelled": 0,
            }  # fmt: skip

    began = asyncio.Event()
    asyncio.run(story())


def test_an_endpoint_s_own_labels_are_among_them():
    @service(name="labelled", namespace="status")
    class Labelled:
        def __init__(self, context: Context) -> None:
            self.component = context.component

        @entrypoint
        async def go(self) -> None:
            place = self.component.endpoint("ask")
            with pytest.raises(BadDeclaration, match="no name of a label"):
                await place.serve_endpoint(self.ask, metrics_labels=[("a-b", "c")])
            await place.serve_endpoint(
                self.ask, metrics_labels=[("model", 'a "small"\\one'), ("namespace", "not ours")]
            )

        async def ask(self) -> None: ...

    async def story():
        async with Watched(Labelled) as watched:
            await watched.listed()
            await watched.calling.endpoint("status.labelled.ask").client(wait=5)()
            where = 'namespace="status",component="labelled",endpoint="ask",model="a \\"small\\"\\\\one"'
            _, text = await watched.page("/metrics")
            assert f'bema_requests_total{{{where},outcome="ok"}} 1\n' in text

    asyncio.run(story())


def test_the_text_is_what_prometheus_reads():
    @service(name="read", namespace="status")
    class Read:
        @endpoint()
        async def never(self) -> None: ...

    async def story():
        async with Watched(Read) as watched:
            await watched.listed()
            code, text = await watched.page("/metrics")
            assert code == 200
            line = re.compile(r'(# (HELP|TYPE) bema_\w+ .+|bema_\w+(\{(\w+="[^"]*",?)+\})? [0-9.e+-]+)')
            assert [row for row in text.splitlines() if not line.fullmatch(row)] == []
            assert text.endswith("\n")

    asyncio.run(story())


def test_it_is_not_ready_before_it_serves_and_what_never_answers_is_never_ready():
    @service(name="slow", namespace="status")
    class Slow:
        @async_init
        async def wait(self) -> None:
            await may_start.wait()

        @readiness
        async def answers(self) -> bool:
            await answering.wait()
            return True

        @endpoint()
        async def never(self) -> None: ...

    async def story():
        async with Watched(Slow) as watched:
            assert (await watched.page("/readyz"))[0] == 503
            assert (await watched.page("/healthz"))[0] == 200
            may_start.set()
            code, told = await watched.page("/readyz")
            assert (code, json.loads(told)["services"]["status.slow"]["state"]) == (503, "starting")
            assert (await watched.page("/healthz"))[0] == 200
            answering.set()
            await watched.listed()
            assert (await watched.page("/readyz"))[0] == 200

    may_start, answering = asyncio.Event(), asyncio.Event()
    asyncio.run(story())


def test_an_endpoint_whose_health_check_goes_unanswered_is_not_ready_until_it_answers():
    hangs, checked = True, asyncio.Event()

    @service(name="checked", namespace="status")
    class Checked:
        def __init__(self, context: Context) -> None:
            self.component = context.component

        @entrypoint
        async def go(self) -> None:
            await self.component.endpoint("ask").serve_endpoint(self.ask, health_check_payload={"word": "well?"})

        async def ask(self, word: str) -> str:
            checked.set()
            while hangs:
                await asyncio.sleep(0)
            return word

    async def story():
        nonlocal hangs
        ready: list[bool] = []
        async with Watched(Checked, health=0.01, health_answer=0.05) as watched:
            view = await watched.discovery.view()
            view.subscribe(lambda: ready.extend(i.ready for i in view.instances()))
            await watched.listed()
            for _ in range(3):
                checked.clear()
                await asyncio.wait_for(checked.wait(), 5)
                code, told = await watched.page("/readyz")
                assert (code, json.loads(told)["services"]["status.checked"]["endpoints"]["ask"]["serving"]) == (
                    503,
                    False,
                )
                assert (await watched.page("/healthz"))[0] == 200
            assert set(ready) == {False}, "who never answered was never shown as ready"
            hangs = False
            await asyncio.wait_for(wait_for(view, lambda seen: seen[0].ready), 5)
            assert (await watched.page("/readyz"))[0] == 200
            assert await watched.calling.endpoint("status.checked.ask").client()(word="still?") == "still?"

    asyncio.run(story())


def test_what_is_refused_is_counted_and_after_the_drain_nothing_is_in_flight():
    go, began = asyncio.Event(), asyncio.Event()

    @service(name="full", namespace="status")
    class Full:
        @endpoint()
        async def finishes(self) -> str:
            began.set()
            await go.wait()
            return "whole"

        @endpoint()
        async def is_cut(self) -> None:
            await asyncio.sleep(60)

    async def story():
        watched = Watched(Full, drain=0.2)
        watched.serving.host.slots = 2
        async with watched:
            await watched.listed()
            full = watched.calling.client(Full)
            running = asyncio.ensure_future(full.finishes())
            cut = asyncio.ensure_future(full.is_cut())
            await began.wait()
            while (await watched.samples())[in_flight("is_cut")] == 0:
                pass
            with pytest.raises(Overloaded):
                await full.finishes()
            assert (await watched.samples())['bema_refused_total{code="overloaded"}'] >= 1
            draining = asyncio.ensure_future(watched.serving.drain())
            go.set()
            assert await running == "whole"
            assert await draining is False, "one call outlived the grace"
            with pytest.raises(StreamCut):
                await cut
            found = await watched.samples()
            assert [found[in_flight(name)] for name in ("finishes", "is_cut")] == [0, 0]
            assert found[f'bema_errors_total{{{where("is_cut")},code="stream_cut"}}'] == 1

    def where(name):
        return f'namespace="status",component="full",endpoint="{name}"'

    def in_flight(name):
        return f"bema_requests_in_flight{{{where(name)}}}"

    asyncio.run(story())


def test_there_is_nothing_else():
    @service(name="else", namespace="status")
    class Else:
        @endpoint()
        async def never(self) -> None: ...

    async def story():
        async with Watched(Else) as watched:
            assert (await watched.page("/"))[0] == 404

    asyncio.run(story())


SERVICE = """
import asyncio, sys
from bema import endpoint, liveness, service

@service(name="drains", namespace="status")
class Drains:
    @endpoint()
    async def slow(self) -> str:
        sys.stdout.write("began\\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        return "whole"

asyncio.run(Drains.start())
"""


def started(code, port, *, host="", **pipes):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, server.PORT.variable: str(port), server.HOST.variable: host},
        stderr=subprocess.PIPE, text=True, **pipes,
    )  # fmt: skip


def test_while_it_drains_it_is_alive_and_not_ready(bema):
    port = free_port()
    process = started(SERVICE, port, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert "is ready" in process.stderr.readline()
    calling = subprocess.Popen([*bema.command, "call", "status.drains.slow"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "began\n"
    assert get(port, "/readyz")[0] == 200
    process.send_signal(signal.SIGTERM)
    while (told := get(port, "/readyz"))[0] == 200:
        pass
    said = json.loads(told[1])["services"]["status.drains"]
    assert (told[0], said["state"], said["endpoints"]["slow"]["in_flight"]) == (503, "draining", 1)
    assert get(port, "/healthz")[0] == 200
    process.stdin.write("\n")
    process.stdin.flush()
    assert calling.communicate(timeout=10)[0] == "whole\n"
    assert process.wait(timeout=10) == 0
    process.communicate()


@pytest.mark.parametrize(("port", "says"), [("http", "bad_setting"), ("70000", "bad_setting"), (None, "port_in_use")])
def test_a_port_that_cannot_be_had_is_refused_before_anything_starts(port, says):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = started(SERVICE, port or taken.getsockname()[1], stdin=subprocess.DEVNULL)
        _, said = process.communicate(timeout=10)
    assert (process.returncode, said.splitlines()[-2].partition(":")[0]) == (1, says), said


def test_without_the_extra_it_is_refused():
    hidden = "import sys; sys.modules['uvicorn'] = None\n" + SERVICE
    process = started(hidden, 0, stdin=subprocess.DEVNULL)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "missing_extra: BEMA_STATUS_PORT needs uvicorn" in said
    assert "pip install 'bema[http]'" in said


def test_a_service_that_says_it_is_not_alive_is_told_of(monkeypatch):
    @service(name="ill", namespace="status")
    class Ill:
        @liveness
        def lives(self) -> bool:
            return False

        @endpoint()
        async def never(self) -> None: ...

    async def story():
        monkeypatch.setattr(health, "PATIENCE", -1)  # it is asked on and on, and not ended
        async with Watched(Ill, health=0.01) as watched:
            await watched.listed()
            while (told := await watched.page("/healthz"))[0] == 200:
                pass
            assert json.loads(told[1])["services"]["status.ill"]["alive"] is False

    asyncio.run(story())


@service(name="blocks", namespace="status")
class Blocks:
    @endpoint()
    async def never(self) -> None: ...


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "bema-status"]


def test_it_answers_while_the_loop_stands_and_says_so():
    def ask(port):
        while not (told := json.loads(get(port, "/healthz")[1]))["stalled"]:
            pass
        first = samples(get(port, "/metrics")[1])
        pages = {path: get(port, path) for path in ("/healthz", "/readyz")}
        return told, pages, first, samples(get(port, "/metrics")[1])

    async def story():
        with ThreadPoolExecutor(1) as asking:
            async with Watched(Blocks, stalled=0.3) as watched:
                await watched.listed()
                assert json.loads((await watched.page("/readyz"))[1])["stalled"] is False
                assert (await watched.samples())["bema_stalled"] == 0
                # the loop waits, as a handler that blocks does, until all has been asked
                told, pages, first, second = asking.submit(ask, watched.status.port).result(20)
                assert told["alive"] is True and told["ready"] is False
                assert {path: code for path, (code, _) in pages.items()} == {"/healthz": 200, "/readyz": 503}
                assert (first["bema_stalled"], first["bema_ready"]) == (1, 0)
                assert 0.3 < first["bema_loop_lag_seconds"] < second["bema_loop_lag_seconds"]
                while (await watched.page("/readyz"))[0] == 503:
                    pass
                after = await watched.samples()
                assert (after["bema_stalled"], after["bema_ready"]) == (0, 1)
                assert after["bema_loop_lag_seconds"] >= second["bema_loop_lag_seconds"]

    asyncio.run(story())


def test_services_of_one_loop_share_one_thread_which_ends_with_the_last():
    @service(name="second", namespace="status")
    class Second(Blocks): ...

    async def story():
        async with Watched(Blocks) as one:
            (thread,) = threads()
            runtime = DistributedRuntime(one.discovery, options=LaunchOptions(listen="memory:status-second"))
            second = asyncio.create_task(serve(Second, runtime))
            await asyncio.wait_for(wait_for(await one.discovery.view(), lambda found: len(found) == 2), 5)
            code, told = await one.page("/readyz")
            assert (code, set(json.loads(told)["services"])) == (200, {"status.blocks", "status.second"})
            assert threads() == [thread]
            runtime.stop()
            await second
            await runtime.close()
            assert thread.is_alive() and (await one.page("/healthz"))[0] == 200
        assert not thread.is_alive()

    asyncio.run(story())


def test_a_loop_that_is_closed_before_its_services_left_takes_the_thread_along():
    async def leave():
        return server.StatusServer.opened().port

    port = asyncio.run(leave())
    (thread,) = threads()
    thread.join(10)
    assert not thread.is_alive()
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_who_looks_changes_nothing_and_is_not_confused_by_what_changes():
    host = DistributedRuntime(MemoryDiscovery()).host
    hosted, metrics = host.component("status", "changing"), CallMetrics()
    member, rounds = ComponentView(host, hosted, metrics), 300
    hosted.endpoints["always"] = EndpointInfo("always")
    assert exposition([member], ready=True, stalled=False, lag=0.0).count("always") and metrics.counters == {}
    counter = metrics.of(hosted.route("always"))
    seen = metrics.seen(hosted.route("always"))
    counter.errors["later"] += 1
    counter.buckets[0] += 1
    assert (seen.errors.total(), sum(seen.buckets)) == (0, 0)

    def change():
        for number in range(200):
            name = f"changing{number}"
            hosted.endpoints[name] = EndpointInfo(name)
            host.component("status", name)
            hosted.failing.add(name)
            counter.errors[name] += 1
            metrics.refused[name] += 1
        for each in (hosted.endpoints, counter.errors, metrics.refused):
            for name in tuple(each)[1:]:
                del each[name]
        host.components.clear()
        hosted.failing.clear()

    def look():
        for _ in range(rounds):
            assert member.alive and "always" in member.described()["endpoints"]
            exposition([member], ready=True, stalled=False, lag=0.0)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(1) as looking:
            looked = looking.submit(look)
            while not looked.done():
                change()
            looked.result()
    finally:
        sys.setswitchinterval(interval)


FORKS = """
import asyncio, os, time
from bema import async_init, endpoint, service

@service(name="forks", namespace="status")
class Forks:
    @async_init
    def fork(self):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        print(child, flush=True)

    @endpoint()
    async def never(self) -> None: ...

asyncio.run(Forks.start())
"""


def test_a_child_holds_no_listener():
    port = free_port()
    process = started(FORKS, port, stdout=subprocess.PIPE)
    child = int(process.stdout.readline())
    try:
        while "is ready" not in (line := process.stderr.readline()):
            assert line  # newer Pythons warn of a fork beside threads
        assert get(port, "/readyz")[0] == 200
        process.kill()
        process.wait(10)
        with socket.create_server(("127.0.0.1", port)):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        process.kill()
        process.communicate()


def test_all_addresses_are_listened_at_where_that_is_asked_for(monkeypatch):
    async def story():
        async with Watched(Blocks) as watched:
            await watched.listed()
            assert watched.status.url == f"http://127.0.0.1:{watched.status.port}"
            # of this machine too, and not the default
            asked = asyncio.to_thread(get, watched.status.port, "/readyz", "127.0.0.2")
            if not everywhere:
                with pytest.raises(OSError, match="refused"):
                    await asked
            else:
                assert (await asked)[0] == 200

    for everywhere in (False, True):
        if everywhere:
            monkeypatch.setenv(server.HOST.variable, "0.0.0.0")
        asyncio.run(story())


def test_an_address_may_be_of_the_newer_kind(monkeypatch):
    async def story():
        async with Watched(Blocks) as watched:
            assert watched.status.url == f"http://[::1]:{watched.status.port}"
            assert (await asyncio.to_thread(get, watched.status.port, "/healthz", "[::1]"))[0] == 200

    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    monkeypatch.setenv(server.HOST.variable, "::1")
    asyncio.run(story())


@pytest.mark.parametrize("host", ["everywhere", "127.0.0", "localhost:80"])
def test_what_is_no_address_is_refused_in_a_sentence(host):
    process = started(SERVICE, 0, host=host, stdin=subprocess.DEVNULL)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 1
    assert said.splitlines()[-2:] == [
        f"bad_setting: BEMA_STATUS_HOST is {host!r}, which is not an address",
        "  fix: Give an IP address of this machine, or 0.0.0.0 for all of them.",
    ]
