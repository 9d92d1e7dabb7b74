"""Streams of payloads: batching, windows, fairness, and what a receiver gives back."""

import asyncio
from typing import Any

import pytest

from bema.core.errors import ProtocolError
from bema.core.limits import DEFAULTS
from bema.runtime.rpc.connection import Connection
from bema.runtime.rpc.flow_control import BUDGET, PER_ITEM, Inflow, Outflow
from bema.wire.rpc import calls
from bema.wire.rpc import frames as f
from bema.wire.values import codecs

ITEMS = DEFAULTS.rpc_stream_items
FAIR = BUDGET // (PER_ITEM + 1) + 1  # items of one byte in a turn


class Line(Connection):
    """A connection whose frames stay in a list."""

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop())
        self.frames: list[list[Any]] = []

    def flush(self) -> None:
        if self.out:
            self.frames.append(self.out)
            self.out = []
            self.size = 0

    def put_large(self, ident: int, kind: int, body: Any, payload: bytes) -> None:
        self.flush()
        self.frames.append([ident, kind, [payload]])


def test_the_first_item_of_a_turn_goes_at_once_and_the_others_travel_as_one_list():
    async def story():
        line = Line()
        one, two = Outflow(line, 1, f.ITEM), Outflow(line, 2, f.ITEM)
        for payload in (b"a", b"b", b"c"):
            one.push(payload)
            two.push(payload.upper())
        line.flush()
        one.push(b"d")
        line.flush()
        together = [2, f.ITEM, [b"A", b"B", b"C"], 1, f.ITEM, [b"b", b"c"]]
        assert line.frames == [[1, f.ITEM, [b"a"]], together, [1, f.ITEM, [b"d"]]]

    asyncio.run(story())


def test_a_large_item_goes_alone_and_order_holds():
    async def story():
        line = Line()
        flow = Outflow(line, 1, f.ITEM)
        flow.push(b"a")
        flow.push(b"x" * f.LARGE)
        flow.push(b"b")
        line.flush()
        assert line.frames == [[1, f.ITEM, [b"a"]], [1, f.ITEM, [b"x" * f.LARGE]], [1, f.ITEM, [b"b"]]]

    asyncio.run(story())


def test_a_sender_gives_way_now_and_then_and_stops_at_its_window():
    async def story():
        line = Line()
        flow = Outflow(line, 1, f.ITEM)
        assert [flow.push(b"x") for _ in range(1 + FAIR)] == [False] * FAIR + [True]
        await flow.turn()
        assert not flow.push(b"x")
        while not flow.push(bytes(10_000)):
            pass
        turn = asyncio.ensure_future(flow.turn())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        while not turn.done() and f.STREAM_WINDOW - line.window == 0:
            await asyncio.sleep(0)
        line.closed = True
        flow.wake()
        await turn

    asyncio.run(story())


def test_credit_of_the_stream_and_of_the_connection_let_it_go_on():
    async def story():
        line = Line()
        flow = Outflow(line, 1, f.ITEM)
        flow.push(bytes(f.STREAM_WINDOW))
        turn = asyncio.ensure_future(flow.turn())
        for _ in range(3):
            await asyncio.sleep(0)
        assert not turn.done()
        line.credited(100)
        for _ in range(3):
            await asyncio.sleep(0)
        assert not turn.done(), "the connection has room, this stream has not"
        flow.credited(100)
        await turn
        assert not line.blocked

    asyncio.run(story())


def test_a_sender_of_tiny_items_stops_at_a_number_of_them_and_goes_on_when_they_are_read():
    async def story():
        line = Line()
        flow = Outflow(line, 1, f.ITEM)
        sent = 0

        async def send():
            nonlocal sent
            while True:
                sent += 1
                if flow.push(b"x"):
                    await flow.turn()

        async def sent_in_turns(turns):
            for _ in range(turns):
                await asyncio.sleep(0)
            return sent

        sending = asyncio.ensure_future(send())
        stopped = await sent_in_turns(500)
        assert ITEMS <= stopped <= ITEMS + FAIR
        flow.credited(stopped // 2)
        assert stopped < await sent_in_turns(500) <= stopped // 2 + ITEMS + FAIR
        sending.cancel()

    asyncio.run(story())


def test_a_long_stream_that_is_read_as_it_comes_never_waits():
    """Credit comes for items that are not counted yet; none of it may be lost."""

    async def story():
        line = Line()
        flow, unread, total = Outflow(line, 1, f.ITEM), 0, 0
        while total < 3 * f.STREAM_WINDOW:
            size = 1 + total % 700
            if flow.push(bytes(size)):
                async with asyncio.timeout(1):
                    await flow.turn()
            unread, total = unread + size, total + size
            if unread >= calls.FLOOR // 2:
                flow.credited(line.credited(unread))
                unread = 0
                line.frames.clear()
        assert line.window == f.CONNECTION_WINDOW - unread

    asyncio.run(story())


def test_a_full_connection_leaves_every_stream_its_floor():
    async def story():
        line = Line()
        line.window = 0
        flow = Outflow(line, 1, f.ITEM)
        assert not flow.push(b"x")
        assert flow.push(bytes(calls.FLOOR))
        turn = asyncio.ensure_future(flow.turn())
        for _ in range(3):
            await asyncio.sleep(0)
        assert not turn.done()
        line.credited(f.CONNECTION_WINDOW)
        await turn

    asyncio.run(story())


@pytest.mark.parametrize("size", [-1, "much", None, 1.5])
def test_credit_is_a_number_of_bytes(size):
    async def story():
        with pytest.raises(ProtocolError):
            Line().credited(size)

    asyncio.run(story())


def test_what_was_read_is_given_back_in_portions():
    async def story():
        line = Line()
        flow = Inflow(line, 1)
        items = flow.items(codecs.unpack)
        payload = codecs.pack(bytes(line.sizes.grant // 2))
        for _ in range(3):
            flow.take([payload])
        for _ in range(3):
            await anext(items)
        line.flush()
        assert line.frames == [[1, f.CREDIT, 2 * len(payload)]]
        flow.close()
        line.flush()
        assert line.owed == len(payload), "what was not read goes back to the connection, with the next portion"

    asyncio.run(story())


def test_a_reader_that_waits_gives_back_small_amounts_too():
    async def story():
        line = Line()
        flow = Inflow(line, 1)
        flow.take([codecs.pack(bytes(calls.FLOOR))])
        items = flow.items(codecs.unpack)
        await anext(items)
        waiting = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0)
        line.flush()
        assert line.frames[0][1] == f.CREDIT
        flow.finish()
        with pytest.raises(StopAsyncIteration):
            await waiting

    asyncio.run(story())


def test_a_bad_end_comes_after_what_came_before_it_unless_at_once():
    async def story():
        flow = Inflow(Line(), 1)
        flow.take([codecs.pack(1)])
        flow.finish(LookupError("cut"))
        flow.finish(None)
        got = []
        with pytest.raises(LookupError):
            async for item in flow.items(codecs.unpack):
                got.append(item)
        assert got == [1]
        hurried = Inflow(Line(), 2)
        hurried.take([codecs.pack(1)])
        hurried.finish(TimeoutError(), at_once=True)
        with pytest.raises(TimeoutError):
            await anext(hurried.items(codecs.unpack))

    asyncio.run(story())


def test_a_sender_that_ignores_its_window_breaks_the_protocol():
    async def story():
        flow = Inflow(Line(), 1)
        with pytest.raises(ProtocolError, match="beyond its window"):
            for _ in range(100):
                flow.take([bytes(1_000_000)])

    asyncio.run(story())
