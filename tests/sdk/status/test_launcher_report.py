"""What a launcher is told that writes the record in the instance's stead."""

import asyncio
import contextlib
import queue
import socket
import threading
import time
from typing import Any

import msgspec
import pytest

from bema import Context, async_init, endpoint, readiness, serve, service
from bema.runtime.process import inheritance
from bema.wire.module.envelopes import read_from_module
from bema.wire.module.handshake import Announce, Init, Stop, encode
from bema.wire.module.messages import Status
from tests.runtime.conftest import each_loop

__all__ = ["each_loop"]

pytestmark = pytest.mark.usefixtures("each_loop")

QUICK = {"limits.health": 0.02, "limits.stalled": 0.1}


class Launcher:
    """The outer end of the channel, read by a thread: it hears what is said while the loop stands still."""

    def __init__(self, folder, features: list[str] | None) -> None:
        self.said: queue.Queue[Any] = queue.Queue()
        self.end, inside = socket.socketpair()
        self.lease = open(folder / "lease", "w")  # noqa: SIM115
        init = Init(
            orchestrator_api="",
            module_id="m",
            env={},
            listen=f"unix:{folder}/x.sock",
            instance="464ej61pkfrcm",
            listen_fd=self._listener(str(folder / "x.sock")),
            lease_fd=self.lease.fileno(),
            features=features,
            settings=QUICK,
        )
        inheritance.adopt(inside.detach(), msgspec.to_builtins(init))
        self.reading = threading.Thread(target=self._read)
        self.reading.start()

    @staticmethod
    def _listener(path: str) -> int:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        return listener.detach()

    def _read(self) -> None:
        with self.end.makefile("rb") as lines:
            for line in lines:
                self.said.put(read_from_module(line))

    async def hears(self) -> Any:
        return await asyncio.to_thread(self.said.get, timeout=10)

    def close(self) -> None:
        self.end.close()
        self.lease.close()


def a_service() -> Any:
    @service(name="told", namespace="demo")
    class Told:
        well = True

        def __init__(self, context: Context) -> None:
            type(self).served = self  # type: ignore[attr-defined]
            self.context = context

        @endpoint()
        async def ask(self) -> str:
            return "fine"

        @readiness
        def is_well(self) -> bool:
            return type(self).well

    return Told


@contextlib.asynccontextmanager
async def launched(tmp_path, cls: Any, features: list[str] | None = None):
    launcher = Launcher(tmp_path, ["status"] if features is None else features)
    running = asyncio.create_task(serve(cls))
    try:
        yield launcher
    finally:
        launcher.end.sendall(encode(Stop(deadline_ms=100)))
        await asyncio.wait_for(running, 10)
        await asyncio.to_thread(launcher.reading.join, 10)
        launcher.close()


def test_an_instance_that_serves_as_it_announced_says_nothing_else(tmp_path):
    async def story():
        async with launched(tmp_path, a_service()) as launcher:
            assert isinstance(await launcher.hears(), Announce)
        # it says that it takes nothing new while it drains; that is all
        said = [launcher.said.get_nowait() for _ in range(launcher.said.qsize())]
        assert [(type(each), each.ready) for each in said] == [(Status, False)]

    asyncio.run(story())


def test_not_ready_is_told_and_ready_again(tmp_path):
    async def story():
        cls = a_service()
        async with launched(tmp_path, cls) as launcher:
            await launcher.hears()
            cls.well = False
            said = await launcher.hears()
            assert (said.ready, said.stalled, [each.name for each in said.operations]) == (False, False, ["ask"])
            cls.well = True
            assert (await launcher.hears()).ready

    asyncio.run(story())


def test_what_is_published_hidden_and_added_is_told(tmp_path):
    async def story():
        cls = a_service()
        async with launched(tmp_path, cls) as launcher:
            await launcher.hears()
            component = cls.served.context.component

            async def names() -> list[str]:
                return [each.name for each in (await launcher.hears()).operations]

            load = [1]
            await component.publish(load=load)
            assert (await launcher.hears()).data == {"load": [1]}
            load.append(2)
            await component.publish(load=load)
            assert (await launcher.hears()).data == {"load": [1, 2]}
            await component.publish(load=[1, 2])  # nothing new
            await component.endpoint("ask").hide()
            assert await names() == []
            await component.endpoint("ask").show()
            assert await names() == ["ask"]

            async def more() -> int:
                return 1

            adding = asyncio.create_task(component.endpoint("more").serve_endpoint(more))
            assert await names() == ["ask", "more"]
            adding.cancel()
            assert await names() == ["ask"]

    asyncio.run(story())


def test_what_was_published_before_it_served_is_told_before_it_announces(tmp_path):
    @service(name="told", namespace="demo")
    class Early:
        def __init__(self, context: Context) -> None:
            self.context = context

        @async_init
        async def early(self) -> None:
            await self.context.component.publish(zone="a")

        @endpoint()
        async def ask(self) -> str:
            return "fine"

    async def story():
        async with launched(tmp_path, Early) as launcher:
            first, second = await launcher.hears(), await launcher.hears()
            assert (first.data, type(second)) == ({"zone": "a"}, Announce)

    asyncio.run(story())


def test_a_loop_that_stands_still_is_told_by_a_thread_and_the_loop_has_the_last_word(tmp_path):
    async def story():
        cls = a_service()
        async with launched(tmp_path, cls) as launcher:
            await launcher.hears()
            began = time.monotonic()
            assert launcher.said.get(timeout=10).stalled  # the loop stands here
            assert time.monotonic() - began < 5
            assert not (await launcher.hears()).stalled

    asyncio.run(story())


def test_a_launcher_that_does_not_list_the_feature_is_told_nothing(tmp_path):
    async def story():
        cls = a_service()
        async with launched(tmp_path, cls, ["drain"]) as launcher:
            await launcher.hears()
            await cls.served.context.component.publish(load=1)
            await cls.served.context.component.endpoint("ask").hide()
            assert "bema-stall" not in {thread.name for thread in threading.enumerate()}
        assert launcher.said.empty()

    asyncio.run(story())
