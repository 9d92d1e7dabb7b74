"""What the runner's own thread tells of a script that hangs, and what it leaves alone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bema.runner.inspection import SIGNAL
from tests.runner.conftest import Launch

READY = "print('ready', flush=True)\n"


class Asked:
    """A script with the other end of its inspection in our hands."""

    def __init__(self, launch: Launch, code: str) -> None:
        self.end, theirs = socket.socketpair()
        self.end.settimeout(60)
        self.lines = self.end.makefile("rb")
        number = theirs.fileno()
        self.running = launch(code, "main", "", also=(number,), inspection_fd=number).start()
        theirs.close()
        assert self.running.process.stdout is not None
        assert self.running.process.stdout.readline() == "ready\n"

    def ask(self, what: str, **more: Any) -> dict[str, Any]:
        self.end.sendall(json.dumps({"id": 7, "ask": what, **more}).encode() + b"\n")
        answer: dict[str, Any] = json.loads(self.lines.readline())
        assert answer["id"] == 7
        return answer

    def until(self, holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The stack once that holds of it: where a script stands it comes to after it said so."""
        end = time.monotonic() + 60
        while not holds(stack := self.ask("stack")):
            assert time.monotonic() < end, stack
        return stack

    def main(self, line: str) -> dict[str, Any]:
        """The script's own innermost frame in the main thread, once it stands in that line."""
        return _own(self.until(lambda s: _own(s["threads"][0]).get("text") == line)["threads"][0])

    def close(self) -> None:
        self.lines.close()
        self.end.close()


def _own(stack: dict[str, Any]) -> dict[str, Any]:
    return next((frame for frame in stack["frames"] if frame["own"]), {})


@pytest.fixture
def asked(launch: Launch) -> Iterator[Callable[[str], Asked]]:
    with contextlib.ExitStack() as made:

        def make(code: str) -> Asked:
            new = Asked(launch, code)
            made.callback(new.close)
            return new

        yield make


def test_a_sleep_is_told_with_its_file_its_line_and_what_it_calls(asked):
    frame = asked("import time\ndef nap():\n    time.sleep(600)\n" + READY + "nap()\n").main("time.sleep(600)")
    assert (Path(frame["file"]).name, frame["line"], frame["function"]) == ("given.py", 3, "nap")
    assert frame["call"] == "time.sleep"


def test_the_frames_of_the_runner_are_not_the_scripts(asked):
    (thread,) = asked("import time\n" + READY + "time.sleep(600)\n").ask("stack")["threads"]
    assert thread["main"]
    assert {frame["function"] for frame in thread["frames"]} == {"<module>"}


LOCKS = """
import threading
one, two = threading.Lock(), threading.Lock()
def first():
    with one:
        meet.wait()
        two.acquire()
def second():
    with two:
        meet.wait()
        one.acquire()
meet = threading.Barrier(2)
threading.Thread(target=second, name="the other").start()
"""


def test_both_sides_of_a_deadlock_of_threads_are_told(asked):
    def held(stack: dict[str, Any]) -> bool:
        return {_own(thread).get("call") for thread in stack["threads"]} == {"one.acquire", "two.acquire"}

    stack = asked(LOCKS + READY + "first()\n").until(held)
    assert [(thread["name"], _own(thread)["call"]) for thread in stack["threads"]] == [
        ("MainThread", "two.acquire"),
        ("the other", "one.acquire"),
    ]


TASKS = """
import asyncio
async def deep(lock):
    await lock.acquire()
async def hold(mine, other):
    async with mine:
        await meet.wait()
        await deep(other)
async def wait_for(task):
    await task
async def main():
    global meet
    one, two, meet = asyncio.Lock(), asyncio.Lock(), Both()
    first = asyncio.create_task(hold(one, two), name="first")
    asyncio.create_task(wait_for(first), name="third")
    asyncio.create_task(hold(two, one), name="second")
    await first
class Both:
    def __init__(self):
        self.here, self.all = 0, asyncio.Event()
    async def wait(self):
        self.here += 1
        if self.here == 2:
            self.all.set()
        await self.all.wait()
"""


def test_a_deadlock_of_tasks_is_told_with_every_task_and_its_coroutines(asked):
    def waits(stack: dict[str, Any]) -> bool:
        calls = {task["name"]: _own(task).get("call") for task in stack["tasks"]}
        return calls.get("first") == calls.get("second") == "lock.acquire"

    stack = asked(TASKS + READY + "asyncio.run(main())\n").until(waits)
    assert stack["threads"][0]["idle"]
    tasks = {task["name"]: task for task in stack["tasks"]}
    assert [frame["function"] for frame in tasks["first"]["frames"] if frame["own"]] == ["deep", "hold"]
    assert tasks["third"]["waits_for"] == "first"
    assert not any(task["running"] for task in tasks.values())


def test_a_task_that_blocks_its_loop_is_the_one_that_runs(asked):
    code = "import asyncio, time\nasync def main():\n    time.sleep(600)\n" + READY + "asyncio.run(main())\n"
    stack = asked(code).until(lambda s: _own(s["threads"][0]).get("call") == "time.sleep")
    assert not stack["threads"][0]["idle"]
    assert [task["running"] for task in stack["tasks"]] == [True]


