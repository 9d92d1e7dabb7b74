"""The API as a document: valid, whole, and made of the types that the requests are decoded with."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest
from openapi_spec_validator import validate
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

from bema.gateway.control.document import openapi, page
from bema.gateway.control.operations import OPERATIONS

DOCUMENT: dict[str, Any] = json.loads(msgspec.json.encode(openapi("http://127.0.0.1:8701")))


def taken(path: str, media: str) -> dict[str, Any]:
    """The schema of what a POST of that path takes, with what it refers to."""
    schema = DOCUMENT["paths"][path]["post"]["requestBody"]["content"][media]["schema"]
    return {**schema, "components": DOCUMENT["components"]}


def test_the_document_is_an_openapi_document():
    validate(DOCUMENT)


def test_the_lint_finds_what_is_wrong():
    broken = copy.deepcopy(DOCUMENT)
    del broken["paths"]["/faas/python/{id}"]["get"]["parameters"]
    with pytest.raises(OpenAPIValidationError):
        validate(broken)


def test_every_row_of_the_table_is_an_operation_of_its_own():
    told = {
        (method.upper(), path): operation["operationId"]
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    }
    assert told == {(row.method, row.path): row.name for row in OPERATIONS}
    assert len(set(told.values())) == len(OPERATIONS)
    assert all(f"{row.method} {row.path}" in page() for row in OPERATIONS)


def test_both_designs_names_of_a_path_say_the_same():
    one, other = copy.deepcopy((DOCUMENT["paths"]["/faas/python"], DOCUMENT["paths"]["/mcp-service"]))
    for operation in (*one.values(), *other.values()):
        del operation["operationId"], operation["summary"]
    assert one == other


def test_what_is_forwarded_is_not_in_the_document():
    # any path below an instance is its own
    assert not [path for path in DOCUMENT["paths"] if "gateway" in path or path.endswith("/mcp")]


@pytest.mark.parametrize(
    ("media", "body", "fits"),
    [
        ("application/json", {"name": "x", "code": "a = 1", "user": "foo"}, True),
        ("application/json", {"name": "x", "source": {"type": "inline", "code": "a = 1"}}, True),
        ("application/json", {"code": "a = 1"}, False),
        ("application/json", {"name": 1, "code": "a = 1"}, False),
        ("multipart/form-data", {"user": "foo", "data": "a = 1"}, True),
        ("multipart/form-data", {"user": "foo"}, False),
        ("multipart/form-data", {"data": "a = 1", "color": "red"}, False),
        ("application/x-www-form-urlencoded", {"name": "x"}, False),
    ],
)
def test_the_document_refuses_what_the_api_refuses(media: str, body: dict[str, Any], fits: bool):
    assert jsonschema.Draft202012Validator(taken("/faas/python", media)).is_valid(body) is fits
