"""Failures: exceptions as payloads, and back.

Errors of bema travel by their code. Python's builtin exceptions, and those that an endpoint declares (`facts["raises"]`),
are rebuilt as themselves with arguments, attributes and the remote traceback. Any other exception becomes a `RemoteError`
that names its type; a group arrives as a group.

Laws: a peer cannot make us import anything or run a constructor other than those of the builtins. Every exception can be
packed, even one whose `str` fails. Every payload that was read gives an exception to raise; making it never raises.
"""

from __future__ import annotations

import builtins
import functools
import traceback
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from bema.core.errors import BemaError, ProtocolError, RemoteError, of_code
from bema.core.problems import PROBLEMS
from bema.wire.values import codecs

TRACEBACK_LIMIT = 16 * 1024
LIMIT = 1024 * 1024  # of a whole failure; a larger one keeps its type and the beginning of its text
DEPTH = 3  # of groups in groups
MEMBERS = 16  # of one group

Declared = Mapping[str, type[BaseException]]


class Failure(msgspec.Struct, omit_defaults=True):
    """An exception as it travels. `refused` says that nothing ran, so that another attempt is safe."""

    code: str
    message: str = ""
    type: str = ""
    arguments: list[Any] = []
    attributes: dict[str, Any] = {}
    traceback: str = ""
    retry_after: float | None = None
    fix: str = ""
    refused: bool = False
    members: list[Failure] = []  # of a group


_BUILTIN: dict[str, type[BaseException]] = {
    name: value
    for name, value in vars(builtins).items()
    if isinstance(value, type)
    and issubclass(value, Exception)
    # StopIteration and StopAsyncIteration end loops, and a coroutine that raises one gets a RuntimeError instead (PEP 479)
    and not issubclass(value, (Warning, StopIteration, StopAsyncIteration))
}


@functools.cache
def _decoder() -> msgspec.msgpack.Decoder[Failure]:
    """Made for the first failure that is read, which a process that serves alone never does."""
    return msgspec.msgpack.Decoder(Failure)


# what these hold beside their arguments, without what would not travel or could mislead C code that trusts it
_HELD: dict[type[BaseException], tuple[str, ...]] = {
    OSError: ("filename", "filename2"),
    ImportError: ("name", "path"),
    NameError: ("name",),
    AttributeError: ("name",),
}


def declared(types: Iterable[type[BaseException]]) -> Declared:
    """The exception types that an endpoint declares, by the name that they travel under."""
    return {cls.__qualname__: cls for cls in types}


def pack_failure(error: BaseException, *, refused: bool = False) -> bytes:
    """An exception as a payload of at most about `LIMIT` bytes. Never raises."""
    packed: bytes | None = _tried(None, _packed, error, refused)
    return packed or codecs.pack(
        Failure("remote_error", "an error that cannot be described", type=_name_of(error), refused=refused)
    )


def _packed(error: BaseException, refused: bool) -> bytes:
    failure = _of_any(error, DEPTH)
    failure.refused = refused
    packed = codecs.pack(failure)
    if len(packed) <= LIMIT:
        return packed
    text = failure.message[:TRACEBACK_LIMIT] + " ... (cut)"
    return codecs.pack(msgspec.structs.replace(failure, message=text, arguments=[text], attributes={}, members=[]))


def _of_any(error: BaseException, depth: int) -> Failure:
    ours = _tried(None, _of_ours, error) if isinstance(error, BemaError) else None
    return ours or _of_others(error, depth)


def _of_ours(error: BemaError) -> Failure:
    extra: dict[str, Any] = {}
    if isinstance(error, RemoteError):
        extra = {"type": _clean(error.type), "traceback": _clean(error.traceback)}
    elif type(error).__module__ != BemaError.__module__:
        extra = {"type": _name_of(error), "traceback": _text_of(error)}
    return Failure(
        code=_clean(error.code),
        message=_clean(error.message),
        attributes=_travelling(error.details),
        retry_after=None if error.retry_after is None else float(error.retry_after),
        fix="" if error.fix == error.problem.fix else _clean(error.fix),
        **extra,
    )


def _of_others(error: BaseException, depth: int) -> Failure:
    failure = Failure(
        code="remote_error",
        message=_tried("(its text cannot be had)", lambda: _clean(str(error))),
        type=_name_of(error),
        arguments=_tried([], lambda: [_plain(argument) for argument in error.args]),
        attributes=_tried({}, lambda: _travelling({**_held(error), **vars(error)})),
        traceback=_text_of(error) if depth == DEPTH else "",
    )
    if isinstance(error, BaseExceptionGroup):
        failure.arguments = failure.arguments[:1]
        failure.members = _members(error.exceptions, depth - 1) if depth else []
    return failure


def _members(errors: Sequence[BaseException], depth: int) -> list[Failure]:
    members = [_of_any(member, depth) for member in errors[:MEMBERS]]
    if len(errors) > MEMBERS:
        members[-1] = Failure(code="remote_error", message=f"and {len(errors) - MEMBERS + 1} more exceptions")
    return members


