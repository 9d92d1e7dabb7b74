"""The service at clients.all-shapes, for its callers: `runtime.client(AllShapes)` calls it.

Made by `bema client gen`; made again of the same service, it is the same.
"""

from __future__ import annotations

import abc
import builtins
import datetime
import decimal
import enum
import uuid
from collections.abc import AsyncIterator
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import msgspec
from bema import endpoint, service


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(NamedTuple):
    x: float
    y: float = 0.0


class Part(msgspec.Struct, frozen=True):
    name: str
    color: Color = Color.RED
    at: Point | None = None
    tags: list[str] = msgspec.field(default_factory=list)
    made: datetime.datetime | msgspec.UnsetType = msgspec.UNSET


class Leaf(msgspec.Struct, tag_field="type", tag="leaf"):
    value: decimal.Decimal


class Tree(msgspec.Struct, tag_field="type", tag="tree"):
    left_child: Tree | Leaf | None = msgspec.field(default=None, name="leftChild")
    weight: int = 1


class Model(msgspec.Struct):
    id: uuid.UUID
    parts: dict[str, Part] = msgspec.field(default_factory=dict)


class Options(TypedDict):
    a: int
    b: NotRequired[str]


class Level(enum.IntEnum):
    LOW = 1


@service(name="all-shapes", namespace="clients", abstract=True)
class AllShapes(abc.ABC):
    """Every shape.

    And a second "paragraph" with a \\ in it.
    """

    @endpoint(idempotent=True)
    @abc.abstractmethod
    async def length(self, request: Part, unit: Literal["cm", "in"] = "cm") -> str:
        """How long."""

    @endpoint()
    @abc.abstractmethod
    def words(self, text: str, every: int = 1) -> AsyncIterator[str]: ...

    @endpoint()
    @abc.abstractmethod
    async def total(self, numbers: AsyncIterator[int], start: int = 0) -> int: ...

    @endpoint()
    @abc.abstractmethod
    def echo(self, trees: AsyncIterator[Tree | Leaf]) -> AsyncIterator[Tree | Leaf]: ...

    @endpoint()
    @abc.abstractmethod
    async def shout(self, text: str) -> str:
        """Louder.

        Much louder.
        """

    @endpoint()
    @abc.abstractmethod
    async def model(
        self,
        model: Model,
        options: Options,
        who: int,
        level: Level = ...,
        rest: tuple[int, ...] = ...,
    ) -> Model: ...

    @endpoint()
    @abc.abstractmethod
    async def list(
        self,
        kinds: builtins.list[Color],
        bare: builtins.list[Any],
        table: dict[Any, Any],
    ) -> set[Color] | None: ...

    @endpoint(name="anything")
    @abc.abstractmethod
    async def untyped(self, a: Any, b: Any = 3) -> Any: ...
