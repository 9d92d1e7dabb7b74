"""What is counted of starts, and of the requests that waited for one."""

from __future__ import annotations

import asyncio

import msgspec

from bema.core.errors import BemaError, NotFound
from bema.core.instance import Instance
from bema.core.naming import new_instance_id
from bema.deploy.model.deployment import Activation
from bema.gateway.routing.activity import BUCKETS
from bema.gateway.routing.starts import Starts
from bema.gateway.routing.table import RoutingTable
from bema.runtime.discovery.memory import MemoryDiscovery
from tests.gateway.gate import gate, request, says_ok, until

FORKED = {"start": {"kind": "zygote"}, "phases": {"fork": 33}}


def record(**fields: object) -> Instance:
    made = Instance(id=new_instance_id(), namespace="t", component="t", deployment="d")
    return msgspec.structs.replace(made, **fields)


def test_an_instance_is_counted_when_it_comes_and_not_when_its_record_changes():
    async def story() -> None:
        discovery, starts = MemoryDiscovery(), Starts()
        discovery.put(record())
        table = RoutingTable(await discovery.view())
        table.arriving = starts.shown
        forked = record(data=FORKED)
        discovery.put(forked)
        discovery.put(msgspec.structs.replace(forked, ready=False))
        discovery.put(record(deployment=""))
        discovery.put(record(data={"start": {"kind": "exec"}}))
        await until(lambda: starts.begun.total() == 2)
        assert starts.begun == {("d", "zygote"): 1, ("d", "exec"): 1}

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_wait_is_counted_under_the_kind_of_what_it_waited_for():
    starts = Starts()
    starts.waited(record(data=FORKED), 0.5)
    starts.waited(record(data=FORKED), 1e6)
    assert starts.waits["zygote"].histogram[BUCKETS] == starts.waits["zygote"].histogram[19] == 1
    assert starts.waits["zygote"].microseconds == 1_000_000_500_000
    assert not any(starts.waits["exec"].histogram)


def test_a_wait_that_failed_is_counted_by_its_code_and_ids_of_nothing_make_no_counter():
    starts = Starts()
    for error in (BemaError(code="starting"), NotFound("no deployment"), asyncio.CancelledError()):
        starts.refused(error)
    assert starts.failed == {"starting": 1, "cancelled": 1}


def test_only_requests_that_waited_for_a_start_are_counted():
    async def activate(deployment: str, wait: float) -> Activation:
        return Activation("starting")

    async def story() -> None:
        async with gate(activate, start=600) as g:
            starts, lines = g.listener.dispatcher.starts, g.listener.dispatcher.admission.lines
            path = await g.serve(says_ok)
            [shown] = g.listener.table.instances_of(path.rpartition("/")[2]).instances()
            assert (await g.get(path)).status == 200
            g.discovery.put(msgspec.structs.replace(shown, ready=False))
            async with await g.client() as leaving:
                leaving.send(request(path))
                await until(lines)
            await until(lambda: starts.failed == {"cancelled": 1}, 30)
            waiting = asyncio.create_task(g.get(path))
            await until(lines)
            assert not any(waits.microseconds for waits in starts.waits.values())
            g.discovery.put(msgspec.structs.replace(shown, data=FORKED))
            assert (await waiting).status == 200
            assert {kind: sum(waits.histogram) for kind, waits in starts.waits.items()} == {"exec": 0, "zygote": 1}
            assert starts.begun == {(shown.deployment, "exec"): 1}

    asyncio.run(asyncio.wait_for(story(), 60))
