"""A declared type in the words of msgspec: what it does not read by itself is put in a stand-in's place.

Law: a type that msgspec knows in full is left as it is, and read in one C call. In the place of what it does not know (a
union of Pydantic models or of dataclasses, a constraint of Pydantic's, a model with such a field) stands a class that
knows its reader; the decoder's hook asks it.
"""

from __future__ import annotations

import collections.abc
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Final, Union

import msgspec
import msgspec.inspect

from bema.core.errors import BadDeclaration
from bema.wire.values import constraints, unions
from bema.wire.values.records import (
    RecordField,
    bare,
    fields,
    is_array,
    is_dataclass,
    is_pydantic,
    is_record,
    is_typeddict,
    names_of,
    origin_of,
    show,
    union,
)
from bema.wire.values.unions import Read

MakeReader = Callable[..., Read]  # of a type in msgspec's words: what was decoded without a type -> a value of it

EXACT: Final = {"bema": "exact"}
"""Marks an abstract collection, whose values of another class would change theirs."""

_ABSTRACT: dict[Any, Any] = {
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Collection: list,
    collections.abc.Set: set,
    collections.abc.MutableSet: set,
}
_COLLECTIONS = (list, dict, set, frozenset, tuple, collections.abc.Mapping, collections.abc.MutableMapping)
_UNIONS = (Union, types.UnionType)


class Standing(type):
    """The class of stand-ins. What a reader made is taken for what it stands for."""

    __bema_read__: Read

    # msgspec holds what a hook gave against the class that asked: a stand-in has no values of
    # its own, so whatever its reader made passes
    def __instancecheck__(cls, instance: Any) -> bool:
        return True


