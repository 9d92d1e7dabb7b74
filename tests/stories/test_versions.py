"""A function that is deployed again and again: requests never fail, what fails changes nothing, and one can go back."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.stories.harness import Platform, until

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
