"""What msgpack cannot return equal, found before it is sent.

Where a type is declared in full, typed decoding rebuilds the value and nothing is walked. Where it is not (`Any`, a bare
`dict`, no annotation), msgpack would turn a tuple into a list or a UUID into text without a word; so those positions,
and only those, are walked, and what would change is refused with its path.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import inspect

from bema.core.errors import BadDeclaration, Invalid

Check = Callable[[Any, str], None]

_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})
_KEYS = frozenset({str, int, float, bool, bytes, type(None)})


def check(value: Any, path: str = "$") -> None:
    """Refuse, with its path, what would not come back equal from an untyped decoder."""
    kind = type(value)
    if kind in _PLAIN:
        if kind is int and not -(2**63) <= value < 2**64:
            raise Invalid(f"{path}: {value} does not fit into the 64 bits of a msgpack integer", path=path)
    elif kind is dict:
        for key, item in value.items():
            if type(key) not in _KEYS:
                raise Invalid(f"{path}: a key of type {type(key).__name__} would not come back equal", path=path)
            if type(item) not in _PLAIN or type(item) is int:
                check(item, f"{path}.{key}")
    elif kind is list:
        for index, item in enumerate(value):
            if type(item) not in _PLAIN or type(item) is int:
                check(item, f"{path}[{index}]")
    elif kind is not dt.datetime or value.tzinfo is None:
        raise Invalid(
            f"{path}: a value of type {kind.__qualname__} would not come back equal; declare the type",
            path=path,
            fix=f"Annotate the endpoint with {kind.__qualname__}, or send a str, int, float, bool, bytes, list or dict.",
        )


def is_model(value: Any) -> bool:
    """Whether the receiver's annotation can rebuild it from its fields: a msgspec, dataclass or Pydantic object."""
    kind = type(value)
    return (
        isinstance(value, msgspec.Struct)
        or hasattr(kind, "__dataclass_fields__")
        or hasattr(kind, "__pydantic_fields__")
    )


def check_for_stranger(value: Any, path: str = "$") -> None:
    """The check of a caller that does not know the callee's types: models may go, the callee's annotations rebuild them."""
    if not is_model(value):
        check(value, path)


def checker(declared: Any) -> Check | None:
    """What must be walked in values of a declared type; None where its annotations say everything."""
    try:
        return _Analysis().check_of(inspect.type_info(declared))
    except BadDeclaration:
        raise
    except (TypeError, NameError, RuntimeError) as error:
        raise BadDeclaration(f"{declared!r} cannot travel: {error}") from error


class _Analysis:
    """One walk over a declared type. Models that hold themselves are met again as what is being worked out."""

    def __init__(self) -> None:
        self._models: dict[int, list[Check | None]] = {}

    def check_of(self, info: inspect.Type) -> Check | None:
        match info:
            case inspect.AnyType():
                return check
            case inspect.Metadata(type=inner):
                return self.check_of(inner)
            case inspect.CollectionType(item_type=item):
                return _each(self.check_of(item))
            case inspect.TupleType(item_types=items):
                return _at([self.check_of(item) for item in items])
            case inspect.DictType(key_type=key, value_type=value):
                return _values(self.check_of(value)) or _keys(self.check_of(key))
            case inspect.UnionType(types=arms):
                return _one_of([(arm, found) for arm in arms if (found := self.check_of(arm))])
            case inspect.TypedDictType(fields=fields):
                return self._model(info, fields, dict.get)
            case inspect.StructType(fields=fields) | inspect.DataclassType(fields=fields):
                return self._model(info, fields, getattr)
            case inspect.NamedTupleType(fields=fields):
                return self._model(info, fields, getattr)
            case inspect.CustomType(cls=cls) if not hasattr(cls, "__pydantic_validator__"):
                raise BadDeclaration(
                    f"{cls.__qualname__} cannot travel: it is no msgspec, dataclass or Pydantic type, and none of"
                    " Python's own values"
                )
            case _:
                return None

    def _model(self, info: inspect.Type, fields: tuple[inspect.Field, ...], get: Callable[..., Any]) -> Check | None:
        if (known := self._models.get(id(info))) is not None:
            return lambda value, path: known[0](value, path) if known[0] else None
        found = self._models[id(info)] = [None]
        checks = [(field.name, c) for field in fields if (c := self.check_of(field.type))]

        def check_fields(value: Any, path: str) -> None:
            for name, check_field in checks:
                check_field(get(value, name, None), f"{path}.{name}")

        found[0] = check_fields if checks else None
        return found[0]


def _each(found: Check | None) -> Check | None:
    if found is None:
        return None

    def check_each(value: Any, path: str) -> None:
        for index, item in enumerate(value):
            found(item, f"{path}[{index}]")

    return check_each


def _at(found: list[Check | None]) -> Check | None:
    if not any(found):
        return None

    def check_at(value: Any, path: str) -> None:
        for index, (item, check_item) in enumerate(zip(value, found, strict=False)):
            if check_item:
                check_item(item, f"{path}[{index}]")

    return check_at


def _values(found: Check | None) -> Check | None:
    if found is None:
        return None
    if found is check:
        # a map of anything is walked by the walk itself, keys too
        return check

    def check_values(value: Any, path: str) -> None:
        for key, item in value.items():
            found(item, f"{path}.{key}")

    return check_values


def _keys(found: Check | None) -> Check | None:
    return _each(found)


def _one_of(arms: list[tuple[inspect.Type, Check]]) -> Check | None:
    """The arm whose class the value has; a collection's arm for a collection."""
    if not arms:
        return None

    def check_arm(value: Any, path: str) -> None:
        for arm, found in arms:
            if isinstance(value, getattr(arm, "cls", (list, set, frozenset, tuple, dict))):
                found(value, path)
                return

    return check_arm
