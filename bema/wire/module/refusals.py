"""Refusals: the answers to operations that are not carried out, in the form of the reference where it has one.

Law: an operation that asks for an answer gets one. The reference can refuse five of its operations; for the others there is
an `error` of ours, which only a peer that lists the feature understands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bema.core.errors import BemaError
from bema.wire.module.messages import (
    DiscoverServiceProviders,
    DiscoverServiceProvidersResponse,
    GetSecret,
    Op,
    OperationError,
    PortRequest,
    PortResponse,
    RegisterServiceProvider,
    RegisterServiceProviderResponse,
    RouteToModule,
    ServiceOperation,
    ServiceOperationResult,
    ServiceRequest,
    ServiceResponse,
)

# the reference's own
_SHAPES: dict[type[Op], Callable[[Any, str], Op]] = {
    RegisterServiceProvider: lambda asked, why: RegisterServiceProviderResponse(success=False, error=why),
    DiscoverServiceProviders: lambda asked, why: DiscoverServiceProvidersResponse(success=False, error=why),
    ServiceRequest: lambda asked, why: ServiceResponse(
        id=asked.id, service_type=asked.service_type, success=False, error=why
    ),
    ServiceOperation: lambda asked, why: ServiceOperationResult(success=False, error=why),
    PortRequest: lambda asked, why: PortResponse(request_id=asked.request_id, success=False, error_message=why),
}
# what the others are matched by
_KEYS: dict[type[Op], str] = {GetSecret: "name", RouteToModule: "request_id"}


def refusal_of(asked: Any, error: BemaError) -> Op | None:
    """The answer that refuses an operation; None where nobody waits for one."""
    if (shape := _SHAPES.get(type(asked))) is not None:
        return shape(asked, error.message)
    if (key := _KEYS.get(type(asked))) is not None:
        return OperationError(
            of=asked.__struct_config__.tag, key=getattr(asked, key), code=error.code, message=error.message
        )
    return None


def unread_line(reason: str) -> OperationError:
    """The answer to a line that is no operation."""
    return OperationError(code="protocol", message=reason)
