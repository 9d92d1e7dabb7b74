"""Whether what was loaded is what the factory makes. One function, one sentence per way of being wrong."""

from __future__ import annotations

import inspect
import types
from typing import Any

_NOT_MEMBERS = frozenset(
    {"__abstractmethods__", "__annotations__", "__dict__", "__doc__", "__init__", "__module__", "__new__"}
    | {"__parameters__", "__protocol_attrs__", "__slots__", "__subclasshook__", "__weakref__", "__orig_bases__"}
    | {
        "__class_getitem__",
        "__match_args__",
        "__static_attributes__",
        "__firstlineno__",
        "__callable_proto_members_only__",
        "__non_callable_proto_members__",
    }
    | {"__annotate__", "__annotate_func__", "__annotations_cache__", "__type_params__", "__hash__"}
)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def misfit(value: Any, base: Any) -> str:
    """Why `value` cannot be an implementation of `base`; empty when it can."""
    if isinstance(value, types.ModuleType):
        return f"it is the module {value.__name__}; write `module:Class`"
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return f"it is the function {value.__qualname__}, not a class"
    if not isinstance(value, type):
        return f"it is {value!r} ({type(value).__name__}), not a class"
    if isinstance(base, type) and base is not object:
        if getattr(base, "_is_protocol", False):
            return _protocol_misfit(value, base)
        if not issubclass(value, base):
            return f"{value.__qualname__} is not a subclass of {base.__module__}.{base.__qualname__}"
    # asked before any instance is made, so that the refusal names the part and not a constructor
    missing = sorted(getattr(value, "__abstractmethods__", ()))
    return f"{value.__qualname__} does not implement {', '.join(missing)}" if missing else ""


def _protocol_misfit(value: type, base: type) -> str:
    methods = members(base)
    missing = [name for name in methods if getattr(value, name, None) is None]
    missing += [name for name in getattr(value, "__abstractmethods__", ()) if name not in missing]
    if missing:
        return f"{value.__qualname__} does not implement {', '.join(sorted(missing))} of {base.__qualname__}"
    for name, promised in methods.items():
        if why := _signature_misfit(inspect.getattr_static(value, name), promised):
            return f"{value.__qualname__}.{name} cannot be called as {base.__qualname__}.{name} is: {why}"
    return ""


def members(protocol: type) -> dict[str, Any]:
    """The methods and properties a Protocol promises. Plain data members appear on instances only, so none is asked for."""
    found: dict[str, Any] = {}
    for klass in reversed(protocol.__mro__):
        if getattr(klass, "_is_protocol", False) and klass.__module__ != "typing":
            found |= {name: v for name, v in vars(klass).items() if name not in _NOT_MEMBERS and name[:4] != "_is_"}
    return {name: v for name, v in found.items() if not name.startswith("_abc_")}


def _signature_misfit(offered: Any, promised: Any) -> str:
    if not isinstance(promised, types.FunctionType) or not isinstance(offered, types.FunctionType):
        return ""  # properties, static and wrapped methods: presence is all that can be told
    ours, theirs = inspect.signature(promised), inspect.signature(offered)
    have, want = list(theirs.parameters.values()), list(ours.parameters.values())
    kinds = {p.kind for p in have}
    places = [p for p in have if p.kind in _POSITIONAL]
    wanted = [p for p in want if p.kind in _POSITIONAL]
    if len(places) < len(wanted) and inspect.Parameter.VAR_POSITIONAL not in kinds:
        given = ", ".join(p.name for p in wanted)
        return f"it takes {len(places)} arguments where {len(wanted)} are given ({given})"
    # what the promise gives a default may be left out by callers
    optional = sum(p.default is not p.empty for p in wanted)
    for parameter in places[len(wanted) - optional :]:
        if parameter.default is parameter.empty:
            return f"it also needs {parameter.name!r}"
    return _keywords_misfit(have, want, kinds)


def _keywords_misfit(have: list[inspect.Parameter], want: list[inspect.Parameter], kinds: set[Any]) -> str:
    named = {p.name for p in have}
    asked = {p.name for p in want if p.kind is inspect.Parameter.KEYWORD_ONLY}
    lacking = sorted(asked - named)
    if lacking and inspect.Parameter.VAR_KEYWORD not in kinds:
        return f"it does not take {', '.join(lacking)}"
    for parameter in have:
        alone = parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.name not in asked
        if alone and parameter.default is parameter.empty:
            return f"it also needs {parameter.name!r}"
    return ""
