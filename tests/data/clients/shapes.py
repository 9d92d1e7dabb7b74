"""One service whose signatures hold every kind of thing that can travel; typed clients are made of it."""

import asyncio
import dataclasses
import datetime
import decimal
import enum
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, TypedDict

import msgspec
import pydantic

from bema import Call, endpoint, service

UserId = NewType("UserId", int)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: float
    y: float = 0.0


class Options(TypedDict):
    a: int
    b: NotRequired[str]


@dataclasses.dataclass(frozen=True)
class Part:
    name: str
    color: Color = Color.RED
    at: Point | None = None
    tags: list[str] = dataclasses.field(default_factory=list)
    made: datetime.datetime = dataclasses.field(default_factory=lambda: datetime.datetime.now(datetime.UTC))


class Tree(msgspec.Struct, tag="tree", rename="camel"):
    left_child: "Tree | Leaf | None" = None
    weight: Annotated[int, msgspec.Meta(ge=0)] = 1


class Leaf(msgspec.Struct, tag="leaf"):
    value: decimal.Decimal


class Model(pydantic.BaseModel):
    id: uuid.UUID
    parts: dict[str, Part] = {}


@service(name="all-shapes", namespace="clients")
class Shapes:
    """Every shape.

    And a second "paragraph" with a \\ in it.
    """

    @endpoint(idempotent=True)
    async def length(self, request: Part, call: Call, unit: Literal["cm", "in"] = "cm") -> str:
        """How long."""
        return f"{len(request.name)} {unit} {request.color.value} {request.made:%Y}"

    @endpoint()
    async def words(self, text: str, every: int = 1) -> AsyncIterator[str]:
        for word in text.split()[::every]:
            yield word

    @endpoint()
    async def total(self, numbers: AsyncIterator[int], start: int = 0) -> int:
        return start + sum([number async for number in numbers])

    @endpoint()
    async def echo(self, trees: AsyncIterator[Tree | Leaf]) -> AsyncIterator[Tree | Leaf]:
        async for tree in trees:
            yield tree

    @endpoint()
    def shout(self, text: str) -> str:
        """Louder.

        Much louder.
        """
        return text.upper()

    @endpoint()
    async def model(
        self, model: Model, options: Options, who: UserId, level: Level = Level.LOW, rest: tuple[int, ...] = (1, 2)
    ) -> Model:
        assert (options, who, level, rest) == ({"a": 1}, 7, Level.LOW, (1, 2))
        return model

    @endpoint()
    async def list(self, kinds: list[Color], bare: list, table: dict) -> set[Color] | None:  # type: ignore[type-arg]
        return set(kinds)

    @endpoint(name="anything")
    async def untyped(self, a, b: Any = 3):  # type: ignore[no-untyped-def]
        return [a, b]


if __name__ == "__main__":
    asyncio.run(Shapes.start())  # type: ignore[attr-defined]
