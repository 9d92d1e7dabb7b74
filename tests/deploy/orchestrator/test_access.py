"""No operation of the orchestrator without a principal: all of its endpoints, in the process and over a connection."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bema.core.access import GATEWAY, LOCAL_ADMIN, Kind, Principal, holder
from bema.core.errors import BemaError, Denied, Invalid, NotFound
from bema.core.keys import ApiKey
from bema.core.spec import EndpointSpec
from bema.deploy.model.function import FunctionSettings
from bema.deploy.model.scaling import Loads
from bema.deploy.orchestrator.secrets import SecretValue
from bema.deploy.orchestrator.service import Orchestrator
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.distributed import DistributedRuntime
from bema.runtime.process.host import LaunchOptions
from bema.sdk.spec import spec_of
from tests.deploy.platform import ADA, BOB, Platform, script

ENDPOINTS = {spec.name: spec for spec in spec_of(Orchestrator).endpoints}
WORKER = holder(Kind.INSTANCE, "worker")
ARGUMENTS: dict[str, Any] = {
    **{"request": script(), "id": str(uuid.uuid4()), "wait": 0.0},
    **{"settings": FunctionSettings(), "version": "v1", "shares": {}, "sticky": None},
    "key": ApiKey(name="ci", user="ada", digest="0" * 64),
    "name": "ci",
    "secret": SecretValue("s3cr3t"),
    "report": Loads(gateway=1),
}


def arguments(spec: EndpointSpec) -> dict[str, Any]:
    """What the endpoint needs beside the principal."""
    needed = inspect.signature(getattr(Orchestrator, spec.attribute or spec.name)).parameters
    return {name: ARGUMENTS[name] for name, p in needed.items() if p.default is p.empty and name in ARGUMENTS}


async def outcome(answer: Any) -> Any:
    if hasattr(answer, "__aiter__"):
        return [item async for item in answer]
    return await answer


async def called(orchestrator: Orchestrator, name: str, principal: Principal | None) -> Any:
    spec = ENDPOINTS[name]
    function = getattr(orchestrator, spec.attribute or spec.name)
    return await outcome(function(principal=principal, **arguments(spec)))


@asynccontextmanager
async def served(folder: Path, token: str = "") -> AsyncIterator[tuple[Orchestrator, DistributedRuntime]]:
    """An orchestrator behind a connection; `token` is what its record says."""
    discovery = MemoryDiscovery()
    options = LaunchOptions(token=token) if token else None
    async with (
        Platform(folder).orchestrator() as orchestrator,
        DistributedRuntime(discovery, options=options) as serving,
        DistributedRuntime(discovery) as calling,
    ):
        component = serving.namespace("bema").component("orchestrator")
        for spec in ENDPOINTS.values():
            await component.add(spec, getattr(orchestrator, spec.attribute or spec.name))
        await component.show()
        yield orchestrator, calling


@pytest.mark.parametrize("name", ENDPOINTS)
def test_every_endpoint_takes_a_principal_and_has_no_default_for_it(name: str):
    taken = inspect.signature(getattr(Orchestrator, name), eval_str=True).parameters["principal"]
    assert taken.default is taken.empty
    assert taken.annotation is Principal


@pytest.mark.parametrize("name", ENDPOINTS)
def test_nobody_is_denied(tmp_path: Path, name: str):
    async def story() -> None:
        async with Platform(tmp_path).orchestrator() as orchestrator:
            with pytest.raises(Denied) as caught:
                await called(orchestrator, name, None)
            assert caught.value.code == "unauthenticated"
            assert (await orchestrator.list(LOCAL_ADMIN)).items == []

    asyncio.run(story())


@pytest.mark.parametrize("name", ENDPOINTS)
def test_who_may_nothing_is_denied(tmp_path: Path, name: str):
    async def story() -> None:
        async with Platform(tmp_path).orchestrator() as orchestrator:
            with pytest.raises(Denied):
                await called(orchestrator, name, WORKER)

    asyncio.run(story())


@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_call_that_names_nobody_is_refused(tmp_path: Path, name: str):
    async def story() -> None:
        async with served(tmp_path) as (orchestrator, calling):
            client = await calling.endpoint(f"bema.orchestrator.{name}").client()
            for more in ({}, {"principal": None}):
                with pytest.raises((Invalid, Denied)):
                    await outcome(client(**arguments(ENDPOINTS[name]), **more))
            assert (await orchestrator.list(LOCAL_ADMIN)).items == []

    asyncio.run(story())


@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_body_says_no_more_than_the_credential_of_its_connection(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    """Whoever holds the record's token is the local admin; here it is the token of an instance."""

    async def story() -> None:
        async with served(tmp_path) as (_, calling):
            client = await calling.endpoint(f"bema.orchestrator.{name}").client()
            for claimed in (LOCAL_ADMIN, ADA, GATEWAY):
                with pytest.raises(Denied):
                    await outcome(client(**arguments(ENDPOINTS[name]), principal=claimed))

    monkeypatch.setattr("bema.runtime.rpc.routes.LOCAL_ADMIN", WORKER)
    asyncio.run(story())


def test_the_holder_of_the_record_is_the_local_admin_and_speaks_for_others(tmp_path: Path):
    async def story() -> None:
        async with served(tmp_path) as (_, calling):
            orchestrator = calling.client(Orchestrator)
            mine = await orchestrator.create(script(), ADA)
            assert mine.owner == "ada"
            assert (await orchestrator.read(mine.id, ADA)).id == mine.id
            assert (await orchestrator.read(mine.id, LOCAL_ADMIN)).id == mine.id
            assert (await orchestrator.list(BOB)).items == []
            with pytest.raises(NotFound):
                await orchestrator.read(mine.id, BOB)

    asyncio.run(story())


@pytest.mark.parametrize("name", ["read", "delete", "logs"])
def test_not_yours_and_not_there_say_the_same(tmp_path: Path, name: str):
    async def told(orchestrator: Orchestrator, id: str) -> tuple[str, str]:
        with pytest.raises(BemaError) as caught:
            await outcome(getattr(orchestrator, name)(id, BOB))
        return caught.value.code, caught.value.message.replace(id, "ID")

    async def story() -> None:
        async with Platform(tmp_path).orchestrator() as orchestrator:
            mine = await orchestrator.create(script(), ADA)
            assert await told(orchestrator, mine.id) == await told(orchestrator, str(uuid.uuid4()))

    asyncio.run(story())
