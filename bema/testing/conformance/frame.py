"""The frame: what a law is, how it is found, and how it is run.

Law: a law is a coroutine function of `make`, which gives a fresh part; all it made is closed behind it, and it ends in
bounded time. A law with a trait (`durable`, `shared`) holds for those parts only whose author claims the trait: there
`make` gives parts that stand on the same ground.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from bema.core.errors import NotFound

SECONDS = 20.0

Make = Callable[[], Awaitable[Any]]
Body = Callable[[Make], Awaitable[None]]

_KINDS = ("codec", "discovery", "environments", "jobs", "launcher", "picker", "server", "state", "transport")


class Violation(AssertionError):
    """A part broke a law; the original failure is the cause."""


class Law(NamedTuple):
    """One sentence that an implementation must keep, and the program that tries it."""

    kind: str
    says: str
    traits: frozenset[str]
    body: Body

    def __call__(self, make: Callable[[], Any]) -> None:
        """Try the law on parts from `make` (a function or a coroutine function); `Violation` when it is broken."""
        try:
            # A loop for each law: what a part left running ends with it, and cannot disturb the
            # next.
            asyncio.run(self._try(make))
        except TimeoutError as error:
            raise Violation(f"{self.kind}: {self.says} (no answer within {SECONDS:g} s)") from error
        except Exception as error:
            raise Violation(f"{self.kind}: {self.says} ({type(error).__name__}: {error})") from error

    async def _try(self, make: Callable[[], Any]) -> None:
        made: list[Any] = []

        async def one() -> Any:
            part = make()
            made.append(await part if inspect.isawaitable(part) else part)
            return made[-1]

        try:
            async with asyncio.timeout(SECONDS):
                await self.body(one)
        finally:
            # Later ones may stand on what earlier ones opened.
            for part in reversed(made):
                if (close := getattr(part, "close", None)) is not None:
                    await close()

    def __str__(self) -> str:
        return self.body.__name__


class Suite:
    """The laws of one kind, in the order they are written."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.laws: list[Law] = []

    def law(self, *traits: str) -> Callable[[Body], Body]:
        """Mark a coroutine function as a law; the first line of its docstring is the sentence."""

        def mark(body: Body) -> Body:
            says = inspect.cleandoc(body.__doc__ or "").partition("\n")[0].rstrip(".")
            self.laws.append(Law(self.kind, says, frozenset(traits), body))
            return body

        return mark


def kinds() -> tuple[str, ...]:
    """The kinds of parts that have a suite."""
    return _KINDS


def laws(kind: str, *traits: str) -> list[Law]:
    """The laws of a kind: those that hold for all, and those of the traits claimed."""
    if kind not in _KINDS:
        raise NotFound(f"there is no conformance suite for {kind!r}; there is one for {', '.join(_KINDS)}")
    suite: Suite = importlib.import_module(f"bema.testing.conformance.{kind}").SUITE
    # A misspelt trait would pass as one whose laws all hold.
    unknown = set(traits) - {trait for law in suite.laws for trait in law.traits}
    if unknown:
        raise NotFound(f"no law of {kind} is about {', '.join(sorted(unknown))}")
    return [law for law in suite.laws if law.traits <= set(traits)]


def check(kind: str, make: Callable[[], Any], *traits: str) -> list[Violation]:
    """Try every law; returns what was violated, so that an empty list is what one hopes for."""
    found: list[Violation] = []
    for law in laws(kind, *traits):
        try:
            law(make)
        except Violation as violation:
            found.append(violation)
    return found
