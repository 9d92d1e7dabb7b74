"""Values travel equal, or are refused with their path."""

import dataclasses
import datetime as dt
import decimal
import enum
import math
import uuid
from typing import Any, NamedTuple, Optional

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.errors import BadDeclaration, Invalid
from bema.core.spec import Parameter
from bema.wire import codecs, strict


class Point(msgspec.Struct):
    x: int
    tags: tuple[str, ...] = ()
    rest: dict[str, Any] = {}
    inner: Optional["Point"] = None


@dataclasses.dataclass
class Row:
    key: uuid.UUID
    amount: decimal.Decimal
    seen: set[int]


class Colour(enum.Enum):
    RED = "red"


class Pair(NamedTuple):
    left: int
    right: tuple[int, int]


class Model(pydantic.BaseModel):
    when: dt.datetime
    blob: bytes
    ids: set[uuid.UUID]
    price: decimal.Decimal
    pair: tuple[int, str]
    inner: Optional["Model"] = None


NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678901)
MODEL = Model(when=NOW, blob=b"\xff\x00", ids={uuid.UUID(int=7)}, price=decimal.Decimal("1.20"), pair=(1, "a"))

TYPED = [
    (Point(1, ("a", "b"), {"k": [1, None]}, Point(2)), Point),
    (Row(uuid.UUID(int=1), decimal.Decimal("0.10"), {1, 2}), Row),
    (MODEL, Model),
    (MODEL.model_copy(update={"inner": MODEL}), Model),
    ([MODEL, None], list[Model | None]),
    (Pair(1, (2, 3)), Pair),
    (Colour.RED, Colour),
    (b"\x00\xff", bytes),
    (NOW, dt.datetime),
    (NOW.replace(tzinfo=dt.timezone(dt.timedelta(hours=2))), dt.datetime),
    (NOW.date(), dt.date),
    (dt.timedelta(days=1, microseconds=3), dt.timedelta),
    ({1, 2}, set[int]),
    (frozenset({"a"}), frozenset[str]),
    ((1, "a"), tuple[int, str]),
    (decimal.Decimal("1e-30"), decimal.Decimal),
    (uuid.UUID(int=3), uuid.UUID),
    (math.inf, float),
    (2**64 - 1, int),
    (-(2**63), int),
    ({1: "a"}, dict[int, str]),
    (None, None),
    (None, Point | None),
    ({"x": (1, 2)}, dict[str, tuple[int, int]]),
]


@pytest.mark.parametrize(("value", "declared"), TYPED, ids=[str(d) for _, d in TYPED])
def test_a_declared_type_comes_back_equal(value, declared):
    got = codecs.decode(codecs.encode(value, declared), declared)
    assert got == value
    assert type(got) is type(value)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(plain)
def test_plain_values_come_back_equal_without_a_type(value):
    assert codecs.decode(codecs.encode(value)) == value


def test_nan_survives_and_an_aware_datetime_needs_no_type():
    assert math.isnan(codecs.decode(codecs.encode(math.nan)))
    aware = NOW.replace(tzinfo=dt.UTC)
    assert codecs.decode(codecs.encode([aware])) == [aware]


UNTYPED = [
    ((1, 2), "$"),
    ({1, 2}, "$"),
    ({"a": [0, (1,)]}, "$.a[1]"),
    ({"a": {"b": NOW}}, "$.a.b"),
    ([uuid.UUID(int=1)], "$[0]"),
    ([decimal.Decimal(1)], "$[0]"),
    (2**64, "$"),
    ([[-(2**63) - 1]], "$[0][0]"),
    (Point(1), "$"),
    (MODEL, "$"),
    (Colour.RED, "$"),
    (bytearray(b"x"), "$"),
    ({(1, 2): 3}, "$"),
    (object(), "$"),
]


@pytest.mark.parametrize(("value", "path"), UNTYPED, ids=[repr(v)[:20] for v, _ in UNTYPED])
def test_what_would_change_is_refused_with_its_path(value, path):
    with pytest.raises(Invalid) as caught:
        codecs.encode(value)
    assert caught.value.details["path"] == path


@pytest.mark.parametrize(
    ("value", "declared", "path"),
    [
        (Point(1, rest={"deep": [(1,)]}), Point, "$.rest.deep[0]"),
        (Point(1, inner=Point(2, rest={"k": {1}})), Point, "$.inner.rest.k"),
        ([Point(1), Point(2, rest={"k": {1}})], list[Point], "$[1].rest.k"),
        ({"a": {"b": (1,)}}, dict[str, Any], "$.a.b"),
        ((1, {1}), tuple[int, Any], "$[1]"),
        (2**70, int, "$"),
        ([1, 2**70], list[int], "$[1]"),
    ],
)
def test_only_the_untyped_positions_of_a_type_are_walked(value, declared, path):
    with pytest.raises(Invalid) as caught:
        codecs.encode(value, declared)
    assert caught.value.details["path"] == path


