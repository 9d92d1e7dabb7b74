"""What travels: a table of types, what becomes of a value of each, and of models of two ages.

`test_matrix.py` sends every value of it through a real server; `docs/generate.py` makes `docs/values.md` of it.
"""

import collections
import collections.abc as c
import dataclasses
import datetime as dt
import decimal
import enum
import ipaddress
import math
import pathlib
import sys
import types
import typing
import uuid
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
    Union,
    get_type_hints,
)

import annotated_types as at
import msgspec
import pydantic
import typing_extensions
from hypothesis import strategies as st

from tests.wire.values.cells import CALL, COLUMNS, DATA, EQUAL, MODEL, NEVER, NUMBER, PLAIN, REFUSED, VALUE, Row

T = TypeVar("T")

# models, one for each way to write them


class Point(msgspec.Struct):
    x: int
    tags: tuple[str, ...] = ()
    next: "Point | None" = None


class Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True, rename="camel", array_like=False):
    some_name: int = 0


class Row2(msgspec.Struct, array_like=True):
    left: int
    right: str = ""


class Sparse(msgspec.Struct, omit_defaults=True):
    x: int = 0


class Circle(msgspec.Struct, tag="circle"):
    radius: float


class Square(msgspec.Struct, tag="square"):
    side: float


class Box(msgspec.Struct, Generic[T]):
    item: T


class Bounded(msgspec.Struct):
    n: Annotated[int, at.Gt(0)]
    name: Annotated[str, msgspec.Meta(max_length=3)] = ""


class Listing(msgspec.Struct):
    items: c.Sequence[int] = ()


@dataclasses.dataclass
class Order:
    id: uuid.UUID
    lines: list[str] = dataclasses.field(default_factory=list)
    parent: "Order | None" = None


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    at: dt.date


@dataclasses.dataclass
class Crate(Generic[T]):
    item: T


@dataclasses.dataclass
class Labelled(Crate[T]):
    label: str = ""


@dataclasses.dataclass
class Email:
    address: str


@dataclasses.dataclass
class Phone:
    number: int


@dataclasses.dataclass
class Contact:
    ways: list[Email | Phone]
    best: Email | Phone | None = None


@dataclasses.dataclass
class Twin:
    address: str


@pydantic.dataclasses.dataclass
class Checked:
    n: pydantic.PositiveInt


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    tricks: list[str] = []


class Bird(pydantic.BaseModel):
    wings: int


class Owner(pydantic.BaseModel):
    pets: list[Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]]


class Aliased(pydantic.BaseModel):
    some_name: int = pydantic.Field(alias="someName")
    other: str = pydantic.Field("", serialization_alias="OTHER")


class Computed(pydantic.BaseModel):
    side: int

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.side**2


class Validated(pydantic.BaseModel):
    name: str

    @pydantic.field_validator("name")
    @classmethod
    def short(cls, value: str) -> str:
        if len(value) > 3:
            raise ValueError("at most three letters")
        return value


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")


class Foreign(pydantic.BaseModel):
    where: ipaddress.IPv4Address
    turn: complex
    path: pathlib.PurePosixPath
    url: pydantic.HttpUrl


FOREIGN = Foreign(
    where=ipaddress.IPv4Address("127.0.0.1"),
    turn=1j,
    path=pathlib.PurePosixPath("/tmp"),
    url=pydantic.HttpUrl("http://a.b/"),
)


class Root(pydantic.RootModel[list[int]]):
    pass


class Page(pydantic.BaseModel, Generic[T]):
    items: list[T]


class Movie(TypedDict):
    title: Required[str]
    year: NotRequired[int]


class Fixed(typing_extensions.TypedDict):
    id: typing_extensions.ReadOnly[int]
    at: NotRequired[uuid.UUID]


class Pair(NamedTuple):
    left: int
    right: tuple[int, ...] = ()


UserId = NewType("UserId", int)


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Name(enum.StrEnum):
    ANN = "ann"


class Flags(enum.IntFlag):
    READ = 1
    WRITE = 2


Alias = typing_extensions.TypeAliasType("Alias", list[int])


def _newer(text: str) -> Any:
    """What needs the syntax of Python 3.12: its module, or nothing."""
    if not hasattr(typing, "TypeAliasType"):
        return None
    module = types.ModuleType("bema_newer")
    sys.modules[module.__name__] = module
    exec(text, vars(module))
    return module


