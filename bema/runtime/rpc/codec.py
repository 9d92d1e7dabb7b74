"""Codec: how values become the payloads of calls, chosen once for everything that a process sends and receives.

Laws: both ends of a call need the same codec, so a plugin has to be installed with all that call each other. A codec refuses
a value by `Invalid` or by an exception of `wire.values.codecs.UNFIT`; then that one call fails and no other. A codec does
no I/O, so it has no twin in memory.
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
    """Makes the encoders and decoders of one format. Each is made once per endpoint and used for every call of it."""

    def encoder(self, declared: Any) -> Encode:
        """Make a function that encodes values of a declared type to bytes; `Any` stands for a missing annotation.

        The function refuses a value that would not arrive equal.
        """
        ...

    def decoder(self, declared: Any) -> Decode:
        """Make a function that decodes bytes to values of a declared type, and checks them against it.

        `BadDeclaration` where values of the type cannot travel.
        """
        ...

    def requests_decoder(self, declared: Any) -> Decode:
        """Of the items of a stream that a service is sent: the same, and what the type has no place for is refused."""
        return self.decoder(declared)

    def arguments_encoder(self, parameters: Iterable[Parameter] | None) -> Encode:
        """Make a function that encodes arguments, a dictionary by name; None where the parameters are not known here."""
        ...

    def arguments_decoder(self, parameters: Iterable[Parameter]) -> Decode:
        """Make a function that decodes arguments to a dictionary by name, and checks them against the parameters.

        The function refuses unknown and missing names, and leaves out omitted parameters that have a default.
        """
        ...


class EndpointCodec:
    """Makes the codec's functions for one endpoint."""

    __slots__ = ("codec", "route")

    def __init__(self, route: str, codec: Codec) -> None:
        self.route = route
        self.codec = codec

    def of(self, make: Callable[[Any], T], declared: Any, part: str = "") -> T:
        """The codec's function for a part of the endpoint; `BadDeclaration` names the endpoint and the part."""
        try:
            return make(declared)
        except BadDeclaration as error:
            raise error.within(f"endpoint {self.route}" + (f", {part}" if part else "")) from error


class CodecFactory(Factory[Codec], group="bema.codec", api=VERSION, default="msgpack", opens="plain"):
    """Codecs by the name of their format."""


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
