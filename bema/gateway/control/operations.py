"""The control API as one table: what is served, what it takes, what it answers.

Law: routes, the OpenAPI document and the documentation page are made from this table; none of them knows a path of its own.
"""

from __future__ import annotations

import html
from typing import Any, NamedTuple

import msgspec

from bema.core.access import Scope
from bema.core.redaction import hides
from bema.core.version import VERSION
from bema.deploy.model.deployment import DataInfo, DeploymentInfo, InstanceInfo
from bema.deploy.model.stack import Profile, Stack

__all__ = ["OPERATIONS", "CreateBody", "DataFolders", "Function", "Functions", "Inline", "Operation", "openapi", "page"]


class Inline(msgspec.Struct, frozen=True, tag_field="type", tag="inline"):
    """The script itself."""

    code: str


class CreateBody(msgspec.Struct, frozen=True):
    """A script to deploy: either `source`, or `code` for short."""

    name: str
    source: Inline | None = None
    code: str | None = None
    env: dict[str, str] = {}
    __repr__ = hides("env")


class Function(DeploymentInfo, frozen=True, kw_only=True):
    """A deployment as the API shows it: `url` is where the data listener answers for it."""

    url: str


class Functions(msgspec.Struct, frozen=True):
    items: list[Function]
    next: str | None = None


class DataFolders(msgspec.Struct, frozen=True):
    items: list[DataInfo]


class Operation(NamedTuple):
    """One row: `answers` maps a status to the type or media type of its body."""

    method: str
    path: str
    name: str
    says: str
    answers: dict[int, Any]
    takes: Any = None
    query: tuple[tuple[str, type, str], ...] = ()
    header: tuple[tuple[str, str], ...] = ()
    scope: Scope = Scope.STATUS  # what who asks must be permitted
    open: bool = False  # needs no token


_WHICH = (("version", str, "one of that version, `v3`"), ("instance", str, "the one of that id"))

OPERATIONS = (
    Operation(
        "POST",
        "/faas/python",
        "create",
        "Deploy a Python script.",
        {202: Function},
        takes=CreateBody,
        header=(("Idempotency-Key", "the same key with the same body deploys once"),),
        scope=Scope.WRITE,
    ),
    Operation(
        "GET",
        "/faas/python",
        "list",
        "List deployments, oldest first.",
        {200: Functions},
        query=(("after", str, "`next` of the page before"), ("count", int, "most items of one page")),
        scope=Scope.READ,
    ),
    Operation("GET", "/faas/python/{id}", "read", "Read one deployment.", {200: Function}, scope=Scope.READ),
    Operation(
        "DELETE",
        "/faas/python/{id}",
        "delete",
        "Stop a deployment and forget it; what it wrote is kept for the next one of its name.",
        {204: None},
        query=(("purge", bool, "delete what it wrote, too"),),
        scope=Scope.WRITE,
    ),
    Operation(
        "GET",
        "/faas/python/{id}/logs",
        "logs",
        "Log lines, one JSON object per line.",
        {200: "application/x-ndjson"},
        query=(
            ("tail", int, "how many of the last lines"),
            ("follow", bool, "stay and send new lines as they come"),
            ("since", int, "only lines after this instant, microseconds UTC"),
        ),
        scope=Scope.READ,
    ),
    Operation(
        "GET",
        "/faas/python/{id}/stack",
        "stack",
        "Where the threads and tasks of an instance stand.",
        {200: Stack},
        query=_WHICH,
        scope=Scope.READ,
    ),
    Operation(
        "GET",
        "/faas/python/{id}/profile",
        "profile",
        "Where the time of an instance goes, from now on.",
        {200: Profile},
        query=(
            ("seconds", int, "how long it is looked at; 5 unless said"),
            ("idle", bool, "weigh the threads that wait, too"),
            *_WHICH,
        ),
        scope=Scope.READ,
    ),
    Operation(
        "GET",
        "/faas/data",
        "data",
        "What functions wrote, by the name of their deployment.",
        {200: DataFolders},
        query=(
            ("name", str, "only that of the function of this name"),
            ("kept", bool, "only what no deployment has any more"),
        ),
        scope=Scope.READ,
    ),
    Operation(
        "DELETE",
        "/faas/data/{id}",
        "purge",
        "Delete what was kept of a deployment that is gone.",
        {204: None},
        scope=Scope.WRITE,
    ),
    Operation("GET", "/status", "status", "What runs here.", {200: dict[str, Any]}),
    Operation("GET", "/metrics", "metrics", "Counters as Prometheus text.", {200: "text/plain"}),
    # a browser sends no bearer token, and these tell what every user of this version can read in the manual
    Operation("GET", "/openapi.json", "document", "This API as OpenAPI.", {200: dict[str, Any]}, open=True),
    Operation("GET", "/docs", "docs", "This API as a page.", {200: "text/html"}, open=True),
    Operation("GET", "/healthz", "health", "Whether this process answers.", {200: dict[str, Any]}, open=True),
    Operation("GET", "/readyz", "ready", "Whether the orchestrator answers too.", {200: dict[str, Any]}, open=True),
)

_ERROR = {
    "description": "What failed, and the remedy",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "error": {
                        "type": "object",
                        "properties": {key: {"type": "string"} for key in ("code", "message", "fix", "trace_id")},
                        "required": ["code", "message", "fix", "trace_id"],
                    }
                },
                "required": ["error"],
            }
        }
    },
}
_JSON_TYPES = {str: "string", int: "integer", bool: "boolean"}


def openapi(url: str) -> dict[str, Any]:
    """The API as an OpenAPI 3.1 document."""
    types = (CreateBody, DataFolders, Function, Functions, InstanceInfo, Profile, Stack)
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "bema", "version": VERSION, "description": "Deploy scripts and reach them."},
        "servers": [{"url": url}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
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
    if "{id}" in operation.path:
        named: dict[str, Any] = {"name": "id", "in": "path", "required": True}
        parameters.append(named | {"schema": {"type": "string", "format": "uuid"}})
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.says,
        "responses": {str(status): _body(kind) for status, kind in operation.answers.items()} | {"default": _ERROR},
    }
    if parameters:
        described["parameters"] = parameters
    if operation.takes is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _schema(operation.takes)}},
        }
    if operation.open:
        described["security"] = []
    return described


def _body(kind: Any) -> dict[str, Any]:
    if kind is None:
        return {"description": "Done"}
    media, schema = (kind, {"type": "string"}) if isinstance(kind, str) else ("application/json", _schema(kind))
    return {"description": "Done", "content": {media: {"schema": schema}}}


def _schema(kind: Any) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components((kind,), ref_template="#/components/schemas/{name}")
    return schema