NEWER = _newer(
    """
import dataclasses, msgspec, pydantic

class Box[T](msgspec.Struct):
    item: T

@dataclasses.dataclass
class Crate[T]:
    item: T

class Page[T](pydantic.BaseModel):
    items: list[T]

type Numbers = list[int]
type Tree = dict[str, Tree] | int
"""
)


def newer(of: str, *values: str) -> tuple[Any, tuple[Any, ...]]:
    if NEWER is None:
        return None, ()
    return eval(of, vars(NEWER)), tuple(eval(value, vars(NEWER)) for value in values)


FIELD = "msgspec does not have it; Pydantic does, so hold it in a field of one of its models"

NAIVE = dt.datetime(2026, 1, 2, 3, 4, 5, 678901)
AWARE = NAIVE.replace(tzinfo=dt.UTC)
SOME = uuid.UUID(int=5)
DEEP = 2**53 + 1

_text = st.text(max_size=8)
_ints = st.integers(-(2**63), 2**64 - 1)
_floats = st.floats(allow_nan=False)


def _scalars() -> list[Row]:
    return [
        Row("scalars", "int", int, (0, -(2**63), 2**64 - 1), DATA, (2**64, "1", None, 1.5), _ints),
        Row("scalars", "float", float, (0.5, math.inf, -0.0, 3), DATA, (DEEP, -DEEP, "x"), _floats),
        Row("scalars", "bool", bool, (True, False), DATA, (1, "true"), st.booleans()),
        Row("scalars", "str", str, ("", "λ\0"), DATA, (1, b"x"), _text),
        Row("scalars", "bytes", bytes, (b"", b"\xff\0"), DATA, (1,), st.binary(max_size=8)),
        Row("scalars", "None", None, (None,), DATA, (0,)),
        Row("scalars", "Any", Any, (1, "a", None, [1, {"k": AWARE}]), DATA, ((1,), {1}, SOME, NAIVE, 2**64)),
        Row("scalars", "datetime", dt.datetime, (NAIVE,), VALUE, ("never", NAIVE.replace(fold=1))),
        Row(
            "scalars",
            "datetime (aware)",
            dt.datetime,
            (AWARE, AWARE.astimezone(dt.timezone(dt.timedelta(hours=2)))),
            DATA,
            strategy=st.datetimes(timezones=st.just(dt.UTC)),
        ),
        Row("scalars", "date", dt.date, (NAIVE.date(),), VALUE, ("x",), st.dates()),
        Row(
            "scalars",
            "time",
            dt.time,
            (NAIVE.time(),),
            VALUE,
            (NAIVE.time().replace(fold=1),),
            st.times().map(lambda at: at.replace(fold=0)),
        ),
        Row("scalars", "timedelta", dt.timedelta, (dt.timedelta(days=1, microseconds=3),), VALUE, ("x",)),
        Row("scalars", "UUID", uuid.UUID, (SOME,), VALUE, ("x",), st.uuids()),
        Row("scalars", "Decimal", decimal.Decimal, (decimal.Decimal("1e-30"),), VALUE, ("x",)),
        Row("scalars", "NewType of int", UserId, (3,), DATA, ("3",)),
        *(
            Row("scalars", shown, declared, (value,), NEVER, why=FIELD)
            for shown, declared, value in (
                ("complex", complex, 1j),
                ("IPv4Address", ipaddress.IPv4Address, ipaddress.IPv4Address("127.0.0.1")),
                ("Path", pathlib.PurePosixPath, pathlib.PurePosixPath("/tmp")),
                ("deque[int]", collections.deque[int], collections.deque([1])),
            )
        ),
    ]


