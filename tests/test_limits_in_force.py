"""What `bema config show` prints is in force: every row of the table is set and changes what happens.

Each row has a probe: it does what the row bounds, made by the entry that a process has, and says what became of it. The
probe runs with the row set by its variable and again without, and must say something else.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import json
import os
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from bema import liveness, service
from bema.core import settings
from bema.core.access import LOCAL_ADMIN
from bema.core.call import Call
from bema.core.errors import BemaError
from bema.core.instance import EndpointInfo, Instance
from bema.core.limits import LIMITS
from bema.core.naming import new_call_id
from bema.deploy.build.environments import Made, MemoryEnvironments, Wanted
from bema.deploy.build.pythons import Python
from bema.deploy.build.uv import Uv
from bema.deploy.keeper.lines import Lines
from bema.deploy.keeper.logs import Bounds, Log
from bema.deploy.launch.isolation import InstanceBounds, wanted
from bema.deploy.launch.launcher import MemoryLauncher, hangs
from bema.deploy.launch.sandbox import Home
from bema.deploy.model.deployment import CreateRequest
from bema.deploy.model.isolation import STANDARD, Isolation
from bema.deploy.model.restarts import Attempt, Verdict, ended, verdict
from bema.deploy.orchestrator.__main__ import parts_of
from bema.deploy.orchestrator.service import Orchestrator
from bema.deploy.ports import PublicListener
from bema.deploy.sources.addresses import Networks
from bema.deploy.sources.fetch import Fetcher
from bema.deploy.sources.source import SourceFactory
from bema.deploy.sources.url import UrlSource
from bema.gateway.server import Gateway
from bema.jobs.calls import CallRecord, DurableState
from bema.jobs.engine import JobsEngine, JobsFactory
from bema.jobs.journal import JournalEntry
from bema.jobs.runner import Runner
from bema.jobs.session import WorkerSession
from bema.jobs.worker import DurableEndpoint
from bema.packages.nodes import Source
from bema.packages.reader import examine_text
from bema.runtime.discovery import records
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.distributed import DistributedRuntime
from bema.runtime.process.host import LaunchOptions
from bema.runtime.rpc import signatures
from bema.runtime.rpc.connection import Connection
from bema.sdk.boot import Boot
from bema.sdk.health import Health
from bema.sdk.spec import spec_of
from bema.state.engine import Mutation, StateEngine, StateFactory
from bema.system import hand_over
from bema.wire.module.handshake import Init, encode
from bema.wire.rpc import frames
from tests.deploy.platform import MemoryLayers, until
from tests.deploy.platform import script as request_of
from tests.gateway.gate import OK, Gate, gate, read_request, request, says_ok
from tests.servers.web import Seen, web

Outcome = Any
Story = Callable[[Path], Awaitable[Outcome]]


class Probe(NamedTuple):
    given: int | float
    story: Story
    with_it: Outcome
    without: Outcome


PROBES: dict[str, Probe] = {}


def probe(given: float, with_it: Outcome, without: Outcome) -> Callable[[Story], Story]:
    """The row that the story is named after, set to `given`."""

    def mark(story: Story) -> Story:
        PROBES[story.__name__] = Probe(given, story, with_it, without)
        return story

    return mark


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_that_is_set_is_in_force_where_it_is_kept(name, monkeypatch, tmp_path):
    assert name in PROBES, f"{name} has no probe: nothing shows that setting it does anything"
    given, story, with_it, without = PROBES[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path / "state"))
    for kind in ("LAUNCHER", "STATE"):
        monkeypatch.setenv(f"BEMA_{kind}", "memory")
    assert asyncio.run(said(story, tmp_path / "without")) == without
    monkeypatch.setenv(LIMITS[name].variable, str(given))
    settings.place(None)
    assert settings.current().all()[f"limits.{name}"] == settings.Value(given, f"variable {LIMITS[name].variable}")
    assert asyncio.run(said(story, tmp_path / "with")) == with_it


async def said(story: Story, folder: Path) -> Outcome:
    folder.mkdir()
    async with asyncio.timeout(20):
        return await story(folder)


async def within(seconds: float, awaitable: Awaitable[Any]) -> Any:
    """What became of it in that time: its result, the code of its error, or "waits"."""
    try:
        return await asyncio.wait_for(awaitable, seconds)
    except BemaError as error:
        return error.code
    except TimeoutError:
        return "waits"


# calls: two runtimes as programs make them, which meet in memory


@contextlib.asynccontextmanager
async def called(*handlers: Callable[..., Any]) -> AsyncIterator[tuple[DistributedRuntime, DistributedRuntime]]:
    """Who serves `handlers` as endpoints of `t.t`, and who calls them."""
    meeting, options = MemoryDiscovery(), LaunchOptions(listen=f"memory:{uuid.uuid4().hex}")
    async with DistributedRuntime(meeting, options=options) as serving, DistributedRuntime(meeting) as calling:
        component = serving.namespace("t").component("t")
        tasks = [asyncio.ensure_future(component.endpoint(h.__name__).serve_endpoint(h)) for h in handlers]
        for handler in handlers:
            await calling.endpoint(f"t.t.{handler.__name__}").client()
        yield serving, calling
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def client(runtime: DistributedRuntime, name: str, **options: Any) -> Any:
    return runtime.endpoint(f"t.t.{name}").client(**options)


async def echo(text: str) -> str:
    return text


async def forever() -> None:
    await asyncio.Event().wait()


async def turns(count: int = 400) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Written(Connection):
    """A connection of which only what it writes is looked at."""

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop(), settings.current().limits)
        self.frames: list[int] = []
        self.transport = self  # type: ignore[assignment]

    def write(self, data: bytes) -> None:
        while data:
            (length,) = frames.LENGTH.unpack_from(data)
            self.frames.append(length)
            data = data[4 + length :]


@probe(4096, with_it=True, without=False)
async def rpc_frame(folder: Path) -> Outcome:
    line = Written()
    for ident in range(200):
        line.put(ident, frames.ERROR, bytes(100))
    line.flush()
    return max(line.frames) <= 4096


@probe(4096, with_it="too_large", without="x" * 5000)
async def rpc_message(folder: Path) -> Outcome:
    async with called(echo) as (_, calling):
        return await within(5, client(calling, "echo")("x" * 5000))


@probe(256, with_it="too_large", without="hello")
async def rpc_headers(folder: Path) -> Outcome:
    async with called(echo) as (_, calling):
        return await within(5, client(calling, "echo", metadata={"note": "x" * 300})("hello"))


async def sent_unread(size: int, streams: int) -> int:
    """How many items of a size are sent to who reads only the first of each stream."""
    sent = 0

    async def items() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield bytes(size)

    async with called(items) as (_, calling):
        read = [client(calling, "items")() for _ in range(streams)]
        for stream in read:
            await anext(stream)
        await turns()
        for stream in read:
            await stream.aclose()
    return sent


@probe(65_536, with_it=True, without=False)
async def rpc_stream_window(folder: Path) -> Outcome:
    return await sent_unread(16_000, 1) < 10


@probe(100, with_it=True, without=False)
async def rpc_stream_items(folder: Path) -> Outcome:
    return await sent_unread(1, 1) < 1000


@probe(65_536, with_it=True, without=False)
async def rpc_connection_window(folder: Path) -> Outcome:
    return await sent_unread(16_000, 20) < 100


@probe(2, with_it="overloaded", without="waits")
async def rpc_calls(folder: Path) -> Outcome:
    async with called(forever) as (_, calling):
        waiting = [asyncio.ensure_future(client(calling, "forever")()) for _ in range(2)]
        await turns()
        became = await within(2, client(calling, "forever")())
        for each in waiting:
            each.cancel()
        return became


@contextlib.asynccontextmanager
async def mute(folder: Path, *greeting: bytes) -> AsyncIterator[Instance]:
    """An instance that accepts, says at most its greeting, and then nothing."""

    held: list[asyncio.Task[Any] | None] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(asyncio.current_task())
        writer.writelines(greeting)
        while await reader.read(1000):
            pass
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_unix_server(hold, folder / "s")
    addresses: dict[str, tuple[str, ...]] = {"rpc": (f"unix:{folder}/s",)}
    yield Instance(id=1, namespace="t", component="t", endpoints=(EndpointInfo("ask"),), addresses=addresses)
    server.close()
    await asyncio.gather(*filter(None, held))


@probe(0.05, with_it="unavailable", without="waits")
async def rpc_connect(folder: Path) -> Outcome:
    async with mute(folder) as instance, DistributedRuntime(MemoryDiscovery()) as calling:
        return await within(2, calling.pool.connect(instance))


@probe(0.1, with_it=False, without=True)
async def rpc_heartbeat(folder: Path) -> Outcome:
    hello = frames.pack_hello(frames.Hello())
    async with mute(folder, hello) as instance, DistributedRuntime(MemoryDiscovery()) as calling:
        connection = await calling.pool.connect(instance)
        await asyncio.sleep(0.4)
        return connection.usable


# the life of a service


@probe(0.05, with_it=False, without="waits")
async def drain(folder: Path) -> Outcome:
    async with called(forever) as (serving, calling):
        running = asyncio.ensure_future(client(calling, "forever")())
        await turns()
        became = await within(2, serving.drain())
        running.cancel()
        return became


@probe(0.1, with_it=True, without=False)
async def stalled(folder: Path) -> Outcome:
    async with called(echo) as (serving, _):
        time.sleep(0.5)  # the loop stands still
        return serving.host.stalled


@service(name="patient", namespace="t")
class Patient:
    def __init__(self) -> None:
        self.asked = 0

    @liveness
    async def lives(self) -> bool:
        self.asked += 1
        await asyncio.sleep(0 if self.asked < 100 else 0.2)
        return True


async def watched(patient: Patient, seconds: float) -> None:
    async with DistributedRuntime(MemoryDiscovery()) as runtime:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(Health(patient, spec_of(Patient), runtime.host).watch(), seconds)


@probe(0.01, with_it=True, without=False)
async def health(folder: Path) -> Outcome:
    patient = Patient()
    await watched(patient, 0.4)
    return patient.asked > 1


@probe(0.02, with_it=False, without=True)
async def health_answer(folder: Path) -> Outcome:
    patient = Patient()
    patient.asked = 100  # from here on its answer takes long
    async with DistributedRuntime(MemoryDiscovery()) as runtime:
        return await Health(patient, spec_of(Patient), runtime.host).ask_alive()


@probe(0.02, with_it="state_unwritable", without="waits")
async def lease(folder: Path) -> Outcome:
    async with DistributedRuntime() as runtime:
        where: Path = runtime.discovery.directory  # type: ignore[attr-defined]
        records.prepare(where)
        with open(where / ".fence", "w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            return await within(2, runtime.discovery.register(Instance(id=1, namespace="t", component="t")))


@contextlib.contextmanager
def launched(line: bytes) -> Iterator[None]:
    """This process has a launcher that has said `line`, and says no more."""
    outside, inside = socket.socketpair()
    os.environ["BEMA_CHANNEL"] = str(inside.detach())
    outside.sendall(line)
    yield
    outside.close()


async def greeted() -> Outcome:
    life = Boot("patient")
    async with life.opened:
        return (await life.handshake()).module_id


@probe(0.05, with_it="protocol", without="waits")
async def handshake(folder: Path) -> Outcome:
    with launched(b""):
        return await within(2, greeted())


@probe(16_384, with_it="protocol", without="m")
async def channel_line(folder: Path) -> Outcome:
    with launched(encode(Init(orchestrator_api="", module_id="m", env={"LONG": "x" * 20_000}, listen=""))):
        return await within(2, greeted())


# deploying: the orchestrator with the parts that it takes by its settings


class Slow:
    """Environments, or a launcher's start, that take for ever; `most` is how many went on at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def make(self, wanted: Wanted, told: Any = None) -> Made:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.Event().wait()
        raise AssertionError


