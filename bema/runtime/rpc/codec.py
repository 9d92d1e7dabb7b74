"""How values become the payloads of calls: the codec in use, chosen once for everything this process sends and takes.

Law: both ends of a call speak the same codec; who plugs in another gives it to all who call each other. A codec refuses
a value by `Invalid` or by what is listed in `wire.codecs.UNFIT`, and then one call fails and no other. A codec is pure:
there is nothing that a twin in memory would leave out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from bema.core.errors import BadDeclaration
from bema.core.spec import Parameter
from bema.core.version import VERSION
from bema.parts import Factory
from bema.wire.values import codecs
from bema.wire.values.codecs import Decode, Encode

T = TypeVar("T")


class Codec(Protocol):
    """Every method gives a function that is made once per endpoint and used for every call of it."""

    def encoder(self, declared: Any) -> Encode:
        """Of values of a declared type; `Any` is what nobody declared."""
        ...

    def decoder(self, declared: Any) -> Decode:
        """Of values of a declared type, which are of that type afterwards. `BadDeclaration` for what cannot travel."""
        ...

    def requests_decoder(self, declared: Any) -> Decode:
        """Of the items of a stream that a service is sent: the same, and what the type has no place for is refused."""
        return self.decoder(declared)

    def arguments_encoder(self, parameters: Iterable[Parameter] | None) -> Encode:
        """Of a dictionary of arguments by name; None where the callee's types are not known here."""
        ...

    def arguments_decoder(self, parameters: Iterable[Parameter]) -> Decode:
        """Of such a dictionary: unknown and missing names are refused, omitted ones with a default stay away."""
        ...


class EndpointCodec:
    """The functions of one endpoint. `BadDeclaration` names it, and what of it cannot travel."""

    __slots__ = ("codec", "route")

    def __init__(self, route: str, codec: Codec) -> None:
        self.route = route
        self.codec = codec

    def of(self, make: Callable[[Any], T], declared: Any, part: str = "") -> T:
        """What the codec makes for a part of the endpoint."""
        try:
            return make(declared)
        except BadDeclaration as error:
            raise error.within(f"endpoint {self.route}" + (f", {part}" if part else "")) from error


class CodecFactory(Factory[Codec], group="bema.codec", api=VERSION, default="msgpack", opens="plain"):
    """By the name of the format."""


@CodecFactory.register("msgpack")
class MsgpackCodec:
    def encoder(self, declared: Any) -> Encode:
        return codecs.encoder(declared)

    def decoder(self, declared: Any) -> Decode:
        return codecs.decoder(declared)

    def requests_decoder(self, declared: Any) -> Decode:
        return codecs.requests_decoder(declared)

    def arguments_encoder(self, parameters: Iterable[Parameter] | None) -> Encode:
        return codecs.arguments_encoder(parameters)

    def arguments_decoder(self, parameters: Iterable[Parameter]) -> Decode:
        return codecs.arguments_decoder(parameters)
