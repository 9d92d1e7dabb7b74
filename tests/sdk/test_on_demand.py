"""What an extension on demand costs before it is asked, and where what it keeps is looked for."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bema import Context, DistributedRuntime, MemoryDiscovery, endpoint, entrypoint, service
from bema.core.durable import ON_DEMAND
from bema.core.errors import BadDeclaration
from bema.runtime.process.host import LaunchOptions
from bema.sdk.on_demand import is_kept, kept_file, kept_name
from bema.sdk.spec import spec_of
from bema.testing import System
from bema.wire.module.handshake import default_init

JOBS = ON_DEMAND.extension
DATA = "0b9a7a3c-1111-4222-8333-123456789abc"


@service(name="post", namespace="demo")
class Post:
    @endpoint(idempotent=True)
    async def send(self) -> None: ...

    @endpoint
    async def burn(self) -> None: ...

    @endpoint(durable=True, idempotent=True)
    async def keep(self) -> None: ...


@pytest.fixture(autouse=True)
def state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))


def context(options: LaunchOptions | None = None, **told: Any) -> Context:
    spec = spec_of(Post)
    init = default_init(spec.address)
    init.settings = {JOBS: told} if told else {}
    return Context(DistributedRuntime(MemoryDiscovery(), options=options), spec, init)


def test_an_endpoint_that_is_idempotent_alone_needs_it_on_demand():
    found = {each.name: (each.later, each.on_demand) for each in spec_of(Post).endpoints}
    assert found == {"send": (True, ON_DEMAND), "burn": (False, None), "keep": (True, None)}


def test_nobody_says_so_by_himself():
    with pytest.raises(BadDeclaration, match="'on_demand' is an option or read from the signature"):
        endpoint(extra={"on_demand": "jobs"})


def test_what_is_run_by_hand_developed_and_deployed_is_kept_apart(tmp_path):
    async def story():
        assert kept_name(context(), JOBS) == "demo.post"
        assert kept_file(context(), JOBS) == tmp_path / "jobs" / "demo.post.sqlite"
        assert kept_name(context(LaunchOptions(lane="dev")), JOBS) == "demo.post@dev"
        deployed = context(data=DATA, kept=False, folder=str(tmp_path / "homes" / DATA / "jobs"))
        assert kept_file(deployed, JOBS) == tmp_path / "homes" / DATA / "jobs" / f"demo.post@{DATA}.sqlite"
        assert kept_file(context(data=DATA), JOBS) is None

    asyncio.run(story())


def test_it_is_kept_where_the_file_is_or_where_init_says_so(tmp_path):
    async def story():
        assert not is_kept(context(), JOBS)
        (tmp_path / "jobs").mkdir()
        (tmp_path / "jobs" / "demo.post@dev.sqlite").touch()
        assert not is_kept(context(), JOBS)
        assert is_kept(context(LaunchOptions(lane="dev")), JOBS)
        assert not is_kept(context(data=DATA, kept=False), JOBS)
        assert is_kept(context(data=DATA, kept=True), JOBS)

    asyncio.run(story())


def test_in_memory_nothing_is_looked_for(tmp_path):
    async def story():
        (tmp_path / "jobs").mkdir()
        (tmp_path / "jobs" / "demo.post.sqlite").touch()
        here = context()
        here.runtime.forgetful = True
        assert not is_kept(here, JOBS)

    asyncio.run(story())


def test_an_entrypoint_that_serves_some_endpoints_alone_can_be_asked_for_these():
    @service(name="half", namespace="demo")
    class Half:
        def __init__(self, context: Context) -> None:
            self.context = context

        @endpoint(idempotent=True)
        async def one(self) -> int:
            return 1

        @endpoint(idempotent=True)
        async def two(self) -> int:
            return 2

        @entrypoint
        async def main(self) -> None:
            component = self.context.component
            await component.add(self.context.spec.endpoints[0], self.one)
            await component.show()
            await self.context.runtime.stopping.wait()

    async def story():
        async with System(Half) as system:
            one: Any = system.client(Half).one
            assert await (await one.later()).result(5) == 1

    asyncio.run(story())
