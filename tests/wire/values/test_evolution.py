"""Every cell of the table of models of two ages, through a real server over a Unix socket."""

from __future__ import annotations

import asyncio
import types
from pathlib import Path
from typing import Any

import msgspec
import pydantic
import pytest

from bema.core.call import Call
from bema.core.errors import BadAnswer, Invalid, Unavailable
from bema.core.spec import EndpointSpec, Parameter, Shape
from bema.wire.values import codecs, equal
from tests.runtime.served import serving
from tests.wire.values.evolution import (
    ABSENT,
    CHANGES,
    DROPPED,
    FAMILIES,
    READ,
    REFUSED,
    SIDES,
    SIGNATURES,
    Change,
    Signature,
    struct,
)


def held(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else equal.fields(value)


def an_endpoint(direction: str, declared: Any) -> EndpointSpec:
    if direction == "answer":
        return EndpointSpec("item", Shape.UNARY, (), declared)
    return EndpointSpec("item", Shape.UNARY, (Parameter("item", declared),), Any)


async def outcome(folder: Path, direction: str, sender: Any, reader: Any, value: dict[str, Any]) -> str:
    """What the reader's model makes of a value of the sender's."""
    sent, arrived = sender(**value), []

    async def handler(call: Call) -> Any:
        if direction == "answer":
            return sent
        arrived.append(call.arguments["item"])
        return None

    service, caller = (sender, reader) if direction == "answer" else (reader, sender)
    async with serving("unix", folder) as served:
        served.handler(an_endpoint(direction, service))(handler)
        await served.start()
        client = await served.client("item", endpoint=an_endpoint(direction, caller))
        try:
            answer = await client.unary({} if direction == "answer" else {"item": sent}, timeout=10)
        except (Invalid, BadAnswer) as refused:
            assert any(f"{name}`" in refused.message or f"{name}\n" in refused.message for name in ("x", "y", "$.item"))
            return REFUSED
    got = held(answer if direction == "answer" else arrived[0])
    assert {name: got[name] for name in got if name in value} == {name: value[name] for name in got if name in value}
    return DROPPED if value.keys() - got.keys() else READ


@pytest.mark.parametrize(
    ("change", "family"),
    [pytest.param(change, family, id=f"{family}: {change.says}") for change in CHANGES for family in change.families],
)
def test_a_model_of_another_age_is_read_or_refused_as_the_table_says(
    change: Change, family: str, tmp_path: Path
) -> None:
    old, new = FAMILIES[family](change.old), FAMILIES[family](change.new)

    async def cells() -> tuple[str, ...]:
        found = []
        for side, direction in SIDES:
            old_sends = side.startswith("old caller") == (direction == "argument")
            sender, reader, value = (old, new, change.old_value) if old_sends else (new, old, change.new_value)
            found.append(await outcome(tmp_path, direction, sender, reader, value))
        return tuple(found)

    assert asyncio.run(cells()) == change.cells


def of(names: tuple[str, ...]) -> EndpointSpec:
    parameters = tuple(Parameter(name.rstrip("?"), int, required=not name.endswith("?")) for name in names)
    return EndpointSpec("act", Shape.UNARY, parameters)


@pytest.mark.parametrize("change", SIGNATURES, ids=lambda change: change.says)
def test_an_endpoint_of_another_age_is_called_or_refused_as_the_table_says(change: Signature, tmp_path: Path) -> None:
    async def cell(caller: tuple[str, ...] | None, service: tuple[str, ...] | None) -> str:
        if caller is None:
            return ABSENT
        async with serving("unix", tmp_path) as served:
            served.handler(EndpointSpec("other", Shape.UNARY))(_nothing)
            if service is not None:
                served.handler(of(service))(_nothing)
            await served.start()
            client = await served.client("act", endpoint=of(caller))
            try:
                await client.unary({name.rstrip("?"): 1 for name in caller}, timeout=10)
            except (Invalid, Unavailable):
                return REFUSED
            return READ

    async def cells() -> tuple[str, str]:
        return await cell(change.old, change.new), await cell(change.new, change.old)

    assert asyncio.run(cells()) == change.cells


async def _nothing(call: Call) -> None:
    return None


def test_a_refusal_names_the_field_its_place_and_what_to_do() -> None:
    old, new = (struct(fields) for fields in (CHANGES[0].old, CHANGES[0].new))
    with pytest.raises(Invalid) as caught:
        read_as_request(codecs.pack([new(1, 2)]), types.GenericAlias(list, old))
    assert caught.value.message == ("the value: unknown field `y`: the Item of who reads this has none - at `$[0]`")
    assert "Update who reads it before who sends it" in caught.value.fix


def read_as_request(payload: bytes, declared: Any) -> Any:
    try:
        return codecs.requests_decoder(declared)(payload)
    except codecs.UNFIT as error:
        raise codecs.refusal(error, "the value") from error


@pytest.mark.parametrize("size", [1, 5000], ids=["small", "large"])
@pytest.mark.parametrize("array_like", [False, True], ids=["map", "array"])
@pytest.mark.parametrize("tag", [None, "item"], ids=["plain", "tagged"])
def test_what_is_new_is_refused_however_large_the_rest(size: int, array_like: bool, tag: str | None) -> None:
    """A large payload is not encoded again, and is held against the names of its type."""
    fields: list[Any] = [("text", str), ("rates", list[float], msgspec.field(default_factory=list))]
    old = msgspec.defstruct("Item", fields, array_like=array_like, tag=tag)
    new = msgspec.defstruct("Item", [*fields, ("more", int, 0)], array_like=array_like, tag=tag)
    for declared, wrap in ((list, lambda item: [item]), (dict, lambda item: {"a": item}), (None, lambda item: item)):
        kind: Any = {list: types.GenericAlias(list, old), dict: types.GenericAlias(dict, (str, old)), None: old}[
            declared
        ]
        whole = wrap(old("x" * size, [0.1 * n for n in range(size)]))
        assert read_as_request(codecs.encode(whole, kind), kind) == whole
        with pytest.raises(Invalid, match=r"unknown field `(more|2)`"):
            read_as_request(codecs.pack(wrap(new("x" * size, [0.5], 1))), kind)
        with pytest.raises(Invalid, match="would arrive as"):
            read_as_request(codecs.pack(wrap(old("x" * size, [2**53 + 1]))), kind)


def test_a_large_tree_is_read_whole_too() -> None:
    tree = Tree("x" * 5000, [Tree("y")])
    assert read_as_request(codecs.encode(tree, Tree), Tree) == tree
    with pytest.raises(Invalid, match=r"unknown field `z`.*\$\.below\[0\]"):
        read_as_request(codecs.pack({"text": "x" * 5000, "below": [{"text": "y", "z": 1}]}), Tree)


class Tree(msgspec.Struct):
    text: str
    below: list[Tree] = []


class Renamed(pydantic.BaseModel):
    name: str = pydantic.Field(validation_alias=pydantic.AliasChoices("name", "title"))


class Moved(pydantic.BaseModel):
    name: str

    @pydantic.model_validator(mode="before")
    @classmethod
    def of_old(cls, data: Any) -> Any:
        return {"name": data["title"]} if isinstance(data, dict) and "title" in data else data


@pytest.mark.parametrize("model", [Renamed, Moved])
def test_a_pydantic_model_may_read_an_old_name_by_itself(model: Any) -> None:
    assert read_as_request(codecs.pack({"title": "a"}), model).name == "a"
    assert read_as_request(codecs.encode(model(name="a"), model), model).name == "a"
