"""What would not come back equal, found before it is sent.

Typed decoding rebuilds what an annotation says, and only that. So two kinds of positions are looked at: where it says
nothing (`Any`, a bare `dict`), for msgpack would turn a tuple into a list or a UUID into text without a word; and where
it says a model, for an object of another class would arrive as the declared one, without its own fields. Everything else
is left to the one C call that encodes.
"""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import inspect

from bema.core.errors import BadDeclaration
from bema.wire.values import declared as declared_types
from bema.wire.values import records, walks
from bema.wire.values.equal import is_model
from bema.wire.values.walks import ANYTHING, NOTHING, TIME, Walk


def check_for_stranger(value: Any) -> None:
    """The check of a caller that does not know the callee's types: a model may go, for the callee's annotation rebuilds
    it, and is looked at as its own class says."""
    kind: Any = type(value)
    # its class says all that is known here of what its fields may hold
    walk = _of_class(kind) if is_model(value) else ANYTHING
    if walk is not None and kind not in walk.passes:
        walk.look(value)


def walker(declared: Any, *, converts: bool = False) -> Walk | None:
    """How values of a declared type are looked at; None where its annotations say everything.

    `converts` is for arguments: a dictionary in a model's place is made one by the callee, and checked as such here.
    """
    return _Analysis(converts=converts).walk_of(_info_of(declared))


def stands_in(declared: Any) -> bool:
    """Whether a stand-in reads a part of it."""
    reading = declared_types.Reading(declared_types.unread)
    reading.readable(declared)
    return reading.stands


def exact(declared: Any) -> frozenset[type] | None:
    """The types whose values are of the declared type at a glance; None where anything goes."""
    return _exact(_info_of(declared))


@functools.lru_cache(maxsize=256)
def _of_class(cls: type) -> Walk | None:
    return walker(cls)


def _info_of(declared: Any) -> inspect.Type:
    """Of the type in msgspec's words; what a stand-in reads is not looked through but makes the trip."""
    try:
        # msgspec names the type that it refuses and not the parameter: who asks adds that
        return inspect.type_info(declared_types.Reading(declared_types.unread).readable(declared))
    except (TypeError, NameError, RuntimeError) as error:
        raise BadDeclaration(f"{declared!r} cannot travel: {error}") from error


_CLASSES: dict[type[inspect.Type], type] = {
    inspect.StrType: str,
    inspect.IntType: int,
    inspect.FloatType: float,
    inspect.BoolType: bool,
    inspect.NoneType: type(None),
    inspect.BytesType: bytes,
    inspect.ByteArrayType: bytearray,
    inspect.DateTimeType: dt.datetime,
    inspect.DateType: dt.date,
    inspect.TimeType: dt.time,
    inspect.TimeDeltaType: dt.timedelta,
    inspect.DecimalType: decimal.Decimal,
    inspect.UUIDType: uuid.UUID,
    inspect.RawType: msgspec.Raw,
    inspect.ListType: list,
    inspect.SetType: set,
    inspect.FrozenSetType: frozenset,
    inspect.VarTupleType: tuple,
    inspect.TupleType: tuple,
    inspect.DictType: dict,
    inspect.TypedDictType: dict,
}
_CONSTRAINTS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern", "tz")


def _class_of(info: inspect.Type) -> type | None:
    found: type | None = _CLASSES.get(type(info)) or records.origin_of(getattr(info, "cls", None))
    return found


def _exact(info: inspect.Type) -> frozenset[type] | None:
    if isinstance(info, inspect.Metadata):
        return _exact(info.type)
    if isinstance(info, inspect.UnionType):
        arms = [_exact(arm) for arm in info.types]
        return None if None in arms else frozenset().union(*filter(None, arms))
    if isinstance(info, inspect.AnyType):
        return None
    cls = _class_of(info)
    # a stand-in reads what looks like anything: nothing is of its type at a glance
    if type(cls) is declared_types.Standing:
        return NOTHING
    # a bound is not seen from the class alone: such a value makes the trip
    constrained = any(getattr(info, name, None) is not None for name in _CONSTRAINTS)
    return NOTHING if cls is None or constrained else frozenset({cls})


