"""The channel that a process inherits: taken once, kept from its children, refused where it is none."""

import asyncio
import os
import socket
import subprocess
import sys

import msgspec
import pytest

from bema.core.errors import Refused
from bema.runtime.process import inheritance
from bema.wire.module.handshake import Init, Stop, encode

INIT = Init(orchestrator_api="", module_id="m-1", env={}, listen="unix:/x.sock")


def test_a_process_takes_its_channel_once_and_children_do_not_get_it(monkeypatch):
    outside, inside = socket.socketpair()
    inside.set_inheritable(True)
    monkeypatch.setenv(inheritance.VARIABLE, str(inside.fileno()))

    async def story():
        outside.sendall(encode(INIT))
        channel = await inheritance.inherited()
        assert channel is not None
        assert (await channel.init()).module_id == "m-1"
        assert inheritance.VARIABLE not in os.environ
        assert await inheritance.inherited() is None
        seen = subprocess.run(
            [sys.executable, "-c", f"import os; os.fstat({inside.fileno()})"], close_fds=False, capture_output=True
        )
        assert seen.returncode != 0
        channel.close()
        await asyncio.sleep(0)

    asyncio.run(story())
    outside.close()
    inside.detach()


def test_what_the_runner_read_already_is_not_read_again():
    async def story():
        outside, inside = socket.socketpair()
        inheritance.adopt(inside.detach(), msgspec.to_builtins(INIT))
        channel = await inheritance.inherited()
        assert channel is not None
        assert await channel.init() == INIT
        outside.sendall(encode(Stop()))
        assert await channel.stop == Stop()
        channel.close()
        outside.close()
        await asyncio.sleep(0)

    asyncio.run(story())


def test_a_channel_that_is_none_is_refused(monkeypatch, tmp_path):
    async def story(value):
        monkeypatch.setenv(inheritance.VARIABLE, value)
        with pytest.raises(Refused):
            await inheritance.inherited()

    with open(tmp_path / "file", "w") as file:
        asyncio.run(story(str(os.dup(file.fileno()))))
    asyncio.run(story("first"))
