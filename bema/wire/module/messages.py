"""Messages: every operation of the module channel, in both directions, as structs tagged by `op`.

Law: exact on output, lenient on input. What we write has the fields of the reference implementation in its order, with
`null` where it writes `null`. What we read may hold unknown fields, and text in place of bytes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from bema.core.instance import EndpointInfo
from bema.core.redaction import hides
from bema.wire.module.handshake import Announce, Init, Stop, always

Octet = Annotated[int, msgspec.Meta(ge=0, le=255)]
Body = list[Octet] | str | None  # written as a list of integers; text is read too


def body_of(data: bytes | None) -> list[int] | None:
    """Bytes as this protocol writes them: a list of integers."""
    return None if data is None else list(data)


def body_bytes(body: list[int] | str | None) -> bytes | None:
    """The bytes of a body that was read, in either form."""
    return body.encode() if isinstance(body, str) else None if body is None else bytes(body)


class Op(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="op"):
    """Base of all operations: flat JSON, tagged by `op`."""


class CustomService(msgspec.Struct, frozen=True):
    name: str = msgspec.field(name="Custom")


ServiceType = Literal["Database", "Cache", "Jwt"] | CustomService


class EncodedMessage(msgspec.Struct):
    data: list[Octet]
    format: Literal["Json", "Binary", "Base64", "Auto"]


# module -> orchestrator


class Identify(Op, tag="identify"):
    module_id: str


class GetSecret(Op, tag="get_secret"):
    name: str


class RotationAck(Op, tag="rotation_ack"):
    rotation_id: str
    status: Literal["success", "error"]
    message: str | None = None


class RegisterServiceProvider(Op, kw_only=True, tag="register_service_provider"):
    service_type: ServiceType
    name: str
    version: str | None = always(None)
    address: str
    metadata: dict[str, str] | None = always(None)


class DiscoverServiceProviders(Op, tag="discover_service_providers"):
    service_type: ServiceType
    all_providers: bool | None = always(None)


class ServiceRequest(Op, tag="service_request"):
    id: str
    service_type: ServiceType
    config: Any = always(None)


class ServiceOperation(Op, tag="service_operation"):
    connection_id: str
    service_type: ServiceType
    operation: str
    params: Any


class HttpAnswer(msgspec.Struct, kw_only=True):
    """An HTTP response without its tag, as envelopes carry it."""

    request_id: str
    status_code: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    headers: dict[str, str]
    body: Body = None


class HttpResponse(HttpAnswer, kw_only=True, tag_field="op", tag="http_response"):
    pass


class PortRequest(Op, tag="port_request"):
    request_id: str
    specific_port: int | None = always(None)


class RouteToModule(Op, tag="route_to_module"):
    target_module_id: str
    target_endpoint: str
    request_id: str
    payload: EncodedMessage


class HeartbeatAck(Op, tag="heartbeat_ack"):
    pass


class Status(Op, tag="status"):
    """The parts of a record that change while a process serves. Only a launcher that lists the feature gets it.

    Each message is complete, so only the last one counts; an absent field is as it was announced. One that comes before the
    announcement says how the process will serve.
    """

    ready: bool = always(True)  # takes new calls
    stalled: bool = always(False)  # its event loop does not turn
    operations: list[EndpointInfo] | None = None
    data: dict[str, Any] | None = None  # what it publishes about itself
    digest: str | None = None  # of the description


# orchestrator -> module


class OperationError(Op, tag="error"):
    """The refusal of an operation for which the reference has none. Only a module that lists the feature gets it.

    `of` is the operation's `op`, absent where the line could not be read; `key` is what it is matched by: the
    `request_id` of one that bears any, the `name` of a secret.
    """

    code: str
    message: str
    of: str | None = None
    key: str | None = None


class InitAgain(Init, kw_only=True, omit_defaults=True, tag_field="op", tag="init"):
    """An Init after the first line: it carries its tag and changes nothing."""

    __repr__ = hides("env", "auth_token")


class Secret(Op, tag="secret"):
    name: str
    value: str
    rotation_id: str | None = None
    __repr__ = hides("value")


class Rotated(Op, tag="rotated"):
    keys: list[str]
    rotation_id: str


class Heartbeat(Op, tag="heartbeat"):
    pass


class RegisterServiceProviderResponse(Op, tag="register_service_provider_response"):
    success: bool
    provider_id: str | None = always(None)
    error: str | None = always(None)


class ServiceProvider(msgspec.Struct, kw_only=True):
    provider_id: str
    module_id: str
    service_type: ServiceType
    name: str
    version: str | None = None
    address: str
    metadata: dict[str, str] = {}
    is_healthy: bool


class DiscoverServiceProvidersResponse(Op, tag="discover_service_providers_response"):
    success: bool
    providers: list[ServiceProvider] = always([])
    error: str | None = always(None)


class ServiceResponse(Op, tag="service_response"):
    id: str
    service_type: ServiceType
    success: bool
    error: str | None = always(None)
    connection_id: str | None = always(None)


class ServiceOperationResult(Op, tag="service_operation_result"):
    success: bool
    result: Any = always(None)
    error: str | None = always(None)


class HttpQuestion(msgspec.Struct, kw_only=True):
    """An HTTP request without its tag, as envelopes carry it."""

    request_id: str
    method: str
    uri: str
    headers: dict[str, str]
    body: Body = None


class HttpRequest(HttpQuestion, kw_only=True, tag_field="op", tag="http_request"):
    pass


class PortResponse(Op, tag="port_response"):
    request_id: str
    success: bool
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = always(0)
    error_message: str | None = always(None)


class RoutedModuleMessage(Op, tag="routed_module_message"):
    source_module_id: str
    original_request_id: str
    payload: EncodedMessage


class RoutedModuleResponse(Op, tag="routed_module_response"):
    source_module_id: str
    request_id: str
    payload: EncodedMessage


FromModule = (
    Announce
    | DiscoverServiceProviders
    | GetSecret
    | HeartbeatAck
    | HttpResponse
    | Identify
    | PortRequest
    | RegisterServiceProvider
    | RotationAck
    | RouteToModule
    | ServiceOperation
    | ServiceRequest
    | Status
)
ToModule = (
    DiscoverServiceProvidersResponse
    | Heartbeat
    | HttpRequest
    | InitAgain
    | OperationError
    | PortResponse
    | RegisterServiceProviderResponse
    | Rotated
    | RoutedModuleMessage
    | RoutedModuleResponse
    | Secret
    | ServiceOperationResult
    | ServiceResponse
    | Stop
)
