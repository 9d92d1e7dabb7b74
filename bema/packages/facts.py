"""The marks that package decorators leave on classes and methods, kept under `packages` in the facts of a class.

Law: a mark belongs to the attribute's name, as those of a service do: base classes first, each in order of definition; an
override without a mark keeps the mark, and None removes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct, field

KEY = "packages"
"""The key of `ServiceSpec.facts` under which a service's `ClassFacts` are found."""
_FACTS = "__bema_facts__"
_SERVICE = "__bema_service__"
_METHOD = "__bema_package_marks__"


class PackageMark(Struct, frozen=True):
    name: str
    version: str | None = None
    author: str | None = None
    description: str | None = None
    tags: tuple[str, ...] | None = None
    dependencies: tuple[str, ...] | None = None


class FunctionMark(Struct, frozen=True):
    key: str
    description: str | None = None
    function_type: str = "CUSTOM"


class BindingMark(Struct, frozen=True):
    name: str
    function_key: str
    access_modifier: str = "PUBLIC"
    stateless: bool = False
    parameters: tuple[str, ...] | None = None  # None: those of the method


class StateMark(Struct, frozen=True):
    key_specs: tuple[tuple[str, str, bool], ...]
    default_provider: str = "memory"
    consistency_model: str = "NONE"
    persistent: bool = False
    serialization_format: str = "json"


class ClassFacts(Struct):
    """What the decorators of one class said, top of the stack first."""

    package: PackageMark | None = None
    functions: list[FunctionMark] = field(default_factory=list)
    bindings: list[BindingMark] = field(default_factory=list)
    state: StateMark | None = None


def own_facts(cls: type) -> ClassFacts | None:
    """What this class itself says, not its bases."""
    found = vars(cls).get(_FACTS, {}).get(KEY)
    return found if isinstance(found, ClassFacts) else None


def facts_for(cls: type) -> ClassFacts:
    """The facts of a class, made at the first mark; a service's spec shows the same object."""
    shared: dict[str, Any] | None = vars(cls).get(_FACTS)
    if shared is None:
        shared = {}
        setattr(cls, _FACTS, shared)
    found: ClassFacts = shared.setdefault(KEY, ClassFacts())
    service = vars(cls).get(_SERVICE)
    if service is not None:  # @service ran before: had it run after, it would have taken them itself
        service.facts[KEY] = found
    return found


def mark_method(method: Any, mark: FunctionMark | BindingMark) -> None:
    """Marks of one method, the nearest to it last: they read as they are written."""
    setattr(method, _METHOD, (mark, *marks_of(method)))


def marks_of(method: Any) -> tuple[FunctionMark | BindingMark, ...]:
    function = getattr(method, "__func__", method)  # under a classmethod or staticmethod
    found: tuple[FunctionMark | BindingMark, ...] = getattr(function, _METHOD, ()) or getattr(method, _METHOD, ())
    return found


def marked_methods(cls: type) -> dict[str, tuple[FunctionMark | BindingMark, ...]]:
    found: dict[str, tuple[FunctionMark | BindingMark, ...]] = {}
    for base in reversed(cls.__mro__):
        for attribute, value in vars(base).items():
            marks = marks_of(value)
            if marks:
                found[attribute] = marks
            elif value is None:
                found.pop(attribute, None)
    return found


def lineage(cls: type) -> Iterator[ClassFacts]:
    """The facts of the class and of its bases, bases first."""
    for base in reversed(cls.__mro__):
        facts = own_facts(base)
        if facts is not None:
            yield facts
