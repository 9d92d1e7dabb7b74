"""`bema replay` as a user types it, for a call of a worker that runs and for one whose file lies there."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import bema

pytestmark = pytest.mark.slow

SHOP = """
import asyncio
import bema
from bema import Call, endpoint, service


async def charge(number: int) -> str:
    with open({did!r}, "a") as did:
        did.write("charge\\n")
    return f"receipt {{number}}"


@service(name="shop", namespace="demo")
class Shop:
    @endpoint(durable=True)
    async def order(self, number: int, call: Call) -> str:
        receipt = await call.step(charge, number)
        agreed = await call.ask(bool, "ship it?")
        return f"{{receipt}}: {{agreed}}"

    @endpoint(idempotent=True)
    async def price(self, number: int) -> int:
        return number * 3


if __name__ == "__main__":
    asyncio.run(bema.serve(Shop))
"""


class Shop:
    """A worker with one call that asks, and the commands beside it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "shop.py"
        self.did = folder / "did"
        self.file.write_text(SHOP.format(did=str(self.did)))
        self.worker = subprocess.Popen([sys.executable, str(self.file)], stderr=subprocess.PIPE, text=True)
        assert self.worker.stderr is not None
        assert "demo.shop is ready" in self.worker.stderr.readline()
        self.caller = subprocess.Popen(
            [sys.executable, "-m", "bema", "call", "demo.shop.order", "number=7"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 30
        while not (calls := json.loads(self.bema("calls", "ls", "--state", "asking", "--json").stdout)):
            assert time.monotonic() < until
        self.call = calls[0]["id"]

    def bema(self, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bema", *arguments]
        return subprocess.run(command, capture_output=True, text=True, input=typed, timeout=60, check=False)

    def replay(self, *flags: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        return self.bema("replay", *flags, self.call, str(self.file), typed=typed)

    def edit(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))

    def end(self) -> None:
        for process in (self.caller, self.worker):
            process.kill()
            process.communicate()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path / "state"))
    made = Shop(tmp_path)
    yield made
    made.end()


def test_a_call_is_replayed_beside_its_worker_and_from_its_file(shop: Shop) -> None:
    done = shop.replay()
    assert done.returncode == 0, done.stderr
    assert done.stdout == '     1  step 1 charge  "receipt 7"\nwaits  ask 2 bool: ship it?\n'
    said = json.loads(shop.replay("--json").stdout)
    assert (said["kind"], said["agrees"], said["steps"][0]["result"]) == ("waits", True, "receipt 7")
    shop.worker.kill()
    shop.worker.wait()
    assert shop.replay().stdout == done.stdout
    assert shop.did.read_text() == "charge\n", "no replay did the step"


def test_edited_code_that_disagrees_exits_with_1_and_the_debugger_stands_there(shop: Shop) -> None:
    shop.edit("await call.step(charge, number)", "await call.step(charge, number + 1)")
    done = shop.replay()
    assert done.returncode == 1
    assert (
        "differs  the history has step 1 charge, and the code asks for step 1 charge with other arguments"
        in done.stdout
    )
    debugged = shop.replay("--pdb", typed="p number * 6\nwhere\nq\n")
    assert debugged.returncode == 1
    assert "(Pdb) 42\n" in debugged.stdout
    assert "receipt = await call.step(charge, number + 1)" in debugged.stdout


def test_the_debugger_stands_where_the_handler_waits_and_where_it_raised(shop: Shop) -> None:
    waits = shop.replay("--pdb", typed="p receipt\nc\n")
    assert waits.returncode == 0, waits.stderr
    assert "(Pdb) 'receipt 7'\n" in waits.stdout
    assert 'agreed = await call.ask(bool, "ship it?")' in waits.stdout
    shop.edit('agreed = await call.ask(bool, "ship it?")', 'raise KeyError(f"no {receipt}")')
    raised = shop.replay("--pdb", typed="p receipt\nq\n")
    assert raised.returncode == 1
    assert "(Pdb) 'receipt 7'\n" in raised.stdout
    assert "failed  KeyError: 'no receipt 7'" in raised.stdout


def test_what_cannot_be_replayed_is_said(shop: Shop) -> None:
    missing = shop.bema("replay", "0" * 21, str(shop.file))
    assert (missing.returncode, "there is no call" in missing.stderr) == (1, True)
    shop.edit('name="shop"', 'name="stall"')
    other = shop.replay()
    assert other.returncode == 1
    assert "is one of demo.shop.order" in other.stderr


def test_a_later_call_of_an_idempotent_endpoint_is_replayed_too(shop: Shop) -> None:
    async def made() -> str:
        async with bema.connect() as runtime:
            price = await runtime.namespace("demo").component("shop").endpoint("price").client(wait=10)
            ref = await price.later(number=7)
            assert await ref.result(20) == 21
            return ref.id

    shop.call = asyncio.run(made())
    done = shop.replay()
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "done  21"), done.stderr
