"""An endpoint of a deployed service as HTTP: `POST /gateway/ID/ENDPOINT` with a JSON body, JSON or events back.

`GET` of its URL lists the endpoints as their description has them, `GET .../openapi.json` the same as OpenAPI.

Laws: values pass from one encoding to the other without being understood here; what fits a parameter the instance decides.
Tracebacks stop at this door: a client learns the code, the message and the trace id. All requests for one endpoint of a
deployment share one client, hence one retry budget.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from bema.core.describe import Description, EndpointDescription
from bema.core.errors import Invalid, NotFound
from bema.core.instance import EndpointInfo
from bema.core.spec import Shape
from bema.gateway.doors import openapi
from bema.gateway.doors.call_routes import CALLS, CallRoutes
from bema.gateway.doors.durable_calls import DurableCalls
from bema.gateway.doors.event_stream import EventStream
from bema.gateway.doors.json_answers import answer_json, told
from bema.gateway.doors.preferences import Preferences
from bema.gateway.http.answers import content
from bema.gateway.http.exchange import Exchange
from bema.gateway.routing.choice import InstanceRoute
from bema.runtime.discovery.discovery import View
from bema.runtime.rpc.client import Client
from bema.runtime.rpc.descriptions import Descriptions
from bema.runtime.rpc.pool import ConnectionPool

__all__ = ["Doors", "arguments_of"]

InstancesOf = Callable[[str], View]
"""The instances of a deployment, by its id."""

_MOST = 1024  # deployments whose clients are kept; of another the oldest is let go
_OPENAPI = "openapi.json"  # no Python identifier, so no endpoint
_PATIENCE = 2.0  # seconds that a listing waits for a description; then it is what the record says


class _Clients(NamedTuple):
    """The clients of one deployment; `stop` ends the watch over its instances."""

    by_route: dict[str, Client]
    stop: Callable[[], None]


class Doors:
    """Calls instances over RPC on behalf of HTTP clients; one connection per instance for all of them."""

    def __init__(self, pool: ConnectionPool, instances_of: InstancesOf) -> None:
        self._pool = pool
        self._descriptions = Descriptions(pool)
        self._instances_of = instances_of
        self._durable_calls = DurableCalls(pool, instances_of)
        self._calls = CallRoutes(self._durable_calls)
        self._kept: dict[str, _Clients] = {}

    async def serve(self, exchange: Exchange, route: InstanceRoute) -> None:
        """Answer one request to an instance that speaks RPC."""
        name = unquote(exchange.to.target.partition(b"?")[0].decode().strip("/"))
        if name in ("", _OPENAPI):
            _only(exchange, b"GET", b"HEAD")
            # Read to its end although nobody wants it: what is left would be the next request's
            # head.
            await exchange.whole_body()
            said = await self._descriptions.shown(route.instance, _PATIENCE)
            answer_json(
                exchange, openapi.document(said, f"/gateway/{route.deployment}") if name else _listed(said, route)
            )
            return
        if name.startswith(CALLS):
            await self._calls.serve(exchange, route.deployment, name)
            return
        info = await self._info(route, name)
        _only(exchange, b"POST")
        if info.shape.streams_in:
            raise Invalid(f"{name} takes a stream of requests, which HTTP cannot carry here", code="not_supported")
        if exchange.head.expects_continue and not exchange.complete:
            exchange.client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        arguments = arguments_of(await exchange.whole_body(), info)
        instance = route.instance
        # who asks for an idempotent one to be called later has it kept; all others are answered by the instance itself
        if info.durable or (info.later and Preferences.of(exchange.head).respond_async):
            address = f"{instance.component_address}.{name}"
            await self._calls.begin(exchange, route.deployment, address, arguments, _timeout(exchange))
            return
        client = self._client(route.deployment, f"{instance.component_address}.{name}")
        options: dict[str, Any] = {
            "timeout": _timeout(exchange),
            "metadata": {"traceparent": exchange.trace},
            # The table chose it, in turn; a picker would choose a second time.
            "instance": instance.id,
        }
        if info.shape is Shape.STREAM:
            async with client.stream(arguments, **options) as stream:
                await _stream(exchange, aiter(stream))
            return
        try:
            value = await client.unary(arguments, **options)
        except Exception as error:  # noqa: BLE001 - the HTTP door: a service raises what it likes
            raise told(error) from None
        answer_json(exchange, value)

    async def _info(self, route: InstanceRoute, name: str) -> EndpointInfo:
        if (info := next((info for info in route.instance.endpoints if info.name == name), None)) is not None:
            return info
        # the owner of durable calls alone shows their endpoints: this instance may be another, or about to become it
        if name not in route.instance.data.get("durable", ()):
            raise NotFound(f"the service has no endpoint {name!r}", fix="GET its URL lists the endpoints.")
        return await self._durable_calls.endpoint(route.deployment, name)

    def _client(self, deployment: str, route: str) -> Client:
        """The client of an endpoint, kept until the last instance of its deployment has gone."""
        view = self._instances_of(deployment)
        if not view.instances():
            return Client(self._pool, view, route)  # it went just now: nothing of it is kept
        kept = self._kept.get(deployment)
        if kept is None:
            while len(self._kept) >= _MOST:
                self._let_go(next(iter(self._kept)))
            stop = view.subscribe(lambda: None if view.instances() else self._let_go(deployment))
            kept = self._kept[deployment] = _Clients({}, stop)
        if (client := kept.by_route.get(route)) is None:
            client = kept.by_route[route] = Client(self._pool, view, route)
        return client

    def _let_go(self, deployment: str) -> None:
        self._kept.pop(deployment).stop()


def arguments_of(body: bytes, info: EndpointInfo) -> dict[str, Any]:
    """Arguments by parameter name: a JSON object of them, or of the only parameter's fields; nothing for no body."""
    if not body.strip():
        return {}
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"the body is not JSON: {error}", code="bad_request") from error
    only = info.parameters[0] if info.parameters is not None and len(info.parameters) == 1 else None
    if not isinstance(given, dict):
        raise Invalid(f"the body of {info.name} is {type(given).__name__}, not an object of parameters by name")
    if only is not None and info.fields is not None and not (only in given and only not in info.fields):
        return {only: given}
    return given