@contextlib.asynccontextmanager
async def orchestrator(held: settings.Settings | None = None, **changes: Any) -> AsyncIterator[Orchestrator]:
    parts = await parts_of(held or settings.current(), MemoryDiscovery())
    made = {"environments": MemoryEnvironments(), **changes}
    found = Orchestrator()
    await found.begin(dataclasses.replace(parts, layers=MemoryLayers(), **made))
    try:
        yield found
    finally:
        await found.end()


def needy(name: str) -> Any:
    return request_of(name, '# /// script\n# dependencies = ["six"]\n# ///\napp = 1\n')


@probe(20, with_it="script_too_large", without="hello")
async def script(folder: Path) -> Outcome:
    async with orchestrator() as found:
        became = await within(10, found.create(request_of("hello", "app = 1\n" + "#" * 30), LOCAL_ADMIN))
        return became if isinstance(became, str) else became.name


async def tree(folder: Path) -> Outcome:
    """What becomes of a source with two files of a few kilobytes."""
    said = {"files": {"main.py": "", "data.txt": "x" * 4000}}
    source = SourceFactory.choose("files").of(said, settings.current().limits)
    became = await within(10, source.fetch())
    return became if isinstance(became, str) else became.bundle.entry


@probe(1, with_it="source_too_large", without="main.py")
async def source_files(folder: Path) -> Outcome:
    return await tree(folder)


