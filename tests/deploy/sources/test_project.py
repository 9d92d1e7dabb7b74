"""A pyproject.toml beside the code says what a block in the code would, and the lock beside it is what is installed."""

import asyncio
from pathlib import Path

import pytest

from bema.core.errors import Invalid
from bema.deploy.build.environments import UvEnvironments, Wanted
from bema.deploy.build.pythons import FoundPythons, own_python
from bema.deploy.build.uv import Uv
from bema.deploy.model.bundle import Bundle
from bema.deploy.model.deployment import ScriptEntry
from bema.deploy.sources.inspection import inspect
from bema.deploy.sources.pep723 import read_metadata
from bema.deploy.sources.project import Requirements, requirements_of, script_lock
from bema.deploy.sources.toml import inline, parse
from tests.deploy.build.projects import Project

PROJECT = """
[project]
name = "shop"
version = "1"
requires-python = ">=3.11"
dependencies = ["six>=1.15 ; python_version > '3'", "idna"]

[project.optional-dependencies]
extra = ["iniconfig"]

[tool.bema]
entry = "api"
entry_file = "main.py"

[tool.uv]
package = false
index-url = "https://pypi.org/simple"

[tool.ruff]
line-length = 120
"""


def asked(**files: str) -> Requirements:
    return requirements_of(Bundle({name.replace("__", "."): text.encode() for name, text in files.items()}))


def test_a_project_asks_for_what_the_same_block_would():
    found = asked(main__py="api = 1", pyproject__toml=PROJECT)
    assert found.metadata == read_metadata(found.code.decode())
    assert found.metadata.dependencies == ("six>=1.15 ; python_version > '3'", "idna")
    assert (found.metadata.requires_python, found.metadata.entry) == (">=3.11", "api")
    assert found.metadata.options == '{"index-url": "https://pypi.org/simple"}'


def test_the_block_of_the_code_counts_before_the_project():
    block = '# /// script\n# dependencies = ["six"]\n# ///\n'
    found = asked(main__py=block, pyproject__toml=PROJECT)
    assert (found.metadata.dependencies, found.code) == (("six",), block.encode())


def test_the_lock_beside_a_script_is_its_lock():
    block = '# /// script\n# dependencies = ["six"]\n# ///\n'
    assert asked(main__py=block, main__py__lock="version = 1\n").lock == "version = 1\n"


def test_a_tree_is_inspected_by_its_project():
    tree = Bundle({"main.py": b"import shop\napi = shop.make()\n", "shop.py": b"", "pyproject.toml": PROJECT.encode()})
    found = asyncio.run(inspect(tree, FoundPythons(Uv())))
    assert (found.entry, found.metadata.dependencies[1]) == (ScriptEntry("app", "api", "main.py"), "idna")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[project", "line 1"),
        ("project = 1", "project must be a table"),
        ('[project]\ndynamic = ["dependencies"]', "dynamic"),
        ("[project]\ndependencies = [1]", "list of strings"),
        ("[project]\nrequires-python = 3", "requires-python must be a string"),
        ('[project]\nrequires-python = "new"', "requires-python"),
        ("[tool.bema]\nentry_file = 1", "entry_file"),
        ("[tool.uv]\nexclude-newer = 2026-01-01", "date"),
        ("[tool.uv.sources]\nshop = { workspace = true }", "shop"),
        ('[tool.uv.sources]\nshop = { path = "../shop" }', "shop"),
        ("# " + "x" * 70_000, "70002 bytes"),
    ],
)
def test_a_project_that_cannot_be_used_says_what_is_wrong(text: str, word: str):
    with pytest.raises(Invalid, match=word) as caught:
        asked(main__py="", pyproject__toml=text)
    assert (caught.value.code, caught.value.problem.http) == ("pyproject_malformed", 422)


@pytest.mark.parametrize("value", ['é"\\\n\x7f\0', True, 1, 0.5, [1, ["a"]], {"a b": {"c": [{}]}}, float("inf")])
def test_a_value_in_one_line_is_the_value(value: object):
    text = inline(value)
    assert "\n" not in text
    assert parse(f"x = {text}") == {"x": value}


def lock(requires: str, extra: str = "") -> str:
    return f"""version = 1
revision = 3
requires-python = ">=3.11"
{extra}
[[package]]
name = "shop"
version = "1"
source = {{ virtual = "." }}
dependencies = [
    {{ name = "six" }},
]

[package.metadata]
requires-dist = [{requires}]

[[package]]
name = "six"
version = "1.17.0"
source = {{ registry = "https://pypi.org/simple" }}
"""


def test_the_lock_of_a_project_becomes_that_of_a_script():
    found = parse(script_lock(lock('{ name = "six", specifier = ">=1.15" }'), ("Six >= 1.15",)))
    assert found["manifest"]["requirements"] == [{"name": "six", "specifier": ">=1.15"}]
    assert [package["name"] for package in found["package"]] == ["six"]


def test_what_is_overridden_stays_and_extras_go():
    requires = '{ name = "six" }, { name = "idna", marker = "extra == \'more\'" }'
    found = parse(script_lock(lock(requires, '\n[manifest]\noverrides = [{ name = "six" }]\n'), ("six",)))
    assert found["manifest"] == {"overrides": [{"name": "six"}], "requirements": [{"name": "six"}]}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("version = ", "line 1"),
        ("version = 1", "no project"),
        (lock('{ name = "six" }'), "other dependencies than pyproject.toml has: six"),
        (lock('{ name = "idna" }'), "idna, six"),
        (lock("", '[manifest]\nmembers = ["a", "b"]\n'), "workspace"),
    ],
)
def test_a_lock_that_does_not_fit_is_refused_and_not_ignored(text: str, word: str):
    with pytest.raises(Invalid, match=word) as caught:
        script_lock(text, ("six>=1.15",))
    assert caught.value.code == "lock_outdated"


def test_what_was_locked_is_installed_though_there_is_a_newer_one(tmp_path: Path):
    links, folder = tmp_path / "links", tmp_path / "shop"
    lib = Project(tmp_path / "lib", "lib")
    lib.built("wheel", links)
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["lib"]\n'
        f"[tool.uv]\nfind-links = ['{links.as_uri()}']\nno-index = true\n"
    )
    asyncio.run(Uv().run("lock", "--python", own_python().path, cwd=folder, timeout=60, env={}))
    (lib.folder / "project.json").write_text('["lib", "2", []]')
    lib.says("new")
    lib.built("wheel", links)

    tree = {name: (folder / name).read_bytes() for name in ("pyproject.toml", "uv.lock")}
    installed = {}
    for kind, files in {"locked": tree, "unlocked": {"pyproject.toml": tree["pyproject.toml"]}}.items():
        found = requirements_of(Bundle({"main.py": b"", **files}))
        wanted = Wanted(found.code, found.metadata.dependencies, own_python(), found.lock, found.metadata.options)
        made = asyncio.run(UvEnvironments(tmp_path / "environments", Uv()).make(wanted))
        installed[kind] = next(Path(made.python).parent.parent.rglob("lib.py")).read_text()
    assert installed == {"locked": "says = 'old'\n", "unlocked": "says = 'new'\n"}
