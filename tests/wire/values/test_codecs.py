"""Values travel equal, or are refused with their path."""

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import math
import uuid
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, Optional, TypedDict, TypeVar

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.errors import BadDeclaration, Invalid
from bema.core.spec import Parameter
from bema.wire.values import codecs, equal, strict


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


def test_a_full_type_is_sent_without_a_walk():
    """A look at the type of the value, and one C call: nothing within is looked at."""
    declared: Any
    for declared in (int, list[str], Row, Model, Pair, dict[str, tuple[int, ...]], Row | None, Colour):
        walk, kinds = strict.walker(declared), strict.exact(declared)
        assert kinds
        assert walk is None or kinds <= walk.passes
    for declared in (Any, dict, list, Point, list[Any], dict[str, Any], Point | None, list[Row]):
        walk = strict.walker(declared)
        assert walk is not None
        assert not (strict.exact(declared) or {object}) <= walk.passes
    assert codecs.arguments_encoder([Parameter("n", int), Parameter("names", list[str])]) is codecs.pack


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
    assert all(equal.is_model(value) for value in models)
    assert not any(equal.is_model(value) for value in others)


# what declared types hold is not lost


class Base(msgspec.Struct):
    x: int = 0


class Derived(Base):
    y: int = 0


@dataclasses.dataclass
class Flat:
    x: int = 0


@dataclasses.dataclass
class Deep(Flat):
    y: int = 0


class Plain(pydantic.BaseModel):
    x: int = 0


class Rich(Plain):
    y: int = 0


class Holder(pydantic.BaseModel):
    plain: Plain = Plain()
    flat: Any = None


class Holding(msgspec.Struct):
    base: Base | None = None
    items: list[Base] = []
    by_name: dict[str, Plain] = {}


@pytest.mark.parametrize(
    ("value", "declared", "path"),
    [
        (Derived(1, 2), Base, "$"),
        (Deep(1, 2), Flat, "$"),
        (Rich(x=1, y=2), Plain, "$"),
        ([Base(), Derived(1, 2)], list[Base], "$[1]"),
        ({"a": Deep(1, 2)}, dict[str, Flat], "$.a"),
        ((1, Rich()), tuple[int, Plain], "$[1]"),
        (Holding(base=Derived()), Holding, "$.base"),
        (Holding(items=[Base(), Derived()]), Holding, "$.items[1]"),
        (Holding(by_name={"k": Rich()}), Holding, "$.by_name.k"),
        (Holder(plain=Rich(x=1, y=2)), Holder, "$.plain"),
        ([Holder(), Holder(plain=Rich(y=2))], list[Holder], "$[1].plain"),
        (Derived(), Base | None, "$"),
        ([Derived()], list[Base | None], "$[0]"),
        (Point(1), Base, "$"),
    ],
    ids=repr,
)
def test_a_subclass_where_its_base_is_declared_is_refused(value, declared, path):
    """Its own fields have no place there, and would be lost without a word."""
    for encode in (
        lambda: codecs.encode(value, declared),
        lambda: argued(value, declared),
    ):
        with pytest.raises(Invalid) as caught:
            encode()
        assert caught.value.details["path"] in (path, path.replace("$", "$.v", 1))


def argued(value, declared):
    """As the argument `v` of a typed call, the way a client encodes it."""
    arguments = {"v": value}
    try:
        payload = codecs.arguments_encoder([Parameter("v", declared)])(arguments)
    except (Invalid, *codecs.UNFIT) as error:
        raise codecs.refusal(error, "the arguments", arguments) from error
    return codecs.arguments_decoder([Parameter("v", declared)])(payload)["v"]


def test_a_subclass_travels_where_it_is_declared_itself():
    class One(msgspec.Struct, tag=True):
        x: int

    class Two(One, tag=True):
        y: int

    for value in (One(1), Two(1, 2), None):
        assert codecs.decode(codecs.encode(value, One | Two | None), One | Two | None) == value


# Pydantic models


class Aliased(pydantic.BaseModel):
    a: int = pydantic.Field(0, alias="the-a")
    b: int = pydantic.Field(0, validation_alias="the-b")
    c: int = pydantic.Field(0, serialization_alias="the-c")
    d: int = pydantic.Field(0, validation_alias=pydantic.AliasChoices("d1", pydantic.AliasPath("d2", 0)))
    inner: Optional["Aliased"] = None


class Populated(Aliased):
    model_config = pydantic.ConfigDict(populate_by_name=True, extra="forbid", serialize_by_alias=True)


class Swapped(pydantic.BaseModel):
    a: int = pydantic.Field(alias="b")
    b: int = pydantic.Field(alias="a")


