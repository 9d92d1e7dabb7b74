"""A function that is deployed again and again: requests never fail, what fails changes nothing, and one can go back."""

from __future__ import annotations

import functools
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.stories.harness import Platform, command, until

pytestmark = pytest.mark.slow


@contextmanager
def asking(url: str) -> Iterator[Counter[str]]:
    """Requests one after the other by several clients as long as it lasts; counts what was answered."""
    said: Counter[str] = Counter()
    over = threading.Event()

    def client() -> None:
        with httpx2.Client(timeout=60, trust_env=False) as http:
            while not over.is_set():
                try:
                    answer = http.get(url)
                    said[answer.text.split()[0] if answer.status_code == 200 else f"status {answer.status_code}"] += 1
                except httpx2.HTTPError as error:
                    said[f"failed {error!r}"] += 1

    clients = [threading.Thread(target=client) for _ in range(4)]
    for each in clients:
        each.start()
    try:
        yield said
    finally:
        over.set()
        for each in clients:
            each.join()


def test_no_request_fails_while_versions_come_and_go(
    platform: Platform, tmp_path: Path, script: Callable[[str], str]
) -> None:
    platform.up()
    file = tmp_path / "hello.py"

    def deploy(word: str, code: int = 0) -> str:
        file.write_text(script(word) if code == 0 else "raise SystemExit(3)\n")
        done = platform.bema("deploy", str(file))
        assert done.returncode == code, done.stderr + done.stdout
        return done.stdout.strip()

    url = deploy("w1")
    with asking(url) as said:
        for number in range(2, 6):
            assert deploy(f"w{number}") == url
            until(f"w{number} answers", functools.partial(said.get, f"w{number}"), 60)
        deploy("broken", code=4)
        assert httpx2.get(url).text.split()[0] == "w5"
        done = platform.bema("rollback", "hello")
        assert done.returncode == 0, done.stderr
        until("w4 answers again", lambda: httpx2.get(url).text.split()[0] == "w4" or None, 60)
    assert set(said) == {f"w{number}" for number in range(1, 6)}, said


SHOP = """
import asyncio
from pathlib import Path
from bema import Call, endpoint, service

FOLDER = Path("WHERE")

async def charge(number: int) -> str:
    FOLDER.joinpath("charged").write_text("WORD")
    return f"charged by WORD"

async def ship(receipt: str) -> str:
    while not FOLDER.joinpath("open").exists():
        await asyncio.sleep(0.05)
    return f"{receipt}, shipped by WORD"

@service(name="shop", namespace="demo")
class Shop:
    @endpoint(durable=True)
    async def order(self, number: int, call: Call) -> str:
        return await call.step(ship, await call.step(charge, number))
"""


def test_a_durable_call_ends_on_the_version_it_began_on_however_many_came_since(
    platform: Platform, tmp_path: Path
) -> None:
    platform.up()
    file = tmp_path / "shop.py"

    def deploy(number: int) -> None:
        file.write_text(SHOP.replace("WHERE", str(platform.shared)).replace("WORD", f"w{number}"))
        done = platform.bema("deploy", str(file))
        assert done.returncode == 0, done.stderr + done.stdout

    deploy(1)
    call = subprocess.Popen(
        [*command(), "call", "demo.shop.order", "number=1"],
        env=platform.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until("it was charged", (platform.shared / "charged").exists, 60)
        for number in range(2, 13):
            deploy(number)
        labels = [each["version"] for each in platform.json("versions", "shop")]
        assert labels == ["v12", *(f"v{number}" for number in range(11, 1, -1)), "v1"][: len(labels)]
        assert "v1" in labels
        (platform.shared / "open").touch()
        said, failed = call.communicate(timeout=120)
    finally:
        call.kill()
    assert "charged by w1, shipped by w1" in said, failed
    until("the first version has gone", lambda: _versions(platform) == {"v12"}, 60)


def _versions(platform: Platform) -> set[str]:
    """Those that have an instance."""
    return {each["version"] for each in platform.json("ls")["instances"] if each["address"] == "demo.shop"}
