"""The launcher of processes with a real keeper, real runners and the real discovery folder."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

import bema
from bema.core.errors import Failed, Refused, Unavailable
from bema.core.instance import State
from bema.core.naming import new_instance_id
from bema.deploy.launch.keeper_client import KeeperClient
from bema.deploy.launch.launcher import Announced, Exited, Reported
from bema.deploy.launch.open_ports import socket_of
from bema.deploy.launch.process import RUNNER, ProcessLauncher
from bema.deploy.launch.workload import Workload, WorkloadEnvironment, WorkloadLimits
from bema.deploy.model.deployment import ScriptEntry
from bema.deploy.model.replica import Replica
from bema.runtime.discovery import flock
from bema.runtime.discovery.discovery import wait_for
from bema.runtime.discovery.flock import FlockDiscovery
from bema.runtime.discovery.memory import MemoryDiscovery
from tests.deploy.keeper.conftest import DUMMIES, Platform, alive, ask, platform, until
from tests.deploy.platform import eventually

__all__ = ["platform"]

ROOT = Path(bema.__file__).parents[1]
DEPLOYMENT = "5f0c2a44-7d0e-4f0e-9c55-7a6c3f1f1b11"

APP = """
import os
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": os.environ["HOME"].encode()})
"""
PROGRAM = """
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
HTTPServer(("0.0.0.0", int(os.environ["PORT"]) if WISH is None else WISH), BaseHTTPRequestHandler).serve_forever()
"""

MOODY = """
import time
from pathlib import Path
from bema import endpoint, readiness, service

@service(name="moody", namespace="demo")
class Moody:
    @endpoint()
    async def ask(self) -> str:
        return "fine"

    @readiness
    def is_well(self) -> bool:
        while Path("FOLDER/block").exists():
            time.sleep(0.01)
        return not Path("FOLDER/no").exists()
"""
QUICK = {"limits.health": 0.05, "limits.stalled": 0.2}

Story = Callable[["Stage"], Awaitable[None]]


class Stage:
    """A launcher on a keeper's link, and the scripts it starts."""

    def __init__(self, platform: Platform, start_limit: float) -> None:
        self.platform = platform
        self.start_limit = start_limit
        self.discovery = FlockDiscovery()

    async def connect(self) -> ProcessLauncher:
        self.platform.connect()
        ends = [self.platform._link.dup(), self.platform.descriptors.socket.dup()]
        keeper = await KeeperClient.open(*(end.detach() for end in ends))
        self.launcher = ProcessLauncher(keeper)
        self.launcher.meet(self.discovery)
        return self.launcher

    def given(self, code: str, kind: str = "app", name: str = "app", **changes: Any) -> Workload:
        script = self.platform.folder / f"script-{name}.py"
        script.write_text(code)
        given: dict[str, Any] = {
            "deployment": DEPLOYMENT,
            "name": "one",
            "version": "v1",
            "environment": WorkloadEnvironment(sys.executable, str(ROOT)),
            "script": str(script),
            "entry": ScriptEntry(kind, name),
            "limits": WorkloadLimits(start=self.start_limit),
        }
        return Workload(**{**given, **changes})

    async def start(self, workload: Workload) -> Replica:
        return await self.launcher.start(workload, new_instance_id())

    async def event(self) -> Any:
        return await asyncio.wait_for(self.launcher.next_event(), 20)

    async def moody(self) -> Any:
        """A service whose readiness is in two files: one says no, one blocks its loop."""
        code = MOODY.replace("FOLDER", str(self.platform.folder))
        replica = await self.start(self.given(code, "service", "Moody", settings=QUICK))
        assert isinstance(await self.event(), Announced)
        return replica

    def file(self, name: str) -> Path:
        return self.platform.folder / name

    async def shown(self) -> list[Any]:
        return list((await self.discovery.view()).instances())


def told(platform: Platform, story: Story, start_limit: float = 30.0) -> None:
    async def run() -> None:
        stage = Stage(platform, start_limit)
        await stage.connect()
        try:
            await story(stage)
        finally:
            await stage.launcher.close()
            await stage.discovery.close()

    platform.ready()
    asyncio.run(run())


