"""Looking through values for what would not come back equal: one walk per shape of a declared type.

Law: a walk builds paths for what it refuses only; a value of the expected types costs a type test per position.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from bema.wire.values.equal import Unequal, folded, is_folded, is_model

Look = Callable[[Any], None]


class Walk(NamedTuple):
    """Values of exactly the types in `passes` need no look; `look` raises `Unequal` with the path."""

    passes: frozenset[type]
    look: Look


_PLAIN: frozenset[type] = frozenset(
    {str, int, float, bool, bytes, type(None)}
)  # an integer beyond 64 bits is the encoder's to refuse
NOTHING: frozenset[type] = frozenset()


def check(value: Any) -> None:
    """Refuse what would not come back equal from an untyped decoder."""
    kind = type(value)
    if kind is dict:
        if not _PLAIN.issuperset(map(type, value)):
            stranger = next(key for key in value if type(key) not in _PLAIN)
            raise Unequal(f"a key of type {type(stranger).__name__} would not come back equal")
        values(ANYTHING, value)
    elif kind is list:
        items(ANYTHING, value)
    elif kind not in _PLAIN and (kind is not dt.datetime or value.tzinfo is None):
        raise Unequal(
            f"a value of type {kind.__qualname__} would not come back equal; declare the type",
            fix=f"Annotate the endpoint with {kind.__qualname__}, or send a str, int, float, bool, bytes, list or dict.",
        )


def is_of(cls: Any, value: Any) -> bool:
    """Whether it is of the same generic Pydantic class, with other parameters: those are equal where their fields are."""
    mine = getattr(cls, "__pydantic_generic_metadata__", {}).get("origin") or cls
    theirs = getattr(type(value), "__pydantic_generic_metadata__", {}).get("origin") or type(value)
    return mine is theirs


def other_class(value: Any, declared: str) -> Unequal:
    kind = type(value).__qualname__
    return Unequal(
        f"a value of type {kind} would not come back equal where {declared} is declared",
        fix=f"Declare {kind}, or a union that has it; a field of a subclass has no place in its base.",
    )


def model(cls: type, fields: Sequence[tuple[str, Walk]], *, converts: bool) -> Walk:
    """An object of exactly that class, looked into where its fields' types do not say everything."""
    steps = [(name, walk.passes, walk.look) for name, walk in fields]

    def look(value: Any) -> None:
        if type(value) is cls:
            name = ""
            try:
                # one `try` for all fields: only what is refused pays for its path
                for name, passes, look_at in steps:
                    item = getattr(value, name, None)
                    if type(item) not in passes:
                        look_at(item)
            except Unequal as found:
                raise found.under(f".{name}") from None
        # a dictionary in the place of a model is the callee's to make one of
        elif converts and not is_model(value):
            check(value)
        elif not is_of(cls, value):
            raise other_class(value, cls.__qualname__)

    return Walk(NOTHING if fields else frozenset({cls}), look)


def under(step: str, look: Look, value: Any) -> None:
    try:
        look(value)
    except Unequal as found:
        raise found.under(step) from None


def items(walk: Walk, value: Collection[Any]) -> None:
    passes, look = walk
    # one pass in C for the usual case, in which no item needs a look
    if passes.issuperset(map(type, value)):
        return
    index = 0
    try:
        for index, item in enumerate(value):  # noqa: B007 - the step of the path
            if type(item) not in passes:
                look(item)
    except Unequal as found:
        raise found.under(f"[{index}]") from None


def values(walk: Walk, value: dict[Any, Any]) -> None:
    passes, look = walk
    if passes.issuperset(map(type, value.values())):
        return
    key: Any = None
    try:
        for key, item in value.items():  # noqa: B007 - the step of the path
            if type(item) not in passes:
                look(item)
    except Unequal as found:
        raise found.under(f".{key}") from None


def keys(walk: Walk, value: dict[Any, Any]) -> None:
    for key in value:
        if type(key) not in walk.passes:
            walk.look(key)


def all_of(kinds: Any, over: Callable[[Walk, Any], None], walk: Walk | None) -> Walk | None:
    if walk is None:
        return None

    def look(value: Any) -> None:
        if isinstance(value, kinds):
            over(walk, value)
        else:
            check(value)

    return Walk(NOTHING, look)


def both(first: Walk | None, second: Walk | None) -> Walk | None:
    if first is None or second is None:
        return first or second

    def look(value: Any) -> None:
        first.look(value)
        second.look(value)

    return Walk(NOTHING, look)


def at(walks: list[Walk | None]) -> Walk | None:
    if not any(walks):
        return None

    def look(value: Any) -> None:
        if not isinstance(value, list | tuple):
            check(value)
            return
        for index, (item, walk) in enumerate(zip(value, walks, strict=False)):
            if walk and type(item) not in walk.passes:
                under(f"[{index}]", walk.look, item)

    return Walk(NOTHING, look)


def exactly(cls: type, kinds: tuple[type, ...], walk: Walk | None) -> Walk:
    """Of an abstract collection: what is not of the class that it arrives as would change."""

    def look(value: Any) -> None:
        if not isinstance(value, kinds):
            raise Unequal(
                f"a value of type {type(value).__qualname__} would arrive as a {cls.__name__}",
                fix=f"Send a {cls.__name__}, or declare {type(value).__qualname__}.",
            )
        if walk is not None and type(value) not in walk.passes:
            walk.look(value)

    return Walk(frozenset(kinds) if walk is None else walk.passes & frozenset(kinds), look)


def _look_at_fold(value: Any) -> None:
    if is_folded(value):
        raise folded()


def record(names: frozenset[str], required: frozenset[str], walks: list[tuple[str, Walk]]) -> Walk:
    """A dictionary of these keys and no others: what nobody declared would be dropped."""

    def look(value: Any) -> None:
        if not isinstance(value, dict):
            check(value)
            return
        # refused here: at the other end a dropped key could not be told from one that was never sent
        if not names >= value.keys():
            stranger = next(key for key in value if key not in names)
            raise Unequal("a key that the TypedDict does not have would not arrive").under(f".{stranger}")
        if not required <= value.keys():
            raise Unequal(f"the key {min(required - value.keys())!r} is missing")
        for name, (passes, look_at) in walks:
            if name in value and type(value[name]) not in passes:
                under(f".{name}", look_at, value[name])

    return Walk(NOTHING, look)


def one_of(arms: Sequence[tuple[type | None, Walk | None]], *, anything: bool) -> Walk | None:
    """The arm of the value's own class; else one whose class it is an instance of, unless that would lose fields."""
    # no arm has a position that its type does not say in full
    if not any(walk for _, walk in arms):
        return None
    table = [(cls, walk) for cls, walk in arms if cls is not None]
    by_class = dict(table)

    def look(value: Any) -> None:
        kind = type(value)
        # exactly its own class first: an instance of a subclass could lose fields in the arm of its
        # base
        if kind in by_class:
            walk = by_class[kind]
        elif anything:
            walk = ANYTHING
        elif is_model(value):
            raise other_class(value, " | ".join(cls.__qualname__ for cls in by_class))
        else:
            walk = next((walk for cls, walk in table if isinstance(value, cls)), ANYTHING if kind is dict else None)
        if walk and kind not in walk.passes:
            walk.look(value)

    passes: frozenset[type] = frozenset([cls for cls, walk in table if walk is None or cls in walk.passes])
    return Walk(passes, look)


ANYTHING = Walk(_PLAIN, check)
TIME = Walk(NOTHING, _look_at_fold)