def test_a_call_over_several_lines_is_told_with_its_first(asked):
    frame = asked("import time\n" + READY + "time.sleep(\n    600\n)\n").main("time.sleep(")
    assert frame["call"] == ""


def test_c_code_that_holds_the_interpreter_is_told_by_a_signal(asked):
    # a match that goes back and forth without end asks nobody and lets nobody run
    given = asked("import re\n" + READY + "re.match('(a+)+$', 'a' * 60 + 'b')\n")
    given.end.settimeout(1)
    with pytest.raises(TimeoutError):
        while True:  # it may have answered just before
            given.ask("stack")
    given.end.settimeout(60)
    os.kill(given.running.process.pid, SIGNAL)
    told = b""
    while b"line 3 in <module>" not in told:
        told += given.end.recv(65536)
    assert b"given.py" in told


CLOSING = """
import os, socket, threading, time
os.closerange(3, 64)
ends = [socket.socketpair() for _ in range(30)]
for one, other in ends:
    one.sendall(b"mine")
    other.sendall(b"mine")
print("closed", flush=True)
while threading.active_count() > 1:
    time.sleep(0.01)
assert [end.recv(64, socket.MSG_DONTWAIT) for pair in ends for end in pair] == [b"mine"] * 60
print("whole", flush=True)
"""


def test_a_script_that_closed_what_it_did_not_open_keeps_what_it_opens(asked):
    given = asked(READY + CLOSING)
    assert given.running.process.stdout.readline() == "closed\n"
    given.end.sendall(b'{"id": 1, "ask": "stack"}\n')
    assert given.running.ended()[:2] == (0, "whole\n")


IMPORTING = """
import sys, threading, time, types
class Half(types.ModuleType):
    pass
sys.modules["asyncio"] = Half("asyncio")
"""


def test_one_that_imports_asyncio_just_now_has_no_tasks(asked):
    stack = asked(IMPORTING + READY + "time.sleep(600)\n").ask("stack")
    assert (stack["tasks"], len(stack["threads"])) == ([], 1)


HOSTILE = """
import asyncio, time
class Task(asyncio.Task):
    def get_name(self):
        raise ValueError("no name")
async def main():
    asyncio.get_running_loop().set_task_factory(lambda loop, coroutine, **how: Task(coroutine, loop=loop))
    asyncio.create_task(asyncio.sleep(600))
    await asyncio.sleep(0)
    time.sleep(600)
"""


def test_a_look_that_fails_is_told_and_the_next_question_is_answered(asked):
    given = asked(HOSTILE + READY + "asyncio.run(main())\n")
    end = time.monotonic() + 60
    while "no name" not in given.ask("stack").get("error", ""):
        assert time.monotonic() < end
    assert given.ask("profile", seconds=0.1)["looks"] > 0


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"{}", b'{"id": "x", "ask": 1}', b"\xff" * 9000])
def test_what_is_no_question_is_skipped(asked, line):
    given = asked("import time\n" + READY + "time.sleep(600)\n")
    given.end.sendall(line + b"\n")
    assert given.ask("stack")["threads"]


def test_a_thread_that_works_weighs_and_one_that_waits_does_not(asked):
    given = asked(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "def work():\n    while True:\n        sum(range(1000))\n" + READY + "work()\n"
    )
    profile = given.ask("profile", seconds=1)
    functions = [profile["frames"][frame][1] for weight, stack in profile["stacks"] for frame in stack]
    assert set(functions) == {"<module>", "work"}
    assert sum(weight for weight, _ in profile["stacks"]) > 100_000


def test_time_that_passes_is_weighed_where_it_is_asked_for(asked):
    given = asked("import time\ndef nap():\n    time.sleep(600)\n" + READY + "nap()\n")
    profile = given.ask("profile", seconds=0.5, idle=True)
    assert [[profile["frames"][frame][1] for frame in stack] for _, stack in profile["stacks"]] == [["<module>", "nap"]]


def test_a_stack_is_told_while_a_profile_is_taken_and_a_second_profile_is_refused(asked):
    given = asked("import time\n" + READY + "time.sleep(600)\n")
    given.end.sendall(b'{"id": 1, "ask": "profile", "seconds": 2, "idle": true}\n')
    assert given.ask("profile", seconds=1)["error"] == "busy"
    assert given.ask("stack")["threads"]
    assert json.loads(given.lines.readline())["stacks"]


def test_the_script_ends_as_it_would_without_it(asked):
    given = asked("import sys\n" + READY + "sys.exit(3)\n")
    assert given.running.ended()[0] == 3


def test_the_script_forks_and_both_go_on(asked):
    given = asked(
        "import os\n" + READY + "pid = os.fork()\nif pid:\n    os.waitpid(pid, 0)\nprint('gone', flush=True)\n"
    )
    code, out, _ = given.running.ended()
    assert (code, out) == (0, "gone\ngone\n")


def test_the_signal_is_unhandled_where_nobody_passed_a_descriptor(launch):
    running = launch(READY + "import time\ntime.sleep(600)\n", "main").start()
    assert running.process.stdout.readline() == "ready\n"
    running.process.send_signal(SIGNAL)
    assert running.ended()[0] == -SIGNAL
    assert signal.SIGRTMIN < SIGNAL < signal.SIGRTMAX