@pytest.fixture(autouse=True)
def own_state(monkeypatch, tmp_path):
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path / "state"))


def get(address: str) -> str:
    path = address.removeprefix("unix:")
    with httpx2.Client(transport=httpx2.HTTPTransport(uds=path), trust_env=False) as http:
        return http.get("http://127.0.0.1/").text


def test_an_app_is_started_shown_drained_and_taken_away(platform):
    async def story(stage):
        running = await stage.start(stage.given(APP))
        assert (running.state, running.deployment) == (State.STARTING, DEPLOYMENT)
        assert await stage.shown() == []

        event = await stage.event()
        assert isinstance(event, Announced)
        assert set(event.announce["phases"]) == {"interpreter", "init", "import", "adapt", "startup"}
        [record] = await stage.shown()
        assert (record.id, record.deployment, record.state) == (running.instance, DEPLOYMENT, State.SERVING)
        [address] = record.addresses["http"]
        assert await asyncio.to_thread(get, address) == str(platform.state / "homes" / DEPLOYMENT / "home")

        await stage.launcher.stop(running.instance, 5.0, "test")
        end = await stage.event()
        assert (end.cause, end.code, end.message) == ("stopped", 0, "it ended with code 0")
        assert await stage.shown() == []
        assert list((platform.state / "run" / "d").glob("*.lock")) == []

    told(platform, story)


def test_a_deployment_that_is_forgotten_leaves_no_socket_of_an_earlier_keeper(platform):
    async def story(stage):
        left, other = socket_of(DEPLOYMENT, "v1", 0), socket_of("0" * 32, "v1", 0)
        left.parent.mkdir(parents=True, exist_ok=True)
        for path in (left, other):
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
        await stage.launcher.forget(DEPLOYMENT)
        assert (left.exists(), other.exists()) == (False, True)
        await stage.launcher.forget(DEPLOYMENT)

    told(platform, story)


@pytest.mark.parametrize("wish", [None, 0])
def test_a_program_is_found_wherever_it_listens(platform, wish):
    async def story(stage):
        await stage.start(stage.given(PROGRAM.replace("WISH", str(wish)), "main", ""))
        event = await stage.event()
        [record] = await stage.shown()
        [address] = record.addresses["http"]
        host, _, port = address.removeprefix("tcp:").rpartition(":")
        socket.create_connection((host, int(port)), 5).close()
        assert event.announce["kind"] == "main"
        [running] = await stage.launcher.poll()
        assert running.announce == event.announce

        await stage.launcher.stop(running.instance, 5.0, "test")
        assert (await stage.event()).cause == "stopped"

    told(platform, story)


def test_a_program_that_closes_all_descriptors_is_shown_all_the_same(platform):
    async def story(stage):
        closing = "import os\nos.closerange(3, 1024)\n" + PROGRAM.replace("WISH", "None")
        running = await stage.start(stage.given(closing, "main", ""))
        assert isinstance(await stage.event(), Announced)
        assert [record.id for record in await stage.shown()] == [running.instance]
        os.kill(running.pid, signal.SIGKILL)
        assert (await stage.event()).cause == "exited"
        assert await stage.shown() == []
        assert list((platform.state / "run" / "d").glob("*.lock")) == []

    told(platform, story)


CLOSING = """
import os, socket, time
from pathlib import Path
while True:
    with socket.create_server(("127.0.0.1", int(os.environ["PORT"]))):
        while not Path("FOLDER/close").exists():
            time.sleep(0.01)
    while Path("FOLDER/close").exists():
        time.sleep(0.01)
"""


def test_a_program_that_closes_its_listener_is_not_ready_until_it_listens_again(platform):
    async def story(stage):
        close = stage.platform.folder / "close"
        code = CLOSING.replace("FOLDER", str(stage.platform.folder))
        instance = (await stage.start(stage.given(code, "main", "program"))).instance
        announced = await stage.event()
        assert (announced.instance, announced.ready) == (instance, True)
        close.touch()
        assert await stage.event() == Reported(instance, ready=False, stalled=False)
        [shown] = (await stage.discovery.view()).instances()
        assert not shown.ready
        close.unlink()
        assert await stage.event() == Reported(instance, ready=True, stalled=False)
        await stage.launcher.stop(instance, 0, "test")
        assert isinstance(await stage.event(), Exited)

    told(platform, story)


