"""Deployments by name and by age, so that a page costs what is on it and a name is looked up once.

Law: the store holds what is deployed; this says only where to look. It is filled at the start and told of each deployment
that comes and goes: owner, name and time of creation never change.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable
from operator import itemgetter
from typing import Protocol

from bema.core.access import Principal


class Indexed(Protocol):
    """What is looked at of a deployment, which may be one whose record cannot be read."""

    @property
    def id(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def created(self) -> int: ...


class DeploymentIndex:
    """Where the deployments of each owner are, and those of all."""

    def __init__(self, deployments: Iterable[Indexed]) -> None:
        self._names: dict[tuple[str, str], str] = {}
        self._by_owner: dict[str, list[str]] = {}
        self._all: list[str] = []
        for place, deployment in sorted(((cursor(d), d) for d in deployments), key=itemgetter(0)):
            self._names[deployment.owner, deployment.name] = deployment.id
            self._all.append(place)
            self._by_owner.setdefault(deployment.owner, []).append(place)

    def add(self, deployment: Indexed) -> None:
        self._names[deployment.owner, deployment.name] = deployment.id
        for cursors in (self._all, self._by_owner.setdefault(deployment.owner, [])):
            insort(cursors, cursor(deployment))

    def remove(self, deployment: Indexed) -> None:
        """Take it out; nothing where it is not in."""
        if self._names.pop((deployment.owner, deployment.name), None) is None:
            return
        owned = self._by_owner[deployment.owner]
        for cursors in (self._all, owned):
            del cursors[bisect_right(cursors, cursor(deployment)) - 1]
        if not owned:
            # owners come and go for years: none is remembered for nothing
            del self._by_owner[deployment.owner]

    def named(self, owner: str, name: str) -> str | None:
        """The id of the deployment of that name, None where its owner has none."""
        return self._names.get((owner, name))

    def page(self, principal: Principal, after: str, count: int) -> tuple[list[str], str | None]:
        """The ids of the next `count` deployments that are there for `principal`, oldest first, and where to go on."""
        cursors = self._all if principal.sees("") else self._by_owner.get(principal.subject, [])
        # by place, not by membership: the deployment that ended the last page may be gone
        begin = bisect_right(cursors, after)
        found = cursors[begin : begin + count]
        return [place.partition("/")[2] for place in found], found[-1] if begin + count < len(cursors) else None


def cursor(deployment: Indexed) -> str:
    """Where a deployment stands among others: by age, then by id."""
    # padded: compared as text, instants of different lengths would stand in another order
    return f"{deployment.created:020}/{deployment.id}"
