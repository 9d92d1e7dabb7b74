"""Pickers: which instance a call goes to.

Laws: a picker chooses among instances that can take calls, and never waits. Each client has its own, so a picker may remember
what it chose. It is asked where there is a choice, and again when a call is repeated.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

from msgspec import Struct

from bema.core.errors import Invalid
from bema.core.instance import Instance
from bema.core.settings import Settings
from bema.core.version import VERSION
from bema.parts import Factory

Load = Callable[[Instance], int]

_dice = random.Random()
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_ORIGIN: Final = f"{_dice.getrandbits(48):x}"
next_number: Final = itertools.count(1).__next__
"""The number of the next call that this process makes."""


class OutgoingCall(Struct, frozen=True, gc=False):
    """A call before it is sent: `route` is the address of its endpoint, `metadata` travels with it.

    `id` stays the same when the call is repeated. A picker must not change anything here.
    """

    route: str
    metadata: Mapping[str, str] = NOTHING
    number: int = 0

    @property
    def id(self) -> str:
        # the pid is asked for here: a forked child goes on with the number and the origin of its
        # parent
        return f"{_ORIGIN}-{os.getpid():x}-{self.number:x}"


Pick = Callable[[Sequence[Instance], Load, OutgoingCall], Instance]


class Picker(Protocol):
    """Chooses the instance that gets a call, for one client."""

    def pick(self, candidates: Sequence[Instance], load: Load, call: OutgoingCall) -> Instance:
        """Choose one of the candidates, of which there is at least one.

        `load(instance)` is the number of our calls that the instance has not answered. Raising `Invalid` refuses the call.
        """
        ...


class PickerFactory(Factory[Picker], group="bema.picker", api=VERSION, default="round_robin", opens="plain"):
    """By the name that a client gives as `pick`."""


def picker(settings: Settings, name: str = "") -> Pick:
    """The way to pick of that name, or of the name in use, for one client."""
    return PickerFactory.open(settings, name).pick


@PickerFactory.register("round_robin")
class RoundRobin:
    """Each in turn, from a random start so that many clients do not march in step."""

    def __init__(self) -> None:
        self._turns = itertools.count(_dice.randrange(1 << 16))

    def pick(self, candidates: Sequence[Instance], load: Load, call: OutgoingCall) -> Instance:
        return candidates[next(self._turns) % len(candidates)]


@PickerFactory.register("random")
class AtRandom:
    def pick(self, candidates: Sequence[Instance], load: Load, call: OutgoingCall) -> Instance:
        return candidates[int(_dice.random() * len(candidates))]


@PickerFactory.register("least_loaded")
class LeastLoaded:
    """The one with the fewest calls of ours in flight; ties are broken in turn."""

    def __init__(self) -> None:
        self._turn = RoundRobin()

    def pick(self, candidates: Sequence[Instance], load: Load, call: OutgoingCall) -> Instance:
        loads = [load(candidate) for candidate in candidates]
        least = min(loads)
        return self._turn.pick([c for c, calls in zip(candidates, loads, strict=True) if calls == least], load, call)


@PickerFactory.register("power_of_two")
class PowerOfTwo:
    """The less loaded of two at random."""

    def pick(self, candidates: Sequence[Instance], load: Load, call: OutgoingCall) -> Instance:
        if len(candidates) < 2:
            return candidates[0]
        one, other = _dice.sample(candidates, 2)
        # of two only: two loads are asked for, however many instances there are
        return one if load(one) <= load(other) else other


@PickerFactory.register("direct")
class Direct:
    """For clients whose every call names its instance."""

    def pick(self, candidates: Sequence[Instance], load: Load, call: OutgoingCall) -> Instance:
        if len(candidates) != 1:
            raise Invalid("a direct client needs the instance of each call")
        return candidates[0]
