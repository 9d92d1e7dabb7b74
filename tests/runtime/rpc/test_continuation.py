"""Streams that go on with another instance: neither a gap nor a double, whatever ended the first."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.call import Call, Item
from bema.core.errors import BadAnswer, BadDeclaration, BemaError, Disconnected, Invalid, StreamCut, Unavailable
from bema.core.instance import info_of
from bema.core.spec import Shape
from bema.runtime.rpc import signatures
from bema.wire.rpc import cursors
from bema.wire.values import codecs
from tests.runtime.served import TRANSPORTS, Served, serving, stream

COUNT = 300


Test = Callable[[Served], Awaitable[None]]


def told(test: Test) -> Callable[[str, Path], None]:
    """A story of servers and clients over each transport."""

    def run(transport: str, tmp_path: Path) -> None:
        async def story() -> None:
            async with serving(transport, tmp_path) as served:
                await test(served)

        asyncio.run(story())

    run.__name__ = test.__name__
    return run


@pytest.fixture(params=TRANSPORTS)
def transport(request):
    return request.param


def counting(served: Served) -> list[Any]:
    """Serves `count`, which gives the numbers up to `most`, one a turn. Gives what each of its calls was told to resume."""
    resumed = []

    @served.handler(stream("count", int, resumable=True, most=int))
    async def count(call: Call) -> AsyncIterator[int]:
        resumed.append(call.resume)
        for number in range(call.resume or 0, call.arguments["most"]):
            await asyncio.sleep(0)
            yield number

    return resumed


async def read(items: AsyncIterator[Any], *, at: dict[int, Any]) -> list[Any]:
    """The items; behind the one at each place, what stands there is done."""
    got = []
    async for item in items:
        got.append(item)
        if (act := at.get(len(got))) is not None and (waiting := act()) is not None:
            await waiting
    return got


@told
async def test_a_stream_goes_on_with_another_instance_when_its_own_is_killed(served):
    resumed = counting(served)
    first = await served.start()
    client = await served.client("count")

    async def kill() -> None:
        await served.start()
        served.lose(first)

    assert await read(client.stream({"most": COUNT}), at={7: kill}) == list(range(COUNT))
    assert resumed[0] is None
    assert len(resumed) == 2
    assert resumed[1] >= 7


@told
async def test_a_drain_hands_streams_over_instead_of_waiting_for_them(served):
    counting(served)
    first = await served.start()
    client = await served.client("count")

    async def drain() -> None:
        await served.start()
        served.discovery.drop(first)
        async with asyncio.timeout(2):
            assert await served.servers[first].drain(60), "nothing was cut, and nothing was waited for"

    assert await read(client.stream({"most": COUNT}), at={5: drain}) == list(range(COUNT))


@told
async def test_a_closed_server_hands_streams_over_too(served):
    counting(served)
    first = await served.start()
    client = await served.client("count")

    async def close() -> None:
        await served.start()
        served.discovery.drop(first)
        await served.servers[first].close()

    assert await read(client.stream({"most": COUNT}), at={5: close}) == list(range(COUNT))


@told
async def test_a_stream_survives_one_end_after_the_other(served):
    counting(served)
    alive = [await served.start()]
    client = await served.client("count")

    async def replace() -> None:
        alive.append(await served.start())
        served.lose(alive.pop(0))

    assert await read(client.stream({"most": COUNT}), at=dict.fromkeys(range(10, COUNT, 20), replace)) == list(
        range(COUNT)
    )


@told
async def test_a_cursor_of_the_handlers_own_comes_back(served):
    seen = []

    @served.handler(stream("letters", str, resumable=True))
    async def letters(call: Call) -> AsyncIterator[Item[str]]:
        seen.append(call.resume)
        start = "abcdef".index(call.resume["after"]) + 1 if call.resume else 0
        for letter in "abcdef"[start:]:
            await asyncio.sleep(0)
            yield Item(letter.upper(), cursor={"after": letter})

    first = await served.start()
    client = await served.client("letters")

    async def kill() -> None:
        await served.start()
        served.lose(first)

    assert "".join(await read(client.stream({}), at={2: kill})) == "ABCDEF"
    assert seen[0] is None
    assert seen[1]["after"] in "bcdef"


@told
async def test_the_cursor_of_a_stream_is_not_told_to_what_its_handler_calls(served):
    inner = []

    @served.handler(stream("inner", int, resumable=True))
    async def answers(call: Call) -> AsyncIterator[int]:
        inner.append((call.resume, call.metadata.get(cursors.HEADER)))
        yield 1

    @served.handler(stream("outer", int, resumable=True))
    async def outer(call: Call) -> AsyncIterator[int]:
        client = await served.client("inner")
        for number in range(call.resume or 0, 4):
            async for _ in client.stream({}):
                yield number

    first = await served.start()
    client = await served.client("outer")

    async def kill() -> None:
        await served.start()
        served.lose(first)

    assert await read(client.stream({}), at={2: kill}) == [0, 1, 2, 3]
    assert set(inner) == {(None, None)}


@told
async def test_what_the_handler_raised_ends_the_stream(served):
    calls = []

    @served.handler(stream("fails", int, resumable=True))
    async def fails(call: Call) -> AsyncIterator[int]:
        calls.append(call.resume)
        yield 1
        raise ValueError("no more")

    await served.start()
    with pytest.raises(ValueError, match="no more"):
        await read((await served.client("fails")).stream({}), at={})
    assert calls == [None]


@told
async def test_who_asked_for_the_end_gets_it(served):
    resumed = counting(served)
    first = await served.start()
    await served.start()
    items = (await served.client("count")).stream({"most": 10**6})

    def end() -> None:
        items.stop()
        served.lose(first)
        served.lose(first + 1)

    with pytest.raises((StreamCut, Disconnected)):
        await read(items, at={5: end})
    assert len(resumed) == 1


@told
async def test_a_stream_that_gives_nothing_between_two_ends_is_given_up(served):
    tried = []

    @served.handler(stream("poisoned", int, resumable=True))
    async def poisoned(call: Call) -> AsyncIterator[int]:
        tried.append(call.resume)
        served.cut(ident)
        await asyncio.sleep(60)
        yield 1

    ident = await served.start()
    with pytest.raises(Disconnected):
        await read((await served.client("poisoned")).stream({}), at={})
    assert len(tried) == 5


@told
async def test_without_another_instance_the_reader_is_told(served):
    counting(served)
    first = await served.start()
    client = await served.client("count")
    with pytest.raises((Unavailable, StreamCut)):
        await read(client.stream({"most": COUNT}), at={5: lambda: served.lose(first)})


@told
async def test_a_stream_to_one_named_instance_stays_with_it(served):
    counting(served)
    first = await served.start()
    await served.start()
    client = await served.client("count")
    with pytest.raises(StreamCut):
        await read(client.stream({"most": COUNT}, instance=first), at={5: lambda: served.lose(first)})


@told
async def test_a_caller_without_types_goes_on_as_well(served):
    counting(served)
    first = await served.start()
    client = await served.client("count", endpoint=None)

    async def kill() -> None:
        await served.start()
        served.lose(first)

    assert await read(client.stream({"most": COUNT}), at={7: kill}) == list(range(COUNT))


@told
async def test_an_instance_of_an_older_version_gives_its_stream_as_ever(served):
    spec = stream("count", int, most=int)

    @served.handler(spec)
    async def count(call: Call) -> AsyncIterator[int]:
        for number in range(call.arguments["most"]):
            yield number

    await served.start()
    newer = stream("count", int, resumable=True, most=int)
    client = await served.client("count", endpoint=newer)
    assert await read(client.stream({"most": 5}), at={}) == [0, 1, 2, 3, 4]


@told
async def test_items_keep_their_order_and_their_credit(served):
    @served.handler(stream("large", bytes, resumable=True))
    async def large(call: Call) -> AsyncIterator[bytes]:
        for number in range(call.resume or 0, 60):
            yield number.to_bytes(4, "big") * 32_000

    first = await served.start()
    client = await served.client("large")

    async def kill() -> None:
        await served.start()
        served.lose(first)

    got = await read(client.stream({}), at={20: kill})
    assert [int.from_bytes(item[:4], "big") for item in got] == list(range(60))


@told
async def test_a_cursor_that_cannot_travel_is_the_services_fault(served):
    @served.handler(stream("state", int, resumable=True))
    async def state(call: Call) -> AsyncIterator[Item[int]]:
        yield Item(1, cursor=call.arguments.get("cursor", "x" * 2000))

    await served.start()
    with pytest.raises(BadAnswer, match="the cursor has 2003 bytes; at most 1024 travel"):
        await read((await served.client("state")).stream({}), at={})


@pytest.mark.parametrize(
    ("says", "function"),
    [
        ("answers once", "async def once(text: str) -> str: ..."),
        (
            "takes the stream 'words', which no other instance has",
            "async def both(words: AsyncIterator[str]) -> AsyncIterator[str]: yield ''",
        ),
    ],
)
def test_what_cannot_be_continued_is_refused_where_it_is_declared(says, function):
    names: dict[str, Any] = {"AsyncIterator": AsyncIterator}
    exec(function, names)
    declared = next(value for value in names.values() if getattr(value, "__code__", None) is not None)
    with pytest.raises(BadDeclaration, match=says):
        signatures.read(declared, "e", method=False, resumable=True)


def test_the_type_of_an_item_is_that_of_its_value():
    async def letters() -> AsyncIterator[Item[str]]:
        yield Item("a", cursor=1)

    spec = signatures.read(letters, "letters", method=False, resumable=True)
    assert (spec.returns, spec.shape) == (str, Shape.STREAM)
    assert info_of(spec).resumable


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(), st.lists))
def test_a_cursor_comes_back_equal(cursor):
    assert cursors.read_header(cursors.header_of(cursor)) == cursor
    with contextlib.suppress(Invalid):  # too large
        found, payload = cursors.read_item(cursors.pack_item(cursor, codecs.encode("value")))
        assert (found, codecs.decode(payload)) == (cursor, "value")


@pytest.mark.parametrize("text", ["%%%", "AAAA====", "wQ==", "é", "kpI="])
def test_a_header_that_holds_no_cursor_is_refused(text):
    with pytest.raises(BemaError, match="holds no cursor"):
        cursors.read_header(text)
