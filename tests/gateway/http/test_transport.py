"""The end of a client's connection, whoever comes first."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from bema.gateway.http.transport import end_writing
from tests.gateway.http.test_listener import run

pytestmark = pytest.mark.usefixtures("every_loop")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_a_side_that_its_client_has_reset_already_is_ended_all_the_same(family):
    async def story():
        if family == socket.AF_UNIX:
            ours, theirs = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                theirs = socket.create_connection(listener.getsockname())
                ours, _ = listener.accept()
        ours.setblocking(False)
        lost = asyncio.Event()

        class Reader(asyncio.Protocol):
            def connection_lost(self, exc: Exception | None) -> None:
                lost.set()

        made, _ = await asyncio.get_running_loop().create_connection(Reader, sock=ours)
        transport = made
        transport.pause_reading()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        # what a failed write would have met is gone, and the socket is connected no longer
        ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if end_writing(transport):
            transport.close()
        await asyncio.wait_for(lost.wait(), 5)
        assert end_writing(transport) is False

    run(story())
