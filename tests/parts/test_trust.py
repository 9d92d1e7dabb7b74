"""Trust: whose code is loaded, who may replace a builtin, and the line that is written when it happens."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.parts.conftest import Machine

DETAIL = "F.list_implementations('chat', detail=True)"
CREATE = "F.create_instance('chat').format('x')"


@pytest.fixture
def marker(machine: Machine) -> Path:
    """A folder in which a plugin that is imported leaves a file."""
    folder = machine.folder / "markers"
    folder.mkdir()
    return folder


def test_an_unlisted_distribution_is_never_imported(machine: Machine, marker: Path) -> None:
    machine.add("stranger")
    env = {"BEMA_PLUGINS_MODE": "allow", "MARKER": str(marker)}
    row = machine.ask(DETAIL, **env)[0]
    assert (row["state"], row["why"]) == ("not_allowed", "stranger is not on the allow list")
    assert machine.ask(CREATE, **env) == "chat x"
    assert not list(marker.iterdir())
    strict = machine.run("F.discover_plugins(strict=True)", **env)
    assert strict.returncode == 1 and "stranger is not on the allow list" in strict.stderr


def test_a_listed_one_adds_names_and_needs_a_right_of_its_own_to_replace_a_builtin(machine: Machine) -> None:
    machine.add("friend", {"chat": "friend:Friend", "new": "friend:Friend"})
    env = {"BEMA_PLUGINS_MODE": "allow", "BEMA_PLUGINS_ALLOW": "friend==1.0"}
    assert machine.ask("F.create_instance('new').format('x')", **env) == "Friend x"
    assert machine.ask(CREATE, **env) == "chat x"
    assert machine.ask(CREATE, **env, BEMA_PLUGINS_OVERRIDE_BUILTIN="friend") == "Friend x"


def test_deny_beats_everything(machine: Machine, marker: Path) -> None:
    machine.add("friend")
    env = {"BEMA_PLUGINS_DENY": "Friend", "MARKER": str(marker)}
    assert machine.ask(CREATE, **env) == "chat x"
    done = machine.run(f"F.discover_plugins()\n{CREATE}", **env, APP_ENDPOINTS_CHAT="friend:chat")
    assert done.returncode == 1 and "friend is on the deny list" in done.stderr
    assert not list(marker.iterdir())


def test_a_disabled_plugin_is_listed_and_never_imported(machine: Machine, marker: Path) -> None:
    machine.add("slow")
    machine.add("other", {"chat": "other:Other", "more": "other:Other"})
    (machine.home / "bema.toml").write_text('[plugins]\ndisable = ["slow", "*:chat"]\n')
    rows = machine.ask(DETAIL, MARKER=str(marker))
    assert [(r["dist"], r["state"]) for r in rows] == [("other", "disabled"), ("slow", "disabled"), ("", "loaded")]
    assert machine.ask(f"[{CREATE}, F.create_instance('more').format('x')]", MARKER=str(marker)) == [
        "chat x",
        "Other x",
    ]
    assert [file.name for file in marker.iterdir()] == ["other"]


def locked(machine: Machine) -> str:
    (machine.home / "bema.toml").write_text('[plugins]\nmode = "locked"\noverride_builtin = ["friend"]\n')
    done = machine.bema("plugins", "lock", "--json", "--factory", "app.parts:EndpointFactory")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_locked_loads_until_a_byte_of_it_changes(machine: Machine) -> None:
    machine.add("friend")
    assert json.loads(locked(machine))["plugins"][0]["dist"] == "friend"
    assert machine.ask(CREATE) == "Friend x"
    module = machine.site / "friend.py"
    module.write_text(module.read_text() + "# changed\n")
    assert machine.ask(CREATE) == "chat x"
    done = machine.run(f"F.discover_plugins()\n{CREATE}")
    assert "friend.py is not what the RECORD of friend says" in done.stderr


def test_a_new_version_is_refused_until_it_is_locked(machine: Machine, marker: Path) -> None:
    machine.add("friend")
    locked(machine)
    machine.add("friend", version="2.0")
    row = machine.ask(DETAIL, MARKER=str(marker))[0]
    assert (row["state"], row["why"]) == ("not_allowed", "friend 2.0 differs from the lock file: version")
    check = machine.bema("plugins", "lock", "--check", "--json", "--factory", "app.parts:EndpointFactory")
    assert check.returncode == 1
    assert json.loads(check.stdout)["differences"] == [
        "friend:chat (app.endpoints.plugins) changed its version, record since the lock was written"
    ]
    locked(machine)
    assert machine.ask(CREATE) == "Friend x"


def test_an_editable_plugin_cannot_be_locked(machine: Machine) -> None:
    machine.install(machine.package("friend"), editable=True)
    assert "friend:Friend" in json.loads(locked(machine))["not_locked"][0]
    assert machine.ask(CREATE) == "chat x"


def test_a_module_of_that_name_from_elsewhere_is_not_the_distributions(machine: Machine, marker: Path) -> None:
    machine.add("friend")
    env = {
        "BEMA_PLUGINS_MODE": "allow",
        "BEMA_PLUGINS_ALLOW": "friend",
        "BEMA_PLUGINS_OVERRIDE_BUILTIN": "friend",
        "MARKER": str(marker),
    }
    assert machine.ask(CREATE, **env) == "Friend x"
    forged = machine.folder / "forged"
    machine.write(forged, {"friend.py": (machine.site / "friend.py").read_text()})
    for file in marker.iterdir():
        file.unlink()
    assert machine.ask(CREATE, first=os.fspath(forged), **env) == "chat x"
    assert not list(marker.iterdir())


def test_each_load_leaves_one_line(machine: Machine) -> None:
    machine.add("friend", version="1.4")
    done = machine.run(
        f"""
        import logging
        logging.basicConfig(level="INFO", format="%(name)s %(message)s")
        F.discover_plugins()
        for _ in range(3): {CREATE}
        """
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("bema.plugins loading app.endpoints.plugins 'chat': friend:Friend from friend version 1.4,")
    assert "friend-1.4.dist-info" in line and "RECORD sha256:" in line and line.endswith("chosen by plugin")
