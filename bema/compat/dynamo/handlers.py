"""Handlers as Dynamo calls them, made into functions that say of themselves what ours need to know.

Law: a handler is called with its request by position and with `context` by name where it has such a parameter, and no
other way: what was bound to a `partial` is its own, and `*args` and `**kwargs` stay empty but for a request that has no other
place. What it gives back decides, where its signature does not say: an iterator is a stream, anything else one answer.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator
from typing import Any

import msgspec

from bema.compat.dynamo.context import Context
from bema.core.call import Call
from bema.core.errors import BadDeclaration, Invalid
from bema.runtime import threads

CONTEXT = "context"
REQUEST = "request"

_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_Run = Callable[[dict[str, Any]], Any]


def adapted(handler: Callable[..., Any], *, streams: bool = False) -> Callable[..., Any]:
    """The handler as we call it: its `context` made of our `Call`, its first parameter a stream where it `streams`."""
    said = _code(handler)
    parameters = _parameters(handler)
    kinds = dict(inspect.get_annotations(said, eval_str=True))
    if CONTEXT in parameters:
        kinds[CONTEXT] = Call
    requests = [name for name in parameters if name != CONTEXT]
    if streams and requests and kinds.get(requests[0], Any) is Any:
        kinds[requests[0]] = AsyncIterator[Any]
    run: Any = _form(said, kinds)(_called(handler, parameters))
    run.__annotations__ = {name: kind for name, kind in kinds.items() if name in parameters or name == "return"}
    run.__name__ = getattr(said, "__name__", type(handler).__name__)
    run.__qualname__ = getattr(said, "__qualname__", run.__name__)
    run.__doc__ = inspect.getdoc(said)
    run.__signature__ = inspect.Signature([each.replace(kind=each.KEYWORD_ONLY) for each in parameters.values()])
    return run  # type: ignore[no-any-return]


def _code(handler: Any) -> Any:
    """What bears the annotations and the kind: the function itself, or the `__call__` of an object."""
    handler = inspect.unwrap(handler)
    # a partial of a decorated function of a partial: people stack them
    while isinstance(handler, functools.partial):
        handler = inspect.unwrap(handler.func)
    return handler if inspect.isroutine(handler) else type(handler).__call__


def _parameters(handler: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """What travels, and the context."""
    declared = inspect.signature(handler).parameters
    bound: dict[str, Any] = handler.keywords if isinstance(handler, functools.partial) else {}
    kept = {
        name: each
        for name, each in declared.items()
        if each.kind not in _VARIABLE and (name == CONTEXT or name not in bound)
    }
    kinds = {each.kind for each in declared.values()}
    if not kept.keys() - {CONTEXT} and kinds & set(_VARIABLE):
        if inspect.Parameter.VAR_POSITIONAL not in kinds:
            raise BadDeclaration(f"{_code(handler).__qualname__} has no place for the request: give it a parameter")
        request = inspect.Parameter(REQUEST, inspect.Parameter.POSITIONAL_ONLY)
        kept = {REQUEST: request, **kept}
    return kept


def _called(handler: Callable[..., Any], parameters: dict[str, inspect.Parameter]) -> _Run:
    positional = [name for name, each in parameters.items() if each.kind is each.POSITIONAL_ONLY]

    def call(arguments: dict[str, Any]) -> Any:
        if isinstance(arguments.get(CONTEXT), Call):
            arguments[CONTEXT] = Context.of(arguments[CONTEXT])
        # what Python takes by position alone must be passed so; the rest goes by name
        first = [arguments.pop(name) for name in positional if name in arguments]
        return handler(*first, **arguments)

    return call


def _form(said: Any, kinds: dict[str, Any]) -> Callable[[_Run], Callable[..., Any]]:
    """The kind of function that ours must be for what theirs is."""
    if inspect.isasyncgenfunction(said):
        return _streaming
    if inspect.iscoroutinefunction(said):
        return _answering
    if inspect.isgeneratorfunction(said):
        return _stepping
    returns = kinds.get("return", Any)
    if returns is Any:
        return _asked
    origin = getattr(returns, "__origin__", returns)
    if isinstance(origin, type) and issubclass(origin, AsyncIterator | AsyncGenerator):
        return _streaming
    return _stepping if origin in (Iterator, Iterable, Generator) else _plain


def _streaming(call: _Run) -> Callable[..., Any]:
    async def run(**arguments: Any) -> AsyncIterator[Any]:
        async for answer in call(arguments):
            yield answer

    return run


def _answering(call: _Run) -> Callable[..., Any]:
    async def run(**arguments: Any) -> Any:
        return await call(arguments)

    return run


def _stepping(call: _Run) -> Callable[..., Any]:
    def run(**arguments: Any) -> Iterator[Any]:
        yield from call(arguments)

    return run


def _plain(call: _Run) -> Callable[..., Any]:
    def run(**arguments: Any) -> Any:
        return call(arguments)

    return run


def _asked(call: _Run) -> Callable[..., Any]:
    """For a plain function that does not say what it returns: called in a thread, as it may wait."""

    async def run(**arguments: Any) -> AsyncIterator[Any]:
        given = await threads.in_thread(call, arguments)
        if inspect.isawaitable(given):
            given = await given
        if hasattr(given, "__aiter__") or isinstance(given, Iterator):
            answers = given if hasattr(given, "__aiter__") else threads.stream_in_thread(lambda call: given)(Call())
            async for answer in answers:
                yield answer
        else:
            yield given

    return run


def dynamo_endpoint(request_type: Any, response_type: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare what a handler takes and yields: the same as annotating it, and enforced both ways.

    A request of a class may also come as its JSON text.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        if not inspect.isasyncgenfunction(function):
            raise BadDeclaration(f"@dynamo_endpoint decorates async generators, not {function!r}")
        signature = inspect.signature(function)
        name = [name for name in signature.parameters if name != CONTEXT][-1]
        where = function.__qualname__

        @functools.wraps(function)
        async def handle(*arguments: Any, **keywords: Any) -> AsyncIterator[Any]:
            given = signature.bind(*arguments, **keywords)
            given.arguments[name] = _read(given.arguments[name], request_type, where)
            async for answer in function(*given.args, **given.kwargs):
                yield _checked(answer, response_type, f"{where} yielded")

        handle.__annotations__ = {
            **function.__annotations__,
            name: request_type | str if _is_model(request_type) else request_type,
            "return": AsyncIterator[response_type],
        }
        # `inspect` would look through to the function, whose annotations say nothing of what is
        # read here
        del handle.__wrapped__
        read: Any = handle
        read.__signature__ = signature
        return handle

    return decorate


def _is_model(kind: Any) -> bool:
    """Whether it is a class of fields, which text is not."""
    marks = ("model_fields", "__struct_fields__", "__dataclass_fields__")
    return isinstance(kind, type) and any(hasattr(kind, mark) for mark in marks)


def _read(request: Any, request_type: Any, where: str) -> Any:
    if not _is_model(request_type) or isinstance(request, request_type):
        return request
    if not isinstance(request, str):
        return _checked(request, request_type, f"{where} was asked with")
    validate = getattr(request_type, "model_validate_json", None)
    try:
        return validate(request) if validate else msgspec.json.decode(request, type=request_type)
    except ValueError as error:
        raise Invalid(f"{where} was asked with text that is no {request_type.__qualname__}: {error}") from error


def _checked(value: Any, kind: Any, what: str) -> Any:
    if kind is Any or (isinstance(kind, type) and not hasattr(kind, "__origin__") and isinstance(value, kind)):
        return value
    validate = getattr(kind, "model_validate", None)
    try:
        return validate(value) if validate else msgspec.convert(value, kind)
    except ValueError as error:
        name = getattr(kind, "__qualname__", str(kind))
        raise Invalid(f"{what} what is no {name}: {error}") from error
