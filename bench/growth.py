"""How each step grows with the number of instances: 10, 1,000 and 10,000 records and deployments.

Every part is the shipped one with its twin in memory: store, launcher, discovery; over them the orchestrator, the gateway's
table and the index of a client. Printed are the best of several tries and the exponent between the two large sizes: 0 is
constant, 1 is linear. It exits 1 where a step grows more than its kind may, or a change of one record is not in the
gateway's table within a millisecond.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import sys
import tempfile
import time
import tracemalloc
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bema.core.access import LOCAL_ADMIN
from bema.core.instance import EndpointInfo, Instance
from bema.core.naming import new_instance_id
from bema.core.spec import Shape
from bema.deploy.build.environments import MemoryEnvironments
from bema.deploy.build.pythons import FoundPythons, Python, own_python
from bema.deploy.build.uv import Uv
from bema.deploy.launch.launcher import MemoryLauncher
from bema.deploy.launch.workload import Workload, WorkloadEnvironment
from bema.deploy.model.deployment import Build, Deployment, Rollout, ScriptEntry, Version, VersionStatus
from bema.deploy.model.restarts import begun, served
from bema.deploy.orchestrator.parts import Parts
from bema.deploy.orchestrator.service import Orchestrator
from bema.deploy.store.deployments import Store
from bema.gateway.routing.table import RoutingTable
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.rpc.pool import ConnectionPool
from bema.runtime.rpc.resolver import Resolver
from bema.state.memory import MemoryEngine

SIZES = (10, 1_000, 10_000)
CONSTANT, LINEAR = "constant", "linear"
MAY = {CONSTANT: 2.0, LINEAR: 1.3}
"""How often over its kind a step may grow from the middle size to the largest: twice, or 1.3 times linear."""
CHANGE_WITHIN = 1e-3
"""Seconds in which a change of one record is in the table at the largest size."""
_PAGE = 100
_OTHERS = bytearray(64 * 1024 * 1024)


class Layers:
    async def layer(self, python: Python) -> Path:
        return Path("/layer")


class FilledStore(Store):
    """A store that holds `rollouts` already: writing each of ten thousand is not what is measured."""

    def __init__(self, rollouts: list[Rollout]) -> None:
        super().__init__(MemoryEngine())
        self._picture.rollouts = {rollout.id: rollout for rollout in rollouts}


def rollout_of(deployment: Deployment, instance: int) -> Rollout:
    """One that was built and serves."""
    attempts = served(begun((), instance, deployment.created), instance, deployment.created)
    return Rollout(
        deployment, {"v1": VersionStatus(build=Build(state="done", python=own_python().path), attempts=attempts)}
    )


def deployment_of(number: int) -> Deployment:
    version = Version(
        number=1,
        digest=f"{number:064x}",
        entry=ScriptEntry("service", "Worker"),
        created=number,
    )
    return Deployment(
        id=str(uuid.UUID(int=number)),
        name=f"d{number}",
        owner="local",
        versions=(version,),
        created=number,
        updated=number,
    )


def record_of(deployment: Deployment, instance: int) -> Instance:
    """What its instance shows: every one answers an endpoint of the same name, in a component of its own."""
    return Instance(
        id=instance,
        namespace="functions",
        component=deployment.name,
        deployment=deployment.id,
        addresses={"rpc": (f"memory:{deployment.name}",)},
        endpoints=(EndpointInfo("ask", Shape.UNARY),),
    )


async def at_rest(orchestrator: Orchestrator) -> None:
    """What it does by itself would be counted with what is measured."""
    orchestrator._running.cancel()
    await asyncio.gather(orchestrator._running, return_exceptions=True)


class Scene:
    """`size` deployments with an instance each, behind one orchestrator and one gateway's table."""

    def __init__(self, size: int, folder: Path) -> None:
        self.size = size
        self.ids = [new_instance_id() for _ in range(size)]
        self.deployments = [deployment_of(number) for number in range(size)]
        self.records = [record_of(*pair) for pair in zip(self.deployments, self.ids, strict=True)]
        self.discovery = MemoryDiscovery()
        self.launcher = MemoryLauncher()
        self.parts = Parts(
            state=folder,
            store=FilledStore([rollout_of(*pair) for pair in zip(self.deployments, self.ids, strict=True)]),
            launcher=self.launcher,
            environments=MemoryEnvironments(),
            layers=Layers(),
            pythons=FoundPythons(Uv()),
        )
        self.orchestrator = Orchestrator()
        self.replaced: list[asyncio.Task[None]] = []
        self.turn = 0

    async def open(self) -> Scene:
        for record in self.records:
            self.discovery.put(record)
        everything = await self.discovery.view()
        self.table = RoutingTable(everything)
        middle = self.records[self.size // 2]
        self.resolver = Resolver(ConnectionPool(), everything, f"{middle.component_address}.ask")
        for deployment, instance in zip(self.deployments, self.ids, strict=True):
            workload = Workload(
                deployment=deployment.id,
                name=deployment.name,
                version="v1",
                environment=WorkloadEnvironment("python", "/layer"),
                script="/script.py",
                entry=deployment.version.entry,
            )
            await self.launcher.start(workload, instance)
            await self.launcher.next_event()
        await self.orchestrator.begin(self.parts)
        await at_rest(self.orchestrator)
        return self

    async def close(self) -> None:
        self.table.close()
        await self.orchestrator.end()
        await asyncio.gather(*self.replaced, return_exceptions=True)

    # the steps

    async def change(self) -> None:
        """One record changes, and the table and the client's choice are the new ones."""
        self.turn += 1
        number = self.turn % self.size
        record = msgspec.structs.replace(self.records[number], ready=not self.records[number].ready)
        self.records[number] = record
        self.discovery.put(record)
        assert (self.table.route(record.deployment) is not None) == record.ready

    async def come_and_go(self) -> None:
        """One instance goes and another comes."""
        self.turn += 1
        number = self.turn % self.size
        self.discovery.drop(self.records[number].id)
        self.records[number] = msgspec.structs.replace(self.records[number], id=new_instance_id())
        self.discovery.put(self.records[number])

    async def look_up(self) -> None:
        self.table.route(self.records[self.size // 3].deployment)

    async def resolve(self) -> None:
        self.resolver.instances()

    async def page(self) -> None:
        found = await self.orchestrator.list(LOCAL_ADMIN, count=_PAGE)
        assert len(found.items) == min(_PAGE, self.size)

    async def whole_list(self) -> None:
        found, following = 0, ""
        while True:
            page = await self.orchestrator.list(LOCAL_ADMIN, after=following, count=1000)
            found += len(page.items)
            if page.next is None:
                break
            following = page.next
        assert found == self.size

    async def status(self) -> None:
        assert sum((await self.orchestrator.status(LOCAL_ADMIN))["deployments"].values()) == self.size

    async def plan(self) -> None:
        """What one wake-up makes the orchestrator decide."""
        await self.orchestrator._reconciler.look(self.deployments[0].id)

    async def look_at_all(self) -> None:
        """What the orchestrator does now and then, so that nothing is lost for long."""
        await self.orchestrator._reconciler.look_at_all()

    async def start(self) -> None:
        """A new orchestrator takes charge of what is stored and of what runs."""
        another = Orchestrator()
        await another.begin(self.parts)
        await at_rest(another)


class Step(NamedTuple):
    name: str
    kind: str
    run: Callable[[Scene], Awaitable[None]]
    times: int  # runs of one sample


STEPS = (
    Step("one record's change in the table", CONSTANT, Scene.change, 50),
    Step("an instance goes, another comes", CONSTANT, Scene.come_and_go, 50),
    Step("a routing look-up", CONSTANT, Scene.look_up, 500),
    Step("an endpoint resolved", CONSTANT, Scene.resolve, 500),
    Step(f"ls, one page of {_PAGE}", CONSTANT, Scene.page, 5),
    Step("ls, whole", LINEAR, Scene.whole_list, 1),
    Step("status", LINEAR, Scene.status, 1),
    Step("plan of one wake-up", CONSTANT, Scene.plan, 50),
    Step("a look at all deployments", LINEAR, Scene.look_at_all, 1),
    Step("start of the orchestrator", LINEAR, Scene.start, 1),
)
MEMORY = "memory of an idle deployment"


async def seconds(step: Step, scene: Scene, samples: int = 15) -> float:
    """CPU time, the best of the samples: no step waits, and what else the machine does only adds."""
    best = math.inf
    await step.run(scene)
    gc.disable()  # as `timeit` does: a collection falls on whoever allocates then
    for _ in range(samples):
        if step.times == 1:
            bytes(_OTHERS)  # a thousand deployments fit into a cache and ten thousand do not: let both come cold
        began = time.thread_time()
        for _ in range(step.times):
            await step.run(scene)
        best = min(best, (time.thread_time() - began) / step.times)
    gc.enable()
    return best


async def bytes_of_idle(size: int, folder: Path) -> int:
    """What `size` deployments without an instance take in an orchestrator that has begun."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    scene = Scene(0, folder)
    deployments = [deployment_of(number) for number in range(size)]
    parts = Parts(
        state=folder,
        store=FilledStore([rollout_of(deployment, new_instance_id()) for deployment in deployments]),
        launcher=scene.launcher,
        environments=scene.parts.environments,
        layers=scene.parts.layers,
        pythons=scene.parts.pythons,
    )
    await scene.orchestrator.begin(parts)
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    await scene.orchestrator.end()
    return taken


def exponent(small: float, large: float, sizes: tuple[int, int]) -> float:
    return math.log(large / small) / math.log(sizes[1] / sizes[0])


def verdict(kind: str, middle: float, largest: float, sizes: tuple[int, int] = (SIZES[1], SIZES[2])) -> bool:
    """Whether a step grows no more than its kind may."""
    expected = 1.0 if kind == CONSTANT else sizes[1] / sizes[0]
    return largest / middle <= expected * MAY[kind]


async def measured(folder: Path) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in (*(step.name for step in STEPS), MEMORY)}
    for size in SIZES:
        taken[MEMORY].append(await bytes_of_idle(size, folder))
        scene = await Scene(size, folder).open()
        gc.collect()
        gc.freeze()
        for step in STEPS:
            taken[step.name].append(await seconds(step, scene))
        await scene.close()
        gc.unfreeze()
    return taken


def told(taken: dict[str, list[float]]) -> bool:
    """Print the table; whether every step is as it should be."""
    kinds: dict[str, str] = {step.name: step.kind for step in STEPS} | {MEMORY: LINEAR}
    print("| step | " + " | ".join(f"{size:,}" for size in SIZES) + " | exponent | wanted | |")
    print("|---" * (len(SIZES) + 4) + "|")
    good = True
    for name, values in taken.items():
        met = verdict(kinds[name], values[1], values[2])
        shown = [f"{v / 1024:,.0f} KiB" if name == MEMORY else f"{v * 1e6:,.1f} us" for v in values]
        grown = exponent(values[1], values[2], (SIZES[1], SIZES[2]))
        print(f"| {name} | {' | '.join(shown)} | {grown:.2f} | {kinds[name]} | {'met' if met else 'MISSED'} |")
        good = good and met
    slope = (taken[MEMORY][2] - taken[MEMORY][1]) / (SIZES[2] - SIZES[1])
    print(f"\n{slope:,.0f} bytes for each further idle deployment")
    change = taken[STEPS[0].name][2]
    met = change <= CHANGE_WITHIN
    print(
        f"a change of one record among {SIZES[2]:,}: {change * 1e6:,.0f} us, wanted 1,000: {'met' if met else 'MISSED'}"
    )
    return good and met


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench growth", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    chosen: Any = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        taken = asyncio.run(measured(Path(folder)))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps({"sizes": SIZES, "steps": taken}, indent=1))
    return 0 if told(taken) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
