"""Whether a value arrived as it was sent, and where not.

Law: a change has a path. What is compared are fields and items; the rest is compared by its own `==`, and one NaN equals
another.
"""

from __future__ import annotations

import datetime as dt
import reprlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from bema.core.errors import Invalid

_show = reprlib.Repr()
# a sentence stays a line, whatever the value
_show.maxother = _show.maxstring = 60

show = _show.repr

_ITEMS = (list, tuple, set, frozenset)


class Unequal(Invalid):
    """A value that would not come back equal. Its path grows on the way up; `within` is the model it begins at, where it
    does not begin at the value that was to be sent."""

    def __init__(self, says: str, *, fix: str | None = None, path: str = "$", within: Any = None) -> None:
        super().__init__(f"{path}: {says}", fix=fix, path=path)
        self.says = says
        self.path = path
        self.within = within

    def under(self, step: str, within: Any = None) -> Unequal:
        return Unequal(self.says, fix=self.fix, path=f"${step}{self.path[1:]}", within=within)


def is_model(value: Any) -> bool:
    """Whether an annotation can rebuild it from its fields: a msgspec, dataclass or Pydantic object."""
    kind = type(value)
    return (
        isinstance(value, msgspec.Struct)
        or hasattr(kind, "__dataclass_fields__")
        or hasattr(kind, "__pydantic_fields__")
    )


def fields(value: Any) -> dict[str, Any]:
    """What a model holds by name; of a Pydantic model its extras and private attributes too."""
    kind = type(value)
    if isinstance(value, msgspec.Struct) or hasattr(kind, "__dataclass_fields__"):
        names = getattr(kind, "__struct_fields__" if isinstance(value, msgspec.Struct) else "__dataclass_fields__")
        # a field with `init=False` may not be set yet
        return {name: getattr(value, name) for name in names if hasattr(value, name)}
    own = {name: item for name, item in vars(value).items() if name in kind.__pydantic_fields__}
    return own | (value.__pydantic_extra__ or {}) | (value.__pydantic_private__ or {})


def parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value is made of, each with the step of the path that leads there."""
    if is_model(value):
        yield from ((f".{name}", item) for name, item in fields(value).items())
    elif isinstance(value, dict):
        yield from ((f".{key}", item) for key, item in value.items())
    elif isinstance(value, _ITEMS):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))


def find(value: Any, wanted: Callable[[Any], bool]) -> str | None:
    """The path of the first part, or of the value itself, that is wanted."""
    if wanted(value):
        return "$"
    for step, part in parts(value):
        if (found := find(part, wanted)) is not None:
            return f"${step}{found[1:]}"
    return None


def too_large(value: Any) -> Unequal | None:
    """The first integer in it that msgpack has no place for."""
    path = find(value, lambda part: type(part) is int and not -(2**63) <= part < 2**64)
    return None if path is None else Unequal("an integer does not fit into the 64 bits of a msgpack integer", path=path)


def is_folded(value: Any) -> bool:
    """Whether it says which of two equal times it is, by what does not travel."""
    # an aware time travels with its offset, which tells the two apart
    return isinstance(value, dt.datetime | dt.time) and bool(value.fold) and value.tzinfo is None


def folded(path: str = "$") -> Unequal:
    return Unequal(
        "a time without zone would not come back equal: its fold does not travel",
        fix="Send an aware datetime.",
        path=path,
    )


def difference(sent: Any, arrived: Any, *, converts: bool = False) -> Unequal | None:
    """The first difference; None where there is none. `converts` lets a dictionary become a model, a list its tuple."""
    # the callee made something else of it, on purpose
    if converts and isinstance(sent, dict | list) and not isinstance(arrived, type(sent)):
        return None
    if is_folded(sent):
        return folded()
    if is_model(sent) and type(sent) is type(arrived):
        return _by_name(fields(sent), fields(arrived), converts=converts)
    if isinstance(sent, dict) and isinstance(arrived, dict):
        return _by_name(sent, arrived, converts=converts)
    if (isinstance(sent, list) and isinstance(arrived, list)) or (
        isinstance(sent, tuple) and isinstance(arrived, tuple)
    ):
        return _by_name(dict(enumerate(sent)), dict(enumerate(arrived)), "[{}]", converts=converts)
    # NaN is the one value that is not equal to itself
    if sent == arrived or (sent != sent and arrived != arrived):
        return None
    by_identity: Any = object.__eq__
    if type(sent) is type(arrived) and type(sent).__eq__ is by_identity:
        return None  # made anew at both ends, and never equal: a lock, a marker
    return _changed(sent, arrived)


def _by_name(sent: dict[Any, Any], arrived: dict[Any, Any], step: str = ".{}", *, converts: bool) -> Unequal | None:
    # in the order in which they were sent: the first difference is the one to tell
    for key in {**sent, **arrived}:
        if key not in arrived:
            return Unequal(f"{_show.repr(sent[key])} would not arrive").under(step.format(key))
        if key not in sent:
            return Unequal(f"{_show.repr(arrived[key])} would arrive and was not sent").under(step.format(key))
        if found := difference(sent[key], arrived[key], converts=converts):
            return found.under(step.format(key))
    return None


def _changed(sent: Any, arrived: Any) -> Unequal:
    return Unequal(f"{_show.repr(sent)} would not come back equal: it would arrive as {_show.repr(arrived)}")
