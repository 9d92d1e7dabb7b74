"""A module that is imported when something of it is first used, and not before."""

import ast
import inspect
import sys
from pathlib import Path

import pytest

import bema
from bema.core.deferred import deferred

PACKAGE = Path(bema.__file__).parent


@pytest.fixture
def scale(tmp_path, monkeypatch):
    """A module `scale` that nobody has imported."""
    (tmp_path / "scale.py").write_text("def twice(n):\n    return 2 * n\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "scale"
    sys.modules.pop("scale", None)


def test_it_is_imported_by_its_first_use(scale):
    module = deferred(scale)
    assert repr(module) == "<deferred scale>"
    assert scale not in sys.modules
    assert module.twice(4) == 8
    assert module.twice is sys.modules[scale].twice


def test_who_looks_through_globals_imports_nothing(scale):
    assert not inspect.isfunction(inspect.unwrap(deferred(scale)))
    assert not hasattr(deferred(scale), "__path__")
    assert scale not in sys.modules


def test_a_module_or_a_name_that_is_missing_is_told_of_by_the_first_use(scale):
    with pytest.raises(AttributeError, match="'scale' has no attribute 'thrice'"):
        deferred(scale).thrice(4)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        deferred("bema.no_such_module").anything()


def bound(branch):
    """The full name of a module by the name that it is bound to in one branch of an `if TYPE_CHECKING`."""
    for node in branch:
        if isinstance(node, ast.ImportFrom):
            yield from ((name.asname or name.name, f"{node.module}.{name.name}") for name in node.names)
        elif isinstance(node, ast.Import):
            yield from ((name.asname or name.name, name.name) for name in node.names)
        elif isinstance(node, ast.Assign):
            assert isinstance(node.targets[0], ast.Name)
            assert isinstance(node.value, ast.Call)
            yield node.targets[0].id, ast.literal_eval(node.value.args[0])


def test_every_deferred_module_is_the_one_that_type_checkers_see():
    found = 0
    for path in PACKAGE.rglob("*.py"):
        if "deferred(" not in (text := path.read_text()) or path.name == "deferred.py":
            continue
        branches = [node for node in ast.parse(text).body if isinstance(node, ast.If) and node.orelse]
        for branch in branches:
            assert dict(bound(branch.body)) == dict(bound(branch.orelse)), path
            found += len(branch.orelse)
        assert text.count('= deferred("') == sum(len(branch.orelse) for branch in branches), path
    assert found
