"""What an instance asks of the orchestrator: answered in order, refused in the wire's shapes, past the keeper."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bema.core.errors import Denied
from bema.deploy.launch.keeper_client import KeeperClient
from bema.deploy.launch.launcher import Announced, Exited
from bema.deploy.launch.operations import Operations, OperationSockets
from bema.deploy.launch.process import ProcessLauncher
from bema.runtime.discovery.flock import FlockDiscovery
from bema.wire.module.messages import GetSecret, Secret
from tests.deploy.keeper.conftest import Platform, platform, until
from tests.deploy.launch.test_process import Stage, own_state

__all__ = ["own_state", "platform"]


async def secret(asked: GetSecret) -> Secret:
    if asked.name == "SLOW":
        await asyncio.sleep(0.05)
    if asked.name == "FORBIDDEN":
        raise Denied("it is another's")
    return Secret(name=asked.name, value=f"value of {asked.name}")


@contextlib.asynccontextmanager
async def operated(
    answers: Mapping[type[Any], Any], *, taken_over: bool = False
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    ours, theirs = socket.socketpair()
    operations = await Operations(1, answers, taken_over=taken_over).speak(ours.detach())
    reader, writer = await asyncio.open_connection(sock=theirs)
    try:
        yield reader, writer
    finally:
        await operations.stop()
        writer.close()
        await asyncio.sleep(0)


def said(asked: bytes, count: int, *, taken_over: bool = False) -> list[Any]:
    """The answers, and a line of its own for whatever comes before them."""

    async def story() -> list[Any]:
        async with operated({GetSecret: secret}, taken_over=taken_over) as (reader, writer):
            writer.write(asked)
            lines = [await asyncio.wait_for(reader.readline(), 5) for _ in range(count)]
            return [json.loads(line) if line.strip() else "" for line in lines]

    return asyncio.run(story())


def line(**message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"


def test_answers_come_in_the_order_of_the_questions():
    asked = line(op="get_secret", name="SLOW") + line(op="get_secret", name="FAST")
    assert [answer["value"] for answer in said(asked, 2)] == ["value of SLOW", "value of FAST"]


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "port_request": (
        {"request_id": "r-1", "specific_port": None},
        {"op": "port_response", "request_id": "r-1", "success": False, "port": 0},
    ),
    "service_request": (
        {"id": "s-1", "service_type": "Cache"},
        {"op": "service_response", "id": "s-1", "service_type": "Cache", "success": False},
    ),
    "service_operation": (
        {"connection_id": "c", "service_type": "Database", "operation": "query", "params": {}},
        {"op": "service_operation_result", "success": False},
    ),
    "discover_service_providers": (
        {"service_type": "Jwt"},
        {"op": "discover_service_providers_response", "success": False, "providers": []},
    ),
    "register_service_provider": (
        {"service_type": {"Custom": "x"}, "name": "n", "address": "a"},
        {"op": "register_service_provider_response", "success": False},
    ),
    "route_to_module": (
        {
            "target_module_id": "b",
            "target_endpoint": "e",
            "request_id": "q-1",
            "payload": {"data": [], "format": "Json"},
        },
        {"op": "error", "of": "route_to_module", "key": "q-1", "code": "not_found"},
    ),
}


@pytest.mark.parametrize("op", REFUSED)
def test_what_nobody_answers_is_refused_in_the_shape_of_its_answer(op):
    arguments, expected = REFUSED[op]
    [answer] = said(line(op=op, **arguments), 1)
    assert {key: answer[key] for key in expected} == expected
    assert f"nobody here answers '{op}'" in json.dumps(answer)


def test_what_its_answerer_refuses_says_why():
    [answer] = said(line(op="get_secret", name="FORBIDDEN"), 1)
    assert answer == {
        "op": "error",
        "of": "get_secret",
        "key": "FORBIDDEN",
        "code": "unauthenticated",
        "message": "it is another's",
    }


def test_a_line_that_is_no_operation_is_answered_and_the_next_one_too():
    first, second = said(b"not JSON\n" + line(op="get_secret", name="A"), 2)
    assert (first["op"], first["code"]) == ("error", "protocol")
    assert second["value"] == "value of A"


def test_what_asks_for_no_answer_gets_none():
    asked = line(op="heartbeat_ack") + line(op="get_secret", name="A")
    assert [answer["op"] for answer in said(asked, 1)] == ["secret"]


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_the_tail_of_a_line_that_the_one_before_had_begun_is_dropped_and_no_more(cut):
    tail = line(op="get_secret", name="{}", more={"op": "get_secret"})[cut:]
    blank, answer = said(tail + line(op="get_secret", name="A"), 2, taken_over=True)
    assert (blank, answer["value"]) == ("", "value of A")


def test_a_whole_line_that_waited_for_the_next_orchestrator_is_answered():
    blank, answer = said(line(op="get_secret", name="A"), 2, taken_over=True)
    assert (blank, answer["value"]) == ("", "value of A")


def test_who_reads_no_answers_loses_the_socket():
    async def huge(asked: GetSecret) -> Secret:
        return Secret(name=asked.name, value="x" * (1 << 20))

    async def story() -> None:
        async with operated({GetSecret: huge}) as (reader, writer):
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(line(op="get_secret", name="A") * 40)
            async with asyncio.timeout(10):
                while not writer.is_closing():
                    writer.write(b"\n")
                    await asyncio.sleep(0.01)

    asyncio.run(story())


ASKING = """
import asyncio, json
from pathlib import Path
from bema import Context, async_init, endpoint, service
from bema.wire.module.messages import GetSecret, Secret, PortRequest, PortResponse

