"""Plans: what simulated durable calls do, as data: a seed makes one, a handler plays it, and `expected` knows its end.

A plan is a list of operations, each a list of its kind and its arguments. It comes to a list of values, one for each; where the
moment decides, as in a race, the value is `ANY`, and must only be the same in every replay.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final, NamedTuple, Protocol

from bema.core.call import Call
from bema.core.durable import Retry
from bema.core.errors import DeadlineExceeded

Plan = list[Any]
ANY: Final = "?"
ONCE: Final = "this once"  # what a step says that fails the first time

_PATIENT: Final = Retry(first=1, most=100, within=10**9)
_SHORT: Final = Retry(attempts=2, first=0.1)
_KINDS: Final = [
    "work",
    "work",
    "work",
    "plain",
    "flaky",
    "brittle",
    "bad",
    "sleep",
    "sleep",
    "all",
    "all",
    "signal",
    "ask",
    "timed",
    "race",
    "once",
    "booked",
    "booked",
    "random",
]

_SLEEPS: Final = (*(0.0, 0.3, 1.5, 90.0, 900.0) * 6, 2 * 86_400.0)


class Wants(NamedTuple):
    """What a plan needs of people."""

    restart: bool
    signals: list[str]


class Playing(Protocol):
    """The world in which a plan is played."""

    chance: random.Random
    tries: Any

    def given(self, id: str, path: str, value: Any) -> None:
        """A value was given to the handler at that path."""


def made(chance: random.Random, depth: int = 0) -> Plan:
    """A plan of a few operations."""
    return [_operation(chance, depth) for _ in range(chance.randint(1, 4 - depth))]


def _operation(chance: random.Random, depth: int) -> list[Any]:
    kind, n = chance.choice(_KINDS), chance.randrange(10**6)
    match kind:
        case "all" if depth < 2:
            return ["all", *(made(chance, depth + 1) for _ in range(chance.randint(2, 3)))]
        case "all":
            return ["work", n]
        case "sleep":
            return ["sleep", chance.choice(_SLEEPS)]
        case "flaky" | "brittle":
            return [kind, n, chance.randint(1, 4)]
        case "timed":
            return ["timed", n, chance.choice([0.2, 40.0, 1000.0])]
        case _:
            return [kind, n]


def wants(plan: Plan) -> Wants:
    operations = _flat(plan)
    signals = [f"s{operation[1]}" for operation in operations if operation[0] == "signal"]
    return Wants(any(operation[0] == "once" for operation in operations), signals)


def _flat(plan: Plan) -> Plan:
    found = []
    for operation in plan:
        branches = operation[1:] if operation[0] == "all" else []
        found += [operation, *(one for branch in branches for one in _flat(branch))]
    return found


def expected(plan: Plan) -> list[Any]:
    """`["done", values]`: what it comes to without faults. A step that fails for once is done again by a restart."""
    return ["done", [_value(operation) for operation in plan]]


def _value(operation: list[Any]) -> Any:
    kind, n = operation[0], operation[1]
    match kind:
        case "all":
            return [[_value(each) for each in branch] for branch in operation[1:]]
        case "work" | "plain" | "flaky" | "brittle" | "once" | "booked":
            return n * 2 + 1
        case "bad":
            return f"no {n}"
        case "sleep":
            return None
        case "signal":
            return f"signal s{n}"
        case "ask":
            return f"answer a{n}"
        case "timed":
            return "late"
        case _:
            return ANY


def matches(wanted: Any, found: Any) -> bool:
    """Whether that is what was wanted, whatever stands where the moment decides."""
    if wanted == ANY:
        return True
    if isinstance(wanted, list) and isinstance(found, list):
        return len(wanted) == len(found) and all(map(matches, wanted, found))
    return bool(wanted == found)


async def play(plan: Plan, call: Call, world: Playing, path: str) -> list[Any]:
    """Do it, and tell the world what each operation came to."""
    values = []
    for number, operation in enumerate(plan):
        here = f"{path}/{number}"
        value = await _played(operation, call, world, here)
        world.given(call.id, here, value)
        values.append(value)
    return values


async def _played(operation: list[Any], call: Call, world: Playing, path: str) -> Any:
    kind, n = operation[0], operation[1]
    steps = _Steps(call.id, world, path)
    match kind:
        case "all":
            branches = enumerate(operation[1:])
            return list(await asyncio.gather(*(play(b, call, world, f"{path}.{i}") for i, b in branches)))
        case "sleep":
            return await call.sleep(n)
        case "work" | "plain":
            return await call.step(getattr(steps, kind), n)
        case "flaky" | "brittle":
            return await call.step(steps.flaky, n, operation[2], retry=_PATIENT if kind == "flaky" else _SHORT)
        case "bad":
            try:
                return await call.step(steps.bad, n)
            except ValueError as error:
                return str(error)
        case "once":
            return await call.step(steps.once, n)
        case "booked":
            found = await call.step(steps.booked, n)
            call.on_cancel(steps.unbooked, n)
            return found
        case "signal":
            return await call.signal(f"s{n}", str)
        case "ask":
            return await call.ask(str, f"a{n}")
        case "random":
            return [call.random() if path.count("/") == 1 else 0, call.now()]
        case "timed":
            try:
                async with call.timeout(operation[2]):
                    return await call.signal(f"never{n}", str)
            except DeadlineExceeded:
                return "late"
        case "race":
            tasks = [asyncio.ensure_future(call.step(steps.work, n + one)) for one in range(3)]
            done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in rest:
                task.cancel()
            return [index for index, task in enumerate(tasks) if task in done]
    raise AssertionError(f"no such operation: {kind}")


class _Steps:
    """The steps of one operation. Each takes a time of the world's."""

    def __init__(self, id: str, world: Playing, path: str) -> None:
        self._id = id
        self._world = world
        self._path = path

    def _tried(self) -> int:
        self._world.tries[self._id, self._path] += 1
        return int(self._world.tries[self._id, self._path])

    async def _take_time(self) -> None:
        await asyncio.sleep(self._world.chance.choice([0.0, 0.001, 0.5, 30.0]) * self._world.chance.random())

    async def work(self, n: int) -> int:
        await self._take_time()
        return n * 2 + 1

    def plain(self, n: int) -> int:
        return n * 2 + 1

    async def flaky(self, n: int, fails: int) -> int:
        await self._take_time()
        if self._tried() <= fails:
            raise ConnectionError("not yet")
        return n * 2 + 1

    async def bad(self, n: int) -> int:
        await self._take_time()
        raise ValueError(f"no {n}")

    async def once(self, n: int) -> int:
        await self._take_time()
        if self._tried() == 1:
            raise ValueError(ONCE)
        return n * 2 + 1

    async def booked(self, n: int) -> int:
        await self._take_time()
        return n * 2 + 1

    async def unbooked(self, n: int) -> None:
        await self._take_time()
