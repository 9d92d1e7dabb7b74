"""Models of two ages: what becomes of a value where one side is older than the other.

`test_evolution.py` sends every value of it through a real server; `docs/generate.py` makes a part of `docs/values.md` of it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, NotRequired, TypedDict

import msgspec
import pydantic

READ, DROPPED, REFUSED, ABSENT = "read", "left out", "refused", "-"

SIDES = (
    ("old caller, new service", "argument"),
    ("new caller, old service", "argument"),
    ("old caller, new service", "answer"),
    ("new caller, old service", "answer"),
)


class Fields(NamedTuple):
    """What a model is made of: by name its type, with a default where it has one."""

    required: dict[str, Any]
    optional: Mapping[str, tuple[Any, Any]] = MappingProxyType({})
    unknown: str = ""  # what it does with unknown fields, where it says so


def struct(fields: Fields) -> Any:
    made: list[Any] = [
        *fields.required.items(),
        *((name, kind, default) for name, (kind, default) in fields.optional.items()),
    ]
    ignores = {"__unknown_fields__": "ignore"} if fields.unknown == "ignore" else {}
    return msgspec.defstruct("Item", made, namespace=ignores, forbid_unknown_fields=fields.unknown == "forbid")


def dataclass(fields: Fields) -> Any:
    made: list[Any] = [*fields.required.items()]
    made += [(name, kind, dataclasses.field(default=default)) for name, (kind, default) in fields.optional.items()]
    ignores = {"__unknown_fields__": "ignore"} if fields.unknown == "ignore" else {}
    return dataclasses.make_dataclass("Item", made, namespace=ignores)


def model(fields: Fields) -> Any:
    made: dict[str, Any] = {**{name: (kind, ...) for name, kind in fields.required.items()}, **fields.optional}
    config: Any = {"extra": fields.unknown} if fields.unknown else {}
    return pydantic.create_model("Item", __config__=config, **made)


def record(fields: Fields) -> Any:
    make: Any = TypedDict
    optional: Any = NotRequired
    return make("Item", {**fields.required, **{name: optional[kind] for name, (kind, _) in fields.optional.items()}})


FAMILIES: dict[str, Callable[[Fields], Any]] = {
    "Struct": struct,
    "dataclass": dataclass,
    "Pydantic": model,
    "TypedDict": record,
}


class Change(NamedTuple):
    says: str
    old: Fields
    new: Fields
    cells: tuple[str, str, str, str]  # as in `SIDES`
    old_value: dict[str, Any]
    new_value: dict[str, Any]
    families: tuple[str, ...] = tuple(FAMILIES)


X = Fields({"x": int})
WITH_DEFAULT = Fields({"x": int}, {"y": (int, 0)})
WITHOUT_DEFAULT = Fields({"x": int, "y": int})
WIDE, NARROW = Fields({"x": int | str}), Fields({"x": int})
HAS_X, HAS_BOTH = {"x": 1}, {"x": 1, "y": 2}
OPEN = ("Struct", "dataclass", "Pydantic")

CHANGES = (
    Change("a field is added, with a default", X, WITH_DEFAULT, (READ, REFUSED, DROPPED, READ), HAS_X, HAS_BOTH),
    Change(
        "a field is added, without a default", X, WITHOUT_DEFAULT, (REFUSED, REFUSED, DROPPED, REFUSED), HAS_X, HAS_BOTH
    ),
    Change("a field with a default is removed", WITH_DEFAULT, X, (REFUSED, READ, READ, DROPPED), HAS_BOTH, HAS_X),
    Change(
        "a field without a default is removed",
        WITHOUT_DEFAULT,
        X,
        (REFUSED, REFUSED, REFUSED, DROPPED),
        HAS_BOTH,
        HAS_X,
    ),
    Change(
        "a field is renamed",
        Fields({"x": int}),
        Fields({"y": int}),
        (REFUSED, REFUSED, REFUSED, REFUSED),
        {"x": 1},
        {"y": 1},
    ),
    Change(
        "a type is widened (`int` to `int | str`), and the new value used",
        NARROW,
        WIDE,
        (READ, REFUSED, REFUSED, READ),
        {"x": 1},
        {"x": "a"},
    ),
    Change(
        "a type is narrowed (`int | str` to `int`), and the old value used",
        WIDE,
        NARROW,
        (REFUSED, READ, READ, REFUSED),
        {"x": "a"},
        {"x": 1},
    ),
    Change(
        "a field is added, and the model ignores unknown fields",
        X._replace(unknown="ignore"),
        WITH_DEFAULT._replace(unknown="ignore"),
        (READ, DROPPED, DROPPED, READ),
        HAS_X,
        HAS_BOTH,
        OPEN,
    ),
    Change(
        "a field is added, and the model forbids unknown fields",
        X._replace(unknown="forbid"),
        WITH_DEFAULT._replace(unknown="forbid"),
        (READ, REFUSED, REFUSED, READ),
        HAS_X,
        HAS_BOTH,
        ("Struct", "Pydantic"),
    ),
)


class Signature(NamedTuple):
    """A change of an endpoint: its parameters by name, those that end in `?` with a default; None where it is not there."""

    says: str
    old: tuple[str, ...] | None
    new: tuple[str, ...] | None
    cells: tuple[str, str]  # old caller, new service; new caller, old service


SIGNATURES = (
    Signature("a parameter is added, with a default", ("x",), ("x", "y?"), (READ, REFUSED)),
    Signature("a parameter is added, without a default", ("x",), ("x", "y"), (REFUSED, REFUSED)),
    Signature("a parameter with a default is removed", ("x", "y?"), ("x",), (REFUSED, READ)),
    Signature("a parameter is renamed", ("x",), ("y",), (REFUSED, REFUSED)),
    Signature("an endpoint is added", None, ("x",), (ABSENT, REFUSED)),
    Signature("an endpoint is removed", ("x",), None, (REFUSED, ABSENT)),
)
