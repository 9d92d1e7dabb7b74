"""What is asked is read whole or refused, however its bytes begin."""

import dataclasses
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.spec import Parameter
from bema.wire.values import codecs, loss

WIDE = [f"field{n}" for n in range(20)]


class Plain(msgspec.Struct):
    text: str
    n: int


class Optional(msgspec.Struct):
    text: str
    n: int = 0


class Tagged(msgspec.Struct, tag=True):
    text: str
    n: int


class Renamed(msgspec.Struct, rename="upper"):
    text: str
    n: int


class Rounding(msgspec.Struct):
    text: str
    n: float


class Outer(msgspec.Struct):
    text: str
    n: Plain


@dataclasses.dataclass
class Record:
    text: str
    n: int


class Model(pydantic.BaseModel):
    text: str
    n: int


class Aliased(pydantic.BaseModel):
    text: str = pydantic.Field(alias="TEXT")
    n: int


class Inherited(Model):
    m: int = 0


Wide = msgspec.defstruct("Wide", [(name, int) for name in WIDE])

MODELS = [Plain, Optional, Tagged, Renamed, Rounding, Outer, Record, Model, Aliased, Inherited]
KEYS = ["text", "n", "m", "TEXT", "N", "type"]
MADE_OF = {
    Tagged: {"text", "n", "type"},
    Renamed: {"TEXT", "N"},
    Aliased: {"text", "TEXT", "n"},
    Inherited: {"text", "n", "m"},
}
VALUES: dict[str, Any] = {"text": "tea", "TEXT": "tea", "n": 1, "N": 1, "m": 1, "type": "Tagged"}


def written(keys: list[str], **other: Any) -> bytes:
    """A map of these keys in this order, some of them twice, as no dictionary could hold them."""
    items = [msgspec.msgpack.encode(key) + msgspec.msgpack.encode(other.get(key, VALUES.get(key, 1))) for key in keys]
    head = bytes((0x80 | len(keys),)) if len(keys) < 16 else b"\xde" + len(keys).to_bytes(2, "big")
    return head + b"".join(items)


def asked(payload: bytes) -> bytes:
    return b"\x81" + msgspec.msgpack.encode("request") + payload


@pytest.mark.parametrize("model", MODELS)
@given(keys=st.lists(st.sampled_from(KEYS), max_size=6))
def test_what_is_read_named_no_stranger(model, keys):
    payload = written(keys, n={"text": "tea", "n": 1} if model is Outer else 1)
    for read, sent in (
        (codecs.requests_decoder(model), payload),
        (codecs.arguments_decoder((Parameter("request", model),)), asked(payload)),
    ):
        try:
            read(sent)
        except codecs.UNFIT:
            continue
        assert set(keys) <= MADE_OF.get(model, {"text", "n"})


@pytest.mark.parametrize("model", [Plain, Record, Model])
def test_the_beginning_tells_where_all_fields_are_required(model):
    assert loss.head_of_whole(msgspec.inspect.type_info(model)) == b"\x82"


@pytest.mark.parametrize("model", [Optional, Tagged, Rounding, Outer, Aliased, Inherited])
def test_the_beginning_tells_nothing_of_other_models(model):
    assert loss.head_of_whole(msgspec.inspect.type_info(model)) is None


def test_a_wide_model_is_read_whole_or_refused():
    read = codecs.requests_decoder(Wide)
    assert read(written(WIDE)) == Wide(*[1] * 20)
    with pytest.raises(loss.Loss, match="unknown field `stranger`"):
        read(written([*WIDE, "stranger"]))


def test_an_integer_that_a_float_rounds_is_refused_in_a_model_of_the_right_size():
    with pytest.raises(loss.Loss, match="would arrive as"):
        codecs.requests_decoder(Rounding)(written(["text", "n"], n=2**53 + 1))
