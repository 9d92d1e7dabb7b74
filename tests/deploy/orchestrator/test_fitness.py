"""An instance is fit when the path that its author named answers below 400, over its own listener."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bema.core.instance import State
from bema.deploy.model.deployment import CreateRequest
from bema.deploy.model.function import FunctionSettings
from bema.deploy.model.replica import Replica
from bema.deploy.model.restarts import RestartPolicy
from bema.deploy.orchestrator.fitness import doubt_of
from tests.deploy.platform import ADA, Platform, eventually, script, until


async def answering(listen: str, *answers: bytes) -> asyncio.Server:
    """A server that gives one answer after the other, the last again and again, and keeps what it was asked."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        writer.close()

    return await asyncio.start_unix_server(serve, listen)


def replica(listen: str) -> Replica:
    announce = {"listen": listen, "addresses": {"http": [f"unix:{listen}"]}}
    return Replica(instance=1, deployment="d", version="v1", state=State.SERVING, since=0, announce=announce)


@pytest.mark.parametrize(
    ("answer", "doubt"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.0 307 Temporary Redirect\r\n\r\n", ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "GET /up was answered 404"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "GET /up was answered 503"),
        (b"SSH-2.0-OpenSSH\r\n", "GET /up was not answered: the answer is no HTTP"),
        (b"", "GET /up was not answered: the answer is no HTTP"),
    ],
)
def test_below_400_is_fit(tmp_path: Path, answer: bytes, doubt: str):
    async def story() -> None:
        listen = str(tmp_path / "s")
        async with await answering(listen, answer):
            assert await doubt_of(replica(listen), "/up", 30.0) == doubt

    asyncio.run(story())


def test_who_does_not_answer_or_is_not_there_is_doubted(tmp_path: Path):
    async def story() -> None:
        listen = str(tmp_path / "s")
        assert "was not answered" in await doubt_of(replica(listen), "/up", 30.0)

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async with await asyncio.start_unix_server(silent, listen):
            assert await doubt_of(replica(listen), "/up", 0.05) == "GET /up was not answered within 0.05 s"

    asyncio.run(story())


def healthy(number: int) -> CreateRequest:
    return CreateRequest(
        "hello",
        {"type": "inline", "code": f"app = {number}\n"},
        settings=FunctionSettings(health="/up"),
        replace=True,
    )


def test_a_version_takes_requests_when_its_health_answers(tmp_path: Path):
    async def story() -> None:
        platform, listen = Platform(tmp_path), str(tmp_path / "s")
        ill, well = b"HTTP/1.1 503 Ill\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"
        platform.launcher.outcomes["hello"] = lambda launcher, instance: launcher.announce(
            instance, {"listen": listen, "endpoints": [], "addresses": {"http": [f"unix:{listen}"]}}
        )
        async with await answering(listen, ill, well), platform.orchestrator() as orchestrator:
            made = await orchestrator.create(healthy(1), ADA)
            await until(orchestrator, made.id, "starting")
            await eventually(lambda: bool(platform.launcher.started))
            assert platform.launcher.started[0].share == 0
            info = await orchestrator.settled(made.id, ADA)
            assert (info.state, info.traffic) == ("ready", {"v1": 100})

    asyncio.run(story())


def test_one_that_is_never_fit_changes_nothing_and_says_what_was_doubted(tmp_path: Path):
    async def story() -> None:
        policy, listen = RestartPolicy(start_limit=200_000), str(tmp_path / "s")
        platform = Platform(tmp_path, policy)
        async with platform.orchestrator() as orchestrator:
            made = await orchestrator.create(script(), ADA)
            await orchestrator.settled(made.id, ADA)
            platform.launcher.outcomes["hello"] = lambda launcher, instance: launcher.announce(
                instance, {"listen": listen, "endpoints": [], "addresses": {"http": [f"unix:{listen}"]}}
            )
            async with await answering(listen, b"HTTP/1.1 500 Broken\r\n\r\n"):
                await orchestrator.create(healthy(2), ADA)
                info = await orchestrator.settled(made.id, ADA)
            assert (info.version, info.state, info.traffic) == ("v1", "ready", {"v1": 100})
            assert info.latest is not None and info.latest.error is not None
            assert info.latest.error.code == "start_failed"
            assert info.latest.error.message == "hello was never fit to take requests: GET /up was answered 500"

    asyncio.run(story())
