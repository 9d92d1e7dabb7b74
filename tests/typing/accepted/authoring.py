"""What users write, as `mypy --strict` sees it: the class stays a class, nothing becomes Any."""

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import bema
from bema import (
    Call,
    Context,
    Queue,
    async_init,
    depends,
    endpoint,
    entrypoint,
    on_shutdown,
    readiness,
    schedule,
    serve,
    service,
)


class Request:
    text: str


@service(name="worker", namespace="demo")
class Worker:
    def __init__(self, context: Context, size: int = 1) -> None:
        self.context = context
        self.size = size

    @async_init
    async def prepare(self) -> None: ...

    @endpoint()
    async def unary(self, request: Request, times: int = 1) -> list[str]:
        return [request.text] * times

    @endpoint(name="named", idempotent=True)
    async def stream(self, request: Request) -> AsyncIterator[str]:
        yield request.text

    @endpoint
    async def both(self, numbers: AsyncIterator[int], call: Call | None = None) -> AsyncIterator[int]:
        async for number in numbers:
            yield number

    @endpoint()
    def threaded(self, n: int) -> Iterator[int]:
        yield from range(n)

    @on_shutdown
    def close(self) -> None: ...

    @readiness
    def ready(self) -> bool:
        return True


@service
class Derived(Worker):
    other: Worker = depends(Worker)
    inferred = depends(Worker, timeout=1.0)

    def __init__(self, context: Context, worker: Worker = depends(Worker)) -> None:  # noqa: B008
        super().__init__(context)

    @entrypoint
    async def go(self) -> None:
        assert_type(self.inferred, Worker)
        assert_type(await self.other.unary(Request()), list[str])


@service(name="bounded", version="1.2", slots=4, queue=8, extra={"image": "python:3.11"})
class Bounded:
    worker = depends(Worker, wait=1, pick="random", metadata={"tenant": "a"})

    @endpoint(raises=[KeyError], extra={"route": "/get"})
    async def get(self) -> int:
        return 1


@service
class Nightly:
    @schedule("0 3 * * *", tz="Europe/Berlin", missed="skip")
    @schedule(every=60, name="often", arguments={"days": 1})
    @endpoint(durable=Queue(concurrency=1, rate=10, per=60))
    async def clean(self, days: int = 30) -> int:
        return days


@service(abstract=True)
class Abstract:
    @endpoint()
    @abstractmethod
    async def get(self) -> int: ...


class Uses:
    abstract = depends(Abstract)


async def numbers() -> AsyncIterator[int]:
    yield 1


async def call() -> None:
    async with bema.connect() as runtime:
        worker = runtime.client(Worker)
        assert_type(worker, Worker)
        assert_type(await worker.unary(Request(), times=2), list[str])
        assert_type(await runtime.client(Nightly).clean(), int)
        async for token in worker.stream(Request()):
            assert_type(token, str)
        async for number in worker.both(numbers()):
            assert_type(number, int)
        assert_type(await runtime.client(Abstract, timeout=1.0).get(), int)
        client = await runtime.namespace("demo").component("worker").endpoint("named").client()
        assert_type(client.instance_ids(), list[int])
        assert_type(await client.wait_for_instances(2, data={"model": "small"}), list[int])
        await client.direct(client.instance_ids()[0], Request())
        async for answer in client.power_of_two(Request()):
            print(answer)
        async with asyncio.TaskGroup() as group:
            assert_type(group.create_task(worker.unary(Request())), asyncio.Task[list[str]])


async def publishing(context: Context) -> None:
    assert_type(context.limit("drain"), float)
    await context.component.publish(model="small")
    endpoint = context.component.endpoint("more")
    await endpoint.serve_endpoint(numbers, metrics_labels=[("kind", "more")], health_check_payload={})
    await endpoint.hide()


def handled(call: Call) -> bool:
    call.stop_generating()
    call.kill()
    return call.is_stopped() or call.is_killed()


def main() -> None:
    asyncio.run(serve(Worker))