@probe(1024, with_it="source_too_large", without="main.py")
async def source_bytes(folder: Path) -> Outcome:
    return await tree(folder)


@probe(0.2, with_it="source_unreachable", without="waits")
async def source_time(folder: Path) -> Outcome:
    async def answer(seen: Seen) -> bytes:
        await asyncio.Event().wait()
        return b""

    limits = settings.current().limits
    async with web(answer) as server:
        fetcher = Fetcher(limits, Networks("127.0.0.1/32"))
        return await within(4, UrlSource(server.url, fetcher, limits).fetch())


@probe(1024, with_it="pep723_malformed", without="hello")
async def script_block(folder: Path) -> Outcome:
    block = "# /// script\n" + "#\n" * 600 + "# ///\n"
    async with orchestrator() as found:
        became = await within(10, found.create(request_of("hello", block), LOCAL_ADMIN))
        return became if isinstance(became, str) else became.name


@probe(128 * 1024 * 1024, with_it="syntax_error", without="hello")
async def script_memory(folder: Path) -> Outcome:
    held = settings.current()
    # a machine that is busy gives half a second of it in many: not the time is asked for here
    async with orchestrator(held.but(held.limits.but(script_time=60.0))) as found:
        became = await within(120, found.create(request_of("hello", f"x = [{'1,' * 150_000}]\n"), LOCAL_ADMIN))
        return became if isinstance(became, str) else became.name


