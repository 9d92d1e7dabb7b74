"""Life and death of services: what their callers notice, in numbers. Every worker is a process of its own."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

import bema
from bema.core.errors import BemaError, Disconnected, StreamCut, Unavailable
from bema.core.naming import read_instance_id
from bema.runtime.discovery.discovery import wait_for
from tests.sdk.asking import free_port, get, samples
from tests.stories.life import Worker

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("life.py")
HEARTBEAT = 1.0


class Process:
    """One worker: its process, its instance, and how it ended."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid
        assert self.process.stderr is not None
        ready = self.process.stderr.readline()
        assert "life.worker is ready" in ready, ready + self.process.stderr.read()
        self.instance = read_instance_id(ready.split()[-1])

    def signal(self, number: signal.Signals) -> float:
        self.process.send_signal(number)
        return time.monotonic()

    async def ended(self, seconds: float = 20.0) -> tuple[int, str]:
        """(exit code, what it printed)"""
        out, _ = await asyncio.to_thread(self.process.communicate, timeout=seconds)
        return self.process.returncode, out

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        with contextlib.suppress(ValueError):
            self.process.communicate()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Process]]:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path / "state"))
    started: list[Process] = []

    def one(*arguments: str) -> Process:
        started.append(Process(*arguments))
        return started[-1]

    yield one
    for process in started:
        process.close()


@contextlib.asynccontextmanager
async def calling(count: int) -> AsyncIterator[tuple[Any, Any]]:
    """A handle of the worker that has seen `count` instances, and the view of them."""
    async with bema.connect() as runtime:
        view = await runtime.view("life", "worker")
        async with asyncio.timeout(10):
            await wait_for(view, lambda seen: len(seen) == count)
        yield runtime.client(Worker), view


def tell(story: Callable[[], Awaitable[None]], seconds: float = 90.0) -> None:
    async def told() -> None:
        await asyncio.wait_for(story(), seconds)

    asyncio.run(told())


def test_a_file_is_ready_within_a_second(start):
    took = []
    for _ in range(3):
        began = time.monotonic()
        start()
        took.append(time.monotonic() - began)
    assert min(took) < 1


CALLER = """
import asyncio
import bema

async def main():
    async with bema.connect() as runtime:
        stream = runtime.endpoint("life.worker.watched").client()()
        await anext(stream)
        print("reads", flush=True)
        async for _ in stream:
            pass

asyncio.run(main())
"""


def test_the_handlers_of_a_killed_caller_end_within_100_ms(start):
    start()

    async def story() -> None:
        async with calling(1) as (worker, _):
            caller = subprocess.Popen([sys.executable, "-c", CALLER], stdout=subprocess.PIPE, text=True)
            assert caller.stdout is not None
            assert await asyncio.to_thread(caller.stdout.readline) == "reads\n"
            assert await worker.left() == []
            caller.kill()
            killed = time.monotonic()  # of one clock for all processes of a machine
            await asyncio.to_thread(caller.communicate)
            while not (left := await worker.left()):
                assert time.monotonic() - killed < 5
            assert left[0] - killed < 0.1

    tell(story)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_first_sigterm_leaves_refuses_and_finishes(start, loop):
    process = start(loop)

    async def story() -> None:
        async with calling(1) as (worker, view):
            stream = worker.count(20, 0.02)
            assert await anext(stream) == (process.pid, 0)
            slow = asyncio.create_task(worker.slow(0.4))
            await worker.pid()
            process.signal(signal.SIGTERM)
            async with asyncio.timeout(0.3):
                await wait_for(view, lambda seen: not any(i.routable() for i in seen))
            with pytest.raises(Unavailable):
                await worker.pid()
            assert [i async for _, i in stream] == list(range(1, 20))
            assert await slow == "whole"
            code, out = await process.ended(5)
            assert code == 0
            assert out.splitlines() == ["shut after 0", "shut plainly"]
            await wait_for(view, lambda seen: seen == ())

    tell(story)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_second_signal_ends_it_at_once(start, loop):
    process = start(loop)

    async def story() -> None:
        async with calling(1) as (worker, view):
            slow = asyncio.create_task(worker.slow(60))
            await worker.pid()
            process.signal(signal.SIGTERM)
            await wait_for(view, lambda seen: not any(i.routable() for i in seen))
            sent = process.signal(signal.SIGTERM)
            code, _ = await process.ended(5)
            assert code == -signal.SIGTERM
            assert time.monotonic() - sent < 1
            with pytest.raises((Disconnected, StreamCut)):
                await slow

    tell(story)


