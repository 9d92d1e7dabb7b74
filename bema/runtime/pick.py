"""Which instance a call goes to. A picker chooses among candidates that can take calls; it never waits."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from bema.core.errors import Invalid
from bema.core.instance import Instance

Load = Callable[[Instance], int]
Picker = Callable[[Sequence[Instance], Load], Instance]

_dice = random.Random()


def round_robin() -> Picker:
    """Each in turn, from a random start so that many clients do not march in step."""
    turn = _dice.randrange(1 << 16)

    def pick(candidates: Sequence[Instance], load: Load) -> Instance:
        nonlocal turn
        turn += 1
        return candidates[turn % len(candidates)]

    return pick


def at_random() -> Picker:
    return lambda candidates, load: candidates[int(_dice.random() * len(candidates))]


def least_loaded() -> Picker:
    """The one with the fewest calls of ours in flight; ties are broken in turn."""
    turn = round_robin()

    def pick(candidates: Sequence[Instance], load: Load) -> Instance:
        loads = [load(candidate) for candidate in candidates]
        least = min(loads)
        return turn([c for c, calls in zip(candidates, loads, strict=True) if calls == least], load)

    return pick


def power_of_two() -> Picker:
    """The less loaded of two at random."""

    def pick(candidates: Sequence[Instance], load: Load) -> Instance:
        if len(candidates) < 2:
            return candidates[0]
        one, other = _dice.sample(candidates, 2)
        return one if load(one) <= load(other) else other

    return pick


def direct() -> Picker:
    """For clients whose every call names its instance."""

    def pick(candidates: Sequence[Instance], load: Load) -> Instance:
        if len(candidates) != 1:
            raise Invalid("a direct client needs the instance of each call")
        return candidates[0]

    return pick


PICKERS: dict[str, Callable[[], Picker]] = {
    "round_robin": round_robin,
    "random": at_random,
    "least_loaded": least_loaded,
    "power_of_two": power_of_two,
    "direct": direct,
}


def picker(name: str) -> Picker:
    if name not in PICKERS:
        raise Invalid(f"no way to pick an instance is called {name!r}; there are {', '.join(PICKERS)}")
    return PICKERS[name]()
