"""A declared type in the words of msgspec: what it does not read by itself is put in a stand-in's place.

Law: a type that msgspec knows in full is left as it is, and read in one C call. In the place of what it does not know (a
union of Pydantic models or of dataclasses, a constraint of Pydantic's, a model with such a field) stands a class that
knows its reader; the decoder's hook asks it.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, Union

import msgspec
import msgspec.inspect

from bema.core.errors import BadDeclaration
from bema.wire.values import constraints

Read = Callable[[Any], Any]
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


def union(*arms: Any) -> Any:
    """Of arms that are known at run time only."""
    return Union[tuple(arms)]  # noqa: UP007


def origin_of(declared: Any) -> Any:
    return typing.get_origin(declared) or declared


def is_pydantic(declared: Any) -> bool:
    return hasattr(origin_of(declared), "__pydantic_validator__")


def is_typeddict(cls: Any) -> bool:
    """Also those of typing_extensions."""
    return isinstance(cls, type) and issubclass(cls, dict) and hasattr(cls, "__required_keys__")


def is_record(declared: Any) -> bool:
    """Whether it is a class with declared fields that msgspec reads."""
    cls = origin_of(declared)
    if not isinstance(cls, type) or is_pydantic(cls):
        return False
    return (
        issubclass(cls, msgspec.Struct)
        or dataclasses.is_dataclass(cls)
        or is_typeddict(cls)
        or (issubclass(cls, tuple) and hasattr(cls, "_fields"))
    )


class Standing(type):
    """The class of stand-ins. What a reader made is taken for what it stands for."""

    __bema_read__: Read

    def __instancecheck__(cls, instance: Any) -> bool:
        return True


class Declared:
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
            return Annotated[_ABSTRACT[origin][self.readable(item)], msgspec.Meta(extra=EXACT)]
        if origin in _COLLECTIONS:
            return self._collection(declared, origin)
        if is_pydantic(declared) and dataclasses.is_dataclass(origin_of(declared)):
            return self._stand_in(constraints.adapter(declared).validator.validate_python)
        if is_record(declared):
            return self._record(declared)
        if hasattr(declared, "__get_pydantic_core_schema__") and not is_pydantic(declared) and _is_custom(declared):
            return self._stand_in(constraints.adapter(declared).validator.validate_python)
        return declared

    def _alias(self, declared: Any, value: Any) -> Any:
        """Kept where msgspec reads what it stands for, so that it may name itself."""
        if value in self._records:
            return declared
        self._records[value] = declared
        try:
            inner = self.readable(value)
        finally:
            del self._records[value]
        return inner

    def _collection(self, declared: Any, origin: Any) -> Any:
        arguments = typing.get_args(declared)
        found = tuple(part if part is ... else self.readable(part) for part in arguments)
        if all(mine is its for mine, its in zip(found, arguments, strict=True)):
            return declared
        return origin[found]

    def _stand_in(self, read: Read) -> Any:
        self.stands = True
        return Standing("StandIn", (), {"__bema_read__": staticmethod(read)})

    def _annotated(self, declared: Any) -> Any:
        inner, metadata = declared.__origin__, declared.__metadata__
        demands = constraints.read(metadata)
        if demands.discriminates and all(is_pydantic(_bare(arm)) for arm in _arms(inner)):
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
            native = constraints.native(known, demands.meta)
            if native is None:
                checks += [constraints.by_name(name, bound) for name, bound in demands.meta.items()]
            else:
                known, self.adds = native, True
        checks += map(constraints.of_mark, demands.marks)
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
        models = [arm for arm in arms if is_record(_bare(arm)) or is_pydantic(_bare(arm))]
        if not models:
            return declared  # and msgspec says why not
        _refuse_twins(models)
        pairs = [(arm, mine) for arm, mine in zip(arms, found, strict=True) if arm is not type(None)]
        others = [mine for arm, mine in pairs if arm not in models]
        chosen = self._stand_in(self._choose([pair for pair in pairs if pair[0] in models], others))
        return chosen | None if type(None) in arms else chosen

    def _choose(self, models: list[tuple[Any, Any]], others: list[Any]) -> Read:
        """By what fits: the one arm that reads it, and of several the one whose fields are exactly those that came."""
        if others and not _is_native(union(*others)):
            raise BadDeclaration(f"{' | '.join(map(show, others))} cannot travel together: they look alike")
        readers = [(show(arm), _names_of(arm), self._make(found, strict=True)) for arm, found in models]
        if others:
            readers.append((" | ".join(map(show, others)), None, self._make(union(*others), strict=True)))
        lenient = [(show(arm), _names_of(arm), self._make(found)) for arm, found in models]

        def choose(raw: Any) -> Any:
            fits, errors = _fitting(readers, raw)
            if not fits:
                fits, _ = _fitting(lenient, raw)
            if len(fits) > 1:
                came = frozenset(raw) if isinstance(raw, dict) else None
                exact = [fit for fit in fits if came is not None and fit[1] is not None and fit[1] == came]
                surely = all(names is not None for _, names, _ in fits)
                fits = exact if len(exact) == 1 and surely else fits
            if len(fits) == 1:
                return fits[0][2]
            if fits:
                raise ValueError(f"it fits {' and '.join(name for name, _, _ in fits)}: nothing in it tells them apart")
            raise ValueError("; ".join(f"no {name}: {error}" for name, error in errors))

        return choose

    # models

    def _record(self, declared: Any) -> Any:
        """A model with a field that msgspec cannot read is read by its shadow: the same fields in msgspec's words."""
        if declared in self._records:
            return self._records[declared]
        if not _reaches(declared, frozenset()):
            return declared
        reader: list[Read] = []
        self._records[declared] = found = self._stand_in(lambda raw: reader[0](raw))
        reader.append(self._rebuilt(declared))
        return found

    def _rebuilt(self, declared: Any) -> Read:
        cls = origin_of(declared)
        shown = [(name, wire, self.readable(kind), required) for name, wire, kind, required in _fields(declared)]
        config = getattr(cls, "__struct_config__", None)
        shadow = msgspec.defstruct(
            cls.__name__,
            [
                (name, kind) if required else (name, union(kind, msgspec.UnsetType), msgspec.UNSET)
                for name, _, kind, required in sorted(shown, key=lambda field: not field[3])
            ]
            if not _is_array(cls)
            else [
                (name, kind) if required else (name, union(kind, msgspec.UnsetType), msgspec.UNSET)
                for name, _, kind, required in shown
            ],
            rename={name: wire for name, wire, _, _ in shown},
            array_like=_is_array(cls),
            tag=config and config.tag,
            tag_field=config and config.tag_field,
            forbid_unknown_fields=bool(config and config.forbid_unknown_fields),
        )
        read = self._make(shadow)
        names = [name for name, _, _, _ in shown]
        late = [name for name, field in getattr(cls, "__dataclass_fields__", {}).items() if not field.init]

        def rebuild(raw: Any) -> Any:
            model = read(raw)
            given = {name: item for name in names if (item := getattr(model, name)) is not msgspec.UNSET}
            after = {name: given.pop(name) for name in late if name in given}
            made = given if is_typeddict(cls) else cls(**given)
            for name, item in after.items():
                object.__setattr__(made, name, item)
            return made

        return rebuild


