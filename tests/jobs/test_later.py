"""Idempotent endpoints that are called later: kept when somebody asks for it, run at least once, whatever dies."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import bema
from bema import Call, Retry, endpoint, service
from bema.core.errors import Conflict, Invalid, NotFound, Unavailable
from bema.core.naming import new_call_id
from bema.jobs.calls import CallRecord
from bema.runtime.distributed import DistributedRuntime
from bema.testing import System

PROGRAM = Path(__file__).with_name("till.py")
DAY = 24 * 3600.0


class Tills:
    """Processes of the till over one state directory; `did` is what they did."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "till.log"
        self._go = folder / "go"
        self.file = folder / "state" / "jobs" / "demo.till.sqlite"
        self.processes: list[subprocess.Popen[str]] = []

    def start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, str(PROGRAM)], stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        assert process.stderr is not None
        assert "demo.till is ready" in process.stderr.readline()
        return process

    @property
    def did(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []

    async def until(self, what: str, times: int = 1) -> None:
        async with asyncio.timeout(20):
            while self.did.count(what) < times:
                await asyncio.sleep(0.01)  # another process writes the file

    def go(self) -> None:
        self._go.touch()


@pytest.fixture
def tills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tills]:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("SHOP_LOG", str(tmp_path / "till.log"))
    tills = Tills(tmp_path)
    yield tills
    for process in tills.processes:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


class Callers:
    """The clients of the till's endpoints."""

    def __init__(self, runtime: DistributedRuntime) -> None:
        self._component = runtime.namespace("demo").component("till")

    def __getattr__(self, name: str) -> Any:
        return self._component.endpoint(name).client(wait=10)


@contextlib.asynccontextmanager
async def calling() -> AsyncIterator[Callers]:
    async with bema.connect() as runtime:
        yield Callers(runtime)


@pytest.mark.slow
def test_nothing_is_opened_until_somebody_asks_for_a_later_call(tills):
    tills.start()

    async def story():
        async with calling() as till:
            rooms, send = await till.rooms, await till.send
            assert "bema.jobs" not in await rooms()
            with pytest.raises(NotFound, match=r"nothing was ever kept of demo\.till"):
                await send.ref(new_call_id(1)).status()
            assert not tills.file.exists()
            assert "bema.jobs" not in await rooms()
            ref = await send.later(7, key="letter 7")
            assert await ref.result(20) == "sent 7"
            assert (await send.later(7, key="letter 7")).id == ref.id
            assert await (await (await till.print).later(8)).result(20) == "printed 8", "a plain function"
            assert "bema.jobs" in await rooms()
            assert tills.file.exists()
            assert await send(9) == "sent 9", "who calls it otherwise is answered as ever"

    asyncio.run(story())
    assert len([line for line in tills.did if line.startswith("send 7")]) == 1


@pytest.mark.slow
def test_a_call_that_was_accepted_is_run_by_the_next_process_though_the_first_was_killed(tills):
    first = tills.start()

    async def story():
        async with calling() as till:
            send = await till.send
            ref = await send.later(7, delay=1)
            first.kill()
            first.wait()
            assert tills.did == []
            second = tills.start()
            assert await ref.result(30) == "sent 7"
            assert tills.did == [f"send 7 by {second.pid}"]

    asyncio.run(story())


@pytest.mark.slow
def test_a_process_that_was_never_asked_takes_over_the_calls_of_one_that_dies(tills):
    tills.start()

    async def story():
        async with calling() as till:
            wait = await till.wait
            tills.start()
            await wait.wait_for_instances(2, timeout=20)
            ref = await wait.later(3)
            await tills.until("wait 3")
            (owner,) = [each.pid for each in wait.instances() if each.data.get("jobs")] or [None]
            if owner is None:  # it was told a moment ago
                (owner,) = (await shown(wait)).values()
            os.kill(owner, signal.SIGKILL)
            await tills.until("wait 3", times=2)
            tills.go()
            assert await ref.result(30) == "waited for 3"

    asyncio.run(story())


async def shown(client: Any) -> dict[str, int]:
    """The process that has the calls, as its record says."""
    async with asyncio.timeout(20):
        while not (found := {each.label: each.pid for each in client.instances() if each.data.get("jobs")}):
            await asyncio.sleep(0.01)  # another process writes the record
    return found