class Secretive(pydantic.BaseModel):
    x: int = 0
    secret: str = pydantic.Field(default="", exclude=True)
    _lock: Any = pydantic.PrivateAttr(default_factory=object)
    _p: int = 0


class Computed(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    x: int
    _double: int = 0

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def half(self) -> float:
        return self.x / 2

    @functools.cached_property
    def squared(self) -> int:
        return self.x**2

    def model_post_init(self, context: Any) -> None:
        self._double = 2 * self.x


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    a: Any = None
    bare: dict = {}  # type: ignore[type-arg]


class Strings(pydantic.RootModel[list[str]]):
    pass


T = TypeVar("T")


class Page(pydantic.BaseModel, Generic[T]):
    items: list[T]


def aliased(kind=Aliased, **more):
    return kind(**{"the-a": 1, "the-b": 2, "c": 3, "d1": 4}, **more)


SQUARED = Computed(x=3)
assert SQUARED.squared == 9

MODELS = [
    aliased(),
    aliased(inner=aliased()),
    aliased(Populated, inner=aliased()),
    Secretive(x=1),
    SQUARED,
    Open.model_validate({"a": [1], "z": {"k": [1.5]}}),
    Open(a=math.nan),
    Strings(["a"]),
    Page[int](items=[1]),
    Holder(flat={"a": NOW.replace(tzinfo=dt.UTC)}),
]


@pytest.mark.parametrize("value", MODELS, ids=repr)
def test_a_pydantic_model_comes_back_equal(value):
    kind: Any = type(value)
    for got in (
        codecs.decode(codecs.encode(value, kind), kind),
        codecs.decode(codecs.encode([value], list[kind]), list[kind])[0],
        argued(value, kind),
        codecs.arguments_decoder([Parameter("v", kind)])(codecs.arguments_encoder(None)({"v": value}))["v"],
    ):
        assert type(got) is kind
        assert repr(got) == repr(value)
        assert getattr(got, "_double", None) == getattr(value, "_double", None)


def test_a_stranger_may_name_fields_by_their_aliases():
    payload = codecs.pack({"the-a": 1, "the-b": 2, "c": 3, "d2": [4], "inner": {"the-a": 5}})
    assert codecs.decode(payload, Aliased) == aliased(inner=Aliased.model_validate({"the-a": 5}))


def private():
    model = Secretive(x=1)
    model._p = 9
    return model


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Secretive(secret="s"), ".secret"),
        (private(), "._p"),
        (Open(a=(1, 2)), ".a"),
        (Open(a={1}), ".a"),
        (Open(a=NOW), ".a"),
        (Open(a=Colour.RED), ".a"),
        (Open(a={"k": [(1,)]}), ".a.k[0]"),
        (Open(bare={"k": (1,)}), ".bare.k"),
        (Open.model_validate({"z": (1, 2)}), ".z"),
        (Open(a=2**70), ".a"),
        (Plain(x=2**70), ".x"),
        (Swapped(a=1, b=2), ".a"),
        (Holder.model_construct(plain="x"), ""),
        (Holder(plain=Rich(x=1, y=2)), ".plain"),
    ],
    ids=repr,
)
def test_what_a_pydantic_model_would_lose_is_refused_with_its_path(value, path):
    kind: Any = type(value)
    for where, encode in (
        ("$", lambda: codecs.encode(value, kind)),
        ("$[1]", lambda: codecs.encode([None, value], list[kind | None])),
        ("$.v", lambda: argued(value, kind)),
        ("$.k.v", lambda: argued({"v": value}, dict[str, kind])),
    ):
        with pytest.raises(Invalid) as caught:
            encode()
        assert caught.value.details["path"].replace("$.v.v", "$.k.v") == where + path


@given(st.dictionaries(st.text(max_size=5), plain | st.tuples(plain) | st.frozensets(st.integers())))
def test_an_open_model_comes_back_equal_or_is_refused(extras):
    taken = {"self", "data", *Open.model_fields}
    value = Open(**extras) if not extras.keys() & taken else Open()
    try:
        payload = codecs.encode(value, Open)
    except Invalid as refused:
        assert refused.details["path"] != "$"
    else:
        assert codecs.decode(payload, Open) == value


# what nobody declared, within what is declared


class Titled(TypedDict):
    a: int
    b: NotRequired[Any]


class Loose(NamedTuple):
    left: Any
    right: dict[str, Any]


@dataclasses.dataclass
class Mixed:
    any: Any = None
    bare: list = dataclasses.field(default_factory=list)  # type: ignore[type-arg]


