"""OpenAPI is the description, said in another way."""

from __future__ import annotations

import msgspec

from bema.core.describe import describe, told
from bema.core.instance import EndpointInfo, Instance
from bema.core.spec import EndpointSpec, Parameter, ServiceSpec, Shape
from bema.gateway.doors.openapi import document


class Text(msgspec.Struct):
    text: str


SPEC = ServiceSpec(
    "shapes",
    "demo",
    "All shapes.",
    (
        EndpointSpec("length", Shape.UNARY, (Parameter("request", Text),), int, doc="How long.\n\nIn letters."),
        EndpointSpec("add", Shape.UNARY, (Parameter("a", int), Parameter("b", int, False, 1)), int),
        EndpointSpec("words", Shape.STREAM, (Parameter("request", Text),), Text),
        EndpointSpec("total", Shape.COLLECT, (), int, facts={"requests": int}),
    ),
    version="1.2",
)


def test_each_endpoint_that_http_carries_is_a_path():
    made = document(describe(SPEC), "/gateway/x")
    assert made["info"] == {"title": "demo.shapes", "version": "1.2", "description": "All shapes."}
    assert list(made["paths"]) == ["/length", "/add", "/words"]
    length, words = made["paths"]["/length"]["post"], made["paths"]["/words"]["post"]
    assert (length["operationId"], length["summary"]) == ("length", "How long.")
    assert words["responses"]["200"]["content"]["text/event-stream"]["schema"] == {"$ref": "#/components/schemas/Text"}
    assert made["components"]["schemas"]["Text"]["properties"] == {"text": {"type": "string"}}


def test_a_service_with_durable_endpoints_has_the_paths_of_its_calls():
    order = EndpointSpec("order", Shape.UNARY, (Parameter("number", int),), str, durable=True)
    plain = EndpointSpec("plain", Shape.UNARY, (), str)
    made = document(describe(ServiceSpec("shop", "demo", "", (order, plain))), "/gateway/x")
    assert list(made["paths"]) == ["/order", "/plain", "/calls/{id}", "/calls/{id}/result", "/calls/{id}/events"]
    post, other = made["paths"]["/order"]["post"], made["paths"]["/plain"]["post"]
    assert [each["name"] for each in post["parameters"]] == ["Prefer", "Idempotency-Key"]
    assert "Location" in post["responses"]["202"]["headers"]
    assert ("parameters" in other, "202" in other["responses"]) == (False, False)
    ids = [
        operation["operationId"]
        for path in made["paths"].values()
        for operation in path.values()
        if "operationId" in operation
    ]
    assert len(ids) == len(set(ids))


def test_a_service_with_an_idempotent_endpoint_has_them_too_and_says_what_it_may_be_asked_for():
    send = EndpointSpec("send", Shape.UNARY, (Parameter("number", int),), str, idempotent=True)
    words = EndpointSpec("words", Shape.STREAM, (), str, idempotent=True)
    made = document(describe(ServiceSpec("post", "demo", "", (send, words))), "/gateway/x")
    assert list(made["paths"]) == ["/send", "/words", "/calls/{id}", "/calls/{id}/result", "/calls/{id}/events"]
    post, other = made["paths"]["/send"]["post"], made["paths"]["/words"]["post"]
    assert ([each["name"] for each in post["parameters"]], "202" in post["responses"]) == (
        ["Prefer", "Idempotency-Key"],
        True,
    )
    assert ("parameters" in other, "202" in other["responses"]) == (False, False)


def test_what_only_a_record_tells_is_a_document_too():
    record = Instance(id=1, namespace="demo", component="old", endpoints=(EndpointInfo("ask"),))
    made = document(told(record), "/gateway/x")
    assert made["paths"]["/ask"]["post"]["requestBody"]["content"]["application/json"]["schema"] == {}
    assert made["info"]["version"] == "0"