class _Analysis:
    """One walk over a declared type. Models that hold themselves are met again as what is being worked out."""

    def __init__(self, *, converts: bool) -> None:
        self._models: dict[Any, list[Walk]] = {}
        self._converts = converts

    def walk_of(self, info: inspect.Type) -> Walk | None:
        match info:
            case inspect.AnyType():
                return ANYTHING
            # before the plain Metadata below, which would look through the mark
            case inspect.Metadata(type=inner, extra=declared_types.EXACT):
                found = _class_of(inner) or list
                return walks.exactly(found, (set, frozenset) if found is set else (found,), self.walk_of(inner))
            case inspect.Metadata(type=inner):
                return self.walk_of(inner)
            case inspect.DateTimeType() | inspect.TimeType():
                return TIME
            case inspect.CollectionType(item_type=item):
                return walks.all_of((list, tuple, set, frozenset), walks.items, self.walk_of(item))
            case inspect.TupleType(item_types=items):
                return walks.at([self.walk_of(item) for item in items])
            case inspect.NamedTupleType(fields=fields):
                return walks.at([self.walk_of(field.type) for field in fields])
            case inspect.DictType(key_type=key, value_type=value):
                return walks.both(
                    walks.all_of(dict, walks.keys, self.walk_of(key)),
                    walks.all_of(dict, walks.values, self.walk_of(value)),
                )
            case inspect.UnionType(types=arms):
                anything = any(isinstance(arm, inspect.AnyType) for arm in arms)
                return walks.one_of([(_class_of(arm), self.walk_of(arm)) for arm in arms], anything=anything)
            case inspect.TypedDictType(fields=fields):
                # a TypedDict is a dict at both ends: nothing but its keys tells what would be dropped
                names = frozenset(field.encode_name for field in fields)
                required = frozenset(field.encode_name for field in fields if field.required)
                return walks.record(names, required, self._fields(fields))
            case inspect.StructType(cls=cls, fields=fields) | inspect.DataclassType(cls=cls, fields=fields):
                return self._model(cls, fields)
            case inspect.CustomType(cls=cls) if type(cls) is declared_types.Standing:
                return None
            case inspect.CustomType(cls=cls):
                if not hasattr(cls, "__pydantic_validator__"):
                    raise BadDeclaration(
                        f"{cls.__qualname__} cannot travel: it is no msgspec, dataclass or Pydantic type, and none of"
                        " Python's own values"
                    )
                return self._model(cls, ())
            case _:
                return None

    def _fields(self, fields: Iterable[inspect.Field]) -> list[tuple[str, Walk]]:
        return [(field.name, walk) for field in fields if (walk := self.walk_of(field.type))]

    def _model(self, cls: Any, fields: tuple[inspect.Field, ...]) -> Walk:
        """An object of exactly that class, whose fields are looked at where their types do not say everything."""
        if (known := self._models.get(cls)) is not None:
            # asked while it is being worked out: looked up when the first value comes
            return known[0] if known else Walk(NOTHING, lambda value: known[0].look(value))
        found = self._models[cls] = list[Walk]()
        steps = [*self._fields(fields), *self._abstract(cls, fields)]
        found.append(walks.model(records.origin_of(cls), steps, converts=self._converts))
        return found[0]

    def _abstract(self, cls: Any, fields: tuple[inspect.Field, ...]) -> Iterator[tuple[str, Walk]]:
        """Fields of abstract collections: msgspec tells them from lists and sets no more."""
        if not fields:
            return
        reading = declared_types.Reading(declared_types.unread)
        for name, hint in records.hints_of(cls).items():
            if (kind := reading.readable(hint)) is not hint and (walk := self.walk_of(inspect.type_info(kind))):
                yield name, walk
