"""Durable calls in real processes: a worker that is killed, one that takes over, and the command line beside them."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import bema
from bema.core.errors import BemaError, Conflict, DeadlineExceeded, Invalid, Refused
from bema.core.naming import is_call_id

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).with_name("shop.py")


class Terminal:
    """Starts workers and commands over one state directory; `did` is what their steps did."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "shop.log"
        self.workers: list[subprocess.Popen[str]] = []

    def worker(self, seconds: float = 0.0, name: str = "shop") -> subprocess.Popen[str]:
        command = [sys.executable, str(PROGRAM), str(seconds), name]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.workers.append(process)
        assert process.stderr is not None
        assert f"demo.{name} is ready" in process.stderr.readline()
        return process

    def bema(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bema", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "bema", *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @property
    def did(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def until(self, what: str) -> None:
        until = time.monotonic() + 20
        while what not in self.did:
            assert time.monotonic() < until, self.did
            time.sleep(0.01)  # another process writes the file


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("SHOP_LOG", str(tmp_path / "shop.log"))
    terminal = Terminal(tmp_path)
    yield terminal
    for process in terminal.workers:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def test_a_caller_gets_its_answer_though_the_worker_was_killed_in_the_second_step(terminal):
    worker = terminal.worker(60)
    caller = terminal.start("call", "demo.shop.order", "number=1")
    terminal.until("ship receipt 1")
    worker.kill()
    terminal.worker()
    out, said = caller.communicate(timeout=30)
    assert (caller.returncode, out) == (0, "thanks for receipt 1, shipped\n"), said
    assert terminal.did == ["charge 1", "ship receipt 1", "ship receipt 1", "thank receipt 1, shipped"]


def test_another_process_takes_over_when_the_first_dies(terminal):
    first = terminal.worker(60)
    second = terminal.worker()
    caller = terminal.start("call", "demo.shop.order", "number=2")
    terminal.until("ship receipt 2")
    first.kill()
    out, said = caller.communicate(timeout=30)
    assert out == "thanks for receipt 2, shipped\n", said
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) == 0


def test_a_worker_that_is_told_to_stop_puts_its_calls_away(terminal):
    worker = terminal.worker(60)
    caller = terminal.start("call", "demo.shop.order", "number=3")
    terminal.until("ship receipt 3")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0, "it does not wait for what goes on elsewhere"
    terminal.worker()
    out, said = caller.communicate(timeout=30)
    assert out == "thanks for receipt 3, shipped\n", said
    assert terminal.did.count("charge 3") == 1


def test_the_command_line_looks_after_calls_with_and_without_a_worker(terminal):
    worker = terminal.worker()
    asking = terminal.start("call", "demo.shop.approve", "what=tea")
    until = time.monotonic() + 20
    while not (calls := json.loads(terminal.bema("calls", "ls", "--state", "asking", "--json").stdout)):
        assert time.monotonic() < until
    (call,) = calls
    assert is_call_id(call["id"])
    assert "asks for bool: tea?" in terminal.bema("calls", "ls").stdout
    wrong = terminal.bema("calls", "answer", call["id"], "perhaps")
    assert wrong.returncode == 1
    assert "Expected `bool`, got `str`" in wrong.stderr
    assert terminal.bema("calls", "answer", call["id"], "true").returncode == 0
    assert asking.communicate(timeout=30)[0] == "tea: yes\n"
    shown = terminal.bema("calls", "show", call["id"]).stdout
    assert "ask 1 bool  true" in shown
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert "tea: yes" in terminal.bema("calls", "show", call["id"]).stdout, "the file is read where nobody has it"
    missing = terminal.bema("calls", "show", "0" * 21)
    assert (missing.returncode, "there is no call" in missing.stderr) == (1, True)


def test_a_call_that_is_made_later_is_made_once_and_found_again_by_its_id(terminal):
    terminal.worker()

    async def story():
        async with bema.connect() as runtime:
            order = await runtime.namespace("demo").component("shop").endpoint("order").client(wait=10)
            first = await order.later(number=7, key="order 7", delay=0.2)
            again = await order.later(number=7, key="order 7")
            assert first.id == again.id
            assert (await first.status())["state"] == "queued"
            assert await order.ref(first.id).result(20) == "thanks for receipt 7, shipped"
            with pytest.raises(Conflict) as taken:
                await order.later(number=8, key="order 7")
            assert taken.value.code == "call_exists"
            with pytest.raises(Invalid):
                await order.later(nummer=8)
            gone = await order.later(number=9, delay=3600)
            await gone.cancel()
            with pytest.raises(Conflict) as cancelled:
                await gone.result(5)
            assert cancelled.value.code == "call_cancelled"
            plain = await runtime.namespace("demo").component("shop").endpoint("plain").client()
            with pytest.raises(Invalid, match="neither durable nor idempotent"):
                await plain.later()
            with pytest.raises(Refused, match="is of durable calls") as refused:
                await plain()
            assert refused.value.code == "not_durable"

    asyncio.run(story())
    assert terminal.did.count("charge 7") == 1
    assert "charge 9" not in terminal.did


def test_a_call_that_failed_with_a_timeout_of_its_own_is_told_so_by_its_reference(terminal):
    terminal.worker()

    async def story():
        async with bema.connect() as runtime:
            hurry = await runtime.namespace("demo").component("shop").endpoint("hurry").client(wait=10)
            ref = await hurry.later()
            with pytest.raises(DeadlineExceeded, match=r"0\.01 s passed"):
                await ref.result(20)
            slow = await (await runtime.namespace("demo").component("shop").endpoint("approve").client()).later(
                what="tea"
            )
            with pytest.raises(DeadlineExceeded, match="it goes on"):
                await slow.result(0.2)

    asyncio.run(story())


def test_a_child_is_made_once_though_its_parent_is_run_again(terminal):
    terminal.worker(3)
    boss = terminal.worker(name="boss")
    caller = terminal.start("call", "demo.boss.morning", "number=4")
    terminal.until("ship receipt 4")
    boss.kill()
    terminal.worker(name="boss")
    out, said = caller.communicate(timeout=40)
    assert out == "the boss: thanks for receipt 4, shipped\n", said
    assert terminal.did.count("morning 4") == 2
    assert [terminal.did.count(what) for what in ("charge 4", "ship receipt 4")] == [1, 1]


def test_a_bad_id_in_the_header_is_refused(terminal):
    terminal.worker()

    async def story():
        async with bema.connect() as runtime:
            order = await runtime.namespace("demo").component("shop").endpoint("order").client(wait=10)
            for bad in ("../../x", "", "0" * 22):
                if bad:
                    with pytest.raises(BemaError, match="holds no id of a call"):
                        await order.using(metadata={"bema-call": bad})(number=1)

    asyncio.run(story())
