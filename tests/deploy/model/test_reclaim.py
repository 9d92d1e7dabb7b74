"""Taking an instance away, over ten thousand interleavings of gateways, late requests and deaths."""

from __future__ import annotations

import random
from types import SimpleNamespace

from bema.core.instance import Instance, State
from bema.deploy.model.reclaim import Reclaim
from bema.gateway.routing.choice import InstanceRoute, Seat, VersionChoice

PLAIN = SimpleNamespace(ours={}, header=lambda name: None)


class Gateway:
    """A gateway with its own view of the records, which is behind what is shown; requests ask it for a place."""

    def __init__(self, id: int, world: World) -> None:
        self.id = id
        self.world = world
        self.choice = VersionChoice()
        self.seen = 0  # records of the world that it has taken in
        self.running: list[Seat] = []
        self.draining: dict[int, Seat] = {}
        self.waiting = 0

    def look(self) -> None:
        """Take in the next thing that was shown."""
        if self.seen < len(self.world.shown):
            record = self.world.shown[self.seen]
            self.seen += 1
            route = InstanceRoute("d", "http", "x", record) if record.routable() else None
            if record.state is State.GONE:
                self.choice.drop(record.id)
                self.draining.pop(record.id, None)
                return
            seat = self.choice.put(record, route)
            if record.state is State.DRAINING:
                self.draining[record.id] = seat

    def ask(self) -> None:
        if (seat := self.choice.next(PLAIN)) is None:
            self.waiting += 1
            self.world.wanted = True
            return
        seat.in_flight += 1
        self.running.append(seat)

    def send(self) -> None:
        """A request that has its place reaches the instance: some time after it was chosen."""
        for seat in self.running:
            assert seat.instance.id not in self.world.told_to_stop, "it was told to stop"

    def finish(self) -> None:
        if self.running:
            self.running.pop(self.world.random.randrange(len(self.running))).in_flight -= 1

    def report(self) -> None:
        for instance, seat in self.draining.items():
            if not seat.in_flight and (reclaim := self.world.reclaims.get(instance)) is not None:
                reclaim.acknowledge(self.id)
        if self.waiting and self.choice.next(PLAIN) is not None:
            while self.waiting:
                self.waiting -= 1
                self.ask()


class World:
    """One deployment with one instance at a time, its orchestrator, and gateways that come and go."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0
        self.shown: list[Instance] = []
        self.reclaims: dict[int, Reclaim] = {}
        self.told_to_stop: set[int] = set()
        self.wanted = False
        self.instances = 0
        self.serving: int | None = None
        self.gateways = [Gateway(number, self) for number in range(1, self.random.randint(2, 4))]
        self.show(self.start())

    def show(self, instance: int, state: State = State.SERVING) -> None:
        self.shown.append(
            Instance(id=instance, namespace="t", component="t", deployment="d", version="v1", state=state)
        )

    def start(self) -> int:
        self.instances += 1
        self.serving = self.instances
        return self.instances

    def new_gateway(self) -> Gateway:
        """One whose first picture is whole before it is there."""
        gateway = Gateway(self.now + 10, self)
        while gateway.seen < len(self.shown):
            gateway.look()
        return gateway

    def step(self) -> None:
        self.now += 1
        gateway = self.random.choice(self.gateways)
        match self.random.randrange(10):
            case 0 if self.serving is not None and not self.reclaims and len(self.told_to_stop) < 3:
                # it is thought idle, rightly or not
                self.reclaims[self.serving] = Reclaim(self.now + 1_000_000)
                self.show(self.serving, State.DRAINING)
                self.serving = None
            case 1 if self.random.random() < 0.1 and len(self.gateways) > 1:
                self.gateways.remove(gateway)
            case 2 if self.random.random() < 0.1:
                self.gateways.append(self.new_gateway())
            case 3:
                gateway.ask()
            case 4:
                gateway.finish()
            case 5:
                gateway.report()
            case 6 | 7:
                gateway.look()
            case 8:
                self.orchestrate()
            case 9:
                gateway.send()

    def orchestrate(self) -> None:
        for instance, reclaim in list(self.reclaims.items()):
            if reclaim.over([gateway.id for gateway in self.gateways], self.now):
                del self.reclaims[instance]
                self.told_to_stop.add(instance)
                self.show(instance, State.GONE)
        if self.wanted and self.serving is None:
            self.wanted = False
            self.show(self.start())
        assert self.instances <= len(self.told_to_stop) + len(self.reclaims) + 1, (
            "a start for one that was not taken away"
        )

    def settle(self) -> None:
        """Nothing new: everybody sees everything, finishes and reports."""
        for _ in range(4):
            for gateway in self.gateways:
                while gateway.seen < len(self.shown):
                    gateway.look()
                while gateway.running:
                    gateway.finish()
                gateway.report()
            self.wanted = self.wanted or any(gateway.waiting for gateway in self.gateways)
            self.orchestrate()


def test_no_request_reaches_an_instance_that_was_told_to_stop_and_each_is_served_in_the_end():
    stopped = 0
    for seed in range(10_000):
        world = World(seed)
        for _ in range(60):
            world.step()
        for gateway in world.gateways:
            gateway.send()
        world.settle()
        assert not world.reclaims, f"seed {seed}: it is never stopped"
        assert not any(gateway.waiting for gateway in world.gateways), f"seed {seed}: a late request waits for ever"
        stopped += len(world.told_to_stop)
    assert stopped > 5_000


def test_the_wait_for_gateways_has_an_end_and_those_that_went_are_not_waited_for():
    reclaim = Reclaim(until=100)
    assert not reclaim.over([1, 2], 99)
    assert reclaim.over([1, 2], 100)
    reclaim.acknowledge(1)
    assert not reclaim.over([1, 2], 0)
    assert reclaim.over([1], 0)
    assert reclaim.over([], 0)
    assert not reclaim.over([1, 3], 0)