def _containers() -> list[Row]:
    boxed = (EQUAL, EQUAL, EQUAL, EQUAL, CALL, PLAIN, CALL, PLAIN)
    return [
        Row("containers", "list[int]", list[int], ([], [1, 2]), DATA, (["1"], {"a": 1}), st.lists(_ints, max_size=4)),
        Row("containers", "list[float]", list[float], ([0.5, 3],), DATA, strategy=st.lists(_floats, max_size=4)),
        Row(
            "containers",
            "list[float] with an int that a float rounds",
            list[float],
            ([DEEP],),
            (CALL, CALL, CALL, CALL, CALL, EQUAL, CALL, EQUAL),
        ),
        Row("containers", "dict[str, int]", dict[str, int], ({}, {"a": 1}), DATA, ({"a": "1"},)),
        Row("containers", "dict[int, str]", dict[int, str], ({1: "a"},), DATA, ({"x": "a"},)),
        Row("containers", "dict[UUID, float]", dict[uuid.UUID, float], ({SOME: 0.5},), boxed, ({SOME: DEEP},)),
        Row("containers", "tuple[int, str]", tuple[int, str], ((1, "a"),), boxed, ((1,),)),
        Row("containers", "tuple[int, ...]", tuple[int, ...], ((), (1, 2)), boxed, (("a",),)),
        Row("containers", "set[int]", set[int], (set(), {1, 2}), boxed, ({"a"},), st.sets(_ints, max_size=4)),
        Row("containers", "frozenset[str]", frozenset[str], (frozenset("ab"),), boxed),
        Row("containers", "Sequence[int]", c.Sequence[int], ([1, 2],), DATA, ((1, 2), {1})),
        Row("containers", "Mapping[str, int]", c.Mapping[str, int], ({"a": 1},), DATA, ({"a": "x"},)),
        Row("containers", "Set[int]", c.Set[int], ({1}, frozenset({2})), boxed, ((1,),)),
        Row("containers", "a model with a Sequence", Listing, (Listing([1, 2]),), MODEL, (Listing((1, 2)),)),
        Row("containers", "list[datetime]", list[dt.datetime], ([NAIVE],), boxed, ([NAIVE.replace(fold=1)],)),
        Row("containers", "int | str | None", int | str | None, (1, "a", None), DATA, (1.5,)),
        Row("containers", "Literal['a', 2]", Literal["a", 2], ("a", 2), DATA, ("b", 3)),
        Row("containers", "TypeAliasType", Alias, ([1],), DATA, (["a"],)),
        Row(
            "containers",
            "datetime | UUID | str",
            Union[dt.datetime, uuid.UUID, str],  # noqa: UP007
            (NAIVE,),
            NEVER,
            why="all are text on the wire, and nothing tells them apart",
        ),
    ]


def _enums() -> list[Row]:
    return [
        Row("enums", "Enum", Colour, (Colour.RED,), VALUE, ("blue",)),
        Row("enums", "IntEnum", Level, (Level.LOW,), NUMBER, (7,)),
        Row("enums", "StrEnum", Name, (Name.ANN,), NUMBER, ("bob",)),
        Row("enums", "IntFlag", Flags, (Flags.READ, Flags.READ | Flags.WRITE), NUMBER, ("x",)),
    ]


def _structs() -> list[Row]:
    return [
        Row(
            "msgspec",
            "Struct",
            Point,
            (Point(1, ("a",), Point(2)),),
            MODEL,
            ({"x": 1, "y": 2}, {"x": "1"}, Bird(wings=2)),
            st.builds(Point, _ints, st.lists(_text, max_size=3).map(tuple)),
        ),
        Row("msgspec", "Struct with a rename, that forbids unknown fields", Strict, (Strict(3),), MODEL, ({"z": 1},)),
        Row("msgspec", "Struct(array_like=True)", Row2, (Row2(1, "a"),), MODEL, ([],)),
        Row("msgspec", "Struct(omit_defaults=True)", Sparse, (Sparse(), Sparse(1)), MODEL, ({"y": 1},)),
        Row("msgspec", "tagged union", Circle | Square, (Circle(0.5), Square(2.0)), MODEL, ({"type": "disc"},)),
        Row("msgspec", "Box[int]", Box[int], (Box(1),), MODEL, (Box("a"),), st.builds(Box, _ints)),
        Row("msgspec", "list[Box[Box[str]]]", list[Box[Box[str]]], ([Box(Box("a"))],), VALUE, ([Box(Box(1))],)),
        Row("msgspec", "Meta(gt=0)", Annotated[int, msgspec.Meta(gt=0)], (1,), DATA, (0,)),
        Row(
            "msgspec", "Struct with constraints", Bounded, (Bounded(1, "abc"),), MODEL, (Bounded(0), Bounded(1, "abcd"))
        ),
        Row("msgspec", "Struct | str", Point | str, (Point(1), "a"), (*(EQUAL,) * 4, EQUAL, PLAIN, CALL, PLAIN), (1,)),
    ]


