"""A service as an OpenAPI document: its description, said as the paths of its door.

Law: pure, and nothing of its own: what is not in the description is not in the document.
"""

from __future__ import annotations

from typing import Any

from bema.core.describe import Description, EndpointDescription
from bema.core.schemas import Schema
from bema.core.spec import Shape
from bema.gateway.doors.openapi_calls import ACCEPTED, CALL_PATHS, PREFERENCES

VERSION = "3.1.0"  # the first whose schemas are JSON Schema 2020-12
_DEFINITIONS, _COMPONENTS = "#/$defs/", "#/components/schemas/"
_ERROR: Schema = {
    "type": "object",
    "properties": {
        "error": {"type": "object", "properties": {"code": {"type": "string"}, "message": {"type": "string"}}}
    },
}


def document(description: Description, url: str) -> dict[str, Any]:
    """The document of a service at `url`. Endpoints that take a stream are left out: HTTP cannot carry them here."""
    paths: dict[str, Any] = {
        f"/{e.name}": {"post": _operation(e)} for e in description.endpoints if not e.shape.streams_in
    }
    if any(map(_later, description.endpoints)):
        paths |= CALL_PATHS
    made = {
        "openapi": VERSION,
        "info": {
            "title": description.address,
            "version": description.version or description.digest[:12] or "0",
            "description": description.doc,
        },
        "servers": [{"url": url}],
        "paths": paths,
        "components": {"schemas": description.definitions},
    }
    moved: dict[str, Any] = _moved(made)
    return moved


def _operation(endpoint: EndpointDescription) -> dict[str, Any]:
    streams = endpoint.shape is Shape.STREAM
    kind = "text/event-stream" if streams else "application/json"
    said = "One event for each answer." if streams else "The answer."
    later = {"parameters": PREFERENCES} if _later(endpoint) else {}
    return {
        **later,
        "operationId": endpoint.name,
        "summary": endpoint.doc.partition("\n")[0],
        "description": endpoint.doc,
        "requestBody": {"content": {"application/json": {"schema": _body(endpoint)}}},
        "responses": {
            "200": {"description": said, "content": {kind: {"schema": endpoint.response}}},
            **({"202": ACCEPTED} if _later(endpoint) else {}),
            "default": {"description": "An error.", "content": {"application/json": {"schema": _ERROR}}},
        },
    }


def _later(endpoint: EndpointDescription) -> bool:
    return endpoint.durable or (endpoint.idempotent and endpoint.shape is Shape.UNARY)


def _body(endpoint: EndpointDescription) -> Schema:
    """Parameters by name, or the only parameter where that is a model."""
    properties = endpoint.request.get("properties", {})
    only = next(iter(properties.values())) if len(properties) == 1 else {}
    # The door takes the fields of the only parameter too, where that is a model.
    return {"anyOf": [endpoint.request, only]} if "$ref" in only else endpoint.request


def _moved(part: Any) -> Any:
    if isinstance(part, list):
        return [_moved(each) for each in part]
    if isinstance(part, dict):
        return {name: _moved(each) for name, each in part.items()}
    # Only whole references begin so; a description that mentions the text keeps it.
    return part.replace(_DEFINITIONS, _COMPONENTS) if isinstance(part, str) and part.startswith(_DEFINITIONS) else part
