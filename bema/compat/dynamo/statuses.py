"""Exceptions with an HTTP status, as errors that a caller can catch by class.

A handler's exception with an HTTP status (`code`, `status` or `status_code`) reaches the caller as the error of that
status. Law: only the attribute that holds the exception's message travels, never the whole exception, since some libraries
put a URL with its signature there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec

from bema.core.call import Call, Handler, Stream, Unary
from bema.core.errors import BemaError, RemoteError, of_code
from bema.core.spec import EndpointSpec
from bema.runtime import threads

LONGEST = 8192  # characters of a message

CODES: dict[int, str] = {
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    408: "deadline_exceeded",
    409: "conflict",
    413: "too_large",
    429: "rate_limited",
    431: "too_large",
    499: "cancelled",
    501: "not_supported",
    503: "unavailable",
    504: "deadline_exceeded",
    529: "overloaded",
}
"""Every other status below 500 is `invalid_argument`, every other one `remote_error`."""


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an exception has, if it has one of a failure."""
    for name in ("code", "status", "status_code"):
        value = getattr(error, name, None)
        # many exceptions have a `code` that is no HTTP status
        if isinstance(value, int) and 400 <= value <= 599:
            return int(value)
    return None


def mapped(error: Exception, status: int) -> BemaError:
    """What the caller of a handler that raised it gets; its `details` have the status."""
    # by these attributes alone: `str()` of some libraries' errors holds a URL with its signature
    texts = (getattr(error, name, None) for name in ("message", "msg", "detail", "reason"))
    text = next((text.strip() for text in texts if isinstance(text, str) and text.strip()), f"HTTP {status}")[:LONGEST]
    code = CODES.get(status, "invalid_argument" if status < 500 else "remote_error")
    if code == "remote_error":
        return RemoteError(text, type=type(error).__qualname__, status=status)
    return of_code(code, text, status=status)


def mapping(handler: Handler, spec: EndpointSpec) -> tuple[Handler, EndpointSpec]:
    """The handler, whose exceptions with a status are raised as ours, and its spec: it runs in the loop, whatever it was."""
    streams = spec.shape.streams_out
    if spec.threaded:
        plain: Any = handler
        handler = threads.stream_in_thread(plain) if streams else threads.unary_in_thread(plain)
    found = _stream(cast("Stream", handler)) if streams else _unary(cast("Unary", handler))
    return found, msgspec.structs.replace(spec, threaded=False)


def _unary(answer: Unary) -> Unary:
    async def unary(call: Call) -> Any:
        try:
            return await answer(call)
        except Exception as error:
            _raise_mapped(error)
            raise

    return unary


def _stream(answers: Stream) -> Stream:
    async def stream(call: Call) -> AsyncIterator[Any]:
        try:
            items = answers(call)
            try:
                async for item in items:
                    yield item
            finally:
                if (close := getattr(items, "aclose", None)) is not None:
                    await close()
        except Exception as error:
            _raise_mapped(error)
            raise

    return stream


def _raise_mapped(error: Exception) -> None:
    status = None if isinstance(error, BemaError) else status_of(error)
    if status is not None:
        raise mapped(error, status) from error
