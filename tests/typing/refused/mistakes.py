"""Mistakes that a type checker finds; each line marked `E:` names the error that mypy has to report there."""

import asyncio
from collections.abc import AsyncIterator

import bema
from bema import Context, Queue, depends, endpoint, on_shutdown, schedule, service


@service(name=3)  # E: call-overload
class Wrong: ...


@service(slotz=4)  # E: call-overload
class Misspelt:
    worker = depends(Wrong, timeoutt=1.0)  # E: call-arg

    @endpoint(idempotnt=True)  # E: call-overload, untyped-decorator
    async def put(self) -> None: ...

    @endpoint(idempotent="yes")  # E: call-overload, untyped-decorator
    async def keep(self) -> None: ...

    @schedule(every=60, missd="once")  # E: call-arg
    @schedule("0 3 * * *", missed="twice")  # E: arg-type
    @endpoint(durable=Queue(concurency=4))  # E: call-arg
    async def clean(self) -> None: ...

    @on_shutdown(timeout=3)  # E: call-arg, untyped-decorator
    def close(self) -> None: ...


@service(slots="4", queue=1)  # E: call-overload
class Unbounded: ...


@service(name="worker", namespace="demo")
class Worker:
    def __init__(self, context: Context) -> None: ...

    @endpoint()
    async def unary(self, text: str) -> int:
        return len(text)

    @endpoint()
    async def stream(self, n: int) -> AsyncIterator[str]:
        yield str(n)


class Uses:
    worker = depends(Worker)

    async def use(self) -> None:
        await self.worker.unary(3)  # E: arg-type
        self.worker.nothing()  # E: attr-defined


@endpoint()
async def returns(self: object) -> str:
    return 3  # E: return-value


async def call() -> None:
    async with bema.connect() as runtime:
        worker = runtime.client(Worker)
        text: str = await worker.unary("a")  # E: assignment
        await worker.unary(text, 2)  # E: call-arg
        await worker.stream(1)  # E: misc
        async for token in worker.stream("x"):  # E: arg-type
            print(token + 1)  # E: operator
        worker.unary("not awaited")  # E: unused-coroutine
    Worker()  # E: call-arg
    bema.nothing()  # E: attr-defined


asyncio.run(bema.serve(Worker))
