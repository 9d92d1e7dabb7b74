"""A call that finds no instance says why, with the remedy that fits."""

import asyncio

import msgspec
import pytest

from bema.core.errors import Unavailable
from bema.core.instance import DEV, EndpointInfo, Instance, State
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.rpc.absence import absence

ONE = Instance(
    id=1,
    namespace="demo",
    component="shapes",
    endpoints=(EndpointInfo("length"), EndpointInfo("words")),
    addresses={"rpc": ("memory:x",)},
    version="v3",
)
OTHER = msgspec.structs.replace(ONE, id=2)


def change(**fields: object) -> Instance:
    return msgspec.structs.replace(ONE, **fields)


@pytest.mark.parametrize(
    ("there", "route", "says", "fix"),
    [
        ((), "demo.shapes.length", "no instance of demo.shapes.length is there", "Start the service"),
        (
            (ONE, OTHER),
            "demo.shapes.lenght",
            "no instance of demo.shapes has an endpoint 'lenght'; did you mean 'length'?",
            "The 2 instances of version v3 have length, words. Correct the name, or start a version that has it.",
        ),
        ((ONE,), "demo.shapes.zzz", "no instance of demo.shapes has an endpoint 'zzz'", "The one instance of version v3 has"),
        (
            (change(state=State.DRAINING), change(id=2, ready=False), change(id=3, stalled=True)),
            "demo.shapes.length",
            "no instance of demo.shapes.length takes calls now: 1 draining, 1 not ready, 1 stalled",
            "Wait until one does",
        ),
        (
            (change(lane=DEV), change(id=2, lane="deployment/shapes", endpoints=())),
            "demo.shapes.length",
            "no instance of demo.shapes.length takes calls now in the lane 'deployment/shapes', which is called",
            "or call another: lane='dev'.",
        ),
    ],
)  # fmt: skip
def test_the_sentence_and_its_remedy(there, route, says, fix):
    async def story() -> Unavailable:
        discovery = MemoryDiscovery()
        for instance in there:
            discovery.put(instance)
        return absence(route, await discovery.view("demo", "shapes"), lane="deployment/shapes")

    error = asyncio.run(story())
    assert error.message == says
    assert fix in error.fix


def test_an_id_that_is_not_there_is_answered_with_those_that_are():
    async def story() -> Unavailable:
        discovery = MemoryDiscovery()
        discovery.put(ONE)
        return absence("demo.shapes.length", await discovery.view("demo", "shapes"), wanted=7)

    error = asyncio.run(story())
    assert error.message == "no instance of demo.shapes.length of the id 7 is there"
    assert error.fix == "Those that are there: 1."
