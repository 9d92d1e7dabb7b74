"""The laws of Codec: what was sent is what arrives, and what cannot arrive is refused before it is sent.

A refusal is `Invalid`, or what is listed in `bema.wire.values.codecs.UNFIT`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from bema.core.errors import Invalid
from bema.core.spec import Parameter
from bema.parts.opening import unopenable
from bema.testing.conformance.frame import Make, Suite
from bema.wire.values.codecs import UNFIT

SUITE = Suite("codec")

PLAIN: tuple[Any, ...] = (
    # The bounds of MessagePack's integers; NUL and bytes that are no UTF-8, where C strings stop.
    *(None, True, 0, -(2**63), 2**64 - 1, 1.5, "", "λ\0", b"", b"\xff\0"),
    *([], [1, "a", None], {}, {"a": [{"b": 1}]}, "x" * 100_000),
)


class Point(msgspec.Struct):
    x: int
    y: float = 0.5


@dataclasses.dataclass
class Pair:
    left: str
    right: Point


NOON = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)
TYPED: tuple[tuple[Any, Any], ...] = (
    *((Point, Point(1)), (Pair, Pair("a", Point(2, 3.0))), (list[Point], [Point(1), Point(2)])),
    *((dict[str, int], {"a": 1}), (tuple[int, str], (1, "a")), (set[int], {1, 2}), (Point | None, None)),
    *((dt.datetime, NOON), (uuid.UUID, uuid.UUID(int=5)), (bytes, b"\0"), (float, 1.0)),
)

PARAMETERS = (Parameter("point", Point), Parameter("times", int, required=False))


def refuses(function: Callable[[Any], Any], value: Any) -> bool:
    try:
        function(value)
    except (Invalid, *UNFIT):
        return True
    return False


@SUITE.law()
async def plain_values_return_equal(make: Make) -> None:
    """A value of plain types that nobody declared returns equal, of the same type."""
    codec = await make()
    encode, decode = codec.encoder(Any), codec.decoder(Any)
    for value in PLAIN:
        payload = encode(value)
        assert isinstance(payload, bytes)
        found = decode(payload)
        assert (type(found), found) == (type(value), value)


@SUITE.law()
async def declared_values_return_equal(make: Make) -> None:
    """A value of a declared type returns equal, of that type."""
    codec = await make()
    for declared, value in TYPED:
        found = codec.decoder(declared)(codec.encoder(declared)(value))
        assert (type(found), found) == (type(value), value)


@SUITE.law()
async def wrong_values_are_refused(make: Make) -> None:
    """A payload that is not of the declared type is refused by its decoder, and the next one is read."""
    codec = await make()
    decode = codec.decoder(Point)
    for wrong in ({"x": "one"}, {"y": 1.0}, [1], None, "x"):
        payload = codec.encoder(Any)(wrong)
        assert refuses(decode, payload)
    assert decode(codec.encoder(Point)(Point(7))) == Point(7)


@SUITE.law()
async def strangers_are_refused(make: Make) -> None:
    """A value that would not return equal is refused by its encoder, and the next one is taken."""
    codec = await make()
    encode = codec.encoder(Any)
    # A tuple returns as a list and a set not at all: equal or refused, never nearly.
    for stranger in (object(), (1, 2), {1, 2}, 2**64, {"a": object()}, [uuid.uuid4()]):
        assert refuses(encode, stranger)
    assert codec.decoder(Any)(encode([1])) == [1]


@SUITE.law()
async def broken_payloads_are_refused(make: Make) -> None:
    """Bytes that are no payload, or the half of one, are refused."""
    codec = await make()
    whole = codec.encoder(Any)({"a": [1, 2, 3]})
    # 0xc1 is the one byte that MessagePack never uses.
    for broken in (b"", whole[:-1], b"\xc1"):
        assert refuses(codec.decoder(Any), broken)
        assert refuses(codec.arguments_decoder(PARAMETERS), broken)


@SUITE.law()
async def arguments_go_by_name(make: Make) -> None:
    """Arguments arrive by name and of their types; what was left out stays away."""
    codec = await make()
    encode, decode = codec.arguments_encoder(PARAMETERS), codec.arguments_decoder(PARAMETERS)
    assert decode(encode({"point": Point(1), "times": 2})) == {"point": Point(1), "times": 2}
    assert decode(encode({"point": Point(1)})) == {"point": Point(1)}
    stranger = codec.arguments_encoder(None)
    assert decode(stranger({"point": {"x": 3, "y": 4.0}})) == {"point": Point(3, 4.0)}


@SUITE.law()
async def wrong_arguments_are_refused(make: Make) -> None:
    """Unknown names, missing names and values of other types are refused."""
    codec = await make()
    encode, decode = codec.arguments_encoder(None), codec.arguments_decoder(PARAMETERS)
    for wrong in ({}, {"point": 1}, {"point": {"x": 1}, "other": 1}, {"point": {"x": 1}, "times": "2"}):
        payload = encode(wrong)
        assert refuses(decode, payload)


@SUITE.law()
async def it_is_opened_with_settings(make: Make) -> None:
    """Its class has `open(settings)`, or is made without arguments: else no program could take it by its name."""
    made = await make()
    assert unopenable(type(made), "plain") == ""
