"""What the annotations of a service say holds for its callers: unions, generics and constraints, by class and by address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Generic, Literal, TypeVar

import annotated_types as at
import msgspec
import pydantic
import pytest

from bema import endpoint, service
from bema.core.errors import BadAnswer, BadDeclaration, Invalid
from bema.sdk.spec import spec_of
from bema.testing import System

T = TypeVar("T")


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"


Pet = Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]


class Box(msgspec.Struct, Generic[T]):
    item: T


@service(name="shop", namespace="pets")
class Shop:
    @endpoint()
    async def adopt(self, pet: Pet, days: pydantic.PositiveInt = 1) -> Cat | Dog:
        return pet

    @endpoint()
    async def pack(self, box: Box[int]) -> Box[str]:
        return Box(str(box.item))

    @endpoint()
    async def count(self, ages: AsyncIterator[Annotated[int, at.Ge(0)]]) -> int:
        return sum([age async for age in ages])

    @endpoint()
    async def rate(self) -> Annotated[float, at.Le(1)]:
        return 2.0


async def ages(*given: int) -> AsyncIterator[int]:
    for age in given:
        yield age


def test_unions_and_generics_travel_by_class_and_by_address():
    async def story():
        async with System(Shop) as system:
            shop = system.client(Shop)
            for pet in (Cat(lives=3), Dog()):
                assert await shop.adopt(pet) == pet
            assert await shop.pack(Box(3)) == Box("3")
            adopt = system.endpoint("pets.shop.adopt").client()
            assert await adopt(pet=Dog()) == {"kind": "dog"}
            assert await adopt(pet={"kind": "cat", "lives": 1}) == {"kind": "cat", "lives": 1}

    asyncio.run(story())


def test_a_constraint_is_kept_for_parameters_items_and_answers():
    async def story():
        async with System(Shop) as system:
            shop = system.client(Shop)
            adopt = system.endpoint("pets.shop.adopt").client()
            with pytest.raises(Invalid, match=r"Expected `int` >= 1 - at `\$\.days`"):
                await shop.adopt(Cat(), days=0)
            with pytest.raises(Invalid, match=r"at `\$\.days`"):
                await adopt(pet=Cat(), days=-1)
            with pytest.raises(Invalid, match=r"\$\.pet"):
                await adopt(pet={"kind": "cow"})
            with pytest.raises(Invalid, match="an item of the stream that"):
                await shop.count(ages(1, -1))
            with pytest.raises(BadAnswer, match="<= 1"):
                await shop.rate()

    asyncio.run(story())


def test_an_undeclared_key_is_refused_and_named():
    async def story():
        async with System(Shop) as system:
            adopt = system.endpoint("pets.shop.adopt").client()
            with pytest.raises(Invalid, match=r"lies") as caught:
                await adopt(pet={"kind": "cat", "lies": 1})
            assert "Update who reads it" in caught.value.fix

    asyncio.run(story())


def test_what_nothing_tells_apart_is_refused_and_says_where():
    async def story():
        class Twin(msgspec.Struct):
            item: int

        class Other(msgspec.Struct):
            item: int

        @service(name="twins", namespace="pets")
        class Twins:
            @endpoint()
            async def take(self, one: Twin | Other) -> None: ...

        Twins.take.__annotations__["one"] = Twin | Other
        assert spec_of(Twins).endpoints[0].parameters[0].type == Twin | Other
        with pytest.raises(BadDeclaration, match=r"take, parameter 'one'|parameter 'one'"):
            async with System(Twins):
                pass

    asyncio.run(story())
