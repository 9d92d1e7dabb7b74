"""Whether a large payload names what its type has a place for, seen without its values.

Law: a skeleton is a type of names: the models of a declared type, which take no others, and raw bytes in the place of
every value. So msgspec refuses an unknown field in one C call, whatever the values weigh.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import inspect

from bema.wire.values.records import ignores_unknown, union

Guard = Callable[[bytes], Any]

_SCALARS: dict[type[inspect.Type], Any] = {
    inspect.StrType: str,
    inspect.IntType: int,
    inspect.FloatType: float,
    inspect.BoolType: bool,
    inspect.NoneType: None,
    inspect.BytesType: bytes,
}


class Unsayable(Exception):
    """The type has no skeleton: it holds itself, or a union that only its values decide."""


def guard_of(info: inspect.Type) -> Guard | None:
    """Raises `msgspec.ValidationError` for a payload with an unknown field; None where the type has no skeleton."""
    try:
        return msgspec.msgpack.Decoder(_Builder().of(info)).decode
    except (Unsayable, TypeError):
        return None


class _Builder:
    def __init__(self) -> None:
        self._begun: set[int] = set()

    def of(self, info: inspect.Type) -> Any:
        match info:
            case inspect.Metadata(type=inner):
                return self.of(inner)
            case inspect.CollectionType(item_type=item):
                return self._filled(lambda part: list[part], [self.of(item)])  # type: ignore[valid-type]
            case inspect.TupleType(item_types=items):
                return self._filled(lambda *parts: types.GenericAlias(tuple, parts), [self.of(item) for item in items])
            case inspect.DictType(value_type=value):
                return self._filled(lambda part: dict[Any, part], [self.of(value)])  # type: ignore[valid-type]
            case inspect.UnionType(types=arms):
                return self._union(arms)
            case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType():
                return self._model(info)
            case inspect.NamedTupleType(fields=fields):
                if any(self.of(field.type) is not msgspec.Raw for field in fields):
                    raise Unsayable
                return msgspec.Raw
            case _:
                return msgspec.Raw

    def _filled(self, make: Callable[..., Any], parts: list[Any]) -> Any:
        """Raw where all its parts are."""
        return msgspec.Raw if all(part is msgspec.Raw for part in parts) else make(*parts)

    def _union(self, arms: Iterable[inspect.Type]) -> Any:
        found = [(arm, self.of(arm)) for arm in arms]
        if all(part is msgspec.Raw for _, part in found):
            return msgspec.Raw
        if any(part is msgspec.Raw and type(arm) not in _SCALARS for arm, part in found):
            raise Unsayable
        return union(*(_SCALARS[type(arm)] if part is msgspec.Raw else part for arm, part in found))

    def _model(self, info: inspect.StructType | inspect.DataclassType | inspect.TypedDictType) -> Any:
        if id(info) in self._begun:
            raise Unsayable
        self._begun.add(id(info))
        made = msgspec.defstruct(
            "Skeleton",
            [(f"f{number}", self.of(field.type), msgspec.Raw()) for number, field in enumerate(info.fields)],
            rename={f"f{number}": field.encode_name for number, field in enumerate(info.fields)},
            array_like=getattr(info, "array_like", False),
            tag=getattr(info, "tag", None),
            tag_field=getattr(info, "tag_field", None),
            forbid_unknown_fields=not ignores_unknown(getattr(info, "cls", None)),
        )
        self._begun.discard(id(info))
        return made
