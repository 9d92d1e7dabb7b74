"""A service of every shape, as the tests of what it says of itself know it."""

from __future__ import annotations

import msgspec

from bema.core.spec import EndpointSpec, Parameter, ServiceSpec, Shape


class Text(msgspec.Struct):
    text: str
    language: str = "en"


class Lost(Exception): ...


WORDS = EndpointSpec(
    "words",
    Shape.STREAM,
    (
        Parameter("text", Text),
        Parameter("every", int, False, 1),
        Parameter("tags", frozenset[str], False, frozenset("ab")),
    ),
    str,
    doc="Word by word.",
    idempotent=True,
    facts={"raises": (Lost,)},
)
TOTAL = EndpointSpec("total", Shape.COLLECT, (), int, incoming="numbers", facts={"requests": int})
SHAPES = ServiceSpec("shapes", "demo", "All shapes.", (WORDS, TOTAL), version="1.2", slots=4, queue=8)
