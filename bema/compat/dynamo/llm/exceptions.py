"""`dynamo.llm.exceptions`: the exceptions of the runtime, and the one that has an HTTP status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bema.compat.dynamo.refused import refuse
from bema.compat.dynamo.runtime import (
    Cancelled,
    CannotConnect,
    ConnectionTimeout,
    Disconnected,
    DynamoException,
    EngineShutdown,
    InvalidArgument,
    RouterQueueLimitExceeded,
    StreamIncomplete,
    Unknown,
    WorkerUnavailable,
)
from bema.compat.dynamo.statuses import LONGEST

__all__ = [
    "Cancelled",
    "CannotConnect",
    "ConnectionTimeout",
    "Disconnected",
    "DynamoException",
    "EngineShutdown",
    "HttpError",
    "InvalidArgument",
    "RouterQueueLimitExceeded",
    "StreamIncomplete",
    "Unknown",
    "WorkerShutdown",
    "WorkerUnavailable",
]

WorkerShutdown = EngineShutdown


class HttpError(Exception):
    """Raised by a handler: its caller gets the error of that status, with the message."""

    def __init__(self, code: int, message: str) -> None:
        if not isinstance(code, int) or isinstance(code, bool) or not 0 <= code < 600:
            raise ValueError(f"the code of an HttpError is a whole number from 0 to 599, not {code!r}")
        if not isinstance(message, str):
            raise ValueError(f"the message of an HttpError is text, not {message!r}")
        self.code = code
        self.message = message if len(message) <= LONGEST else f"{message[: LONGEST - 3]}..."
        super().__init__(f"HTTP {code}: {self.message}")


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        return refuse("dynamo.llm.exceptions", name)
