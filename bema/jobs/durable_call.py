"""DurableCall: the call as the handler of a durable endpoint sees it, with what it may wait for."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from bema.core.call import Call
from bema.core.durable import Retry
from bema.core.errors import BadDeclaration, DeadlineExceeded
from bema.core.schemas import schemas_of
from bema.jobs.execution import Execution
from bema.jobs.journal import digest_of
from bema.wire.values import codecs

R = TypeVar("R")


class DurableCall(Call):
    """One run of a durable call. Everything that waits is recorded once, and given again in a replay."""

    def __init__(self, execution: Execution, arguments: dict[str, Any]) -> None:
        record = execution.record
        super().__init__(record.route, arguments, id=record.id, metadata=dict(record.metadata))
        self._execution = execution
        # seeded by the call: replayed, it draws the same numbers in the same order
        self._random = random.Random(record.id)

    @property
    def retry(self) -> Retry | None:
        """How its one step is tried again, where it is the call of an endpoint that is not durable."""
        return self._execution.record.retry

    @property
    def suspending(self) -> bool:
        return self._execution.suspending

    # no coroutine of its own: each would be made and resumed with each step
    def step(
        self, function: Callable[..., Any], *arguments: Any, key: str = "", retry: Retry | None = None, **named: Any
    ) -> Coroutine[Any, Any, Any]:
        digest = key or digest_of(arguments, named)
        return self._execution.step(function, arguments, named, retry, digest)

    async def sleep(self, seconds: float) -> None:
        await self.sleep_until(self._execution.clock.now() + round(max(0.0, seconds) * 1_000_000))

    async def sleep_until(self, instant: int) -> None:
        await self._execution.sleep(instant)

    async def ask(self, model: type[R], prompt: str = "") -> R:
        (schema,), definitions, _ = schemas_of([model])
        answer = {**schema, **({"$defs": definitions} if definitions else {})}
        decode = codecs.requests_decoder(model)
        found: R = await self._execution.wait_for("ask", codecs_name(model), decode, prompt=prompt, answer=answer)
        return found

    async def signal(self, name: str, model: Any = Any) -> Any:
        if not isinstance(name, str) or not name or "/" in name or len(name) > 200:
            raise BadDeclaration(f"a signal's name is a text of at most 200 characters without '/', not {name!r}")
        return await self._execution.wait_for("signal", name, codecs.requests_decoder(model))

    def now(self) -> int:
        return self._execution.now

    def random(self) -> float:
        return self._random.random()

    @contextlib.asynccontextmanager
    async def timeout(self, seconds: float) -> AsyncIterator[None]:
        task = asyncio.current_task()
        assert task is not None
        passed = False

        async def end() -> None:
            nonlocal passed
            await self.sleep(seconds)
            passed = True
            task.cancel()

        # a task of the handler's loop, whose sleep is recorded as any other
        ending = asyncio.ensure_future(end())
        try:
            yield
        except asyncio.CancelledError:
            if passed and task.uncancel() <= 0:
                raise DeadlineExceeded(f"{self.route}: {seconds:g} s passed") from None
            raise
        finally:
            ending.cancel()

    def on_cancel(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._execution.compensations.append((function, arguments))

    async def child(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        execution = self._execution

        async def call_child() -> Any:
            later = getattr(method, "with_id", None)
            if later is None:
                raise BadDeclaration(f"{method!r} is no method of a handle: `call.child(handle.method, ...)`")
            return await later(child_id, *arguments, **named)

        place = execution.place_of_next()
        # the id is fixed before the step runs: tried again, it attaches to the same child
        child_id = child_of(execution.record.id, place)
        call_child.__qualname__ = f"child {getattr(method, 'name', '')}".rstrip()
        return await execution.step(call_child, (), {}, Retry(), digest_of(arguments, named), elsewhere=True)


def codecs_name(model: Any) -> str:
    return getattr(model, "__name__", None) or str(model)


def child_of(parent: str, place: str) -> str:
    """The id of a child: the same in every replay. It sorts beside its parent's."""
    digest = hashlib.sha256(f"{parent}/{place}".encode()).digest()
    return parent[:11] + "".join("0123456789abcdefghijklmnopqrstuv"[byte & 31] for byte in digest[:10])
