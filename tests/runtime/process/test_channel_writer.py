"""The way out of the module channel: whole lines, whoever writes them and whether or not the loop turns."""

import asyncio
import contextlib
import json
import socket
import threading

import pytest

from bema.runtime.process.channel_writer import ChannelWriter

pytestmark = pytest.mark.usefixtures("each_loop")

BIG = b"x" * 400_000 + b"\n"  # more than a socket takes at once


@contextlib.asynccontextmanager
async def an_outlet():
    ours, theirs = socket.socketpair()
    outlet = ChannelWriter(ours.fileno())
    ours.close()
    theirs.settimeout(10)
    try:
        yield outlet, theirs
    finally:
        theirs.close()
        outlet.end()


def lines(end: socket.socket) -> list[bytes]:
    """All that is read until the other end is closed."""
    return b"".join(iter(lambda: end.recv(1 << 16), b"")).splitlines()


def test_a_thread_writes_a_line_while_the_loop_stands_still():
    async def story():
        async with an_outlet() as (outlet, theirs):
            said = threading.Thread(target=outlet.tell, args=(b"stalled\n",))
            said.start()
            assert theirs.recv(100) == b"stalled\n"  # blocks the loop, as a handler does
            said.join()

    asyncio.run(story())


def test_lines_of_many_threads_are_whole_and_each_thread_s_are_in_order():
    async def story():
        async with an_outlet() as (outlet, theirs):

            def write(who: int) -> None:
                for number in range(200):
                    outlet.write(json.dumps([who, number, "x" * 5000]).encode() + b"\n")

            reading = asyncio.create_task(asyncio.to_thread(lines, theirs))
            await asyncio.gather(*(asyncio.to_thread(write, who) for who in range(4)))
            outlet.end()
            heard = [json.loads(line) for line in await reading]
            for who in range(4):
                assert [number for by, number, _ in heard if by == who] == list(range(200))

    asyncio.run(story())


def test_what_waits_is_written_in_order_and_of_what_was_told_the_last():
    async def story():
        async with an_outlet() as (outlet, theirs):
            outlet.write(BIG)
            for number in range(1000):
                outlet.tell(b"%d\n" % number)
            outlet.write(b"after\n")
            outlet.end()
            outlet.write(b"too late\n")
            assert await asyncio.to_thread(lines, theirs) == [BIG.strip(), b"after", b"999"]

    asyncio.run(story())


def test_told_by_a_thread_behind_a_line_that_is_half_written_it_comes_after_it():
    async def story():
        async with an_outlet() as (outlet, theirs):
            outlet.write(BIG)
            teller = threading.Thread(target=outlet.tell, args=(b"stalled\n",))
            teller.start()
            teller.join()
            outlet.end()
            assert await asyncio.to_thread(lines, theirs) == [BIG.strip(), b"stalled"]

    asyncio.run(story())


@pytest.mark.parametrize("waiting", [b"", BIG])
def test_without_a_reader_it_writes_into_nothing_and_closes(waiting):
    async def story():
        async with an_outlet() as (outlet, theirs):
            outlet.write(waiting)
            theirs.close()
            outlet.tell(b"stalled\n")
            outlet.end()
            assert outlet._socket.fileno() == -1

    asyncio.run(story())