def _marked(found: Any, marks: list[Any]) -> Any:
    for mark in marks:
        found = Annotated[found, mark]
    return found


def _arms(declared: Any) -> tuple[Any, ...]:
    arms = typing.get_args(declared) if typing.get_origin(declared) in _UNIONS else (declared,)
    return tuple(arm for arm in arms if arm is not type(None))


def _bare(declared: Any) -> Any:
    return declared.__origin__ if typing.get_origin(declared) is Annotated else declared


def _is_native(declared: Any) -> bool:
    try:
        msgspec.msgpack.Decoder(declared)
    except (TypeError, NameError, RecursionError):
        return False
    return True


def _is_custom(declared: Any) -> bool:
    return _is_native(declared) and isinstance(msgspec.inspect.type_info(declared), msgspec.inspect.CustomType)


def show(declared: Any) -> str:
    return getattr(declared, "__qualname__", None) or str(declared)


def _is_array(cls: Any) -> bool:
    return issubclass(cls, tuple) or bool(getattr(getattr(cls, "__struct_config__", None), "array_like", False))


def _fitting(readers: list[Any], raw: Any) -> tuple[list[Any], list[tuple[str, str]]]:
    fits, errors = [], []
    for name, names, read in readers:
        try:
            fits.append((name, names, read(raw)))
        except (ValueError, TypeError) as error:
            errors.append((name, constraints.said(error)))
    return fits, errors