@probe(1, with_it="syntax_error", without="waits")
async def script_time(folder: Path) -> Outcome:
    busy = folder / "python"
    busy.write_text("#!/bin/sh\nwhile :; do :; done\n")
    busy.chmod(0o755)

    class BusyPythons:
        async def choose(self, requires: str) -> Python:
            return Python(str(busy), (3, 11, 0))

    async with orchestrator(pythons=BusyPythons()) as found:
        return await within(4.5, found.create(request_of(), LOCAL_ADMIN))


@probe(0.2, with_it="start_failed", without="starting")
async def start(folder: Path) -> Outcome:
    launcher = MemoryLauncher()
    launcher.outcomes["hello"] = hangs
    async with orchestrator(launcher=launcher) as found:
        info = await found.create(request_of(), LOCAL_ADMIN)
        await until(found, info.id, "starting")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(until(found, info.id, "start_failed"), 1)
        return (await found.read(info.id, LOCAL_ADMIN)).state


@probe(0.2, with_it="build_failed", without="waits")
async def build(folder: Path) -> Outcome:
    slow = folder / "uv"
    slow.write_text("#!/bin/sh\nsleep 5\n")
    slow.chmod(0o755)
    parts = await parts_of(settings.current(), MemoryDiscovery())
    parts.environments._uv = Uv(str(slow))  # type: ignore[attr-defined]
    wanted = Wanted(b'# /// script\n# dependencies = ["six"]\n# ///\n', ("six",), await parts.pythons.choose(""))
    return await within(3, parts.environments.make(wanted))