class Reading:
    """One reading of declared types. `stands` tells whether any part is read by a stand-in, `adds` whether it checks more
    than the annotation says to msgspec."""

    def __init__(self, make: MakeReader) -> None:
        self._make = make
        self._records: dict[Any, Any] = {}
        self.stands = self.adds = False

    def readable(self, declared: Any) -> Any:
        """The type in msgspec's words; the very same where those are its own."""
        origin = typing.get_origin(declared)
        if origin is Annotated:
            return self._annotated(declared)
        if isinstance(declared, typing.NewType):
            inner = self.readable(declared.__supertype__)
            return declared if inner is declared.__supertype__ else inner
        # by name: the class is new in 3.12, and typing_extensions has one of its own
        if type(declared).__name__ == "TypeAliasType":
            return self._alias(declared, declared.__value__)
        if type(origin).__name__ == "TypeAliasType":
            return self._alias(declared, origin.__value__[typing.get_args(declared)])
        if origin in _UNIONS:
            return self._union(declared)
        if getattr(origin, "_name", None) in ("Required", "NotRequired", "ReadOnly"):
            self.adds = self.adds or origin._name == "ReadOnly"  # which msgspec does not read
            return self.readable(typing.get_args(declared)[0])
        if origin in _ABSTRACT:
            (item,) = typing.get_args(declared) or (Any,)
            # msgspec reads an abstract collection as a list and forgets that another class was meant
            return Annotated[_ABSTRACT[origin][self.readable(item)], msgspec.Meta(extra=EXACT)]
        if origin in _COLLECTIONS:
            return self._collection(declared, origin)
        # msgspec would read the plain dataclass in it, past its validators
        if is_pydantic(declared) and is_dataclass(origin_of(declared)):
            return self._stand_in(constraints.adapter(declared).validator.validate_python)
        if is_record(declared):
            return self._record(declared)
        if hasattr(declared, "__get_pydantic_core_schema__") and not is_pydantic(declared) and _is_custom(declared):
            return self._stand_in(constraints.adapter(declared).validator.validate_python)
        return declared

    def _alias(self, declared: Any, value: Any) -> Any:
        """What it stands for; within itself it is left to msgspec."""
        key = _key(declared)
        if key in self._records:
            return declared
        self._records[key] = declared
        try:
            return self.readable(value)
        finally:
            del self._records[key]

    def _collection(self, declared: Any, origin: Any) -> Any:
        arguments = typing.get_args(declared)
        found = tuple(part if part is ... else self.readable(part) for part in arguments)
        # the very type, not an equal one: msgspec keeps what it learned of a type by identity
        if all(mine is its for mine, its in zip(found, arguments, strict=True)):
            return declared
        return origin[found]

    def _stand_in(self, read: Read) -> Any:
        self.stands = True
        return Standing("StandIn", (), {"__bema_read__": staticmethod(read)})

    def _annotated(self, declared: Any) -> Any:
        inner, metadata = declared.__origin__, declared.__metadata__
        demands = constraints.read(metadata)
        if demands.discriminates and all(is_pydantic(bare(arm)) for arm in _arms(inner)):
            return self._chosen_by_pydantic(declared, inner)
        found = self.readable(inner)
        if not (demands.meta or demands.marks or demands.pydantic):
            mine = [mark for mark in metadata if isinstance(mark, msgspec.Meta)]
            if found is inner:
                return declared
            return _marked(found, mine)
        return self._constrained(inner, found, metadata, demands)

    def _constrained(self, inner: Any, found: Any, metadata: Any, demands: constraints.Demands) -> Any:
        known = _marked(found, [mark for mark in metadata if isinstance(mark, msgspec.Meta)])
        checks: list[constraints.Check] = []
        if demands.meta:
            # in its own C loop where it can: a check of ours costs a Python call for each value
            native = constraints.native(known, demands.meta)
            if native is None:
                checks += [constraints.by_name(name, bound) for name, bound in demands.meta.items()]
            else:
                known, self.adds = native, True
        checks += map(constraints.of_mark, demands.marks)
        # `Annotated[int | None, Gt(0)]`: a comparison with None would raise
        if type(None) in typing.get_args(inner):  # which they are not about
            checks = [constraints.unless_none(check) for check in checks]
        if demands.pydantic:
            checks.append(constraints.of_pydantic(inner, demands.pydantic))
        if not checks:
            return known
        read = self._make(known)

        def read_and_check(raw: Any) -> Any:
            value = read(raw)
            for check in checks:
                check(value)
            return value

        return self._stand_in(read_and_check)

    def _chosen_by_pydantic(self, declared: Any, inner: Any) -> Any:
        validate = constraints.adapter(declared).validator.validate_python
        found = self._stand_in(lambda raw: validate(raw, by_name=True))
        return found | None if type(None) in typing.get_args(inner) else found

    # unions

    def _union(self, declared: Any) -> Any:
        arms = typing.get_args(declared)
        found = [self.readable(arm) for arm in arms]
        together = union(*found)
        same = all(mine is its for mine, its in zip(found, arms, strict=True))
        if _is_native(together):
            return declared if same else together
        models = [arm for arm in arms if is_record(bare(arm)) or is_pydantic(bare(arm))]
        if not models:
            return declared  # and msgspec says why not
        # before any reader is made: what nothing tells apart must fail where it is declared
        unions.refuse_twins(models)
        pairs = [(arm, mine) for arm, mine in zip(arms, found, strict=True) if arm is not type(None)]
        readers = [self._arm(show(arm), mine, names_of(arm)) for arm, mine in pairs if arm in models]
        if others := [mine for arm, mine in pairs if arm not in models]:
            name = " | ".join(map(show, others))
            if not _is_native(union(*others)):
                raise BadDeclaration(f"{name} cannot travel together: nothing tells them apart")
            readers.append(self._arm(name, union(*others), None))
        chosen = self._stand_in(unions.chooser(readers))
        return chosen | None if type(None) in arms else chosen

    def _arm(self, name: str, readable: Any, names: frozenset[str] | None) -> unions.Arm:
        return unions.Arm(name, names, self._make(readable, strict=True), self._make(readable))

    # models

    def _record(self, declared: Any) -> Any:
        """A model with a field that msgspec cannot read is read by its shadow: the same fields in msgspec's words."""
        key = _key(declared)
        if key in self._records:
            return self._records[key]
        if not _reaches(declared, frozenset()):
            return declared
        reader: list[Read] = []
        # kept before it is rebuilt: a model that holds itself meets its own stand-in
        self._records[key] = found = self._stand_in(lambda raw: reader[0](raw))
        reader.append(self._rebuilt(declared))
        return found

    def _rebuilt(self, declared: Any) -> Read:
        cls, own = origin_of(declared), list(fields(declared))
        read = self._make(self._shadow(cls, own))
        # a constructor does not take them, and a decoder that set them would go past it
        late = [name for name, field in getattr(cls, "__dataclass_fields__", {}).items() if not field.init]

        def rebuild(raw: Any) -> Any:
            given = {
                field.name: item
                for field, item in zip(own, msgspec.structs.astuple(read(raw)), strict=True)
                if item is not msgspec.UNSET
            }
            after = {name: given.pop(name) for name in late if name in given}
            made = given if is_typeddict(cls) else cls(**given)
            for name, item in after.items():
                # a frozen dataclass refuses every other way
                object.__setattr__(made, name, item)
            return made

        return rebuild

    def _shadow(self, cls: Any, own: list[RecordField]) -> Any:
        config = getattr(cls, "__struct_config__", None)
        shown: list[Any] = []
        for number, field in enumerate(own):
            kind = self.readable(field.type)
            missing = (union(kind, msgspec.UnsetType), msgspec.UNSET)
            shown.append((f"f{number}", kind) if field.required else (f"f{number}", *missing))
        return msgspec.defstruct(
            cls.__name__,
            shown,
            # a field may bear a name that no shadow could, such as `f0` or a keyword
            rename={f"f{number}": field.wire for number, field in enumerate(own)},
            array_like=is_array(cls),
            kw_only=not is_array(cls),  # the order of fields is that of the model, whichever have defaults
            tag=config and config.tag,
            tag_field=config and config.tag_field,
            forbid_unknown_fields=bool(config and config.forbid_unknown_fields),
        )


