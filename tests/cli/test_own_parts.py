"""bema's own parts, replaced by installed packages: listed by `bema plugins`, used by the runtime, and no line changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bema.cli.plugins import FACTORIES
from tests.parts.conftest import Machine

MEETING = """
from bema.runtime.discovery.flock import FlockDiscovery

class CountingDiscovery(FlockDiscovery):
    views = 0

    async def view(self, namespace=None, component=None):
        CountingDiscovery.views += 1
        return await super().view(namespace, component)
"""

PICKING = """
class Eldest:
    def pick(self, candidates, load, call):
        return min(candidates, key=lambda instance: instance.since)
"""

# three instances of one component in one process, called ten times by a client that says nothing of how
PROGRAM = """
import asyncio, json
import bema
from bema.runtime.distributed import DistributedRuntime

async def main():
    served = []
    for number in range(3):
        runtime = DistributedRuntime()
        who = runtime.endpoint("demo.worker.who")
        serving = asyncio.create_task(who.serve_endpoint(lambda own=number: own))
        async with DistributedRuntime() as looker:
            await looker.endpoint("demo.worker.who").client().wait_for_instances(number + 1, timeout=10)
        served.append((runtime, serving))
    async with bema.connect() as runtime:
        client = runtime.endpoint("demo.worker.who").client()
        await client.wait_for_instances(3, timeout=10)
        answers = sorted({await client() for _ in range(10)})
        print(json.dumps({"discovery": type(runtime.discovery).__name__, "answers": answers,
                          "views": getattr(type(runtime.discovery), "views", 0)}))
    for one, serving in served:
        one.stop()
        await serving
        await one.close()

asyncio.run(main())
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")


def story(machine: Machine, **env: str) -> dict[str, Any]:
    done = machine.run(PROGRAM, prelude="", **env)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def install(machine: Machine, discovery: str = "flock", picker: str = "round_robin") -> None:
    for package, kind, name, source, title in (
        ("acme-meeting", "discovery", discovery, MEETING, "CountingDiscovery"),
        ("acme-picking", "picker", picker, PICKING, "Eldest"),
    ):
        module = package.replace("-", "_")
        machine.add(package, {name: f"{module}:{title}"}, {f"{module}.py": source}, group=f"bema.{kind}.plugins")


def test_an_installed_package_replaces_a_part_without_a_line_of_code(machine: Machine) -> None:
    assert story(machine) == {"discovery": "FlockDiscovery", "answers": [0, 1, 2], "views": 0}
    install(machine)
    found = story(machine)
    assert found["discovery"] == "CountingDiscovery" and found["views"] > 0
    assert len(found["answers"]) == 1
    listed = json.loads(machine.bema("plugins", "ls", "--json").stdout)
    factories = {factory["group"]: factory for factory in listed}
    ((winner, loser),) = [factories["bema.discovery"]["names"]["flock"]]
    assert (winner["id"], winner["is_selected"], winner["reason"]) == ("acme-meeting:flock", True, "plugin")
    assert (loser["reference"], loser["is_selected"]) == ("bema.runtime.discovery.flock:FlockDiscovery", False)
    assert factories["bema.picker"]["in_use"] == "round_robin"
    assert factories["bema.picker"]["names"]["round_robin"][0]["id"] == "acme-picking:round_robin"
    assert machine.bema("plugins", "disable", "acme-meeting").returncode == 0
    assert story(machine)["discovery"] == "FlockDiscovery"


def test_a_new_name_waits_until_it_is_asked_for(machine: Machine) -> None:
    install(machine, "counting", "eldest")
    assert story(machine) == {"discovery": "FlockDiscovery", "answers": [0, 1, 2], "views": 0}
    (machine.home / ".env").write_text("BEMA_PICKER=eldest\n")
    (machine.home / "bema.toml").write_text('[plugins.use]\n"bema.discovery" = "counting"\n')
    found = story(machine)
    assert found["discovery"] == "CountingDiscovery" and len(found["answers"]) == 1
    found = story(machine, BEMA_DISCOVERY="flock", BEMA_PICKER="round_robin")
    assert found == {"discovery": "FlockDiscovery", "answers": [0, 1, 2], "views": 0}


def test_what_is_not_there_ends_in_one_sentence_with_what_is(machine: Machine) -> None:
    done = machine.bema("ls", BEMA_DISCOVERY="flok")
    assert done.returncode == 1
    assert "nothing is named 'flok'; it has flock, memory; did you mean 'flock'?" in done.stderr
    assert machine.bema("plugins", "doctor", BEMA_DISCOVERY="flok").returncode == 1
    assert machine.bema("plugins", "doctor").returncode == 0


def test_every_kind_of_part_is_listed_with_a_builtin(machine: Machine) -> None:
    listed = json.loads(machine.bema("plugins", "ls", "--json").stdout)
    assert [factory["factory"] for factory in listed] == [row.partition(":")[2] for row in FACTORIES]
    for factory in listed:
        builtins = [row for rows in factory["names"].values() for row in rows if not row["is_plugin"]]
        # extensions are named by the rooms above, and there is none that bema starts without one
        assert builtins or factory["factory"] == "ExtensionFactory", factory["factory"]
        assert factory["in_use"] is None or factory["in_use"] in factory["names"]