@pytest.mark.parametrize("forked", [False, True], ids=["alone", "with forked children"])
def test_a_killed_worker_fails_none_of_10_000_idempotent_calls(start, forked):
    victim, other = start(), start()

    async def story() -> None:
        async with calling(2) as (worker, view):
            direct = (await bound(worker, victim)) if forked else None
            child = await direct.fork() if direct is not None else None
            answered = {victim.pid: 0, other.pid: 0}
            failed: list[BaseException] = []
            killed = asyncio.Event()

            async def calls(count: int) -> None:
                for _ in range(count):
                    try:
                        answered[await worker.pid()] += 1
                    except BemaError as error:
                        failed.append(error)

            cut: list[tuple[int, BaseException | None, float]] = []

            async def follow() -> None:
                pid = 0
                try:
                    async for pid, _ in worker.count(10_000, 0.01):
                        if killed.is_set() and pid == other.pid:
                            break
                    cut.append((pid, None, time.monotonic()))
                except BemaError as error:
                    cut.append((pid, error, time.monotonic()))

            async def kill() -> float:
                while sum(answered.values()) < 3_000:
                    await asyncio.sleep(0.001)
                at: float = victim.signal(signal.SIGKILL)
                killed.set()
                await wait_for(view, lambda seen: [i.id for i in seen] == [other.instance])
                gone = time.monotonic() - at
                assert gone < 1, f"the dead entry was there for {gone:.3f} s"
                return at

            try:
                async with asyncio.TaskGroup() as group:
                    at = group.create_task(kill())
                    for _ in range(20):
                        group.create_task(follow())
                    for _ in range(50):
                        group.create_task(calls(200))
            finally:
                if child is not None:
                    os.kill(child, signal.SIGKILL)
            assert failed == []
            assert sum(answered.values()) == 10_000
            assert min(answered.values()) > 1_000
            theirs = [(error, when - at.result()) for pid, error, when in cut if pid == victim.pid]
            assert len(theirs) == 10
            assert {type(error) for error, _ in theirs} == {StreamCut}
            assert max(after for _, after in theirs) < 0.1
            assert all(error is None for pid, error, _ in cut if pid == other.pid)

    tell(story)


async def bound(worker: Any, process: Process) -> Any:
    """The handle for this one instance."""
    runtime: Any = worker.__dict__["_about"][0]
    return runtime.client(Worker, instance=process.instance)


def test_a_stopped_worker_gets_no_new_calls_after_a_heartbeat_and_is_back_when_it_goes_on(start):
    stopped, other = start(), start()

    async def story() -> None:
        async with calling(2) as (worker, view):
            answers: list[tuple[int, float]] = []

            async def call() -> None:
                began = time.monotonic()
                answers.append((await worker.pid(), began))

            async def steadily(seconds: float) -> None:
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    tasks.append(asyncio.create_task(call()))
                    await asyncio.sleep(0.01)

            tasks: list[asyncio.Task[None]] = []
            await steadily(0.3)
            assert {pid for pid, _ in answers} == {stopped.pid, other.pid}
            at = stopped.signal(signal.SIGSTOP)
            await steadily(3 * HEARTBEAT)
            assert [i.id for i in view.instances()] == sorted([stopped.instance, other.instance])  # not dead
            on = stopped.signal(signal.SIGCONT)
            await steadily(1.0)
            await asyncio.gather(*tasks)
            late = [began - at for pid, began in answers if pid == stopped.pid and at < began < on]
            assert max(late, default=0) < HEARTBEAT + 0.05
            assert any(pid == stopped.pid and began > on for pid, began in answers)
            assert len(answers) == len(tasks)

    tell(story)


def test_a_loop_that_is_blocked_for_15_seconds_keeps_its_lease_and_is_marked(start):
    blocked, other = start(), start()

    async def story() -> None:
        async with calling(2) as (worker, view):
            here = await bound(worker, blocked)
            blocking = asyncio.create_task(here.block(15.0))
            began = time.monotonic()
            seen: list[tuple[float, bool]] = []

            def look() -> None:
                (mine,) = [i for i in view.instances() if i.id == blocked.instance]
                assert mine.state == "serving"
                if not seen or seen[-1][1] is not mine.stalled:
                    seen.append((time.monotonic() - began, mine.stalled))

            stop = view.subscribe(look)
            while not blocking.done():
                look()
                if seen[-1][1]:
                    assert await worker.pid() == other.pid
                await asyncio.sleep(0.05)
            assert await blocking == "whole"
            await wait_for(view, lambda instances: not any(i.stalled for i in instances))
            stop()
            assert [stalled for _, stalled in seen][:2] == [False, True]
            assert seen[1][0] < 7.5
            assert await here.pid() == blocked.pid

    tell(story)


