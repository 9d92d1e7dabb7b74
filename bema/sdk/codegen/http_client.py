"""Typed clients of an HTTP API as text, made of its OpenAPI document.

Laws: the same document gives the same bytes. The module needs msgspec and the standard library. It has a method for each operation
that answers JSON, lines of JSON, text or nothing, and takes JSON or nothing; other ways to say the same are left out.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from bema.core.errors import Invalid
from bema.sdk.codegen.client import docstring
from bema.sdk.codegen.described import SchemaTypes, identifier
from bema.sdk.codegen.models import Names

_REF = "#/components/schemas/"
_JSON, _LINES = "application/json", "application/x-ndjson"
_TAKEN = {"Api", "ApiError", "Iterator", "HTTPResponse", "http", "json", "urllib"}

_OPENING = '''"""{title} {version} over HTTP: `Api(url, token)` calls it.

Made by `bema client gen --api`; made again of the same document, it is the same.
"""

from __future__ import annotations

import http.client
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import {typing}

import msgspec
'''

_ERROR = '''class ApiError(Exception):
    """What the API refused: the status of the answer, a code, what happened and what to do about it."""

    def __init__(self, status: int, code: str, message: str, fix: str) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.fix = fix'''

_API = '''class Api:
    """The operations; each raises `ApiError` for what is refused, and `OSError` where nothing answers.

    `url` is where the API answers, `token` the credential, `timeout` in seconds.
    """

    def __init__(self, url: str, token: str = "", timeout: float = 60.0) -> None:
        self._url = urllib.parse.urlsplit(url)
        self._token = token
        self._timeout = timeout

{methods}

    def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] = {{}},
        headers: Mapping[str, str | None] = {{}},
        body: object = None,
    ) -> http.client.HTTPResponse:
        """The answer, which closes its connection when it was read."""
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._url.hostname or "", self._url.port, timeout=self._timeout)
        asked = {{name: _said(value) for name, value in query.items() if value is not None}}
        sent = {{name: value for name, value in headers.items() if value is not None}}
        sent |= {{"Connection": "close"}}
        if self._token:
            sent["Authorization"] = f"Bearer {{self._token}}"
        if body is not None:
            sent["Content-Type"] = "application/json"
        where = self._url.path.rstrip("/") + path + ("?" + urllib.parse.urlencode(asked) if asked else "")
        connection.request(method, where, None if body is None else msgspec.json.encode(body), sent)
        answer = connection.getresponse()
        if answer.status >= 400:
            raise _refused(answer)
        return answer


def _said(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quoted(value: str) -> str:
    return urllib.parse.quote(value, safe="")


def _record(line: bytes) -> dict[str, Any]:
    """A line of a stream; a failure comes as the last one, because the status was sent before it."""
    record = msgspec.json.decode(line, type=dict[str, Any])
    if isinstance(record.get("error"), dict):
        raise _error(200, record["error"])
    return record


def _refused(answer: http.client.HTTPResponse) -> ApiError:
    try:
        said = msgspec.json.decode(answer.read(), type=dict[str, dict[str, object]])["error"]
    except (msgspec.DecodeError, KeyError):
        said = {{}}
    return _error(answer.status, said)


def _error(status: int, said: Mapping[str, object]) -> ApiError:
    told = (str(said.get(name, "")) for name in ("code", "message", "fix"))
    return ApiError(status, *told)'''


class _Parameter(NamedTuple):
    name: str  # in the module
    wire: str
    place: str  # path, query or header
    type: str


def module(document: Mapping[str, Any]) -> str:
    """The text of a module with a client of the API; `Invalid` for what is no OpenAPI document."""
    if not isinstance(document.get("paths"), dict) or not isinstance(document.get("info"), dict):
        raise Invalid("this is no OpenAPI document: it has no `paths` or no `info`")
    called = {identifier(said["operationId"], 0) for each in document["paths"].values() for said in each.values()}
    names = Names(stub=False, shadowed=called, taken=set(_TAKEN))
    types = SchemaTypes(document.get("components", {}).get("schemas", {}), _REF)
    methods = [
        _method(method.upper(), path, said, names, types)
        for path, operations in document["paths"].items()
        for method, said in operations.items()
    ]
    info = document["info"]
    opening = _OPENING.format(
        title=info.get("title", "The API"),
        version=info.get("version", ""),
        typing=", ".join(sorted(names.imported["typing"] | {"Any"})),
    )
    api = _API.format(methods=textwrap.indent("\n\n".join(methods), "    "))
    return "\n\n".join((opening, *(f"{model}\n" for model in names.models), _ERROR + "\n", api)) + "\n"


def _method(method: str, path: str, said: Mapping[str, Any], names: Names, types: SchemaTypes) -> str:
    parameters = [_parameter(each, names, types) for each in said.get("parameters", ())]
    content = said.get("requestBody", {}).get("content", {})
    body = names.of(types.of(content[_JSON]["schema"])) if _JSON in content else ""
    media, schema = _answered(said["responses"])
    returns = names.of(types.of(schema)) if media == _JSON else ""
    of_path = [p for p in parameters if p.place == "path"]
    optional = [p for p in parameters if p.place != "path"]
    heads = ["self", *(f"{p.name}: {p.type}" for p in of_path), *([f"body: {body}"] if body else [])]
    heads += ["*", *(f"{p.name}: {p.type} | None = None" for p in optional)] if optional else []
    result = {_JSON: returns, _LINES: "Iterator[dict[str, Any]]", "": "None"}.get(media, "str")
    where = re.sub(r"{(\w+)}", lambda found: f"{{_quoted({identifier(found[1], 0)})}}", path)
    literal = f'f"{where}"' if of_path else f'"{where}"'
    arguments = [f'"{method}"', literal, *_passed(optional), *(["body=body"] if body else [])]
    call = f"self._answer({', '.join(arguments)})"
    lines = [
        f"def {identifier(said['operationId'], 0)}({', '.join(heads)}) -> {result}:",
        textwrap.indent(docstring(said.get("summary") or path), "    "),
        *(f"    {line}" for line in _body(media, returns, call)),
    ]
    return "\n".join(lines)


def _parameter(said: Mapping[str, Any], names: Names, types: SchemaTypes) -> _Parameter:
    wire = said["name"]
    # an id is a text here as in every other field of the API
    schema = {name: value for name, value in said.get("schema", {}).items() if name != "format"}
    return _Parameter(identifier(wire.lower(), 0), wire, said["in"], names.of(types.of(schema)))


def _passed(parameters: list[_Parameter]) -> Iterator[str]:
    for place, argument in (("query", "query"), ("header", "headers")):
        found = [f'"{p.wire}": {p.name}' for p in parameters if p.place == place]
        if found:
            yield f"{argument}={{{', '.join(found)}}}"


def _answered(responses: Mapping[str, Any]) -> tuple[str, Any]:
    """The media type of a good answer, with its schema; empty where it has no body."""
    good = next(said for status, said in responses.items() if status.startswith("2"))
    return next(((media, said.get("schema", {})) for media, said in good.get("content", {}).items()), ("", {}))


def _body(media: str, returns: str, call: str) -> Iterator[str]:
    if media == _JSON:
        yield f"with {call} as answer:"
        yield f"    return msgspec.json.decode(answer.read(), type={returns})"
    elif media == _LINES:
        yield f"with {call} as answer:"
        yield "    for line in answer:"
        yield "        yield _record(line)"
    elif media:
        yield f"with {call} as answer:"
        yield "    return answer.read().decode()"
    else:
        yield f"{call}.close()"
