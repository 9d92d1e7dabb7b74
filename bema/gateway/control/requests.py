"""What a request of the control API says, read and refused in one way.

Law: whatever a client sent is its fault where it does not fit, and the error names the field.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import PurePath
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from bema.core.access import Principal, acting_for
from bema.core.errors import Invalid, NotFound, TooLarge
from bema.core.keys import check_user
from bema.core.naming import is_uuid
from bema.deploy.sources.names import name_of
from bema.gateway.control.bodies import CreateBody, CreateFields, CreateForm, ListBody

__all__ = ["acting", "asked_user", "body_of", "creation", "decoded", "flag", "id_of", "number"]

T = TypeVar("T")
_MULTIPART, _URLENCODED = "multipart/form-data", "application/x-www-form-urlencoded"
_MOST_FIELDS = 16
_FILE_NAME = ""  # no field has an empty name


def id_of(request: Request) -> str:
    given = str(request.path_params["id"])
    if not is_uuid(given):
        raise NotFound(f"{given!r} is not the id of a deployment")
    return given


def number(request: Request, name: str, default: int) -> int:
    given = request.query_params.get(name, "")
    if not given:
        return default
    # `int` takes signs, spaces and underscores, and 18 digits stay below 2^63.
    if not given.isdecimal() or len(given) > 18:
        raise Invalid(f"{name} is {given!r}, not a number")
    return int(given)


def flag(request: Request, name: str) -> bool:
    given = request.query_params.get(name, "false").lower()
    if given not in ("", "1", "true", "yes", "0", "false", "no"):
        raise Invalid(f"{name} is {given!r}, not true or false")
    return given in ("", "1", "true", "yes")


def acting(principal: Principal, user: str) -> Principal:
    """Who the request is made as, where it names `user`."""
    return acting_for(principal, check_user(user) if user else "")


async def asked_user(request: Request, most: int) -> str:
    """The user that a request without a body of its own names: in its query, or in the body `{"user": ...}`."""
    named, body = request.query_params.get("user", ""), await body_of(request, most)
    if not body:
        return named
    said = _converted(body, ListBody).user
    if named and said and named != said:
        raise Invalid(f"the query names the user {named!r}, and the body {said!r}")
    return said or named


async def creation(request: Request, most: int) -> CreateBody:
    """What is to be deployed, of a JSON body or of a form."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await body_of(request, most)
    if media == _MULTIPART:
        fields = await _parts(request, body)
    elif media == _URLENCODED:
        fields = _pairs(body)
    else:
        return _converted(body, CreateBody)
    return _of_form(fields) if media == _MULTIPART else _of_fields(fields)


def _of_form(fields: dict[str, Any]) -> CreateBody:
    file = fields.pop(_FILE_NAME, "")
    form = _fitting(fields, CreateForm)
    name = form.name or name_of(PurePath(file))
    if not name:
        raise Invalid("the form has no `name`, and its `data` is no file with one")
    return CreateBody(name=name, code=form.data, user=form.user)


def _of_fields(fields: dict[str, Any]) -> CreateBody:
    form = _fitting(fields, CreateFields)
    return CreateBody(name=form.name, code=form.data, user=form.user)


def _fitting(fields: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise Invalid(f"the form does not fit: {error}") from error


async def decoded(request: Request, kind: type[T], most: int) -> T:
    """A JSON body as a value of that type."""
    return _converted(await body_of(request, most), kind)


def _converted(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Invalid(f"the body does not fit: {error}") from error
    # Arrays within arrays end msgspec in a RecursionError, which is the client's fault as well.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"the body is not JSON: {error}", code="bad_request", fix="Send a JSON object.") from error


async def _parts(request: Request, body: bytes) -> dict[str, Any]:
    _, options = parse_options_header(request.headers["content-type"])
    end = b"\r\n--" + options.get(b"boundary", b"\0") + b"--"
    # looked at before it is parsed, because the parser takes one that was cut for whole, and leaves its file open
    if not (b"\r\n" + body).rstrip(b"\r\n").endswith(end):
        raise Invalid("the form cannot be read: it does not end with its boundary", code="bad_request")
    parser = MultiPartParser(
        request.headers, _once(body), max_files=1, max_fields=_MOST_FIELDS, max_part_size=len(body) + 1
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Invalid(f"the form cannot be read: {error.message}", code="bad_request") from error
    try:
        return await _fields(form)
    finally:
        await form.close()


async def _fields(form: FormData) -> dict[str, Any]:
    """The fields by name, a file as its text, and its name as that of `_FILE_NAME`."""
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name in fields:
            raise Invalid(f"the form has the field {name!r} twice")
        if not isinstance(value, UploadFile):
            fields[name] = value
            continue
        try:
            fields[name] = (await value.read()).decode()
        except UnicodeDecodeError as error:
            raise Invalid(f"{name} is not UTF-8: byte {error.start}", code="syntax_error") from error
        fields[_FILE_NAME] = value.filename or ""
    return fields


def _pairs(body: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise Invalid(f"the form cannot be read: {error}", code="bad_request") from error
    if len({name for name, _ in pairs}) < len(pairs):
        raise Invalid("the form has a field twice")
    return dict(pairs)


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


async def body_of(request: Request, most: int) -> bytes:
    """The whole body; `TooLarge` beyond `most` bytes."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise TooLarge(
                f"the request body is larger than {most} bytes", fix="Send less, or raise the limit http_body."
            )
    return body