def _key(declared: Any) -> Any:
    """By which a type is known again, whether it can be hashed or not."""
    # an annotation may hold a list, as `Literal` and `Annotated` do
    return id(origin_of(declared)), repr(typing.get_args(declared))


def _marked(found: Any, marks: list[Any]) -> Any:
    for mark in marks:
        found = Annotated[found, mark]
    return found


def _arms(declared: Any) -> tuple[Any, ...]:
    arms = typing.get_args(declared) if typing.get_origin(declared) in _UNIONS else (declared,)
    return tuple(arm for arm in arms if arm is not type(None))


def _is_native(declared: Any) -> bool:
    try:
        msgspec.msgpack.Decoder(declared)
    except (TypeError, NameError, RecursionError):
        return False
    return True


def _is_custom(declared: Any) -> bool:
    return _is_native(declared) and isinstance(msgspec.inspect.type_info(declared), msgspec.inspect.CustomType)


def _reaches(declared: Any, seen: frozenset[Any]) -> bool:
    """Whether a model holds, at any depth, what msgspec cannot read."""
    if _key(declared) in seen:
        return False
    # a new set on the way down: two fields of one model are no cycle
    seen |= {_key(declared)}
    try:
        kinds = [field.type for field in fields(declared)]
    except (TypeError, NameError, AttributeError):
        return False  # msgspec says why it cannot travel
    return any(_is_foreign(kind, seen) for kind in kinds)


def unread(declared: Any, *, strict: bool = False) -> Read:
    """In the place of readers, where nothing is read."""
    return lambda raw: raw


class _Probe(Reading):
    """Looks whether a type has parts that need stand-ins, and makes none of their readers."""

    def __init__(self, seen: frozenset[Any]) -> None:
        super().__init__(unread)
        self._seen = seen

    def _record(self, declared: Any) -> Any:
        self.stands = self.stands or _reaches(declared, self._seen)
        return declared


def _is_foreign(declared: Any, seen: frozenset[Any]) -> bool:
    probe = _Probe(seen)
    probe.readable(declared)
    return probe.stands or probe.adds