def test_what_is_forgotten_leaves_no_socket_though_its_keeper_was_killed(platform):
    async def story(stage):
        left = socket_of(DEPLOYMENT, "v1", 0)
        left.parent.mkdir(parents=True, exist_ok=True)
        left.touch()
        await stage.launcher.forget(DEPLOYMENT)
        assert not left.exists()

    told(platform, story)


def test_a_crash_tells_why(platform):
    async def story(stage):
        await stage.start(stage.given("import os\nos.environ['NOT_THERE']\n"))
        end = await stage.event()
        assert (end.cause, end.code, end.message) == ("exited", 1, "it ended with code 1")
        assert "KeyError: 'NOT_THERE'" in [line["event"] for line in end.tail]

    told(platform, story)


@pytest.mark.parametrize("kind", ["main", "app"])
def test_what_never_listens_is_ended_at_the_start_limit(platform, kind):
    async def story(stage):
        await stage.start(stage.given("import time\nprint('waiting', flush=True)\ntime.sleep(600)\n", kind))
        end = await stage.event()
        how = "it did not listen within 1 s: it stood in script-app.py:3 time.sleep"
        assert (end.cause, end.message) == ("start_timeout", how)
        assert "waiting" in [line["event"] for line in end.tail]

    told(platform, story, start_limit=1.0)


def test_a_killed_instance_is_an_end_and_its_record_goes(platform):
    async def story(stage):
        running = await stage.start(stage.given(APP))
        await stage.event()
        os.kill(running.pid, signal.SIGKILL)
        end = await stage.event()
        assert (end.cause, end.signal, end.message) == ("exited", signal.SIGKILL, "it was ended by SIGKILL")
        assert await stage.shown() == []

    told(platform, story)


def test_the_next_orchestrator_takes_charge_of_what_runs(platform):
    async def story(stage):
        started = {}
        for number, (code, kind, name) in enumerate([(APP, "app", "app"), (PROGRAM.replace("WISH", "0"), "main", "")]):
            deployment = f"{number}{DEPLOYMENT[1:]}"
            started[deployment] = await stage.start(stage.given(code, kind, name, deployment=deployment))
        assert {type(await stage.event()) for _ in started} == {Announced}
        before = {record.id: record for record in await stage.shown()}
        await stage.launcher.close()
        old = platform.pid_of("orchestrator")
        os.kill(old, signal.SIGKILL)
        until(lambda: platform.pid_of("orchestrator") not in (None, old))

        await stage.connect()
        running = {r.deployment: r for r in await stage.launcher.poll()}
        assert {d: (r.pid, r.state) for d, r in running.items()} == {
            d: (r.pid, State.SERVING) for d, r in started.items()
        }
        assert {record.id: record for record in await stage.shown()} == before
        for each in running.values():
            await stage.launcher.stop(each.instance, 5.0, "test")
        assert {(await stage.event()).cause for _ in running} == {"stopped"}

    told(platform, story)


def test_what_cannot_be_started_fails_at_once(platform):
    async def story(stage):
        with pytest.raises(Failed, match="No such file or directory"):
            await stage.start(stage.given(APP, environment=WorkloadEnvironment("/no/such/python", str(ROOT))))
        assert await stage.launcher.poll() == []

    told(platform, story)


def test_while_the_platform_stops_nothing_is_started_and_nobody_is_blamed(platform):
    async def story(stage):
        deaf = stage.file("deaf")
        ignores = "import pathlib, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        stubborn = f"{ignores}pathlib.Path({str(deaf)!r}).touch()\ntime.sleep(600)\n"
        running = await stage.start(stage.given(stubborn, "main"))
        until(deaf.exists)  # one that is stopped before it ignores anything ends, and the platform with it
        platform.signal()
        assert platform.process.stderr.readline().startswith("bema: draining")
        with pytest.raises(Unavailable, match="stopping"):
            await stage.start(stage.given(APP))
        platform.signal()
        until(lambda: not alive(running.pid))

    told(platform, story)


