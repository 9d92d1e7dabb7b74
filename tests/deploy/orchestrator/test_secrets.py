"""Secrets of functions: given at the start, missed with a reason, and renewed when they change."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from bema.core.access import LOCAL_ADMIN
from bema.deploy.launch.launcher import hangs
from bema.deploy.model.deployment import Deployment, DeploymentInfo
from bema.deploy.model.function import FunctionSettings
from bema.deploy.orchestrator.secrets import SecretValue
from bema.deploy.orchestrator.service import Orchestrator
from tests.deploy.platform import ADA, BOB, Platform, eventually, script, until


async def holding(platform: Platform, orchestrator: Orchestrator, *names: str) -> DeploymentInfo:
    """A deployment of ada's that asks for these secrets."""
    made = await orchestrator.create(script(), ADA)
    deployment = platform.store.deployments()[made.id]
    version = msgspec.structs.replace(deployment.version, settings=FunctionSettings(secrets=names))
    changed: Deployment = msgspec.structs.replace(deployment, versions=(version,))
    await platform.store.save(changed)
    return made


def run(story: object) -> None:
    asyncio.run(asyncio.wait_for(story, 60))  # type: ignore[arg-type]


def test_a_function_is_given_its_owners_secret(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            await orchestrator.put_secret("TOKEN", SecretValue("theirs"), BOB)
            await orchestrator.put_secret("TOKEN", SecretValue("mine"), ADA)
            made = await holding(platform, orchestrator, "TOKEN")
            await until(orchestrator, made.id, "ready")
            assert platform.launcher.started[-1].secrets == {"TOKEN": "mine"}

    run(story())


def test_a_start_without_the_secret_says_which_and_how_to_set_it(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            made = await holding(platform, orchestrator, "TOKEN")
            info = await until(orchestrator, made.id, "start_failed")
            assert info.error is not None
            assert info.error.code == "secret_missing"
            assert "TOKEN of ada" in info.error.message
            assert "bema secret set" in info.error.fix
            assert platform.launcher.started == []
            await orchestrator.put_secret("TOKEN", SecretValue("now"), ADA)
            await until(orchestrator, made.id, "ready")

    run(story())


def test_a_secret_that_changed_starts_anew_what_holds_it_and_nothing_else(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            await orchestrator.put_secret("TOKEN", SecretValue("one"), ADA)
            made = await holding(platform, orchestrator, "TOKEN")
            await until(orchestrator, made.id, "ready")
            other = await orchestrator.create(script("other"), ADA)
            await until(orchestrator, other.id, "ready")
            await orchestrator.put_secret("TOKEN", SecretValue("one"), ADA)
            await orchestrator.put_secret("TOKEN", SecretValue("theirs"), BOB)
            assert platform.launcher.stopped == []
            await orchestrator.put_secret("TOKEN", SecretValue("two"), ADA)
            await eventually(lambda: platform.launcher.started[-1].secrets == {"TOKEN": "two"})
            await until(orchestrator, made.id, "ready")
            assert [reason for _, _, reason in platform.launcher.stopped] == ["a secret changed"]
            assert [each.deployment for each in platform.launcher.started] == [made.id, other.id, made.id]

    run(story())


def test_no_value_is_in_the_store(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            await orchestrator.put_secret("TOKEN", SecretValue("s3cr3t-value"), ADA)
            made = await holding(platform, orchestrator, "TOKEN")
            info = await until(orchestrator, made.id, "ready")
            assert b"s3cr3t-value" not in b"".join(entry.value for entry in await platform.engine.scan(""))
            assert "s3cr3t-value" not in repr(info) + repr(platform.launcher.started)
            assert [each.name for each in await orchestrator.secrets(ADA)] == ["TOKEN"]
            assert await orchestrator.secrets(LOCAL_ADMIN) == []

    run(story())


def test_who_comes_next_starts_anew_what_runs_with_the_value_before(tmp_path: Path):
    """The orchestrator died after the value was kept."""

    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as first:
            await first.put_secret("TOKEN", SecretValue("one"), ADA)
            made = await holding(platform, first, "TOKEN")
            await until(first, made.id, "ready")
        platform.parts.secrets.put("ada", "TOKEN", "two")
        async with platform.orchestrator() as second:
            await eventually(lambda: platform.launcher.started[-1].secrets == {"TOKEN": "two"})
            await until(second, made.id, "ready")
        async with platform.orchestrator() as third:
            await until(third, made.id, "ready")
            assert len(platform.launcher.started) == 2

    run(story())


def test_one_that_is_being_started_with_the_value_before_is_started_anew(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        platform.launcher.outcomes["hello"] = hangs
        async with platform.orchestrator() as orchestrator:
            await orchestrator.put_secret("TOKEN", SecretValue("one"), ADA)
            made = await holding(platform, orchestrator, "TOKEN")
            await eventually(lambda: len(platform.launcher.started) == 1)
            del platform.launcher.outcomes["hello"]
            await orchestrator.put_secret("TOKEN", SecretValue("two"), ADA)
            await until(orchestrator, made.id, "ready")
            assert platform.launcher.started[-1].secrets == {"TOKEN": "two"}

    run(story())