def test_a_full_type_is_encoded_without_a_walk():
    declared: Any
    for declared in (int, list[str], Row, Model, Pair, dict[str, tuple[int, ...]], Row | None):
        assert codecs.encoder(declared) is codecs.pack
    for declared in (Any, dict, list, Point, list[Any], dict[str, Any], Point | None):
        assert codecs.encoder(declared) is not codecs.pack


def test_a_value_that_holds_itself_is_refused():
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(Invalid, match="nested too deeply"):
        codecs.encode(loop, list[Any])


@pytest.mark.parametrize(
    ("payload", "declared", "says"),
    [
        (codecs.pack({"x": "one"}), Point, r"Expected `int`, got `str` - at `\$\.x`"),
        (codecs.pack({}), Point, "missing required field `x`"),
        (codecs.pack([1, "a"]), list[int], r"at `\$\[1\]`"),
        (codecs.pack({"when": "never"}), Model, "when"),
        (b"\xc1", Any, "malformed"),
        (b"", Any, "truncated"),
        (b"\x91" * 200_000, Any, "nested too deeply"),
        (b"\xd4\x05\x00", Any, "extension of type 5"),
        (b"\xdd\xff\xff\xff\xff", Any, "truncated"),
        ("text", Any, "bytes-like"),
    ],
)
def test_a_payload_that_does_not_fit_is_invalid(payload, declared, says):
    with pytest.raises(Invalid, match=says):
        codecs.decode(payload, declared)


class Odd:
    pass


@pytest.mark.parametrize("declared", [Odd, list[Odd], Odd | None, dict[str, Odd], "Missing"])
def test_a_type_that_cannot_travel_is_refused_when_it_is_declared(declared):
    with pytest.raises(BadDeclaration):
        codecs.encoder(declared)
    with pytest.raises(BadDeclaration):
        codecs.decoder(declared)


PARAMETERS = (Parameter("n", int, required=False, default=3), Parameter("point", Point))


def test_arguments_travel_by_name_and_defaults_stay_with_the_function():
    decode = codecs.arguments_decoder(PARAMETERS)
    assert decode(codecs.pack({"point": {"x": 1}})) == {"point": Point(1)}
    assert decode(codecs.pack({"point": {"x": 1}, "n": 4})) == {"point": Point(1), "n": 4}
    assert codecs.arguments_decoder(())(codecs.pack({})) == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "point"),
        ({"point": {"x": 1}, "m": 1}, "unknown field `m`"),
        ({"point": {"x": None}}, r"\$\.point\.x"),
        ([], "object"),
    ],
)
def test_wrong_arguments_name_the_parameter(arguments, says):
    with pytest.raises(msgspec.ValidationError, match=says):
        codecs.arguments_decoder(PARAMETERS)(codecs.pack(arguments))


def test_a_caller_without_types_may_send_models_but_nothing_that_changes():
    """The callee's annotations rebuild a model; a tuple in a dictionary nobody can rebuild."""
    encode = codecs.arguments_encoder(None)
    assert codecs.arguments_decoder(PARAMETERS)(encode({"point": Point(1, ("a",))})) == {"point": Point(1, ("a",))}
    assert codecs.arguments_decoder([Parameter("m", Model)])(encode({"m": MODEL})) == {"m": MODEL}
    with pytest.raises(Invalid, match=r"\$\.point\.a"):
        encode({"point": {"a": (1,)}})


def test_arguments_are_walked_where_their_types_say_nothing():
    encode = codecs.arguments_encoder([Parameter("a", Any), Parameter("b", tuple[int, int])])
    assert encode({"b": (1, 2), "a": [1]})
    with pytest.raises(Invalid, match=r"\$\.a\.x"):
        encode({"a": {"x": {1}}})


def test_models_are_told_from_values():
    models: list[Any] = [Point(1), Row(uuid.UUID(int=1), decimal.Decimal(1), set()), MODEL]
    others: list[Any] = [{}, 1, (1,), Pair(1, (1, 1)), Colour.RED]
    assert all(strict.is_model(value) for value in models)
    assert not any(strict.is_model(value) for value in others)
