"""What the doors answer: a value as JSON, and what a client learns of a failure.

Law: tracebacks stop here. A client learns the code, the message and the trace id.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bema.core.errors import BemaError, RemoteError
from bema.gateway.http.answers import answer
from bema.gateway.http.exchange import Exchange

__all__ = ["answer_json", "told"]

_JSON = (b"content-type", b"application/json")


def answer_json(exchange: Exchange, value: Any, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
    """The whole answer of an exchange; `BemaError` (remote_error) for a value that has no JSON form."""
    try:
        body = msgspec.json.encode(value) + b"\n"
    except (TypeError, ValueError, OverflowError) as error:
        raise BemaError(f"the answer has no JSON form: {error}", code="remote_error") from error
    head_only = exchange.method == b"HEAD"
    every = [_JSON, *headers, *exchange.timing]
    raw = answer(status, every, body, exchange.trace_id, close=not exchange.keeps(), head=head_only)
    exchange.begin_answer(raw, status)
    exchange.finish()


def told(error: BaseException) -> BemaError:
    """What a client learns of a failed call: builtin exceptions of the service arrive here as themselves."""
    if isinstance(error, BemaError):
        return error
    return RemoteError(f"{type(error).__qualname__}: {error}", type=type(error).__qualname__)
