"""Models as their classes declare them: fields with their types, generics with their parameters put in.

Law: what is said here of a model is what it bears on the wire, whichever library it is written with.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Final, Union

import msgspec


class RecordField(msgspec.Struct, frozen=True):
    """`wire` is its name where it travels."""

    name: str
    wire: str
    type: Any
    required: bool


def union(*arms: Any) -> Any:
    """Of arms that are known at run time only."""
    return Union[tuple(arms)]  # noqa: UP007


def origin_of(declared: Any) -> Any:
    return typing.get_origin(declared) or declared


def is_pydantic(declared: Any) -> bool:
    return hasattr(origin_of(declared), "__pydantic_validator__")


def is_dataclass(cls: Any) -> bool:
    return hasattr(cls, "__dataclass_fields__")


def is_typeddict(cls: Any) -> bool:
    """Also those of typing_extensions."""
    return isinstance(cls, type) and issubclass(cls, dict) and hasattr(cls, "__required_keys__")


def is_record(declared: Any) -> bool:
    """Whether it is a class with declared fields that msgspec reads."""
    cls = origin_of(declared)
    # a Pydantic dataclass has the marks of both: Pydantic reads it
    if not isinstance(cls, type) or is_pydantic(cls):
        return False
    return (
        issubclass(cls, msgspec.Struct)
        or is_dataclass(cls)
        or is_typeddict(cls)
        or (issubclass(cls, tuple) and hasattr(cls, "_fields"))
    )


def show(declared: Any) -> str:
    return getattr(declared, "__qualname__", None) or str(declared)


def bare(declared: Any) -> Any:
    return declared.__origin__ if typing.get_origin(declared) is Annotated else declared


IGNORE: Final = "__unknown_fields__"


def ignores_unknown(cls: Any) -> bool:
    """Whether it says for itself that it leaves out what it does not know."""
    return getattr(cls, IGNORE, None) == "ignore"


def is_array(cls: Any) -> bool:
    return issubclass(cls, tuple) or bool(getattr(getattr(cls, "__struct_config__", None), "array_like", False))


def fields(declared: Any) -> Iterator[RecordField]:
    cls = origin_of(declared)
    hints = hints_of(declared)
    if issubclass(cls, msgspec.Struct):
        for field in msgspec.structs.fields(cls):
            yield RecordField(field.name, field.encode_name, hints[field.name], field.required)
    elif is_dataclass(cls):
        dataclasses = sys.modules["dataclasses"]  # of who made the class; a process without one does not load it
        for each in dataclasses.fields(cls):
            required = each.default is each.default_factory is dataclasses.MISSING
            yield RecordField(each.name, each.name, hints[each.name], required)
    elif is_typeddict(cls):
        for name, kind in hints.items():
            yield RecordField(name, name, kind, name in cls.__required_keys__)
    else:
        for name in cls._fields:
            yield RecordField(name, name, hints.get(name, Any), name not in cls._field_defaults)


def hints_of(declared: Any) -> dict[str, Any]:
    """The types of a model's fields; those of a generic model with its parameters put in."""
    cls, found = origin_of(declared), dict[str, Any]()
    hints = typing.get_type_hints(cls, include_extras=True)
    owners = dict(_parameters(cls, typing.get_args(declared)))
    for base in reversed(getattr(cls, "__mro__", (cls,))):
        # `get_type_hints` forgets which base a hint came from, and its type variables are that base's
        for name in vars(base).get("__annotations__", ()):
            if name in hints:
                found[name] = _substituted(hints[name], owners.get(base, {}))
    return {
        name: found.get(name, hint) for name, hint in hints.items() if typing.get_origin(hint) is not typing.ClassVar
    }


def _parameters(cls: Any, arguments: tuple[Any, ...]) -> Iterator[tuple[Any, dict[Any, Any]]]:
    mine = dict(zip(getattr(cls, "__parameters__", ()), arguments, strict=False))
    yield cls, mine
    for base in getattr(cls, "__orig_bases__", ()):
        origin = typing.get_origin(base)
        if origin is not None and origin is not typing.Generic:
            yield from _parameters(origin, tuple(_substituted(arg, mine) for arg in typing.get_args(base)))


def _substituted(kind: Any, given: dict[Any, Any]) -> Any:
    if not given:
        return kind
    if isinstance(kind, typing.TypeVar):
        return given.get(kind, kind)
    free = getattr(kind, "__parameters__", ())
    # a class with parameters of its own that nobody gave stays as it is
    if isinstance(kind, type) or not free:
        return kind
    return kind[tuple(given.get(each, each) for each in free)]


def names_of(declared: Any) -> frozenset[str] | None:
    """The names that every value of the model bears on the wire; None where it may bear more or fewer."""
    declared = bare(declared)
    cls = origin_of(declared)
    if is_pydantic(cls):
        return _pydantic_names(cls)
    config = getattr(cls, "__struct_config__", None)
    # fields that may stay away tell nothing about which model it was
    if is_array(cls) or (config and config.omit_defaults) or getattr(cls, "__optional_keys__", None):
        return None
    names = frozenset(field.wire for field in fields(declared))
    return names | {config.tag_field or "type"} if config and config.tag is not None else names


def _pydantic_names(cls: Any) -> frozenset[str] | None:
    left_out = any(field.exclude for field in cls.__pydantic_fields__.values())
    config = getattr(cls, "model_config", {})
    is_root = getattr(cls, "__pydantic_root_model__", False)
    return None if left_out or is_root or config.get("extra") == "allow" else frozenset(cls.__pydantic_fields__)
