"""The shape of the tree, held to what ARCHITECTURE.md and the decision records say of it."""

from __future__ import annotations

import ast
import collections
import configparser
import inspect
import re
import sys
import textwrap
import types
from pathlib import Path

import pytest

import bema
from bema import testing
from bema.parts import Factory

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bema"
MODULES = sorted(PACKAGE.rglob("*.py"))
# started by path, with nothing of ours on their sys.path
ALONE = (PACKAGE / "runner", PACKAGE / "deploy" / "keeper")
# where names are imported on first use, by design
LAZY = {PACKAGE / "__init__.py", PACKAGE / "__main__.py", PACKAGE / "cli" / "__init__.py"}
BROAD = {"Exception", "BaseException"}
MARK = re.compile(r"# noqa: BLE001 - \w")


def short(path):
    return str(path.relative_to(ROOT))


TREES = {module: ast.parse(module.read_text(), str(module)) for module in MODULES}


def nodes(module, *kinds):
    return [node for node in ast.walk(TREES[module]) if isinstance(node, kinds)]


def functions(module):
    return nodes(module, ast.FunctionDef, ast.AsyncFunctionDef)


def imports(node):
    """(line, name) of each import in a tree; a relative name starts with its dots."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            yield from ((inner.lineno, alias.name) for alias in inner.names)
        if isinstance(inner, ast.ImportFrom):
            yield inner.lineno, "." * inner.level + (inner.module or "")


def records():
    return "\n".join(path.read_text() for path in (ROOT / "docs" / "adr").glob("*.md"))


def test_a_module_is_at_most_600_lines_or_a_decision_record_names_it():
    recorded = records()
    long = {short(module): module.read_text().count("\n") for module in MODULES}
    assert {name: lines for name, lines in long.items() if lines > 600 and name not in recorded} == {}


def test_a_function_is_at_most_70_lines():
    lengths = {(short(m), f.name): (f.end_lineno or 0) - f.lineno + 1 for m in MODULES for f in functions(m)}
    assert {name: lines for name, lines in lengths.items() if lines > 70} == {}


def test_the_head_of_a_module_says_why_it_is_there():
    assert [short(module) for module in MODULES if not ast.get_docstring(TREES[module])] == []


def test_a_broad_except_is_marked_with_its_reason_unless_it_raises_again():
    assert [place for module in MODULES for place in unmarked(module)] == []


def unmarked(module):
    lines = module.read_text().splitlines()
    for handler in nodes(module, ast.ExceptHandler):
        again = any(isinstance(inner, ast.Raise) and (inner.cause or not inner.exc) for inner in ast.walk(handler))
        if not again and caught(handler) & BROAD and not MARK.search(lines[handler.lineno - 1]):
            yield f"{short(module)}:{handler.lineno}"


def caught(handler):
    if handler.type is None:
        return BROAD
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {kind.id for kind in kinds if isinstance(kind, ast.Name)}


def test_nothing_of_ours_is_imported_inside_a_function():
    found = [
        f"{short(module)}:{line}"
        for module in set(MODULES) - LAZY
        for function in functions(module)
        for line, name in imports(function)
        if name.split(".")[0] in ("bema", "")
    ]
    assert found == []


@pytest.mark.parametrize("room", ALONE, ids=short)
def test_what_is_started_by_path_needs_the_standard_library_and_itself(room):
    for module in (module for module in MODULES if module.is_relative_to(room)):
        for line, name in imports(TREES[module]):
            up = len(name) - len(name.lstrip("."))
            own = 0 < up <= len(module.relative_to(room).parts)
            assert own or name.split(".")[0] in sys.stdlib_module_names, f"{short(module)}:{line} imports {name}"


def test_the_nouns_start_no_thread():
    nouns = [module for module in MODULES if module.is_relative_to(PACKAGE / "core")]
    assert [short(module) for module in nouns if re.search(r"\bThread(PoolExecutor)?\(", module.read_text())] == []


def test_there_is_nothing_unfinished():
    unfinished = re.compile(r"\b(TODO|FIXME|XXX|HACK|raise NotImplementedError)\b")
    assert [short(module) for module in MODULES if unfinished.search(module.read_text())] == []


def contract_rooms():
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    return parser["importlinter:contract:rooms"]["layers"].split()


def test_a_public_class_name_stands_for_one_class():
    """`compat/` is let off: its names are those of the systems that its users come from."""
    places = collections.defaultdict(list)
    for module in MODULES:
        if not module.is_relative_to(PACKAGE / "compat"):
            for found in TREES[module].body:
                if isinstance(found, ast.ClassDef) and not found.name.startswith("_"):
                    places[found.name].append(short(module))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_what_is_imported_for_annotations_points_down_the_list_too():
    order = [name.strip("()") for name in contract_rooms()]
    found = []
    for module in MODULES:
        room = module.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for branch in nodes(module, ast.If):
            if "TYPE_CHECKING" not in ast.unparse(branch.test) or room not in order:
                continue
            for line, name in imports(branch):
                to = name.split(".")[1] if name.startswith("bema.") else ""
                if to in order and order.index(to) < order.index(room):
                    found.append(f"{short(module)}:{line} {name}")
    assert found == []


def drawn():
    """The lines of the map in ARCHITECTURE.md: what stands at the left of each caption."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    found = re.search(r"```\nbema/\n(.*?)```", text, re.DOTALL)
    assert found, "ARCHITECTURE.md draws no tree of bema/"
    return [line.split()[0].rstrip("/") for line in found[1].splitlines() if re.match(r"  \S", line)]