def _dataclasses() -> list[Row]:
    return [
        Row(
            "dataclasses",
            "dataclass",
            Order,
            (Order(SOME, ["a"], Order(SOME)),),
            MODEL,
            ({"id": str(SOME), "lines": [], "more": 1}, {"lines": []}),
            st.builds(Order, st.uuids(), st.lists(_text, max_size=3)),
        ),
        Row("dataclasses", "dataclass(frozen, slots)", Frozen, (Frozen(NAIVE.date()),), MODEL),
        Row("dataclasses", "Crate[int]", Crate[int], (Crate(1),), MODEL, (Crate("a"),)),
        Row("dataclasses", "a generic subclass", Labelled[int], (Labelled(1, "a"),), MODEL, (Labelled("a"),)),
        Row(
            "dataclasses", "Email | Phone", Email | Phone, (Email("a"), Phone(1)), MODEL, ({"address": 1}, {"other": 1})
        ),
        Row("dataclasses", "fields of unions", Contact, (Contact([Email("a"), Phone(1)], Phone(2)),), MODEL),
        Row("dataclasses", "Email | str", Email | str, (Email("a"), "b"), MODEL, (1,)),
        Row(
            "dataclasses",
            "Email | Twin, of the same fields",
            Email | Twin,
            (Email("a"),),
            NEVER,
            why="nothing tells them apart: give each a field of a Literal type",
        ),
        Row("dataclasses", "pydantic.dataclasses", Checked, (Checked(1),), MODEL, ({"n": 0},)),
    ]


def _pydantic() -> list[Row]:
    pet = Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]
    return [
        Row("Pydantic", "BaseModel", Dog, (Dog(tricks=["sit"]),), MODEL, ({"tricks": 1}, {"name": "x"})),
        Row("Pydantic", "Cat | Dog", Cat | Dog, (Cat(), Dog(tricks=["sit"])), MODEL, ({"kind": "cow"},)),
        Row("Pydantic", "Cat | Bird | None", Cat | Bird | None, (Cat(), Bird(wings=2), None), MODEL, (1,)),
        Row("Pydantic", "discriminated union", pet, (Cat(lives=1), Dog()), MODEL, ({"kind": "cow"}, {})),
        Row("Pydantic", "list of a discriminated union", list[pet], ([Cat(), Dog()],), VALUE, ([{"kind": "cow"}],)),
        Row("Pydantic", "Cat | str", Cat | str, (Cat(), "a"), MODEL, (1,)),
        Row("Pydantic", "a model with a discriminated union", Owner, (Owner(pets=[Cat(), Dog()]),), MODEL),
        Row("Pydantic", "aliases", Aliased, (Aliased(someName=1, other="x"),), MODEL, ({"someName": 1, "no": 1},)),
        Row("Pydantic", "computed fields", Computed, (Computed(side=2),), MODEL, ({"side": "x"},)),
        Row("Pydantic", "validators of a model", Validated, (Validated(name="ann"),), MODEL, ({"name": "anna"},)),
        Row("Pydantic", "extra='allow'", Open, (Open.model_validate({"z": 1}),), MODEL),
        Row("Pydantic", "RootModel[list[int]]", Root, (Root([1]),), MODEL, (["a"],)),
        Row("Pydantic", "Page[int]", Page[int], (Page[int](items=[1]),), MODEL, ({"items": ["a"]},)),
        Row(
            "Pydantic",
            "SecretStr as a parameter",
            pydantic.SecretStr,
            (pydantic.SecretStr("x"),),
            REFUSED,
            why="Pydantic itself writes asterisks in its place; declare a str",
        ),
        Row(
            "Pydantic",
            "HttpUrl as a parameter",
            pydantic.HttpUrl,
            (pydantic.HttpUrl("http://a.b/"),),
            VALUE,
            ("nowhere",),
        ),
        Row("Pydantic", "AwareDatetime as a parameter", pydantic.AwareDatetime, (AWARE,), DATA, (NAIVE,)),
        Row("Pydantic", "a model that holds what msgspec lacks", Foreign, (FOREIGN,), MODEL, ({"where": "x"},)),
    ]


