"""start(): the five steps, what they pass on, and every way to end."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bema import (
    BadDeclaration,
    Context,
    DistributedRuntime,
    MemoryDiscovery,
    Overloaded,
    StreamCut,
    Unavailable,
    async_init,
    depends,
    endpoint,
    entrypoint,
    on_shutdown,
    readiness,
    serve,
    service,
    spec_of,
)
from bema.core.digest import digest_of
from bema.core.instance import Instance, State
from bema.core.paths import socket_dir
from bema.runtime.discovery.discovery import wait_for
from bema.runtime.discovery.flock import FlockDiscovery
from bema.runtime.process import inheritance
from bema.sdk import lifecycle
from bema.wire.module.handshake import Announce, Init, Stop, encode
from tests.runtime.helpers import until

events: list[str] = []


@pytest.fixture(autouse=True)
def fresh_events():
    events.clear()


@service(name="worker", namespace="demo")
class Worker:
    def __init__(self, context: Context) -> None:
        events.append("construct")
        self.context = context

    @async_init
    async def first(self) -> None:
        events.append("first")

    @async_init
    def second(self) -> None:
        events.append("second")

    @endpoint()
    async def generate(self, text: str) -> AsyncIterator[str]:
        for word in text.split():
            yield word

    @endpoint()
    async def slow(self) -> str:
        events.append("slow began")
        await asyncio.sleep(0.1)
        events.append("slow ended")
        return "whole"

    @on_shutdown
    def plainly(self) -> None:
        events.append("plainly")

    @on_shutdown
    async def awaited(self) -> None:
        events.append("awaited")


class Meeting:
    """One discovery, a runtime that serves and one that calls."""

    def __init__(self) -> None:
        self.discovery = MemoryDiscovery()
        self.serving = DistributedRuntime(self.discovery)
        self.calling = DistributedRuntime(self.discovery)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc):
        await self.calling.close()
        await self.serving.close()

    async def listed(self, count: int = 1) -> tuple[Instance, ...]:
        view = await self.discovery.view()
        return await asyncio.wait_for(wait_for(view, lambda found: len(found) == count), 5)


def test_steps_come_in_order_and_stop_drains():
    async def story():
        async with Meeting() as meeting:
            running = asyncio.create_task(serve(Worker, meeting.serving))
            (shown,) = await meeting.listed()
            assert events == ["construct", "first", "second"]
            assert (shown.component_address, shown.state, shown.pid) == ("demo.worker", State.SERVING, os.getpid())
            worker = meeting.calling.client(Worker)
            assert [word async for word in worker.generate("a b")] == ["a", "b"]
            slow = asyncio.ensure_future(worker.slow())
            while "slow began" not in events:
                await asyncio.sleep(0)
            meeting.serving.stop()
            assert await slow == "whole"
            await running
            assert events[3:] == ["slow began", "slow ended", "plainly", "awaited"]
            assert await meeting.listed(0) == ()

    asyncio.run(story())


def test_a_given_runtime_is_left_open_and_serves_several():
    @service(name="other", namespace="demo")
    class Other:
        worker = depends(Worker)

        @endpoint()
        async def words(self, text: str) -> list[str]:
            return [word async for word in self.worker.generate(text)]

    async def story():
        async with Meeting() as meeting:
            both = asyncio.gather(Worker.start(runtime=meeting.serving), Other.start(meeting.serving))  # type: ignore[attr-defined]
            one, two = await meeting.listed(2)
            assert one.id != two.id and one.addresses == two.addresses
            assert await meeting.calling.client(Other).words("a b c") == ["a", "b", "c"]
            meeting.serving.stop()
            await both
            async with DistributedRuntime(meeting.discovery) as elsewhere:
                running = asyncio.create_task(serve(Worker, elsewhere))
                await meeting.listed()
                worker = meeting.serving.client(Worker)
                assert [word async for word in worker.generate("still open")] == ["still", "open"]
                elsewhere.stop()
                await running

    asyncio.run(story())


def test_what_a_constructor_may_ask_for():
    @service(namespace="demo")
    class Asks:
        def __init__(
            self, dynamo_context, runtime: DistributedRuntime, maybe: Context | None, init: Init, size: int = 3,
            worker: Worker = depends(Worker),  # noqa: B008
        ):  # fmt: skip
            self.given = (dynamo_context, runtime, maybe, init, size, worker)

        @async_init
        async def look(self) -> None:
            context, runtime, maybe, init, size, worker = self.given
            assert maybe is not None and context is maybe and context.runtime is runtime
            assert (context.name, context.namespace, size) == ("Asks", "demo", 3)
            assert context.component.address == "demo.Asks"
            assert [e.name for e in context.endpoints] == ["look_at"]
            assert init.module_id == "demo.Asks" and context.settings == {}
            assert repr(worker) == "<handle of demo.worker>"
            runtime.stop()

        @endpoint()
        async def look_at(self) -> None: ...

    async def story():
        async with Meeting() as meeting:
            await serve(Asks, meeting.serving)

    asyncio.run(story())


def test_what_nothing_can_be_passed_for_is_named():
    @service()
    class Asks:
        def __init__(self, database: str) -> None: ...

    async def story():
        async with Meeting() as meeting:
            with pytest.raises(BadDeclaration, match="asks for 'database'") as failed:
                await serve(Asks, meeting.serving)
            assert failed.value.__notes__ == ["default.Asks: step 'construct' of start() failed"]

    asyncio.run(story())


@pytest.mark.parametrize("step", ["construct", "async_init"])
def test_a_failing_step_is_named_and_nothing_is_listed(step):
    @service(name="breaks", namespace="demo")
    class Breaks:
        def __init__(self) -> None:
            if step == "construct":
                raise ValueError("broken")

        @async_init
        async def init(self) -> None:
            raise ValueError("broken")

        @endpoint()
        async def never(self) -> None: ...

        @on_shutdown
        def shut(self) -> None:
            events.append("shut")

    async def story():
        async with Meeting() as meeting:
            view = await meeting.discovery.view()
            view.subscribe(lambda: events.append("listed"))
            with pytest.raises(ValueError, match="broken") as failed:
                await serve(Breaks, meeting.serving)
            assert failed.value.__notes__ == [f"demo.breaks: step '{step}' of start() failed"]
            assert view.instances() == ()
            assert events == [], "it was never listed, and its hooks have nothing to put away"

    asyncio.run(story())


def test_what_a_class_says_of_its_slots_and_its_queue_bounds_its_calls():
    runtimes: list[DistributedRuntime] = []
    began, go = asyncio.Event(), asyncio.Event()

    @service(name="bounded", namespace="demo", slots=1, queue=1)
    class Bounded:
        def __init__(self, context: Context) -> None:
            runtimes.append(context.runtime)

        @endpoint()
        async def work(self) -> str:
            began.set()
            await go.wait()
            return "whole"

    async def story():
        running = asyncio.create_task(serve(Bounded))
        async with DistributedRuntime() as calling:
            bounded = calling.client(Bounded, wait=5)
            accepted = [asyncio.ensure_future(bounded.work())]
            await began.wait()
            accepted.append(asyncio.ensure_future(bounded.work()))
            refused = asyncio.ensure_future(bounded.work())
            with pytest.raises(Overloaded, match="1 calls run and 1 wait"):
                await refused
            go.set()
            assert await asyncio.gather(*accepted) == ["whole", "whole"]
        runtimes[0].stop()
        await running

    asyncio.run(story())


def test_an_entrypoint_serves_what_it_serves_and_nothing_else():
    @service(name="power", namespace="demo")
    class Power:
        def __init__(self, context: Context) -> None:
            self.context = context

        @endpoint()
        async def unserved(self) -> None: ...

        @entrypoint
        async def go(self, runtime: DistributedRuntime) -> None:
            assert runtime is self.context.runtime
            await self.context.component.create_service()
            await self.context.component.endpoint("generate").serve_endpoint(self.generate)
            await asyncio.sleep(0.01)
            events.append("came to its own end")

        async def generate(self, text: str):
            yield text

    async def story():
        async with Meeting() as meeting:
            running = asyncio.create_task(serve(Power, meeting.serving))
            (shown,) = await meeting.listed()
            assert [(e.name, e.parameters) for e in shown.endpoints] == [("generate", ("text",))]
            client = await meeting.calling.endpoint("demo.power.generate").client()
            assert [x async for x in client.generate("a")] == ["a"]
            meeting.serving.stop()
            await running
            assert events == ["came to its own end"]

    asyncio.run(story())


def test_an_entrypoint_that_serves_nothing_is_ended():
    @service()
    class Idle:
        @entrypoint
        async def go(self) -> None:
            events.append("idle")
            try:
                await asyncio.Event().wait()
            finally:
                events.append("ended")

        @on_shutdown
        def shut(self) -> None:
            events.append("shut")

    async def story():
        async with Meeting() as meeting:
            asyncio.get_running_loop().call_later(0.05, meeting.serving.stop)
            await serve(Idle, meeting.serving)

    asyncio.run(story())
    assert events == ["idle", "ended", "shut"]


def test_an_instance_is_listed_once_it_says_that_it_is_ready():
    @service()
    class Warms:
        asked = 0

        @readiness
        async def warm(self) -> bool:
            self.asked += 1
            events.append(f"asked {self.asked}")
            return self.asked == 2

        @endpoint()
        async def answer(self) -> int:
            return self.asked

    async def story():
        async with Meeting() as meeting:
            running = asyncio.create_task(serve(Warms, meeting.serving))
            await meeting.listed()
            assert events == ["asked 1", "asked 2"]
            meeting.serving.stop()
            await running

    asyncio.run(story())


@pytest.mark.parametrize("raised", [ValueError("broken"), SystemExit(7), asyncio.CancelledError(), GeneratorExit()])
def test_a_failing_shutdown_hook_stops_no_other(caplog, raised):
    @service()
    class Untidy:
        @on_shutdown
        def breaks(self) -> None:
            raise raised

        @on_shutdown
        async def goes_on(self) -> None:
            events.append("goes on")

    async def story():
        async with Meeting() as meeting:
            meeting.serving.stop()
            await serve(Untidy, meeting.serving)

    asyncio.run(story())
    assert events == ["goes on"]
    assert "the shutdown hook breaks failed" in caplog.text


def test_an_abstract_service_does_not_start():
    @service(abstract=True)
    class Abstract: ...

    with pytest.raises(BadDeclaration, match="is abstract"):
        asyncio.run(serve(Abstract))


def test_depends_needs_a_runtime_and_takes_a_stand_in():
    @service()
    class Uses:
        worker = depends(Worker)

    with pytest.raises(BadDeclaration, match=r"Uses.worker has no runtime"):
        Uses().worker  # noqa: B018
    with pytest.raises(BadDeclaration, match="is not a service class"):
        depends(int)
    uses = Uses()
    stand_in: Any = "a stand-in"
    uses.worker = stand_in
    assert uses.worker is stand_in


def test_a_dependency_is_one_handle_and_waits_until_it_is_there():
    @service(name="waits", namespace="demo")
    class Waits:
        worker = depends(Worker)

        def __init__(self) -> None:
            self.seen = self.worker

        @endpoint()
        async def ask(self) -> str:
            assert self.worker is self.seen
            return await self.worker.slow()

    async def story():
        async with Meeting() as meeting, Meeting() as late:
            late.serving = DistributedRuntime(meeting.discovery)
            waits = asyncio.create_task(serve(Waits, meeting.serving))
            await meeting.listed()
            answer = asyncio.ensure_future(meeting.calling.client(Waits).ask())
            await asyncio.sleep(0.05)
            worker = asyncio.create_task(serve(Worker, late.serving))
            assert await asyncio.wait_for(answer, 5) == "whole"
            for runtime in (meeting.serving, late.serving):
                runtime.stop()
            await asyncio.gather(waits, worker)

    asyncio.run(story())


def test_depending_starts_nothing():
    """There is no graph behind it: a service is listed while what it depends on is nowhere."""

    @service(name="alone", namespace="demo")
    class Alone:
        worker = depends(Worker, wait=0.05)

        @endpoint()
        async def ask(self) -> str:
            return await self.worker.slow()

    async def story():
        async with Meeting() as meeting:
            running = asyncio.create_task(serve(Alone, meeting.serving))
            view = await meeting.calling.view("demo", "alone")
            await wait_for(view, lambda instances: len(instances) == 1)
            everybody = await meeting.calling.discovery.view()
            assert [i.component for i in everybody.instances()] == ["alone"]
            assert events == []
            with pytest.raises(Unavailable):
                await meeting.calling.client(Alone).ask()
            assert [i.component for i in everybody.instances()] == ["alone"]
            meeting.serving.stop()
            await running

    asyncio.run(story())


def test_a_launcher_is_answered_and_obeyed(tmp_path):
    async def story():
        outside, inside = socket.socketpair()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "x.sock"))
        listener.listen()
        lease = open(tmp_path / "lease", "w")  # noqa: SIM115
        init = Init(
            orchestrator_api="",
            module_id="m",
            env={"BEMA_TEST_ENV": "told"},
            listen=f"unix:{tmp_path}/x.sock",
            instance="464ej61pkfrcm",
            auth_token="a-token",
            listen_fd=listener.detach(),
            lease_fd=lease.fileno(),
            settings={"size": 4},
        )
        inheritance.adopt(inside.detach(), msgspec.to_builtins(init))
        reader, writer = await asyncio.open_connection(sock=outside)
        running = asyncio.create_task(serve(Worker))
        announce = msgspec.json.decode(await asyncio.wait_for(reader.readline(), 5), type=Announce)
        assert (announce.listen, announce.instance, announce.kind) == (init.listen, init.instance, "service")
        assert (announce.namespace, announce.name) == ("demo", "worker")
        assert announce.addresses == {"rpc": [init.listen]}
        assert [(e.path, e.methods) for e in announce.endpoints] == [("/generate", ["POST"]), ("/slow", ["POST"])]
        assert [e.name for e in announce.operations or ()] == ["generate", "slow"]
        assert announce.digest == digest_of(spec_of(Worker))
        assert os.environ.pop("BEMA_TEST_ENV") == "told"
        writer.write(encode(Stop(deadline_ms=100)))
        await asyncio.wait_for(running, 5)
        assert events[-1] == "awaited"
        writer.close()
        lease.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("said", "lane"),
    [
        ({}, "hand"),
        ({"settings": {"lane": "dev"}}, "dev"),
        ({"deployment": "5f0c", "name": "tea"}, "deployment/tea"),
        ({"deployment": "5f0c"}, "deployment/5f0c"),
    ],
)
def test_a_service_and_its_calls_are_in_the_lane_of_its_launcher(said, lane):
    init = Init(orchestrator_api="", module_id="m", env={}, listen="", **said)

    async def story():
        async with DistributedRuntime(MemoryDiscovery(), options=lifecycle._options(init)) as runtime:
            assert runtime.lanes().own == lane
            assert runtime.host.record(runtime.host.component("demo", "tea")).lane == lane

    asyncio.run(story())


PROGRAM = """
import asyncio, sys, time
from bema import service, endpoint, async_init, on_shutdown

