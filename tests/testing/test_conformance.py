"""The suites: bema's own parts pass them, and a part that breaks a law is caught."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from mcp.server import MCPServer

from bema.core import settings
from bema.core.errors import NotFound
from bema.core.instance import Instance
from bema.core.limits import DEFAULTS
from bema.core.settings import PartSettings
from bema.deploy.build.environments import MemoryEnvironments, UvEnvironments, Wanted
from bema.deploy.build.pythons import own_python
from bema.deploy.build.uv import Uv
from bema.deploy.launch.launcher import Launcher, MemoryLauncher, crashes
from bema.deploy.launch.launchers import Launchers
from bema.jobs.ledger import Ledger, MemoryLedger, SqliteLedger
from bema.runtime.discovery.discovery import Lease
from bema.runtime.discovery.flock import FlockDiscovery
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.rpc.codec import MsgpackCodec
from bema.runtime.rpc.picker import PickerFactory
from bema.runtime.rpc.transports import TransportFactory
from bema.sdk.apps import ServerFactory
from bema.state.memory import MemoryEngine
from bema.state.sqlite import SqliteEngine
from bema.testing.conformance import Law, Violation, check, environments, frame, kinds, laws, server, transport
from bema.testing.conformance.launcher import LauncherTrial
from tests.deploy.platform import workload


@pytest.mark.parametrize("law", laws("discovery"), ids=str)
def test_memory_discovery(law: Law) -> None:
    law(MemoryDiscovery)


@pytest.mark.parametrize("law", laws("discovery", "shared"), ids=str)
def test_flock_discovery(law: Law, tmp_path: Path) -> None:
    law(lambda: FlockDiscovery(tmp_path / "d"))


@pytest.mark.parametrize("law", laws("state"), ids=str)
def test_memory_state(law: Law) -> None:
    law(MemoryEngine)


@pytest.mark.parametrize("law", laws("state", "durable", "exclusive"), ids=str)
def test_sqlite_state(law: Law, tmp_path: Path) -> None:
    law(lambda: SqliteEngine.at(tmp_path / "state.sqlite"))


def calls(engine: type[Ledger], folder: Path) -> Coroutine[Any, Any, Ledger]:
    return engine.open(PartSettings({}, DEFAULTS, folder), "t.t")


@pytest.mark.parametrize("law", laws("jobs"), ids=str)
def test_memory_jobs(law: Law, tmp_path: Path) -> None:
    law(lambda: calls(MemoryLedger, tmp_path))


@pytest.mark.parametrize("law", laws("jobs", "durable", "exclusive"), ids=str)
def test_sqlite_jobs(law: Law, tmp_path: Path) -> None:
    law(lambda: calls(SqliteLedger, tmp_path))


def memory_launcher() -> MemoryLauncher:
    launcher = MemoryLauncher()
    launcher.outcomes["crashing"] = crashes(3, "no")
    return launcher


def trial_of(part: Launcher, **more: Any) -> LauncherTrial:
    return LauncherTrial(part, lambda: workload("serving", **more), lambda: workload("crashing", **more))


@pytest.mark.parametrize("law", laws("launcher"), ids=str)
def test_memory_launcher(law: Law) -> None:
    law(lambda: trial_of(memory_launcher()))


@pytest.mark.parametrize("law", laws("launcher"), ids=str)
@pytest.mark.parametrize("name", ["", "other"])
def test_several_launchers_as_one(law: Law, name: str) -> None:
    async def opened(name: str) -> Launcher:
        return memory_launcher()

    law(lambda: trial_of(Launchers(opened, "own"), launcher=name))


@pytest.mark.parametrize("law", laws("codec"), ids=str)
def test_msgpack_codec(law: Law) -> None:
    law(MsgpackCodec)


@pytest.mark.parametrize("law", laws("picker", "spreading"), ids=str)
@pytest.mark.parametrize("name", ["round_robin", "random", "least_loaded", "power_of_two"])
def test_pickers(name: str, law: Law) -> None:
    law(PickerFactory.choose(name))


@pytest.mark.parametrize("law", laws("picker"), ids=str)
def test_direct_picker(law: Law) -> None:
    law(PickerFactory.choose("direct"))


@pytest.mark.parametrize("law", laws("transport"), ids=str)
@pytest.mark.parametrize("name", ["memory", "tcp", "unix"])
def test_transports(name: str, law: Law, tmp_path: Path) -> None:
    numbers = itertools.count()
    places = {
        "memory": lambda: uuid.uuid4().hex,
        "tcp": lambda: "127.0.0.1:0",
        "unix": lambda: f"{tmp_path}/{next(numbers)}",
    }
    law(
        lambda: transport.TransportTrial(
            TransportFactory.open(settings.current(), name), lambda: f"{name}:{places[name]()}"
        )
    )


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def wsgi_app(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    return [b"hello"]


APPS: dict[str, tuple[Callable[[], Any], str]] = {
    "asgi": (lambda: asgi_app, "/"),
    "wsgi": (lambda: wsgi_app, "/"),
    "mcp": (lambda: MCPServer("tools"), "/mcp"),
}


@pytest.mark.parametrize("law", laws("server"), ids=str)
@pytest.mark.parametrize("name", APPS)
def test_servers(name: str, law: Law) -> None:
    app, path = APPS[name]
    law(lambda: server.ServerTrial(ServerFactory.open(settings.current(), name), app, path))


def wanted(*dependencies: str) -> Wanted:
    listed = ", ".join(f'"{one}"' for one in dependencies)
    return Wanted(f"# /// script\n# dependencies = [{listed}]\n# ///\n".encode(), dependencies, own_python())


@pytest.mark.parametrize("law", laws("environments"), ids=str)
def test_memory_environments(law: Law) -> None:
    made = MemoryEnvironments()
    made.failures["six<1"] = "there is no such six"
    law(lambda: environments.EnvironmentsTrial(made, wanted("six"), wanted("six<1")))


@pytest.mark.parametrize("law", laws("environments"), ids=str)
def test_uv_environments(law: Law, tmp_path: Path) -> None:
    made = UvEnvironments(tmp_path, Uv(), 60)
    law(lambda: environments.EnvironmentsTrial(made, wanted("six"), wanted("six<1.10", "six>1.15")))


class ForgetfulDiscovery(MemoryDiscovery):
    """Breaks one law: every lease has the same fence."""

    async def register(self, instance: Instance) -> Lease:
        lease = await super().register(instance)
        lease.fence = 7
        return lease


def test_a_broken_law_is_named() -> None:
    violations = check("discovery", ForgetfulDiscovery)
    assert [str(v).partition(" (")[0] for v in violations] == [
        "discovery: What is shown is what was registered, but for the fence",
        "discovery: Each lease has a greater fence than the one before it",
    ]
    assert all(isinstance(violation.__cause__, AssertionError) for violation in violations)


def test_a_part_that_never_answers_is_a_violation_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(MemoryDiscovery):
        async def view(self, *_: Any) -> Any:
            await asyncio.Event().wait()

    monkeypatch.setattr(frame, "SECONDS", 0.05)
    with pytest.raises(Violation, match=r"no answer within 0.05 s"):
        laws("discovery")[0](Silent)


def test_every_law_has_a_sentence_and_every_kind_a_suite() -> None:
    for kind in kinds():
        found = laws(kind)
        assert found and all(law.says and law.kind == kind for law in found)
    with pytest.raises(NotFound, match="there is one for codec, discovery"):
        laws("codecs-of-nobody")
    with pytest.raises(NotFound, match="about eternal"):
        laws("state", "eternal")
