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

class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"

class Point(NamedTuple):
    x: float
    y: float = ...

class Part(msgspec.Struct, frozen=True):
    name: str
    color: Color = ...
    at: Point | None = ...
    tags: list[str] = ...
    made: datetime.datetime | msgspec.UnsetType = ...

class Leaf(msgspec.Struct, tag_field="type", tag="leaf"):
    value: decimal.Decimal

class Tree(msgspec.Struct, tag_field="type", tag="tree"):
    left_child: Tree | Leaf | None = ...
    weight: int = ...

class Model(msgspec.Struct):
    id: uuid.UUID
    parts: dict[str, Part] = ...

class Options(TypedDict):
    a: int
    b: NotRequired[str]

class Level(enum.IntEnum):
    LOW = 1

class AllShapes(abc.ABC):
    """Every shape.

    And a second "paragraph" with a \\ in it.
    """

    @abc.abstractmethod
    async def length(self, request: Part, unit: Literal["cm", "in"] = ...) -> str:
        """How long."""

    @abc.abstractmethod
    def words(self, text: str, every: int = ...) -> AsyncIterator[str]: ...
    @abc.abstractmethod
    async def total(self, numbers: AsyncIterator[int], start: int = ...) -> int: ...
    @abc.abstractmethod
    def echo(self, trees: AsyncIterator[Tree | Leaf]) -> AsyncIterator[Tree | Leaf]: ...
    @abc.abstractmethod
    async def shout(self, text: str) -> str:
        """Louder.

        Much louder.
        """

    @abc.abstractmethod
    async def model(
        self,
        model: Model,
        options: Options,
        who: int,
        level: Level = ...,
        rest: tuple[int, ...] = ...,
    ) -> Model: ...
    @abc.abstractmethod
    async def list(
        self,
        kinds: builtins.list[Color],
        bare: builtins.list[Any],
        table: dict[Any, Any],
    ) -> set[Color] | None: ...
    @abc.abstractmethod
    async def untyped(self, a: Any, b: Any = ...) -> Any: ...
