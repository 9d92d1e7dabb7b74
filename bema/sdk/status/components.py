"""ComponentView: the components of a process as another thread sees them.

Law: this thread changes nothing of theirs, and iterates over nothing that they may change. It copies a dictionary or a set
whole first, which no other thread can interrupt.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from bema.core.instance import State
from bema.core.naming import show_instance_id
from bema.runtime.process.host import Host, ServedComponent
from bema.runtime.rpc.metrics import CallCounter, CallMetrics


class ComponentView(NamedTuple):
    """One component that this process serves."""

    host: Host
    hosted: ServedComponent
    metrics: CallMetrics

    @property
    def address(self) -> str:
        return f"{self.hosted.namespace}.{self.hosted.component}"

    @property
    def state(self) -> State:
        state = self.host.state
        # the host serves as soon as one of its components does
        return State.STARTING if state is State.SERVING and not self.hosted.since else state

    @property
    def ready(self) -> bool:
        return self.state is State.SERVING and self.host.ready and not self.hosted.failing

    @property
    def alive(self) -> bool:
        return all(hosted.alive for hosted in components(self.host))

    def counters(self) -> Iterator[tuple[str, CallCounter]]:
        """The counters by endpoint, those of endpoints that were never called among them."""
        for name in dict(self.hosted.endpoints):
            yield name, self.metrics.seen(self.hosted.route(name))

    def described(self) -> dict[str, Any]:
        failing = set(self.hosted.failing)
        return {
            "instance": show_instance_id(self.hosted.instance_id),
            "state": self.state.value,
            "ready": self.ready,
            "alive": self.hosted.alive,
            "endpoints": {
                name: {
                    "serving": self.state is State.SERVING and name not in failing,
                    "in_flight": counter.in_flight,
                    "ok": counter.ok,
                    "errors": counter.errors.total(),
                    "cancelled": counter.cancelled,
                }
                for name, counter in self.counters()
            },
        }


def components(host: Host) -> tuple[ServedComponent, ...]:
    return tuple(dict(host.components).values())
