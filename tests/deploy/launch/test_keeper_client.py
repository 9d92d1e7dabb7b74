"""The client of the link against a keeper that the test plays."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bema.core.errors import Conflict, Disconnected, Failed, Refused, Unavailable
from bema.deploy.launch.keeper_client import KeeperClient

Story = Callable[[KeeperClient, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def told(story: Story) -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        keeping = await KeeperClient.open(ours.detach())
        try:
            await asyncio.wait_for(story(keeping, reader, writer), 10)
        finally:
            await keeping.close()
            writer.close()

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
