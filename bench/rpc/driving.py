"""The two ends of a peer process, and the protocol they speak with the bench.

`python -m bench.rpc.peers.PEER serve ADDRESS` prints `READY` and serves. `... drive ADDRESS` prints `READY`, then answers every JSON
line `{"op": "unary"|"stream"|..., "calls", "size", "items", "paced", "seconds"}` with one line `{"n", "seconds", "p50", "p99",
"cpu"}`: operations done (calls, or items of streams), the time they took, microseconds to the answer (of streams: to
the first item), and this process's CPU seconds; `{"n": 0}` for an operation it does not have. ADDRESS is a socket's path or
host:port. Load is closed-loop: `calls` workers, each starting anew when it has its answer.

Standard library only: peers run it under their own interpreters.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import resource
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

SMALL = 11  # characters

Unary = Callable[[Any], Awaitable[Any]]
Stream = Callable[[int, bool], AsyncIterator[Any]]


class Peer(ABC):
    """What a peer fills in."""

    uvloop = True

    @abstractmethod
    async def server(self, address: str) -> None:
        """Listen; the process lives on afterwards."""

    @abstractmethod
    async def client(self, address: str) -> dict[str, Any]:
        """Connect; the operations: unary ones as functions of a message, `stream` of a count and whether it is paced."""

    def message(self, op: str, size: int) -> Any:
        """The message of a unary operation; its text has `size` characters."""
        return {"text": "hello world" if size == SMALL else "x" * size, "n": 1}


async def items(count: int, paced: bool) -> AsyncIterator[dict[str, Any]]:
    """What every peer streams: in a burst, or giving way before each item."""
    for n in range(count):
        if paced:
            await asyncio.sleep(0)
        yield {"text": "hello world", "n": n}


def main(peer: Peer) -> None:
    verb, address = sys.argv[1:3]
    work = serve(peer, address) if verb == "serve" else drive(peer, address)
    if peer.uvloop:
        importlib.import_module("uvloop").run(work)
    else:
        asyncio.run(work)


def settle() -> None:
    """Every peer that is Python gets the same collector: what is loaded is frozen, what is young is rarely searched."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def serve(peer: Peer, address: str) -> None:
    await peer.server(address)
    settle()
    print("READY", flush=True)
    await asyncio.Event().wait()


async def drive(peer: Peer, address: str) -> None:
    operations = await peer.client(address)
    settle()
    print("READY", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        before = _cpu()
        try:
            result = await asyncio.wait_for(_run(peer, operations, order), 60)
        except Exception as error:  # noqa: BLE001 - a peer may fail in any way; the bench reports it
            result = {"n": 0, "error": repr(error)[:300]}
        result["cpu"] = _cpu() - before
        print(json.dumps(result), flush=True)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _run(peer: Peer, operations: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    operation = operations.get(order["op"])
    if operation is None:
        return {"n": 0}
    if order["op"] == "bytes":
        return await operation(order)  # type: ignore[no-any-return]
    worker = _stream if order["op"] == "stream" else _unary
    times: list[float] = []
    began = time.perf_counter()
    stop = began + order["seconds"]
    message = peer.message(order["op"], order["size"])
    done = await asyncio.gather(*(worker(operation, order, message, stop, times) for _ in range(order["calls"])))
    return summary(sum(done), time.perf_counter() - began, times)


def summary(n: int, seconds: float, times: list[float]) -> dict[str, Any]:
    times.sort()

    def at(share: float) -> float:
        return times[min(len(times) - 1, int(len(times) * share))] * 1e6 if times else 0.0

    return {"n": n, "seconds": seconds, "p50": at(0.5), "p99": at(0.99)}


async def _unary(unary: Unary, order: dict[str, Any], message: Any, stop: float, times: list[float]) -> int:
    clock = time.perf_counter
    count = 0
    answer = message
    while (began := clock()) < stop:
        answer = await unary(message)
        times.append(clock() - began)
        count += 1
    if answer != message:
        raise ValueError(f"the echo gave {answer!r}"[:200])
    return count


async def _stream(stream: Stream, order: dict[str, Any], message: Any, stop: float, times: list[float]) -> int:
    clock = time.perf_counter
    wanted, paced, total = order["items"], order["paced"], 0
    while (began := clock()) < stop:
        count = 0
        async for _ in stream(wanted, paced):
            if not count:
                times.append(clock() - began)
            count += 1
        if count != wanted:
            raise ValueError(f"{count} items came of {wanted}")
        total += count
    return total
