"""What an OpenAPI document says of durable calls: what a `POST` may prefer, and the paths of `calls/ID`. Pure data."""

from __future__ import annotations

from typing import Any, Final

from bema.core.schemas import Schema

__all__ = ["ACCEPTED", "CALL_PATHS", "PREFERENCES"]

_TEXT: Final[Schema] = {"type": "string"}
_INSTANT: Final[Schema] = {"type": "integer", "description": "Microseconds UTC."}
_STATES: Final = ["queued", "running", "sleeping", "asking", "paused", "done", "failed", "cancelled"]
_STATUS: Final[Schema] = {
    "type": "object",
    "properties": {
        "id": _TEXT,
        "endpoint": _TEXT,
        "state": {"enum": _STATES},
        "created": _INSTANT,
        "due": _INSTANT,
        "ended": _INSTANT,
        "waits": {"type": "array", "items": {"type": "object"}},
        "code": _TEXT,
        "why": _TEXT,
        **{name: {"type": "string", "format": "uri-reference"} for name in ("url", "result", "events")},
    },
    "required": ["id", "url", "result", "events"],
}


def _parameter(name: str, place: str, says: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": place, "description": says, "schema": _TEXT, **more}


def _answer(says: str, kind: str = "application/json", schema: Schema = _STATUS) -> dict[str, Any]:
    return {"description": says, "content": {kind: {"schema": schema}}}


PREFERENCES: Final = [
    _parameter("Prefer", "header", "`respond-async`: answer 202 at once; `wait=SECONDS`: when the call takes longer."),
    _parameter("Idempotency-Key", "header", "The same key with the same arguments is the same call."),
]
"""The headers of a `POST` to a durable endpoint."""

_WHERE: Final = {"Location": {"description": "The URL of the call.", "schema": _TEXT}}
ACCEPTED: Final = {**_answer("The call is written down, and goes on."), "headers": _WHERE}
"""The answer to it before the call has ended."""

_ID: Final = _parameter("id", "path", "The id of the call.", required=True)
_LAST: Final = _parameter("Last-Event-ID", "header", "The id of the last event that was read.")
CALL_PATHS: Final = {
    "/calls/{id}": {
        "parameters": [_ID],
        "get": {"operationId": "$status", "summary": "Where a call is.", "responses": {"200": _answer("Its status.")}},
        "delete": {
            "operationId": "$cancel",
            "summary": "Ask for the end of a call.",
            "responses": {"200": _answer("It has ended."), "202": _answer("It is ending.")},
        },
    },
    "/calls/{id}/result": {
        "parameters": [_ID, PREFERENCES[0]],
        "get": {
            "operationId": "$result",
            "summary": "How a call ended: what a direct call would have been answered.",
            "responses": {"200": _answer("Its result.", schema={}), "202": _answer("It has not ended.")},
        },
    },
    "/calls/{id}/events": {
        "parameters": [_ID, _LAST],
        "get": {
            "operationId": "$events",
            "summary": "Each step and state of a call, as they come.",
            "responses": {
                "200": _answer("Events `step`, `state`, `restarted`, `end`.", "text/event-stream", {"type": "object"}),
                "204": {"description": "It has ended, and all was told."},
            },
        },
    },
}
"""The paths of the calls of a service."""