# fields of models, with the parameters of generics in their places


def _fields(declared: Any) -> Iterator[tuple[str, str, Any, bool]]:
    """Name, name on the wire, type, and whether it has to come."""
    cls = origin_of(declared)
    hints = hints_of(declared)
    if issubclass(cls, msgspec.Struct):
        for field in msgspec.structs.fields(cls):
            yield field.name, field.encode_name, hints[field.name], field.required
    elif dataclasses.is_dataclass(cls):
        for each in dataclasses.fields(cls):
            required = each.default is each.default_factory is dataclasses.MISSING
            yield each.name, each.name, hints[each.name], required
    elif is_typeddict(cls):
        for name, kind in hints.items():
            yield name, name, kind, name in cls.__required_keys__
    else:
        for name in cls._fields:
            yield name, name, hints.get(name, Any), name not in cls._field_defaults


def hints_of(declared: Any) -> dict[str, Any]:
    """The types of a model's fields; those of a generic model with its parameters put in."""
    cls, found = origin_of(declared), dict[str, Any]()
    hints = typing.get_type_hints(cls, include_extras=True)
    owners = dict(_parameters(cls, typing.get_args(declared)))
    for base in reversed(getattr(cls, "__mro__", (cls,))):
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
    if isinstance(kind, type) or not free:
        return kind
    return kind[tuple(given.get(each, each) for each in free)]


def _names_of(declared: Any) -> frozenset[str] | None:
    """The names that a whole value of the model bears on the wire; None where it may leave some out."""
    declared = _bare(declared)
    cls = origin_of(declared)
    if is_pydantic(cls):
        fields = cls.__pydantic_fields__
        return None if getattr(cls, "__pydantic_root_model__", False) else frozenset(fields)
    config = getattr(cls, "__struct_config__", None)
    if _is_array(cls) or is_typeddict(cls) or (config and config.omit_defaults):
        return None
    names = frozenset(wire for _, wire, _, _ in _fields(declared))
    return names | {config.tag_field or "type"} if config and config.tag is not None else names


def _refuse_twins(models: list[Any]) -> None:
    """Models that nothing can tell apart are refused where their union is declared."""
    known: dict[Any, Any] = {}
    for model in models:
        bare = _bare(model)
        cls = origin_of(bare)
        if is_pydantic(cls):
            alike: Any = frozenset((name, repr(field.annotation)) for name, field in cls.__pydantic_fields__.items())
        else:
            tag = getattr(getattr(cls, "__struct_config__", None), "tag", None)
            alike = (frozenset((wire, repr(kind)) for _, wire, kind, _ in _fields(bare)), tag)
        if (other := known.setdefault(repr(alike), model)) is not model:
            raise BadDeclaration(
                f"{show(other)} | {show(model)} cannot travel: both have the same fields of the same types",
                fix="Tell them apart by a field of a Literal type, or by tags of msgspec.",
            )


def _reaches(declared: Any, seen: frozenset[Any]) -> bool:
    """Whether a model holds, at any depth, what msgspec cannot read."""
    if declared in seen:
        return False
    seen |= {declared}
    try:
        kinds = [kind for _, _, kind, _ in _fields(declared)]
    except (TypeError, NameError, AttributeError):
        return False  # msgspec says why it cannot travel
    return any(_is_foreign(kind, seen) for kind in kinds)


def unread(declared: Any, *, strict: bool = False) -> Read:
    """In the place of readers, where nothing is read."""
    return lambda raw: raw


class _Probe(Declared):
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
