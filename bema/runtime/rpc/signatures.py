"""Signatures: from a function's signature to its `EndpointSpec`.

Law: a function that cannot be an endpoint is refused here, in a sentence that names it, not at a call. `check` needs no
annotations and runs at the declaration; `read` resolves annotations and runs when the names in them exist.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
)
from typing import Any

from bema.core.call import Call, Item
from bema.core.errors import BadDeclaration
from bema.core.naming import check_endpoint
from bema.core.spec import EndpointSpec, Parameter, Shape

_ASYNC = (AsyncIterator, AsyncIterable, AsyncGenerator)
_SYNC = (Iterator, Generator)
_AWAITED = (Awaitable, Coroutine)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def check(function: Callable[..., Any], name: str, *, method: bool) -> None:
    """Refuse a function that can never be an endpoint.

    Raises:
        BadDeclaration: the name is no endpoint's, or a parameter cannot be passed by name.
    """
    check_endpoint(name)
    where = getattr(function, "__qualname__", repr(function))
    for parameter in _parameters(function, method=method, where=where):
        if parameter.kind not in _NAMED:
            raise BadDeclaration(
                f"{where}: parameter {parameter} cannot travel: arguments go by name, so no *args, **kwargs or"
                " positional-only parameters"
            )


def read(
    function: Callable[..., Any],
    name: str,
    *,
    method: bool,
    declared: bool = False,
    idempotent: bool = False,
    resumable: bool = False,
    durable: bool = False,
) -> EndpointSpec:
    """The spec of a function. `method` leaves out its first parameter; `declared` says that its body is a placeholder.

    Raises:
        BadDeclaration: an annotation cannot be resolved, or the signature cannot be served.
    """
    where = getattr(function, "__qualname__", repr(function))
    hints = _hints(function, where)
    parameters: list[Parameter] = []
    takes_call = incoming = None
    facts: dict[str, Any] = {}
    for parameter in _parameters(function, method=method, where=where):
        kind = hints.get(parameter.name, Any)
        if Call in _members(kind):
            takes_call = parameter.name
        elif typing.get_origin(kind) in _ASYNC or kind in _ASYNC:
            if incoming is not None:
                raise BadDeclaration(f"{where}: {incoming!r} and {parameter.name!r} are both streams; one can travel")
            incoming, facts["requests"] = parameter.name, _item(kind)
        else:
            required = parameter.default is inspect.Parameter.empty
            parameters.append(Parameter(parameter.name, kind, required, None if required else parameter.default))
    streams_out, threaded, returns = _answers(function, hints, where, declared=declared)
    if resumable and (incoming is not None or not streams_out):
        raise BadDeclaration(
            f"{where} is declared resumable, but "
            + (f"takes the stream {incoming!r}, which no other instance has" if incoming else "answers once"),
            fix="Only a stream of answers to one request can be continued; repeat other calls by declaring them idempotent.",
        )
    if durable and (threaded or streams_out or incoming is not None):
        raise BadDeclaration(
            f"{where} is declared durable, but "
            + ("streams" if streams_out or incoming is not None else "is a plain `def`, which runs in a thread"),
            fix="A durable handler is an `async def` that answers once: it is replayed, and waits for its call alone.",
        )
    if typing.get_origin(returns) is Item:
        returns = _item(returns)
    return EndpointSpec(
        name=name,
        shape=_SHAPES[incoming is not None, streams_out],
        parameters=tuple(parameters),
        returns=returns,
        doc=inspect.getdoc(function) or "",
        attribute=getattr(function, "__name__", name),
        incoming=incoming,
        takes_call=takes_call,
        threaded=threaded,
        idempotent=idempotent,
        resumable=resumable,
        durable=durable,
        facts=facts,
    )


_SHAPES = {
    (False, False): Shape.UNARY,
    (False, True): Shape.STREAM,
    (True, False): Shape.COLLECT,
    (True, True): Shape.BOTH,
}


def _parameters(function: Callable[..., Any], *, method: bool, where: str) -> list[inspect.Parameter]:
    try:
        found = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise BadDeclaration(f"{where} has no signature that can be read: {error}") from error
    if method:
        if not found or found[0].kind not in (inspect.Parameter.POSITIONAL_ONLY, _NAMED[0]):
            raise BadDeclaration(f"{where} takes no self: an endpoint is a method of its service")
        return found[1:]
    return found


def _hints(function: Callable[..., Any], where: str) -> dict[str, Any]:
    target = _code(function)
    try:
        return typing.get_type_hints(target, include_extras=True)
    except _UNRESOLVED as error:
        raise BadDeclaration(f"{where}: an annotation cannot be resolved: {_whose(target)}{error}") from error


_UNRESOLVED = (NameError, AttributeError, TypeError, SyntaxError)


def _whose(function: Any) -> str:
    """The parameter whose annotation is the first that cannot be resolved, as the beginning of a reason."""
    for name, said in getattr(function, "__annotations__", {}).items():
        alone = types.SimpleNamespace(__annotations__={name: said})
        try:
            typing.get_type_hints(alone, getattr(function, "__globals__", None))
        except _UNRESOLVED:
            return "what it returns: " if name == "return" else f"parameter {name!r}: "
    return ""


def _answers(
    function: Callable[..., Any], hints: dict[str, Any], where: str, *, declared: bool
) -> tuple[bool, bool, Any]:
    """Whether the answers stream, whether the function runs in a thread, and the type of one answer."""
    # The code decides where it can: a function with `yield` is a generator whatever its annotation says. Only a plain `def`
    # goes by its annotation, since it may return the iterator or the awaitable of another function.
    target = _code(function)
    returns = hints.get("return", Any)
    origin = typing.get_origin(returns) or returns
    if inspect.isasyncgenfunction(target) or inspect.isgeneratorfunction(target):
        threaded = not inspect.isasyncgenfunction(target)
        if returns is not Any and origin not in (_SYNC if threaded else _ASYNC) and origin not in _ITERABLES:
            raise BadDeclaration(
                f"{where} yields, but is declared to return {_show(returns)}: make it an Iterator of it"
            )
        return True, threaded, _item(returns)
    if inspect.iscoroutinefunction(target):
        if origin in _ASYNC and not declared:
            raise BadDeclaration(
                f"{where} is `async def`, is declared to return {_show(returns)} and yields nothing: write `yield` in it,"
                " or `def` in place of `async def` where it returns another's iterator"
            )
        return (True, False, _item(returns)) if origin in _ASYNC else (False, False, returns)
    if origin in _ASYNC:
        return True, False, _item(returns)
    if origin in _AWAITED:
        return False, False, (typing.get_args(returns) or (Any,))[-1]
    if origin in _SYNC:
        return True, True, _item(returns)
    return False, True, returns


_ITERABLES = (AsyncIterable, typing.get_origin(typing.Iterable[int]))


def _code(function: Callable[..., Any]) -> Any:
    """The function that has the annotations and the kind: inside of decorators and partials, or an object's `__call__`."""
    function = inspect.unwrap(function)
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    plain = inspect.isfunction(function) or inspect.ismethod(function) or inspect.isbuiltin(function)
    return function if plain else type(function).__call__


def _item(annotation: Any) -> Any:
    return (typing.get_args(annotation) or (Any,))[0]


def _members(annotation: Any) -> tuple[Any, ...]:
    """The arms of a union; `Annotated` counts as what it annotates."""
    if hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    arms = typing.get_args(annotation)
    return arms if type(None) in arms else (annotation,)


def _show(annotation: Any) -> str:
    return getattr(annotation, "__qualname__", None) or str(annotation)
