"""A function as a `Handler`: the arguments of a call by name, the call itself and the incoming stream where it asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bema.core.call import Call, Handler
from bema.core.spec import EndpointSpec
from bema.runtime import threads


def handler_of(function: Callable[..., Any], spec: EndpointSpec) -> Handler:
    """What a server calls for this endpoint; where `spec.threaded`, the server calls it in a thread."""
    takes_call, incoming = spec.takes_call, spec.incoming
    if takes_call is None and incoming is None:
        return lambda call: function(**call.arguments)

    def handle(call: Call) -> Any:
        arguments = dict(call.arguments)
        if takes_call is not None:
            arguments[takes_call] = call
        if incoming is not None:
            arguments[incoming] = call.requests
        return function(**arguments)

    return handle


def off_the_loop(handler: Handler, spec: EndpointSpec) -> Handler:
    """A handler that may run on an event loop: one of a plain function runs in a thread."""
    if not spec.threaded:
        return handler
    return threads.stream_in_thread(handler) if spec.shape.streams_out else threads.unary_in_thread(handler)  # type: ignore[arg-type]