@service(name="program", namespace="demo")
class Program:
    @async_init
    async def init(self):
        if "slow" in sys.argv:
            print("in init", flush=True)
            await asyncio.sleep(60)
        if "stubborn" in sys.argv:
            print("in init", flush=True)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass
        if "broken" in sys.argv:
            raise ValueError("broken")

    @endpoint()
    async def hangs(self):
        print("called", flush=True)
        await asyncio.sleep(60)

    @on_shutdown
    def shut(self):
        print("shut", flush=True)

asyncio.run(Program.start())
"""


FORKS = """
import asyncio, os
from bema import async_init, endpoint, service

@service(name="forks", namespace="demo")
class Forks:
    def __init__(self):
        if WHERE == "constructor":
            os.fork()

    @async_init
    async def begin(self):
        if WHERE == "hook":
            os.fork()
        if WHERE == "task":
            self.task = asyncio.create_task(self.work())

    async def work(self):
        os.fork()

    @endpoint()
    async def pid(self) -> int:
        return os.getpid()

asyncio.run(Forks.start())
print("ended", flush=True)
"""


@pytest.mark.parametrize("where", ["constructor", "hook", "task"])
def test_a_child_that_comes_back_to_the_start_serves_nothing(tmp_path, where):
    """It would be a second instance in the loop of the first."""
    program = f"WHERE = {where!r}\n{FORKS}"
    env = {**os.environ, "BEMA_STATE_DIR": str(tmp_path / "state")}
    process = subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert b"ready" in process.stderr.readline()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

    def states() -> list[str]:
        pids = children.read_text().split()
        return [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in pids]

    async def story() -> None:
        await until(lambda: states() == ["Z"])  # it has ended, and nobody waited for it
        async with DistributedRuntime(FlockDiscovery(tmp_path / "state" / "run" / "d")) as runtime:
            view = await runtime.view("demo", "forks")
            assert [instance.pid for instance in view.instances()] == [process.pid]

    asyncio.run(story())
    process.terminate()
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, b"ended\n")


def a_program(tmp_path, *arguments, by=(), stderr=subprocess.PIPE, **env):
    return subprocess.Popen(
        [*by, sys.executable, "-c", PROGRAM, *arguments],
        env={**os.environ, "BEMA_STATE_DIR": str(tmp_path / "state"), **env},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_drains_and_the_exit_code_is_0(tmp_path, number):
    process = a_program(tmp_path)
    assert "demo.program is ready" in process.stderr.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, "shut\n"), err
    assert list((tmp_path / "state/run/d").glob("*.json")) == []
    assert list(socket_dir({"BEMA_STATE_DIR": str(tmp_path / "state")}).iterdir()) == []


def test_the_second_signal_ends_at_once(tmp_path):
    process = a_program(tmp_path)
    assert "ready" in process.stderr.readline()
    call = subprocess.Popen(
        [sys.executable, "-m", "bema", "call", "demo.program.hangs"],
        env={**os.environ, "BEMA_STATE_DIR": str(tmp_path / "state")},
        stderr=subprocess.PIPE,
    )
    record = next((tmp_path / "state/run/d").glob("*.json"))
    assert process.stdout.readline() == "called\n"
    process.send_signal(signal.SIGTERM)
    while json.loads(record.read_text()).get("state") != "draining":
        pass
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == -signal.SIGTERM
    assert call.wait(timeout=5) == 3
    for stream in (process.stdout, process.stderr, call.stderr):
        assert stream is not None
        stream.close()


HANGING = """
import asyncio, time
from bema import service, endpoint, on_shutdown