@probe(1024**3, with_it=str(1024**2), without=str(2 * 1024**2))
async def lock_memory(folder: Path) -> Outcome:
    """What bounds a process that locks, as it says itself: in KiB."""
    telling = folder / "uv"
    telling.write_text(f"#!/bin/sh\nulimit -d > {folder}/told\nexit 1\n")
    telling.chmod(0o755)
    parts = await parts_of(settings.current(), MemoryDiscovery())
    parts.environments._uv = Uv(str(telling))  # type: ignore[attr-defined]
    wanted = Wanted(b'# /// script\n# dependencies = ["six"]\n# ///\n', ("six",), await parts.pythons.choose(""))
    await within(10, parts.environments.make(wanted))
    return (folder / "told").read_text().strip()


@probe(0.5, with_it=0.5, without=10.0)
async def stop(folder: Path) -> Outcome:
    launcher = MemoryLauncher()
    async with orchestrator(launcher=launcher) as found:
        info = await found.create(request_of(), LOCAL_ADMIN)
        await until(found, info.id, "ready")
        await found.delete(info.id, LOCAL_ADMIN)
        while not launcher.stopped:
            await asyncio.sleep(0.01)
        return launcher.stopped[0][1]


@probe(1, with_it=1, without=2)
async def builds(folder: Path) -> Outcome:
    slow = Slow()
    async with orchestrator(environments=slow) as found:
        for name in ("one", "two", "three"):
            await found.create(needy(name), LOCAL_ADMIN)
        await asyncio.sleep(0.3)
        return slow.most


class SlowLauncher(MemoryLauncher):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0

    async def start(self, workload: Any, instance: int) -> Any:
        self.now += 1
        await asyncio.Event().wait()


@probe(1, with_it=1, without=3)
async def starts(folder: Path) -> Outcome:
    launcher = SlowLauncher()
    async with orchestrator(launcher=launcher) as found:
        for name in ("one", "two", "three"):
            await found.create(request_of(name), LOCAL_ADMIN)
        await asyncio.sleep(0.5)
        return launcher.now


async def judged(count: int, apart: float) -> Verdict:
    """What is made of an instance that served and died `count` times, that many seconds apart."""
    policy = (await parts_of(settings.current(), MemoryDiscovery())).policy
    history: tuple[Attempt, ...] = ()
    for n in range(count):
        at = round(n * apart * 1_000_000)
        history = ended((*history, Attempt(instance=n, at=at, ready=at + 1)), n, at + 2, policy)
    return verdict(history, policy)[0]


@probe(2, with_it=Verdict.LOOPING, without=Verdict.START)
async def restarts(folder: Path) -> Outcome:
    return await judged(3, 1)


@probe(100, with_it=Verdict.LOOPING, without=Verdict.START)
async def restart_window(folder: Path) -> Outcome:
    return await judged(6, 10)


# the keeper, with what `bema up` hands over


def kept() -> Bounds:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        listener = PublicListener(bound, "http://127.0.0.1:1")
        config = hand_over(
            settings.current(), (), state=Path("s"), lock=3, token=Path("t"), data=listener, control=listener
        )
    return Bounds(**json.loads(json.dumps(config))["log"])


def rotated(folder: Path, lines: int) -> list[Path]:
    log = Log(folder / "log", kept())
    for _ in range(lines):
        log.note("x" * 1000)
    log.close()
    return [*folder.glob("log*")]


# instances: a process that enters the sandbox which its launcher wants


async def contained(folder: Path, code: str) -> str:
    """What a script says that runs below the limits in force."""
    home, bounds = Home(folder / "own"), InstanceBounds.of(settings.current().limits)
    home.prepare()
    given = wanted(Isolation(kind=STANDARD), home, [], bounds)
    enter = f"import json, sys\nsys.path[:0] = {sys.path!r}\nfrom bema.runner import sandbox\n"
    program = f"{enter}sandbox.enter(json.loads(sys.argv[1]))\ntry:\n    {code}\n    print('had')\nexcept Exception as e:\n    print(type(e).__name__)"
    argv = (sys.executable, "-c", program, json.dumps(given))
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, cwd=home.home)
    said, _ = await process.communicate()
    return said.decode().strip()


