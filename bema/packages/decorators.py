"""The decorators of a package. Law: a decorator marks what it is given and returns it, and refuses what can never be right.

Images, ports, scale and resources of a function are not declared here: they are written into the exported document.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from bema.core.errors import BadDeclaration
from bema.packages.classes import export_class
from bema.packages.facts import BindingMark, FunctionMark, PackageMark, StateMark, facts_for, mark_method

C = TypeVar("C", bound=type)
T = TypeVar("T")

FUNCTION_TYPES = ("BUILTIN", "CUSTOM", "MACRO", "LOGICAL", "WASM")
ACCESS_MODIFIERS = ("PUBLIC", "INTERNAL", "PRIVATE")
CONSISTENCY_MODELS = ("NONE", "READ_YOUR_WRITE", "BOUNDED_STALENESS", "STRONG")


def package(
    name: str,
    version: str | None = None,
    author: str | None = None,
    description: str | None = None,
    tags: list[str] | None = None,
    dependencies: list[str] | None = None,
) -> Callable[[C], C]:
    """The package a class belongs to. What is left out comes from the package's other classes."""
    _text("package", name=name)
    _optional_text("package", version=version, author=author, description=description)
    if " " in name:
        raise BadDeclaration(f"package name {name!r} has a space: the package manager refuses it", fix="Use dots.")
    mark = PackageMark(name, version, author, description, _texts("tags", tags), _texts("dependencies", dependencies))

    def decorate(cls: C) -> C:
        facts_for(_class("package", cls)).package = mark
        # a class that writes its own part of the document keeps doing so
        if getattr(cls, "export_pkg", None) is None:
            cls.export_pkg = classmethod(export_class)  # type: ignore[attr-defined]
        return cls

    return decorate


def oaas_function(key: str, description: str | None = None, function_type: str = "CUSTOM") -> Callable[[T], T]:
    """A function of the package: a method, or, on a class, one that has no method (BUILTIN, LOGICAL, MACRO)."""
    _text("oaas_function", key=key)
    _optional_text("oaas_function", description=description)
    mark = FunctionMark(key, description, _one_of("function_type", function_type, FUNCTION_TYPES))

    def decorate(target: T) -> T:
        if inspect.isclass(target):
            # decorators run from the bottom up: put in front, marks stand as they are written
            facts_for(target).functions.insert(0, mark)
        else:
            mark_method(_method("oaas_function", target), mark)
        return target

    return decorate


def bind(
    name: str,
    function_key: str,
    access_modifier: str = "PUBLIC",
    stateless: bool = False,
    parameters: list[str] | None = None,
) -> Callable[[T], T]:
    """A name under which objects of the class call a function. Parameters that are left out are the method's own."""
    _text("bind", name=name, function_key=function_key)
    if not isinstance(stateless, bool):
        raise BadDeclaration(f"@bind: stateless is {stateless!r}, not a bool")
    access = _one_of("access_modifier", access_modifier, ACCESS_MODIFIERS)
    mark = BindingMark(name, function_key, access, stateless, _texts("parameters", parameters))

    def decorate(target: T) -> T:
        if inspect.isclass(target):
            facts_for(target).bindings.insert(0, mark)
        else:
            mark_method(_method("bind", target), mark)
        return target

    return decorate


def state_spec(
    key_specs: Sequence[tuple[str, str, bool]],
    default_provider: str = "memory",
    consistency_model: str = "NONE",
    persistent: bool = False,
    serialization_format: str = "json",
) -> Callable[[C], C]:
    """What an object of the class keeps: its keys as (name, type, nullable), and how they are kept."""
    _text("state_spec", default_provider=default_provider, serialization_format=serialization_format)
    if not isinstance(persistent, bool):
        raise BadDeclaration(f"@state_spec: persistent is {persistent!r}, not a bool")
    mark = StateMark(
        tuple(map(_key_spec, key_specs)),
        default_provider,
        _one_of("consistency_model", consistency_model, CONSISTENCY_MODELS),
        persistent,
        serialization_format,
    )

    def decorate(cls: C) -> C:
        facts_for(_class("state_spec", cls)).state = mark
        return cls

    return decorate


def _class(decorator: str, target: C) -> C:
    if not inspect.isclass(target):
        raise BadDeclaration(f"@{decorator} decorates classes, not {target!r}")
    return target


def _method(decorator: str, target: T) -> T:
    if not callable(target) and not isinstance(target, classmethod | staticmethod):
        raise BadDeclaration(f"@{decorator} decorates methods and classes, not {target!r}")
    return target


def _text(decorator: str, **values: Any) -> None:
    for name, value in values.items():
        if not isinstance(value, str) or not value:
            raise BadDeclaration(f"@{decorator}: {name} is {value!r}, not a text that says something")


def _optional_text(decorator: str, **values: Any) -> None:
    for name, value in values.items():
        if value is not None and not isinstance(value, str):
            raise BadDeclaration(f"@{decorator}: {name} is {value!r}, not a text", fix=f'Write {name}="{value}".')


def _texts(name: str, values: Iterable[str] | None) -> tuple[str, ...] | None:
    if values is None:
        return None
    if isinstance(values, str) or not all(isinstance(value, str) and value for value in values):
        raise BadDeclaration(f"{name} is {values!r}, not a list of texts")
    return tuple(values)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        near = next((word for word in allowed if word == str(value).upper()), None)
        raise BadDeclaration(f"{name} is {value!r}", fix=f"Write {near}." if near else f"One of {', '.join(allowed)}.")
    return value


def _key_spec(given: Any) -> tuple[str, str, bool]:
    parts = tuple(given) if isinstance(given, tuple | list) else ()
    if len(parts) not in (2, 3) or not all(isinstance(part, str) and part for part in parts[:2]):
        raise BadDeclaration(f"key_specs: {given!r} is not (name, key_type, nullable)")
    return parts[0], parts[1], bool(parts[2]) if len(parts) == 3 else False
