"""Instances that hang, asked where: a real keeper, real runners, and what they say when they lie."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
from typing import Any

import msgspec
import pytest

from bema.core.errors import Conflict, Invalid, NotFound, ProtocolError, Unavailable
from bema.core.instance import State
from bema.core.naming import new_instance_id
from bema.deploy.keeper.processes import start_of
from bema.deploy.launch.inspection import InspectionSocket, InspectionSockets
from bema.deploy.launch.launcher import Announced, Reported
from bema.deploy.model.replica import Replica
from bema.deploy.model.stack import Stack
from tests.deploy.keeper.conftest import platform, until
from tests.deploy.launch.test_process import APP, Stage, own_state, told

__all__ = ["own_state", "platform"]

SLEEP = "import time\ntime.sleep(600)\n"
LOCK = "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()\n"
TASKS = """
import asyncio
async def main():
    one, two, both = asyncio.Lock(), asyncio.Lock(), asyncio.Event()
    async def hold(mine, other):
        async with mine:
            if mine is two:
                both.set()
            await both.wait()
            await other.acquire()
    await asyncio.gather(hold(one, two), hold(two, one))
asyncio.run(main())
"""
LOOP = "while True:\n    pass\n"
HELD = "import re\nre.match('(a+)+$', 'a' * 60 + 'b')\n"
BLOCKING = """
import time
async def app(scope, receive, send):
    if scope["type"] == "http":
        time.sleep(600)
"""
DEAF = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(600)\n"
)

PLACES = {
    "a sleep": (SLEEP, "script-main.py:2 time.sleep"),
    "a lock": (LOCK, "script-main.py:4 lock.acquire"),
    "a loop": (LOOP, "script-main.py:(1 while True|2 pass)"),
    "C code": (HELD, r"script-main.py:2 re\.match\('\(a.*'b'\)"),
}


async def standing(stage: Stage, instance: int, where: str) -> Stack:
    """Its stack once it stands there."""
    stack = Stack()
    try:
        async with asyncio.timeout(60):
            while not re.fullmatch(where, stack.where()):
                with contextlib.suppress(Unavailable):  # it may not have come to the runner's first line yet
                    stack = await stage.launcher.stack(instance)
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"it stands in {stack.where()}: {stack}")
    return stack


@pytest.mark.parametrize("what", PLACES)
def test_a_script_that_hangs_tells_where(platform, what):
    async def story(stage):
        code, where = PLACES[what]
        given = stage.given(code, "main", "main")
        running = await stage.start(given)
        found = await standing(stage, running.instance, where)
        assert (found.instance, found.version, found.held) == (running.label, "v1", what == "C code")

    told(platform, story)


def test_tasks_that_wait_for_each_other_are_told_both(platform):
    async def story(stage):
        running = await stage.start(stage.given(TASKS, "main", "main"))
        place = "script-main.py:10 other.acquire"
        tasks = f"script-main.py:11 asyncio.gather (Task-1), {place} (Task-2), {place} (Task-3)"
        await standing(stage, running.instance, re.escape(tasks))

    told(platform, story)


@pytest.mark.parametrize("kind", ["main", "app"])
def test_a_start_that_never_listens_says_where_it_stood_in_its_end_and_in_its_log(platform, kind):
    async def story(stage):
        await stage.start(stage.given(SLEEP, kind))
        end = await stage.event()
        how = "it did not listen within 3 s: it stood in script-app.py:2 time.sleep"
        assert (end.cause, end.message) == ("start_timeout", how)
        assert how in [line["event"] for line in end.tail if line["stream"] == "bema"]

    told(platform, story, start_limit=3.0)


def test_one_that_ignores_its_stop_says_where_it_stood_when_it_was_killed(platform):
    async def story(stage):
        running = await stage.start(stage.given(DEAF, "main", "main"))
        await standing(stage, running.instance, "script-main.py:4 time.sleep")
        await stage.launcher.stop(running.instance, 4.0, "test")
        end = await stage.event()
        assert (end.signal, end.message) == (9, "it was ended by SIGKILL: it stood in script-main.py:4 time.sleep")
        said = [line["event"] for line in end.tail if line["stream"] == "bema"]
        assert "it does not end within 4 s: it stands in script-main.py:4 time.sleep" in said

    told(platform, story)


def test_one_that_ends_as_asked_says_nothing_of_it(platform):
    async def story(stage):
        running = await stage.start(stage.given(APP))
        assert isinstance(await stage.event(), Announced)
        await stage.launcher.stop(running.instance, 20.0, "test")
        end = await stage.event()
        assert (end.cause, end.message) == ("stopped", "it ended with code 0")

    told(platform, story)


def test_a_stalled_instance_shows_where_until_it_goes_on(platform):
    async def story(stage):
        number = (await stage.moody()).instance
        stage.file("block").touch()
        assert await stage.event() == Reported(number, ready=True, stalled=True)
        found = await stage.event()
        assert re.fullmatch(r"stalled \d+\.\d s in script-Moody.py:15 time.sleep", found.stands)
        assert [each.data["stands"] for each in await stage.shown()] == [found.stands]
        stage.file("block").unlink()
        assert await stage.event() == Reported(number, ready=True, stalled=False)
        assert ["stands" in each.data for each in await stage.shown()] == [False]

    told(platform, story)


def test_the_next_orchestrator_shows_what_the_one_before_found_out(platform):
    async def story(stage):
        await stage.moody()
        stage.file("block").touch()
        while not (found := await stage.event()).stands:
            pass
        await stage.launcher.close()
        old = platform.pid_of("orchestrator")
        os.kill(old, signal.SIGKILL)
        until(lambda: platform.pid_of("orchestrator") not in (None, old))
        await stage.connect()
        [running] = await stage.launcher.poll()
        assert running.stands == found.stands
        assert [each.data["stands"] for each in await stage.shown()] == [found.stands]

    told(platform, story)


def test_the_next_orchestrator_asks_as_well(platform):
    async def story(stage):
        running = await stage.start(stage.given(SLEEP, "main", "main"))
        await standing(stage, running.instance, "script-main.py:2 time.sleep")
        await stage.launcher.close()
        old = platform.pid_of("orchestrator")
        os.kill(old, signal.SIGKILL)
        until(lambda: platform.pid_of("orchestrator") not in (None, old))
        await stage.connect()
        await stage.launcher.poll()
        await standing(stage, running.instance, "script-main.py:2 time.sleep")

    told(platform, story)


def test_a_profile_tells_where_the_time_goes(platform):
    async def story(stage):
        running = await stage.start(stage.given(f"def work():\n    {LOOP.replace('    ', '        ')}work()\n", "main"))
        profile = await stage.launcher.profile(running.instance, 1.0)
        functions = {profile.frames[frame][1] for _, stack in profile.stacks for frame in stack}
        assert "work" in functions
        assert profile.instance == running.label
        with pytest.raises(Invalid, match="at most 60 seconds"):
            await stage.launcher.profile(running.instance, 61.0)
        first = asyncio.create_task(stage.launcher.profile(running.instance, 3.0))
        await stage.launcher.stack(running.instance)
        with pytest.raises(Conflict):
            await stage.launcher.profile(running.instance, 1.0)
        assert (await first).stacks

    told(platform, story)


def test_nobody_is_asked_who_is_not_there(platform):
    async def story(stage):
        with pytest.raises(NotFound):
            await stage.launcher.stack(1)
        with pytest.raises(NotFound):
            await stage.launcher.profile(1, 1.0)

    told(platform, story)


# an instance whose end is in our hands


REPLICA = Replica(instance=new_instance_id(), deployment="d", version="v1", state=State.SERVING, since=0)


def answered(*pieces: bytes | None) -> Any:
    """What is made of it when an instance says this; `ID` stands for the question's number, None for its end."""

    async def story() -> Any:
        inspections, (ours, theirs) = InspectionSockets(None), socket.socketpair()  # type: ignore[arg-type]
        inspections._open[REPLICA.instance] = InspectionSocket(REPLICA.instance, ours)
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        asking = asyncio.ensure_future(inspections.stack(REPLICA, 0, "/script.py"))
        asked = json.loads(await loop.sock_recv(theirs, 65536))

        async def say() -> None:
            for piece in pieces:
                if piece is None:
                    theirs.close()
                else:
                    await loop.sock_sendall(theirs, piece.replace(b"ID", str(asked["id"]).encode()))

        # who says too much is not read to the end
        saying = asyncio.ensure_future(say())
        try:
            return await asking
        finally:
            saying.cancel()
            await asyncio.gather(saying, return_exceptions=True)
            inspections.close()
            theirs.close()

    return asyncio.run(story())


