"""Whatever the code of a user does to its process, thread, task, loop or interpreter, callers are told the truth at once.

One law for all: within a second the call of the code that did it has ended. Then either the instance lives, answers old and
new callers and finishes what it had, or it is not to be found any more: what it had fails as a lost connection does, and
what may run twice is answered by another instance.
"""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bema
from bema.core.errors import Disconnected, StreamCut, Unavailable
from bema.core.naming import read_instance_id
from bema.runtime.discovery.discovery import wait_for
from tests.stories.hazards import DO

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="signals, /proc and limits of Linux"),
]

PROGRAM = Path(__file__).with_name("hazards.py")
SOON = 1.0
SLACK = 1.0  # for a machine that is busy with other tests
OTHER_FORMS = {  # beside the loop, where a hazard differs by the form of its handler
    "in_a_thread": (
        "exits asks_to_exit raises_an_interrupt closes_every_file forks_and_both_answer forks_and_the_child_exits"
        " forks_by_multiprocessing exits_in_a_thread injects_an_error_into_the_main_thread stops_the_loop_later"
        " cancels_every_task recurses traces breaks_logging raises_its_own raises_mute raises_generator_exit"
        " raises_cancelled raises_stop_iteration raises_stop_async_iteration raises_group_with_exit terminates_itself"
    ),
    "in_a_stream": (
        "exits asks_to_exit closes_every_file forks_and_both_answer forks_and_the_child_raises cancels_every_task recurses"
        " breaks_logging raises_its_own raises_mute raises_generator_exit raises_cancelled raises_stop_iteration"
        " raises_stop_async_iteration raises_group_with_exit"
    ),
    "in_a_stream_in_a_thread": (
        "exits asks_to_exit forks_and_both_answer recurses raises_its_own raises_generator_exit raises_cancelled"
        " raises_stop_iteration raises_stop_async_iteration"
    ),
    "when_closed": (
        "exits asks_to_exit raises_an_interrupt recurses raises_its_own raises_mute raises_generator_exit raises_cancelled"
        " raises_stop_iteration raises_group_with_exit"
    ),
}
CASES = [("in_the_loop", name) for name in DO] + [
    (f, name) for f, names in OTHER_FORMS.items() for name in names.split()
]


class Instance:
    """One process of the program, and its instance."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        ready = self.process.stderr.readline()
        assert "is ready" in ready, ready + self.process.stderr.read()
        self.id = read_instance_id(ready.split()[-1])

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Instance]]:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path / "state"))
    started: list[Instance] = []

    def one(*arguments: str) -> Instance:
        started.append(Instance(*arguments))
        return started[-1]

    yield one
    for instance in started:
        instance.close()


class Caller:
    """Calls of the service, by the names of its endpoints."""

    def __init__(self, runtime: bema.DistributedRuntime) -> None:
        self._runtime = runtime

    def endpoint(self, name: str, **options: Any) -> Any:
        return self._runtime.endpoint(f"story.hazards.{name}").client(**options)

    async def does(self, form: str, instance: int) -> Any:
        client = self.endpoint(form, instance=instance)
        if form == "when_closed":
            async with contextlib.aclosing(client()) as items:
                return await anext(items)
        return await collected(client()) if "stream" in form else await client()

    async def answers(self, instance: Instance) -> bool:
        try:
            async with asyncio.timeout(SOON + SLACK):
                return bool(await self.endpoint("pid", instance=instance.id)() == instance.process.pid)
        except (Unavailable, Disconnected, TimeoutError):
            return False


async def collected(stream: Any) -> list[Any]:
    return [item async for item in stream]


async def outcome(work: Any) -> Any:
    """What became of it: its answer or its error."""
    try:
        return await work
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError):
            raise
        return error


@contextlib.asynccontextmanager
async def calling() -> AsyncIterator[tuple[Caller, Caller, Any]]:
    """A caller with connections, one without, and the view of who is there."""
    async with bema.connect() as runtime, bema.connect() as fresh:
        yield Caller(runtime), Caller(fresh), await runtime.view("story", "hazards")


async def settled(condition: Callable[[], bool]) -> bool:
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > SOON + SLACK:
            return False
        await asyncio.sleep(0.01)
    return True


@pytest.mark.parametrize(("form", "name"), CASES)
def test_callers_are_told_the_truth_whatever_a_handler_does(start, form, name):
    instance = start(name)

    async def story() -> None:
        async with calling() as (caller, fresh, view):
            await wait_for(view, lambda seen: len(seen) == 1)
            beside = {n: asyncio.ensure_future(outcome(caller.endpoint(n)())) for n in ("waits", "waits_once")}
            beside["waits_in_a_thread"] = asyncio.ensure_future(outcome(caller.endpoint("waits_in_a_thread")()))
            beside["counts"] = asyncio.ensure_future(outcome(collected(caller.endpoint("counts")())))
            await asyncio.sleep(0.05)
            await asyncio.to_thread(start)
            await wait_for(view, lambda seen: len(seen) == 2)

            call = asyncio.ensure_future(outcome(caller.does(form, instance.id)))
            patience = 3.0 if name == "runs_out_of_processor_time" else SOON + SLACK
            done, _ = await asyncio.wait({call}, timeout=patience)
            assert done, "the call of the handler that did it has no end"

            def found() -> bool:
                return any(seen.id == instance.id and seen.routable() for seen in view.instances())

            await asyncio.sleep(0.3)  # what ends because of it has begun to
            if await caller.answers(instance) and await fresh.answers(instance):
                ended = {n: await task for n, task in beside.items()}
                assert ended == {
                    "waits": "here",
                    "waits_once": "here",
                    "waits_in_a_thread": "here",
                    "counts": list(range(10)),
                }
                return
            assert await settled(lambda: not found()), "it does not answer, and callers find it still"
            done, running = await asyncio.wait(beside.values(), timeout=2.0)
            assert not running, "calls that it had have no end"
            assert beside["waits"].result() in ("here", "elsewhere"), beside["waits"].result()
            for n in ("waits_once", "waits_in_a_thread", "counts"):
                end = beside[n].result()
                assert end == ("here" if n != "counts" else list(range(10))) or isinstance(
                    end, Disconnected | StreamCut
                ), end

    asyncio.run(asyncio.wait_for(story(), 30))


def test_a_child_that_a_handler_forked_ends_where_it_comes_back(start):
    """It would go on with its parent's calls, whose side effects would happen twice."""
    instance = start("forks_and_both_answer")

    async def story() -> None:
        async with calling() as (caller, _, view):
            await wait_for(view, lambda seen: len(seen) == 1)
            for form in ("in_the_loop", "in_a_thread", "in_a_stream", "in_a_stream_in_a_thread"):
                await caller.does(form, instance.id)

            def children() -> list[str]:
                return [
                    path.parent.name
                    for path in Path("/proc").glob("[0-9]*/status")
                    if _parent_of(path) == instance.process.pid
                ]

            assert await settled(lambda: not children()), children()

    asyncio.run(asyncio.wait_for(story(), 30))


def _parent_of(status: Path) -> int:
    """The parent of a process that lives, 0 where it does not: nobody waited for it, so it is left as a zombie."""
    try:
        fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
    except OSError:
        return 0
    return 0 if fields["State"].startswith("Z") else int(fields["PPid"])
