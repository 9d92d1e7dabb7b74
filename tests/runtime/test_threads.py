"""Plain functions run in threads, with the context of their caller."""

import asyncio
import contextvars
import subprocess
import sys
import threading
from collections.abc import Iterator

from bema.core.call import Call
from bema.runtime.threads import Threads, in_thread, stream_in_thread, unary_in_thread

who: contextvars.ContextVar[str] = contextvars.ContextVar("who")


def test_a_function_sees_its_callers_context_from_another_thread():
    async def story():
        who.set("ada")
        name, thread = await in_thread(lambda: (who.get(), threading.current_thread()))
        assert name == "ada"
        assert thread is not threading.main_thread()

    asyncio.run(story())


def test_a_generator_is_stepped_and_closed_in_threads():
    async def story():
        closed = threading.Event()

        def count(call: Call) -> Iterator[int]:
            try:
                yield from range(3)
            finally:
                closed.set()

        assert [n async for n in stream_in_thread(count)(Call())] == [0, 1, 2]
        closed.clear()
        answers = stream_in_thread(count)(Call())
        assert await anext(answers) == 0
        await answers.aclose()  # type: ignore[attr-defined]
        assert closed.is_set()

    asyncio.run(story())


def test_a_stream_cancelled_while_a_thread_is_in_it_is_closed_after_that_step():
    async def story():
        inside, go, closed = threading.Event(), threading.Event(), threading.Event()

        def wait(call: Call) -> Iterator[int]:
            try:
                inside.set()
                assert go.wait(5)
                yield 1
            finally:
                closed.set()

        async def read():
            async for _ in stream_in_thread(wait)(Call()):
                pass

        reading = asyncio.ensure_future(read())
        await asyncio.to_thread(inside.wait)
        reading.cancel()
        await asyncio.sleep(0)
        assert not closed.is_set()
        go.set()
        assert await asyncio.to_thread(closed.wait, 5)
        await asyncio.wait([reading])
        assert reading.cancelled()

    asyncio.run(story())


def test_a_unary_function_answers():
    assert asyncio.run(unary_in_thread(lambda call: call.route)(Call("a.b.c"))) == "a.b.c"  # type: ignore[arg-type]


def test_as_many_functions_run_at_once_as_are_asked_for():
    async def story():
        together = threading.Barrier(48)

        def wait(call: Call) -> int:
            return together.wait(10)

        assert sorted(await asyncio.gather(*(unary_in_thread(wait)(Call()) for _ in range(48)))) == list(range(48))

    asyncio.run(story())


def test_functions_that_wait_for_functions_do_not_stand_still():
    async def story():
        loop = asyncio.get_running_loop()

        def inner(call: Call) -> int:
            return 1

        def outer(call: Call) -> int:
            return 1 + int(asyncio.run_coroutine_threadsafe(in_thread(inner, call), loop).result(10))

        assert await asyncio.gather(*(in_thread(outer, Call()) for _ in range(48))) == [2] * 48

    asyncio.run(story())


def test_a_thread_is_used_again_and_ends_when_it_is_idle(monkeypatch):
    monkeypatch.setattr(Threads, "IDLE", 0.05)
    threads = Threads()
    first = threads.submit(threading.current_thread).result(5)
    first.join(5)
    assert not first.is_alive()
    assert threads.submit(threading.current_thread).result(5) is not first
    monkeypatch.setattr(Threads, "IDLE", 10.0)
    kept = threads.submit(threading.current_thread).result(5)
    assert {threads.submit(threading.current_thread).result(5) for _ in range(20)} <= {kept, *threading.enumerate()}


ENDLESS = """
import asyncio, threading
from bema.runtime.threads import in_thread
begun = threading.Event()
async def main():
    asyncio.ensure_future(in_thread(lambda: (begun.set(), threading.Event().wait())))
    while not begun.is_set():
        await asyncio.sleep(0.001)
asyncio.run(main())
print("ended")
"""


def test_a_function_that_never_ends_does_not_keep_its_process():
    done = subprocess.run([sys.executable, "-c", ENDLESS], capture_output=True, text=True, timeout=10, check=True)
    assert done.stdout == "ended\n"
