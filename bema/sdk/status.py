"""The status of a process over HTTP, where `BEMA_STATUS_PORT` asks for it: `/healthz`, `/readyz` and `/metrics`.

Law: it is there from the first step to the last hook, so that who waits sees why. `/healthz` says whether the process
should live on, also while it drains; `/readyz` is 200 only while every service takes calls. One per event loop, shared by
its services, on this machine's loopback address; it shows no argument, answer or token.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from bema.core.errors import Refused
from bema.core.instance import State
from bema.core.naming import show_instance_id
from bema.core.spec import ServiceSpec
from bema.runtime import forks, sockets
from bema.runtime.hosting import Hosting
from bema.runtime.metering import BOUNDS, Meter, Tally
from bema.sdk.servers import asgi
from bema.sdk.servers.adapted import Adapted, Scope

VARIABLE = "BEMA_STATUS_PORT"
INHERITED = "BEMA_STATUS_FD"  # the number of a socket that listens there already, where processes follow each other
SAMPLE = 0.1  # seconds between looks at how late the loop is
SAMPLES = 100  # of which the greatest is told

_by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Status] = weakref.WeakKeyDictionary()


class Member(NamedTuple):
    """One service of the process, as it is seen from here."""

    spec: ServiceSpec
    hosting: Hosting
    meter: Meter

    @property
    def state(self) -> State:
        hosted = self.hosting.component(self.spec.namespace, self.spec.name)
        return State.STARTING if self.hosting.state is State.SERVING and not hosted.since else self.hosting.state

    @property
    def ready(self) -> bool:
        hosted = self.hosting.component(self.spec.namespace, self.spec.name)
        return self.state is State.SERVING and self.hosting.ready and not hosted.failing

    def tallies(self) -> Iterator[tuple[str, Tally]]:
        """The counters by endpoint, those of endpoints that were never called among them."""
        hosted = self.hosting.component(self.spec.namespace, self.spec.name)
        for name in hosted.endpoints:
            yield name, self.meter.of(hosted.route(name))

    def described(self) -> dict[str, Any]:
        hosted = self.hosting.component(self.spec.namespace, self.spec.name)
        return {
            "instance": show_instance_id(hosted.instance_id),
            "state": self.state.value,
            "ready": self.ready,
            "alive": hosted.alive,
            "endpoints": {
                name: {
                    "serving": self.state is State.SERVING and name not in hosted.failing,
                    "in_flight": tally.in_flight,
                    "ok": tally.ok,
                    "errors": tally.errors.total(),
                    "cancelled": tally.cancelled,
                }
                for name, tally in self.tallies()
            },
        }


def opened() -> Status:
    """The status of this loop's services, one more of which begins."""
    loop = asyncio.get_running_loop()
    if loop not in _by_loop:
        _by_loop[loop] = Status(_listening(os.environ.get(VARIABLE, "")))
    status = _by_loop[loop]
    status.services += 1
    return status


def _listening(port: str) -> socket.socket:
    if importlib.util.find_spec("uvicorn") is None:
        raise Refused(f"{VARIABLE} needs uvicorn", code="missing_extra", fix="Install it: pip install 'bema[http]'")
    inherited = os.environ.pop(INHERITED, "")
    if not inherited:
        return bound(port)
    os.set_inheritable(int(inherited), False)
    return socket.socket(fileno=int(inherited))


def bound(port: str) -> socket.socket:
    """A socket that listens where `BEMA_STATUS_PORT` says, or `Refused`."""
    if not port.isdecimal() or int(port) > 65_535:
        raise Refused(f"{VARIABLE} is {port!r}, which is not the number of a port", code="bad_setting")
    return sockets.bind(f"tcp:127.0.0.1:{port}")


