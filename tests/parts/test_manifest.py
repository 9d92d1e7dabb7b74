"""Manifests: description, typed metadata and priority of a plugin, readable without importing it."""

from __future__ import annotations

import msgspec
import pytest

from bema.core.errors import BadDeclaration
from bema.parts import Factory, UnknownImplementation
from tests.parts.conftest import Machine

RAW = b"""[app.endpoints.plugins]
chat = shiny:Shiny
[bema.manifest]
shiny = shiny:parts.toml
"""
MANIFEST = """
[[part]]
group = "app.endpoints"
name = "chat"
description = "Chat, and it shines."
priority = 10
metadata = { streams = true, tokens = 7 }
"""
SHINY = """

    from app.parts import BaseEndpoint
    class Shiny(BaseEndpoint):
        def format(self, text):
            return f"shiny {text}"
    """
TYPED = """
import sys, json, msgspec
import app.endpoints
from app.parts import BaseEndpoint
from bema.parts import Factory
class Facts(msgspec.Struct):
    streams: bool
    tokens: int = 0
class F(Factory[BaseEndpoint], group="app.endpoints", metadata=Facts):
    pass
report = F.discover_plugins()
"""


def shiny(machine: Machine, manifest: str = MANIFEST, name: str = "shiny", *, editable: bool = False) -> None:
    files = {f"{name}/__init__.py": SHINY, f"{name}/parts.toml": manifest}
    raw = RAW.replace(b"shiny", name.encode())
    package = machine.package(name, {}, {"entry_points.raw": raw, **files})
    machine.install(package, editable=editable)


@pytest.mark.parametrize("editable", [False, True])
def test_a_plugin_is_described_without_being_imported(machine: Machine, editable: bool) -> None:
    shiny(machine, editable=editable)
    done = machine.run(
        """
        info = F.info("chat")
        assert "shiny" not in sys.modules
        print(info.name, info.dist, info.version, info.priority, info.metadata, info.description, sep="|")
        """,
        prelude=TYPED,
    )
    assert done.stdout.strip() == "chat|shiny|1.0|10|Facts(streams=True, tokens=7)|Chat, and it shines.", done.stderr


def test_a_class_is_looked_up_by_name_and_a_name_by_class(machine: Machine) -> None:
    shiny(machine)
    done = machine.run(
        """
        for info, found in F.iter_all():
            assert F.name_of(found) == info.name
            print(info.name, found.__name__, info.is_plugin)
        """,
        prelude=TYPED,
    )
    assert done.stdout.strip() == "chat Shiny True", done.stderr


def test_a_declared_priority_decides_and_the_operators_comes_first(machine: Machine) -> None:
    machine.add("alpha")
    shiny(machine)
    done = machine.run("F.discover_plugins(strict=True)\nprint(F.create_instance('chat').format('x'))")
    assert (done.stdout.strip(), done.stderr) == ("shiny x", "")
    (machine.home / "bema.toml").write_text("[plugins.priority]\nalpha = 11\n")
    assert machine.ask("F.create_instance('chat').format('x')") == "Alpha x"


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        ("[[part]\n", "cannot be read"),
        ('[[part]]\ngroup = "app.endpoints"\nname = "chat"\nprioritty = 3\n', "prioritty"),
        ('[[part]]\ngroup = "app.endpoints"\nname = "chat"\nmetadata = {streams = "yes"}\n', "do not fit"),
    ],
)
def test_a_manifest_that_is_wrong_is_reported_and_costs_no_plugin(machine: Machine, manifest: str, says: str) -> None:
    shiny(machine, manifest)
    done = machine.run(
        "print(*report.problems())\nassert F.create_instance('chat').format('x') == 'shiny x'", prelude=TYPED
    )
    assert says in done.stdout and "shiny" in done.stdout, done.stderr


class Facts(msgspec.Struct):
    streams: bool


class ShapeFactory(Factory[object], group="app.shapes", metadata=Facts):
    pass


@ShapeFactory.register("round", metadata=Facts(streams=True))
class Round:
    """It rolls.

    And more.
    """


def test_a_builtin_says_the_same_by_its_decorator() -> None:
    info = ShapeFactory.info("round")
    assert (info.description, info.metadata, info.is_plugin) == ("It rolls.", Facts(streams=True), False)
    assert ShapeFactory.name_of(Round) == "round"
    with pytest.raises(BadDeclaration, match="do not fit"):
        ShapeFactory.register("square", metadata={"streams": 3})(Round)
    with pytest.raises(UnknownImplementation):
        ShapeFactory.name_of(int)
    with pytest.raises(UnknownImplementation):
        ShapeFactory.info("square")
