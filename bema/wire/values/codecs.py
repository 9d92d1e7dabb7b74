"""Values to payloads and back.

Typed at the edge: a declared type is encoded and decoded by msgspec in one walk (msgspec and dataclass types, Pydantic
models through their own validation, and everything msgspec knows). What the type does not say in full is looked through
first; what is not of the type at a glance, and every Pydantic model, makes the trip here before it is sent. A failure to
encode or decode is `Invalid` with a path, and it is one call's failure.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn

import msgspec
import msgspec.inspect

from bema.core.errors import BadAnswer, BadDeclaration, Invalid
from bema.core.spec import Parameter
from bema.wire.values import constraints, equal, loss, strict
from bema.wire.values.declared import Reading, Standing
from bema.wire.values.equal import Unequal
from bema.wire.values.records import union
from bema.wire.values.unions import Read
from bema.wire.values.walks import ANYTHING, NOTHING, Walk, under

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes], Any]


def _encode_other(value: Any) -> msgspec.Raw:
    """What msgspec does not know: Pydantic models give their fields by name; the rest is refused.

    Aliases, serializers, validators, exclusions and private attributes: what a model does with its values is known by
    making the trip only.
    """
    kind: Any = type(value)
    if not hasattr(kind, "__pydantic_fields__"):
        if hasattr(kind, "__get_pydantic_core_schema__"):
            return msgspec.Raw(pack(_encode_field(value)))
        raise TypeError(f"a value of type {kind.__qualname__} cannot travel")
    fields = kind.__pydantic_serializer__.to_python(value, round_trip=True, by_alias=False, warnings=False)
    try:
        payload = _pack_fields(fields)
        arrived = _decode_other(kind, unpack(payload))
    except OverflowError:
        found = equal.too_large(fields)
    except ValueError as error:
        raise Unequal(f"it would not be accepted on arrival: {error}", within=value) from error
    else:
        is_same = value.__dict__ == arrived.__dict__
        has_more = value.__pydantic_private__ or value.__pydantic_extra__
        found = None if is_same and not has_more else equal.difference(value, arrived)
    if found is None and _has_times(kind) and (path := equal.find(fields, equal.is_folded)) is not None:
        found = equal.folded(path)
    if found is not None:
        raise found.under("", within=value)
    return msgspec.Raw(payload)


def _encode_field(value: Any) -> Any:
    """What msgspec does not know and Pydantic does: an address, a path, a URL."""
    kind: Any = type(value)
    if hasattr(kind, "__pydantic_fields__"):
        return _encode_other(value)
    try:
        return _adapter(kind).dump_python(value, mode="json")
    except BadDeclaration:
        raise TypeError(f"a value of type {kind.__qualname__} cannot travel") from None


_adapter = functools.lru_cache(maxsize=256)(constraints.adapter)
_pack_fields: Final = msgspec.msgpack.Encoder(enc_hook=_encode_field).encode


@functools.lru_cache(maxsize=256)
def _has_times(kind: Any) -> bool:
    schema = repr(kind.__pydantic_core_schema__)
    return "'datetime'" in schema or "'time'" in schema


def _decode_other(declared: Any, value: Any) -> Any:
    """By name, as we send them, or by alias, as others may."""
    if type(declared) is Standing:
        try:
            return declared.__bema_read__(value)
        except ValueError as error:  # another one than msgspec's own, to which it adds no path
            raise ValueError(constraints.said(error)) from error
    return declared.__pydantic_validator__.validate_python(value, by_name=True)


def _no_extensions(code: int, data: memoryview) -> NoReturn:
    raise msgspec.ValidationError(f"msgpack extension of type {code}")


pack: Final = msgspec.msgpack.Encoder(enc_hook=_encode_other).encode
"""The shared encoder, for values that were checked or declared in full."""

unpack: Final = msgspec.msgpack.Decoder(ext_hook=_no_extensions).decode

UNFIT: Final = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)
"""What encoders and decoders raise for a value that does not fit; `Invalid` is raised by the strict walk itself."""


def refusal(error: Exception, what: str, value: Any = None) -> Invalid:
    """The one error for a value that does not fit, with the path where one is known."""
    error = _located(error, value)
    if isinstance(error, Invalid):
        return Invalid(f"{what}: {error.message}", fix=error.fix, **error.details)
    if isinstance(error, RecursionError):
        return Invalid(f"{what}: it is nested too deeply or holds itself")
    return Invalid(f"{what}: {_in_one(str(error))}", fix=getattr(error, "fix", None))


# compiled at the first refusal: every process that starts would pay for them, and few refuse
_PATHS: Final = r" - at `\$([^`]*)` - at `\$([^`]*)`$"
_AT: Final = r"(?s)^(.*) - at `\$([^`]*)`$"


def _unequal(error: Exception) -> Unequal:
    """What the reader at the other end would say."""
    found = re.match(_AT, _in_one(str(error)))
    return Unequal(str(error)) if found is None else Unequal(found[1], path=f"${found[2]}")


def _in_one(says: str) -> str:
    """One path, where a reader within a reader has each added its own."""
    while found := re.search(_PATHS, says):
        says = f"{says[: found.start()]} - at `${found[2]}{found[1]}`"
    return says


def bad_answer(error: Exception, what: str, value: Any = None) -> BadAnswer:
    """The same of what a service gives: not its caller is wrong."""
    found = refusal(error, what, value)
    return BadAnswer(found.message, fix=None if found.fix == found.problem.fix else found.fix, **found.details)


def _located(error: Exception, value: Any) -> Exception:
    try:
        if isinstance(error, OverflowError):
            return equal.too_large(value) or error
        if isinstance(error, Unequal) and error.within is not None:
            path = equal.find(value, lambda part: part is error.within)
            return error if path is None else error.under(path[1:])
    except RecursionError as too_deep:
        return too_deep
    return error


def encoder(declared: Any = Any) -> Encode:
    """Encode values of a declared type: where the type says everything, a look at the value's type and one C call.

    A value that is not of the type at a glance (an `int` where `float` is declared, a `Literal`) is sent if it arrives
    equal. Items of collections and fields of models are not held against their types here, for that costs as much as
    decoding them: a caller with types does that.
    """
    walk, kinds = strict.walker(declared), strict.exact(declared)
    if kinds is None:
        return _walked(walk or ANYTHING)
    trip = _trip(decoder(declared))
    if strict.stands_in(declared):
        return trip

    def encode(value: Any) -> bytes:
        return pack(value) if type(value) in kinds else trip(value)

    def look_and_encode(value: Any) -> bytes:
        if type(value) not in kinds:
            return trip(value)
        look(value)
        return pack(value)

    if walk is None or kinds <= walk.passes:
        return encode
    look = walk.look
    return look_and_encode


def _trip(read: Decode) -> Encode:
    def encode(value: Any) -> bytes:
        payload = pack(value)
        try:
            arrived = read(payload)
        except msgspec.ValidationError as error:
            raise _unequal(error) from error
        if (found := equal.difference(value, arrived)) is not None:
            raise found
        return payload

    return encode


def _walked(walk: Walk) -> Encode:
    passes, look = walk

    def encode(value: Any) -> bytes:
        if type(value) not in passes:
            look(value)
        return pack(value)

    return encode


def decoder(declared: Any = Any) -> Decode:
    """Decode and validate values of a declared type in one walk: answers, which may hold fields unknown here."""
    return _decoder(declared, is_asked=False)


def requests_decoder(declared: Any = Any) -> Decode:
    """The same of what a service is asked, which is read whole or refused."""
    return _decoder(declared, is_asked=True)


def _decoder(declared: Any, *, is_asked: bool) -> Decode:
    if declared is Any:
        return unpack
    strict.walker(declared)  # refuses what cannot travel
    try:
        return _reader(Reading(_make_read).readable(declared), is_asked=is_asked)
    except (TypeError, NameError) as error:
        raise BadDeclaration(f"{declared!r} cannot travel: {error}") from error


def _reader(readable: Any, *, is_asked: bool) -> Decode:
    read = msgspec.msgpack.Decoder(readable, dec_hook=_decode_other, ext_hook=_no_extensions).decode
    return loss.reader(read, msgspec.inspect.type_info(readable), is_asked=is_asked, repack=pack, unpack=unpack)


def _make_read(readable: Any, *, strict: bool = False) -> Read:
    """For the stand-ins: from what was decoded without a type, in the bytes that it came in."""
    read = _reader(readable, is_asked=strict)
    return lambda raw: read(pack(raw))


def encode(value: Any, declared: Any = Any) -> bytes:
    """One value, for callers outside the hot path."""
    try:
        return encoder(declared)(value)
    except (Invalid, *UNFIT) as error:
        raise refusal(error, "the value", value) from error


def decode(payload: bytes, declared: Any = Any) -> Any:
    try:
        return decoder(declared)(payload)
    except UNFIT as error:
        raise refusal(error, "the value") from error


def arguments_encoder(parameters: Iterable[Parameter] | None) -> Encode:
    """Encode a map of arguments by name; None where the callee's types are not known here."""
    if parameters is None:
        return _walked(Walk(NOTHING, _look_as_stranger))
    walks = [(p.name, *walk) for p in parameters if (walk := _walker_of(p, converts=True) or _traveller(p.type))]

    def encode(arguments: dict[str, Any]) -> bytes:
        for name, passes, look in walks:
            if type(arguments.get(name)) not in passes and name in arguments:
                under(f".{name}", look, arguments[name])
        return pack(arguments)

    def encode_only(arguments: dict[str, Any]) -> bytes:
        return pack(arguments) if type(arguments.get(only)) in passing else encode(arguments)

    if not walks:
        return pack
    only, passing, _ = walks[0]
    return encode_only if len(walks) == 1 else encode