def test_a_process_whose_loop_is_blocked_says_so_at_once_and_is_alive(start, monkeypatch):
    port = free_port()
    monkeypatch.setenv("BEMA_STATUS_PORT", str(port))
    blocked = start()
    took: list[float] = []

    def ask(path: str) -> tuple[int, Any]:
        began = time.monotonic()
        code, text = get(port, path)
        took.append(time.monotonic() - began)
        return code, json.loads(text) if path != "/metrics" else samples(text)

    async def story() -> None:
        async with calling(1) as (worker, _):
            assert await asyncio.to_thread(ask, "/readyz") == (200, ANY)
            blocking = asyncio.create_task(worker.block(8.0))
            lags: list[float] = []
            readies: list[int] = []
            marks: list[float] = []
            while not blocking.done():
                code, told = await asyncio.to_thread(ask, "/healthz")
                assert (code, told["alive"]) == (200, True)
                lags.append(told["loop_lag"])
                if told["stalled"]:
                    readies.append((await asyncio.to_thread(ask, "/readyz"))[0])
                    marks.append((await asyncio.to_thread(ask, "/metrics"))[1]["bema_stalled"])
            assert await blocking == "whole"
            # the last ones may have been asked when it was over
            assert (set(readies[:-1]), set(marks[:-1])) == ({503}, {1})
            assert max(took) < 2 and lags == sorted(lags) and 7 < lags[-1] < 10
            code, told = await asyncio.to_thread(ask, "/readyz")
            assert (code, told["stalled"]) == (200, False)
            blocked.signal(signal.SIGTERM)
            assert (await blocked.ended())[0] == 0

    tell(story)


def test_three_workers_are_replaced_under_load_and_nothing_is_lost(start):
    workers = [start() for _ in range(3)]

    async def story() -> None:
        async with calling(3) as (worker, view):
            stop = asyncio.Event()
            asked = 0
            streams: list[list[int]] = []

            async def call() -> None:
                nonlocal asked
                while not stop.is_set():
                    asked += 1
                    number = asked
                    assert await worker.once(number) == number

            async def follow() -> None:
                while not stop.is_set():
                    streams.append([i async for _, i in worker.count(20, 0.005)])

            async def restart() -> list[str]:
                printed: list[str] = []
                for old in tuple(workers):
                    new = await asyncio.to_thread(start)
                    await wait_for(view, lambda seen, new=new: new.instance in {i.id for i in seen})  # type: ignore[misc]
                    old.signal(signal.SIGTERM)
                    code, out = await old.ended(10)
                    assert code == 0
                    printed.append(out)
                    workers[workers.index(old)] = new
                stop.set()
                return printed

            async with asyncio.TaskGroup() as group:
                printed = group.create_task(restart())
                for _ in range(16):
                    group.create_task(call())
                for _ in range(8):
                    group.create_task(follow())
            outputs = printed.result()
            for process in workers:
                process.signal(signal.SIGTERM)
                outputs.append((await process.ended(10))[1])
            ran = sum(int(out.split()[2]) for out in outputs)
            assert ran == asked > 500
            assert all(items == list(range(20)) for items in streams) and len(streams) > 20

    tell(story)


def test_two_runtimes_in_one_process_are_two_instances(start):
    """Beside a third in another process; each in turn is stopped without the others noticing."""
    third = start()

    async def story() -> None:
        async with calling(1) as (worker, view), bema.DistributedRuntime() as one, bema.DistributedRuntime() as other:
            serving = [asyncio.create_task(bema.serve(Worker, runtime)) for runtime in (one, other)]
            await wait_for(view, lambda seen: len(seen) == 3)
            assert {await worker.pid() for _ in range(6)} == {third.pid, os.getpid()}
            one.stop()
            await serving[0]
            await wait_for(view, lambda seen: len(seen) == 2)
            assert [await worker.once(i) for i in range(20)] == list(range(20))
            other.stop()
            await serving[1]
            assert {await worker.pid() for _ in range(6)} == {third.pid}

    tell(story)
