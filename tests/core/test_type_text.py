"""Annotations as text, for people and for comparing."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict

import msgspec
import pydantic
import pytest

from bema.core.type_text import text, value, whole


class Point(msgspec.Struct):
    x: int


UserId = NewType("UserId", int)


@pytest.mark.parametrize(
    ("annotation", "shown"),
    [
        (int, "int"),
        (None, "None"),
        (Any, "Any"),
        (Point, "Point"),
        (list[Point], "list[Point]"),
        (dict[str, int | None], "dict[str, int | None]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Annotated[int, msgspec.Meta(gt=1)], "int"),
        (Literal["a", 1], "Literal['a', 1]"),
        (AsyncIterator[str], "AsyncIterator[str]"),
        (Callable[[int], str], "Callable[[int], str]"),
        (UserId, "UserId"),
        ("Later", "Later"),
    ],
)
def test_an_annotation_is_shown_as_it_is_written(annotation, shown):
    assert text(annotation) == shown


def struct(**fields: Any) -> Any:
    return msgspec.defstruct("Model", list(fields.items()))


def model(**fields: Any) -> Any:
    return pydantic.create_model("Model", **fields)


def made(**fields: Any) -> Any:
    return dataclasses.make_dataclass("Model", list(fields.items()))


def enumeration(**members: Any) -> Any:
    return enum.Enum("Model", members)


def typed(**fields: Any) -> Any:
    make: Any = TypedDict
    return make("Model", fields)


def named(**fields: Any) -> Any:
    make: Any = NamedTuple
    return make("Model", list(fields.items()))


Bounded = Annotated[int, msgspec.Meta(gt=1)]


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (struct(x=int), struct(x=int), struct(x=str)),
        (struct(x=int), struct(x=int), struct(y=int)),
        (struct(x=struct(y=int)), struct(x=struct(y=int)), struct(x=struct(y=float))),
        (struct(x=Bounded), struct(x=Bounded), struct(x=int)),
        (made(x=int), made(x=int), made(x=int, y=int)),
        (enumeration(A=1), enumeration(A=1), enumeration(A=2)),
        (typed(x=int), typed(x=int), typed(x=str)),
        (named(x=int), named(x=int), named(x=str)),
        (model(x=(int, ...)), model(x=(int, ...)), model(x=(int, 3))),
        (
            model(x=(int, pydantic.Field(gt=3))),
            model(x=(int, pydantic.Field(gt=3))),
            model(x=(int, pydantic.Field(gt=4))),
        ),
        (list[struct(x=int)], list[struct(x=int)], list[struct(x=bool)]),  # type: ignore[misc]
    ],
)
def test_the_whole_text_is_the_same_exactly_where_the_same_is_taken(one, same, other):
    assert whole([one]) == whole([same])
    assert whole([one]) != whole([other])


class Node(msgspec.Struct):
    children: list[Node] = []


def test_a_model_that_holds_itself_is_said_once():
    assert whole([Node, Node]).count("children") == 1


def test_a_class_that_cannot_be_read_is_no_obstacle():
    class Lost:
        __annotations__ = {"x": "Nowhere"}

    broken = dataclasses.dataclass(Lost)
    assert "Lost: unreadable: NameError" in whole([broken])


def test_values_hold_no_address_and_no_order_of_a_set():
    class Thing:
        def __init__(self) -> None:
            self.size = 3

    assert value({"b", "a"}) == "{'a', 'b'}"
    assert value(lambda: 1).endswith("<lambda>")
    assert value(Thing()) == "Thing(size=3)"
    assert value([None, True, b"x", 1.5]) == "[None, True, b'x', 1.5]"
    assert "0x" not in value(object())
