"""The client of the link against a keeper that the test plays."""

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bema.core.errors import Conflict, Disconnected, Failed, Refused, Unavailable
from bema.deploy.keeper import descriptors
from bema.deploy.keeper.descriptors import DescriptorSocket
from bema.deploy.launch.keeper_client import KeeperClient

Story = Callable[[KeeperClient, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Beside = Callable[[KeeperClient, asyncio.StreamReader, asyncio.StreamWriter, DescriptorSocket], Awaitable[None]]


def told(story: Story) -> None:
    told_beside(lambda keeping, reader, writer, beside: story(keeping, reader, writer))


def told_beside(story: Beside) -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        beside, end = descriptors.pair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        keeping = await KeeperClient.open(ours.detach(), end.detach())
        try:
            await asyncio.wait_for(story(keeping, reader, writer, beside), 10)
        finally:
            await keeping.close()
            writer.close()
            beside.close()

    asyncio.run(run())


def line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def test_answers_find_their_requests_in_any_order():
    async def story(keeping, reader, writer):
        asked = [asyncio.create_task(keeping.request("stop", instance=n)) for n in (1, 2)]
        heard = [json.loads(await reader.readline()) for _ in asked]
        assert [(h["op"], h["instance"]) for h in heard] == [("stop", 1), ("stop", 2)]
        for h in reversed(heard):
            writer.write(line({"id": h["id"], "ok": {"instance": h["instance"]}}))
        assert [await a for a in asked] == [{"instance": 1}, {"instance": 2}]

    told(story)


@pytest.mark.parametrize(
    ("code", "kind"), [("start_failed", Failed), ("unavailable", Unavailable), ("already_served", Conflict)]
)
def test_a_refusal_is_raised_as_its_kind(code, kind):
    async def story(keeping, reader, writer):
        asked = asyncio.create_task(keeping.request("spawn"))
        number = json.loads(await reader.readline())["id"]
        writer.write(line({"id": number, "error": {"code": code, "message": "why"}}))
        with pytest.raises(kind if code != "already_served" else Exception, match="why") as caught:
            await asked
        assert caught.value.code == code

    told(story)


def test_events_come_in_order_and_the_end_is_the_last():
    async def story(keeping, reader, writer):
        for number in range(3):
            writer.write(line({"event": "exited", "instance": number}))
        writer.close()
        events = [await keeping.events.get() for _ in range(4)]
        assert [event and event["instance"] for event in events] == [0, 1, 2, None]

    told(story)


def test_the_end_of_the_link_fails_what_waits_and_what_comes():
    async def story(keeping, reader, writer):
        asked = asyncio.create_task(keeping.request("list"))
        await reader.readline()
        writer.close()
        with pytest.raises(Disconnected):
            await asked
        await keeping.events.get()
        with pytest.raises(Disconnected):
            await keeping.request("list")

    told(story)


def test_without_a_keeper_it_is_refused(monkeypatch):
    monkeypatch.delenv("BEMA_KEEPER", raising=False)
    with pytest.raises(Refused, match="no keeper"):
        asyncio.run(KeeperClient.open())


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_what_goes_with_a_request_is_there_before_its_line():
    async def story(keeping, reader, writer, beside):
        reading, writing = os.pipe()
        asked = asyncio.create_task(keeping.request("spawn", descriptors={"lease": writing}))
        number = json.loads(await reader.readline())["id"]
        [carried] = beside.receive()
        assert (carried.request, carried.name) == (number, "lease")
        writer.write(line({"id": number, "ok": {}}))
        await asked
        assert is_open(writing)
        os.write(carried.descriptor, b"same")
        assert os.read(reading, 10) == b"same"
        for each in (reading, writing, carried.descriptor):
            os.close(each)

    told_beside(story)


def test_what_is_lent_is_the_keepers_own():
    async def story(keeping, reader, writer, beside):
        reading, writing = os.pipe()
        asked = asyncio.create_task(keeping.borrow(7, "operations"))
        heard = json.loads(await reader.readline())
        assert (heard["op"], heard["instance"], heard["name"]) == ("lend", 7, "operations")
        beside.send(heard["id"], "operations", writing)
        os.close(writing)
        writer.write(line({"id": heard["id"], "ok": {}}))
        borrowed = await asked
        os.write(borrowed, b"same")
        assert os.read(reading, 10) == b"same"
        os.close(borrowed)
        assert os.read(reading, 10) == b""
        os.close(reading)

    told_beside(story)


def test_what_nobody_waits_for_is_closed():
    async def story(keeping, reader, writer, beside):
        reading, writing = os.pipe()
        beside.send(99, "late", writing)
        asked = asyncio.create_task(keeping.request("list"))
        number = json.loads(await reader.readline())["id"]
        beside.send(number, "unasked", writing)
        os.close(writing)
        writer.write(line({"id": number, "ok": {}}))
        await asked
        assert await asyncio.to_thread(os.read, reading, 10) == b""
        os.close(reading)

    told_beside(story)


def test_while_the_keeper_takes_none_a_request_waits_for_room():
    async def story(keeping, reader, writer, beside):
        reading, writing = os.pipe()
        given = {f"{number}": writing for number in range(2000)}
        asked = asyncio.create_task(keeping.request("spawn", descriptors=given))
        names: list[str] = []
        while len(names) < len(given):
            await asyncio.sleep(0)
            for carried in beside.receive():
                os.close(carried.descriptor)
                names.append(carried.name)
        assert names == list(given)
        writer.write(line({"id": json.loads(await reader.readline())["id"], "ok": {}}))
        await asked
        os.close(reading)
        os.close(writing)

    told_beside(story)