def _constraints() -> list[Row]:
    strip = Annotated[str, pydantic.StringConstraints(strip_whitespace=True, max_length=3)]
    upper = Annotated[str, pydantic.AfterValidator(str.upper)]
    return [
        Row("constraints", "annotated_types.Gt(0)", Annotated[int, at.Gt(0)], (1,), DATA, (0, -1)),
        Row(
            "constraints", "Interval(ge=0, lt=1)", Annotated[float, at.Interval(ge=0, lt=1)], (0.5,), DATA, (1.0, -0.5)
        ),
        Row("constraints", "MultipleOf(2)", Annotated[int, at.MultipleOf(2)], (4,), DATA, (3,)),
        Row("constraints", "Len(1, 2)", Annotated[list[int], at.Len(1, 2)], ([1],), DATA, ([], [1, 2, 3])),
        Row("constraints", "Predicate", Annotated[str, at.Predicate(str.islower)], ("a",), DATA, ("A",)),
        Row("constraints", "Timezone(None)", Annotated[dt.datetime, at.Timezone(None)], (NAIVE,), VALUE, (AWARE,)),
        Row(
            "constraints",
            "Gt of a Decimal",
            Annotated[decimal.Decimal, at.Gt(decimal.Decimal(1))],
            (decimal.Decimal(2),),
            VALUE,
            (decimal.Decimal(1),),
        ),
        Row("constraints", "PositiveInt", pydantic.PositiveInt, (1,), DATA, (0, -5)),
        Row(
            "constraints",
            "Field(max_length=3)",
            Annotated[str, pydantic.Field(max_length=3)],
            ("abc",),
            DATA,
            ("abcd",),
        ),
        Row("constraints", "Field(pattern=...)", Annotated[str, pydantic.Field(pattern="^a")], ("ab",), DATA, ("b",)),
        Row("constraints", "StringConstraints", strip, ("abc",), DATA, ("abcd", " a")),
        Row("constraints", "AfterValidator", upper, ("A",), DATA, ("a",)),
        Row("constraints", "Gt(0) of int | None", Annotated[int | None, at.Gt(0)], (1, None), DATA, (0,)),
        Row(
            "constraints", "Field(gt=0) of Optional", Annotated[int | None, pydantic.Field(gt=0)], (1, None), DATA, (0,)
        ),
        Row(
            "constraints",
            "Base64Bytes",
            pydantic.Base64Bytes,
            (b"x",),
            REFUSED,
            why="its validator changes what it is given; `bytes` travel as they are",
        ),
        Row(
            "constraints",
            "Json[list[int]]",
            pydantic.Json[list[int]],
            ([1],),
            REFUSED,
            why="its validator changes what it is given; declare `list[int]`",
        ),
        Row("constraints", "list[PositiveInt]", list[pydantic.PositiveInt], ([1],), DATA, ([0],)),
        Row("constraints", "FiniteFloat", pydantic.FiniteFloat, (0.5,), DATA, (math.inf,)),
        Row(
            "constraints",
            "AfterValidator on a Struct",
            Annotated[Point, pydantic.AfterValidator(_small)],
            (Point(1),),
            MODEL,
            (Point(9),),
        ),
    ]


def _small(point: Point) -> Point:
    if point.x > 3:
        raise ValueError("too far")
    return point


def _records() -> list[Row]:
    return [
        Row(
            "records",
            "TypedDict",
            Movie,
            ({"title": "a"}, {"title": "a", "year": 1}),
            DATA,
            ({}, {"title": "a", "x": 1}),
        ),
        Row("records", "TypedDict with ReadOnly", Fixed, ({"id": 1, "at": SOME},), VALUE, ({"id": "x"},)),
        Row("records", "NamedTuple", Pair, (Pair(1, (2,)),), VALUE, ([],)),
        Row("records", "forward reference", get_type_hints(Point)["next"], (Point(1), None), MODEL, ({"x": "a"},)),
    ]


def _syntax() -> list[Row]:
    made = [
        ("struct Box[T]", newer("Box[int]", "Box(1)"), MODEL),
        ("dataclass Crate[T]", newer("Crate[int]", "Crate(1)"), MODEL),
        ("model Page[T]", newer("Page[int]", "Page[int](items=[1])"), MODEL),
        ("type Numbers = list[int]", newer("Numbers", "[1]"), DATA),
    ]
    return [Row("Python 3.12", shown, declared, values, cells) for shown, (declared, values), cells in made]


__all__ = ("COLUMNS", "ROWS")

ROWS: tuple[Row, ...] = (
    *_scalars(),
    *_containers(),
    *_enums(),
    *_structs(),
    *_dataclasses(),
    *_pydantic(),
    *_constraints(),
    *_records(),
    *_syntax(),
)
