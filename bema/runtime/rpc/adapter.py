"""Adapter: from a user's function to a `Handler`.

Law: the function gets the arguments of a call by name, and the call or the incoming stream only where it asks for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bema.core.call import Call, Handler
from bema.core.spec import EndpointSpec
from bema.runtime import threads


def handler_of(function: Callable[..., Any], spec: EndpointSpec) -> Handler:
    """The handler of an endpoint's function. Where `spec.threaded` is set, it must be called in a thread."""
    # most functions ask for neither: they get a handler without a copy of the arguments
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
    """A handler that may be called in an event loop: that of a plain function runs in a thread."""
    if not spec.threaded:
        return handler
    return threads.stream_in_thread(handler) if spec.shape.streams_out else threads.unary_in_thread(handler)  # type: ignore[arg-type]
