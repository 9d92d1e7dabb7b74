"""The replicas that are known now, by instance and by deployment.

Law: one place tells what runs; a look at one deployment costs what that deployment has, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from bema.core.instance import State
from bema.deploy.model.replica import Replica


class Replicas:
    def __init__(self) -> None:
        self._by_instance: dict[int, Replica] = {}
        self._by_deployment: dict[str, dict[int, Replica]] = {}

    def __len__(self) -> int:
        return sum(1 for _ in self.running())

    def __contains__(self, instance: int) -> bool:
        return instance in self._by_instance

    def running(self) -> Iterator[Replica]:
        """Those that were started; one whose launcher has not answered yet is not among them."""
        return (replica for replica in self._by_instance.values() if replica.state is not State.NEW)

    def deployments(self) -> set[str]:
        return set(self._by_deployment)

    def of(self, deployment: str) -> list[Replica]:
        return list(self._by_deployment.get(deployment, {}).values())

    def get(self, instance: int) -> Replica | None:
        return self._by_instance.get(instance)

    def put(self, replica: Replica) -> None:
        self._by_instance[replica.instance] = replica
        self._by_deployment.setdefault(replica.deployment, {})[replica.instance] = replica

    def change(self, instance: int, how: Callable[[Replica], Replica]) -> Replica | None:
        """Replace one by what `how` makes of it; None when it is not known."""
        if (replica := self._by_instance.get(instance)) is None:
            return None
        changed = how(replica)
        self.put(changed)
        return changed

    def drop(self, instance: int) -> None:
        if (replica := self._by_instance.pop(instance, None)) is not None:
            mine = self._by_deployment[replica.deployment]
            del mine[instance]
            if not mine:
                del self._by_deployment[replica.deployment]

    def started(self, replica: Replica) -> None:
        """Its launcher answered. What was heard of it meanwhile is newer: that it serves, or that it is gone."""
        known = self._by_instance.get(replica.instance)
        if known is None:
            return
        if known.state is State.SERVING and known.announce is not None:
            replica = replica.serving(known.announce).marked(
                ready=known.ready, stalled=known.stalled, stands=known.stands
            )
        self.put(replica)

    def instances(self) -> set[int]:
        return set(self._by_instance)

    def polled(self, found: Iterable[Replica], asked_about: set[int]) -> None:
        """The launcher's whole picture. Of `asked_about`, those known when it was asked, whoever is not in it is gone;
        but for those that were not answered yet."""
        there = {replica.instance: replica for replica in found}
        for replica in tuple(self.running()):
            if replica.instance in asked_about and replica.instance not in there:
                self.drop(replica.instance)
        for instance, replica in there.items():
            known = self._by_instance.get(instance)
            # its announcement may have overtaken the answer, which then is the older news
            if known is None or (known.state, replica.state) != (State.SERVING, State.STARTING):
                self.put(replica)