def test_the_answer_to_another_question_is_passed_over():
    given = answered(b'{"id": 5, "threads": [{"name": "no"}]}\n{"id"', b': ID, "threads": [{"name": "yes"}]}\n')
    assert [thread.name for thread in given.threads] == ["yes"]


def test_who_an_instance_is_is_not_for_it_to_say():
    given = answered(b'{"id": ID, "instance": "another", "version": "v9"}\n')
    assert (given.instance, given.version) == (REPLICA.label, "v1")


DEEP = b'{"id": ID, "threads": ' + b"[" * 100_000 + b"\n"


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ((b'{"id": ID, "threads": 1}\n',), ProtocolError),
        ((b'{"id": ID, "error": "KeyError: 1"}\n',), ProtocolError),
        ((b'{"id": ID, "threads": [{"name": "x", "frames": [{"file": 1}]}]}\n',), ProtocolError),
        ((None,), Unavailable),
        ((b"half a li", None), Unavailable),
        ((DEEP,), Unavailable),
        ((b"\xff\xfe\n" * 1000,), Unavailable),
        (tuple(b"x" * 1_000_000 for _ in range(18)), ProtocolError),
    ],
)
def test_what_is_no_answer_is_told_as_such(pieces, error):
    with pytest.raises(error):
        answered(*pieces)


def test_a_profile_whose_stacks_name_frames_that_are_not_there_is_no_answer():
    async def story() -> None:
        inspections, (ours, theirs) = InspectionSockets(None), socket.socketpair()  # type: ignore[arg-type]
        inspections._open[REPLICA.instance] = InspectionSocket(REPLICA.instance, ours)
        theirs.setblocking(False)
        asking = asyncio.ensure_future(inspections.profile(REPLICA, 1.0, idle=False))
        number = json.loads(await asyncio.get_running_loop().sock_recv(theirs, 65536))["id"]
        theirs.send(msgspec.json.encode({"id": number, "frames": [], "stacks": [[1, [0]]]}) + b"\n")
        try:
            with pytest.raises(ProtocolError):
                await asking
        finally:
            inspections.close()
            theirs.close()

    asyncio.run(story())


def test_a_signal_is_sent_to_nobody_who_does_not_handle_it():
    async def story() -> None:
        process = await asyncio.create_subprocess_exec("sleep", "600")
        ours, theirs = socket.socketpair()
        inspected = InspectionSocket(1, ours)
        try:
            assert await inspected.traceback(process.pid, start_of(process.pid)) == ""
            assert process.returncode is None
        finally:
            process.kill()
            assert await process.wait() == -signal.SIGKILL
            inspected.close()
            theirs.close()

    asyncio.run(story())
