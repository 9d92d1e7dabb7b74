"""`bema dev FILE`: what is saved is served, and what runs finishes. Real processes, real files."""

import asyncio
import contextlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from bema import DistributedRuntime, Unavailable
from bema.runtime.discovery.flock import FlockDiscovery
from bema.runtime.processes import process_start

SERVICE = """
import asyncio, os, pathlib
from bema import async_init, endpoint, service
from helper import NUMBER

@service(name="edited", namespace="dev")
class Edited:
    @endpoint()
    async def version(self) -> list[int]:
        return [1, NUMBER, os.getpid()]

    @endpoint()
    async def waits(self, file: str) -> list[int]:
        pathlib.Path(file + ".began").touch()
        while not pathlib.Path(file).exists():
            await asyncio.sleep(0.005)
        return await self.version()
"""
IN_DEV = {"BEMA_LANE": "dev"}
NEXT = SERVICE.replace("[1, NUMBER", "[2, NUMBER")


class Dev:
    """A running `bema dev`, its lines as they come, and a runtime that meets what it serves."""

    def __init__(self, bema) -> None:
        self.folder = bema.folder
        self.process = subprocess.Popen(
            [*bema.command, "dev", "service.py"], cwd=bema.folder, env=bema.env, stderr=subprocess.PIPE, text=True
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self.said: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        self.runtime = DistributedRuntime(FlockDiscovery(bema.folder / "state" / "run" / "d"))

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self._lines.put(line)

    async def until_said(self, text: str) -> str:
        """The first line from here on that holds `text`."""
        while True:
            line = await asyncio.to_thread(self._lines.get, timeout=20)
            self.said.append(line)
            if text in line:
                return line

    async def version(self) -> list[int]:
        client = self.runtime.endpoint("dev.edited.version").client(wait=5)
        found: list[int] = await client()
        return found

    def save(self, text: str, name: str = "service.py") -> float:
        (self.folder / name).write_text(text)
        return time.monotonic()

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


@contextlib.asynccontextmanager
async def running(bema, text=SERVICE):
    (bema.folder / "service.py").write_text(text)
    (bema.folder / "helper.py").write_text("NUMBER = 1")
    dev = Dev(bema)
    try:
        yield dev
    finally:
        await dev.runtime.close()
        if dev.process.poll() is None:
            dev.end()


def importing(bema) -> float:
    """The seconds that a process of the service needs before it runs a line of its file."""
    code = (
        "import runpy, sys; sys.argv = ['bema', '--help']; import bema.__main__, bema.cli.run, bema, uvloop; bema.serve"
    )
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], env=bema.env, check=True)
    return time.monotonic() - began


def test_a_save_is_served_within_a_second_and_running_calls_finish(bema):
    async def story():
        async with running(bema) as dev:
            assert "dev.edited is ready" in await dev.until_said("ready")
            one, _, old = await dev.version()
            wanted = str(bema.folder / "go")
            waiting = asyncio.ensure_future(dev.runtime.endpoint("dev.edited.waits").client()(wanted))
            while not os.path.exists(wanted + ".began"):
                await asyncio.sleep(0.005)
            cost = importing(bema)
            saved = dev.save(NEXT)
            assert "dev.edited is reloaded" in await dev.until_said("reloaded")
            took = time.monotonic() - saved
            assert took - cost < 1.0, f"{took:.2f} s, of which {cost:.2f} s are imports"
            while (found := await dev.version())[0] == one:
                pass
            assert found[0] == 2 and found[2] != old
            assert process_start(old) is not None and not waiting.done()
            (bema.folder / "go").touch()
            assert await waiting == [1, 1, old]
            while process_start(old) is not None:
                await asyncio.sleep(0.01)
            assert dev.end() == 0

    asyncio.run(story())


def test_what_is_being_written_answers_nobody_who_does_not_ask_for_it(bema):
    """Beside one that was started by hand: callers get that one, and `bema dev` is in a lane of its own."""

    async def story():
        async with running(bema) as dev:
            await dev.until_said("BEMA_LANE=dev")
            assert (await dev.version())[0] == 1  # alone it is found without asking
            (bema.folder / "hand.py").write_text(SERVICE.replace("[1, NUMBER", "[7, NUMBER"))
            run = [*bema.command, "run", "hand.py"]
            hand = subprocess.Popen(run, cwd=bema.folder, env=bema.env, stderr=subprocess.PIPE, text=True)
            assert hand.stderr is not None
            try:
                assert "is ready" in await asyncio.to_thread(hand.stderr.readline)
                while len((await dev.runtime.view("dev", "edited")).instances()) < 2:
                    await asyncio.sleep(0.01)
                assert {(await dev.version())[0] for _ in range(8)} == {7}
                asking = dev.runtime.endpoint("dev.edited.version").client(lane="dev")
                assert {(await asking())[0] for _ in range(8)} == {1}
                called = [await asyncio.to_thread(bema, "call", "dev.edited.version", **env) for env in ({}, IN_DEV)]
                assert [json.loads(done.stdout)[0] for done in called] == [7, 1]
                listed = json.loads((await asyncio.to_thread(bema, "ls", "--json")).stdout)["instances"]
                assert sorted(instance["lane"] for instance in listed) == ["dev", "hand"]
                rows = (await asyncio.to_thread(bema, "ls")).stdout.splitlines()
                assert sorted("dev.edited (dev) " in row for row in rows[1:]) == [False, True]
            finally:
                hand.terminate()
                await asyncio.to_thread(hand.communicate)
            assert dev.end() == 0

    asyncio.run(story())


