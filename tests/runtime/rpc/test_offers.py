"""What is deployed, what was started by hand and what is being written do not answer one caller in turn."""

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.call import Call
from bema.core.errors import Unavailable
from bema.core.instance import DEV, HAND, EndpointInfo, Instance, State
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.rpc import offers
from bema.runtime.rpc.offers import EndpointIndex, LaneChoice, answers
from tests.runtime.served import Served, serving, unary, until

TEA, OTHER = "deployment/t", "deployment/another"


async def in_lanes(served: Served, *lanes: str) -> dict[int, str]:
    """An instance per lane, which answers with its own."""

    @served.handler(unary("lane"))
    async def lane(call: Call) -> Any:
        return None

    found: dict[int, str] = {}
    for name in lanes:
        ident = await served.start()
        found[ident] = name
        served.discovery.replace(msgspec.structs.replace(shown(served, ident), lane=name))
        route = served.servers[ident].routes["t.t.lane"]

        async def answer(call: Call, name: str = name) -> str:
            return name

        route.unary = answer
    return found


def shown(served: Served, ident: int) -> Instance:
    found = served.discovery.shown(ident)
    assert found is not None
    return found


async def counted(served: Served, **options: Any) -> Counter[str]:
    client = await served.client("lane", **options)
    return Counter([await client.unary({}) for _ in range(12)])


@pytest.mark.parametrize(
    ("there", "choice", "called"),
    [
        ((HAND, DEV), LaneChoice(), HAND),
        ((DEV, TEA, HAND), LaneChoice(), TEA),
        ((OTHER, TEA), LaneChoice(), TEA),  # it bears the name of the component
        (("deployment/b", "deployment/a"), LaneChoice(), "deployment/a"),
        ((DEV,), LaneChoice(), DEV),
        ((DEV, TEA), LaneChoice(own=DEV), DEV),  # what is being written calls what is being written
        ((HAND, TEA), LaneChoice(own=HAND), TEA),
        ((HAND, TEA), LaneChoice(own=DEV), TEA),
        ((OTHER, TEA), LaneChoice(own=OTHER), OTHER),
        ((DEV, TEA, HAND), LaneChoice(asked=HAND), HAND),
        ((DEV, TEA, HAND), LaneChoice(asked=DEV, own=TEA), DEV),
    ],
)
def test_a_caller_is_answered_from_one_lane(there, choice, called, tmp_path):
    async def story():
        async with serving("memory", tmp_path) as served:
            await in_lanes(served, *there, *there)
            assert await counted(served, lanes=choice) == {called: 12}

    asyncio.run(story())


def test_who_names_an_instance_gets_it_whatever_its_lane(tmp_path):
    async def story():
        async with serving("memory", tmp_path) as served:
            for ident, lane in (await in_lanes(served, DEV, TEA)).items():
                assert await (await served.client("lane")).unary({}, instance=ident) == lane

    asyncio.run(story())


def test_a_lane_that_was_left_keeps_its_callers_for_a_while(tmp_path, monkeypatch):
    """A deployed instance that crashes comes back within a second or so: what is being written does not answer meanwhile."""
    monkeypatch.setattr(offers, "HELD", 0.2)

    async def story():
        async with serving("memory", tmp_path) as served:
            (dev, tea) = await in_lanes(served, DEV, TEA)
            client = await served.client("lane")
            assert await client.unary({}) == TEA
            record = shown(served, tea)
            served.discovery.drop(tea)
            with pytest.raises(Unavailable, match="lane 'deployment/t'"):
                await client.unary({})
            served.discovery.put(record)
            assert await client.unary({}) == TEA
            served.discovery.replace(msgspec.structs.replace(record, state=State.DRAINING))
            with pytest.raises(Unavailable, match="takes calls now"):
                await client.unary({})
            served.discovery.drop(tea)
            await until(lambda: [i.id for i in client.instances()] == [dev])
            assert await client.unary({}) == DEV

    asyncio.run(story())


def _instance(ident: int, lane: str, component: str, endpoint: str) -> Instance:
    return Instance(
        id=ident,
        namespace="t",
        component=component,
        endpoints=(EndpointInfo(endpoint),),
        addresses={"rpc": ("memory:x",)},
        lane=lane,
    )


steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "drop", "drain"]),
        st.integers(1, 6),
        st.sampled_from([HAND, DEV, TEA, OTHER]),
        st.sampled_from(["t", "u"]),
        st.sampled_from(["a", "b"]),
    ),
    max_size=30,
)


@given(steps)
def test_what_follows_change_by_change_is_what_a_look_at_all_would_find(taken):
    async def story():
        discovery = MemoryDiscovery()
        view = await discovery.view()
        index = EndpointIndex(view)
        view.follow(index.turned)
        choices = [LaneChoice(), LaneChoice(asked=DEV), LaneChoice(own=OTHER)]
        kept = {(route, choice): index.offer(route, choice) for route in ("t.t.a", "t.u.b") for choice in choices}
        ever: dict[str, set[str]] = {"t.t": set(), "t.u": set()}
        for what, ident, lane, component, endpoint in taken:
            if what == "drop":
                discovery.drop(ident)
            else:
                made = _instance(ident, lane, component, endpoint)
                state = State.DRAINING if what == "drain" else State.SERVING
                discovery.put(msgspec.structs.replace(made, state=state))
                ever[f"t.{component}"].add(lane)  # a lane that was left is held, and this takes no time
            for (route, choice), offer in kept.items():
                place = route.rpartition(".")[0]
                chosen = choice.of(ever[place], place.partition(".")[2])
                whole = [i for i in view.instances() if answers(i, route) and i.lane == chosen]
                assert list(offer.instances()) == whole

    asyncio.run(story())