@pytest.mark.parametrize(
    ("value", "declared", "path"),
    [
        ({"a": (1,)}, list[Any] | dict[str, Any], "$.a"),
        ([{1}], list[Any] | dict[str, Any], "$[0]"),
        ({"a": 1, "c": 2}, Titled, "$.c"),
        ({"a": 1, "b": (1,)}, Titled, "$.b"),
        ([{"a": 1}, {"a": 1, "c": 2}], list[Titled], "$[1].c"),
        ({}, Titled, "$"),
        (Loose((1,), {}), Loose, "$[0]"),
        (Loose(1, {"k": {2}}), Loose, "$[1].k"),
        (Mixed(any=(1,)), Mixed, "$.any"),
        (Mixed(bare=[NOW]), Mixed, "$.bare[0]"),
        ({(1, 2): Point(1)}, dict[Any, Point], "$"),
        ({1: Point(1, rest={"k": ()})}, dict[Any, Point], "$.1.rest.k"),
    ],
    ids=repr,
)
def test_what_would_change_within_a_declared_type_is_refused(value, declared, path):
    with pytest.raises(Invalid) as caught:
        codecs.encode(value, declared)
    assert caught.value.details["path"] == path


@given(plain | st.tuples(plain) | st.dictionaries(st.text(max_size=3), st.tuples(plain), min_size=1))
def test_a_union_of_collections_comes_back_equal_or_is_refused(value):
    declared: Any = list[Any] | dict[str, Any] | int | None
    try:
        got = codecs.decode(codecs.encode(value, declared), declared)
    except Invalid:
        return
    assert got == value


def test_a_stranger_sends_no_model_that_holds_what_would_change():
    encode = codecs.arguments_encoder(None)
    for model in (Point(1, rest={"k": (1,)}), Mixed(any={1}), Open(a=(1,))):
        with pytest.raises(Invalid):
            encode({"m": model})
    with pytest.raises(Invalid, match=r"\$\.m\.base: a value of type Derived"):
        encode({"m": Holding(base=Derived())})


def test_a_dictionary_in_the_place_of_a_model_is_converted_by_the_callee_and_checked_as_one():
    assert argued({"x": 1, "rest": {"k": [1]}}, Point) == Point(1, rest={"k": [1]})
    with pytest.raises(Invalid, match=r"\$\.v\.rest\.k"):
        argued({"x": 1, "rest": {"k": (1,)}}, Point)


# what is declared is what is sent


@pytest.mark.parametrize(
    ("value", "declared"),
    [
        ("x", int),
        (1, str),
        (True, int),
        (None, int),
        (b"x", str),
        ("c", Literal["a", "b"]),
        (2, Annotated[int, msgspec.Meta(gt=3)]),
        (2**63 + 1, float),
        ((1, 2), list[int]),
        ([1, 2], tuple[int, int]),
        ([1], set[int]),
        ({"x": 1}, Base),
        (Base(), Plain),
        (1, Base | None),
        ([1], dict[str, int]),
        ("12345678-1234-5678-1234-567812345678", uuid.UUID),
        ("red", Colour),
        (5, None),
    ],
    ids=repr,
)
def test_a_value_of_another_type_is_refused(value, declared):
    with pytest.raises(Invalid):
        codecs.encode(value, declared)


class Name(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "declared"),
    [
        (3, float),
        (Name.RED, str),
        ("a", Literal["a", "b"]),
        (4, Annotated[int, msgspec.Meta(gt=3)]),
        (bytearray(b"x"), bytes),
        (memoryview(b"x"), bytes),
        (collections.OrderedDict(a=1), dict[str, int]),
        (math.nan, Annotated[float, msgspec.Meta(description="any")]),
        (Page(items=[1]), Page[int]),
        (decimal.Decimal("sNaN"), decimal.Decimal),
    ],
    ids=lambda part: type(part).__name__,
)
def test_a_value_that_arrives_equal_may_be_of_another_type(value, declared):
    got = codecs.decode(codecs.encode(value, declared), declared)
    assert repr(got) == repr(value) or got == value


def test_a_bad_answer_is_the_fault_of_the_service():
    with pytest.raises(Invalid) as caught:
        codecs.encoder(int)("x")
    error = codecs.bad_answer(caught.value, "the answer of a.b.c", "x")
    assert (error.code, error.problem.http) == ("bad_answer", 500)
    assert error.message == "the answer of a.b.c: $: Expected `int`, got `str`"
    assert "Mend" in error.fix
    loss = codecs.bad_answer(strict_refusal([Derived()], list[Base]), "the answer")
    assert "Declare Derived" in loss.fix


def strict_refusal(value, declared):
    with pytest.raises(Invalid) as caught:
        codecs.encoder(declared)(value)
    return caught.value
