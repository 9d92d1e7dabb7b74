"""Exceptions with a status of HTTP, raised by handlers of `bema.compat.dynamo.runtime`."""

import http
import io
import urllib.error
from collections.abc import AsyncIterator, Iterator
from email.message import Message
from typing import Any

import pytest
from starlette.exceptions import HTTPException

import bema.compat.dynamo.runtime as dynamo
from bema.compat.dynamo.statuses import CODES, LONGEST, mapped, status_of
from bema.core.errors import (
    BemaError,
    Conflict,
    DeadlineExceeded,
    Denied,
    Invalid,
    NotFound,
    Overloaded,
    Refused,
    RemoteError,
    TooLarge,
    Unavailable,
)
from bema.core.problems import PROBLEMS
from tests.compat.test_dynamo_runtime import run, served


class HttpError(Exception):
    """As the HTTP errors of that system are made."""

    def __init__(self, code: Any, message: str) -> None:
        self.code = code
        self.message = message


async def streaming(request: int) -> AsyncIterator[int]:
    yield 1
    raise HttpError(request, "no more")


def plainly_streaming(request: int) -> Iterator[int]:
    yield 1
    raise HttpError(request, "no more")


async def answering(request: int) -> int:
    raise HttpError(request, "no more")


def plain(request: int) -> int:
    raise HttpError(request, "no more")


async def with_context(request: int, context: dynamo.Context) -> AsyncIterator[int]:
    yield 1
    raise HttpError(request, "no more")


@pytest.mark.parametrize("handler", [streaming, plainly_streaming, answering, plain, with_context])
def test_whatever_the_handler_is_its_caller_catches_the_class_of_the_status(handler):
    async def story():
        async with served(handler) as endpoint:
            with pytest.raises(Denied, match="no more") as caught:
                async for _ in endpoint.client().generate(403):
                    pass
            assert (caught.value.code, caught.value.details) == ("forbidden", {"status": 403})
            with pytest.raises(RemoteError) as strange:  # not a status, so it stays what it is
                async for _ in endpoint.client().generate(200):
                    pass
            assert strange.value.type == "HttpError" and "Traceback" in strange.value.traceback

    run(story)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, Invalid, "invalid_argument"),
        (401, Denied, "unauthenticated"),
        (403, Denied, "forbidden"),
        (404, NotFound, "not_found"),
        (408, DeadlineExceeded, "deadline_exceeded"),
        (409, Conflict, "conflict"),
        (413, TooLarge, "too_large"),
        (418, Invalid, "invalid_argument"),
        (429, Overloaded, "rate_limited"),
        (499, BemaError, "cancelled"),
        (500, RemoteError, "remote_error"),
        (501, Refused, "not_supported"),
        (502, RemoteError, "remote_error"),
        (503, Unavailable, "unavailable"),
        (504, DeadlineExceeded, "deadline_exceeded"),
        (529, Overloaded, "overloaded"),
    ],
)
def test_a_status_is_of_one_class(status, kind, code):
    error = mapped(HttpError(status, "why"), status)
    assert (type(error), error.code, error.message, error.details["status"]) == (kind, code, "why", status)


def test_the_codes_are_of_the_one_table():
    assert set(CODES.values()) <= set(PROBLEMS)


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (HTTPException(404, "no such shelf"), 404, "no such shelf"),
        (HTTPException(http.HTTPStatus.CONFLICT), 409, "Conflict"),
        (HttpError(599, "  "), 599, "HTTP 599"),
        (HttpError(429, "x" * 10_000), 429, "x" * LONGEST),
    ],
)
def test_the_text_is_what_the_exception_says_under_a_name(error, status, says):
    assert status_of(error) == status
    assert mapped(error, status).message == says


def test_the_url_of_a_failed_fetch_does_not_travel():
    url = "https://bucket.example/object?signature=secret"
    error = urllib.error.HTTPError(url, 403, "Forbidden", Message(), io.BytesIO())
    assert "secret" not in str(vars(mapped(error, 403)))
    error.close()


@pytest.mark.parametrize("code", [399, 600, 0, "404", None, True, 404.0])
def test_what_is_no_status_of_a_failure_is_left_alone(code):
    assert status_of(HttpError(code, "")) is None


def test_our_own_exceptions_keep_their_code():
    class Busy(BemaError):
        code = "overloaded"
        status = 404

    async def busy(request: None) -> AsyncIterator[int]:
        yield 1
        raise Busy("full")

    async def story():
        async with served(busy) as endpoint:
            with pytest.raises(Overloaded, match="full"):
                async for _ in endpoint.client().generate(None):
                    pass

    run(story)