@probe(128 * 1024 * 1024, with_it="MemoryError", without="had")
async def instance_memory(folder: Path) -> Outcome:
    return await contained(folder, "bytearray(512 << 20)")


@probe(16, with_it="had", without="AssertionError")
async def instance_processes(folder: Path) -> Outcome:
    more = "resource.getrlimit(resource.RLIMIT_NPROC)[1] - int(open('/proc/loadavg').read().split()[3].split('/')[1])"
    return await contained(folder, f"import resource; assert {more} < 2000")


@probe(64, with_it="OSError", without="had")
async def instance_files(folder: Path) -> Outcome:
    return await contained(folder, "held = [open('/dev/null') for _ in range(100)]")


@probe(1024 * 1024, with_it="OSError", without="had")
async def instance_disk(folder: Path) -> Outcome:
    return await contained(folder, "open('large', 'wb').write(bytes(2 << 20))")


@probe(64, with_it=True, without=False)
async def log_line(folder: Path) -> Outcome:
    lines = Lines(kept().line)
    return any(cut.left_out for cut in lines.feed(b"x" * 100 + b"\n"))


@probe(4096, with_it=True, without=False)
async def log_file(folder: Path) -> Outcome:
    return len(rotated(folder, 10)) > 1


@probe(1, with_it=2, without=4)
async def log_files(folder: Path) -> Outcome:
    os.environ["BEMA_LIMITS__LOG_FILE"] = "4096"
    settings.place(None)
    try:
        return len(rotated(folder, 40))
    finally:
        del os.environ["BEMA_LIMITS__LOG_FILE"]


# the gateway


def open_gate(**options: Any) -> contextlib.AbstractAsyncContextManager[Gate]:
    return gate(**options, **msgspec.structs.asdict(settings.current().limits))


async def asked(raw: bytes) -> int:
    async with open_gate() as g:
        path = await g.serve(says_ok)
        return (await g.ask(raw.replace(b"PATH", path.encode()))).status


@probe(256, with_it=431, without=200)
async def http_head(folder: Path) -> Outcome:
    return await asked(request("PATH/", f"X-Long: {'x' * 300}"))


@probe(3, with_it=431, without=200)
async def http_headers(folder: Path) -> Outcome:
    return await asked(request("PATH/", "A: 1", "B: 2", "C: 3"))


@probe(3, with_it=502, without=200)
async def http_answer_headers(folder: Path) -> Outcome:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK.replace(b"\r\n\r\n", b"\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n"))

    async with open_gate() as g:
        return (await g.get(await g.serve(answers))).status


@probe(10, with_it=(413, 413), without=(200, 422))
async def http_body(folder: Path) -> Outcome:
    return await asked(request("PATH/", method="POST", body=b"x" * 20)), await asked_of_the_api(folder)


async def asked_of_the_api(folder: Path) -> int:
    """The status of a body of 20 bytes that is no script, of the control listener as the gateway makes it."""
    (folder / "token").write_text("secret")
    told = {"token_file": folder / "token", "gateway_url": "http://g", "api_url": "http://a"}
    async with DistributedRuntime(MemoryDiscovery()) as runtime:
        gateway = Gateway(runtime, Orchestrator, told)
        data, control = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        port = control.getsockname()[1]
        await gateway.listen(data, control)
        assert gateway.data is not None
        assert gateway.data.dispatcher.limits == settings.current().limits
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("/faas/python", "Authorization: Bearer secret", method="POST", body=b"[" + b" " * 19))
        status = int((await reader.readline()).split()[1])
        writer.close()
        await gateway.drain(0.1)
        return status


async def closes(sent: bytes, seconds: float) -> bool:
    async with open_gate() as g, await g.client() as c:
        path = await g.serve(says_ok)
        c.send(sent.replace(b"PATH", path.encode()))
        return await c.closed(within=seconds)


@probe(0.1, with_it=True, without=False)
async def http_head_time(folder: Path) -> Outcome:
    return await closes(b"GET PATH/ HTTP/1.1\r\n", 1.5)