def test_the_end_is_told_once(platform):
    async def story(stage):
        await stage.start(stage.given("raise SystemExit(3)", "main"))
        assert isinstance(await stage.event(), Exited)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stage.launcher.next_event(), 0.2)
        assert platform is stage.platform

    told(platform, story)


def test_what_an_instance_says_of_itself_is_shown_until_it_says_otherwise(platform):
    async def story(stage):
        number = (await stage.moody()).instance
        [record] = await stage.shown()
        assert (record.routable(), [each.name for each in record.endpoints]) == (True, ["ask"])
        stage.file("no").touch()
        assert await stage.event() == Reported(number, ready=False, stalled=False)
        [record] = await stage.shown()
        assert (record.ready, record.state) == (False, State.SERVING)
        stage.file("no").unlink()
        assert await stage.event() == Reported(number, ready=True, stalled=False)
        assert [each.routable() for each in await stage.shown()] == [True]

    told(platform, story)


def test_a_loop_that_stands_still_is_marked_and_the_mark_outlives_the_orchestrator(platform):
    async def story(stage):
        number = (await stage.moody()).instance
        stage.file("block").touch()
        assert await stage.event() == Reported(number, ready=True, stalled=True)
        assert [each.stalled for each in await stage.shown()] == [True]
        await stage.launcher.close()
        old = platform.pid_of("orchestrator")
        os.kill(old, signal.SIGKILL)
        until(lambda: platform.pid_of("orchestrator") not in (None, old))

        await stage.connect()
        [running] = await stage.launcher.poll()
        assert (running.stalled, [each.stalled for each in await stage.shown()]) == (True, [True])
        stage.file("block").unlink()
        while (said := await stage.event()).stalled:
            assert said.stands  # where it stands is found out meanwhile
        assert said == Reported(number, ready=True, stalled=False)
        assert [each.routable() for each in await stage.shown()] == [True]

    told(platform, story)


def test_a_status_that_cannot_be_read_is_skipped_and_the_next_is_heard(platform, caplog):
    async def story(stage):
        layer = stage.file("layer")
        (layer / RUNNER).parent.mkdir(parents=True)
        shutil.copy(DUMMIES / "instance.py", layer / RUNNER)
        environment = WorkloadEnvironment(sys.executable, str(layer))
        running = await stage.start(stage.given("", environment=environment, env={"MODE": "mad"}))
        assert isinstance(await stage.event(), Announced)
        hearing = asyncio.create_task(stage.event())
        await asyncio.to_thread(ask, running.listen.removeprefix("unix:"))
        await eventually(lambda: "cannot be read" in caplog.text)
        await asyncio.to_thread(ask, running.listen.removeprefix("unix:"))
        assert await hearing == Reported(running.instance, ready=False, stalled=False)
        assert [each.ready for each in await stage.shown()] == [False]

    told(platform, story)
    assert [record.message.partition(": ")[2] for record in caplog.records if "status" in record.message] == [
        "its status cannot be read: Expected `bool`, got `str` - at `$.ready`; it is skipped"
    ]


def test_an_instance_that_drains_unasked_takes_nothing_new(platform):
    async def story(stage):
        await stage.moody()
        [running] = await stage.launcher.poll()
        os.kill(running.pid, signal.SIGTERM)
        assert await stage.event() == Reported(running.instance, ready=False, stalled=False)
        assert (await stage.event()).cause == "exited"

    told(platform, story)


def test_a_record_that_cannot_be_written_is_written_later(platform, monkeypatch):
    async def story(stage):
        await stage.moody()
        full = [Refused("the disk is full", code="state_unwritable")]
        written = flock.write_record

        def write(directory: Path, record: Any) -> None:
            if full:
                raise full.pop()
            written(directory, record)

        monkeypatch.setattr(flock, "KEEP", 0.01)
        monkeypatch.setattr(flock, "write_record", write)
        stage.file("no").touch()
        assert isinstance(await stage.event(), Reported)
        view = await stage.discovery.view()
        await asyncio.wait_for(wait_for(view, lambda shown: [i.ready for i in shown] == [False]), 10)

    told(platform, story)


