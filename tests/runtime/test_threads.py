"""Plain functions run in threads, with the context of their caller."""

import asyncio
import contextvars
import threading
from collections.abc import Iterator

from bema.core.call import Call
from bema.runtime.threads import in_thread, stream_in_thread, unary_in_thread

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
