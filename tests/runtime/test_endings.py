"""Whatever a handler does, its caller is told: a call ends in exactly one of answer, end or error."""

import asyncio
from typing import Any

import pytest

from bema.core.call import Call
from bema.core.errors import BadAnswer, BemaError, Unavailable
from tests.runtime.served import serving, stream, unary

pytestmark = pytest.mark.usefixtures("each_loop")


class Own(BaseException):
    pass


async def kills_and_returns(call: Call) -> Any:
    call.kill()
    return 1


async def raises_a_base_exception(call: Call) -> Any:
    raise Own("x")


async def raises_generator_exit(call: Call) -> Any:
    raise GeneratorExit


UNARY = [
    kills_and_returns,
    raises_a_base_exception,
    raises_generator_exit,
]


@pytest.mark.parametrize("handler", UNARY)
def test_a_unary_call_ends(handler, tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:
            served.handler(unary("odd"))(handler)
            await served.start()
            with pytest.raises(Exception) as caught:
                await asyncio.wait_for(served.call("odd", timeout=None), 2)
            assert not isinstance(caught.value, TimeoutError), "the caller was never told"

    asyncio.run(story())


async def yields_and_kills(call: Call) -> Any:
    yield 1
    call.kill()


async def yields_and_raises_generator_exit(call: Call) -> Any:
    yield 1
    raise GeneratorExit


@pytest.mark.parametrize("handler", [yields_and_kills, yields_and_raises_generator_exit])
def test_a_stream_ends_as_cut(handler, tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:
            served.handler(stream("odd"))(handler)
            await served.start()
            got = []
            with pytest.raises(BemaError):
                async with asyncio.timeout(2):
                    async for item in (await served.client("odd")).stream({}):
                        got.append(item)
            assert got == [1]

    asyncio.run(story())


def test_who_swallows_the_cut_of_a_drain_and_returns_does_not_leave_the_caller_waiting(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:
            begun = asyncio.Event()

            @served.handler(unary("stubborn"))
            async def stubborn(call: Call) -> Any:
                begun.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    return 3

            await served.start()
            call = asyncio.ensure_future(served.call("stubborn", timeout=None))
            await begun.wait()
            assert await served.server.drain(0.05) is False
            with pytest.raises(BemaError):
                await asyncio.wait_for(call, 2)

    asyncio.run(story())


def test_what_a_handler_met_is_not_taken_for_a_call_that_never_ran(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:

            @served.handler(unary("relay"))
            async def relay(call: Call) -> Any:
                raise Unavailable("nobody is behind me")

            await served.start()
            with pytest.raises(Unavailable, match="nobody is behind me") as caught:
                await served.call("relay")
            assert "itself ran" in caught.value.fix

    asyncio.run(story())


def test_a_service_is_held_to_its_own_signature_also_by_who_does_not_know_it(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:

            @served.handler(unary("number", int))
            async def number(call: Call) -> Any:
                return "seven"

            await served.start()
            by_address = await served.client("number", endpoint=None)
            with pytest.raises(BadAnswer, match=r"the answer of t\.t\.number: \$: Expected `int`"):
                await by_address.unary({})

    asyncio.run(story())
