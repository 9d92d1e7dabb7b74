"""Values to payloads and back.

Typed at the edge: a declared type is encoded and decoded by msgspec in one walk (msgspec and dataclass types, Pydantic
models through their own validation, and everything msgspec knows). What is not declared in full goes through the
strict walk first. A failure to encode or decode is `Invalid` with a path, and it is one call's failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn, Union

import msgspec

from bema.core.errors import BadDeclaration, Invalid
from bema.core.spec import Parameter
from bema.wire import strict

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes], Any]


def _encode_other(value: Any) -> Any:
    """What msgspec does not know: Pydantic models give their fields; the rest is refused."""
    dump = getattr(value, "model_dump", None)
    if dump is None or not hasattr(type(value), "__pydantic_serializer__"):
        raise TypeError(f"a value of type {type(value).__qualname__} cannot travel")
    return dump(round_trip=True)


def _decode_other(declared: Any, value: Any) -> Any:
    return declared.model_validate(value)


def _no_extensions(code: int, data: memoryview) -> NoReturn:
    raise msgspec.ValidationError(f"msgpack extension of type {code}")


pack: Final = msgspec.msgpack.Encoder(enc_hook=_encode_other).encode
"""The shared encoder, for values that were checked or declared in full."""

unpack: Final = msgspec.msgpack.Decoder(ext_hook=_no_extensions).decode

UNFIT: Final = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)
"""What encoders and decoders raise for a value that does not fit; `Invalid` is raised by the strict walk itself."""


def refusal(error: Exception, what: str, value: Any = None) -> Invalid:
    """The one error for a value that does not fit, with the path where one is known."""
    if isinstance(error, Invalid):
        return Invalid(f"{what}: {error.message}", fix=error.fix, **error.details)
    if isinstance(error, OverflowError | RecursionError):
        try:
            strict.check(value)
        except Invalid as found:
            return refusal(found, what)
        except RecursionError:
            pass
        if isinstance(error, RecursionError):
            return Invalid(f"{what}: it is nested too deeply or holds itself")
    return Invalid(f"{what}: {error}")


def encoder(declared: Any = Any) -> Encode:
    """Encode values of a declared type: one C call where the type says everything."""
    walk = strict.checker(declared)
    return pack if walk is None else _walked(walk)


def _walked(walk: strict.Check) -> Encode:
    def encode(value: Any) -> bytes:
        walk(value, "$")
        return pack(value)

    return encode


def decoder(declared: Any = Any) -> Decode:
    """Decode and validate values of a declared type in one walk."""
    if declared is Any:
        return unpack
    strict.checker(declared)  # refuses what cannot travel
    try:
        return msgspec.msgpack.Decoder(declared, dec_hook=_decode_other, ext_hook=_no_extensions).decode
    except (TypeError, NameError) as error:
        raise BadDeclaration(f"{declared!r} cannot travel: {error}") from error


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
        return _walked(_check_strangers)
    walks = {p.name: walk for p in parameters if (walk := strict.checker(p.type))}
    return _walked(_by_name(walks)) if walks else pack


def _check_strangers(arguments: dict[str, Any], path: str) -> None:
    for name, value in arguments.items():
        strict.check_for_stranger(value, f"{path}.{name}")


def _by_name(walks: Mapping[str, strict.Check]) -> strict.Check:
    def walk(arguments: dict[str, Any], path: str) -> None:
        for name, check in walks.items():
            if name in arguments:
                check(arguments[name], f"{path}.{name}")

    return walk


def arguments_decoder(parameters: Iterable[Parameter]) -> Decode:
    """Decode a map of arguments by name: unknown and missing names are refused, omitted ones stay away."""
    parameters = tuple(parameters)
    for parameter in parameters:
        strict.checker(parameter.type)
    fields: list[Any] = [
        (p.name, p.type) if p.required else (p.name, Union[p.type, msgspec.UnsetType], msgspec.UNSET)  # noqa: UP007 - a type known at run time only
        for p in sorted(parameters, key=lambda p: not p.required)
    ]
    try:
        model = msgspec.defstruct("Arguments", fields, forbid_unknown_fields=True, gc=False)
        read = msgspec.msgpack.Decoder(model, dec_hook=_decode_other, ext_hook=_no_extensions).decode
    except (TypeError, NameError) as error:
        raise BadDeclaration(f"a parameter cannot travel: {error}") from error
    as_dict = msgspec.structs.asdict
    if all(p.required for p in parameters):
        return lambda payload: as_dict(read(payload))

    def read_given(payload: bytes) -> dict[str, Any]:
        given = as_dict(read(payload))
        return {name: value for name, value in given.items() if value is not msgspec.UNSET}

    return read_given