def _traveller(declared: Any) -> Walk | None:
    """What a stand-in reads makes the trip before it is sent."""
    if not strict.stands_in(declared):
        return None
    read = requests_decoder(declared)

    def look(value: Any) -> None:
        try:
            arrived = read(pack(value))
        except msgspec.ValidationError as error:
            raise _unequal(error) from error
        if (found := equal.difference(value, arrived, converts=True)) is not None:
            raise found

    return Walk(NOTHING, look)


def _walker_of(parameter: Parameter, *, converts: bool = False) -> Walk | None:
    try:
        return strict.walker(parameter.type, converts=converts)
    except BadDeclaration as error:
        raise error.within(f"parameter {parameter.name!r}") from error


def _decoder_of(parameter: Parameter) -> Decode:
    try:
        return decoder(parameter.type)
    except BadDeclaration as error:
        raise error.within(f"parameter {parameter.name!r}") from error


def _look_as_stranger(arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        if type(value) not in ANYTHING.passes:
            under(f".{name}", strict.check_for_stranger, value)


def arguments_decoder(parameters: Iterable[Parameter]) -> Decode:
    """Decode a map of arguments by name: unknown and missing names are refused, omitted ones stay away."""
    parameters = tuple(parameters)
    for parameter in parameters:
        _walker_of(parameter)
    try:
        read = _reader(_arguments_model(parameters), is_asked=True)
    except (TypeError, NameError) as error:
        for parameter in parameters:
            _decoder_of(parameter)
        raise BadDeclaration(f"the parameters cannot travel together: {error}") from error
    as_dict = msgspec.structs.asdict
    if all(p.required for p in parameters):
        return lambda payload: as_dict(read(payload))

    def read_given(payload: bytes) -> dict[str, Any]:
        given = as_dict(read(payload))
        return {name: value for name, value in given.items() if value is not msgspec.UNSET}

    return read_given


def _arguments_model(parameters: Iterable[Parameter]) -> Any:
    readable = Reading(_make_read).readable
    fields: list[Any] = []
    for p in sorted(parameters, key=lambda p: not p.required):
        kind = readable(p.type)
        optional = union(kind, msgspec.UnsetType)
        fields.append((p.name, kind) if p.required else (p.name, optional, msgspec.UNSET))
    return msgspec.defstruct("Arguments", fields, forbid_unknown_fields=True, gc=False)