@probe(0.1, with_it=True, without=False)
async def http_idle(folder: Path) -> Outcome:
    return await closes(request("PATH/"), 1.5)


@probe(0.1, with_it=True, without=False)
async def http_body_idle(folder: Path) -> Outcome:
    return await closes(request("PATH/", "Content-Length: 10", method="POST"), 1.5)


@probe(1, with_it=True, without=False)
async def http_connections(folder: Path) -> Outcome:
    async with open_gate() as g, await g.client(), await g.client() as second:
        return await second.closed(within=0.5)


async def connections_after(at_once: int, pause: float) -> int:
    """How many connections an instance has open after so many requests at once, and a pause."""
    opened = 0

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        try:
            await arrived.wait()
            await says_ok(reader, writer)
        finally:
            opened -= 1

    arrived = asyncio.Event()
    async with open_gate() as g:
        path = await g.serve(counted)
        asking = [asyncio.ensure_future(g.get(f"{path}/")) for _ in range(at_once)]
        while opened < at_once:
            await asyncio.sleep(0.01)
        arrived.set()
        await asyncio.gather(*asking)
        await asyncio.sleep(pause)
        return opened


@probe(1, with_it=1, without=3)
async def http_pool(folder: Path) -> Outcome:
    return await connections_after(3, 0.3)


@probe(0.1, with_it=0, without=1)
async def http_pool_idle(folder: Path) -> Outcome:
    return await connections_after(1, 2.0)


@probe(0.1, with_it=True, without=False)
async def http_connect(folder: Path) -> Outcome:
    """An instance whose backlog is full, so that connecting to it takes for ever."""
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    fillers = []
    for _ in range(3):
        filler = socket.socket()
        filler.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            filler.connect(full.getsockname())
        fillers.append(filler)
    async with open_gate() as g:
        deployment, _ = g.show(f"tcp:127.0.0.1:{full.getsockname()[1]}")
        became = await within(3, g.get(f"/gateway/{deployment}/"))
    for each in (full, *fillers):
        each.close()
    return became != "waits"


@probe(1, with_it=[503], without=[])
async def http_waiters(folder: Path) -> Outcome:
    async def never(deployment: str, patience: float) -> Any:
        await asyncio.Event().wait()

    async with open_gate(activate=never) as g:
        path = f"/gateway/{uuid.uuid4()}/"
        asking = [asyncio.ensure_future(g.get(path)) for _ in range(2)]
        done, waiting = await asyncio.wait(asking, timeout=0.5)
        for each in waiting:
            each.cancel()
        return [each.result().status for each in done]


# documents


def refused_by(text: str) -> list[str]:
    return [problem.rule for problem in examine_text(Source(text, "p.json", True)).problems]


@probe(10, with_it=["too-large"], without=False)
async def package_document(folder: Path) -> Outcome:
    found = refused_by('{"name": "a-long-name"}')
    return found if found == ["too-large"] else False


@probe(3, with_it=["too-many-nodes"], without=False)
async def package_nodes(folder: Path) -> Outcome:
    found = refused_by("[1, 2, 3, 4]")
    return found if found == ["too-many-nodes"] else False


@probe(2, with_it=["too-deep"], without=False)
async def package_depth(folder: Path) -> Outcome:
    found = refused_by("[[[[1]]]]")
    return found if found == ["too-deep"] else False


# state: an engine that is opened by its settings


@contextlib.asynccontextmanager
async def engine() -> AsyncIterator[StateEngine]:
    found = await StateFactory.choose().open(settings.current().of(StateFactory.group))
    try:
        yield found
    finally:
        await found.close()


async def given_env(env: dict[str, str]) -> Outcome:
    async with orchestrator() as found:
        became = await within(
            10, found.create(CreateRequest("hello", {"type": "inline", "code": "app = 1\n"}, env=env), LOCAL_ADMIN)
        )
        return became if isinstance(became, str) else became.name


@probe(5000, with_it="too_large", without="hello")
async def env(folder: Path) -> Outcome:
    return await given_env({f"V{n}": "x" * 100 for n in range(50)})