def _only(exchange: Exchange, *methods: bytes) -> None:
    if exchange.method not in methods:
        names = b", ".join(methods).decode()
        what = f"{exchange.method.decode()} is not served here, {names} is"
        raise Invalid(what, code="method_not_allowed", allow=names)


def _timeout(exchange: Exchange) -> float | None:
    given = exchange.head.header(b"x-timeout-ms")
    if given is None:
        return None
    if not given.isdigit() or len(given) > 12 or not int(given):
        raise Invalid("x-timeout-ms is not a number of milliseconds", code="bad_request")
    return int(given) / 1000


def _listed(said: Description, route: InstanceRoute) -> dict[str, Any]:
    """The endpoints that its record shows, with what its description says of each."""
    endpoints = [_described(info, said.endpoint(info.name)) for info in route.instance.endpoints]
    return {
        "name": said.address,
        "version": said.version,
        "doc": said.doc,
        "digest": said.digest,
        "endpoints": endpoints,
        "$defs": said.definitions,
    }


def _described(info: EndpointInfo, said: EndpointDescription | None) -> dict[str, Any]:
    more = {} if said is None else {name: getattr(said, name) for name in ("doc", "request", "items", "response")}
    return {
        "name": info.name,
        "shape": str(info.shape),
        "idempotent": info.idempotent,
        "durable": info.durable,
        "parameters": list(info.parameters) if info.parameters is not None else None,
        "fields": list(info.fields) if info.fields is not None else None,
        **more,
    }


async def _stream(exchange: Exchange, values: AsyncIterator[Any]) -> None:
    """Server-sent events: one per value, `error` with the error's JSON when it fails, `end` when it is whole."""
    try:
        # Before the head: a call that fails at once still has the status of its error.
        first = [msgspec.json.encode(await anext(values))]
    except StopAsyncIteration:
        first = []
    except Exception as error:  # noqa: BLE001 - the HTTP door
        raise told(error) from None
    events = EventStream(exchange)
    for payload in first:
        await events.send(payload)
    try:
        async for value in values:
            await events.send(msgspec.json.encode(value))
        await events.send(b"{}", event="end")
    except Exception as error:  # noqa: BLE001 - the HTTP door
        await events.send(content(told(error), exchange.trace_id).rstrip(), event="error")
    events.end()
