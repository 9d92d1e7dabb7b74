"""Classes to documents: the design's example, packages of several classes, dialects, and the same bytes every time."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import yaml

from bema.compat import oaas
from bema.core.errors import BadDeclaration, Invalid, NotFound
from bema.packages.classes import export_class
from bema.packages.decorators import bind, oaas_function, package, state_spec
from bema.packages.export import MetadataRepo
from bema.packages.loader import classes_of
from bema.packages.reader import read_text

SEED = """\
name: com.example.analytics
version: 1.0.0
disabled: false
metadata:
  author: Alice
  description: Example analytics package
  tags: [python, grpc]
classes:
  - key: Counter
    description: Simple counter object
    state_spec:
      key_specs:
        - { name: id, key_type: string, nullable: false }
      default_provider: memory
      consistency_model: NONE
      persistent: false
      serialization_format: json
    function_bindings:
      - name: incr
        function_key: counter.incr
        access_modifier: PUBLIC
        stateless: false
        parameters: [delta]
    disabled: false
functions:
  - key: counter.incr
    function_type: CUSTOM
    description: Increment a counter
dependencies: []
deployments: []
"""


@package(
    name="com.example.analytics",
    version="1.0.0",
    author="Alice",
    description="Example analytics package",
    tags=["python", "grpc"],
)
@state_spec(key_specs=[("id", "string", False)])
class Counter:
    """Simple counter object

    It counts.
    """

    @bind(name="incr", function_key="counter.incr", parameters=["delta"])
    @oaas_function(key="counter.incr", description="Increment a counter")
    def incr(self, delta: int) -> int:
        return delta


def load(text):
    return yaml.load(text, Loader=yaml.SafeLoader)


def test_the_designs_example_in_its_dialect():
    assert load(MetadataRepo(Counter).print_pkg(dialect="2025-08")) == load(SEED)


def test_the_current_dialect_is_the_same_without_what_left_the_model():
    wanted = load(SEED)
    del wanted["disabled"], wanted["classes"][0]["disabled"]
    del wanted["classes"][0]["state_spec"]["key_specs"][0]["nullable"]
    text = MetadataRepo(Counter).print_pkg()
    assert load(text) == wanted
    assert "provision_config" not in text
    assert "knative" not in text
    assert not text.rstrip().endswith("---")


def test_nothing_of_an_export_is_dropped_by_the_model():
    text = MetadataRepo(Counter).print_pkg()
    package = read_text(text)
    assert package.classes[0].function_bindings[0].parameters == ["delta"]
    assert package.classes[0].state_spec is not None
    assert package.classes[0].state_spec.default_provider == "memory"


def test_access_stateless_and_parameters_survive():
    @package(name="p")
    class C:
        @bind("secret", "c.secret", access_modifier="PRIVATE", stateless=True)
        @oaas_function("c.secret")
        def secret(self, a, b): ...

        @bind("near", "c.near", access_modifier="INTERNAL")
        @oaas_function("c.near", function_type="LOGICAL")
        def near(self): ...

    secret, near = read_text(MetadataRepo(C).print_pkg()).classes[0].function_bindings
    assert (secret.access_modifier, secret.stateless, secret.parameters) == ("PRIVATE", True, ["a", "b"])
    assert (near.access_modifier, near.stateless) == ("INTERNAL", False)


def test_two_classes_of_one_package_are_one_document():
    @package(name="shop", version="2.0", tags=["x"])
    class Order: ...

    @package(name="shop", author="Ann", dependencies=["base"])
    class Line: ...

    (document,) = MetadataRepo(Order, Line).export_pkg().values()
    assert document["version"] == "2.0"
    assert document["metadata"] == {"author": "Ann", "tags": ["x"]}
    assert document["dependencies"] == ["base"]
    assert [cls["key"] for cls in document["classes"]] == ["Order", "Line"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"version": "1"}, {"version": "2"}),
        ({"tags": ["a"]}, {"tags": ["b"]}),
        ({"author": "Ann"}, {"author": "Bob"}),
        ({"dependencies": []}, {"dependencies": ["x"]}),
    ],
)
def test_two_different_values_name_both_classes(one, other):
    @package(name="shop", **one)
    class Order: ...

    @package(name="shop", **other)
    class Line: ...

    with pytest.raises(BadDeclaration) as refused:
        MetadataRepo(Order, Line).export_pkg()
    assert "Order" in refused.value.message
    assert "Line" in refused.value.message
    assert next(iter(one)) in refused.value.message


def test_packages_are_parted_by_a_marker_and_picked_by_name():
    @package(name="a")
    class A: ...

    @package(name="b")
    class B: ...

    repo = MetadataRepo(A, B)
    text = repo.print_pkg()
    assert text.count("---\n") == 1
    assert [document["name"] for document in yaml.load_all(text, Loader=yaml.SafeLoader)] == ["a", "b"]
    assert load(repo.print_pkg("b"))["name"] == "b"
    with pytest.raises(NotFound, match="no class is of package 'c'"):
        repo.print_pkg("c")


def test_a_class_may_export_itself():
    @package(name="p")
    class Special:
        @classmethod
        def export_pkg(cls, pkg_dict):
            export_class(cls, pkg_dict)
            pkg_dict["classes"][-1]["description"] = "made by hand"
            pkg_dict["functions"].append({"key": "special.new", "function_type": "BUILTIN"})

    package_ = read_text(MetadataRepo(Special).print_pkg())
    assert package_.classes[0].description == "made by hand"
    assert [f.key for f in package_.functions] == ["special.new"]


@pytest.mark.parametrize(
    ("part", "written", "says"),
    [
        ("functions", {"function_type": "CUSTOM"}, "missing required field `key`"),
        ("functions", {"key": "f", "function_type": "custom"}, "Invalid enum value 'custom'"),
        ("functions", {"key": "f", "provision_config": {"port": 70000}}, "<= 65535"),
        ("classes", {"key": 7}, "Expected `str`, got `int`"),
        ("dependencies", {"name": "base"}, "Expected `str`, got `object`"),
    ],
)
def test_what_a_class_writes_itself_is_held_to_the_model(part, written, says):
    @package(name="own")
    class Plain: ...

    @package(name="own")
    class Own:
        @classmethod
        def export_pkg(cls, pkg_dict):
            pkg_dict[part].append(written)

    with pytest.raises(BadDeclaration, match=r"(Own|a class) exports what the model refuses") as refused:
        MetadataRepo(Plain, Own).export_pkg()
    assert says in str(refused.value)
    assert f"$.{part}[" in str(refused.value)
    assert part == "dependencies" or "Own exports" in str(refused.value)


def test_every_packaged_class_has_the_method():
    document: dict[str, list[Any]] = {"classes": [], "functions": []}
    Counter.export_pkg(document)  # type: ignore[attr-defined]
    assert document["classes"][0]["key"] == "Counter"


def test_two_classes_may_share_a_function_only_if_they_agree():
    def cls(name, description):
        @package(name="p")
        class C:
            @oaas_function("f", description=description)
            def f(self): ...

        C.__name__ = C.__qualname__ = name
        return C

    (document,) = MetadataRepo(cls("A", "same"), cls("B", "same")).export_pkg().values()
    assert len(document["functions"]) == 1
    with pytest.raises(BadDeclaration, match="function f is declared differently in class A and in class B"):
        MetadataRepo(cls("A", "one"), cls("B", "other")).export_pkg()
    with pytest.raises(BadDeclaration, match="two classes export the class A"):
        MetadataRepo(cls("A", "same"), cls("A", "same")).export_pkg()


def test_one_name_bound_twice_is_refused():
    @package(name="p")
    @bind("x", "f")
    @bind("x", "g")
    class C: ...

    with pytest.raises(BadDeclaration, match="binds 'x' twice"):
        MetadataRepo(C).export_pkg()


def test_a_class_without_a_package_is_refused():
    with pytest.raises(BadDeclaration, match="class str has no package"):
        MetadataRepo(str)


def test_the_bytes_are_the_same_on_every_run(tmp_path):
    file = tmp_path / "shop.py"
    file.write_text(
        "from bema.compat.oaas import *\n"
        "@package(name='shop', tags=['z', 'a', 'm'], dependencies=['q', 'b'])\n"
        "class Shop:\n    @oaas_function('shop.f')\n    def f(self, x, y): ...\n"
    )
    code = (
        "import sys; from pathlib import Path; from bema.packages.loader import classes_of;"
        "from bema.packages.export import MetadataRepo; print(MetadataRepo(*classes_of(Path(sys.argv[1]))).print_pkg())"
    )

    def run(seed):
        done = subprocess.run(
            [sys.executable, "-c", code, str(file)], capture_output=True, check=True, env={"PYTHONHASHSEED": seed}
        )
        return done.stdout

    first, second = run("1"), run("2")
    assert first == second
    assert b"tags: [z, a, m]" in first


def test_the_classes_of_a_file(tmp_path):
    (tmp_path / "other.py").write_text(
        "from bema.packages.decorators import package\n"
        "@package(name='shop')\nclass Line: ...\n@package(name='else')\nclass Else: ...\n"
    )
    file = tmp_path / "main.py"
    file.write_text(
        "from other import Line, Else\nfrom bema.packages.decorators import package\n"
        "@package(name='shop')\nclass Order: ...\nprint('said while importing')\n"
    )
    assert [cls.__name__ for cls in classes_of(file)] == ["Line", "Order"]


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("x = 1\n", "bad_declaration", "no class has a package"),
        ("class C(:\n", "syntax_error", "main.py:1"),
        ("x = 1\nraise ValueError('no')\n", "bad_declaration", "main.py:2: ValueError: no"),
        ("import sys; sys.exit(3)\n", "bad_declaration", "SystemExit: 3"),
        ("from bema.packages.decorators import package\npackage(name='a b')\n", "bad_declaration", "has a space"),
    ],
)
def test_a_file_that_cannot_be_packaged_is_one_line(tmp_path, text, code, says):
    file = tmp_path / "main.py"
    file.write_text(text)
    with pytest.raises((Invalid, BadDeclaration)) as refused:
        classes_of(file)
    assert refused.value.code == code
    assert says in refused.value.message


def test_the_names_of_oaas():
    assert oaas.package is package
    assert oaas.MetadataRepo is MetadataRepo


def test_an_edit_of_the_same_size_in_the_same_second_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "shop.py"
    text = "from bema.compat.oaas import package\n\n\n@package(name='shop', version='1')\nclass Basket:\n    pass\n"
    seen = []
    for version in "12":
        file.write_text(text.replace("version='1'", f"version='{version}'"))
        os.utime(file, (1_700_000_000, 1_700_000_000))
        repo = MetadataRepo()
        for cls in classes_of(file):
            repo.add_cls(cls)
        seen.append(repo.export_pkg()["shop"]["version"])
    assert seen == ["1", "2"]
