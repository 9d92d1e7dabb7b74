"""A deployed class and a deployed app, run by the real runner: on uvloop, measured, and bounded as the launcher says."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from bema.core.errors import Overloaded, StreamCut
from tests.runner.calling import TOKEN, calling
from tests.runner.conftest import Launch

APP = """
import asyncio
async def app(scope, receive, send):
    if scope["type"] == "http":
        body = type(asyncio.get_running_loop()).__module__.encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
"""

SERVICE = """
import asyncio
from bema import Context, service, endpoint

@service(name="counter", namespace="demo", slots=7)
class Counter:
    def __init__(self, context: Context):
        self.context = context

    @endpoint()
    async def told(self) -> dict:
        loop = type(asyncio.get_running_loop()).__module__
        return {"loop": loop, "size": self.context.settings["size"], "drain": self.context.limit("drain")}

    @endpoint()
    async def hangs(self) -> None:
        await asyncio.sleep(60)
"""


@pytest.fixture
def launch(tmp_path) -> Iterator[Launch]:
    made = Launch(tmp_path)
    yield made
    made.close()


def test_a_deployed_app_runs_on_uvloop(launch):
    running = launch(APP).serving()
    assert running.get("/").text.startswith("uvloop")
    assert running.stop() == 0


def test_a_deployed_class_is_measured_bounded_and_ended(launch):
    settings = {"size": 4, "limits.drain": 0.3, "slots": 1, "queue": 0}
    running = launch(SERVICE, "service", "Counter", auth_token=TOKEN, settings=settings)
    said = running.start().hear()
    assert {"interpreter", "init", "import", "construct", "async_init"} <= set(said["phases"])

    async def story() -> None:
        async with calling(said, "told", "hangs") as caller:
            told = caller.client("told")
            assert await told.unary({}, timeout=5) == {"loop": "uvloop", "size": 4, "drain": 0.3}
            hanging = asyncio.create_task(caller.client("hangs").unary({}, timeout=5))
            await asyncio.sleep(0)  # it is sent first
            with pytest.raises(Overloaded, match="1 calls run"):
                await told.unary({}, timeout=5)
            hanging.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await hanging

    asyncio.run(story())
    assert running.stop() == 0


def test_calls_that_outlive_the_grace_are_cut_which_the_exit_code_tells(launch):
    running = launch(SERVICE, "service", "Counter", auth_token=TOKEN)
    said = running.start().hear()

    async def story() -> None:
        async with calling(said, "hangs") as caller:
            hanging = asyncio.create_task(caller.client("hangs").unary({}, timeout=20))
            while not caller.pool.connections:
                await asyncio.sleep(0.01)
            running.say({"op": "shutdown", "deadline_ms": 200})
            with pytest.raises(StreamCut, match="stopped before the call ended"):
                await hanging

    asyncio.run(story())
    code, _, err = running.ended()
    assert code == 1
    assert "demo.counter: calls were cut" in err
