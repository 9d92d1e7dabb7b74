"""Errors as payloads.

Ours travel by their code. Python's builtin exceptions, and those an endpoint declares (`facts["raises"]`), are rebuilt
as themselves with their arguments, attributes and the remote traceback; any other becomes a `RemoteError` that names its
type. Nothing is imported and nobody's constructor runs on the word of a peer.
"""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from bema.core.errors import BemaError, ProtocolError, RemoteError, of_code
from bema.core.problems import PROBLEMS
from bema.wire import codecs

TRACEBACK_LIMIT = 16 * 1024

Declared = Mapping[str, type[BaseException]]


class Failure(msgspec.Struct, omit_defaults=True):
    """`refused`: nothing ran, so trying again elsewhere is safe."""

    code: str
    message: str = ""
    type: str = ""
    arguments: list[Any] = []
    attributes: dict[str, Any] = {}
    traceback: str = ""
    retry_after: float | None = None
    fix: str = ""
    refused: bool = False


_BUILTIN: dict[str, type[BaseException]] = {
    name: value
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, Exception) and not issubclass(value, Warning)
}

_read = msgspec.msgpack.Decoder(Failure).decode


def declared(types: Iterable[type[BaseException]]) -> Declared:
    """The exception types an endpoint declares, by the name they travel under."""
    return {cls.__qualname__: cls for cls in types}


def pack_failure(error: BaseException, *, refused: bool = False) -> bytes:
    failure = _of_ours(error) if isinstance(error, BemaError) else _of_any(error)
    failure.refused = refused
    return codecs.pack(failure)


def _of_ours(error: BemaError) -> Failure:
    extra: dict[str, Any] = {}
    if isinstance(error, RemoteError):
        extra = {"type": error.type, "traceback": error.traceback}
    elif type(error).__module__ != BemaError.__module__:
        extra = {"type": type(error).__qualname__, "traceback": _text_of(error)}
    return Failure(
        code=error.code,
        message=error.message,
        attributes=_travelling(error.details),
        retry_after=error.retry_after,
        fix="" if error.fix == error.problem.fix else error.fix,
        **extra,
    )


def _of_any(error: BaseException) -> Failure:
    return Failure(
        code="remote_error",
        message=str(error),
        type=type(error).__qualname__,
        arguments=[_plain(argument) for argument in error.args],
        attributes=_travelling(vars(error)),
        traceback=_text_of(error),
    )


def _travelling(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in values.items() if isinstance(name, str) and name != "__notes__"}


def _plain(value: Any) -> Any:
    """The value where it travels unchanged, else its text: an error must not fail for what it carries."""
    try:
        codecs.encode(value)
    except BemaError:
        return repr(value)
    return value


def _text_of(error: BaseException) -> str:
    lines = traceback.format_exception(error)
    return "".join(lines)[-TRACEBACK_LIMIT:]


def read_failure(payload: Any) -> Failure:
    try:
        return _read(payload)
    except (TypeError, msgspec.MsgspecError) as error:
        raise ProtocolError(f"an error message is malformed: {error}") from error


def rebuild(failure: Failure, known: Declared) -> BaseException:
    """The exception to raise at the caller."""
    cls = known.get(failure.type)
    if cls is None and failure.code == "remote_error":
        cls = _BUILTIN.get(failure.type)
    if cls is not None:
        return _rebuilt(cls, failure)
    if failure.code == "remote_error":
        return RemoteError(
            f"{failure.type}: {failure.message}" if failure.type else failure.message,
            type=failure.type,
            traceback=failure.traceback,
            **_keywords(failure),
        )
    error = of_code(failure.code, failure.message, **_keywords(failure))
    error.retry_after = failure.retry_after
    error.fix = failure.fix or error.fix
    return error


def _keywords(failure: Failure) -> dict[str, Any]:
    taken = ("message", "code", "fix", "type", "traceback", "retry_after", "self", "remote_code")
    return {name: value for name, value in failure.attributes.items() if name not in taken}


def _rebuilt(cls: type[BaseException], failure: Failure) -> BaseException:
    error = cls.__new__(cls, *failure.arguments)
    error.args = tuple(failure.arguments)
    if isinstance(error, BemaError):
        known = failure.code if failure.code in PROBLEMS else "remote_error"
        BemaError.__init__(error, failure.message, code=known, fix=failure.fix or None, **_keywords(failure))
        error.retry_after = failure.retry_after
    else:
        error.__dict__.update((n, v) for n, v in failure.attributes.items() if not n.startswith("__"))
    if failure.traceback:
        error.__dict__["remote_traceback"] = failure.traceback
        error.add_note(f"raised by the service:\n{failure.traceback}")
    return error