@service(name="hanging", namespace="demo")
class Hanging:
    @endpoint()
    def works(self):
        print("called", flush=True)
        time.sleep(60)

    @on_shutdown
    async def hook(self):
        await asyncio.Event().wait()

asyncio.run(Hanging.start())
"""


@pytest.mark.parametrize("called", [False, True], ids=["a hook", "a hook and a plain function"])
def test_what_holds_on_at_the_end_does_not_hold_the_process_beyond_its_grace(called, tmp_path):
    env = {**os.environ, "BEMA_STATE_DIR": str(tmp_path / "state"), "BEMA_LIMITS__DRAIN": "0.5"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", HANGING], env=env, **pipes)
    assert process.stdout is not None
    assert process.stderr is not None
    out, err_lines = process.stdout, process.stderr
    while "stop it" not in err_lines.readline():
        pass

    async def story():
        async with DistributedRuntime(FlockDiscovery(tmp_path / "state/run/d")) as runtime:
            client = await runtime.endpoint("demo.hanging.works").client()
            call = asyncio.ensure_future(client()) if called else None
            if called:
                assert await asyncio.to_thread(out.readline) == "called\n"
            process.send_signal(signal.SIGTERM)
            if call is not None:
                with pytest.raises(StreamCut):
                    await call

    asyncio.run(story())
    _, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert ("calls were cut" if called else "its own end was cut") in err


@pytest.mark.parametrize("terminal", ["none", "gone"])
def test_it_serves_without_a_terminal(tmp_path, terminal):
    reading, writing = os.pipe()
    os.close(reading)  # nobody reads it from the first line on
    process = a_program(tmp_path, by=("sh", "-c", 'exec "$0" "$@" 2>&-') if terminal == "none" else (), stderr=writing)
    os.close(writing)
    call = subprocess.Popen(
        [sys.executable, "-m", "bema", "call", "demo.program.hangs", "--wait", "20"],
        env={**os.environ, "BEMA_STATE_DIR": str(tmp_path / "state")},
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == "called\n"
    call.kill()
    call.communicate()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, "shut\n")


@pytest.mark.parametrize("how", ["slow", "stubborn"])
def test_a_signal_before_it_serves_ends_it_where_it_is(tmp_path, how):
    process = a_program(tmp_path, how)
    assert process.stdout.readline() == "in init\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_failing_step_ends_the_process_with_its_name(tmp_path):
    process = a_program(tmp_path, "broken")
    _, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "ValueError: broken" in err
    assert "demo.program: step 'async_init' of start() failed" in err


def test_a_state_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "state").touch()
    process = a_program(tmp_path)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert err.startswith("state_unwritable: ") and "Traceback" not in err


def test_a_class_without_endpoints_says_so_when_it_starts(caplog):
    @service(name="silent", namespace="demo")
    class Silent: ...

    async def story():
        async with Meeting() as meeting:
            running = asyncio.create_task(serve(Silent, meeting.serving))
            await until(lambda: "demo.silent has no endpoints" in caplog.text)
            meeting.serving.stop()
            await running

    asyncio.run(story())
