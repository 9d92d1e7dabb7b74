"""The control API for programs, as an OpenAPI document, and for people, as a page.

Law: both are made of the table of operations and of the types that it names.
"""

from __future__ import annotations

import html
import re
from typing import Any

import msgspec

from bema.core.version import VERSION
from bema.gateway.control.bodies import ErrorBody
from bema.gateway.control.operations import OPERATIONS, Operation
from bema.gateway.control.sources import KINDS

__all__ = ["openapi", "page"]

_FORMATS = {"id": {"format": "uuid"}}
_JSON_TYPES = {str: "string", int: "integer", bool: "boolean"}


def openapi(url: str) -> dict[str, Any]:
    """The API as an OpenAPI 3.1 document."""
    types = [
        kind
        for row in OPERATIONS
        for kind in (row.takes, *dict(row.forms).values(), *row.answers.values())
        if isinstance(kind, type)
    ]
    _, schemas = msgspec.json.schema_components(
        dict.fromkeys([*types, ErrorBody, *KINDS.values()]), ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "bema", "version": VERSION, "description": "Deploy scripts and reach them."},
        "servers": [{"url": url}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": _readable(schemas),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def page() -> str:
    """The table as HTML that needs nothing else."""
    rows = "".join(
        f"<h2><code>{operation.method} {html.escape(operation.path)}</code></h2><p>{html.escape(operation.says)}</p>"
        + "".join(f"<p><code>{name}</code> {html.escape(says)}</p>" for name, _, says in operation.query)
        + "".join(f"<p><code>{name}</code> {html.escape(says)}</p>" for name, says in operation.header)
        for operation in OPERATIONS
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>bema API</title>'
        "<style>body{font:16px/1.5 system-ui;max-width:46rem;margin:2rem auto;padding:0 1rem}"
        "h2{font-size:1.1rem;margin:1.6rem 0 .2rem}p{margin:.2rem 0}code{background:#8882;padding:.1rem .3rem}</style>"
        f"<h1>bema {VERSION}</h1><p>Send <code>Authorization: Bearer TOKEN</code>; <code>bema status</code> prints the"
        " token's file. The same as a document: <code>/openapi.json</code>.</p>"
        f"{rows}</html>"
    )


def _described(operation: Operation) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "query", "description": says, "schema": {"type": _JSON_TYPES[kind]}}
        for name, kind, says in operation.query
    ]
    parameters += [
        {"name": name, "in": "header", "description": says, "schema": {"type": "string"}}
        for name, says in operation.header
    ]
    parameters += [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", **_FORMATS.get(name, {})}}
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    error = _body(ErrorBody) | {"description": "What failed, and the remedy"}
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.says,
        "responses": {str(status): _body(kind) for status, kind in operation.answers.items()} | {"default": error},
    }
    if parameters:
        described["parameters"] = parameters
    if operation.takes is not None:
        taken = {"application/json": operation.takes} | dict(operation.forms)
        content = {media: {"schema": _schema(kind)} for media, kind in taken.items()}
        described["requestBody"] = {"required": True, "content": content}
    if operation.open:
        described["security"] = []
    return described


def _readable(schema: Any) -> Any:
    """Without `items: false`: `maxItems` says it already, and generators read no schema that is a boolean."""
    if isinstance(schema, dict):
        return {key: _readable(value) for key, value in schema.items() if (key, value) != ("items", False)}
    return [_readable(each) for each in schema] if isinstance(schema, list) else schema


def _body(kind: Any) -> dict[str, Any]:
    if kind is None:
        return {"description": "Done"}
    media, schema = (kind, {"type": "string"}) if isinstance(kind, str) else ("application/json", _schema(kind))
    return {"description": "Done", "content": {media: {"schema": schema}}}


def _schema(kind: Any) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components((kind,), ref_template="#/components/schemas/{name}")
    return schema
