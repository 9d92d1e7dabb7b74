"""Plugins as a user has them: built, installed, found by a program that was not changed."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.conftest import ROOT, Machine

CHAT = [{"name": "ChatEndpoint", "is_plugin": False, "is_selected": True}]
OURS = ("--factory", "app.parts:EndpointFactory", "--import", "app.endpoints")
BOTH = [
    {"name": "Optimized", "is_plugin": True, "is_selected": True},
    {"name": "ChatEndpoint", "is_plugin": False, "is_selected": False},
]


def test_without_a_plugin_the_builtin_is_all_there_is(machine: Machine) -> None:
    assert machine.ask("F.list_implementations('chat')") == CHAT
    assert machine.ask("F.create_instance('chat').format('x')") == "chat x"


def test_an_installed_plugin_wins_and_leaves_no_trace_when_it_goes(machine: Machine) -> None:
    machine.add("optimized")
    assert machine.ask("F.list_implementations('chat')") == BOTH
    assert machine.ask("F.create_instance('chat').format('x')") == "Optimized x"
    machine.uninstall("optimized")
    done = machine.run("F.discover_plugins()\nprint(F.list_implementations('chat'))")
    assert (done.stdout.strip(), done.stderr) == (str(CHAT), "")


def test_pip_installs_a_plugin_as_well(machine: Machine) -> None:
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        pytest.skip("this environment has no pip")
    pip = [sys.executable, "-m", "pip", "--python", str(machine.python), "--isolated", "install", "-q"]
    package = str(machine.package("optimized"))
    subprocess.run([*pip, "--no-index", "--no-deps", "--no-cache-dir", package], check=True, capture_output=True)
    assert machine.ask("F.list_implementations('chat')") == BOTH


@pytest.fixture
def places(tmp_path: Path) -> Iterator[list[Path]]:
    """A folder on each kind of file system at hand; they list their files in different orders."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as memory:
        yield [tmp_path, Path(memory)]


def test_order_comes_from_names_not_from_installing_or_the_file_system(machine: Machine, places: list[Path]) -> None:
    names = ("zzz", "aaa", "mmm")
    packages = {name: machine.package(name) for name in names}
    seen = set()
    for place, some in itertools.product(places, itertools.permutations(names)):
        target = place / "-".join(some)
        for name in some:
            machine.uv("pip", "install", "-q", "--target", str(target), "--no-index", "--no-cache", str(packages[name]))
        done = machine.bema("plugins", "ls", "--json", *OURS, first=str(target))
        assert done.returncode == 0, done.stderr
        seen.add(done.stdout.replace(str(target), "SITE"))
    assert len(seen) == 1
    (factory,) = [f for f in json.loads(seen.pop()) if f["group"] == "app.endpoints"]
    assert [row["name"] for row in factory["names"]["chat"]] == ["Aaa", "Mmm", "Zzz", "ChatEndpoint"]


def test_an_edited_builtin_is_seen_at_the_next_run(machine: Machine) -> None:
    assert machine.ask("F.create_instance('chat').format('x')") == "chat x"
    file = machine.source / "app" / "endpoints.py"
    file.write_text(file.read_text().replace("chat {text}", "new {text}"))
    assert machine.ask("F.create_instance('chat').format('x')") == "new x"


def test_an_editable_plugin_shows_edits_and_new_entry_points_after_a_reinstall(machine: Machine) -> None:
    package = machine.package("optimized")
    machine.install(package, editable=True)
    assert machine.ask("F.create_instance('chat').format('x')") == "Optimized x"
    module = package / "optimized.py"
    module.write_text(module.read_text().replace('f"Optimized', 'f"Edited'))
    assert machine.ask("F.create_instance('chat').format('x')") == "Edited x"
    project = package / "pyproject.toml"
    project.write_text(project.read_text() + 'other = "optimized:Optimized"\n')
    assert machine.ask("F.names()") == ["chat"]
    done = machine.bema("plugins", "doctor", "--json", "--factory", "app.parts:EndpointFactory")
    (finding,) = [f for f in json.loads(done.stdout)["findings"] if f["code"] == "reinstall"]
    assert "other" in finding["says"]
    machine.install(package, editable=True)
    assert machine.ask("F.names()") == ["chat", "other"]