def rooms_there():
    """Every folder and module directly in bema/ that holds code."""
    return {
        path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path.is_dir() and list(path.glob("*.py")))
    }


def test_the_map_shows_every_room_and_no_other():
    assert {name.removesuffix(".py") for name in drawn()} == rooms_there()


def test_the_rooms_of_the_map_stand_in_the_order_of_the_contract():
    placed = [name.strip("()") for name in contract_rooms()]
    order = [name for name in drawn() if name in placed]
    assert order == [name for name in placed if name in order]


def listed():
    """The folders of the map with the modules that stand behind their dots."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    found: dict[str, list[str]] = {}
    room, folder = "", ""
    for line in text.split("```\nbema/\n")[1].split("```")[0].splitlines():
        if named := re.match(r"( {2}| {4})([a-z]+)/ ", line):
            room = named[2] if len(named[1]) == 2 else room
            folder = named[2] if len(named[1]) == 2 else f"{room}/{named[2]}"
            found[folder] = []
        elif continued := re.match(r" {16,18}(?:· |  )([a-z0-9_ ]+)$", line):
            found[folder] += continued[1].split()
    return found


def test_the_listing_of_the_map_equals_the_tree():
    """Each folder with its modules; `compat/` repeats the folders of others, and is one line."""
    there: dict[str, list[str]] = {}
    for module in MODULES:
        folder = str(module.parent.relative_to(PACKAGE))
        if folder == "." or folder.startswith("compat/"):
            continue
        there.setdefault(folder, [])
        if module.stem != "__init__" and folder != "compat":
            there[folder].append(module.stem)
    assert listed() == there


def test_every_place_of_the_twelve_questions_is_there():
    places = re.findall(r"\| `([a-z_/.]+)` \|$", (ROOT / "docs" / "where.md").read_text(), re.MULTILINE)
    assert len(places) == 12
    assert [place for place in places if not (PACKAGE / place).exists()] == []


def test_every_contract_that_names_rooms_names_those_that_exist():
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    for alone in ("runner-alone", "keeper-alone"):
        named = {name for name in parser[f"importlinter:contract:{alone}"]["forbidden_modules"].split() if "." in name}
        rooms = {f"bema.{name}" for name in rooms_there() - {"__init__", "__main__", "runner"}}
        assert rooms - {"bema.deploy"} <= named, alone


def test_tests_mirror_the_source():
    """Each folder of the source has its folder of tests."""
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and list(path.glob("*.py"))}
    without = {room for room in rooms if not list((ROOT / "tests" / room).rglob("test_*.py"))}
    assert without == set()


def own_names(cls):
    """The public members of a class that stand in our own files, as functions."""
    for base in cls.__mro__:
        if base.__module__.startswith("bema."):
            for name, member in vars(base).items():
                function = getattr(member, "fget", None) or getattr(member, "__func__", member)
                if not name.startswith("_") and isinstance(function, types.FunctionType):
                    yield f"{base.__qualname__}.{name}", inspect.unwrap(function)


def promised(function):
    """The classes of ours that the annotation of an answer names: who calls the function holds one of them."""
    for name in re.findall(r"\w+", str(function.__annotations__.get("return", ""))):
        found = function.__globals__.get(name)
        if isinstance(found, type) and found.__module__.startswith("bema."):
            yield found


def reachable():
    """Every callable that a program can come by from the names of `bema`, by the name to show."""
    left = [getattr(bema, name) for name in bema.__all__ if name != "__version__"] + [Factory, testing.System]
    seen, found = set(), {}
    while left:
        thing = left.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, type):
            found[thing.__qualname__] = thing
            members = dict(own_names(thing))
        else:
            members = {thing.__qualname__: inspect.unwrap(thing)}
        found |= members
        left += [cls for function in members.values() for cls in promised(function)]
    return found


def raised_by(function):
    """The names of the classes in `raise X(...)`, of a function's own body and of the functions inside of it."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raises = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    calls = [error.func.id for error in raises if isinstance(error, ast.Call) and isinstance(error.func, ast.Name)]
    return {name for name in calls if name[0].isupper()}


def test_whatever_is_reachable_from_the_public_names_says_what_it_is_and_names_the_errors_that_it_raises():
    silent, unnamed = [], {}
    for name, thing in reachable().items():
        said = inspect.getdoc(thing)
        if not said:
            silent.append(name)
        elif inspect.isfunction(thing) and (missing := {e for e in raised_by(thing) if e not in said}):
            unnamed[name] = missing
    assert sorted(silent) == []
    assert unnamed == {}
