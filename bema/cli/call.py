"""`bema call`: one call from the shell, with what the instances themselves tell of the endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import click
import msgspec

from bema.cli import output
from bema.core import describe
from bema.core.describe import Description
from bema.core.errors import BemaError, Invalid, RemoteError, Unavailable
from bema.core.instance import EndpointInfo
from bema.core.naming import Address, component_of
from bema.runtime.distributed import DistributedRuntime, connect
from bema.runtime.handles import EndpointClient


@click.command()
@click.argument("address")
@click.argument("arguments", nargs=-1, metavar="[K=V]...")
@click.option("-d", "--data", metavar="JSON", help="All arguments as one JSON value; `-` reads it from stdin.")
@click.option("--stream", is_flag=True, help="Print answers as they come.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Give up after this time.")
@click.option("--wait", type=float, default=0.0, metavar="SECONDS", help="Wait this long for an instance to appear.")
@output.json_option
def command(
    address: str,
    arguments: tuple[str, ...],
    data: str | None,
    stream: bool,
    timeout: float | None,
    wait: float,
    as_json: bool,
) -> None:
    """Call an endpoint of a running service, or list its endpoints.

    ADDRESS is namespace.component.endpoint[@instance]; without an endpoint, the endpoints are listed with their types, with --json as
    the whole description. K=V are parameters by name; where the endpoint has one parameter of a struct type, they are its fields. A value is
    read as JSON where that works and as text where it does not. An endpoint that takes a stream reads JSON lines from
    stdin.
    """
    if (component := component_of(address)) is not None:
        if arguments or data is not None:
            raise Invalid(f"{address} names no endpoint: `bema call {address}` lists them", code="usage")
        asyncio.run(_list(*component, wait, as_json))
        return
    place = Address.parse(address)
    given = dict(map(_pair, arguments))
    if data is not None and given:
        raise Invalid("arguments come as K=V or as --data, not both", code="usage")
    whole = _json(sys.stdin.read() if data == "-" else data) if data is not None else None
    try:
        asyncio.run(_call(place, given, whole, data is not None, stream, timeout, wait, as_json))
    except (BemaError, BrokenPipeError):
        raise
    # Python's own exceptions arrive as themselves: they are the service's, and no fault of ours
    except Exception as error:
        raise _theirs(place, error) from error


def _theirs(place: Address, error: Exception) -> RemoteError:
    """What the service raised: its failure, not ours."""
    log = [line for note in getattr(error, "__notes__", ()) for line in note.splitlines()]
    kind = type(error).__qualname__
    return RemoteError(f"{place} raised {kind}: {error}", type=kind, log=log)


async def _list(namespace: str, name: str, wait: float, as_json: bool) -> None:
    async with connect() as runtime:
        component = runtime.namespace(namespace).component(name)
        try:
            description = await component.description(wait=wait)
        except Unavailable as error:
            if (await runtime.view(namespace, name)).instances():
                raise
            missing = (
                f"address '{component.address}' is not namespace.component.endpoint, and no such component is there"
            )
            raise Invalid(missing, code="bad_name", fix="`bema ls` shows what is there.") from error
    if as_json:
        output.print_json(msgspec.json.decode(describe.encode(description)))
        return
    output.print_text(f"{description.address} {description.version}".rstrip())
    for endpoint in description.endpoints:
        marks = "  (idempotent)" if endpoint.idempotent else ""
        output.print_text(f"  {endpoint.signature}{marks}")
        if endpoint.doc:
            output.print_text(f"      {endpoint.doc.splitlines()[0]}")
    for model, fields in _models(description):
        output.print_text(f"{model}: {fields}")


def _models(description: Description) -> Iterator[tuple[str, str]]:
    """The fields of what endpoints speak in, those that may be left out with a question mark."""
    for name, schema in description.definitions.items():
        required = schema.get("required", ())
        fields = [field if field in required else f"{field}?" for field in schema.get("properties", ())]
        if fields:
            yield name, ", ".join(fields)


async def _call(
    place: Address,
    given: dict[str, Any],
    whole: Any,
    has_whole: bool,
    stream: bool,
    timeout: float | None,
    wait: float,
    as_json: bool,
) -> None:
    async with connect() as runtime:
        client = runtime.endpoint(place.route).client(timeout=timeout, wait=wait, instance=place.instance)
        # K=V may be parameters, or the fields of the only one: the instance alone knows
        info = await client.told()
        try:
            arguments = from_json(info, whole) if has_whole else from_pairs(info, given)
            if info.shape.streams_in:
                arguments["requests"] = _lines()
            if info.shape.streams_out:
                await _print_stream(client, arguments, stream, as_json)
            else:
                _print(await client(**arguments), as_json, line=False)
        except Invalid as error:
            raise await _typed(error, runtime, place) from error


async def _typed(error: Invalid, runtime: DistributedRuntime, place: Address) -> Invalid:
    """The same with what the endpoint takes, where nothing better is known and the instance says it."""
    if error.fix == error.problem.fix:
        with contextlib.suppress(BemaError):
            component = runtime.namespace(place.namespace).component(place.component)
            if (said := (await component.description()).endpoint(place.endpoint)) is not None:
                error.fix = f"It is {said.signature}."
    return error


async def _print_stream(client: EndpointClient, arguments: dict[str, Any], stream: bool, as_json: bool) -> None:
    kept = []
    async with contextlib.aclosing(client.follow((), arguments)) as answers:
        async for answer in answers:
            if stream or not as_json:
                _print(answer, as_json, line=True)
            else:
                kept.append(answer)
    if as_json and not stream:
        output.print_json(kept)


def _print(answer: Any, as_json: bool, *, line: bool) -> None:
    if line and (as_json or not isinstance(answer, str)):
        output.print_json_line(answer)
    elif as_json or not isinstance(answer, (str, type(None))):
        output.print_json(answer)
    elif answer is not None:
        output.print_text(answer)
        sys.stdout.flush()


async def _lines() -> AsyncIterator[Any]:
    """JSON lines of stdin, read in a thread: the loop goes on."""
    # a loop reads pipes and terminals, and no regular file
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line.strip():
            yield _json(line)


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise Invalid(f"{text!r} is not of the form name=value", code="usage")
    if any("\ud800" <= letter <= "\udfff" for letter in value):  # how Python shows bytes that it cannot read (PEP 383)
        raise Invalid(f"the value of {name} is no UTF-8", code="usage", fix="Pass it as JSON with escapes: --data.")
    # a guess: the receiver holds the value against its signature, and says what it takes
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Invalid(f"this is not JSON: {error}", code="usage") from error


def from_pairs(info: EndpointInfo, given: dict[str, Any]) -> dict[str, Any]:
    """Arguments by name from K=V; `Invalid` names what the endpoint does not take."""
    names, fields = info.parameters, info.fields
    if names is None or (unknown := given.keys() - set(names)) == set():
        return given if names is None or fields is None or given else {names[0]: {}}
    if fields is None or len(given) != len(unknown):
        raise Invalid(f"{info.name} takes {_listed(names)}, not {_listed(sorted(unknown))}")
    if strange := unknown - set(fields):
        raise Invalid(f"{info.name} takes {names[0]} with {_listed(fields)}, not {_listed(sorted(strange))}")
    return {names[0]: given}


def from_json(info: EndpointInfo, value: Any) -> dict[str, Any]:
    """Arguments by name from one JSON value: an object by name or by field, anything else as the only argument."""
    names = info.parameters
    if isinstance(value, dict) and (names is None or value.keys() <= set(names)) and (value or info.fields is None):
        return value
    if names is not None and len(names) == 1:
        return {names[0]: value}
    if isinstance(value, dict):
        return from_pairs(info, value)
    raise Invalid(f"{info.name} takes {_listed(names or ())}: pass an object with these names")


def _listed(names: Any) -> str:
    return ", ".join(names) or "nothing"