def _tried(otherwise: Any, made: Callable[..., Any], *given: Any) -> Any:
    """Run code of the exception's own class, which may do anything; `otherwise` where it raises."""
    try:
        return made(*given)
    except BaseException:  # noqa: BLE001 - an error of an error is no third one: its caller waits for the first
        return otherwise


def _name_of(error: BaseException) -> str:
    name: str = _tried("BaseException", lambda: _clean(type(error).__qualname__))
    return name


def _clean(text: str) -> str:
    """A text that can be encoded: lone surrogates, as in a file name that is no UTF-8 (PEP 383), are escaped."""
    # `str.encode`, not a method: a subclass of `str` may have its own
    return str.encode(text, "utf-8", "backslashreplace").decode()


def _slots(cls: type[BaseException]) -> dict[str, Any]:
    """The slots of an exception that are outside of its dictionary, each by name with the descriptor that reads it."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        own = vars(base)
        names = own if "__slots__" in own else _HELD.get(base, ())
        found |= {name: own[name] for name in names if isinstance(own[name], types.MemberDescriptorType)}
    return found


def _held(error: BaseException) -> dict[str, Any]:
    values = {name: _tried(None, slot.__get__, error) for name, slot in _slots(type(error)).items()}
    return {name: value for name, value in values.items() if value is not None}


def _travelling(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        _clean(name): _plain(value) for name, value in values.items() if isinstance(name, str) and name != "__notes__"
    }


def _plain(value: Any) -> Any:
    """The value if it can be encoded, else its `repr`: an error must not fail for what it carries."""
    if isinstance(value, str):
        return _clean(value)
    if _tried(None, codecs.encode, value) is None:
        return _tried("(its text cannot be had)", lambda: _clean(repr(value)))
    return value


def _text_of(error: BaseException) -> str:
    text: str = _tried("", lambda: _clean("".join(traceback.format_exception(error))[-TRACEBACK_LIMIT:]))
    return text


def read_failure(payload: Any) -> Failure:
    """Read a failure; `ProtocolError` where the payload is none."""
    try:
        return _decoder().decode(payload)
    except (TypeError, RecursionError, msgspec.MsgspecError) as error:
        raise ProtocolError(f"an error message is malformed: {error}") from error


def rebuild(failure: Failure, known: Declared, depth: int = DEPTH) -> BaseException:
    """The exception to raise at the caller."""
    cls = known.get(failure.type)
    if cls is None and failure.code == "remote_error":
        cls = _BUILTIN.get(failure.type)
    if cls is not None and issubclass(cls, Exception):
        members = [rebuild(member, known, depth - 1) for member in failure.members[:MEMBERS]] if depth else []
        rebuilt: BaseException | None = _tried(None, _rebuilt, cls, failure, members)
        if rebuilt is not None:
            return rebuilt
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


def _rebuilt(cls: type[Exception], failure: Failure, members: list[Any]) -> Exception | None:
    base: Any = cls
    while base not in _OWN_CONSTRUCTORS:
        base = base.__base__
    error = _constructed(cls, base, failure, members)
    if error is None:
        return None
    if isinstance(error, BemaError):
        known = failure.code if failure.code in PROBLEMS else "remote_error"
        BemaError.__init__(error, failure.message, code=known, fix=failure.fix or None, **_keywords(failure))
        error.retry_after = failure.retry_after
    else:
        slots = _slots(cls)
        for name, value in failure.attributes.items():
            if name in slots:
                slots[name].__set__(error, value)
            elif not name.startswith("__"):
                error.__dict__[name] = value
    if failure.traceback:
        error.__dict__["remote_traceback"] = failure.traceback
        BaseException.add_note(error, f"raised by the service:\n{failure.traceback}")
    return error


_OWN_CONSTRUCTORS = frozenset({*_BUILTIN.values(), BaseException})


def _constructed(cls: type[Exception], base: Any, failure: Failure, members: list[Any]) -> Exception | None:
    """An exception made by the constructor of its builtin base, from the arguments or else from the message; None if neither
    works."""
    # the builtin's constructor keeps what `str()` of the exception reads; the class's own may have any signature
    given: list[tuple[Any, ...]] = [tuple(failure.arguments), (failure.message,)]
    if issubclass(base, BaseExceptionGroup):
        given = [(str(failure.arguments[0]), members)]
    elif issubclass(base, SyntaxError):
        del given[0]  # a tuple of tuples
    elif issubclass(base, _POSITIONED):
        given = given[: _is_within(failure.arguments)]
    for arguments in given:
        error: Exception | None = _tried(None, base.__new__, cls, *arguments)
        if error is not None and _tried(base, base.__init__, error, *arguments) is None:
            # where its text has not survived, one of its name tells more
            is_changed = isinstance(error, _POSITIONED) and base.__str__(error) != failure.message
            return None if is_changed else error
    return None


_POSITIONED = (UnicodeDecodeError, UnicodeEncodeError, UnicodeTranslateError)


def _is_within(arguments: list[Any]) -> bool:
    """Whether the positions of a UnicodeError lie in its text: its `__str__` reads there unasked."""
    *_, text, start, end, _ = [None] * 4 + arguments
    return isinstance(text, str | bytes) and type(start) is type(end) is int and 0 <= start <= end <= len(text)
