"""A client of what runs: its description is made types again, and the client that is written of them calls it."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import AsyncIterator
from typing import Any, Literal

import msgspec
import pytest

from bema import endpoint, service, spec_of
from bema.core import describe
from bema.core.describe import Description, EndpointDescription
from bema.sdk.codegen import client
from bema.sdk.codegen.described import spec_from
from bema.testing import System


class Cat(msgspec.Struct, tag="cat"):
    name: str
    lives: int = 9


class Dog(msgspec.Struct, tag="dog"):
    name: str
    tricks: list[str] = []


class Basket(msgspec.Struct, rename="camel"):
    held_by: str
    pets: list[Cat | Dog] = []
    by_number: dict[int, str] = {}


@service(name="pets", namespace="demo", version="2")
class Pets:
    """Cats and dogs."""

    @endpoint(idempotent=True)
    async def oldest(self, basket: Basket, among: Literal["cats", "dogs"] = "cats") -> Cat | Dog | None:
        """The first of its kind."""
        kind = Cat if among == "cats" else Dog
        return next((pet for pet in basket.pets if isinstance(pet, kind)), None)

    @endpoint()
    async def names(self, basket: Basket) -> AsyncIterator[str]:
        for pet in basket.pets:
            yield f"{basket.held_by} {pet.name} {sorted(basket.by_number)}"

    @endpoint()
    async def total(self, lives: AsyncIterator[int], start: int = 0) -> int:
        return start + sum([each async for each in lives])


def text_of(cls: type) -> str:
    return client.module(spec_from(describe.decode(describe.encode(describe.describe(spec_of(cls))))))


@pytest.fixture
def theirs(monkeypatch):
    made = types.ModuleType("made_of_a_description")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    exec(text_of(Pets), made.__dict__)
    return made


def test_the_types_of_a_description_stand_in_the_client():
    made = text_of(Pets)
    assert 'class Cat(msgspec.Struct, tag_field="type", tag="cat"):\n    name: str\n    lives: int = 9' in made
    assert "    heldBy: str\n" in made
    assert '        among: Literal["cats", "dogs"] = "cats",\n    ) -> Cat | Dog | None:' in made
    assert "def names(self, basket: Basket) -> AsyncIterator[str]: ..." in made
    assert "async def total(self, lives: AsyncIterator[int], start: int = 0) -> int: ..." in made
    assert '"""The first of its kind."""' in made
    assert text_of(Pets) == made


def test_such_a_client_calls_the_service(theirs):
    async def story() -> None:
        async with System(Pets) as system:
            pets: Any = system.client(theirs.Pets)
            cat, dog = theirs.Cat(name="Tom"), theirs.Dog(name="Rex", tricks=["sit"])
            basket = theirs.Basket(heldBy="ann", pets=[dog, cat], byNumber={3: "x", 1: "y"})
            assert await pets.oldest(basket) == cat
            assert await pets.oldest(basket, among="dogs") == dog
            assert [name async for name in pets.names(basket)] == ["ann Rex [1, 3]", "ann Tom [1, 3]"]

            async def lives() -> AsyncIterator[int]:
                yield 9
                yield 1

            assert await pets.total(lives(), start=5) == 15

    asyncio.run(story())


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({}, Any),
        ("strange", Any),
        ({"type": "string"}, str),
        ({"type": ["string", "null"]}, str | None),
        ({"const": "a"}, Literal["a"]),
        ({"enum": [1.5]}, Any),
        ({"allOf": [{"type": "integer"}]}, int),
        ({"type": "string", "contentEncoding": "base64"}, bytes),
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, set[int]),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {}], "minItems": 2, "maxItems": 2}, tuple[int, Any]),
        ({"type": "array", "prefixItems": [{"type": "integer"}], "minItems": 0}, list[Any]),
        ({"type": "object"}, dict[Any, Any]),
        ({"$ref": "#/$defs/Missing"}, Any),
        ({"$ref": "#/$defs/Loop"}, Any),
    ],
)
def test_a_schema_is_the_type_of_its_values(schema, kind):
    said = Description(
        name="a",
        namespace="b",
        endpoints=(EndpointDescription(name="e", response=schema),),
        definitions={"Loop": {"$ref": "#/$defs/Loop"}},
    )
    assert spec_from(said).endpoints[0].returns == kind


def test_a_model_that_holds_itself_and_names_that_python_has_not():
    node = {
        "type": "object",
        "properties": {
            "class": {"type": "string"},
            "2nd": {"type": "integer", "default": 2},
            "next": {"$ref": "#/$defs/a.B[int]"},
        },
        "required": ["class"],
    }
    said = Description(
        name="a",
        namespace="b",
        endpoints=(EndpointDescription(name="e", response={"$ref": "#/$defs/a.B[int]"}),),
        definitions={"a.B[int]": node},
    )
    made = spec_from(said).endpoints[0].returns
    assert [(f.name, f.encode_name, f.type) for f in msgspec.structs.fields(made)] == [
        ("class_", "class", str),
        ("field_2nd", "2nd", int),
        ("next", "next", Any),
    ]
    compile(client.module(spec_from(said)), "made.py", "exec")
