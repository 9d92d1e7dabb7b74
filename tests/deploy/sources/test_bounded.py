"""A child reads what was written to break its reader; its reader's reader lives on."""

import asyncio
import os
import resource
import sys
import time

import pytest
from hypothesis import given, strategies

from bema.core.errors import Overloaded
from bema.core.versions import check_specifiers, satisfies
from bema.deploy.sources import bounded
from bema.deploy.sources.bounded import ChildBounds, Crossed, answer_of

ROOMY = ChildBounds(512 * 2**20, 10)
READ = "import sys; sys.stdin.read()"
ECHO = "import sys; sys.stdout.write(sys.stdin.read().upper())"


def child(code: str, content: bytes = b"", bounds: ChildBounds = ROOMY) -> bytes:
    return asyncio.run(answer_of((sys.executable, "-I", "-S", "-c", code), content, bounds))


def test_what_it_says_is_the_answer():
    assert child(ECHO, b"hello " * 100_000) == b"HELLO " * 100_000


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds a process from outside")
@pytest.mark.parametrize(
    ("code", "bounds", "reason"),
    [
        (f"{READ}; x = b'x' * 2**30", ChildBounds(128 * 2**20, 10), "more than 128 MiB of memory"),
        (f"{READ}\nwhile True: pass", ChildBounds(128 * 2**20, 1), "more than 1 s of processor time"),
    ],
)
def test_a_bound_that_is_crossed_is_named(code: str, bounds: ChildBounds, reason: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bounded, "_DEADLINE", 60)  # other work on the machine takes no processor time of the child
    with pytest.raises(Crossed, match=reason):
        child(code, b"", bounds)


def test_one_that_only_waits_meets_the_deadline():
    begun = time.monotonic()
    with pytest.raises(Crossed, match="longer than 1 s"):
        child("import time; time.sleep(60)", b"", ChildBounds(512 * 2**20, 0.3))
    assert time.monotonic() - begun < 30


def test_who_gets_no_turn_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bounded, "_PATIENCE", 0.2)
    waiting = "import time; time.sleep(60)"

    async def story() -> None:
        argv = (sys.executable, "-I", "-S", "-c", waiting)
        others = [asyncio.create_task(answer_of(argv, b"", ROOMY)) for _ in range(bounded._AT_ONCE)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await answer_of(argv, b"", ROOMY)
        others[0].cancel()
        await asyncio.gather(others[0], return_exceptions=True)
        assert await answer_of((sys.executable, "-I", "-S", "-c", ECHO), b"free", ROOMY) == b"FREE"
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    asyncio.run(story())


def test_it_ends_with_who_asked(tmp_path):
    mark = tmp_path / "pid"
    code = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    async def story() -> int:
        asking = asyncio.create_task(answer_of((sys.executable, "-I", "-S", "-c", code), b"", ROOMY))
        while not (mark.exists() and mark.read_text()):
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        return int(mark.read_text())

    with pytest.raises(ProcessLookupError):
        os.kill(asyncio.run(story()), 0)


@pytest.mark.alone
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds a process from outside")
def test_who_asks_has_its_loop_and_its_memory_for_itself():
    async def story() -> tuple[float, int]:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        bombs = [
            asyncio.create_task(answer_of((sys.executable, "-I", "-S", "-c", code), b"", ChildBounds(256 * 2**20, 1)))
            for code in (f"{READ}\nwhile True: pass", f"{READ}; x = [0]\nwhile True: x = x + x") * 2
        ]
        longest = 0.0
        while not all(bomb.done() for bomb in bombs):
            begun = time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - begun)
            await asyncio.sleep(0.01)
        assert all(isinstance(bomb.exception(), Crossed) for bomb in bombs)
        return longest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    longest, more = asyncio.run(story())
    assert longest < 0.5
    assert more < 16 * 1024  # KiB


@given(strategies.text(alphabet="<>=!~0123456789.*abrcdevpost, v\u0663", max_size=40))
def test_specifiers_that_passed_can_be_applied(text: str):
    if not check_specifiers(text):
        satisfies((3, 11, 7), text)
