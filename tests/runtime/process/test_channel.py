"""The inside end of the module channel, spoken to over a real socket pair."""

import asyncio
import contextlib
import json
import logging
import socket
import threading

import msgspec
import pytest

from bema.core.errors import ProtocolError
from bema.core.instance import State
from bema.core.limits import DEFAULTS, Limits
from bema.runtime.process.channel import Channel
from bema.wire.module.envelopes import read_from_module
from bema.wire.module.handshake import Announce, Init, Stop, encode
from bema.wire.module.messages import Heartbeat, HeartbeatAck, Secret, Status

INIT = Init(orchestrator_api="", module_id="m-1", env={}, listen="unix:/x.sock")
ANNOUNCE = Announce(listen="unix:/x.sock", endpoints=[])


@contextlib.asynccontextmanager
async def a_channel(init: Init | None = None, limits: Limits = DEFAULTS):
    outside, inside = socket.socketpair()
    channel = await Channel.open(inside.detach(), init, limits)
    reader, writer = await asyncio.open_connection(sock=outside)
    try:
        yield channel, reader, writer
    finally:
        channel.close()
        writer.close()
        await asyncio.sleep(0)


def test_a_process_is_told_serves_and_is_stopped():
    async def story():
        async with a_channel() as (channel, reader, writer):
            writer.write(encode(INIT))
            assert await channel.init() == INIT
            channel.announce(ANNOUNCE)
            assert msgspec.json.decode(await reader.readline(), type=Announce) == ANNOUNCE
            writer.write(encode(Stop(deadline_ms=500, reason="deploy")))
            assert (await channel.stop).deadline_ms == 500
            assert channel.handshake.state is State.DRAINING

    asyncio.run(story())


def test_the_end_of_the_channel_is_a_stop():
    async def story():
        async with a_channel(INIT) as (channel, _, writer):
            assert await channel.init() is INIT
            writer.close()
            assert (await channel.stop).reason == "the launcher is gone"

    asyncio.run(story())


def test_messages_reach_whoever_asked_for_them(caplog):
    async def story():
        async with a_channel(INIT) as (channel, reader, writer):
            heard: asyncio.Queue[Secret] = asyncio.Queue()
            channel.on(Secret, heard.put_nowait)
            writer.write(b'{"op":"dance"}\n' + encode(Secret(name="A", value="1")) + encode(Heartbeat()))
            assert (await heard.get()).value == "1"
            assert json.loads(await reader.readline()) == {"op": "heartbeat_ack"}

    with caplog.at_level(logging.WARNING, "bema.channel"):
        asyncio.run(story())
    assert len(caplog.records) == 1


@pytest.mark.parametrize("said", [b'{"op":"shutdown"}\n', b"hello\n", b"x" * 2_000_000 + b"\n"])
def test_something_else_than_an_init_ends_the_handshake(said):
    async def story():
        async with a_channel() as (channel, _, writer):
            writer.write(said)
            with pytest.raises(ProtocolError):
                await channel.init()

    asyncio.run(story())


def test_a_launcher_that_says_nothing_is_not_waited_for_for_ever():
    async def story():
        async with a_channel(limits=DEFAULTS.but(handshake=0.01)) as (channel, _, _):
            with pytest.raises(ProtocolError, match="no Init came"):
                await channel.init()

    asyncio.run(story())


def test_a_launcher_that_hangs_up_is_a_failed_handshake():
    async def story():
        async with a_channel() as (channel, _, writer):
            writer.close()
            with pytest.raises(ProtocolError, match="hung up"):
                await channel.init()

    asyncio.run(story())


def test_a_thread_says_how_it_serves_while_the_loop_stands_still():
    async def story():
        outside, inside = socket.socketpair()
        channel = await Channel.open(inside.detach(), INIT)
        channel.announce(ANNOUNCE)
        channel.send(HeartbeatAck())
        saying = threading.Thread(target=channel.tell, args=(Status(stalled=True),))
        saying.start()
        with outside, outside.makefile("rb") as lines:  # read here: the loop does not turn
            said = [read_from_module(lines.readline()) for _ in range(3)]
            assert said == [ANNOUNCE, HeartbeatAck(), Status(stalled=True)]
        saying.join()
        channel.close()
        channel.tell(Status())  # into nothing
        await asyncio.sleep(0)

    asyncio.run(story())
