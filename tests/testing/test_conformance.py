"""The suites: bema's own parts pass them, and a part that breaks a law is caught."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest

from bema.core.errors import NotFound
from bema.core.instance import Instance
from bema.deploy.launchers import MemoryLauncher, Start, crashes
from bema.deploy.store import MemoryStore, SqliteStore
from bema.runtime.discovery import Lease, MemoryDiscovery
from bema.runtime.flock import FlockDiscovery
from bema.testing.conformance import Law, Violation, check, frame, kinds, laws
from bema.testing.conformance.launcher import Trial


@pytest.mark.parametrize("law", laws("discovery"), ids=str)
def test_memory_discovery(law: Law) -> None:
    law(MemoryDiscovery)


@pytest.mark.parametrize("law", laws("discovery", "shared"), ids=str)
def test_flock_discovery(law: Law, tmp_path: Path) -> None:
    law(lambda: FlockDiscovery(tmp_path / "d"))


@pytest.mark.parametrize("law", laws("store"), ids=str)
def test_memory_store(law: Law) -> None:
    law(MemoryStore)


@pytest.mark.parametrize("law", laws("store", "durable"), ids=str)
def test_sqlite_store(law: Law, tmp_path: Path) -> None:
    law(lambda: SqliteStore.open(tmp_path / "store.sqlite"))


def memory_trial() -> Trial:
    launcher = MemoryLauncher()
    launcher.outcomes["crashing"] = crashes(3, "no")

    def start(instance: int, name: str) -> Start:
        deployment = str(uuid.uuid4())
        return Start(instance=instance, deployment=deployment, name=name, version="v1", argv=["python"], cwd="/")

    return Trial(launcher, lambda i: start(i, "serving"), lambda i: start(i, "crashing"))


@pytest.mark.parametrize("law", laws("launcher"), ids=str)
def test_memory_launcher(law: Law) -> None:
    law(memory_trial)


class ForgetfulDiscovery(MemoryDiscovery):
    """Breaks one law: every lease has the same fence."""

    async def register(self, instance: Instance) -> Lease:
        lease = await super().register(instance)
        lease.fence = 7
        return lease


def test_a_broken_law_is_named() -> None:
    violations = check("discovery", ForgetfulDiscovery)
    assert [str(v).partition(" (")[0] for v in violations] == [
        "discovery: What is shown is what was registered, but for the fence",
        "discovery: Each lease has a greater fence than the one before it",
    ]
    assert all(isinstance(violation.__cause__, AssertionError) for violation in violations)


def test_a_part_that_never_answers_is_a_violation_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(MemoryDiscovery):
        async def view(self, *_: Any) -> Any:
            await asyncio.Event().wait()

    monkeypatch.setattr(frame, "SECONDS", 0.05)
    with pytest.raises(Violation, match=r"no answer within 0.05 s"):
        laws("discovery")[0](Silent)


def test_every_law_has_a_sentence_and_every_kind_a_suite() -> None:
    for kind in kinds():
        found = laws(kind)
        assert found and all(law.says and law.kind == kind for law in found)
    with pytest.raises(NotFound, match="there is one for discovery"):
        laws("codecs-of-nobody")
    with pytest.raises(NotFound, match="about eternal"):
        laws("store", "eternal")