@probe(1000, with_it="too_large", without="hello")
async def env_variable(folder: Path) -> Outcome:
    return await given_env({"V": "x" * 1000})


@probe(64 * 1024, with_it="too_large", without="kept")
async def state_value(folder: Path) -> Outcome:
    async with engine() as found:
        return await applied(found.apply([Mutation("key", b"x" * 70_000)]))


@probe(1000, with_it="too_large", without="kept")
async def state_blob(folder: Path) -> Outcome:
    async with engine() as found:
        return await applied(found.put_blob(b"x" * 1001))


@probe(16, with_it="too_large", without="kept")
async def state_group(folder: Path) -> Outcome:
    async with engine() as found:
        return await applied(found.apply([Mutation(f"key{n}", b"") for n in range(17)]))


async def applied(work: Awaitable[Any]) -> str:
    became = await within(10, work)
    return became if became in ("too_large", "waits", "invalid") else "kept"


@contextlib.asynccontextmanager
async def calls() -> AsyncIterator[JobsEngine]:
    engine = await JobsFactory.lookup("memory").open(settings.current().of(JobsFactory.group), "t.t")
    yield engine
    await engine.close()


def call_at(instant: int) -> CallRecord:
    return CallRecord(id=new_call_id(instant), route="t.t.f", created=instant)


@probe(1024, with_it="too_large", without="kept")
async def jobs_payload(folder: Path) -> Outcome:
    async with calls() as engine:
        return await applied(engine.create(call_at(1), b"x" * 1025))


@probe(16, with_it="too_large", without="kept")
async def jobs_history(folder: Path) -> Outcome:
    async with calls() as engine:
        claimed = await engine.claim((await engine.create(call_at(1), b"")).id, "")
        entry = JournalEntry(order=17, place="17", kind="step")
        return await applied(engine.complete(claimed.id, claimed.fence, entry))


async def all_ended(engine: JobsEngine, instants: Sequence[int]) -> None:
    for instant in instants:
        claimed = await engine.claim((await engine.create(call_at(instant), b"")).id, "")
        await engine.end(claimed.id, claimed.fence, DurableState.DONE, b"", now=instant)


@probe(1, with_it="jobs_full", without="kept")
async def jobs_live(folder: Path) -> Outcome:
    async with calls() as engine:
        await engine.create(call_at(1), b"")
        try:
            await engine.create(call_at(2), b"")
        except BemaError as error:
            return error.code
        return "kept"


@probe(2, with_it=2, without=5)
async def jobs_kept(folder: Path) -> Outcome:
    async with calls() as engine:
        await all_ended(engine, range(5))
        await engine.sweep(5)
        return len(await engine.recent(10))


@probe(3, with_it=1, without=2)
async def jobs_kept_for(folder: Path) -> Outcome:
    async with calls() as engine:
        await all_ended(engine, (0, 4_000_000))
        await engine.sweep(5_000_000)
        return len(await engine.recent(10))


@probe(1, with_it=1, without=3)
async def jobs_running(folder: Path) -> Outcome:
    async with calls() as engine:
        runner, going, release = Runner(engine), set(), asyncio.Event()

        async def wait(call: Call) -> None:
            await call.step(hold, call.id)

        async def hold(id: str) -> None:
            going.add(id)
            await release.wait()

        spec = signatures.read(wait, "f", method=False)
        runner.endpoints["t.t.f"] = DurableEndpoint(spec, lambda call: wait(call))
        for instant in range(3):
            await runner.submit(call_at(instant), b"\x80")
        # all are queued: as many as may run begin in one turn
        runner.begin()
        await within(30, eventually(lambda: 0 < len(going) == runner.metadata()["running"]))
        release.set()
        await runner.close()
        return len(going)


@probe(0.3, with_it="over", without="held")
async def jobs_lease(folder: Path) -> Outcome:
    # as the service makes one for each worker that joins
    session = WorkerSession(1, "v1", ["t.t.f"], settings.current().limits.jobs_lease)
    return "over" if session.left() < 1 else "held"


async def eventually(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)
