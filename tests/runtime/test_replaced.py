"""Parts of the runtime, replaced: what asks for them by name or by none gets what was put in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from bema.core.errors import BemaError
from bema.core.instance import Instance
from bema.parts import UnknownImplementation
from bema.runtime.discovery.discovery import DiscoveryFactory
from bema.runtime.discovery.flock import FlockDiscovery
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.distributed import DistributedRuntime
from bema.runtime.rpc import transports
from bema.runtime.rpc.codec import CodecFactory, MsgpackCodec
from bema.runtime.rpc.picker import Load, OutgoingCall, PickerFactory
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


class Sticky:
    """Calls of one tenant go to one instance, for as long as it is there."""

    seen: ClassVar[list[OutgoingCall]] = []

    def pick(self, candidates: Sequence[Instance], load: Load, call: OutgoingCall) -> Instance:
        self.seen.append(call)
        return max(candidates, key=lambda instance: hash((instance.id, call.metadata.get("tenant"))))


class Old:
    """As pickers were before they were given the call."""

    def pick(self, candidates: Sequence[Instance], load: Load) -> Instance:
        return candidates[0]


def test_a_picker_goes_by_the_call():
    async def story():
        meeting = MemoryDiscovery()
        async with contextlib.AsyncExitStack() as stack:
            for own in range(4):
                serving = await stack.enter_async_context(DistributedRuntime(meeting))
                task = asyncio.create_task(serving.endpoint("demo.worker.who").serve_endpoint(lambda own=own: own))
                stack.callback(task.cancel)
            calling = await stack.enter_async_context(DistributedRuntime(meeting))
            client = calling.endpoint("demo.worker.who").client(pick="sticky")
            await client.wait_for_instances(4)
            homes = {}
            for tenant in "abcdefgh":
                of_tenant = client.using(metadata={"tenant": tenant})
                (homes[tenant],) = {await of_tenant() for _ in range(5)}
            assert len(set(homes.values())) > 1
            assert await client() in range(4)

    Sticky.seen.clear()
    with PickerFactory.override("sticky", Sticky):
        asyncio.run(story())
    assert {call.route for call in Sticky.seen} == {"demo.worker.who"}
    assert {call.metadata.get("tenant") for call in Sticky.seen} == {*"abcdefgh", None}
    assert len({call.id for call in Sticky.seen}) == 41, "each call has its own id"


def test_a_picker_that_does_not_take_the_call_is_refused_when_it_is_loaded():
    missing = r"Old\.pick cannot be called as Picker\.pick is: it takes 3 arguments where 4 .*\(self, candidates, load, call\)"
    with pytest.raises(BemaError, match=missing):
        PickerFactory.register("old")(Old)


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