def test_each_call_is_a_line_on_the_terminal(bema):
    async def story():
        async with running(bema) as dev:
            await dev.until_said("is ready")
            await dev.version()
            line = await dev.until_said(" ms ok")
            assert re.fullmatch(
                r"\d\d:\d\d:\d\d INFO    dev\.edited\.version \d+\.\d ms ok  trace=[0-9a-f]{32}\n", line
            )

    asyncio.run(story())


@pytest.mark.parametrize(
    ("edit", "shown"),
    [
        ("def f(:", "syntax_error: service.py, line 1"),
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        (
            SERVICE + "\n    @async_init\n    async def breaks(self):\n        raise ValueError('on purpose')\n",
            "ValueError: on purpose",
        ),
        ("x = 1", "service.py has 0 services"),
    ],
    ids=["syntax", "import", "hook", "nothing"],
)
def test_an_edit_that_does_not_start_is_shown_and_the_old_version_serves_on(bema, edit, shown):
    async def story():
        async with running(bema) as dev:
            await dev.until_said("is ready")
            before = await dev.version()
            dev.save(edit)
            await dev.until_said("the version before it keeps serving")
            assert any(shown in line for line in dev.said), dev.said
            assert await dev.version() == before
            dev.save(NEXT)
            await dev.until_said("is reloaded")
            while (await dev.version())[0] != 2:
                pass
            assert dev.end() == 0

    asyncio.run(story())


def test_modules_of_its_folder_are_reloaded_also_when_their_size_stays(bema):
    async def story():
        bema.env.pop("PYTHONDONTWRITEBYTECODE", None)
        async with running(bema) as dev:
            await dev.until_said("is ready")
            for number in (2, 3):
                dev.save(f"NUMBER = {number}", "helper.py")
                await dev.until_said("is reloaded")
                while (await dev.version())[1] != number:
                    pass
            assert dev.end(signal.SIGTERM) == 0

    asyncio.run(story())


def test_a_file_that_does_not_start_at_first_is_mended(bema):
    async def story():
        async with running(bema, "1 / 0") as dev:
            await dev.until_said("service.py does not start; mend it and save")
            dev.save(SERVICE)
            await dev.until_said("is ready")
            assert (await dev.version())[0] == 1

    asyncio.run(story())


def test_ctrl_c_lets_running_calls_finish(bema):
    async def story():
        async with running(bema) as dev:
            await dev.until_said("is ready")
            wanted = str(bema.folder / "go")
            waiting = asyncio.ensure_future(dev.runtime.endpoint("dev.edited.waits").client()(wanted))
            while not os.path.exists(wanted + ".began"):
                await asyncio.sleep(0.005)
            dev.process.send_signal(signal.SIGINT)
            with pytest.raises(Unavailable):
                while True:
                    await dev.runtime.endpoint("dev.edited.version").client()()
            assert not waiting.done()
            (bema.folder / "go").touch()
            assert (await waiting)[0] == 1
            assert await asyncio.to_thread(dev.process.wait, 20) == 0

    asyncio.run(story())


def test_a_service_that_ends_by_itself_is_told_of_and_comes_back_with_a_save(bema):
    async def story():
        async with running(bema) as dev:
            await dev.until_said("is ready")
            os.kill((await dev.version())[2], signal.SIGKILL)
            await dev.until_said("the service ended by SIGKILL; save service.py to start it again")
            dev.save(NEXT)
            await dev.until_said("is ready")
            assert (await dev.version())[0] == 2

    asyncio.run(story())


def test_no_process_outlives_it(bema):
    async def story():
        async with running(bema) as dev:
            await dev.until_said("is ready")
            child = (await dev.version())[2]
            assert dev.end(signal.SIGKILL) == -signal.SIGKILL
            began = time.monotonic()
            while process_start(child) is not None:
                assert time.monotonic() - began < 10
                await asyncio.sleep(0.01)

    asyncio.run(story())


def test_versions_follow_each_other_on_one_status_port(bema):
    def ready() -> int:
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
            return int(answer.status)
        return 503

    async def story():
        async with running(bema) as dev:
            await dev.until_said("is ready")
            assert await asyncio.to_thread(ready) == 200
            old = (await dev.version())[2]
            dev.save(NEXT)
            await dev.until_said("is reloaded")
            while process_start(old) is not None:
                await asyncio.sleep(0.01)
            assert await asyncio.to_thread(ready) == 200
            assert dev.end() == 0

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    bema.env["BEMA_STATUS_PORT"] = str(port)
    asyncio.run(story())


def test_a_file_that_is_not_there(bema):
    done = bema("dev", "nowhere.py")
    assert done.returncode == 1
    assert "nowhere.py is not a file" in done.stderr
