"""Choice: which version of a deployment a request goes to, and which instance of it. Pure.

Laws: each version is given its share of the requests that name none, counted and not drawn, and one without a share nothing.
Requests that are equal in the header or cookie that the deployment sticks to go to one version while shares stay. Within a
version the instance with the least in flight takes it, and none takes more than it says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from bema.core.instance import Instance

__all__ = ["VERSION", "Asked", "InstanceRoute", "Seat", "VersionChoice"]

VERSION = b"bema-version"
"""The header that names a version, whatever its share: for trying one before it is given any."""


class InstanceRoute(NamedTuple):
    """The address of one instance: the protocol `http` is spliced, `rpc` goes through a door."""

    deployment: str
    protocol: str
    address: str
    instance: Instance


class Asked(Protocol):
    """What is looked at of a request; names of headers are in lower case."""

    @property
    def ours(self) -> Mapping[bytes, bytes]: ...

    def header(self, name: bytes) -> bytes | None: ...


class Seat:
    """One instance as this gateway uses it. It is `open` while it takes requests, and its route is then the current one."""

    __slots__ = ("in_flight", "instance", "open", "route")

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.route: InstanceRoute | None = None
        self.open = False
        self.in_flight = 0

    @property
    def free(self) -> bool:
        most = self.instance.terms.concurrency
        return not most or self.in_flight < most


class _Version:
    """The open places of one version."""

    __slots__ = ("credit", "label", "places", "share", "turn")

    def __init__(self, label: str) -> None:
        self.label = label
        self.share = 0
        self.credit = 0
        self.turn = 0
        self.places: list[Seat] = []

    def free(self) -> bool:
        return any(place.free for place in self.places)

    def least(self) -> Seat | None:
        """The free place with the least in flight; of several each in turn."""
        places = self.places
        count = len(places)
        self.turn = (self.turn + 1) % count
        found: Seat | None = None
        for number in range(self.turn, self.turn + count):
            place = places[number % count]
            if place.free and (found is None or place.in_flight < found.in_flight):
                found = place
        return found


class VersionChoice:
    """The places of one deployment."""

    def __init__(self) -> None:
        self._places: dict[int, Seat] = {}
        self._versions: dict[str, _Version] = {}
        self._shared: list[_Version] = []  # those with a share and an open place, the oldest first
        self._only: Seat | None = None
        self._sticky = ""

    def put(self, instance: Instance, route: InstanceRoute | None) -> Seat:
        """An instance is shown, or shown otherwise; with a route where it takes requests."""
        place = self._places.get(instance.id)
        if place is None:
            place = self._places[instance.id] = Seat(instance)
        else:
            self._take_out(place)
        place.instance = instance
        place.open = route is not None
        if route is not None:
            place.route = route
            version = self._versions.setdefault(instance.version, _Version(instance.version))
            version.places.append(place)
            # what was written last holds: the records of a version are rewritten one after the other
            version.share = instance.share
            self._sticky = instance.terms.sticky
        self._count()
        return place

    def drop(self, instance: int) -> None:
        """An instance is shown no more."""
        if (place := self._places.pop(instance, None)) is not None:
            self._take_out(place)
            place.open = False
            self._count()

    def route(self) -> InstanceRoute | None:
        """The route of some instance that requests which name no version may go to; None where there is none."""
        return self._shared[0].places[0].route if self._shared else None

    def free(self) -> bool:
        """Whether any place is free."""
        return any(version.free() for version in self._versions.values())

    def knows(self, label: str) -> bool:
        """Whether an instance of that version is there, whether or not it takes requests now."""
        return any(place.instance.version == label for place in self._places.values())

    def next(self, asked: Asked) -> Seat | None:
        """The place for a request; None where there is none now. It is the caller's to count it in."""
        named = asked.ours.get(VERSION)
        if named is not None:
            version = self._versions.get(named.decode("latin-1"))
            return None if version is None else version.least()
        if (only := self._only) is not None:
            # the usual case, without arithmetic on the warm path
            return only if only.free else None
        if len(self._shared) == 1:
            return self._shared[0].least()
        if not self._shared:
            return None
        if self._sticky and (value := _value(self._sticky, asked)) is not None:
            return self._at(value).least()
        return self._in_turn()

    def _in_turn(self) -> Seat | None:
        """Smooth weighted round robin, over the versions that have a free place."""
        free = [version for version in self._shared if version.free()]
        if not free:
            return None
        for version in free:
            version.credit += version.share
        chosen = max(free, key=lambda version: version.credit)
        chosen.credit -= sum(version.share for version in free)
        return chosen.least()

    def _at(self, value: bytes) -> _Version:
        """The version at the value's point among the shares."""
        digest = hashlib.blake2b(value, digest_size=8).digest()
        point = int.from_bytes(digest, "big") % sum(version.share for version in self._shared)
        for version in self._shared:
            point -= version.share
            if point < 0:
                return version
        raise AssertionError("the point lies within the sum of the shares")

    def _take_out(self, place: Seat) -> None:
        version = self._versions.get(place.instance.version)
        if version is not None and place in version.places:
            version.places.remove(place)
            if not version.places:
                del self._versions[version.label]

    def _count(self) -> None:
        self._shared = sorted((v for v in self._versions.values() if v.share > 0), key=lambda v: _age(v.label))
        # credit is a debt of one against the others: with other shares it is none
        for version in self._shared:
            version.credit = 0
        only = self._shared[0].places if len(self._shared) == 1 else ()
        self._only = only[0] if len(only) == 1 else None


def _age(label: str) -> tuple[int, str]:
    """Versions by their number: one that comes takes of the shares' end, so that few values move."""
    number = label[1:]
    return (int(number) if number.isdecimal() and number.isascii() else 0, label)


def _value(sticky: str, asked: Asked) -> bytes | None:
    """The value of a request's header or cookie; None where it has none."""
    kind, _, name = sticky.partition(":")
    if kind == "header":
        return asked.header(name.lower().encode())
    for pair in (asked.header(b"cookie") or b"").split(b";"):
        key, equals, value = pair.strip().partition(b"=")
        if equals and key == name.encode():
            return value
    return None
