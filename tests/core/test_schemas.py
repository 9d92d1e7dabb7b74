"""JSON Schema of annotations: one set of definitions, whoever makes them, and notes of what cannot be said."""

from __future__ import annotations

import dataclasses
import enum
import types
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest

from bema.core.schemas import schemas_of


class Point(msgspec.Struct):
    x: int
    y: Annotated[int, msgspec.Meta(ge=0)] = 0


@dataclasses.dataclass
class Line:
    start: Point
    end: Point


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Inner(pydantic.BaseModel):
    n: int = pydantic.Field(gt=3, alias="N")


class Outer(pydantic.BaseModel):
    inner: Inner
    names: list[str] = []


class Tree(pydantic.BaseModel):
    children: list[Tree] = []


def test_plain_types_need_no_definitions():
    each, definitions, notes = schemas_of([int, list[str], dict[str, float], Any, None, Literal["a", "b"], bytes])
    assert each == [
        {"type": "integer"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "object", "additionalProperties": {"type": "number"}},
        {},
        {"type": "null"},
        {"enum": ["a", "b"]},
        {"type": "string", "contentEncoding": "base64"},
    ]
    assert (definitions, notes) == ({}, ())


def test_models_of_every_kind_are_defined_once():
    each, definitions, notes = schemas_of([Point, Line, list[Point], Colour, Outer, Inner | None, Tree])
    assert set(definitions) == {"Point", "Line", "Colour", "Outer", "Inner", "Tree"}
    assert each[2] == {"type": "array", "items": {"$ref": "#/$defs/Point"}}
    assert each[4] == {"$ref": "#/$defs/Outer"}
    assert definitions["Line"]["properties"] == {"start": {"$ref": "#/$defs/Point"}, "end": {"$ref": "#/$defs/Point"}}
    assert definitions["Point"]["properties"]["y"] == {"type": "integer", "minimum": 0, "default": 0}
    assert definitions["Outer"]["properties"]["inner"] == {"$ref": "#/$defs/Inner"}
    assert definitions["Tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}
    assert notes == ()


def test_a_pydantic_model_is_said_by_the_names_that_travel():
    _, definitions, _ = schemas_of([Inner])
    assert definitions["Inner"]["properties"]["n"]["exclusiveMinimum"] == 3
    assert definitions["Inner"]["required"] == ["n"]


def test_two_models_of_one_name_are_told_apart():
    def local(kind: type) -> type[pydantic.BaseModel]:
        return pydantic.create_model("Point", value=(kind, ...))

    one, other, again = local(int), local(str), local(int)
    each, definitions, _ = schemas_of([Point, one, other, again])
    names = [schema["$ref"].removeprefix("#/$defs/") for schema in each]
    assert names[0] == "Point"
    assert len(set(names)) == 3, "equal ones are one"
    assert names[1] == names[3]
    assert definitions[names[1]]["properties"]["value"]["type"] == "integer"
    assert definitions[names[2]]["properties"]["value"]["type"] == "string"


class Opaque: ...


class Holds(msgspec.Struct):
    thing: Opaque
    n: int


@pytest.mark.parametrize("strange", [Opaque | types.ModuleType, "not a type", 3])
def test_what_cannot_be_said_takes_anything_with_a_note(strange):
    each, _, notes = schemas_of([int, strange, Point])
    assert [each[0], each[1], each[2]] == [{"type": "integer"}, {}, {"$ref": "#/$defs/Point"}]
    assert len(notes) == 1
    assert "has no JSON Schema" in notes[0]


def test_a_field_that_cannot_be_said_spoils_no_other():
    _, definitions, notes = schemas_of([Holds])
    assert definitions["Holds"]["properties"] == {"thing": {}, "n": {"type": "integer"}}
    assert notes == ("Opaque has no JSON Schema: it is no msgspec, dataclass or Pydantic type",)


class Broken(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    thing: Opaque


def test_a_model_that_cannot_say_its_schema_takes_anything_with_a_note():
    each, _, (note,) = schemas_of([list[Broken]])
    assert each == [{"type": "array", "items": {}}]
    assert note.startswith("Broken has no JSON Schema")
