"""Steps: what a durable call does through `call.step`: a function, how it is called, and how its result is recorded.

Law: a plain function runs in a thread, as a plain endpoint does: one that blocks must not hold up the calls of others, nor the word by
which its process says that it lives.
"""

from __future__ import annotations

import functools
import inspect
import typing
import weakref
from collections.abc import Callable
from types import CoroutineType
from typing import Any, NamedTuple

from bema.core.errors import BadDeclaration
from bema.runtime.threads import in_thread
from bema.wire.values import codecs


class Step(NamedTuple):
    """The function of a step, without its arguments."""

    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    blocks: bool  # it is a plain function


# made once: a step is mostly a function of a module, and its types take far longer to look at than its result to encode
_made: weakref.WeakKeyDictionary[Callable[..., Any], Step] = weakref.WeakKeyDictionary()


def step_of(function: Callable[..., Any]) -> Step:
    """What is known of a function before it is called."""
    try:
        if (known := _made.get(function)) is not None:
            return known
    except TypeError:  # it has no hash, or cannot be referred to weakly
        return _look_at(function)
    made = _look_at(function)
    # a bound method is made anew at each look, and would be gone at once
    if not inspect.ismethod(function):
        _made[function] = made
    return made


def _look_at(function: Callable[..., Any]) -> Step:
    target = function
    while hasattr(target, "func"):  # functools.partial
        target = target.func
    name = getattr(target, "__qualname__", type(target).__qualname__).rpartition("<locals>.")[2]
    declared = _returns(target)
    try:
        encode, decode = _codec(declared)
    except TypeError:  # a type without a hash
        encode, decode = codecs.encoder(declared), codecs.decoder(declared)
    return Step(name, encode, decode, inspect.isroutine(target) and not inspect.iscoroutinefunction(target))


@functools.lru_cache(maxsize=256)
def _codec(declared: Any) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    return codecs.encoder(declared), codecs.decoder(declared)


def _returns(function: Callable[..., Any]) -> Any:
    """The declared type of a step's result; `Any` where there is none."""
    if "return" not in getattr(function, "__annotations__", ()):
        return Any
    try:
        declared = typing.get_type_hints(function, include_extras=True).get("return", Any)
        codecs.decoder(declared)
    except (NameError, AttributeError, TypeError, SyntaxError, BadDeclaration):
        return Any
    return declared


async def run_step(step: Step, function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Its result; raises what the function raises."""
    if not step.blocks:
        value = function(*arguments, **named)
        # what an `async def` gives is known without a look
        return await value if type(value) is CoroutineType or inspect.isawaitable(value) else value
    value = await in_thread(functools.partial(function, *arguments, **named))
    return await value if inspect.isawaitable(value) else value