def test_where_the_discovery_holds_its_leases_itself_an_instance_is_shown_once_and_taken_away(platform):
    async def story(stage):
        discovery = MemoryDiscovery()
        stage.launcher.meet(discovery)
        view = await discovery.view()
        replica = await stage.moody()
        assert [(i.id, i.fence, i.pid) for i in view.instances()] == [(replica.instance, 1, replica.pid)]
        assert await stage.shown() == []
        assert list((platform.state / "homes").rglob("*.lock")) == []  # where it would look by itself
        await stage.launcher.stop(replica.instance, 5.0, "test")
        assert [i.state for i in view.instances()] == [State.DRAINING]
        while not isinstance(await stage.event(), Exited):
            pass
        assert view.instances() == ()

    told(platform, story)


def is_free(lock: Path) -> bool:
    with lock.open() as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.mark.parametrize("kind", ["app", "main"])
def test_the_lease_is_the_instances_own_and_ends_though_nobody_looks(platform, kind):
    async def story(stage):
        code = APP if kind == "app" else PROGRAM.replace("WISH", "None")
        replica = await stage.start(stage.given(code, kind))
        assert isinstance(await stage.event(), Announced)
        [lock] = (platform.state / "run" / "d").glob("*.lock")
        assert not is_free(lock)
        os.kill(replica.pid, signal.SIGKILL)
        await asyncio.to_thread(until, lambda: is_free(lock))

    told(platform, story)


def test_a_start_that_is_refused_leaves_no_reservation(platform):
    async def story(stage):
        workload = stage.given(APP, environment=WorkloadEnvironment("/no/such/python", str(ROOT)))
        with pytest.raises(Failed):
            await stage.start(workload)
        assert list((platform.state / "run" / "d").glob("*.lock")) == []

    told(platform, story)


def test_what_ended_while_there_was_no_orchestrator_is_taken_away_by_the_next(platform):
    async def story(stage):
        replica = await stage.start(stage.given(PROGRAM.replace("WISH", "None"), "main", ""))
        assert isinstance(await stage.event(), Announced)
        await stage.launcher.close()
        old = platform.pid_of("orchestrator")
        os.kill(old, signal.SIGSTOP)
        os.kill(replica.pid, signal.SIGKILL)
        until(lambda: not alive(replica.pid))
        os.kill(old, signal.SIGKILL)
        until(lambda: platform.pid_of("orchestrator") not in (None, old))
        await stage.connect()
        assert await stage.launcher.poll() == []
        assert (await stage.event()).instance == replica.instance
        assert [path.name for path in (platform.state / "run" / "d").iterdir()] == [".fence"]

    told(platform, story)


CHECKED = """
import asyncio
from bema import DistributedRuntime, entrypoint, service
from pathlib import Path

@service(name="checked", namespace="demo")
class Checked:
    def __init__(self, runtime: DistributedRuntime) -> None:
        self.runtime = runtime

    @entrypoint
    async def run(self) -> None:
        endpoint = self.runtime.endpoint("demo.checked.ask")
        await endpoint.serve_endpoint(self.ask, health_check_payload={})

    async def ask(self) -> str:
        while not Path("FOLDER/well").exists():
            await asyncio.sleep(0.01)
        return "fine"
"""


def test_an_endpoint_that_is_checked_is_shown_as_not_ready_before_its_first_answer(platform):
    async def story(stage):
        code = CHECKED.replace("FOLDER", str(platform.folder))
        start = await stage.start(stage.given(code, "service", "Checked"))
        event = await stage.event()
        assert (type(event), event.ready) == (Announced, False)
        assert [(each.state, each.ready) for each in await stage.shown()] == [(State.SERVING, False)]
        assert [running.ready for running in await stage.launcher.poll()] == [False]
        stage.file("well").touch()
        assert await stage.event() == Reported(start.instance, ready=True, stalled=False)
        assert [each.routable() for each in await stage.shown()] == [True]

    told(platform, story)