@service(name="asking", namespace="demo")
class Asking:
    def __init__(self, context: Context):
        self.context = context
        self.answers = asyncio.Queue()

    @async_init
    async def ask(self):
        self.orchestrator = await self.context.operations()
        for kind in (Secret, PortResponse):
            self.orchestrator.on(kind, self.answers.put_nowait)
        self.orchestrator.send(GetSecret(name="A"))
        self.orchestrator.send(PortRequest(request_id="r"))
        secret, port = await self.answers.get(), await self.answers.get()
        Path("FOLDER/first").write_text(f"{secret.value} {port}")
        self.again = asyncio.create_task(self.asked_again())

    async def asked_again(self):
        while not Path("FOLDER/again").exists():
            await asyncio.sleep(0.01)
        self.orchestrator.send(GetSecret(name="B"))
        Path("FOLDER/second").write_text((await self.answers.get()).value)

    @endpoint()
    async def fine(self) -> str:
        return "fine"
"""


def test_a_service_asks_and_is_answered_by_the_next_orchestrator_too(platform: Platform) -> None:
    class AnsweringStage(Stage):
        async def connect(self) -> ProcessLauncher:
            self.platform.connect()
            ends = [self.platform._link.dup(), self.platform.descriptors.socket.dup()]
            keeper = await KeeperClient.open(*(end.detach() for end in ends))
            self.launcher = ProcessLauncher(keeper, sockets=OperationSockets(keeper, {GetSecret: secret}))
            self.discovery = FlockDiscovery()
            self.launcher.meet(self.discovery)
            return self.launcher

        async def close(self) -> None:
            await self.launcher.close()
            await self.discovery.close()

    def told(name: str) -> str:
        file = stage.file(name)
        return until(lambda: file.exists() and file.read_text(), 10)  # type: ignore[no-any-return]

    async def first() -> None:
        await stage.connect()
        code = ASKING.replace("FOLDER", str(platform.folder))
        await stage.start(stage.given(code, "service", "Asking", operations=True))
        assert isinstance(await stage.event(), Announced)
        answers = told("first")
        assert "value of A" in answers and "PortResponse(request_id='r', success=False" in answers
        await stage.close()

    async def second() -> None:
        await stage.connect()
        [running] = await stage.launcher.poll()
        Path(stage.file("again")).touch()
        assert "value of B" in await asyncio.to_thread(told, "second")
        await stage.launcher.stop(running.instance, 5.0, "test")
        while not isinstance(event := await stage.event(), Exited):
            pass
        assert event.cause == "stopped"
        await stage.close()

    platform.ready()
    stage = AnsweringStage(platform, 30.0)
    asyncio.run(first())
    platform.replace_orchestrator()
    asyncio.run(second())
