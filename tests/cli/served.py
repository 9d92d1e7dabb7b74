"""The real control API over an orchestrator whose parts are in memory, on a real socket, seen as `bema up` is seen."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn

from bema.gateway.control.app import Control
from bema.gateway.routing.activity import Activities
from bema.gateway.routing.starts import Starts
from tests.deploy.platform import Platform


class Served:
    def __init__(self, state: Path) -> None:
        self.state = state
        self.platform = Platform(state)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.loop: asyncio.AbstractEventLoop | None = None

    def in_loop(self, work: Callable[[], Any]) -> None:
        """Run something beside the orchestrator, in its event loop."""
        assert self.loop is not None
        self.loop.call_soon_threadsafe(work)

    async def run(self, ready: threading.Event, stop: asyncio.Event) -> None:
        self.loop = asyncio.get_running_loop()
        async with self.platform.orchestrator() as orchestrator:
            control = Control(
                orchestrator,
                following=orchestrator,
                token="the-token",
                gateway="http://gateway.test",
                api=self.url,
                activities=Activities(),
                starts=Starts(),
                reachable=lambda: True,
            )
            server = uvicorn.Server(uvicorn.Config(control.app, log_config=None, timeout_graceful_shutdown=1))
            serving = asyncio.create_task(server.serve([self.socket]))
            following = asyncio.create_task(control.follow())
            while not server.started:
                await asyncio.sleep(0.005)
            ready.set()
            await stop.wait()
            server.should_exit = True
            await serving
            following.cancel()


@contextlib.contextmanager
def served(state: Path) -> Iterator[Served]:
    """A platform that is up on `state`."""
    made = Served(state)
    ready = threading.Event()
    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: asyncio.run(made.run(ready, stop)))
    thread.start()
    try:
        assert ready.wait(10)
        with holding(state):
            (state / "token").write_text("the-token\n")
            up = {"api": made.url, "gateway": "http://gateway.test", "token_file": str(state / "token"), "pid": 1}
            (state / "up.json").write_text(json.dumps(up))
            yield made
    finally:
        made.in_loop(stop.set)
        thread.join(10)


@contextlib.contextmanager
def holding(state: Path) -> Iterator[None]:
    """The state directory as a running platform holds it."""
    with (state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
