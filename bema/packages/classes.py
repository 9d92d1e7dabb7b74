"""Export of one class: the default `export_pkg` of every class that has a package."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from bema.core.errors import BadDeclaration
from bema.packages.facts import BindingMark, FunctionMark, StateMark, lineage, marked_methods

_PASSED_IN = ("Call", "Context")  # what bema passes itself is no parameter of the caller's


def export_class(cls: type, pkg_dict: dict[str, Any]) -> None:
    """Append the class and its functions to the package. A class may define `export_pkg` itself, and call this first.

    The document written here has every field that any dialect knows; the exporter takes out what its dialect lacks.
    """
    exported: dict[str, Any] = {"key": cls.__name__}
    description = first_line(cls)
    if description:
        exported["description"] = description
    state = next((facts.state for facts in reversed([*lineage(cls)]) if facts.state is not None), None)
    # the nearest class that declares a state decides; without one the field is left out, which the model reads as null
    if state is not None:
        exported["state_spec"] = _state(state)
    exported["function_bindings"] = _bindings(cls)
    exported["disabled"] = False
    pkg_dict["classes"].append(exported)
    pkg_dict["functions"].extend(_functions(cls))


def first_line(thing: Any) -> str:
    """The first line of a docstring that somebody wrote (a dataclass makes one up from its signature)."""
    doc = inspect.cleandoc(thing.__doc__ or "")
    line = doc.partition("\n")[0].strip()
    return "" if line.startswith(f"{getattr(thing, '__name__', '')}(") else line


def _state(mark: StateMark) -> dict[str, Any]:
    return {
        "key_specs": [{"name": name, "key_type": kind, "nullable": null} for name, kind, null in mark.key_specs],
        "default_provider": mark.default_provider,
        "consistency_model": mark.consistency_model,
        "persistent": mark.persistent,
        "serialization_format": mark.serialization_format,
    }


def _bindings(cls: type) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for mark, attribute in _binding_marks(cls):
        if mark.name in found:
            raise BadDeclaration(f"class {cls.__qualname__} binds {mark.name!r} twice")
        parameters = list(mark.parameters) if mark.parameters is not None else _parameters(cls, attribute)
        found[mark.name] = {
            "name": mark.name,
            "function_key": mark.function_key,
            "access_modifier": mark.access_modifier,
            "stateless": mark.stateless,
            "parameters": parameters,
        }
    return list(found.values())


def _binding_marks(cls: type) -> Iterator[tuple[BindingMark, str]]:
    """Those of the class, then those of its methods, each with the attribute whose signature it takes.

    A function that nobody binds is bound under its method's name.
    """
    of_class = [mark for facts in lineage(cls) for mark in facts.bindings]
    bound = {mark.function_key for mark in of_class}
    for mark in of_class:
        yield mark, _method_of(cls, mark)
    for attribute, marks in marked_methods(cls).items():
        bindings = [mark for mark in marks if isinstance(mark, BindingMark)]
        for mark in bindings:
            yield mark, attribute
        unbound = [mark for mark in marks if isinstance(mark, FunctionMark) and mark.key not in bound]
        if unbound and not bindings:
            yield BindingMark(attribute, unbound[0].key), attribute


def _method_of(cls: type, mark: BindingMark) -> str:
    """The method a binding of the class is about: the one marked with its key, else the one of its name."""
    for attribute, marks in marked_methods(cls).items():
        if any(isinstance(m, FunctionMark) and m.key == mark.function_key for m in marks):
            return attribute
    return mark.name


def _functions(cls: type) -> Iterator[dict[str, Any]]:
    for facts in lineage(cls):
        yield from (_function(mark, "") for mark in facts.functions)
    for attribute, marks in marked_methods(cls).items():
        for mark in marks:
            if isinstance(mark, FunctionMark):
                yield _function(mark, first_line(inspect.getattr_static(cls, attribute)))


def _function(mark: FunctionMark, doc: str) -> dict[str, Any]:
    exported: dict[str, Any] = {"key": mark.key, "function_type": mark.function_type}
    description = doc if mark.description is None else mark.description
    if description:
        exported["description"] = description
    return exported


def _parameters(cls: type, attribute: str) -> list[str]:
    """The names a caller gives: without `self`, without what bema passes in, without stars."""
    # looked up without running descriptors: a property of somebody's class may do anything
    static = inspect.getattr_static(cls, attribute, None)
    function = getattr(static, "__func__", static)
    if not callable(function):
        return []
    parameters = list(inspect.signature(function).parameters.values())
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not isinstance(static, staticmethod):
        named = named[1:]
    return [p.name for p in named if _annotation(p) not in _PASSED_IN]


def _annotation(parameter: inspect.Parameter) -> str:
    said = parameter.annotation
    return (said if isinstance(said, str) else getattr(said, "__name__", "")).rpartition(".")[2]
