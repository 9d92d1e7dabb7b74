"""The examples of the hybrid registration design, with the import root `aiperf` replaced by `bema.compat.aiperf`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from bema.compat.aiperf.common.factories import BaseEndpoint, BaseTransport, EndpointFactory, TransportFactory
from bema.compat.aiperf.endpoints import ChatEndpoint
from bema.compat.aiperf.transports import Http2Transport
from tests.parts.conftest import PACKAGES, Machine

STARTUP = """
import json
from bema.compat.aiperf.common.factories import EndpointFactory, TransportFactory

# Step 1: Import modules (this triggers @register decorators)
import bema.compat.aiperf.endpoints
import bema.compat.aiperf.transports

# Step 2: Load plugins from entry points
EndpointFactory.discover_plugins("aiperf.endpoints")
TransportFactory.discover_plugins("aiperf.transports")
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")


def say(machine: Machine, code: str) -> object:
    done = machine.run(code, prelude=STARTUP)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_at_application_startup(machine: Machine) -> None:
    question = 'print(json.dumps(EndpointFactory.list_implementations("chat")))'
    assert say(machine, question) == [{"name": "ChatEndpoint", "is_plugin": False, "is_selected": True}]
    machine.install(machine.copy(PACKAGES / "nvidia-optimized-endpoints"))
    assert say(machine, question) == [
        {"name": "OptimizedChatEndpoint", "is_plugin": True, "is_selected": True},
        {"name": "ChatEndpoint", "is_plugin": False, "is_selected": False},
    ]


def test_the_complete_flow(machine: Machine) -> None:
    flow = """
        import asyncio
        from types import SimpleNamespace as Info
        info, request = Info(url="x"), Info(turns=[{"content": ["hi"]}])

        # Gets OptimizedChatEndpoint by default (plugin, is_plugin=True)
        endpoint = EndpointFactory.create_instance("chat", model_endpoint=info)
        optimized = asyncio.run(endpoint.format_payload(request))

        # User can still override if needed
        from bema.compat.aiperf.endpoints import ChatEndpoint
        EndpointFactory.use_implementation("chat", ChatEndpoint)
        again = EndpointFactory.create_instance("chat", model_endpoint=info)
        assert again.model_endpoint is info
        print(json.dumps([optimized, asyncio.run(again.format_payload(request)), type(again).__name__]))
        """
    machine.install(machine.copy(PACKAGES / "nvidia-optimized-endpoints"))
    assert say(machine, flow) == [{"messages": ["hi"], "optimized": True}, {"messages": ["hi"]}, "ChatEndpoint"]


def test_everything_the_startup_comment_names_is_registered() -> None:
    assert EndpointFactory.names() == ["chat", "completions", "embeddings"]
    assert TransportFactory.names() == ["grpc", "http", "http2", "in_engine"]


def test_one_decorator_instant_registration() -> None:
    @EndpointFactory.register("mine")
    class MineEndpoint(BaseEndpoint):
        pass

    try:
        assert EndpointFactory.list_implementations("mine") == [
            {"name": "MineEndpoint", "is_plugin": False, "is_selected": True}
        ]
        request = SimpleNamespace(turns=[{"content": "x"}])
        assert asyncio.run(EndpointFactory.create_instance("mine").format_payload(request)) == {"content": "x"}
    finally:
        EndpointFactory.unregister("mine", MineEndpoint)


@pytest.mark.parametrize(("name", "key"), [("chat", "messages"), ("completions", "prompt"), ("embeddings", "input")])
def test_each_endpoint_writes_its_own_payload(name: str, key: str) -> None:
    request = SimpleNamespace(turns=[{"content": "hello"}])
    assert asyncio.run(EndpointFactory.create_instance(name).format_payload(request)) == {key: "hello"}


@pytest.mark.parametrize(
    ("name", "address", "url"),
    [
        ("http", "model:8000/v1", "http://model:8000/v1"),
        ("http2", "https://model", "https://model:443"),
        ("grpc", "[::1]", "grpc://[::1]:50051"),
        ("in_engine", "anything", "memory:"),
    ],
)
def test_each_transport_knows_what_it_dials(name: str, address: str, url: str) -> None:
    assert TransportFactory.create_instance(name).build_url(address) == url


def test_the_classes_stay_classes() -> None:
    assert issubclass(ChatEndpoint, BaseEndpoint) and issubclass(Http2Transport, BaseTransport)
