"""The marks: they say what they are given, on plain classes and on services, and refuse what can never be right."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from bema.core.errors import BadDeclaration
from bema.packages.decorators import bind, oaas_function, package, state_spec
from bema.packages.export import MetadataRepo
from bema.packages.facts import KEY, own_facts
from bema.sdk.decorators import endpoint, service
from bema.sdk.spec import spec_of


def exported(cls):
    (document,) = MetadataRepo(cls).export_pkg().values()
    return document


def test_the_signatures_are_those_of_the_design():
    def shape(decorator):
        return {p.name: p.default for p in inspect.signature(decorator).parameters.values()}

    required = inspect.Parameter.empty
    assert shape(package) == {
        "name": required, "version": None, "author": None, "description": None, "tags": None, "dependencies": None,
    }  # fmt: skip
    assert shape(oaas_function) == {"key": required, "description": None, "function_type": "CUSTOM"}
    assert shape(bind) == {
        "name": required, "function_key": required, "access_modifier": "PUBLIC", "stateless": False, "parameters": None,
    }  # fmt: skip
    assert shape(state_spec) == {
        "key_specs": required, "default_provider": "memory", "consistency_model": "NONE", "persistent": False,
        "serialization_format": "json",
    }  # fmt: skip


def test_a_decorator_returns_what_it_was_given():
    class Plain:
        def method(self):
            return 1

    method = Plain.method
    assert package(name="p")(Plain) is Plain
    assert state_spec([])(Plain) is Plain
    assert bind("m", "f")(method) is method
    assert oaas_function("f")(method) is method
    assert Plain().method() == 1


@pytest.mark.parametrize("package_first", [True, False])
def test_the_facts_stand_in_the_spec_of_a_service(package_first):
    class Counter:
        @endpoint()
        @oaas_function(key="counter.incr")
        async def incr(self, delta: int) -> int:
            return delta

    marks = [package(name="p"), service(name="counter")]
    decorated: type = Counter
    for mark in marks if package_first else reversed(marks):
        decorated = mark(decorated)
    document = exported(decorated)
    assert document["classes"][0]["function_bindings"][0]["parameters"] == ["delta"]
    assert spec_of(decorated).facts[KEY] is own_facts(decorated)
    assert spec_of(decorated).endpoint("incr") is not None


@pytest.mark.parametrize("package_first", [True, False])
def test_the_spec_has_the_facts_as_soon_as_both_decorators_ran(package_first):
    class Counter:
        @endpoint()
        async def incr(self) -> None: ...

    marks = [package(name="p"), service(name="counter", extra={"owner": "ann"})]
    decorated: type = Counter
    for mark in marks if package_first else reversed(marks):
        decorated = mark(decorated)
    assert spec_of(decorated).facts[KEY] is own_facts(decorated)
    assert spec_of(decorated).facts["owner"] == "ann"


def test_a_service_does_not_take_its_bases_package_for_its_own():
    @package(name="p")
    class Base:
        @endpoint()
        async def incr(self) -> None: ...

    @service(name="counter")
    class Counter(Base): ...

    assert KEY not in spec_of(Counter).facts


def test_bindings_stand_as_they_are_written():
    @package(name="p")
    @bind("first", "f")
    @bind("second", "g", access_modifier="INTERNAL")
    class Stacked:
        @bind("fourth", "f", stateless=True)
        @bind("fifth", "g", parameters=[])
        @oaas_function("f")
        def third(self, one, two=2, *rest, **more): ...

        @oaas_function("g")
        def sixth(self): ...

    bindings = exported(Stacked)["classes"][0]["function_bindings"]
    assert [b["name"] for b in bindings] == ["first", "second", "fourth", "fifth"]
    assert [b["parameters"] for b in bindings] == [["one", "two"], [], ["one", "two"], []]
    assert [b["access_modifier"] for b in bindings] == ["PUBLIC", "INTERNAL", "PUBLIC", "PUBLIC"]
    assert [b["stateless"] for b in bindings] == [False, False, True, False]


def test_a_function_nobody_binds_is_bound_by_its_methods_name():
    @package(name="p")
    class Counter:
        @staticmethod
        @oaas_function("counter.add")
        def add(a, b):
            """Add two numbers.

            They may be large.
            """

    document = exported(Counter)
    assert document["functions"] == [
        {"key": "counter.add", "function_type": "CUSTOM", "description": "Add two numbers."}
    ]
    assert document["classes"][0]["function_bindings"][0] == {
        "name": "add", "function_key": "counter.add", "access_modifier": "PUBLIC", "stateless": False, "parameters": ["a", "b"],
    }  # fmt: skip


def test_a_function_without_a_method_stands_on_the_class():
    @package(name="p")
    @oaas_function("counter.new", function_type="BUILTIN")
    @bind("new", "counter.new")
    class Counter: ...

    assert exported(Counter)["functions"] == [{"key": "counter.new", "function_type": "BUILTIN"}]


def test_marks_are_inherited_and_none_takes_them_away():
    class Base:
        @oaas_function("f")
        def one(self, a): ...

        @oaas_function("g")
        def two(self): ...

    @package(name="p")
    class Child(Base):
        two = None  # type: ignore[assignment]

        def one(self, b): ...

    document = exported(Child)
    assert [f["key"] for f in document["functions"]] == ["f"]
    assert document["classes"][0]["function_bindings"][0]["parameters"] == ["b"]


@pytest.mark.parametrize(
    ("declare", "says"),
    [
        (lambda: package(name=""), "name is ''"),
        (lambda: package(name="my package"), "has a space"),
        (lambda: package(name="p", version=1.0), "version is 1.0"),  # type: ignore[arg-type]
        (lambda: package(name="p", tags="a"), "tags is 'a'"),  # type: ignore[arg-type]
        (lambda: package(name="p")(lambda: None), "decorates classes"),  # type: ignore[type-var]
        (lambda: oaas_function(""), "key is ''"),
        (lambda: oaas_function("f", function_type="custom"), "function_type is 'custom'"),
        (lambda: oaas_function("f")(1), "decorates methods and classes"),
        (lambda: bind("b", "f", access_modifier="public"), "access_modifier is 'public'"),
        (lambda: bind("b", "f", stateless="yes"), "stateless is 'yes'"),  # type: ignore[arg-type]
        (lambda: state_spec([("id",)]), "is not (name, key_type, nullable)"),  # type: ignore[list-item]
        (lambda: state_spec([], consistency_model="EVENTUAL"), "consistency_model is 'EVENTUAL'"),
        (lambda: state_spec([], persistent=1), "persistent is 1"),  # type: ignore[arg-type]
    ],
)
def test_what_can_never_be_right_is_refused_when_it_is_declared(declare, says):
    with pytest.raises(BadDeclaration, match=r".*") as refused:
        declare()
    assert says in refused.value.message


def test_the_right_spelling_is_offered():
    with pytest.raises(BadDeclaration) as refused:
        bind("b", "f", access_modifier="private")
    assert refused.value.fix == "Write PRIVATE."


def test_importing_the_decorators_loads_nothing_heavy():
    code = "import sys, bema.packages.decorators; print([m for m in ('yaml', 'ruamel', 'asyncio', 'click') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_bema_does_not_import_the_packages():
    code = "import sys, bema; print([m for m in sys.modules if m.startswith('bema.packages')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
