"""Absence: why a call finds no instance, in a sentence with the remedy that fits.

Law: it is looked into when a call has failed, and never before: what it costs is paid by nobody who is answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bema.core.errors import Unavailable
from bema.core.instance import Instance, State
from bema.core.naming import nearest
from bema.runtime.discovery.discovery import View
from bema.runtime.rpc.offers import answers

_NAMED = 8  # names that a remedy lists


def absence(route: str, view: View, lane: str = "", wanted: int | None = None) -> Unavailable:
    """The error for a call to an endpoint that no instance takes now.

    `lane` is the one that is called, where the caller is known; `wanted` the id of the instance that was asked for.
    """
    place, _, endpoint = route.rpartition(".")
    there = [i for i in view.instances() if i.component_address == place]
    # who names an instance is told of instances; lanes and endpoints are not why it is not there
    if wanted is not None and all(i.id != wanted for i in there):
        those = f"Those that are there: {_listed(str(i.id) for i in there)}." if there else None
        return Unavailable(f"no instance of {route} of the id {wanted} is there", fix=those)
    if not there:
        return _of_nobody(route, place, view)
    offering = [i for i in there if any(info.name == endpoint for info in i.endpoints)]
    if not offering:
        return _of_no_endpoint(route, there)
    if lane and (others := sorted({i.lane for i in offering if answers(i, route)} - {lane})):
        return Unavailable(
            f"no instance of {route} takes calls now in the lane {lane!r}, which is called",
            fix=f"Wait for it (wait=SECONDS), or call another: lane={' or lane='.join(map(repr, others[:_NAMED]))}.",
        )
    states = Counter(map(_state, offering))
    return Unavailable(
        f"no instance of {route} takes calls now: {', '.join(f'{count} {state}' for state, count in states.items())}",
        fix="Wait until one does (wait=SECONDS), or start another.",
    )


def _of_nobody(route: str, place: str, view: View) -> Unavailable:
    strangers = [i for i in getattr(view, "strangers", {}).values() if i.component_address == place]
    if strangers:
        return Unavailable(
            f"no instance of {route} is there that can be seen from here: {_strange(strangers)}",
            fix="Run the caller and the service in one PID namespace (`docker run --pid=...`), or call over HTTP.",
        )
    return Unavailable(f"no instance of {route} is there")


def _of_no_endpoint(route: str, there: list[Instance]) -> Unavailable:
    place, _, endpoint = route.rpartition(".")
    names = sorted({info.name for i in there for info in i.endpoints})
    versions = sorted({i.version for i in there if i.version})
    of = f" of version {_listed(versions)}" if versions else ""
    have = f"The {len(there)} instances{of} have" if len(there) > 1 else f"The one instance{of} has"
    return Unavailable(
        f"no instance of {place} has an endpoint {endpoint!r}{nearest(endpoint, names)}",
        fix=f"{have} {_listed(names) or 'none'}. Correct the name, or start a version that has it.",
    )


def _state(instance: Instance) -> str:
    if instance.state is not State.SERVING:
        return instance.state.value
    if "rpc" not in instance.addresses:
        return "without an address for calls"
    return "stalled" if instance.stalled else "not ready"


def _strange(strangers: list[Instance]) -> str:
    one = strangers[0]
    more = f", and {len(strangers) - 1} more" if len(strangers) > 1 else ""
    return f"pid {one.pid} on {one.host or 'an unnamed host'} is of another PID namespace{more}"


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:_NAMED]) + (", ..." if len(shown) > _NAMED else "")
