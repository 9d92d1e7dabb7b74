"""Every cell of the table of what travels, through a real server over a Unix socket."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bema.core.call import Call
from bema.core.errors import BadAnswer, BadDeclaration, Invalid
from bema.core.spec import EndpointSpec, Parameter, Shape
from bema.wire.values import codecs, equal
from tests.runtime.served import Served, serving
from tests.wire.values.cells import CALL, COLUMNS, DECLARATION, EQUAL, PLAIN, Row
from tests.wire.values.matrix import ROWS


def each(rows: Iterable[Row]) -> Any:
    """One test for each row that this Python has."""
    return pytest.mark.parametrize(
        "row", [pytest.param(row, id=f"{row.kind}: {row.shown}") for row in rows if row.values]
    )


def spec(name: str, shape: Shape, declared: Any) -> EndpointSpec:
    incoming = shape.streams_in
    return EndpointSpec(
        name,
        shape,
        () if incoming or name in ("answer", "items") else (Parameter("v", declared),),
        declared if name in ("answer", "items") else Any,
        incoming="items" if incoming else None,
        facts={"requests": declared} if incoming else {},
    )


class Echo:
    """One endpoint for each direction: what arrived is kept here, what is to be answered is put here."""

    def __init__(self, served: Served, declared: Any) -> None:
        self.served = served
        self.arrived: Any = None
        self.answer: Any = None
        self.specs = {
            "argument": spec("argument", Shape.UNARY, declared),
            "answer": spec("answer", Shape.UNARY, declared),
            "item in": spec("collect", Shape.COLLECT, declared),
            "item out": spec("items", Shape.STREAM, declared),
        }
        for direction, handler in (
            ("argument", self.take),
            ("answer", self.give),
            ("item in", self.take_items),
            ("item out", self.give_items),
        ):
            served.handler(self.specs[direction])(handler)

    async def take(self, call: Call) -> None:
        self.arrived = call.arguments["v"]

    async def give(self, call: Call) -> Any:
        return self.answer

    async def take_items(self, call: Call) -> None:
        assert call.requests is not None
        (self.arrived,) = [item async for item in call.requests]

    async def give_items(self, call: Call) -> AsyncIterator[Any]:
        yield self.answer

    async def send(self, caller: str, direction: str, value: Any) -> Any:
        """What arrived of a value; raises what refuses it."""
        named = self.specs[direction]
        known = named if caller == "typed" else None
        client = await self.served.client(named.name, endpoint=known)
        self.answer = value
        if direction == "argument":
            await client.unary({"v": value}, timeout=10)
            return self.arrived
        if direction == "item in":
            await client.unary({}, timeout=10, requests=_one(value))
            return self.arrived
        if direction == "answer":
            return await client.unary({}, timeout=10)
        (item,) = [item async for item in client.stream({}, timeout=10)]
        return item

    async def outcome(self, caller: str, direction: str, value: Any, declared: Any) -> str:
        try:
            arrived = await self.send(caller, direction, value)
        except (Invalid, BadAnswer) as refused:
            assert "$" in refused.message or direction != "argument", refused.message
            return CALL
        if equal.difference(value, arrived) is None:
            return EQUAL
        read = codecs.requests_decoder(declared)(codecs.pack(arrived)) if caller == "address" else arrived
        return PLAIN if equal.difference(value, read) is None else f"changed: {arrived!r}"


CHECKED = [
    (caller, direction) for caller, direction in COLUMNS if caller == "typed" or direction in ("argument", "item in")
]
"""Where a type is known to who sends or to who reads; what a service answers it checks at a glance only."""


async def _one(value: Any) -> AsyncIterator[Any]:
    yield value


@asynccontextmanager
async def echoing(folder: Path, declared: Any) -> AsyncIterator[Echo]:
    async with serving("unix", folder) as served:
        echo = Echo(served, declared)
        await served.start()
        yield echo


@each(ROWS)
def test_a_value_arrives_equal_or_is_refused_and_says_where(row: Row, tmp_path: Path) -> None:
    async def cells() -> tuple[str, ...]:
        found = []
        async with echoing(tmp_path, row.declared) as echo:
            for caller, direction in COLUMNS:
                outcomes = {await echo.outcome(caller, direction, value, row.declared) for value in row.values}
                found.append(_of_row(outcomes))
        return tuple(found)

    try:
        found = asyncio.run(cells())
    except BadDeclaration as refused:
        assert "endpoint t.t." in refused.message
        found = (DECLARATION,) * len(COLUMNS)
    assert found == row.cells


def _of_row(outcomes: set[str]) -> str:
    """Of several values: refused if any is, plain data if any is."""
    for outcome in (*sorted(outcomes - {EQUAL, PLAIN, CALL}), CALL, PLAIN, EQUAL):
        if outcome in outcomes:
            return outcome
    raise AssertionError("the row has no values")


@each(row for row in ROWS if row.wrong)
def test_a_value_that_is_not_of_the_type_is_refused_in_every_direction(row: Row, tmp_path: Path) -> None:
    async def outcomes() -> dict[Any, str]:
        async with echoing(tmp_path, row.declared) as echo:
            return {
                (caller, direction, repr(value)): await echo.outcome(caller, direction, value, row.declared)
                for caller, direction in CHECKED
                for value in row.wrong
            }

    found = asyncio.run(outcomes())
    assert {cell: outcome for cell, outcome in found.items() if outcome != CALL} == {}


@each(row for row in ROWS if row.strategy is not None)
def test_any_value_of_the_type_arrives_equal(row: Row, tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        opened = echoing(tmp_path, row.declared)
        echo = runner.run(opened.__aenter__())

        @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
        @given(row.strategy if row.strategy is not None else st.nothing())
        def holds(value: Any) -> None:
            for direction in ("argument", "answer"):
                assert runner.run(echo.outcome("typed", direction, value, row.declared)) == EQUAL

        try:
            holds()
        finally:
            runner.run(opened.__aexit__(None, None, None))


def test_the_table_has_each_type_once_and_a_reason_for_each_refusal() -> None:
    names = Counter((row.kind, row.shown) for row in ROWS)
    assert [name for name, times in names.items() if times > 1] == []
    assert [row.shown for row in ROWS if row.cells[0] == DECLARATION and not row.why] == []
    assert len(ROWS) >= 60
