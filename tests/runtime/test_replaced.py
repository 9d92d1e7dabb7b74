"""Parts of the runtime, replaced: what asks for them by name or by none gets what was put in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bema.parts import UnknownImplementation
from bema.runtime.discovery.discovery import DiscoveryFactory, MemoryDiscovery
from bema.runtime.discovery.flock import FlockDiscovery
from bema.runtime.distributed import DistributedRuntime
from bema.runtime.rpc import transports
from bema.runtime.rpc.codec import CodecFactory, MsgpackCodec
from bema.runtime.rpc.transports import MemoryTransport, TransportFactory


class Shouting(MsgpackCodec):
    """Text arrives in capitals."""

    def decoder(self, declared: Any) -> Any:
        decode = super().decoder(declared)
        return lambda payload: decode(payload).upper()


async def greeting() -> str:
    async with DistributedRuntime(MemoryDiscovery()) as runtime:
        endpoint = runtime.endpoint("demo.worker.greet")
        serving = asyncio.create_task(endpoint.serve_endpoint(lambda: "hello"))
        client = await endpoint.client()
        answer: str = await client()
        runtime.stop()
        await serving
        return answer


@pytest.fixture(autouse=True)
def own_state(monkeypatch, tmp_path):
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))


def test_calls_speak_the_codec_in_use():
    assert asyncio.run(greeting()) == "hello"
    with CodecFactory.override("msgpack", Shouting):
        assert asyncio.run(greeting()) == "HELLO"
    assert asyncio.run(greeting()) == "hello"


def test_a_runtime_without_a_discovery_takes_the_one_in_use(monkeypatch):
    assert type(DistributedRuntime().discovery) is FlockDiscovery
    monkeypatch.setenv("BEMA_DISCOVERY", "memory")
    assert type(DistributedRuntime().discovery) is MemoryDiscovery
    given = FlockDiscovery()
    assert DistributedRuntime(given).discovery is given
    assert DiscoveryFactory.names() == ["flock", "memory"]


def test_a_new_transport_is_reached_by_the_name_of_its_addresses():
    async def story():
        assert not transports.reachable("pigeon:home", same_host=True)
        with pytest.raises(UnknownImplementation, match="nothing is named 'pigeon'; it has memory, tcp, unix"):
            await transports.listen("pigeon:home", lambda: pytest.fail("nobody came"))
        with TransportFactory.override("pigeon", MemoryTransport):
            listener = await transports.listen("pigeon:home", lambda: pytest.fail("nobody came"))
            assert transports.reachable("pigeon:home", same_host=True)
            listener.close()
            assert not transports.reachable("pigeon:home", same_host=True)

    asyncio.run(story())
