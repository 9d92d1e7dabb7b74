"""Calls every endpoint through the generated client; the types are checked, and the answers."""

import asyncio
import decimal
import uuid
from collections.abc import AsyncIterator

import bema
from expected import AllShapes, Color, Leaf, Model, Part, Point, Tree


async def numbers() -> AsyncIterator[int]:
    for number in (1, 2, 3):
        yield number


async def trees() -> AsyncIterator[Tree | Leaf]:
    yield Tree(left_child=Leaf(decimal.Decimal("1.5")))
    yield Leaf(decimal.Decimal(2))


async def main() -> None:
    async with bema.connect() as runtime:
        shapes = runtime.client(AllShapes, wait=10)
        length: str = await shapes.length(Part("four", at=Point(1.0)), unit="in")
        assert length.startswith("4 in red 2"), length
        words: list[str] = [word async for word in shapes.words("to be or not", every=2)]
        assert words == ["to", "or"]
        assert await shapes.total(numbers(), start=10) == 16
        back = [tree async for tree in shapes.echo(trees())]
        assert back == [Tree(left_child=Leaf(decimal.Decimal("1.5"))), Leaf(decimal.Decimal(2))]
        assert await shapes.shout("quietly") == "QUIETLY"
        model = await shapes.model(Model(uuid.UUID(int=1), {"a": Part("b")}), {"a": 1}, 7)
        assert (model.id, model.parts["a"].name, model.parts["a"].color) == (uuid.UUID(int=1), "b", Color.RED)
        assert await shapes.list([Color.RED], [1], {"a": 1}) == {Color.RED}
        assert await shapes.untyped("a") == ["a", 3]
        print("every endpoint answered")


asyncio.run(main())
