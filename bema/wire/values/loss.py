"""Whether a payload held what a reader has no place for: a field that its model lacks, an integer that a float rounds.

Law: what is asked of a service is read whole or refused; what a service answers may hold fields that its caller does not
know, for a caller misses nothing that it does not know of. A model may say otherwise for itself: forbid unknown fields,
and they are refused in answers too; or ignore them (`extra="ignore"` of Pydantic, `__unknown_fields__ = "ignore"`).

A payload whose value would be sent in the same bytes was read whole, and so was one whose skeleton has no unknown name.
Only the others are looked through.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_origin

import msgspec
from msgspec import inspect

from bema.wire.values import skeleton
from bema.wire.values.records import ignores_unknown

_UINT64, _INT64 = 0xCF, 0xD3
_SMALL = 1024  # below it the value is encoded faster than its skeleton is read
_SHALLOW = (str, int, bool, bytes, type(None))
_LOOKED_AT = frozenset({int, dict, list})


class Loss(msgspec.ValidationError):
    """What would be lost on arrival. Its fix is the sender's, or the model's."""

    def __init__(self, says: str, path: str, fix: str) -> None:
        super().__init__(f"{says} - at `${path}`" if path else says)
        self.fix = fix


class Holds(msgspec.Struct, frozen=True):
    """What values of a declared type may hold."""

    floats: bool
    models: bool  # that drop unknown fields where nobody looks
    foreign: bool  # read by other than msgspec


def holds(info: inspect.Type) -> Holds:
    floats = models = foreign = False
    for node in _nodes(info, set()):
        match node:
            case inspect.FloatType():
                floats = True
            case inspect.StructType(forbid_unknown_fields=forbids):
                models = models or not forbids
            case inspect.DataclassType() | inspect.TypedDictType():
                models = True
            case inspect.CustomType():
                foreign = True
    return Holds(floats or foreign, models or foreign, foreign)


def _nodes(found: Any, seen: set[int]) -> Iterator[inspect.Type]:
    if isinstance(found, tuple):
        for part in found:
            yield from _nodes(part, seen)
    elif isinstance(found, inspect.Type | inspect.Field) and id(found) not in seen:
        seen.add(id(found))
        if isinstance(found, inspect.Type):
            yield found
        for name in found.__struct_fields__:
            if name not in ("default", "default_factory"):
                yield from _nodes(getattr(found, name), seen)


Repack = Callable[[Any], bytes]
Unpack = Callable[[bytes], Any]


def reader(read: Unpack, info: inspect.Type, *, is_asked: bool, repack: Repack, unpack: Unpack) -> Unpack:
    """The same reader, which raises `Loss`; the reader itself where nothing can be lost."""
    found = holds(info)

    def read_models(payload: bytes) -> Any:
        value = read(payload)
        may_round = found.floats and _has_large(payload)
        if not found.foreign and (may_round or len(payload) <= _SMALL) and repack(value) == payload:
            return value
        if may_round or guard is None or not _passes(guard, payload):
            look(unpack(payload), value, strict=True)
        return value

    def read_model(payload: bytes) -> Any:
        return read(payload) if payload[: len(head)] == head else read_models(payload)

    def read_floats(payload: bytes) -> Any:
        value = read(payload)
        if _has_large(payload) and (found.foreign or repack(value) != payload):
            look(unpack(payload), value, strict=False)
        return value

    if is_asked and found.models:
        guard, head = None if found.foreign else skeleton.guard_of(info), head_of_whole(info) or b""
        return read_model if head else read_models
    return read_floats if found.floats else read


def head_of_whole(info: inspect.Type) -> bytes | None:
    """How a payload begins that names every field of the model it is read as, and so no other; None where none tells that.

    A model whose fields are all required leaves, of as many keys, none to a stranger. Most calls bear one such model.
    """
    match info:
        case inspect.StructType(forbid_unknown_fields=True, array_like=False, tag=None, fields=(only,)) if (
            only.required
        ):
            head = head_of_whole(only.type)
            return None if head is None else b"\x81" + msgspec.msgpack.encode(only.encode_name) + head
        case inspect.StructType(array_like=False, tag=None, fields=fields) | inspect.DataclassType(fields=fields):
            required = sum(field.required for field in fields)
        case inspect.CustomType(cls=type()):
            required = sum(field.is_required() for field in getattr(info.cls, "__pydantic_fields__", {}).values())
        case _:
            return None
    model = _model_of(get_origin(info.cls) or info.cls)
    if model is None or model.deep or len(model.names) != required:
        return None
    return bytes((0x80 | required,)) if required < 16 else b"\xde" + required.to_bytes(2, "big")


def _has_large(payload: bytes) -> bool:
    """Whether there may be an integer beyond 32 bits in it; most payloads hold neither byte."""
    return _UINT64 in payload or _INT64 in payload


def _passes(guard: skeleton.Guard, payload: bytes) -> bool:
    try:
        guard(payload)
    except msgspec.ValidationError:
        return False
    return True


def look(raw: Any, value: Any, *, strict: bool, path: str = "") -> None:
    """Hold what came against what was made of it; `strict` is for what a service is asked."""
    kind: Any = type(value)
    if type(raw) is int:
        if kind is float and raw != value:
            raise Loss(f"the integer {raw} would arrive as {value!r}", path, "Send it as a float, or declare an int.")
    elif isinstance(raw, dict):
        if (model := _model_of(kind)) is not None:
            _fields(raw, value, model, strict=strict, path=path)
        elif isinstance(value, dict):
            _items(raw, value, strict=strict, path=path)
        elif hasattr(kind, "__pydantic_root_model__") and kind.__pydantic_root_model__:
            look(raw, value.root, strict=strict, path=path)
    elif isinstance(raw, list):
        _sequence(raw, value, strict=strict, path=path)


class _Model(msgspec.Struct, frozen=True):
    names: frozenset[str]  # that may come
    deep: tuple[tuple[str, str], ...]  # of these what may lose something within, with their attributes
    open: bool  # it ignores what it does not know, or reads it by itself


def _made(attributes: dict[str, tuple[str, Any]], *, more: Iterable[str] = (), open: bool) -> _Model:
    """From the attribute and the type of each name that may come."""
    deep = tuple((name, attribute) for name, (attribute, kind) in attributes.items() if kind not in _SHALLOW)
    return _Model(frozenset((*attributes, *more)), deep, open)


@functools.lru_cache(maxsize=512)
def _model_of(cls: Any) -> _Model | None:
    ignores = ignores_unknown(cls)
    if issubclass(cls, msgspec.Struct):
        own = {field.encode_name: (field.name, field.type) for field in msgspec.structs.fields(cls)}
        config = cls.__struct_config__
        tag = () if config.tag is None else (config.tag_field or "type",)
        return _made(own, more=tag, open=ignores or config.forbid_unknown_fields)
    if hasattr(cls, "__pydantic_fields__"):
        return None if getattr(cls, "__pydantic_root_model__", False) else _pydantic_model(cls, ignores=ignores)
    if hasattr(cls, "__dataclass_fields__"):
        return _made({name: (name, field.type) for name, field in cls.__dataclass_fields__.items()}, open=ignores)
    return None


def _pydantic_model(cls: Any, *, ignores: bool) -> _Model:
    own: dict[str, tuple[str, Any]] = {}
    for name, field in cls.__pydantic_fields__.items():
        own |= dict.fromkeys(
            [name, *_aliases(field.alias), *_aliases(field.validation_alias)], (name, field.annotation)
        )
    validators = getattr(cls.__pydantic_decorators__, "model_validators", {}).values()
    rewrites = any(found.info.mode in ("before", "wrap") for found in validators)
    extra = getattr(cls, "model_config", {}).get("extra")
    return _made(own, more=_computed(cls), open=ignores or rewrites or extra is not None)


def _computed(cls: Any) -> Iterable[str]:
    found = getattr(cls, "__pydantic_computed_fields__", None)
    return found if isinstance(found, dict) else ()


def _aliases(alias: Any) -> Iterator[str]:
    if isinstance(alias, str):
        yield alias
    for choice in getattr(alias, "choices", ()):
        yield from _aliases(choice)
    if isinstance(getattr(alias, "path", None), list):
        yield str(alias.path[0])


def _fields(raw: dict[Any, Any], value: Any, model: _Model, *, strict: bool, path: str) -> None:
    if strict and not model.open and not model.names.issuperset(raw):
        raise unknown(next(key for key in raw if key not in model.names), type(value).__qualname__, path)
    for key, name in model.deep:
        if type(item := raw.get(key)) in _LOOKED_AT:
            look(item, getattr(value, name, None), strict=strict, path=f"{path}.{key}")


def unknown(key: Any, model: str, path: str) -> Loss:
    return Loss(
        f"unknown field `{key}`: the {model} of who reads this has none",
        path,
        f"Update who reads it before who sends it; or let {model} ignore what it does not know.",
    )


def _items(raw: dict[Any, Any], value: dict[Any, Any], *, strict: bool, path: str) -> None:
    """A dictionary keeps the order in which it came, whatever its keys became; a TypedDict has dropped some."""
    if len(raw) != len(value):
        stranger = next((key for key in raw if key not in value), None)
        if strict and stranger is not None:
            raise unknown(stranger, "TypedDict", path)
        for key in raw.keys() & value.keys():
            look(raw[key], value[key], strict=strict, path=f"{path}.{key}")
        return
    for (key, item), (its_key, its_item) in zip(raw.items(), value.items(), strict=True):
        look(key, its_key, strict=strict, path=path)
        look(item, its_item, strict=strict, path=f"{path}.{key}")


def _sequence(raw: list[Any], value: Any, *, strict: bool, path: str) -> None:
    if isinstance(value, set | frozenset):
        for item in raw:
            if type(item) is int and item not in value and any(type(part) is float for part in value):
                raise Loss(f"the integer {item} would arrive as a float", path, "Send it as a float.")
        return
    if isinstance(value, msgspec.Struct):
        model, raw = type(value), raw[1:] if value.__struct_config__.tag is not None else raw
        value = [getattr(value, name) for name in value.__struct_fields__]
        if strict and len(raw) > len(value) and not ignores_unknown(model):
            raise unknown(len(value), model.__qualname__, path)
    if isinstance(value, list | tuple):
        for index, (item, its_item) in enumerate(zip(raw, value, strict=False)):
            look(item, its_item, strict=strict, path=f"{path}[{index}]")