def test_nothing_is_imported_before_it_is_used(machine: Machine) -> None:
    for number in range(5):
        machine.add(f"plugin-{number}", {f"name-{n}": f"plugin_{number}:Plugin{number}" for n in range(10)})
    done = machine.run(
        """
        assert F.discover_plugins().found == 50
        for name in F.names():
            F.list_implementations(name, detail=True)
        assert not [m for m in sys.modules if m.startswith("plugin_")]
        F.create_instance("name-3")
        print([m for m in sys.modules if m.startswith("plugin_")])
        """
    )
    assert done.stdout.strip() == "['plugin_0']", done.stderr


def test_plain_import_costs_no_metadata_reader() -> None:
    code = "import sys, bema, bema.parts; raise SystemExit('importlib.metadata' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"], check=False
    )
    assert done.returncode == 0


def test_a_plugin_that_also_decorates_is_one_row(machine: Machine) -> None:
    code = """
        from app.parts import BaseEndpoint, EndpointFactory

        @EndpointFactory.register("extra")
        @EndpointFactory.register("chat")
        class Mixed(BaseEndpoint):
            def format(self, text):
                return f"mixed {text}"
        """
    machine.add("mixed", {"chat": "mixed:Mixed"}, {"mixed.py": code}, version="3.1")
    for first in ("", "import mixed\n"):
        done = machine.run(
            f"{first}F.discover_plugins()\nF.create_instance('chat')\n"
            "print(json.dumps([F.list_implementations('chat', detail=True), F.list_implementations('extra')]))"
        )
        chat, extra = json.loads(done.stdout)
        assert [(r["name"], r["is_plugin"], r["dist"], r["version"]) for r in chat] == [
            ("Mixed", True, "mixed", "3.1"),
            ("ChatEndpoint", False, "", ""),
        ]
        assert extra == [{"name": "Mixed", "is_plugin": not first, "is_selected": True}]


def test_entries_of_the_bare_group_are_builtins(machine: Machine) -> None:
    machine.add("old", {"chat": "old:Old", "older": "old:Old"}, group="app.endpoints")
    assert machine.ask("F.list_implementations('chat')") == [
        *CHAT,
        {"name": "Old", "is_plugin": False, "is_selected": False},
    ]
    assert machine.ask("F.create_instance('older').format('x')") == "Old x"
    done = machine.bema("plugins", "doctor", "--json", "--factory", "app.parts:EndpointFactory")
    findings = [f for f in json.loads(done.stdout)["findings"] if f["code"] == "bare_group"]
    assert '@EndpointFactory.register("chat")' in findings[0]["fix"]


def test_a_plugin_says_by_a_dependency_which_interface_it_needs(machine: Machine) -> None:
    machine.add("modern", {"chat": "modern:Modern"}, project='dependencies = ["app>=3,<4"]')
    machine.add("fitting", {"other": "fitting:Fitting"}, project='dependencies = ["app>=2,<3"]')
    rows = machine.ask("F.list_implementations('chat', detail=True)")
    assert (rows[0]["state"], rows[0]["is_selected"]) == ("incompatible", False)
    assert "3" in rows[0]["why"] and "2.4" in rows[0]["why"]
    assert machine.ask("F.create_instance('other').format('x')") == "Fitting x"


def test_installing_while_the_program_runs_needs_a_refresh(machine: Machine) -> None:
    machine.package("optimized")
    machine.uv(
        "pip",
        "install",
        "-q",
        "--target",
        str(machine.home / "late"),
        "--no-index",
        str(machine.folder / "packages" / "optimized-1.0"),
    )
    done = machine.run(
        """
        import os, pathlib, shutil
        late = pathlib.Path("late"); hidden = late.rename("hidden"); late.mkdir()
        sys.path.append(str(late.absolute()))
        assert F.discover_plugins().new == ()
        for part in hidden.iterdir():
            shutil.move(part, late)
        assert F.discover_plugins().new == ()
        (new,) = F.discover_plugins(refresh=True).new
        old = F.create_instance("chat")
        shutil.rmtree(late); late.mkdir()
        assert F.discover_plugins(refresh=True).gone == (new,)
        print(old.format("x"), F.create_instance("chat").format("x"))
        """
    )
    assert done.stdout.strip() == "Optimized x chat x", done.stderr