class Status:
    """Serves from its making until the last of its services has left."""

    def __init__(self, listener: socket.socket) -> None:
        self.members: list[Member] = []
        self.services = 0
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        forks.close_in_children(self._listener.fileno())
        self._stop: asyncio.Future[float] = self._loop.create_future()
        self._lags: deque[float] = deque([0.0], SAMPLES)
        self._timer = self._look(self._loop.time())
        adapted = Adapted("asgi", self._answer, [], "off")
        self._serving = asyncio.create_task(
            asgi.serve(adapted, self._listener, lambda: None, self._stop), name="status"
        )

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def watch(self, spec: ServiceSpec, hosting: Hosting) -> None:
        """Tell of a service from now on. What it has served before is not counted."""
        known = next((member.meter for member in self.members if member.hosting is hosting), None)
        meter = known or Meter()
        hosting.accepts = meter.connection
        self.members.append(Member(spec, hosting, meter))

    async def left(self) -> None:
        """One of the services has ended; the last one ends the status."""
        self.services -= 1
        if self.services:
            return
        _by_loop.pop(self._loop, None)
        self._timer.cancel()
        forks.forget(self._listener.fileno())
        self._stop.set_result(1.0)
        await asyncio.wait({self._serving})

    def _look(self, due: float) -> asyncio.TimerHandle:
        return self._loop.call_at(due + SAMPLE, self._looked, due + SAMPLE)

    def _looked(self, due: float) -> None:
        now = self._loop.time()
        self._lags.append(now - due)
        self._timer = self._look(now)

    # the doors

    async def _answer(self, scope: Scope, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        code, kind, body = self._page(scope["path"] if scope["type"] == "http" else "")
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": code, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else body})

    def _page(self, path: str) -> tuple[int, bytes, bytes]:
        if path == "/metrics":
            return 200, b"text/plain; version=0.0.4; charset=utf-8", self.metrics().encode()
        told = self.told()
        found = {"/healthz": told["alive"], "/readyz": told["ready"]}.get(path)
        if found is None:
            return 404, b"application/json", b'{"error": "there are /healthz, /readyz and /metrics"}\n'
        return 200 if found else 503, b"application/json", msgspec.json.encode(told) + b"\n"

    def told(self) -> dict[str, Any]:
        """What both health pages say; their status is of their own field."""
        return {
            "alive": all(member.hosting.alive for member in self.members),
            "ready": len(self.members) == self.services and all(member.ready for member in self.members),
            "loop_lag": max(self._lags),
            "services": {member.spec.address: member.described() for member in self.members},
        }

    def metrics(self) -> str:
        """The counters as Prometheus reads them."""
        rows = [(_where(member, name), tally) for member in self.members for name, tally in member.tallies()]
        refused = {code for member in self.members for code in member.meter.refused}
        meters = {id(member.meter): member.meter for member in self.members}.values()
        families = (
            _family("requests_total", "counter", "Calls that ended, by what they ended as.", _outcomes(rows)),
            _family("requests_in_flight", "gauge", "Calls that run.", ((w, "", t.in_flight) for w, t in rows)),
            _family(
                "errors_total",
                "counter",
                "Calls that failed, by code.",
                (
                    (f'{where},code="{code}"', "", count)
                    for where, t in rows
                    for code, count in sorted(t.errors.items())
                ),
            ),
            _family("cancellations_total", "counter", "Calls given up.", ((w, "", t.cancelled) for w, t in rows)),
            _family(
                "refused_total",
                "counter",
                "Calls refused before they ran, by code.",
                ((f'code="{code}"', "", sum(meter.refused[code] for meter in meters)) for code in sorted(refused)),
            ),
            _family("request_duration_seconds", "histogram", "How long calls ran.", _durations(rows)),
            _family("ready", "gauge", "1 while calls are taken.", [("", "", int(self.told()["ready"]))]),
            _family("loop_lag_seconds", "gauge", "How late the event loop was, at most.", [("", "", max(self._lags))]),
        )
        return "".join(families)


def _where(member: Member, endpoint: str) -> str:
    """The labels of an endpoint's counters: its place, and what it was served with."""
    spec = member.spec
    own = member.hosting.component(spec.namespace, spec.name).labels.get(endpoint, {})
    labels = {**own, "namespace": spec.namespace, "component": spec.name, "endpoint": endpoint}
    place = [f'{name}="{labels.pop(name)}"' for name in ("namespace", "component", "endpoint")]
    return ",".join([*place, *(f'{name}="{str(value).translate(_ESCAPED)}"' for name, value in labels.items())])


Rows = list[tuple[str, Tally]]
_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def _family(name: str, kind: str, says: str, samples: Any) -> str:
    head = f"# HELP bema_{name} {says}\n# TYPE bema_{name} {kind}\n"
    return head + "".join(
        f"bema_{name}{suffix}{{{labels}}} {value}\n" if labels else f"bema_{name}{suffix} {value}\n"
        for labels, suffix, value in samples
    )


def _outcomes(rows: Rows) -> Iterator[tuple[str, str, int]]:
    for where, tally in rows:
        for outcome in ("ok", "error", "cancelled"):
            count = tally.errors.total() if outcome == "error" else getattr(tally, outcome)
            yield f'{where},outcome="{outcome}"', "", count


def _durations(rows: Rows) -> Iterator[tuple[str, str, float]]:
    for where, tally in rows:
        so_far = 0
        for bound, count in zip((*BOUNDS, "+Inf"), tally.buckets, strict=True):
            so_far += count
            yield f'{where},le="{bound}"', "_bucket", so_far
        yield where, "_sum", tally.seconds
        yield where, "_count", so_far