@pytest.mark.slow
def test_a_failing_call_is_tried_again_as_it_was_said_and_then_waits_for_a_person(tills):
    tills.start()

    async def story():
        async with calling() as till:
            fails = await till.fails
            mended = await fails.later(2, retry=Retry(first=0.01, attempts=5))
            assert await mended.result(20) == "printed"
            ref = await fails.later(1000, retry=Retry(first=0.01, attempts=2))
            with pytest.raises(Conflict, match="failed 2 times, the last time with Unavailable: the printer is off"):
                await ref.result(20)
            assert (await ref.status())["code"] == "retries_exhausted"

    asyncio.run(story())
    assert len(tills.did) == 5


@service(name="letters", namespace="demo")
class Letters:
    sent: list[int]

    def __init__(self) -> None:
        self.sent = []

    @endpoint(idempotent=True)
    async def send(self, number: int) -> int:
        self.sent.append(number)
        if len(self.sent) == 1:
            raise Unavailable("the post is closed")
        return len(self.sent)

    @endpoint
    async def burn(self) -> None: ...

    @endpoint(idempotent=True)
    async def list(self) -> AsyncIterator[int]:
        yield 1


@service(name="safe", namespace="demo")
class Safe:
    @endpoint(durable=True)
    async def fill(self, call: Call) -> int:
        return 1


def later_of(system: System, address: str) -> Any:
    """The `later` of an endpoint's client; type checkers know a handle's methods as the class has them."""
    service = Safe if address.startswith("demo.safe") else Letters
    return getattr(system.client(service), address.rpartition(".")[2]).later


def test_without_a_retry_a_failure_is_tried_again_for_a_quarter_of_an_hour():
    async def story():
        async with System(Letters) as system:
            ref = await later_of(system, "demo.letters.send")(7, delay=3 * DAY)
            await system.advance(days=2.9)
            assert (await ref.status())["state"] == "queued"
            await system.advance(days=0.2)
            assert await ref.result(5) == 2

    asyncio.run(story())


def test_a_call_that_is_cancelled_before_its_time_is_not_made():
    async def story():
        async with System(Letters) as system:
            ref = await later_of(system, "demo.letters.send")(7, delay=DAY)
            await ref.cancel()
            await system.advance(days=2)
            assert (await ref.status())["state"] == "cancelled"
            with pytest.raises(Conflict, match="was cancelled"):
                await ref.result(5)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("called", "why"),
    [
        ("burn", r"demo\.letters\.burn is neither durable nor idempotent: .* made again when its process dies"),
        ("list", r"demo\.letters\.list streams"),
    ],
)
def test_what_cannot_be_called_later_is_refused_with_the_reason(called, why):
    async def story():
        async with System(Letters) as system:
            with pytest.raises(Invalid, match=why) as refused:
                await later_of(system, f"demo.letters.{called}")()
            assert refused.value.code == "invalid_argument", "as of any argument that does not fit"
            if called == "burn":
                assert "idempotent=True where running it twice does no harm" in refused.value.fix

    asyncio.run(story())


def test_a_durable_endpoint_takes_no_retry_for_its_steps_say_theirs():
    async def story():
        async with System(Safe) as system:
            with pytest.raises(Invalid, match="each of its steps says how it is tried again"):
                await later_of(system, "demo.safe.fill")(retry=Retry(attempts=3))
            assert await (await later_of(system, "demo.safe.fill")()).result(5) == 1

    asyncio.run(story())


def test_what_is_no_retry_is_refused_by_who_would_keep_it():
    async def story():
        async with System(Letters) as system:
            for wrong in (3, {"attempts": -1}, {"first": "soon"}):
                with pytest.raises(Invalid, match="is no Retry"):
                    await later_of(system, "demo.letters.send")(7, retry=wrong)

    asyncio.run(story())


def test_a_record_that_was_kept_without_a_retry_is_read():
    kept = msgspec.msgpack.encode({"id": new_call_id(1), "route": "demo.letters.send", "created": 1})
    assert msgspec.msgpack.decode(kept, type=CallRecord).retry is None
    record = CallRecord(id=new_call_id(1), route="demo.letters.send", created=1, retry=Retry(attempts=3))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=CallRecord) == record
