"""What a service says of itself as data: the same bytes in every process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bema.core import describe
from bema.core.errors import BadDeclaration, ProtocolError
from bema.core.instance import EndpointInfo, Instance
from bema.core.naming import check_endpoint
from bema.core.spec import DESCRIBE, Shape
from tests.core.shapes import SHAPES


def test_a_description_says_what_the_spec_says():
    said = describe.describe(SHAPES)
    assert (said.address, said.version, said.doc, said.slots, said.queue) == ("demo.shapes", "1.2", "All shapes.", 4, 8)
    words, total = said.endpoints
    assert words.signature == "words(text: Text, every: int = 1, tags: frozenset[str] = ['a', 'b']) -> stream of str"
    assert (words.shape, words.idempotent, words.doc, words.raises) == (Shape.STREAM, True, "Word by word.", ("Lost",))
    assert words.request == {
        "type": "object",
        "properties": {
            "text": {"$ref": "#/$defs/Text"},
            "every": {"type": "integer", "default": 1},
            "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "default": ["a", "b"]},
        },
        "required": ["text"],
        "additionalProperties": False,
    }
    assert (words.items, words.response) == (None, {"type": "string"})
    assert total.signature == "total(numbers: stream of int) -> int"
    assert (total.items, total.response) == ({"type": "integer"}, {"type": "integer"})
    assert said.definitions["Text"]["required"] == ["text"]
    assert said.dialect == "https://json-schema.org/draft/2020-12/schema"
    assert said.endpoint("total") is total
    assert said.endpoint("other") is None


def test_a_description_survives_its_json_and_what_a_newer_bema_adds():
    said = describe.describe(SHAPES)
    assert describe.decode(describe.encode(said)) == said
    assert describe.decode(b'{"name": "a", "namespace": "b", "new": 1}').endpoints == ()
    for bad in (b"[]", b"{", b'{"name": 3}', b"\xff"):
        with pytest.raises(ProtocolError, match="no description"):
            describe.decode(bad)


PROGRAM = """
import dataclasses, enum, sys
import msgspec, pydantic
from typing import Annotated, Any
from bema import endpoint, service, spec_of
from bema.core import describe
from bema.core.digest import digest_of

class Colour(enum.Enum):
    RED = "red"

class Held(msgspec.Struct):
    tags: frozenset[str] = frozenset(map(str, range(40)))
    colour: Colour = Colour.RED

class Checked(pydantic.BaseModel):
    n: Annotated[int, pydantic.AfterValidator(lambda n: n)] = pydantic.Field(3, gt=1)
    letters: set[str] = {"a", "b", "c", "d"}

@service(name="same", namespace="demo")
class Same:
    @endpoint()
    async def one(self, held: Held, words: frozenset[str] = frozenset(map(str, range(40))), other: Any = object()) -> Checked: ...

spec = spec_of(Same)
sys.stdout.buffer.write(digest_of(spec).encode() + describe.encode(describe.describe(spec)))
"""


def test_every_process_gives_the_same_bytes():
    ran = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert ran[0] == ran[1]
    assert b'"held"' in ran[0]


def test_the_built_in_endpoint_has_a_name_that_nobody_can_give():
    with pytest.raises(BadDeclaration, match="identifier"):
        check_endpoint(DESCRIBE.name)


def test_a_record_alone_tells_names_and_shapes():
    infos = (
        EndpointInfo("length", parameters=("request",), fields=("text", "language"), idempotent=True),
        EndpointInfo("raw"),
        EndpointInfo("total", Shape.COLLECT, parameters=()),
    )
    said = describe.told(Instance(id=1, namespace="demo", component="shapes", endpoints=infos))
    assert [endpoint.signature for endpoint in said.endpoints] == [
        "length(request: Any = ...) -> Any",
        "raw(...) -> Any",
        "total(requests: stream of Any) -> Any",
    ]
    assert said.digest == ""
    assert list(said.endpoints[0].request["properties"]["request"]["properties"]) == ["text", "language"]
